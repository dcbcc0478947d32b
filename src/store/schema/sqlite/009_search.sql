-- Finding deliveries by how they failed, and events by their type.

-- Only what failed with its last attempt is in these; a delivery that went well first time never touches them.
CREATE INDEX deliveries_refused ON deliveries (tenant, last_status, event) WHERE last_status >= 300;
CREATE INDEX deliveries_unanswered ON deliveries (tenant, last_error, event) WHERE last_error IS NOT NULL;

-- The log of each event type, like subscription_log: by about an hour first, filled in behind the events up to type_watermark.
-- Types go by a hash of tenant and name; readers compare the event's own.
CREATE TABLE type_log (
    hour  INTEGER NOT NULL, -- event >> 34
    type  INTEGER NOT NULL, -- type_hash(tenant, type)
    event INTEGER NOT NULL,
    PRIMARY KEY (hour, type, event)
) WITHOUT ROWID;
INSERT INTO marks VALUES ('type_watermark', 0);
