-- The headers of a subscription, which hold what its receiver asks for, are sealed apart from its document, and so are those that
-- an attempt has sent (attempts.request_headers: a BLOB; TEXT is from before). While the mark stands some lie in clear:
-- store_unlock seals them.
ALTER TABLE subscriptions ADD COLUMN headers BLOB;        -- sealed: the member of doc, in which {} stands in its place
ALTER TABLE subscriptions ADD COLUMN headers_key INTEGER; -- that sealed them
CREATE INDEX subscriptions_by_headers_key ON subscriptions (headers_key) WHERE headers_key IS NOT NULL;
INSERT INTO marks SELECT 'headers_in_clear', 1 WHERE EXISTS (SELECT 1 FROM subscriptions);
