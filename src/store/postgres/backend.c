#include "store/postgres/postgres.h"

#define TABLE(name_, scheme_)                                                                                \
    const struct store_backend name_ = {.scheme = scheme_,                                                   \
                                        .cluster = &postgres_cluster,                                        \
                                        STORE_URL_CALLS(X) STORE_CALLS(X) STORE_READER_CALLS(X)}
#define X(name) .name = postgres_##name,
TABLE(postgres_backend, "postgres:");
TABLE(postgresql_backend, "postgresql:");
