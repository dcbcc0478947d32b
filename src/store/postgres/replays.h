/* What the files of bulk replays share. */
#pragma once

#include "store/postgres/postgres.h"

/* What has ended but is not taken in yet, joined to replays r as c. */
#define PG_REPLAY_COUNTS                                                                                     \
    " r CROSS JOIN LATERAL (SELECT coalesce(sum(c.done), 0)::bigint AS done, coalesce(sum(c.failed), "       \
    "0)::bigint AS failed FROM replay_counts c WHERE c.tenant=r.tenant AND c.replay=r.key) c "
/* SENDING ends with the last of them. */
#define PG_REPLAY_STATE                                                                                      \
    "CASE WHEN r.state=1 AND r.done+c.done+r.failed+c.failed >= r.started THEN 2 ELSE r.state END"

/* The writer's parameters, with a tenant and a key. */
struct pg_params *pg_replay_params(struct store *s, uint32_t tenant_no, uint64_t key);
