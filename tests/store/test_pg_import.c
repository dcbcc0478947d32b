/* A store that moves from SQLite to PostgreSQL: all that any list shows is the same there, or nothing is
 * there. */
#include "fixture.h"

#include <errno.h>
#include <sqlite3.h>
#include <string.h>

#include "core/partition.h"
#include "own_server.h"
#include "store/import.h"
#include "store/postgres/postgres.h"
#include "store/replay.h"

enum { LAST_JOB = 41 /* the number of the source's newest fan-out */ };

struct move {
    struct fixture *to, from;
    uint64_t copied, compared, tables;
};

static int setup(void **state) {
    struct move *m = calloc(1, sizeof *m);
    void *to;
    assert_int_equal(fixture_setup(&to), 0);
    m->to = to;
    assert_false(fixture_is_sqlite(m->to));
    /* Empty, but for what a first start makes. */
    assert_int_equal(pg_query(&pg_of(m->to->store)->writer, "DELETE FROM seal_keys", NULL), 0);
    assert_int_equal(pg_query(&pg_of(m->to->store)->writer, "DELETE FROM server_keys", NULL), 0);
    fixture_close(m->to);
    m->from.folder = folder_make();
    assert_true(asprintf(&m->from.url, "sqlite:%s/posthorn.db", m->from.folder) > 0);
    fixture_open(&m->from);
    m->from.now = m->to->now;
    *state = m;
    return 0;
}

static int teardown(void **state) {
    struct move *m = *state;
    void *to = m->to;
    if (!m->to->store)
        fixture_open(m->to);
    fixture_close(&m->from);
    folder_remove(m->from.folder);
    free(m->from.folder);
    free(m->from.url);
    free(m);
    return fixture_teardown(&to);
}

/* ---- a store with everything in it ---- */

static void make_control_plane(struct fixture *f, uint32_t tenant, uint32_t sub) {
    uint32_t gone = make_tenant(f), dropped = make_subscription(f, tenant);
    (void)make_secret(f, sub, 's');
    (void)make_secret(f, sub, 't');
    (void)make_secret(f, dropped, 'u');
    struct key_record key = {.id = next_id(f, f->now),
                             .hash = {1, 2, 0, 4},
                             .tenant_no = tenant,
                             .scopes = 3,
                             .created_at = f->now,
                             .expires_at = f->now + DAY_MS};
    struct audit_record audit = {.at = f->now,
                                 .actor = SLICE_LIT("system"),
                                 .action = SLICE_LIT("tenant.create"),
                                 .object = SLICE_LIT("t"),
                                 .tenant_no = tenant,
                                 .detail = SLICE_LIT("{\"a\":\"\xc3\xa9\"}")};
    static const char learnt[LANE_STATE_SIZE] = {9, 0, 8};
    uint8_t bytes[32];
    begin(f);
    assert_int_equal(store_expire_secrets(f->store, sub, f->now + HOUR_MS), 0);
    struct subscription_record change = {.no = sub, .doc = SLICE_LIT("{\"headers\":{\"x-key\":\"k\"}}")};
    assert_int_equal(store_update_subscription(f->store, &change), 0);
    assert_int_equal(store_put_tls(f->store, sub, tenant, SLICE_LIT("{\"ca\":\"x\"}")), 0);
    assert_int_equal(store_insert_key(f->store, &key), 0);
    assert_int_equal(store_insert_audit(f->store, &audit), 0);
    assert_int_equal(store_delete_subscription(f->store, dropped, f->now), 0);
    assert_int_equal(store_delete_tenant(f->store, gone, f->now), 0);
    assert_int_equal(store_set_health(f->store, sub, f->now - 5, f->now - 4), 0);
    assert_int_equal(
        store_set_lane_state(f->store, sub, tenant, (struct slice){learnt, sizeof learnt}, f->now), 0);
    assert_int_equal(store_server_key(f->store, "receipts", (const uint8_t[32]){7, 0, 7}, bytes), 0);
    assert_int_equal(store_put_source_note(f->store, SLICE_LIT("shop"), SLICE_LIT("lsn"), SLICE_LIT("0/1")),
                     0);
    uint32_t worker;
    assert_int_equal(store_register_worker(f->store, "host:7:x", "posthorn/9", f->now, &worker), 0);
    commit(f);
}

