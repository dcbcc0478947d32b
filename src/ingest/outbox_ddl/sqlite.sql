-- The outbox of posthorn. An event is a row, written in the transaction of the change that it tells of.
-- SQLite 3.38 or later.
create table {table} (
    seq integer primary key autoincrement,
    id text not null default (lower(hex(randomblob(16)))),
    tenant text,
    type text not null,
    data text not null check (json_valid(data)),
    ordering_key text,
    schema_version text,
    deliver_at text,
    created_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

-- Rows that cannot be events, with the reason. Mended, they are inserted into the outbox again.
create table {rejected} (
    no integer primary key,
    seq integer not null,
    id text not null,
    tenant text,
    type text,
    data text,
    ordering_key text,
    schema_version text,
    deliver_at text,
    created_at text,
    reason text not null,
    rejected_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

-- insert into {publish} (type, data, ordering_key) values ('order.paid', '{"id":1}', '1');
create view {publish} as
    select type, data, tenant, ordering_key, schema_version, deliver_at from {table};
create trigger {insert} instead of insert on {publish} begin
    insert into {table} (type, data, tenant, ordering_key, schema_version, deliver_at)
    values (new.type, new.data, new.tenant, new.ordering_key, new.schema_version, new.deliver_at);
end;
