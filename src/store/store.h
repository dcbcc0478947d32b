/* The store: the only truth. One narrow interface in the words of the domain; each call does a batch. Behind
 * it stands an implementation chosen by URL (store/backend.h).
 *
 * Writing calls run inside a transaction on the writer's thread and nowhere else: see writer.h. A call that
 * returns an error other than those its comment names (-EIO, -ENOSPC, -ENOMEM) has made the whole transaction
 * void. Reading calls take a store_reader, of which each thread opens its own; they see what was committed.
 *
 * Times are Unix milliseconds, 0 (or NULL in SQL) for "none". Slices in rows that a callback gets live until
 * it returns. */
#pragma once

#include "core/delivery.h"
#include "core/event.h"
#include "core/receipt.h"
#include "core/seal.h"
#include "core/subscription.h"
#include "core/tenant.h"

struct store;
struct store_reader;

/* Opens or creates the store behind `url` ("sqlite:DIR/posthorn.db"; DIR must be there), takes its lock and
 * brings the schema up to date. On failure *ret_message (a static or thread-local text) says what to do.
 * -EBUSY: another process has it. -EPROTONOSUPPORT: its schema is newer than this program. -EUCLEAN: it is
 * damaged, or another program's. */
int store_open(const char *url, struct store **ret, const char **ret_message) MUST_USE;
/* Whether secrets were sealed here before: then a key of then must be given. */
int store_is_sealed(struct store *s, bool *ret) MUST_USE;
/* Gives the store the keys that seal its secrets, before any secret is written or read, and outside of a
 * transaction. What the first key has not sealed is sealed anew, STORE_SEAL_STEP secrets a transaction, and
 * erased as it was; *ret_resealed tells how many. Afterwards the first key alone is needed. -EKEYREJECTED: a
 * key that sealed secrets is not among them; *ret_message says what to do, nothing was changed. -EIO: a
 * secret does not open. */
enum { STORE_SEAL_STEP = 500 };
int store_unlock(struct store *s, const struct seal_keyring *keys, uint64_t *ret_resealed,
                 const char **ret_message) MUST_USE;
/* After its readers were closed. NULL-safe. */
void store_close(struct store *s);

/* ---- transactions, for writer.c alone ---- */

/* Begins the transaction that every writing call belongs to; one at a time. When it fails there is none. */
int store_begin(struct store *s) MUST_USE;
/* 0: all of it is durable. Otherwise nothing of it is, and store_rollback is still to be called. */
int store_commit(struct store *s) MUST_USE;
/* Also of a transaction that is void. */
void store_rollback(struct store *s);
/* Between transactions, once those of the last one have been answered: work of the store's own that others
 * wait for some milliseconds. The less there is to do, the sooner it is done, and the less at a time. */
enum store_load {
    STORE_QUIET, /* few came in the last transaction, and nobody waits */
    STORE_IDLE,  /* nobody waits */
    STORE_BUSY,
};
void store_tidy(struct store *s, enum store_load load);
/* One at a time: what is written after store_savepoint can be undone by itself, until either call below. */
int store_savepoint(struct store *s) MUST_USE;
int store_savepoint_release(struct store *s) MUST_USE;
int store_savepoint_rollback(struct store *s) MUST_USE;

/* The greatest id key stored: every later one must be greater. */
int store_last_key(struct store *s, uint64_t *ret) MUST_USE;
/* Registers this process for the attempts it will record; `name` is "host:pid:…", `user_agent` what it sends.
 */
int store_register_worker(struct store *s, const char *name, const char *user_agent, int64_t now,
                          uint32_t *ret_no) MUST_USE;
/* It is alive; said once an hour, it is not taken for gone. */
int store_see_worker(struct store *s, uint32_t no, int64_t now) MUST_USE;

/* What a source remembers between starts: a text by item, of which each source has its own. */
int store_put_source_note(struct store *s, struct slice source, struct slice item,
                          struct slice text) MUST_USE;
