
-- Wakes the relay at the commit, when it sleeps: it holds the lock of the row's range then. PostgreSQL lets
-- transactions that notify commit one after the other. Without this trigger the relay polls.
create function {wake}() returns trigger language plpgsql as $$
begin
    if not pg_try_advisory_xact_lock_shared(
            (112::bigint << 56) | (tg_relid::bigint << 8) | ({sleep} + new.hash_range)) then
        perform pg_notify('{bare}', '');
    end if;
    return null;
end $$;
create trigger {wake_bare} after insert on {table} for each row execute function {wake}();
