/* Builds a subscription's snapshot from what the store holds. */
#pragma once

#include "store/store.h"

/* Within a transaction. server_allow_http: the server lets plain http through for every tenant. A deleted or
 * unknown one is -ENOENT. Equal policies of loads that share a memo are one. The caller owns the reference.
 */
int snapshot_load(struct store *s, uint32_t subscription_no, int64_t now, bool server_allow_http,
                  struct policy_memo *memo, struct subscription **ret) MUST_USE;

/* Every live subscription, in no particular order, at start: fn gets a reference of its own and returns 0 or
 * an error that ends it. */
int snapshot_each(struct store_reader *r, int64_t now, bool server_allow_http,
                  int (*fn)(void *arg, struct subscription *s), void *arg) MUST_USE;
