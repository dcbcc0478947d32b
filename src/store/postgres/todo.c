/* Calls that are not written yet: whoever writes one takes its name off these lists. When they are empty this
 * file goes. */
#include <errno.h>

#include "base/log.h"
#include "store/postgres/postgres.h"

/* clang-format off */
/* pgcore */
#define TODO_CORE(X) \
    X(check)

/* pgread */
#define TODO_READ(X)

/* clang-format on */

static int todo(void) __attribute__((used));
static int todo(void) {
    log_error("a call of the PostgreSQL store is not written yet");
    return -ENOSYS;
}

#ifndef __clang__ /* which has no such warning */
#pragma GCC diagnostic ignored "-Wattribute-alias"
#endif
#define X(name) typeof(store_##name) postgres_##name __attribute__((alias("todo")));
TODO_CORE(X)
TODO_READ(X)
#undef X