/* Appends it to ret. -ENOENT. */
int store_get_source_note(struct store *s, struct slice source, struct slice item, struct buf *ret) MUST_USE;

/* The key of this name that the server made for itself, kept sealed; `fresh` becomes it when there is none
 * yet. -EIO: it does not open. */
int store_server_key(struct store *s, const char *name, const uint8_t fresh[32], uint8_t ret[32]) MUST_USE;

/* ---- control plane, writing ---- */

struct tenant_record {
    uint32_t no;
    struct slice id;
    struct slice doc; /* normalised JSON: what the user set */
    int64_t created_at, updated_at;
    uint64_t tier_change; /* as in struct tenant */
};
int store_insert_tenant(struct store *s, const struct tenant_record *t,
                        uint32_t *ret_no) MUST_USE;                                            /* -EEXIST */
int store_update_tenant(struct store *s, uint32_t no, struct slice doc, int64_t now) MUST_USE; /* -ENOENT */
/* -ENOENT; -EBUSY while it has subscriptions or open deliveries. Its events and logs leave with the next
 * sweep of retention. */
int store_delete_tenant(struct store *s, uint32_t no, int64_t now) MUST_USE;

struct subscription_record {
    uint32_t no, tenant_no;
    struct id id;
    enum subscription_status status;
    struct slice disabled_reason;
    struct slice doc; /* what subscription_parse returned, "status" included; its headers are kept sealed */
    int64_t created_at, updated_at, resumed_at;
    int64_t failing_since; /* first of an unbroken run of failures; 0 when the last attempt succeeded */
    uint64_t jobs_settled; /* fan-out jobs up to this number have given it its part already */
    uint64_t relane; /* number of a change of its ordering that open deliveries have yet to follow, 0: none */
    int64_t raised_since; /* failing_since as the tenant was told of it, until it is told of the end */
};
/* Assigns the number. */
int store_insert_subscription(struct store *s, const struct subscription_record *r,
                              uint32_t *ret_no) MUST_USE;
/* Writes status, disabled_reason, doc, updated_at, resumed_at, jobs_settled, relane. -ENOENT. */
int store_update_subscription(struct store *s, const struct subscription_record *r) MUST_USE;
int store_set_health(struct store *s, uint32_t subscription_no, int64_t failing_since,
                     int64_t raised_since) MUST_USE;
/* What a lane has learnt of its endpoint (lanes.h, lane_memory: LANE_STATE_SIZE bytes), for whoever serves it
 * next; absent: nothing worth keeping. Forgotten when its subscription is deleted. */
enum { LANE_STATE_SIZE = 20 };
int store_set_lane_state(struct store *s, uint32_t subscription_no, uint32_t tenant_no, struct slice state,
                         int64_t now) MUST_USE;
/* Marks it deleted (its row stays for the deliveries that name it) and forgets its secrets. -ENOENT. */
int store_delete_subscription(struct store *s, uint32_t no, int64_t now) MUST_USE;
/* Moves up to `limit` of a deleted subscription's waiting deliveries to the DLQ; *ret_n tells how many; those
 * that are ATTEMPTING are left to their settle. */
int store_close_deleted(struct store *s, uint32_t subscription_no, int64_t now, unsigned limit,
                        unsigned *ret_n) MUST_USE;

struct secret_record {
    struct id id;
    uint32_t subscription_no, tenant_no;
    struct signing_key key; /* key.expires_at: end of the overlap, 0 while current */
    int64_t created_at;
};
int store_insert_secret(struct store *s, const struct secret_record *r) MUST_USE;
/* Rotates: every secret in force of the subscription expires at `expires_at` unless it does so before. */
int store_expire_secrets(struct store *s, uint32_t subscription_no, int64_t expires_at) MUST_USE;

/* The TLS material of a subscription (the text of core/tls_material.h), kept sealed; an absent text removes
 * it. */
