/* Where the server is: a libpq URI, taken apart. */
#pragma once

#include <libpq-fe.h>

#include "base/bytes.h"

enum { PG_HOSTS_MAX = 16, PG_KEYWORDS_MAX = 64 };

/* The server cannot be reached: known to all connections, so that it is told once, and once that it is over.
 */
struct pg_outage {
    _Atomic int64_t since_us; /* monotonic; 0: there is none */
};

/* Never logged: it may hold a password. */
struct pg_source {
    /* As PQconnectStartParams wants them, with a NULL at their end; the first three are for pg_source_host.
     */
    const char *keywords[PG_KEYWORDS_MAX], *values[PG_KEYWORDS_MAX];
    PQconninfoOption *options;
    char *hosts[3][PG_HOSTS_MAX]; /* host, hostaddr, port of each; NULL: libpq's own choice */
    size_t hosts_n;
    int connect_ms; /* as the URL has it; 0: it does not say */
    size_t n;
    char *password; /* of elsewhere than the URL */
    struct pg_outage *outage;
    char name[256];
};

/* -EINVAL: it is no such URI; -ENOMEM. */
int pg_source_parse(const char *url, struct pg_source **ret, const char **ret_message) MUST_USE;
void pg_source_free(struct pg_source *s); /* NULL-safe */
/* For later connections, when the URL has none (NULL or "": there is nothing to keep). -ENOMEM. */
int pg_source_keep_password(struct pg_source *s, const char *password) MUST_USE;
/* The values that name the n-th host. */
void pg_source_host(const struct pg_source *s, size_t n, const char *values[PG_KEYWORDS_MAX]);

DEFINE_CLEANUP(cleanup_pg_source, struct pg_source, pg_source_free)
#define _cleanup_pg_source_ _cleanup_(cleanup_pg_source)
