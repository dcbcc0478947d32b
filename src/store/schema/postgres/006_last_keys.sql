-- The greatest id is looked up at each start: API keys have such an index already.
CREATE INDEX subscriptions_by_last_key ON subscriptions (key);
CREATE INDEX secrets_by_key ON secrets (key);
CREATE INDEX replays_by_key ON replays (key);
