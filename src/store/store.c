#include "store/backend.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"

static _Thread_local char message[1024];

static const struct store_backend *const backends[] = {&sqlite_backend, &postgres_backend,
                                                       &postgresql_backend};

int store_explain(int r, const char **ret_message, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    *ret_message = message;
    return r;
}

void store_say_upgrade(size_t from, size_t to) {
    if (from > 0 && from < to)
        log_info("the store is brought up to date; this takes longer the larger it is",
                 log_int("schema", (int64_t)from), log_int("to", (int64_t)to));
}

/* NULL, and a message, when no backend knows such URLs. */
static const struct store_backend *backend_of(const char *url, const char **ret_message) {
    for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++)
        if (slice_starts_with(slice_of(url), slice_of(backends[i]->scheme)))
            return backends[i];
    /* The rest of it may hold a password. */
    struct slice scheme = {url, strcspn(url, ":")};
    (void)store_explain(-EINVAL, ret_message,
                        "\"%.*s:\" is no store: sqlite:FILE or postgres://USER@HOST/DATABASE was expected",
                        SLICE_ARG(scheme));
    return NULL;
}

/* ---- by URL ---- */

int store_open(const char *url, struct store **ret, const char **ret_message) {
    const struct store_backend *b = backend_of(url, ret_message);
    return b ? b->open(url, ret, ret_message) : -EINVAL;
}

int store_backup(const char *url, const char *file, store_progress_fn progress, void *arg,
                 struct store_summary *ret, const char **ret_message) {
    const struct store_backend *b = backend_of(url, ret_message);
    return b ? b->backup(url, file, progress, arg, ret, ret_message) : -EINVAL;
}

int store_check(const char *url, const struct store_check *check, struct store_summary *ret,
                const char **ret_message) {
    const struct store_backend *b = backend_of(url, ret_message);
    return b ? b->check(url, check, ret, ret_message) : -EINVAL;
}

int store_restore(const char *file, const char *url, const struct store_restore *how,
                  struct store_summary *ret, const char **ret_message) {
    const struct store_backend *b = backend_of(url, ret_message);
    return b ? b->restore(file, url, how, ret, ret_message) : -EINVAL;
}

int store_migrate(const char *url, size_t *ret_from, size_t *ret_to, const char **ret_message) {
    const struct store_backend *b = backend_of(url, ret_message);
    return b ? b->migrate(url, ret_from, ret_to, ret_message) : -EINVAL;
}

int store_is_sealed(struct store *s, bool *ret) {
    return s->backend->is_sealed(s, ret);
}

int store_unlock(struct store *s, const struct seal_keyring *keys, uint64_t *ret_resealed,
                 const char **ret_message) {
    return s->backend->unlock(s, keys, ret_resealed, ret_message);
}

void store_close(struct store *s) {
    if (s)
        s->backend->close(s);
}

int store_begin(struct store *s) {
    return s->backend->begin(s);
}

int store_commit(struct store *s) {
    return s->backend->commit(s);
}

void store_rollback(struct store *s) {
    s->backend->rollback(s);
}

void store_tidy(struct store *s, enum store_load load) {
    s->backend->tidy(s, load);
}

int store_savepoint(struct store *s) {
    return s->backend->savepoint(s);
}

int store_savepoint_release(struct store *s) {
    return s->backend->savepoint_release(s);
}

int store_savepoint_rollback(struct store *s) {
    return s->backend->savepoint_rollback(s);
}

int store_last_key(struct store *s, uint64_t *ret) {
    return s->backend->last_key(s, ret);
}

int store_register_worker(struct store *s, const char *name, const char *user_agent, int64_t now,
                          uint32_t *ret_no) {
    return s->backend->register_worker(s, name, user_agent, now, ret_no);
}

int store_see_worker(struct store *s, uint32_t no, int64_t now) {
    return s->backend->see_worker(s, no, now);
}

int store_put_source_note(struct store *s, struct slice source, struct slice item, struct slice text) {
    return s->backend->put_source_note(s, source, item, text);
}

int store_get_source_note(struct store *s, struct slice source, struct slice item, struct buf *ret) {
    return s->backend->get_source_note(s, source, item, ret);
}

int store_server_key(struct store *s, const char *name, const uint8_t fresh[32], uint8_t ret[32]) {
    return s->backend->server_key(s, name, fresh, ret);
}

