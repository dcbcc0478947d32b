/* What a source's connections to PostgreSQL have in common, through libpq. */
#pragma once

#include <libpq-fe.h>

#include "ingest/source_sql.h"

/* Connects within SQL_CONNECT_MS as the source's settings say, in replication mode where that is asked for.
 * The connection is non-blocking and says no notices. Negative errno with `problem`. */
int postgres_connect(struct source *s, bool replication, PGconn **ret,
                     char problem[SQL_PROBLEM_SIZE]) MUST_USE;