static void make_replay(struct fixture *f, uint32_t tenant, uint32_t sub, struct id dead) {
    struct replay_record replay = {.id = next_id(f, f->now),
                                   .filter = {.tenant_no = tenant,
                                              .subscription_no = sub,
                                              .states = 1U << DELIVERY_DLQ,
                                              .event_type = SLICE_LIT("a.*"),
                                              .last_event = ID_KEY_MAX},
                                   .per_second = 5,
                                   .most = INT64_MAX,
                                   .matched = 3,
                                   .requested_by = SLICE_LIT("key_1")};
    struct replay_lane lane = {.subscription_no = sub, .cursor = 77, .share = 4, .outstanding = 1};
    char source[ID_TEXT_SIZE];
    id_format(ID_REPLAY, replay.id, source);
    begin(f);
    assert_int_equal(store_insert_replay(f->store, &replay, 5), 0);
    assert_int_equal(store_open_replay_lanes(f->store, &replay, 10), 0);
    assert_int_equal(store_update_replay_lane(f->store, replay.id.key, &lane), 0);
    replay.started = 1;
    replay.opened = UINT32_MAX;
    assert_int_equal(store_update_replay(f->store, &replay), 0);
    assert_int_equal(
        store_replay(f->store, dead.key, sub, tenant, 0, f->now, slice_of(source), SLICE_LIT("key_1")), 0);
    commit(f);
}

static void make_wide_event(struct fixture *f, uint32_t tenant) {
    struct event_record wide = {.id = next_id(f, f->now),
                                .tenant_no = tenant,
                                .type = SLICE_LIT("wide.one"),
                                .schema_version = SLICE_LIT("2"),
                                .ordering_key = {"k\0k", 3},
                                .deliver_at = f->now + 5,
                                .body = {"{\"data\":\"\x01\xff\"}", 13},
                                .data_size = 4,
                                .trace = SLICE_LIT("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
                                .has_job = true};
    struct fanout_job job = {.event_key = wide.id.key,
                             .tenant_no = tenant,
                             .cursor = 3,
                             .upper = 9,
                             .state = FANOUT_EXPANDING,
                             .seq = LAST_JOB};
    struct idempotency_record key = {.tenant_no = tenant,
                                     .key = SLICE_LIT("order-1"),
                                     .body_hash = {5, 0, 5},
                                     .ids = &wide.id,
                                     .ids_n = 1,
                                     .created_at = f->now};
    begin(f);
    assert_int_equal(store_insert_events(f->store, &wide, 1), 0);
    assert_int_equal(store_insert_job(f->store, &job), 0);
    assert_int_equal(store_insert_idempotency(f->store, &key), 0);
    commit(f);
}

/* An attempt with all that it may have, and a receipt for it. */
static void make_full_attempt(struct fixture *f, uint32_t tenant, uint32_t sub) {
    struct id event = publish(f, tenant, sub);
    struct task t = claim_one(f, tenant, sub);
    struct settlement s = outcome_of(f, &t, DELIVERY_DELIVERED, 200);
    s.attempt.request_headers = SLICE_LIT("X-A: 1\r\n");
    s.attempt.signature = SLICE_LIT("v1,abc");
    s.attempt.response_headers = SLICE_LIT("server: \xff\r\n");
    s.attempt.response_body = (struct slice){"no\0such\xff", 8};
    s.attempt.has_hash = true;
    s.attempt.response_hash[3] = 9;
    s.attempt.worker_no = 1;
    assert_false(settle(f, s).stale);
    struct receipt_record receipt = {.event_key = event.key,
                                     .subscription_no = sub,
                                     .tenant_no = tenant,
                                     .number = 1,
                                     .note = SLICE_LIT("done"),
                                     .at = f->now};
    begin(f);
    assert_int_equal(store_insert_receipt(f->store, &receipt), 0);
    commit(f);
}

static void fill(struct fixture *f, uint32_t *ret_tenant, uint32_t *ret_ordered) {
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant),
             ordered = make_subscription(f, tenant), own = make_subscription(f, TENANT_OPERATOR);
    make_control_plane(f, tenant, sub);
    f->now -= 40 * DAY_MS;
    (void)publish(f, tenant, sub);
    finish_one(f, tenant, sub, DELIVERY_DLQ);
    f->now += 40 * DAY_MS;
    struct id dead = publish(f, tenant, sub);
    finish_one(f, tenant, sub, DELIVERY_DLQ);
    make_full_attempt(f, tenant, sub);
    (void)publish(f, tenant, sub);
    struct task t = claim_one(f, tenant, sub);
    settle(f, outcome_of(f, &t, DELIVERY_RETRY, 0));
    make_replay(f, tenant, sub, dead);
    make_wide_event(f, tenant);
    (void)publish(f, TENANT_OPERATOR, own);
    for (int i = 0; i < 3; i++)
        (void)publish_ordered(f, tenant, ordered, 7);
    (void)claim_one(f, tenant, ordered);
    *ret_tenant = tenant;
    *ret_ordered = ordered;
}