int store_put_tls(struct store *s, uint32_t subscription_no, uint32_t tenant_no, struct slice text) MUST_USE;
/* Into ret, which the caller wipes. -ENOENT. */
int store_get_tls(struct store *s, uint32_t subscription_no, struct buf *ret) MUST_USE;
int store_read_tls(struct store_reader *r, uint32_t subscription_no, struct buf *ret) MUST_USE;

struct key_record {
    struct id id;
    uint8_t hash[32];   /* SHA-256 of the key's text */
    uint32_t tenant_no; /* 0: every tenant */
    uint32_t scopes;
    int64_t created_at, expires_at, revoked_at;
};
int store_insert_key(struct store *s, const struct key_record *r) MUST_USE; /* -EEXIST: this hash is known */
/* *ret_tenant_no: whose it was, 0 for every tenant's. -ENOENT */
int store_revoke_key(struct store *s, struct id id, int64_t now, uint32_t *ret_tenant_no) MUST_USE;

struct audit_record {
    int64_t at;
    struct slice actor;  /* "key_…" or "system" */
    struct slice action; /* "subscription.update" … */
    struct slice object;
    uint32_t tenant_no;
    struct slice tenant_id; /* only when read; also that of a tenant that is gone; absent: none */
    struct slice detail;    /* JSON, never a secret */
};
int store_insert_audit(struct store *s, const struct audit_record *r) MUST_USE;

/* Reading within the transaction, for changes that depend on what is there. -ENOENT, also when deleted.
 * Slices live until the next call. */
int store_get_tenant(struct store *s, uint32_t no, struct tenant_record *ret) MUST_USE;
int store_get_subscription(struct store *s, uint32_t no, struct subscription_record *ret) MUST_USE;
/* The keys in force at now, newest first, up to SUBSCRIPTION_SECRETS_MAX. */
int store_get_signing_keys(struct store *s, uint32_t subscription_no, int64_t now, struct signing_key *ret,
                           size_t *ret_n) MUST_USE;
/* Also of a deleted one. -ENOENT. */
int store_get_subscription_tenant(struct store *s, uint32_t no, uint32_t *ret_tenant_no) MUST_USE;
int store_count_subscriptions(struct store *s, uint32_t tenant_no, uint64_t *ret) MUST_USE;

/* ---- ingest and fanout ---- */

enum fanout_state { FANOUT_PENDING, FANOUT_EXPANDING, FANOUT_DONE };

struct event_record {
    struct id id; /* id_ms(id) is created_at */
    uint32_t tenant_no;
    struct slice type, schema_version, ordering_key;
    int64_t deliver_at;
    struct slice body; /* the envelope */
    uint32_t data_size;
    struct slice trace;  /* core/trace.h; absent: none */
    uint32_t deliveries; /* how many were made with it; a job's are counted by the job */
    bool has_job;
};
int store_insert_events(struct store *s, const struct event_record *events, size_t n) MUST_USE;

struct idempotency_record {
    uint32_t tenant_no;
    struct slice key;
    uint8_t body_hash[32];
    const struct id *ids; /* of the events it stands for */
    size_t ids_n;
    int64_t created_at;
};
/* A key that is there already makes the transaction void, at its commit at the latest. */
int store_insert_idempotency(struct store *s, const struct idempotency_record *r) MUST_USE;
/* A hint: store_find_idempotency will be asked for this key, which lives until the transaction ends. What is
 * known ahead may be looked up at once. */
void store_expect_idempotency(struct store *s, uint32_t tenant_no, struct slice key);
/* 0 with *ret_hash and up to ids_max ids, or -ENOENT. */
int store_find_idempotency(struct store *s, uint32_t tenant_no, struct slice key, uint8_t ret_hash[32],
                           struct id *ret_ids, size_t ids_max, size_t *ret_n) MUST_USE;

