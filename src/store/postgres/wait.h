/* What the files of a connection share. */
#pragma once

#include "store/postgres/connection.h"

/* The SQLSTATE (division by zero) by which a transaction's last statement says that this node was declared
 * dead: see fence.c. */
#define PG_FENCED "22012"

/* Until PQgetResult would not block. -EIO, -ETIMEDOUT. */
int pg_wait_result(PGconn *conn, int64_t deadline_us) MUST_USE;
/* Logs that the connection is lost, once until it is back. `advice` may be NULL. */
void pg_say_lost(struct pg *c, const char *why, const char *advice);