/* ---- all that lists show, as text ---- */

struct dump {
    struct fixture *f;
    struct buf out;
    uint32_t tenant;
};

static void add_slice(struct buf *out, struct slice s) {
    if (!s.p)
        buf_add_str(out, "-");
    for (size_t i = 0; s.p && i < s.n; i++)
        buf_addf(out, "%02x", (unsigned char)s.p[i]);
    buf_add_char(out, ' ');
}

static int dump_attempt(void *arg, const struct attempt_row *r) {
    struct buf *out = &((struct dump *)arg)->out;
    const struct attempt_record *a = &r->attempt;
    buf_addf(out, "  attempt %u %d %d %lld %lld %d %d %d %d %d %d %d %d ", r->number, r->to, r->reason,
             (long long)r->settled_at, (long long)a->started_at, a->latency_ms, a->dns_ms, a->connect_ms,
             a->tls_ms, a->wait_ms, a->status, a->error, a->trigger);
    add_slice(out, r->worker);
    add_slice(out, a->url);
    add_slice(out, a->request_headers);
    add_slice(out, a->signature);
    add_slice(out, a->response_headers);
    add_slice(out, a->response_body);
    buf_addf(out, "%d %d\n", a->has_hash, a->response_hash[3]);
    return 0;
}

static int dump_transition(void *arg, const struct transition_row *r) {
    buf_addf(&((struct dump *)arg)->out, "  transition %lld %d %d %d\n", (long long)r->at, r->from, r->to,
             r->reason);
    return 0;
}

static int dump_delivery(void *arg, const struct delivery_row *r) {
    struct dump *d = arg;
    buf_addf(&d->out, "delivery %llu %u %d %d %u %lld %lld %lld %lld %d %d %d %lld %d ",
             (unsigned long long)r->event_key, r->subscription_no, r->state, r->reason, r->attempts,
             (long long)r->created_at, (long long)r->next_attempt_at, (long long)r->closed_at,
             (long long)r->claimed_at, r->blocked, r->last_status, r->last_error, (long long)r->replay_at,
             r->receipt);
    add_slice(&d->out, r->replay_source);
    add_slice(&d->out, r->receipt_note);
    buf_add_char(&d->out, '\n');
    assert_int_equal(
        store_list_attempts(d->f->reader, d->tenant, r->event_key, r->subscription_no, dump_attempt, d), 0);
    assert_int_equal(
        store_list_transitions(d->f->reader, d->tenant, r->event_key, r->subscription_no, dump_transition, d),
        0);
    return 0;
}

static int dump_event(void *arg, const struct event_row *r) {
    struct buf *out = &((struct dump *)arg)->out;
    const struct event_record *e = &r->event;
    buf_addf(out, "event %llu %llu %lld %u %u %d %d %llu ", (unsigned long long)e->id.key,
             (unsigned long long)e->id.tail, (long long)e->deliver_at, e->data_size, e->deliveries,
             e->has_job, r->fanout, (unsigned long long)r->fanout_deliveries);
    add_slice(out, e->type);
    add_slice(out, e->schema_version);
    add_slice(out, e->ordering_key);
    add_slice(out, e->body);
    add_slice(out, e->trace);
    buf_add_char(out, '\n');
    return 0;
}