int store_insert_tenant(struct store *s, const struct tenant_record *t, uint32_t *ret_no) {
    return s->backend->insert_tenant(s, t, ret_no);
}

int store_update_tenant(struct store *s, uint32_t no, struct slice doc, int64_t now) {
    return s->backend->update_tenant(s, no, doc, now);
}

int store_delete_tenant(struct store *s, uint32_t no, int64_t now) {
    return s->backend->delete_tenant(s, no, now);
}

int store_insert_subscription(struct store *s, const struct subscription_record *r, uint32_t *ret_no) {
    return s->backend->insert_subscription(s, r, ret_no);
}

int store_update_subscription(struct store *s, const struct subscription_record *r) {
    return s->backend->update_subscription(s, r);
}

int store_set_health(struct store *s, uint32_t subscription_no, int64_t failing_since, int64_t raised_since) {
    return s->backend->set_health(s, subscription_no, failing_since, raised_since);
}

int store_set_lane_state(struct store *s, uint32_t subscription_no, uint32_t tenant_no, struct slice state,
                         int64_t now) {
    return s->backend->set_lane_state(s, subscription_no, tenant_no, state, now);
}

int store_delete_subscription(struct store *s, uint32_t no, int64_t now) {
    return s->backend->delete_subscription(s, no, now);
}

int store_close_deleted(struct store *s, uint32_t subscription_no, int64_t now, unsigned limit,
                        unsigned *ret_n) {
    return s->backend->close_deleted(s, subscription_no, now, limit, ret_n);
}

int store_insert_secret(struct store *s, const struct secret_record *r) {
    return s->backend->insert_secret(s, r);
}

int store_expire_secrets(struct store *s, uint32_t subscription_no, int64_t expires_at) {
    return s->backend->expire_secrets(s, subscription_no, expires_at);
}

int store_put_tls(struct store *s, uint32_t subscription_no, uint32_t tenant_no, struct slice text) {
    return s->backend->put_tls(s, subscription_no, tenant_no, text);
}

int store_get_tls(struct store *s, uint32_t subscription_no, struct buf *ret) {
    return s->backend->get_tls(s, subscription_no, ret);
}

int store_read_tls(struct store_reader *r, uint32_t subscription_no, struct buf *ret) {
    return r->backend->read_tls(r, subscription_no, ret);
}

int store_insert_key(struct store *s, const struct key_record *r) {
    return s->backend->insert_key(s, r);
}

int store_revoke_key(struct store *s, struct id id, int64_t now, uint32_t *ret_tenant_no) {
    return s->backend->revoke_key(s, id, now, ret_tenant_no);
}

int store_insert_audit(struct store *s, const struct audit_record *r) {
    return s->backend->insert_audit(s, r);
}

int store_get_tenant(struct store *s, uint32_t no, struct tenant_record *ret) {
    return s->backend->get_tenant(s, no, ret);
}

int store_get_subscription(struct store *s, uint32_t no, struct subscription_record *ret) {
    return s->backend->get_subscription(s, no, ret);
}

int store_get_signing_keys(struct store *s, uint32_t subscription_no, int64_t now, struct signing_key *ret,
                           size_t *ret_n) {
    return s->backend->get_signing_keys(s, subscription_no, now, ret, ret_n);
}

int store_get_subscription_tenant(struct store *s, uint32_t no, uint32_t *ret_tenant_no) {
    return s->backend->get_subscription_tenant(s, no, ret_tenant_no);
}

int store_count_subscriptions(struct store *s, uint32_t tenant_no, uint64_t *ret) {
    return s->backend->count_subscriptions(s, tenant_no, ret);
}

int store_insert_events(struct store *s, const struct event_record *events, size_t n) {
    return s->backend->insert_events(s, events, n);
}

int store_insert_idempotency(struct store *s, const struct idempotency_record *r) {
    return s->backend->insert_idempotency(s, r);
}

void store_expect_idempotency(struct store *s, uint32_t tenant_no, struct slice key) {
    s->backend->expect_idempotency(s, tenant_no, key);
}

int store_find_idempotency(struct store *s, uint32_t tenant_no, struct slice key, uint8_t ret_hash[32],
                           struct id *ret_ids, size_t ids_max, size_t *ret_n) {
    return s->backend->find_idempotency(s, tenant_no, key, ret_hash, ret_ids, ids_max, ret_n);
}

