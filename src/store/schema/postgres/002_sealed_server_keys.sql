-- What the server made for itself is sealed as secrets are (core/seal.h). A key from before has no seal_key until store_unlock has
-- one, which seals it.
ALTER TABLE server_keys ADD COLUMN seal_key integer;