/* A new delivery: PENDING, due at max(created_at, deliver_at). In an ordered lane (lane_key != 0) it is due
 * only once no earlier open delivery of its lane key stands before it. Or, when begun_at is set (unordered
 * ones alone): ATTEMPTING already, its attempt 1 claimed then under this lease. Inserting one that exists
 * already does nothing. */
struct new_delivery {
    uint64_t event_key;
    uint32_t subscription_no, tenant_no;
    uint64_t lane_key; /* 0: unordered */
    int64_t order_at;  /* max(created_at, deliver_at) */
    int64_t due_at;    /* when it may be claimed; 0: at order_at */
    bool test;         /* made by the test route: its trigger says so */
    bool fresh;        /* of an event that this transaction makes: there is none yet */
    int64_t begun_at, lease_until;
};
/* *ret_made counts those that did not exist before. */
int store_insert_deliveries(struct store *s, const struct new_delivery *d, size_t n,
                            size_t *ret_made) MUST_USE;

/* Takes events up to `upto_key`, and their deliveries, into the logs that list by subscription and by type;
 * *ret_more: call again. Until then they are found without them, more slowly. `work` bounds a step: about a
 * microsecond each. */
int store_extend_log(struct store *s, uint64_t upto_key, unsigned work, bool *ret_more) MUST_USE;

/* A fan-out too large for its event's transaction. Subscriptions are expanded in ascending number, (cursor,
 * upper]. */
struct fanout_job {
    uint64_t event_key;
    uint32_t tenant_no;
    uint32_t cursor, upper;
    uint32_t deliveries; /* made so far */
    enum fanout_state state;
    uint64_t seq; /* ascends as they are accepted, which their keys need not; 0 when inserted: the store
                     numbers it */
};
int store_insert_job(struct store *s, const struct fanout_job *j) MUST_USE;
int store_update_job(struct store *s, const struct fanout_job *j) MUST_USE;
/* Jobs not done, oldest first, after `after_key`; up to max. */
int store_list_jobs(struct store *s, uint64_t after_key, struct fanout_job *ret, size_t max,
                    size_t *ret_n) MUST_USE;
/* A seq that every job accepted so far is at most, and of the later ones none. On a shared store it waits for
 * whoever is accepting one, and holds up the next until this transaction ends. */
int store_last_job(struct store *s, uint64_t *ret) MUST_USE;
/* What expanding needs of an event. -ENOENT. Slices live until the next call. */
int store_get_event(struct store *s, uint32_t tenant_no, uint64_t event_key,
                    struct event_record *ret) MUST_USE;

/* ---- lanes: claiming ---- */

/* One lane that wants work. */
struct lane_claim {
    uint32_t subscription_no, tenant_no;
    uint32_t limit;    /* tasks wanted */
    int64_t window_ms; /* the policy's window */
    int64_t resumed_at;
    int64_t lease_ms; /* from now */
    uint32_t probe;   /* the mark that its tasks are given, 0: none */
    bool held;        /* nothing is claimed, whatever is due */
    /* results */
    uint32_t claimed, expired;
    int64_t next_due_at; /* of what is left in the lane, INT64_MAX when nothing waits */
};

/* A claimed delivery: ATTEMPTING, its attempt number is the fencing token. */
struct task {
    uint64_t event_key;
    uint32_t subscription_no, tenant_no;
    uint32_t number; /* of the attempt that begins now */
    uint32_t base, uncounted;
    uint64_t lane_key; /* 0: unordered */
    int64_t window_at;
    int64_t lease_until;
    enum attempt_trigger trigger;
    uint32_t probe; /* of its claim; not stored */
};

/* A delivery that left its lane for the DLQ without an attempt. */
struct expired_task {
    uint64_t event_key;
    uint32_t subscription_no, tenant_no;
};

/* For each lane in turn moves up to `limit` due deliveries to ATTEMPTING, the longest due first, and those
 * whose window has closed to the DLQ. Appends to `tasks` (tasks_max ≥ the sum of limits) and `expired`; a
 * lane stops when `expired` is full. */
