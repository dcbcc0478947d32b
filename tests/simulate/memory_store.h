/* The store of the simulator: what store.h promises, in plain arrays, bound at link time in place of SQLite.
 * It outlives the process, its transactions roll back, and it may be told to fail. Only what the stages under
 * test call is there; every row may be read by the judges. */
#pragma once

#include "store/store.h"

enum { MEMORY_TENANTS_MAX = 4 };

struct memory_tenant {
    uint32_t no;
    enum tenant_tier tier;
    struct tenant_limits limits;
};

/* What a subscription listens to. */
enum memory_interest {
    INTEREST_ALL,
    INTEREST_ORDERS,
    INTEREST_PAID,
    INTEREST_MIXED,
    INTEREST_BLAST,
    INTERESTS
};
enum memory_type { TYPE_PAID, TYPE_SENT, TYPE_USER, TYPE_BLAST, MEMORY_TYPES };
extern const char *const memory_types[MEMORY_TYPES];

struct memory_subscription {
    uint32_t no, tenant_no;
    enum subscription_status status;
    enum subscription_ordering ordering;
    enum memory_interest interest;
    struct policy policy; /* its schedule, when it has one, is a static array */
    int64_t resumed_at, failing_since, raised_since;
    uint64_t jobs_settled, relane;
    bool has_lane_state;
    uint8_t lane_state[LANE_STATE_SIZE];
};

struct memory_event {
    struct id id;
    uint32_t tenant_no;
    enum memory_type type;
    char ordering_key; /* 0: none */
    int64_t deliver_at;
};

struct memory_delivery {
    uint64_t event_key;
    uint32_t subscription_no;
    uint32_t attempts, base, uncounted;
    enum delivery_state state;
    enum delivery_reason reason;
    bool replayed;
    uint64_t lane_key;
    int64_t due_at; /* 0: blocked, leased or closed */
    int64_t order_at, window_at, lease_until, claimed_at;
    uint64_t born_in, claimed_in; /* transactions */
};

/* A committed change of a delivery, for the judges. */
enum change_kind { CHANGE_NEW, CHANGE_CLAIM, CHANGE_SETTLE, CHANGE_STALE, CHANGE_SHED, CHANGE_REPLAY };
struct memory_change {
    enum change_kind kind;
    uint32_t row;
    struct memory_delivery before, after;
    int64_t now;
    uint32_t number;          /* of a settle */
    enum attempt_error error; /* of a settle */
    bool counted;
};

void memory_store_begin(void);
void memory_store_clear(void);
struct store *memory_store(void);

/* Control plane, and what the harness does for itself; within a transaction but for the first. */
struct memory_subscription *memory_store_add_subscription(const struct memory_subscription *s);
void memory_store_write_subscription(struct store *s, const struct memory_subscription *row);
int memory_store_insert_event(struct store *s, const struct memory_event *e) MUST_USE;
/* As store_replay: -ENOENT, -EBUSY. */
int memory_store_replay(struct store *s, uint64_t event_key, uint32_t subscription_no, uint64_t lane_key,
                        int64_t now) MUST_USE;

/* Looking. NULL or SIZE_MAX: there is none. */
size_t memory_store_subscriptions(void); /* numbers 1…n */
const struct memory_subscription *memory_store_subscription(uint32_t no);
struct memory_tenant *memory_store_tenant(uint32_t no); /* 1…MEMORY_TENANTS_MAX; the harness writes it */
size_t memory_store_deliveries(void);
const struct memory_delivery *memory_store_delivery(size_t row);
size_t memory_store_find(uint64_t event_key, uint32_t subscription_no);
/* The open deliveries of a lane, as rows. */
const uint32_t *memory_store_open(uint32_t subscription_no, size_t *ret_n);
size_t memory_store_events(void);
const struct memory_event *memory_store_event(size_t i);
size_t memory_store_event_no(uint64_t event_key); /* 1, 2, … in order of acceptance; 0: not there */
/* Whether fan-out of this event is still on its way to this subscription. */
bool memory_store_job_pending(uint64_t event_key, uint32_t subscription_no);
size_t memory_store_jobs_pending(void);
uint64_t memory_store_transactions(void);
/* What the transaction that was committed last changed. */
const struct memory_change *memory_store_changes(size_t *ret_n);

/* A transaction fails somewhere with this probability; all of them until `broken_until` (true time). */
void memory_store_trouble(double probability, int64_t broken_until);
