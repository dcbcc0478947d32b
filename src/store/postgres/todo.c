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
#define TODO_READ(X) \
    X(retain) \
    X(retain_idempotency) \
    X(insert_replay) \
    X(next_replay) \
    X(update_replay) \
    X(cancel_replay) \
    X(cancel_replay_step) \
    X(delete_replay) \
    X(last_recovery) \
    X(retain_replays) \
    X(open_replay_lanes) \
    X(list_replay_lanes) \
    X(has_replay_lanes) \
    X(update_replay_lane) \
    X(delete_replay_lane) \
    X(find_replayable) \
    X(replay_missing) \
    X(take_replay_progress) \
    X(read_event) \
    X(list_events) \
    X(read_body) \
    X(read_delivery) \
    X(list_deliveries) \
    X(list_attempts) \
    X(list_transitions) \
    X(count_deliveries) \
    X(sum_dlq) \
    X(list_dlq_counts) \
    X(count_lane) \
    X(read_replay) \
    X(list_replays) \
    X(count_replayable)

/* clang-format on */

static int todo(void) __attribute__((used));
static int todo(void) {
    log_error("a call of the PostgreSQL store is not written yet");
    return -ENOSYS;
}

#pragma GCC diagnostic ignored "-Wattribute-alias"
#define X(name) typeof(store_##name) postgres_##name __attribute__((alias("todo")));
TODO_CORE(X)
TODO_READ(X)
#undef X