int store_claim(struct store *s, struct lane_claim *lanes, size_t n, int64_t now, struct task *tasks,
                size_t tasks_max, size_t *ret_tasks, struct expired_task *expired, size_t expired_max,
                size_t *ret_expired) MUST_USE;

/* A lane that is not claiming, whose waiting deliveries are looked through for closed windows. */
struct lane_expiry {
    uint32_t subscription_no, tenant_no;
    int64_t window_ms; /* the policy's window */
    int64_t resumed_at;
    int64_t spare_ms; /* what has a last attempt to come (api.md §4.1 rules 2, 3) is spared for so long after
                         the window's end, or the pause's */
};
/* Moves up to `limit` of them to the DLQ. *ret_n below limit: none is left. */
int store_expire(struct store *s, const struct lane_expiry *lane, int64_t now, struct expired_task *ret,
                 size_t limit, size_t *ret_n) MUST_USE;

/* Gives a lane's open deliveries the lane keys of a changed ordering, about `limit` at a time, from the
 * cursor on (zero-initialised; begun again it does no harm). Nothing of the lane may be claimed, or be under
 * way, until it is *ret_done. */
struct relane_cursor {
    int walk; /* private */
    int64_t first, second, event;
};
int store_relane(struct store *s, uint32_t subscription_no, enum subscription_ordering ordering,
                 struct relane_cursor *cursor, unsigned limit, bool *ret_done) MUST_USE;
/* They have followed the change of this number: 1. 0 when another change has come since. */
int store_set_relaned(struct store *s, uint32_t subscription_no, uint64_t relane) MUST_USE;

/* Lanes that have waiting deliveries, ascending after `after_no`, with their earliest due time. */
struct lane_due {
    uint32_t subscription_no;
    int64_t due_at;
};
int store_list_lanes_due(struct store *s, uint32_t after_no, struct lane_due *ret, size_t max,
                         size_t *ret_n) MUST_USE;

/* ---- settle ---- */

struct attempt_record {
    int64_t started_at;
    int32_t latency_ms;
    int32_t dns_ms, connect_ms, tls_ms, wait_ms;
    int status; /* 0: none */
    enum attempt_error error;
    enum attempt_trigger trigger;
    uint32_t worker_no;
    struct slice url;
    struct slice request_headers; /* the subscriber's own, "Name: value\r\n…"; kept sealed */
    struct slice content_type;
    struct slice signature;
    struct slice response_headers; /* "Name: value\r\n…", bounded */
    struct slice response_body;    /* its first 4 KiB */
    bool has_hash;
    uint8_t response_hash[32];
};

struct settlement {
    uint64_t event_key;
    uint32_t subscription_no, tenant_no;
    uint32_t number;   /* the fencing token */
    uint64_t lane_key; /* the task's */
    enum delivery_state to;
    enum delivery_reason reason;
    int64_t due_at; /* for RETRY */
    bool counted;
    int64_t settled_at;
    struct attempt_record attempt;
    /* results */
    bool stale;              /* refused: not ATTEMPTING any more, or a later attempt; nothing was written */
    int64_t released_due_at; /* ordered lanes: the next of its key is due then; 0 when none */
};
int store_settle(struct store *s, struct settlement *items, size_t n) MUST_USE;

/* A delivery in the DLQ, for the operational event that tells of it. Within a transaction. -ENOENT. The type
 * lives until the next call. */
struct exhausted_delivery {
    struct id event_id;
    struct slice event_type;
    uint32_t attempts;
    enum delivery_reason reason;
    int last_status;
    enum attempt_error last_error;
    int64_t closed_at;
};
int store_get_exhausted(struct store *s, uint32_t tenant_no, uint64_t event_key, uint32_t subscription_no,
                        struct exhausted_delivery *ret) MUST_USE;

/* Deliveries whose lease ended before `before`, as tasks (INT64_MAX: every ATTEMPTING one); up to max, oldest
 * first. */