int store_insert_deliveries(struct store *s, const struct new_delivery *d, size_t n, size_t *ret_made) {
    return s->backend->insert_deliveries(s, d, n, ret_made);
}

int store_extend_log(struct store *s, uint64_t upto_key, unsigned work, bool *ret_more) {
    return s->backend->extend_log(s, upto_key, work, ret_more);
}

int store_insert_job(struct store *s, const struct fanout_job *j) {
    return s->backend->insert_job(s, j);
}

int store_update_job(struct store *s, const struct fanout_job *j) {
    return s->backend->update_job(s, j);
}

int store_list_jobs(struct store *s, uint64_t after_key, struct fanout_job *ret, size_t max, size_t *ret_n) {
    return s->backend->list_jobs(s, after_key, ret, max, ret_n);
}

int store_last_job(struct store *s, uint64_t *ret) {
    return s->backend->last_job(s, ret);
}

int store_get_event(struct store *s, uint32_t tenant_no, uint64_t event_key, struct event_record *ret) {
    return s->backend->get_event(s, tenant_no, event_key, ret);
}

int store_claim(struct store *s, struct lane_claim *lanes, size_t n, int64_t now, struct task *tasks,
                size_t tasks_max, size_t *ret_tasks, struct expired_task *expired, size_t expired_max,
                size_t *ret_expired) {
    return s->backend->claim(s, lanes, n, now, tasks, tasks_max, ret_tasks, expired, expired_max,
                             ret_expired);
}

int store_expire(struct store *s, const struct lane_expiry *lane, int64_t now, struct expired_task *ret,
                 size_t limit, size_t *ret_n) {
    return s->backend->expire(s, lane, now, ret, limit, ret_n);
}

int store_relane(struct store *s, uint32_t subscription_no, enum subscription_ordering ordering,
                 struct relane_cursor *cursor, unsigned limit, bool *ret_done) {
    return s->backend->relane(s, subscription_no, ordering, cursor, limit, ret_done);
}

int store_set_relaned(struct store *s, uint32_t subscription_no, uint64_t relane) {
    return s->backend->set_relaned(s, subscription_no, relane);
}

int store_list_lanes_due(struct store *s, uint32_t after_no, struct lane_due *ret, size_t max,
                         size_t *ret_n) {
    return s->backend->list_lanes_due(s, after_no, ret, max, ret_n);
}

int store_settle(struct store *s, struct settlement *items, size_t n) {
    return s->backend->settle(s, items, n);
}

int store_get_exhausted(struct store *s, uint32_t tenant_no, uint64_t event_key, uint32_t subscription_no,
                        struct exhausted_delivery *ret) {
    return s->backend->get_exhausted(s, tenant_no, event_key, subscription_no, ret);
}

int store_list_expired_leases(struct store *s, int64_t before, struct leased_task *ret, size_t max,
                              size_t *ret_n) {
    return s->backend->list_expired_leases(s, before, ret, max, ret_n);
}

int store_retain(struct store *s, uint32_t tenant_no, int64_t before, unsigned limit,
                 struct retain_cursor *cursor, unsigned *ret_n) {
    return s->backend->retain(s, tenant_no, before, limit, cursor, ret_n);
}

int store_next_tenant(struct store *s, uint32_t after_no, struct tenant_record *ret, bool *ret_deleted) {
    return s->backend->next_tenant(s, after_no, ret, ret_deleted);
}

int64_t store_retain_floor(struct store *s, int64_t before) {
    return s->backend->retain_floor(s, before);
}

int store_retain_idempotency(struct store *s, int64_t before, unsigned limit, unsigned *ret_n) {
    return s->backend->retain_idempotency(s, before, limit, ret_n);
}

int store_retain_control(struct store *s, const struct control_retention *keep, unsigned limit,
                         unsigned *ret_n) {
    return s->backend->retain_control(s, keep, limit, ret_n);
}

int store_replay(struct store *s, uint64_t event_key, uint32_t subscription_no, uint32_t tenant_no,
                 uint64_t lane_key, int64_t now, struct slice source, struct slice requested_by) {
    return s->backend->replay(s, event_key, subscription_no, tenant_no, lane_key, now, source, requested_by);
}

int store_insert_receipt(struct store *s, const struct receipt_record *r) {
    return s->backend->insert_receipt(s, r);
}

int store_reader_open(struct store *s, struct store_reader **ret) {
    return s->backend->reader_open(s, ret);
}

