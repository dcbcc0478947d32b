-- A tenant's tier decides which node sends for its lanes. Changes of tiers are numbered in the order in which they were
-- committed, so that a node can say up to which of them it has let go of what is not its own any more.
ALTER TABLE tenants ADD COLUMN tier_change bigint NOT NULL DEFAULT 0; -- the last of this tenant's tier
CREATE INDEX tenants_by_tier_change ON tenants (tier_change) WHERE tier_change > 0;
ALTER TABLE nodes ADD COLUMN tier_changes bigint; -- all up to this one are in force on it; NULL: its version does not say
