/* Bulk replays in the store: a replay is a persisted job, worked off in bounded steps on the writer's thread
 * (fanout/replayer.h). It walks each subscription it covers by a lane of its own, so that one that cannot
 * send holds up no other, and starts no more deliveries of a lane than its share lets be outstanding. What it
 * started it counts in the transaction that closes it: a crash loses nothing and repeats nothing. */
#pragma once

#include "store/store.h"

/* Stored: append only. */
enum replay_state {
    REPLAY_RUNNING,    /* there may be more to start */
    REPLAY_SENDING,    /* all are started, not all are closed */
    REPLAY_DONE,       /* all are closed */
    REPLAY_CANCELLING, /* what has not been attempted is moved to the DLQ */
    REPLAY_CANCELLED,
};
/* "running" for the first two. */
const char *replay_state_name(enum replay_state s);

/* Which deliveries a replay takes. */
struct replay_filter {
    uint32_t tenant_no;
    uint32_t subscription_no; /* 0: all live ones of the tenant */
    uint32_t states;          /* set of 1 << enum delivery_state, of closed ones */
    uint32_t reasons;         /* set of 1 << enum delivery_reason; 0: any */
    struct slice event_type;  /* exact, or "prefix.*"; absent: any */
    uint64_t first_event, last_event;
    int64_t closed_after; /* only what was closed at this time or later; 0: any */
    bool include_missing; /* also events that match the one subscription and have no delivery to it */
};

struct replay_record {
    struct id id; /* id_ms(id) is created_at */
    struct replay_filter filter;
    enum replay_state state;
    bool dry_run; /* counts only */
    uint32_t per_second;
    uint64_t most;
    struct slice requested_by;
    /* progress */
    uint64_t matched; /* as counted when it was asked for */
    uint64_t started, done, failed;
    uint32_t opened, served;
    int64_t paid_until; /* µs */
};
/* What is told as matched: what was counted, corrected by what was found. */
uint64_t replay_matched(const struct replay_record *r);

/* ---- writing ---- */

/* -EDQUOT: the tenant has `open_max` with work left already. */
int store_insert_replay(struct store *s, const struct replay_record *r, unsigned open_max) MUST_USE;
/* The next with work left after this key; -ENOENT. Slices live until the next call of this function. */
int store_next_replay(struct store *s, uint64_t after_key, struct replay_record *ret) MUST_USE;
/* Writes state, started, opened, served and paid_until. */
int store_update_replay(struct store *s, const struct replay_record *r) MUST_USE;
/* RUNNING or SENDING → CANCELLING. -ENOENT; -EALREADY when it has ended or is about to. */
int store_cancel_replay(struct store *s, uint32_t tenant_no, struct id id) MUST_USE;
/* Moves up to `limit` of its deliveries that have not been attempted to the DLQ; `moved` has room for as
 * many. *ret_ended: none is left, and it is CANCELLED. */
int store_cancel_replay_step(struct store *s, const struct replay_record *r, int64_t now, unsigned limit,
                             struct expired_task *moved, size_t *ret_n, bool *ret_ended) MUST_USE;
/* For an automatic one that found nothing. */
int store_delete_replay(struct store *s, uint64_t key) MUST_USE;
/* When the newest automatic replay of a subscription was asked for, 0: never; *ret_waiting: it has not begun.
 */
int store_last_recovery(struct store *s, uint32_t subscription_no, int64_t *ret_at,
                        bool *ret_waiting) MUST_USE;
/* Deletes up to `limit` ended ones of a tenant from before `before`. */
int store_retain_replays(struct store *s, uint32_t tenant_no, int64_t before, unsigned limit,
                         unsigned *ret_n) MUST_USE;

struct replay_lane {
    uint32_t subscription_no;
    uint64_t cursor;
    uint32_t share, outstanding;
};
/* Gives the next `limit` subscriptions that the replay covers a lane; moves r->opened, which is UINT32_MAX
 * when all have one. */
int store_open_replay_lanes(struct store *s, struct replay_record *r, unsigned limit) MUST_USE;
/* Up to max lanes that may go on, ascending after `after_no`. */
int store_list_replay_lanes(struct store *s, uint64_t replay_key, uint32_t after_no, struct replay_lane *ret,
                            size_t max, size_t *ret_n) MUST_USE;
/* Whether it has any lane left. */
int store_has_replay_lanes(struct store *s, uint64_t replay_key, bool *ret) MUST_USE;
int store_update_replay_lane(struct store *s, uint64_t replay_key, const struct replay_lane *l) MUST_USE;
int store_delete_replay_lane(struct store *s, uint64_t replay_key, uint32_t subscription_no) MUST_USE;

/* What is found on the way through a lane. */
struct replay_candidate {
    uint64_t event_key;
    bool missing; /* it has no delivery yet */
    uint64_t lane_key;
};
struct replay_look {
    uint64_t cursor; /* in: events up to this are looked at; out: up to where they are now */
    unsigned budget; /* in: rows to look at, at most; out: what is left */
    bool ended;      /* out: there is nothing behind the cursor */
    struct replay_candidate *found;
    size_t n, max; /* stops when `max` were found */
};
/* Goes on through the deliveries of one subscription, in the order of events. */
int store_find_replayable(struct store *s, const struct replay_filter *f, const struct subscription *sub,
                          struct replay_look *look) MUST_USE;
/* A delivery that there was none of: PENDING, due now, its window from now. -EEXIST; -ESTALE: the event is
 * gone. */
int store_replay_missing(struct store *s, uint64_t event_key, uint32_t subscription_no, uint32_t tenant_no,
                         uint64_t lane_key, int64_t now, struct slice source,
                         struct slice requested_by) MUST_USE;
/* Since the last call, a replay's first attempt was settled or given up: its lane may go on. */
bool store_take_replay_progress(struct store *s);

/* ---- reading ---- */

typedef int (*replay_row_fn)(void *arg, const struct replay_record *row);
int store_read_replay(struct store_reader *r, uint32_t tenant_no, struct id id, replay_row_fn fn,
                      void *arg) MUST_USE; /* -ENOENT */
/* before_key 0: from the newest. */
int store_list_replays(struct store_reader *r, uint32_t tenant_no, uint64_t before_key, size_t limit,
                       replay_row_fn fn, void *arg) MUST_USE;
/* How many deliveries match, having looked at no more than `budget` rows; *ret_exact tells whether these were
 * all. `sub`: the filter's subscription, NULL when it names none. */
int store_count_replayable(struct store_reader *r, const struct replay_filter *f,
                           const struct subscription *sub, unsigned budget, uint64_t *ret,
                           bool *ret_exact) MUST_USE;
