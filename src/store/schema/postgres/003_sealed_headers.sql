-- The headers of a subscription, which hold what its receiver asks for, are sealed apart from its document, and so are those that
-- an attempt has sent. While the mark stands some lie in clear: store_unlock seals them.
ALTER TABLE subscriptions
    ADD COLUMN headers bytea,       -- sealed: the member of doc, in which {} stands in its place
    ADD COLUMN headers_key integer; -- that sealed them
CREATE INDEX subscriptions_by_headers_key ON subscriptions (headers_key) WHERE headers_key IS NOT NULL;
ALTER TABLE attempts RENAME COLUMN request_headers TO request_headers_clear; -- of before; always NULL once they are sealed
ALTER TABLE attempts ADD COLUMN request_headers bytea;
CREATE TABLE marks (
    name  text   NOT NULL PRIMARY KEY,
    value bigint NOT NULL
);
INSERT INTO marks SELECT 'headers_in_clear', 1 WHERE EXISTS (SELECT 1 FROM subscriptions);
