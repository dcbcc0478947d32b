/* One delivery loop: a thread with its lanes, its HTTP client and its turns at the writer. dispatch.c owns
 * it. */
#pragma once

#include "lanes/dispatch.h"

struct delivery_loop;

int delivery_loop_start(const struct dispatch_options *o, struct tenant_budgets *tenants, unsigned index,
                        unsigned budget, struct delivery_loop **ret) MUST_USE;
/* From any thread: no more claims. */
void delivery_loop_stop(struct delivery_loop *d);
/* From any thread, the last that is asked of it: the thread ends when nothing is in flight. */
void delivery_loop_end(struct delivery_loop *d);
/* Waits for the thread. */
void delivery_loop_join(struct delivery_loop *d);
void delivery_loop_free(struct delivery_loop *d);

/* Each may fail with -ENOMEM. Notices and questions come from any thread, the others from the writer's (or
 * before there are deliveries). */
int delivery_loop_put(struct delivery_loop *d, struct subscription *s,
                      const struct lane_start *start) MUST_USE;
/* Only when it serves the lane. */
int delivery_loop_change(struct delivery_loop *d, struct subscription *s) MUST_USE;
/* One lane, or (NULL: none) all of these partitions. */
int delivery_loop_release(struct delivery_loop *d, uint32_t no,
                          const struct partition_set *partitions) MUST_USE;
/* Whether it has done all that delivery_loop_release asked of it; adds the lanes that have attempts under way
 * to *leaving. */
bool delivery_loop_released(struct delivery_loop *d, uint32_t *leaving);
int delivery_loop_disinherit(struct delivery_loop *d, uint32_t no, uint32_t n) MUST_USE;
int delivery_loop_remove(struct delivery_loop *d, uint32_t no, void (*stopped)(void *arg),
                         void *arg) MUST_USE;
/* dispatch_begin and dispatch_made, of one loop. */
bool delivery_loop_begin(struct delivery_loop *d, const struct new_delivery *n, int64_t now,
                         int64_t *ret_lease_until);
void delivery_loop_made(struct delivery_loop *d, bool committed);
/* `heard`: of another node, which may mean lanes that are not here. */
int delivery_loop_notify(struct delivery_loop *d, const struct lane_notice *notices, size_t n,
                         bool heard) MUST_USE;
int delivery_loop_stats(struct delivery_loop *d, uint32_t no, struct lane_stats *ret) MUST_USE;
