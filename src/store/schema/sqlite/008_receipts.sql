-- What subscribers said became of their deliveries. A receipt by a later attempt's token takes the place of an earlier one's.
CREATE TABLE receipts (
    event        INTEGER NOT NULL,
    subscription INTEGER NOT NULL,
    attempt      INTEGER NOT NULL, -- whose token it came with
    status       INTEGER NOT NULL, -- enum receipt_status
    note         TEXT,
    at           INTEGER NOT NULL,
    PRIMARY KEY (event, subscription)
) WITHOUT ROWID;

-- Keys that the server made for itself at its first start.
CREATE TABLE server_keys (
    name  TEXT NOT NULL PRIMARY KEY,
    bytes BLOB NOT NULL
) WITHOUT ROWID;