struct leased_task {
    struct task task;
    int64_t started_at; /* when it was claimed */
};
int store_list_expired_leases(struct store *s, int64_t before, struct leased_task *ret, size_t max,
                              size_t *ret_n) MUST_USE;

/* Deletes a tenant's closed deliveries of events older than `before`, with all that belongs to them, and each
 * event of which nothing is left; an open delivery, and an event whose job is open, is passed over. Starts at
 * the cursor (zero-initialised: at the oldest), which it moves on: what was passed over is not looked at
 * again. *ret_n rows were deleted or passed over, up to limit; fewer: nothing is left to do. */
struct retain_cursor {
    uint64_t event_key;
    int64_t subscription_no; /* of the delivery it has come to, -1: the event is done */
};
int store_retain(struct store *s, uint32_t tenant_no, int64_t before, unsigned limit,
                 struct retain_cursor *cursor, unsigned *ret_n) MUST_USE;
/* What is older than `before`, the longest retention in force, leaves by whole days where the store keeps
 * days apart (store_keep_house): what has not left by this time, the end of the last of them, is deleted row
 * by row. Elsewhere `before` itself. */
int64_t store_retain_floor(struct store *s, int64_t before) MUST_USE;
/* The tenant with the least number above after_no, deleted ones too, for a walk over all. -ENOENT. Slices
 * live until the next call. */
int store_next_tenant(struct store *s, uint32_t after_no, struct tenant_record *ret,
                      bool *ret_deleted) MUST_USE;
int store_retain_idempotency(struct store *s, int64_t before, unsigned limit, unsigned *ret_n) MUST_USE;
/* Deletes up to `limit` rows of what the control plane leaves behind; a time of 0: none of that kind. Workers
 * stay while an attempt may refer to them. *ret_n below limit: nothing is left to do. */
struct control_retention {
    int64_t audit_before;
    int64_t keys_before;    /* when they were revoked, or expired */
    int64_t workers_before; /* when they were last seen */
};
int store_retain_control(struct store *s, const struct control_retention *keep, unsigned limit,
                         unsigned *ret_n) MUST_USE;

/* Replay: DELIVERED or DLQ → REPLAYING, due now, attempts and window afresh. -ENOENT; -EBUSY while it is
 * open; -ESTALE when the payload is gone. */
int store_replay(struct store *s, uint64_t event_key, uint32_t subscription_no, uint32_t tenant_no,
                 uint64_t lane_key, int64_t now, struct slice source, struct slice requested_by) MUST_USE;

/* What a subscriber says became of a delivery. */
struct receipt_record {
    uint64_t event_key;
    uint32_t subscription_no, tenant_no;
    uint32_t number; /* of the attempt whose token it came with */
    enum receipt_status status;
    struct slice note; /* absent when there was none */
    int64_t at;
};
/* -ENOENT: the tenant has no such delivery. -EALREADY: there is one by this attempt's token, or a later
 * one's. */
int store_insert_receipt(struct store *s, const struct receipt_record *r) MUST_USE;

/* ---- reading ---- */

/* For one thread; it is closed before the store is. -EIO, -ENOMEM. */
int store_reader_open(struct store *s, struct store_reader **ret) MUST_USE;
void store_reader_close(struct store_reader *r);
/* 0 when the store answers. */
int store_reader_ping(struct store_reader *r) MUST_USE;
/* Work of the store's own that is nobody's transaction, to be done every few seconds. Whole days that ended
 * before `before`, and in which nothing is open, are dropped; 0: none. It may take a second. */
int store_keep_house(struct store_reader *r, int64_t now, int64_t before) MUST_USE;

/* Rows come newest first unless said otherwise; a callback returns 0 to go on, another value to stop (which
 * is returned). A callback may read on through the same reader, but not by the function that called it. */
