-- What retention goes by: a worker leaves some time after it was last seen, a key after its end.
ALTER TABLE workers ADD COLUMN seen_at INTEGER NOT NULL DEFAULT 0; -- about: once an hour
UPDATE workers SET seen_at = CAST(strftime('%s', 'now') AS INTEGER) * 1000;
CREATE INDEX api_keys_ended ON api_keys (coalesce(revoked_at, expires_at));
