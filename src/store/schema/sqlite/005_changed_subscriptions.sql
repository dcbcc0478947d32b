-- Fan-out jobs in the order they were accepted, and up to which of them a subscription has had its part already: what it
-- matches has changed since, and only jobs after these go by what it matches now.
ALTER TABLE fanout_jobs ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN jobs_settled INTEGER;
