/* One thread's epoll loop: watched descriptors, monotonic timers, and a mailbox by which other threads hand
 * it work. Everything but loop_post and loop_stop belongs to the loop's own thread. */
#pragma once

#include <stdint.h>
#include <sys/epoll.h>

#include "base/bytes.h"
#include "base/heap.h"

struct loop;

/* A watched descriptor, embedded by the caller; zero-initialised with fd = -1 when unused. */
struct loop_watch {
    void (*fn)(struct loop_watch *w, uint32_t epoll_events);
    int fd;
    uint32_t events;
};

/* A one-shot timer, embedded by the caller, zero-initialised. */
struct loop_timer {
    struct heap_node node;
    void (*fn)(struct loop_timer *t);
};

/* A message, embedded by the sender; the receiver's fn takes it over. */
struct loop_message {
    struct loop_message *next;
    void (*fn)(struct loop_message *m);
};

/* 0, or a negative errno of epoll_create1/eventfd. */
int loop_new(struct loop **ret) MUST_USE;
void loop_free(struct loop *l);

/* Watches fd, or watches it for other events; a watch that had another fd leaves that. Set w->fn before; w
 * stays where it is until it is cleared. */
int loop_watch_set(struct loop *l, struct loop_watch *w, int fd, uint32_t events) MUST_USE;
/* Call before closing the descriptor. Afterwards fn is not called any more and w may be freed, in any
 * callback, its own too. */
void loop_watch_clear(struct loop *l, struct loop_watch *w);

/* Frees memory that holds a watch once this round's events have been handled: an event of it may be among
 * them. */
void loop_free_later(struct loop *l, void *p);

/* (Re)arms t for a moment of the monotonic clock, in microseconds. */
void loop_timer_set(struct loop *l, struct loop_timer *t, int64_t at_mono_us);
void loop_timer_clear(struct loop *l, struct loop_timer *t);

/* From any thread: m->fn runs on the loop's thread, in the order posted. */
void loop_post(struct loop *l, struct loop_message *m);

/* Runs until loop_stop. `before_wait`, when given, is called each time the loop has worked off what there was
 * and is about to wait: the place to submit in one piece what many callbacks have gathered. */
void loop_run(struct loop *l, void (*before_wait)(void *arg), void *arg);
void loop_stop(struct loop *l); /* from any thread */

/* Deterministic driving for tests: handles what is ready, waiting at most wait_ms. */
void loop_step(struct loop *l, int wait_ms);
