/* What the nodes' side of the PostgreSQL store shares. */
#pragma once

#include "store/postgres/postgres.h"

/* The calls of this backend, each as store/cluster.h has it. */
#define X(name) typeof(store_##name) postgres_##name;
STORE_CLUSTER_CALLS(X)
STORE_FEED_CALLS(X)
#undef X
