/* The process under test: the stages put together as cli/stages.c does, on the simulated edges, and the API
 * routes' jobs. All of it lives in the arena and dies with it. */
#pragma once

#include "memory_store.h"

bool process_is_up(void); /* it takes requests */
/* It is starting at this very moment. */
bool process_has_just_begun(void);
/* Starts it; when the store fails, again a little later. */
void process_start(void);
/* As kill -9: between any two steps. */
void process_crash(void);
/* As SIGTERM: attempts under way may end. Starts again after `down_ms`. */
void process_stop(int64_t down_ms);
/* At the end of a seed, whatever state it is in. */
void process_clear(void);

/* ---- requests; they may fail as the store does, and are forgotten when the process dies ---- */

struct publish_wish {
    uint32_t tenant_no;
    enum memory_type type;
    char ordering_key;
    int64_t deliver_in_ms; /* 0: now */
};
void process_publish(const struct publish_wish *wishes, size_t n);
/* PATCH, or POST of one that is SUBSCRIPTION_DELETED so far. `edit` changes the row. */
void process_patch(uint32_t no, void (*edit)(struct memory_subscription *row));
void process_delete(uint32_t no);
void process_replay(uint64_t event_key, uint32_t subscription_no);
void process_configure_tenant(uint32_t no);
