-- The outbox of posthorn. An event is a row, written in the transaction of the change that it tells of.
-- PostgreSQL 13 or later. The producer's user needs insert and select on {table}; the relay's
-- select, update and delete on it, and insert and select on {rejected}.
create table {table} (
    seq bigint generated always as identity primary key,
    id uuid not null default gen_random_uuid(),
    tenant text,
    type text not null,
    data json not null,
    ordering_key text,
    schema_version text,
    deliver_at timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    hash_range int not null generated always as (hashtext(coalesce(ordering_key, id::text)) & {mask}) stored
);
-- Rows come and go: what they leave behind is to be cleared away early.
alter table {table} set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
create index {index} on {table} (hash_range, seq);

-- Rows that cannot be events, with the reason. Mended, they are inserted into the outbox again.
create table {rejected} (
    no bigint generated always as identity primary key,
    seq bigint not null,
    id uuid not null,
    tenant text,
    type text,
    data json,
    ordering_key text,
    schema_version text,
    deliver_at timestamptz,
    created_at timestamptz,
    reason text not null,
    rejected_at timestamptz not null default clock_timestamp()
);

-- select {publish}('order.paid', '{"id":1}', ordering_key => '1');
create function {publish}(type text, data json, tenant text default null, ordering_key text default null,
    schema_version text default null, deliver_at timestamptz default null) returns uuid
language sql as $$
    insert into {table} (type, data, tenant, ordering_key, schema_version, deliver_at)
    values ($1, $2, $3, $4, $5, $6) returning id;
$$;
