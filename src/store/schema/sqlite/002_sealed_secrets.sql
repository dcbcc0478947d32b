-- Secrets are sealed (core/seal.h): with the id, tenant and scheme they belong to. Those from before wait in secrets_plain until
-- store_unlock has a key; it seals them and drops the table.

-- The keys that have sealed what is there: one, or two while secrets are sealed anew.
CREATE TABLE seal_keys (
    no          INTEGER PRIMARY KEY AUTOINCREMENT,
    fingerprint BLOB    NOT NULL UNIQUE
);

ALTER TABLE secrets RENAME TO secrets_plain;
CREATE TABLE secrets (
    key          INTEGER NOT NULL,
    tail         INTEGER NOT NULL,
    subscription INTEGER NOT NULL,
    tenant       INTEGER NOT NULL,
    scheme       INTEGER NOT NULL, -- enum signing_scheme
    seal_key     INTEGER NOT NULL,
    sealed       BLOB    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    PRIMARY KEY (subscription, key, tail)
) WITHOUT ROWID;
