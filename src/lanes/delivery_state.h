/* A delivery loop from the inside, as the rooms behind delivery_loop.h share it: delivery_loop.c (attempts,
 * and its life), delivery_turns.c, delivery_commands.c, removals.c. All on the loop's thread. */
#pragma once

#include <pthread.h>

#include "lanes/delivery_loop.h"
#include "lanes/permits.h"
#include "lanes/turn.h"

/* A subscription being removed: who waits, and what is left to close. */
struct removal {
    uint32_t no;
    bool sending_stopped;
    void (*stopped)(void *arg);
    void *arg;
    struct removal *next;
};

struct delivery_loop {
    struct dispatch_options o;
    unsigned index;
    pthread_t thread;
    struct loop *loop;
    struct lanes *lanes;
    struct client *client;
    struct store_reader *reader;
    struct signer *signer;
    struct rng rng;
    struct attempt_context context;

    struct permits *permits; /* the writer's thread alone */
    uint64_t lane_changes;   /* that were heard of, as permits_forget counts them */

    struct turn *turn; /* the one there is */
    bool turn_under_way;
    int64_t no_turn_before; /* after a failed one, Unix ms */
    struct writer_job job;
    struct loop_message turn_done;
    struct loop_timer wake;

    struct attempt *ended, **ended_tail;        /* to be settled, oldest first */
    struct attempt *settling[TURN_SETTLES_MAX]; /* of the turn under way */
    struct attempt *idle;
    unsigned idle_n;
    size_t attempts_open; /* started and not yet settled */

    atomic_uint releases_asked, releases_done; /* of dispatch_release */
    atomic_uint leaving;                       /* lanes_leaving, as other threads see it */

    uint64_t relane_walked; /* the change that turn->relane_cursor is of */
    struct removal *removals;
    bool stopping; /* claims nothing more */
    bool ending;   /* ends when nothing is in flight */
    int64_t lag_told_at, lag_told_ms;
};

/* Sends a claimed task. */
void delivery_begin(struct delivery_loop *d, const struct task *t, int64_t now);
/* An attempt has been settled, or is not to be. */
void delivery_return(struct delivery_loop *d, struct attempt *a);

void delivery_turns_init(struct delivery_loop *d);
/* The loop is about to wait: hands the writer what has gathered. */
void delivery_before_wait(void *arg);

struct removal *removals_find(struct delivery_loop *d, uint32_t no); /* NULL when there is none */
/* The subscription is gone: no attempt of it begins any more, and then its waiting deliveries are closed. */
void removals_add(struct delivery_loop *d, uint32_t no, void (*stopped)(void *arg), void *arg);
/* Nothing of it is in flight any more. */
void removals_sending_stopped(struct delivery_loop *d, uint32_t no);
/* The one whose waiting deliveries the next turn closes; 0 when there is none. */
uint32_t removals_next_closing(const struct delivery_loop *d);
/* A turn has closed so many of its deliveries. */
void removals_progressed(struct delivery_loop *d, uint32_t no, unsigned closed);
