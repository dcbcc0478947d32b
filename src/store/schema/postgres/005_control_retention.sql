-- What retention goes by: a worker leaves some time after it was last seen, a key after its end.
ALTER TABLE workers ADD COLUMN seen_at bigint NOT NULL DEFAULT 0; -- about: once an hour
UPDATE workers SET seen_at = (extract(epoch FROM clock_timestamp()) * 1000)::bigint;
CREATE INDEX api_keys_ended ON api_keys (coalesce(revoked_at, expires_at));
