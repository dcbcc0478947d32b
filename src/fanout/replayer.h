/* The replayer: works off bulk replays, a bounded step a transaction, between whatever else the writer does.
 *
 * Replays run in their own share: of each subscription no more are outstanding (started, first attempt not
 * settled) than `share_percent` of its max_in_flight, at least one, so that a live event finds the other
 * places free and waits behind no backlog. A replay's own pace (per_second) comes on top. Replays take turns,
 * and so do the subscriptions of one. */
#pragma once

#include "fanout/fanout.h"
#include "store/replay.h"
#include "store/writer.h"

enum {
    REPLAY_ROWS_A_STEP = 1000,    /* looked at */
    REPLAY_LANES_A_STEP = 64,     /* subscriptions that have their turn */
    REPLAY_OPEN_MAX = 20,         /* replays of a tenant that have work left; one more is refused */
    REPLAY_RECOVERY_MAX = 100000, /* deliveries that an automatic replay takes; the rest stays in the DLQ */
    REPLAY_RECOVERY_PER_SECOND = 100,
};
/* Who asked for an automatic replay. */
#define REPLAY_BY_SYSTEM "system"

struct replayer_options {
    struct fanout *fanout;
    struct writer *writer;
    struct dispatch *dispatch;
    struct metrics *metrics;
    struct id_source *ids;
    unsigned share_percent; /* 1…100 */
};

struct replayer;
int replayer_new(const struct replayer_options *o, struct replayer **ret) MUST_USE;
/* There may be work: a replay was asked for or cancelled, or a place has become free. On the writer's thread.
 */
void replayer_kick(struct replayer *r);
/* The same after a commit, if a place has become free in it or a subscription has recovered. */
void replayer_committed(struct replayer *r, struct store *s);
/* From any thread, some times a second: for those that wait for their pace. */
void replayer_tick(struct replayer *r);
/* From any thread: takes up no further step. */
void replayer_stop(struct replayer *r);
/* After the writer has ended. */
void replayer_free(struct replayer *r);

/* Within the transaction in which a subscription recovers (its breaker closes, it is enabled again): asks for
 * the automatic replay, when its policy says so, of what it lost to exhausted attempts or window since the
 * last one. */
int replayer_recover(struct replayer *r, struct store *s, const struct subscription *sub,
                     int64_t now) MUST_USE;
