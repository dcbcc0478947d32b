-- The failing_since that posthorn.subscription.failing has told of, until posthorn.subscription.recovered is told.
ALTER TABLE subscriptions ADD COLUMN raised_since INTEGER;
