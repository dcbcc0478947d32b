-- Set while open deliveries may stand under the lane keys of an earlier ordering: the change's number.
ALTER TABLE subscriptions ADD COLUMN relane INTEGER;
