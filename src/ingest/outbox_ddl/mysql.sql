-- The outbox of posthorn. An event is a row, written in the transaction of the change that it tells of.
-- MariaDB 10.6 or MySQL 8.0.16, or later; InnoDB. The producer's user needs execute on the procedure
-- {publish}; the relay's select, update and delete on {table}, and insert and select on
-- {rejected}.
-- Texts are wider than an event's may be: where sql_mode is not strict, what was cut off is still refused.
create table {table} (
    seq bigint not null auto_increment primary key,
    id varchar(36) not null default (uuid()),
    tenant varchar(255),
    type varchar(255) not null,
    data longtext not null check (json_valid(data)),
    ordering_key varchar(256),
    schema_version varchar(255),
    deliver_at timestamp(3) null default null,
    created_at timestamp(3) not null default current_timestamp(3),
    hash_range int generated always as (crc32(coalesce(ordering_key, id)) & {mask}) stored,
    key hash_range_seq (hash_range, seq)
) engine = InnoDB default charset = utf8mb4;

-- Rows that cannot be events, with the reason. Mended, they are inserted into the outbox again.
create table {rejected} (
    no bigint not null auto_increment primary key,
    seq bigint not null,
    id varchar(36) not null,
    tenant varchar(255),
    type varchar(255),
    data longtext,
    ordering_key varchar(256),
    schema_version varchar(255),
    deliver_at timestamp(3) null default null,
    created_at timestamp(3) null default null,
    reason text not null,
    rejected_at timestamp(3) not null default current_timestamp(3)
) engine = InnoDB default charset = utf8mb4;

-- call {publish}('order.paid', '{"id":1}', null, '1', null, null);
create procedure {publish}(
    in event_type varchar(255) character set utf8mb4, in event_data longtext character set utf8mb4,
    in event_tenant varchar(255) character set utf8mb4, in event_ordering_key varchar(256) character set utf8mb4,
    in event_schema_version varchar(255) character set utf8mb4, in event_deliver_at timestamp(3))
    insert into {table} (type, data, tenant, ordering_key, schema_version, deliver_at)
    values (event_type, event_data, event_tenant, event_ordering_key, event_schema_version, event_deliver_at);