static int dump_secret(void *arg, const struct secret_record *r) {
    struct buf *out = &((struct dump *)arg)->out;
    buf_addf(out, "  secret %llu %d %lld ", (unsigned long long)r->id.key, r->key.size,
             (long long)r->key.expires_at);
    add_slice(out, (struct slice){(const char *)r->key.bytes, r->key.size});
    return 0;
}

static int dump_subscription(void *arg, const struct subscription_record *r) {
    struct dump *d = arg;
    _cleanup_buf_ struct buf tls = {0};
    buf_addf(&d->out, "subscription %u %u %llu %d %lld %lld %lld %lld ", r->no, r->tenant_no,
             (unsigned long long)r->id.key, r->status, (long long)r->created_at, (long long)r->updated_at,
             (long long)r->failing_since, (long long)r->raised_since);
    add_slice(&d->out, r->doc);
    assert_int_equal(store_list_secrets(d->f->reader, r->no, d->f->now, dump_secret, d), 0);
    if (store_read_tls(d->f->reader, r->no, &tls) == 0)
        add_slice(&d->out, buf_slice(&tls));
    buf_add_char(&d->out, '\n');
    return 0;
}

static int dump_key(void *arg, const struct key_record *r) {
    struct buf *out = &((struct dump *)arg)->out;
    buf_addf(out, "key %llu %u %u %lld %lld ", (unsigned long long)r->id.key, r->tenant_no, r->scopes,
             (long long)r->created_at, (long long)r->expires_at);
    add_slice(out, (struct slice){(const char *)r->hash, sizeof r->hash});
    return 0;
}

static int dump_audit(void *arg, uint64_t no, const struct audit_record *r) {
    struct buf *out = &((struct dump *)arg)->out;
    buf_addf(out, "audit %llu %lld %u ", (unsigned long long)no, (long long)r->at, r->tenant_no);
    add_slice(out, r->action);
    add_slice(out, r->detail);
    return 0;
}

static int dump_dlq(void *arg, const struct dlq_count_row *r) {
    buf_addf(&((struct dump *)arg)->out, "dlq %u %d %llu\n", r->subscription_no, r->reason,
             (unsigned long long)r->n);
    return 0;
}

static int dump_replay(void *arg, const struct replay_record *r) {
    struct buf *out = &((struct dump *)arg)->out;
    buf_addf(out, "replay %llu %d %u %u %llu %u %llu %llu %u ", (unsigned long long)r->id.key, r->state,
             r->filter.subscription_no, r->filter.states, (unsigned long long)r->filter.last_event,
             r->per_second, (unsigned long long)r->most, (unsigned long long)r->started, r->opened);
    add_slice(out, r->filter.event_type);
    add_slice(out, r->requested_by);
    return 0;
}

static int dump_lane_state(void *arg, uint32_t subscription_no, struct slice state) {
    struct buf *out = &((struct dump *)arg)->out;
    buf_addf(out, "lane state %u ", subscription_no);
    add_slice(out, state);
    return 0;
}

static int dump_tenant(void *arg, const struct tenant_record *r) {
    struct dump *d = arg;
    buf_addf(&d->out, "tenant %u %lld ", r->no, (long long)r->created_at);
    add_slice(&d->out, r->id);
    add_slice(&d->out, r->doc);
    return 0;
}

/* What a tenant has. */
static void dump_of(struct dump *d, uint32_t tenant) {
    struct event_query events = {.tenant_no = tenant, .limit = ROWS_MAX};
    struct delivery_query deliveries = {.tenant_no = tenant, .state = -1, .limit = ROWS_MAX};
    struct delivery_stop end;
    uint64_t stop;
    d->tenant = tenant;
    assert_int_equal(store_list_events(d->f->reader, &events, dump_event, d, &stop), 0);
    assert_int_equal(store_list_deliveries(d->f->reader, &deliveries, dump_delivery, d, &end), 0);
    assert_int_equal(store_list_dlq_counts(d->f->reader, tenant, 0, 0, dump_dlq, d), 0);
    assert_int_equal(store_list_replays(d->f->reader, tenant, 0, ROWS_MAX, dump_replay, d), 0);
}

