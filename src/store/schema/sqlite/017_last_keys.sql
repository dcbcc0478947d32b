-- The greatest id is looked up at each start: subscriptions, API keys and replays have such an index already.
CREATE INDEX secrets_by_key ON secrets (key);