void store_reader_close(struct store_reader *r) {
    if (r)
        r->backend->reader_close(r);
}

int store_reader_ping(struct store_reader *r) {
    return r->backend->reader_ping(r);
}

int store_keep_house(struct store_reader *r, int64_t now, int64_t before) {
    return r->backend->keep_house(r, now, before);
}

int store_read_tenant(struct store_reader *r, struct slice id, tenant_row_fn fn, void *arg) {
    return r->backend->read_tenant(r, id, fn, arg);
}

int store_list_tenants(struct store_reader *r, uint32_t before_no, size_t limit, tenant_row_fn fn,
                       void *arg) {
    return r->backend->list_tenants(r, before_no, limit, fn, arg);
}

int store_read_subscription(struct store_reader *r, uint32_t tenant_no, struct id id, subscription_row_fn fn,
                            void *arg) {
    return r->backend->read_subscription(r, tenant_no, id, fn, arg);
}

int store_find_subscription(struct store_reader *r, uint32_t tenant_no, struct id id, uint32_t *ret_no) {
    return r->backend->find_subscription(r, tenant_no, id, ret_no);
}

int store_list_subscriptions(struct store_reader *r, uint32_t tenant_no, int status, uint32_t before_no,
                             size_t limit, subscription_row_fn fn, void *arg) {
    return r->backend->list_subscriptions(r, tenant_no, status, before_no, limit, fn, arg);
}

int store_each_subscription(struct store_reader *r, subscription_row_fn fn, void *arg) {
    return r->backend->each_subscription(r, fn, arg);
}

int store_each_lane_state(struct store_reader *r, lane_state_row_fn fn, void *arg) {
    return r->backend->each_lane_state(r, fn, arg);
}

int store_list_secrets(struct store_reader *r, uint32_t subscription_no, int64_t now, secret_row_fn fn,
                       void *arg) {
    return r->backend->list_secrets(r, subscription_no, now, fn, arg);
}

int store_list_keys(struct store_reader *r, size_t limit, key_row_fn fn, void *arg) {
    return r->backend->list_keys(r, limit, fn, arg);
}

int store_list_audit(struct store_reader *r, struct slice tenant_id, uint64_t before_no, size_t limit,
                     audit_row_fn fn, void *arg) {
    return r->backend->list_audit(r, tenant_id, before_no, limit, fn, arg);
}

int store_read_event(struct store_reader *r, uint32_t tenant_no, struct id id, event_row_fn fn, void *arg) {
    return r->backend->read_event(r, tenant_no, id, fn, arg);
}

int store_list_events(struct store_reader *r, const struct event_query *q, event_row_fn fn, void *arg,
                      uint64_t *ret_stop) {
    return r->backend->list_events(r, q, fn, arg, ret_stop);
}

int store_read_body(struct store_reader *r, uint32_t tenant_no, uint64_t event_key, event_row_fn fn,
                    void *arg) {
    return r->backend->read_body(r, tenant_no, event_key, fn, arg);
}

int store_read_delivery(struct store_reader *r, uint32_t tenant_no, uint64_t event_key,
                        uint32_t subscription_no, delivery_row_fn fn, void *arg) {
    return r->backend->read_delivery(r, tenant_no, event_key, subscription_no, fn, arg);
}

int store_list_deliveries(struct store_reader *r, const struct delivery_query *q, delivery_row_fn fn,
                          void *arg, struct delivery_stop *ret_stop) {
    return r->backend->list_deliveries(r, q, fn, arg, ret_stop);
}

int store_list_attempts(struct store_reader *r, uint32_t tenant_no, uint64_t event_key,
                        uint32_t subscription_no, attempt_row_fn fn, void *arg) {
    return r->backend->list_attempts(r, tenant_no, event_key, subscription_no, fn, arg);
}

int store_list_transitions(struct store_reader *r, uint32_t tenant_no, uint64_t event_key,
                           uint32_t subscription_no, transition_row_fn fn, void *arg) {
    return r->backend->list_transitions(r, tenant_no, event_key, subscription_no, fn, arg);
}

int store_count_deliveries(struct store_reader *r, uint64_t *ret_pending, uint64_t *ret_dlq) {
    return r->backend->count_deliveries(r, ret_pending, ret_dlq);
}

int store_sum_dlq(struct store_reader *r, uint32_t tenant_no, uint32_t subscription_no,
                  uint64_t ret[DELIVERY_REASONS]) {
    return r->backend->sum_dlq(r, tenant_no, subscription_no, ret);
}