/* What the writer sees. */
static void dump_work(struct dump *d, uint32_t tenant) {
    struct fanout_job jobs[4];
    struct leased_task leases[4];
    struct replay_lane lanes[4];
    struct replay_record replay;
    struct id id;
    size_t n, ids_n = 0;
    uint8_t hash[32];
    _cleanup_buf_ struct buf note = {0};
    begin(d->f);
    assert_int_equal(store_list_jobs(d->f->store, 0, jobs, 4, &n), 0);
    for (size_t i = 0; i < n; i++)
        buf_addf(&d->out, "job %llu %u %u %u %d %llu\n", (unsigned long long)jobs[i].event_key,
                 jobs[i].tenant_no, jobs[i].cursor, jobs[i].upper, jobs[i].state,
                 (unsigned long long)jobs[i].seq);
    assert_int_equal(store_list_expired_leases(d->f->store, INT64_MAX, leases, 4, &n), 0);
    for (size_t i = 0; i < n; i++)
        buf_addf(&d->out, "lease %llu %u %u %llu %lld %lld\n", (unsigned long long)leases[i].task.event_key,
                 leases[i].task.subscription_no, leases[i].task.number,
                 (unsigned long long)leases[i].task.lane_key, (long long)leases[i].task.lease_until,
                 (long long)leases[i].started_at);
    assert_int_equal(store_next_replay(d->f->store, 0, &replay), 0);
    assert_int_equal(store_list_replay_lanes(d->f->store, replay.id.key, 0, lanes, 4, &n), 0);
    for (size_t i = 0; i < n; i++)
        buf_addf(&d->out, "replay lane %u %llu %u %u\n", lanes[i].subscription_no,
                 (unsigned long long)lanes[i].cursor, lanes[i].share, lanes[i].outstanding);
    assert_int_equal(store_find_idempotency(d->f->store, tenant, SLICE_LIT("order-1"), hash, &id, 1, &ids_n),
                     0);
    buf_addf(&d->out, "idempotency %llu %d\n", (unsigned long long)id.key, hash[2]);
    assert_int_equal(store_server_key(d->f->store, "receipts", (const uint8_t[32]){1}, hash), 0);
    assert_int_equal(store_get_source_note(d->f->store, SLICE_LIT("shop"), SLICE_LIT("lsn"), &note), 0);
    buf_addf(&d->out, "server key %d, note %s\n", hash[0], note.p);
    commit(d->f);
}

static struct buf dump_all(struct fixture *f, uint32_t tenant) {
    struct dump d = {.f = f};
    assert_int_equal(store_list_tenants(f->reader, 0, ROWS_MAX, dump_tenant, &d), 0);
    assert_int_equal(store_each_subscription(f->reader, dump_subscription, &d), 0);
    assert_int_equal(store_each_lane_state(f->reader, dump_lane_state, &d), 0);
    assert_int_equal(store_list_keys(f->reader, ROWS_MAX, dump_key, &d), 0);
    assert_int_equal(store_list_audit(f->reader, SLICE_NONE, 0, ROWS_MAX, dump_audit, &d), 0);
    dump_of(&d, tenant);
    dump_of(&d, TENANT_OPERATOR);
    dump_work(&d, tenant);
    assert_true(buf_ok(&d.out));
    return d.out;
}

/* ---- moving ---- */

static void count_rows(void *arg, bool comparing, uint64_t done, uint64_t total) {
    struct move *m = arg;
    assert_true(done <= total);
    *(comparing ? &m->compared : &m->copied) = done;
}

static void count_table(void *arg, const char *table, uint64_t rows) {
    struct move *m = arg;
    assert_non_null(table);
    m->tables += rows > 0;
}

static int import(struct move *m, const char **ret_message) {
    struct store_import how = {.progress = count_rows, .copied = count_table, .arg = m};
    uint64_t rows = 0;
    int r = store_import(m->from.url, m->to->url, &how, &rows, ret_message);
    assert_true(r < 0 || (rows == m->copied && rows == m->compared));
    return r;
}

static void found(void *arg, const struct store_finding *f) {
    (void)arg;
    fail_msg("%s: %llu, such as %s", f->what, (unsigned long long)f->n, f->example);
}