typedef int (*tenant_row_fn)(void *arg, const struct tenant_record *row);
typedef int (*subscription_row_fn)(void *arg, const struct subscription_record *row);
typedef int (*secret_row_fn)(void *arg, const struct secret_record *row);
typedef int (*key_row_fn)(void *arg, const struct key_record *row);
typedef int (*audit_row_fn)(void *arg, uint64_t no, const struct audit_record *row);

int store_read_tenant(struct store_reader *r, struct slice id, tenant_row_fn fn,
                      void *arg) MUST_USE; /* -ENOENT */
/* before_no 0: from the newest. */
int store_list_tenants(struct store_reader *r, uint32_t before_no, size_t limit, tenant_row_fn fn,
                       void *arg) MUST_USE;
int store_read_subscription(struct store_reader *r, uint32_t tenant_no, struct id id, subscription_row_fn fn,
                            void *arg) MUST_USE; /* -ENOENT, also when deleted */
/* The number of a subscription, also of a deleted one whose deliveries are still there. -ENOENT. */
int store_find_subscription(struct store_reader *r, uint32_t tenant_no, struct id id,
                            uint32_t *ret_no) MUST_USE;
/* status < 0: any. Never the deleted ones. */
int store_list_subscriptions(struct store_reader *r, uint32_t tenant_no, int status, uint32_t before_no,
                             size_t limit, subscription_row_fn fn, void *arg) MUST_USE;
/* Every live subscription of every tenant, ascending by number. */
int store_each_subscription(struct store_reader *r, subscription_row_fn fn, void *arg) MUST_USE;
/* What is kept of lanes, in no particular order. */
typedef int (*lane_state_row_fn)(void *arg, uint32_t subscription_no, struct slice state);
int store_each_lane_state(struct store_reader *r, lane_state_row_fn fn, void *arg) MUST_USE;
/* Secrets in force at now, newest first; each is wiped after fn returns. */
int store_list_secrets(struct store_reader *r, uint32_t subscription_no, int64_t now, secret_row_fn fn,
                       void *arg) MUST_USE;
/* Revoked ones too. */
int store_list_keys(struct store_reader *r, size_t limit, key_row_fn fn, void *arg) MUST_USE;
/* tenant_id: of all tenants that have or had this id; absent: of all. before_no 0: from the newest. */
int store_list_audit(struct store_reader *r, struct slice tenant_id, uint64_t before_no, size_t limit,
                     audit_row_fn fn, void *arg) MUST_USE;

struct event_row {
    struct event_record event;
    enum fanout_state fanout;
    uint64_t fanout_deliveries;
};
typedef int (*event_row_fn)(void *arg, const struct event_row *row);

struct event_query {
    uint32_t tenant_no;
    uint64_t before_key;  /* 0: from the newest */
    int64_t since, until; /* of created_at, [since, until); 0: open */
    struct slice type, ordering_key;
    size_t limit;
};
/* The id's tail is compared too. -ENOENT. */
int store_read_event(struct store_reader *r, uint32_t tenant_no, struct id id, event_row_fn fn,
                     void *arg) MUST_USE;
/* *ret_stop: where the page ended before its limit, when so much was looked at; else 0. */
int store_list_events(struct store_reader *r, const struct event_query *q, event_row_fn fn, void *arg,
                      uint64_t *ret_stop) MUST_USE;
/* Type, envelope and data size alone: what sending needs. -ENOENT. */
int store_read_body(struct store_reader *r, uint32_t tenant_no, uint64_t event_key, event_row_fn fn,
                    void *arg) MUST_USE;

struct delivery_row {
    uint64_t event_key;
    uint32_t subscription_no, tenant_no;
    struct id subscription_id;
    struct id event_id;
    struct slice event_type, ordering_key;
    enum delivery_state state;
    enum delivery_reason reason;
    uint32_t attempts;
    int64_t created_at, next_attempt_at, closed_at; /* next_attempt_at 0 when closed or ATTEMPTING */
    int64_t claimed_at;                             /* while ATTEMPTING */
    bool blocked;                                   /* waits for an earlier one of its lane key */
    int last_status;
    enum attempt_error last_error;
    struct slice replay_source, replay_requested_by; /* absent when never replayed */
    int64_t replay_at;
    enum receipt_status receipt;
    struct slice receipt_note; /* absent when there was none */
    int64_t receipt_at;
};
typedef int (*delivery_row_fn)(void *arg, const struct delivery_row *row);