int store_list_dlq_counts(struct store_reader *r, uint32_t tenant_no, uint32_t subscription_no,
                          uint32_t after_no, dlq_count_row_fn fn, void *arg) {
    return r->backend->list_dlq_counts(r, tenant_no, subscription_no, after_no, fn, arg);
}

int store_count_lane(struct store_reader *r, uint32_t subscription_no, uint32_t tenant_no, uint64_t max,
                     uint64_t *ret_pending, uint64_t *ret_dlq) {
    return r->backend->count_lane(r, subscription_no, tenant_no, max, ret_pending, ret_dlq);
}

int store_insert_replay(struct store *s, const struct replay_record *r, unsigned open_max) {
    return s->backend->insert_replay(s, r, open_max);
}

int store_next_replay(struct store *s, uint64_t after_key, struct replay_record *ret) {
    return s->backend->next_replay(s, after_key, ret);
}

int store_update_replay(struct store *s, const struct replay_record *r) {
    return s->backend->update_replay(s, r);
}

int store_cancel_replay(struct store *s, uint32_t tenant_no, struct id id) {
    return s->backend->cancel_replay(s, tenant_no, id);
}

int store_cancel_replay_step(struct store *s, const struct replay_record *r, int64_t now, unsigned limit,
                             struct expired_task *moved, size_t *ret_n, bool *ret_ended) {
    return s->backend->cancel_replay_step(s, r, now, limit, moved, ret_n, ret_ended);
}

int store_delete_replay(struct store *s, uint64_t key) {
    return s->backend->delete_replay(s, key);
}

int store_last_recovery(struct store *s, uint32_t subscription_no, int64_t *ret_at, bool *ret_waiting) {
    return s->backend->last_recovery(s, subscription_no, ret_at, ret_waiting);
}

int store_retain_replays(struct store *s, uint32_t tenant_no, int64_t before, unsigned limit,
                         unsigned *ret_n) {
    return s->backend->retain_replays(s, tenant_no, before, limit, ret_n);
}

int store_open_replay_lanes(struct store *s, struct replay_record *r, unsigned limit) {
    return s->backend->open_replay_lanes(s, r, limit);
}

int store_list_replay_lanes(struct store *s, uint64_t replay_key, uint32_t after_no, struct replay_lane *ret,
                            size_t max, size_t *ret_n) {
    return s->backend->list_replay_lanes(s, replay_key, after_no, ret, max, ret_n);
}

int store_has_replay_lanes(struct store *s, uint64_t replay_key, bool *ret) {
    return s->backend->has_replay_lanes(s, replay_key, ret);
}

int store_update_replay_lane(struct store *s, uint64_t replay_key, const struct replay_lane *l) {
    return s->backend->update_replay_lane(s, replay_key, l);
}

int store_delete_replay_lane(struct store *s, uint64_t replay_key, uint32_t subscription_no) {
    return s->backend->delete_replay_lane(s, replay_key, subscription_no);
}

int store_find_replayable(struct store *s, const struct replay_filter *f, const struct subscription *sub,
                          struct replay_look *look) {
    return s->backend->find_replayable(s, f, sub, look);
}

int store_replay_missing(struct store *s, uint64_t event_key, uint32_t subscription_no, uint32_t tenant_no,
                         uint64_t lane_key, int64_t now, struct slice source, struct slice requested_by) {
    return s->backend->replay_missing(s, event_key, subscription_no, tenant_no, lane_key, now, source,
                                      requested_by);
}

bool store_take_replay_progress(struct store *s) {
    return s->backend->take_replay_progress(s);
}

int store_read_replay(struct store_reader *r, uint32_t tenant_no, struct id id, replay_row_fn fn, void *arg) {
    return r->backend->read_replay(r, tenant_no, id, fn, arg);
}

int store_list_replays(struct store_reader *r, uint32_t tenant_no, uint64_t before_key, size_t limit,
                       replay_row_fn fn, void *arg) {
    return r->backend->list_replays(r, tenant_no, before_key, limit, fn, arg);
}

int store_count_replayable(struct store_reader *r, const struct replay_filter *f,
                           const struct subscription *sub, unsigned budget, uint64_t *ret, bool *ret_exact) {
    return r->backend->count_replayable(r, f, sub, budget, ret, ret_exact);
}