static void assert_numbers_go_on(struct fixture *f, uint32_t tenant) {
    uint64_t job = 0;
    uint32_t worker = 0;
    struct audit_record entry = {.at = f->now,
                                 .actor = SLICE_LIT("a"),
                                 .action = SLICE_LIT("b.c"),
                                 .object = SLICE_LIT("o"),
                                 .tenant_no = tenant};
    begin(f);
    assert_int_equal(store_last_job(f->store, &job), 0);
    assert_true(job > LAST_JOB);
    assert_int_equal(store_register_worker(f->store, "host:2:b", "posthorn/1", f->now, &worker), 0);
    assert_int_equal(store_insert_audit(f->store, &entry), 0);
    commit(f);
}

static void test_everything_moves(void **state) {
    struct move *m = *state;
    uint32_t tenant, ordered;
    const char *message = "";
    struct store_summary s;
    fill(&m->from, &tenant, &ordered);
    struct buf before = dump_all(&m->from, tenant);
    uint32_t next_tenant = make_tenant(&m->from) + 1;
    struct buf with_that = dump_all(&m->from, tenant);
    assert_true(with_that.n > before.n);
    fixture_close(&m->from);
    if (import(m, &message) < 0)
        fail_msg("%s", message);
    assert_int_equal(m->tables, 22); /* each has something: a new table belongs into fill() */
    struct store_check how = {.now = m->to->now, .found = found};
    assert_int_equal(store_check(m->to->url, &how, &s, &message), 0);
    fixture_open(m->to);
    struct buf after = dump_all(m->to, tenant);
    assert_string_equal(after.p, with_that.p);
    /* Numbers go on, and so does the work. */
    m->to->now = m->from.now + DAY_MS;
    m->to->ids = m->from.ids;
    assert_int_equal(make_tenant(m->to), next_tenant);
    assert_true(make_subscription(m->to, tenant) > ordered);
    assert_numbers_go_on(m->to, tenant);
    struct leased_task lease;
    size_t n;
    begin(m->to);
    assert_int_equal(store_list_expired_leases(m->to->store, INT64_MAX, &lease, 1, &n), 0);
    struct settlement lost = outcome_of(m->to, &lease.task, DELIVERY_DLQ, 0);
    assert_int_equal(store_settle(m->to->store, &lost, 1), 0);
    assert_false(lost.stale);
    commit(m->to);
    finish_one(m->to, tenant, ordered, DELIVERY_DELIVERED);
    finish_one(m->to, tenant, ordered, DELIVERY_DELIVERED);
    fixture_close(m->to);
    assert_int_equal(store_check(m->to->url, &how, &s, &message), 0);
    buf_free(&before);
    buf_free(&with_that);
    buf_free(&after);
}

static void test_only_an_empty_store_is_filled(void **state) {
    struct move *m = *state;
    const char *message = "";
    (void)make_tenant(&m->from);
    fixture_close(&m->from);
    fixture_open(m->to);
    (void)make_tenant(m->to);
    fixture_close(m->to);
    assert_int_equal(import(m, &message), -EEXIST);
    assert_non_null(strstr(message, "is not empty (tenants)"));
}

static void test_a_store_in_use_is_not_moved(void **state) {
    struct move *m = *state;
    const char *message = "";
    assert_int_equal(import(m, &message), -EBUSY);
    assert_non_null(strstr(message, "stop it"));
}

static void test_a_store_in_use_is_not_filled(void **state) {
    struct move *m = *state;
    const char *message = "";
    uint32_t worker;
    fixture_close(&m->from);
    fixture_open(m->to);
    begin(m->to);
    assert_int_equal(store_register_worker(m->to->store, "host:7:x", "posthorn/9", m->to->now, &worker), 0);
    commit(m->to);
    assert_int_equal(import(m, &message), -EBUSY);
    assert_non_null(strstr(message, "a posthorn runs on it"));
}

static void run_sqlite(struct move *m, const char *sql) {
    sqlite3 *db;
    char *path = fixture_path(&m->from);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    free(path);
}