struct delivery_query {
    uint32_t tenant_no;
    uint64_t before_event_key; /* the last row of the page before; 0: from the newest */
    uint32_t before_subscription_no;
    int64_t since, until;     /* of the event's created_at; 0: open */
    int state;                /* -1: any */
    uint32_t subscription_no; /* 0: any */
    uint64_t event_key;       /* 0: any */
    struct slice event_type, ordering_key;
    int status;                  /* of the last attempt; 0: any */
    enum attempt_error error;    /* of the last attempt; ATTEMPT_OK: any */
    enum delivery_reason reason; /* why it is in the DLQ; REASON_NONE: any */
    size_t limit;
    unsigned budget; /* how much may be looked at; 0: the usual */
};
/* A page may end before its limit, when so much was looked at: its next begins here. */
struct delivery_stop {
    bool stopped;
    uint64_t event_key;
    uint32_t subscription_no;
};
int store_read_delivery(struct store_reader *r, uint32_t tenant_no, uint64_t event_key,
                        uint32_t subscription_no, delivery_row_fn fn, void *arg) MUST_USE; /* -ENOENT */
int store_list_deliveries(struct store_reader *r, const struct delivery_query *q, delivery_row_fn fn,
                          void *arg, struct delivery_stop *ret_stop) MUST_USE;

struct attempt_row {
    uint32_t number;
    struct id id;
    struct slice worker, user_agent;
    enum delivery_state to; /* what the delivery became */
    enum delivery_reason reason;
    int64_t settled_at;
    struct attempt_record attempt;
};
typedef int (*attempt_row_fn)(void *arg, const struct attempt_row *row);
/* Oldest first. */
int store_list_attempts(struct store_reader *r, uint32_t tenant_no, uint64_t event_key,
                        uint32_t subscription_no, attempt_row_fn fn, void *arg) MUST_USE;

/* A transition without an attempt, oldest first. */
struct transition_row {
    int64_t at;
    enum delivery_state from, to;
    enum delivery_reason reason;
};
typedef int (*transition_row_fn)(void *arg, const struct transition_row *row);
int store_list_transitions(struct store_reader *r, uint32_t tenant_no, uint64_t event_key,
                           uint32_t subscription_no, transition_row_fn fn, void *arg) MUST_USE;

/* All open and all DLQ deliveries there are, by their indexes. */
int store_count_deliveries(struct store_reader *r, uint64_t *ret_pending, uint64_t *ret_dlq) MUST_USE;

/* DLQ deliveries by reason, of a tenant or of one subscription (0: all). */
int store_sum_dlq(struct store_reader *r, uint32_t tenant_no, uint32_t subscription_no,
                  uint64_t ret[DELIVERY_REASONS]) MUST_USE;
/* The same by subscription and reason, ascending by both, of subscriptions after `after_no`. */
struct dlq_count_row {
    uint32_t subscription_no;
    struct id subscription_id;
    enum delivery_reason reason;
    uint64_t n;
};
typedef int (*dlq_count_row_fn)(void *arg, const struct dlq_count_row *row);
int store_list_dlq_counts(struct store_reader *r, uint32_t tenant_no, uint32_t subscription_no,
                          uint32_t after_no, dlq_count_row_fn fn, void *arg) MUST_USE;

/* Open (the ATTEMPTING ones included) and DLQ deliveries of a lane, each counted up to `max`. */
int store_count_lane(struct store_reader *r, uint32_t subscription_no, uint32_t tenant_no, uint64_t max,
                     uint64_t *ret_pending, uint64_t *ret_dlq) MUST_USE;
