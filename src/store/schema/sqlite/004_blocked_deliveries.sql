-- What waits behind an earlier delivery of its lane key: for the gauge of what is pending, and for closing a deleted lane. The
-- columns of the condition are in it so that counting touches no row (SQLite 3.40 looks them up otherwise).
CREATE INDEX deliveries_blocked ON deliveries (subscription, lane_key, due_at, lease_until)
    WHERE lane_key IS NOT NULL AND due_at IS NULL AND lease_until IS NULL;