/* What fails leaves nothing, and may be done again. */
static void test_all_or_nothing(void **state) {
    struct move *m = *state;
    uint32_t tenant, ordered;
    const char *message = "";
    fill(&m->from, &tenant, &ordered);
    fixture_close(&m->from);
    run_sqlite(m, "UPDATE replays SET requested_by=CAST(x'ff' AS TEXT)");
    assert_true(import(m, &message) < 0);
    assert_non_null(strstr(message, "replays"));
    run_sqlite(m,
               "UPDATE replays SET requested_by='key_1'; INSERT INTO transitions VALUES (5, 5, 5, 5, 5, 5)");
    assert_int_equal(import(m, &message), -EUCLEAN);
    assert_non_null(strstr(message, "1 rows of transitions belong to nothing"));
    run_sqlite(m,
               "DELETE FROM transitions WHERE event=5; UPDATE events SET data_size=5000000000 WHERE has_job");
    assert_int_equal(import(m, &message), -ERANGE);
    run_sqlite(m, "UPDATE events SET data_size=4 WHERE has_job");
    if (import(m, &message) < 0)
        fail_msg("%s", message);
    assert_int_equal(import(m, &message), -EEXIST);
}

/* Something on the way that changes what it stores. */
static void test_what_arrives_otherwise_is_noticed(void **state) {
    struct move *m = *state;
    const char *message = "";
    (void)make_tenant(&m->from);
    fixture_close(&m->from);
    fixture_open(m->to);
    static const char *const meddle[] = {
        "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.doc = '[]'; RETURN NEW; "
        "END $$",
        "CREATE TRIGGER meddle BEFORE INSERT ON tenants FOR EACH ROW EXECUTE FUNCTION meddle()",
        "DELETE FROM seal_keys", "DELETE FROM server_keys"};
    for (size_t i = 0; i < COUNT(meddle); i++)
        assert_int_equal(pg_query(&pg_of(m->to->store)->writer, meddle[i], NULL), 0);
    fixture_close(m->to);
    assert_int_equal(import(m, &message), -EUCLEAN);
    assert_non_null(strstr(message, "tenants is not what was copied"));
}

static void test_of_another_schema_says_what_to_do(void **state) {
    struct move *m = *state;
    const char *message = "";
    fixture_close(&m->from);
    run_sqlite(m, "PRAGMA user_version=5");
    assert_int_equal(import(m, &message), -EPROTONOSUPPORT);
    assert_non_null(strstr(message, "posthorn migrate"));
    struct store_import how = {0};
    uint64_t rows;
    assert_int_equal(store_import("sqlite:/nowhere/x.db", m->to->url, &how, &rows, &message), -ENOENT);
}

/* Days of long ago are made for what comes, so that they leave as a whole. */
static void test_old_days_have_their_partitions(void **state) {
    struct move *m = *state;
    uint32_t tenant, ordered;
    const char *message = "";
    fill(&m->from, &tenant, &ordered);
    int64_t oldest = (m->from.now - 40 * DAY_MS) / DAY_MS;
    fixture_close(&m->from);
    assert_int_equal(import(m, &message), 0);
    /* On a connection of its own: the store's are held to their indexes. */
    char sql[128];
    snprintf(sql, sizeof sql, "SELECT to_regclass(day_name('events', %d)) IS NOT NULL", (int)oldest);
    assert_int_equal(number_of(m->to->url, sql), 1);
    assert_int_equal(number_of(m->to->url, "SELECT count(*) FROM events_other"), 0);
    assert_true(number_of(m->to->url, "SELECT count(DISTINCT partition) FROM deliveries_open") > 1);
    fixture_open(m->to);
}

#define IMPORT_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        IMPORT_TEST(test_everything_moves),
        IMPORT_TEST(test_only_an_empty_store_is_filled),
        IMPORT_TEST(test_a_store_in_use_is_not_moved),
        IMPORT_TEST(test_a_store_in_use_is_not_filled),
        IMPORT_TEST(test_all_or_nothing),
        IMPORT_TEST(test_what_arrives_otherwise_is_noticed),
        IMPORT_TEST(test_of_another_schema_says_what_to_do),
        IMPORT_TEST(test_old_days_have_their_partitions),
    };
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
