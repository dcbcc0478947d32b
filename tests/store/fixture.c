#include "fixture.h"

#include <dirent.h>
#include <errno.h>
#include <sqlite3.h>
#include <string.h>

#include "own_server.h"
#include "plans.h"

#define FIRST_NOW INT64_C(1795553340123)

/* ---- schemas on a PostgreSQL ---- */

static const char *server_url(void) {
    const char *named = getenv("POSTHORN_TEST_STORE");
    return named && slice_starts_with(slice_of(named), SLICE_LIT("postgres")) ? named : NULL;
}

static char *database; /* the URL of this program's own */

/* Test programs run side by side. What the store locks, and whom it notifies, is a matter of the database:
 * in one of them a program would hear of the others' changes and find their lanes held. */
static void make_database(void) {
    const char *server = server_url(), *path = strchr(strstr(server, "//") + 2, '/');
    char sql[128];
    assert_non_null(path);
    /* Of a process of this number that was killed. */
    snprintf(sql, sizeof sql, "DROP DATABASE IF EXISTS posthorn_test_%d WITH (FORCE)", (int)getpid());
    run_sql(server, sql);
    snprintf(sql, sizeof sql, "CREATE DATABASE posthorn_test_%d", (int)getpid());
    run_sql(server, sql);
    assert_true(asprintf(&database, "%.*s/posthorn_test_%d%s", (int)(path - server), server, (int)getpid(),
                         path + strcspn(path, "?")) > 0);
}

int fixture_end(void **state) {
    (void)state;
    char sql[128];
    snprintf(sql, sizeof sql, "DROP DATABASE posthorn_test_%d WITH (FORCE)", (int)getpid());
    if (database)
        run_sql(server_url(), sql);
    free(database);
    database = NULL;
    return 0;
}

/* Quicker to make than a database; it goes with that. */
static void make_schema(struct fixture *f) {
    static unsigned made;
    char sql[64];
    if (!database)
        make_database();
    snprintf(sql, sizeof sql, "CREATE SCHEMA test_%u", ++made);
    run_sql(database, sql);
    assert_true(asprintf(&f->url, "%s%coptions=-csearch_path%%3Dtest_%u", database,
                         strchr(database, '?') ? '&' : '?', made) > 0);
}

/* ---- stores ---- */

char *folder_make(void) {
    const char *root = getenv("TMPDIR");
    char *name = NULL;
    assert_true(asprintf(&name, "%s/posthorn-store-XXXXXX", root ? root : "/tmp") > 0);
    assert_non_null(mkdtemp(name));
    return name;
}

void folder_remove(const char *folder) {
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.')
            assert_int_equal(unlinkat(dirfd(d), e->d_name, 0), 0);
    closedir(d);
    assert_int_equal(rmdir(folder), 0);
}

bool fixture_is_sqlite(const struct fixture *f) {
    return slice_starts_with(slice_of(f->url), SLICE_LIT("sqlite:"));
}

char *fixture_path(const struct fixture *f) {
    assert_true(fixture_is_sqlite(f));
    return strdup(f->url + strlen("sqlite:"));
}

int64_t number_in_file(const char *path, const char *sql) {
    sqlite3 *db = NULL;
    sqlite3_stmt *st = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &st, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(st), SQLITE_ROW);
    int64_t n = sqlite3_column_int64(st, 0);
    sqlite3_finalize(st);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    return n;
}

int64_t fixture_number(const struct fixture *f, const char *sql) {
    if (!fixture_is_sqlite(f))
        return number_of(f->url, sql);
    _cleanup_free_ char *path = fixture_path(f);
    return number_in_file(path, sql);
}

void fixture_unlock(struct store *s) {
    static const uint8_t bytes[SEAL_KEY_SIZE] = "the key that tests seal with";
    struct seal_keyring keys = {.n = 1};
    uint64_t resealed = 0;
    const char *message = "";
    assert_int_equal(seal_key_of_bytes(bytes, &keys.keys[0]), 0);
    if (store_unlock(s, &keys, &resealed, &message) < 0)
        fail_msg("%s", message);
}

void fixture_open(struct fixture *f) {
    const char *message = "";
    if (store_open(f->url, &f->store, &message) < 0)
        fail_msg("%s: %s", f->url, message);
    fixture_unlock(f->store);
    assert_int_equal(store_reader_open(f->store, &f->reader), 0);
}

void fixture_close(struct fixture *f) {
    store_reader_close(f->reader);
    store_close(f->store);
    f->reader = NULL;
    f->store = NULL;
    f->in_transaction = false;
}

void fixture_reopen(struct fixture *f) {
    fixture_close(f);
    fixture_open(f);
}

int fixture_setup(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    if (server_url()) {
        make_schema(f);
    } else {
        f->folder = folder_make();
        assert_true(asprintf(&f->url, "sqlite:%s/posthorn.db", f->folder) > 0);
    }
    fixture_open(f);
    f->now = FIRST_NOW;
    *state = f;
    return 0;
}

int fixture_teardown(void **state) {
    struct fixture *f = *state;
    assert_indexed(f);
    fixture_close(f);
    if (f->folder)
        folder_remove(f->folder);
    free(f->folder);
    free(f->url);
    free(f);
    return 0;
}

/* ---- transactions ---- */

void begin(struct fixture *f) {
    assert_false(f->in_transaction);
    assert_int_equal(store_begin(f->store), 0);
    f->in_transaction = true;
}

void commit(struct fixture *f) {
    assert_true(f->in_transaction);
    assert_int_equal(store_commit(f->store), 0);
    f->in_transaction = false;
}

void rollback(struct fixture *f) {
    assert_true(f->in_transaction);
    store_rollback(f->store);
    f->in_transaction = false;
}

static bool enter(struct fixture *f) {
    if (f->in_transaction)
        return false;
    begin(f);
    return true;
}

static void leave(struct fixture *f, bool entered) {
    if (entered)
        commit(f);
}

/* ---- what there is ---- */

struct id next_id(struct fixture *f, int64_t at) {
    uint64_t key = id_key_at(at) | (f->ids++ & 0xFFF);
    return (struct id){.key = key, .tail = mix64(key) & ID_TAIL_MAX};
}

uint32_t make_tenant(struct fixture *f) {
    char name[ID_TEXT_SIZE];
    id_format(ID_KEY, next_id(f, f->now), name);
    struct tenant_record t = {
        .id = slice_of(name), .doc = SLICE_LIT("{}"), .created_at = f->now, .updated_at = f->now};
    uint32_t no = 0;
    bool entered = enter(f);
    assert_int_equal(store_insert_tenant(f->store, &t, &no), 0);
    leave(f, entered);
    assert_true(no > 0);
    return no;
}

uint32_t make_subscription(struct fixture *f, uint32_t tenant_no) {
    struct subscription_record r = {
        .tenant_no = tenant_no,
        .id = next_id(f, f->now),
        .status = SUBSCRIPTION_ACTIVE,
        .doc = SLICE_LIT("{\"url\":\"https://example.com/\"}"),
        .created_at = f->now,
        .updated_at = f->now,
    };
    uint32_t no = 0;
    bool entered = enter(f);
    assert_int_equal(store_insert_subscription(f->store, &r, &no), 0);
    leave(f, entered);
    assert_true(no > 0);
    return no;
}

struct id make_secret(struct fixture *f, uint32_t subscription_no, char filling) {
    struct secret_record r = {.id = next_id(f, f->now),
                              .subscription_no = subscription_no,
                              .created_at = f->now,
                              .key = {.size = 24}};
    memset(r.key.bytes, filling, r.key.size);
    bool entered = enter(f);
    struct subscription_record owner;
    assert_int_equal(store_get_subscription(f->store, subscription_no, &owner), 0);
    r.tenant_no = owner.tenant_no;
    assert_int_equal(store_insert_secret(f->store, &r), 0);
    leave(f, entered);
    return r.id;
}

struct id make_event(struct fixture *f, uint32_t tenant_no, struct event_spec spec) {
    const char *body = spec.body ? spec.body : "{\"data\":7}";
    struct event_record e = {
        .id = next_id(f, spec.at ? spec.at : f->now),
        .tenant_no = tenant_no,
        .type = slice_of(spec.type ? spec.type : "invoice.paid"),
        .schema_version = SLICE_LIT("1"),
        .ordering_key = slice_of(spec.ordering_key),
        .deliver_at = spec.deliver_at,
        .body = slice_of(body),
        .data_size = 1,
        .deliveries = 1,
    };
    bool entered = enter(f);
    assert_int_equal(store_insert_events(f->store, &e, 1), 0);
    leave(f, entered);
    return e.id;
}

void make_ordered(struct fixture *f, struct id event, uint32_t tenant_no, uint32_t subscription_no,
                  uint64_t lane_key) {
    struct new_delivery d = {.event_key = event.key,
                             .subscription_no = subscription_no,
                             .tenant_no = tenant_no,
                             .lane_key = lane_key,
                             .order_at = id_ms(event)};
    size_t made = 0;
    bool entered = enter(f);
    assert_int_equal(store_insert_deliveries(f->store, &d, 1, &made), 0);
    leave(f, entered);
    assert_int_equal(made, 1);
}

void make_delivery(struct fixture *f, struct id event, uint32_t tenant_no, uint32_t subscription_no) {
    make_ordered(f, event, tenant_no, subscription_no, 0);
}

struct id publish_ordered(struct fixture *f, uint32_t tenant_no, uint32_t subscription_no,
                          uint64_t lane_key) {
    bool entered = enter(f);
    struct id event = make_event(f, tenant_no, (struct event_spec){0});
    make_ordered(f, event, tenant_no, subscription_no, lane_key);
    leave(f, entered);
    return event;
}

struct id publish(struct fixture *f, uint32_t tenant_no, uint32_t subscription_no) {
    return publish_ordered(f, tenant_no, subscription_no, 0);
}

/* ---- the life of a delivery ---- */

struct lane_claim lane_of(uint32_t tenant_no, uint32_t subscription_no, uint32_t limit) {
    return (struct lane_claim){.tenant_no = tenant_no,
                               .subscription_no = subscription_no,
                               .limit = limit,
                               .window_ms = 72 * HOUR_MS,
                               .lease_ms = 60000};
}

struct claim claim(struct fixture *f, struct lane_claim lane) {
    struct claim c = {.lane = lane};
    bool entered = enter(f);
    assert_int_equal(
        store_claim(f->store, &c.lane, 1, f->now, c.tasks, ROWS_MAX, &c.n, c.expired, ROWS_MAX, &c.expired_n),
        0);
    leave(f, entered);
    assert_int_equal(c.lane.claimed, c.n);
    assert_int_equal(c.lane.expired, c.expired_n);
    return c;
}

struct task claim_one(struct fixture *f, uint32_t tenant_no, uint32_t subscription_no) {
    struct claim c = claim(f, lane_of(tenant_no, subscription_no, 1));
    assert_int_equal(c.n, 1);
    return c.tasks[0];
}

struct settlement outcome_of(const struct fixture *f, const struct task *t, enum delivery_state to,
                             int status) {
    return (struct settlement){
        .event_key = t->event_key,
        .subscription_no = t->subscription_no,
        .tenant_no = t->tenant_no,
        .number = t->number,
        .lane_key = t->lane_key,
        .to = to,
        .reason = to == DELIVERY_DLQ ? REASON_ATTEMPTS_EXHAUSTED : REASON_NONE,
        .due_at = to == DELIVERY_RETRY ? f->now + 5000 : 0,
        .counted = true,
        .settled_at = f->now,
        .attempt = {.started_at = f->now,
                    .latency_ms = 12,
                    .status = status,
                    .error = status ? ATTEMPT_OK : ATTEMPT_TIMEOUT,
                    .trigger = t->trigger,
                    .worker_no = 1,
                    .url = SLICE_LIT("https://example.com/"),
                    .content_type = SLICE_LIT("application/json")},
    };
}

struct settlement settle(struct fixture *f, struct settlement s) {
    bool entered = enter(f);
    if (!s.tenant_no) /* of a task that a test made up */
        s.tenant_no = tenant_of(f, s.subscription_no);
    assert_int_equal(store_settle(f->store, &s, 1), 0);
    leave(f, entered);
    return s;
}

void finish_one(struct fixture *f, uint32_t tenant_no, uint32_t subscription_no, enum delivery_state to) {
    struct task t = claim_one(f, tenant_no, subscription_no);
    assert_false(settle(f, outcome_of(f, &t, to, to == DELIVERY_DELIVERED ? 200 : 500)).stale);
}

/* ---- what a reader sees ---- */

static struct slice keep(char *room, size_t size, struct slice s) {
    assert_true(s.n < size);
    if (s.n)
        memcpy(room, s.p, s.n);
    room[s.n] = '\0';
    return SLICE_NONE;
}

static void keep_delivery(struct got_delivery *g, const struct delivery_row *row) {
    g->row = *row;
    g->row.event_type = keep(g->type, sizeof g->type, row->event_type);
    g->row.ordering_key = keep(g->ordering_key, sizeof g->ordering_key, row->ordering_key);
    g->row.replay_source = keep(g->source, sizeof g->source, row->replay_source);
    g->row.replay_requested_by = keep(g->requested_by, sizeof g->requested_by, row->replay_requested_by);
}

static int keep_one(void *arg, const struct delivery_row *row) {
    keep_delivery(arg, row);
    return 0;
}

struct got_delivery read_delivery(struct fixture *f, uint32_t tenant_no, struct id event,
                                  uint32_t subscription_no) {
    struct got_delivery g = {0};
    assert_int_equal(store_read_delivery(f->reader, tenant_no, event.key, subscription_no, keep_one, &g), 0);
    assert_true(id_eq(g.row.event_id, event));
    return g;
}

enum delivery_state state_of(struct fixture *f, uint32_t tenant_no, struct id event,
                             uint32_t subscription_no) {
    return read_delivery(f, tenant_no, event, subscription_no).row.state;
}

static int keep_next(void *arg, const struct delivery_row *row) {
    struct deliveries *d = arg;
    assert_true(d->n < ROWS_MAX);
    keep_delivery(&d->at[d->n++], row);
    return 0;
}

struct deliveries *list_deliveries(struct fixture *f, struct delivery_query q) {
    struct deliveries *d = calloc(1, sizeof *d);
    if (!q.limit)
        q.limit = ROWS_MAX;
    size_t limit = q.limit;
    struct delivery_stop stop = {.stopped = true};
    while (stop.stopped) {
        q.limit = limit - d->n;
        assert_int_equal(store_list_deliveries(f->reader, &q, keep_next, d, &stop), 0);
        q.before_event_key = stop.event_key;
        q.before_subscription_no = stop.subscription_no;
    }
    assert_true(d->n <= limit);
    return d;
}

static int keep_attempt(void *arg, const struct attempt_row *row) {
    struct attempts *a = arg;
    assert_true(a->n < ROWS_MAX);
    a->at[a->n++] = *row;
    return 0;
}

uint32_t tenant_of(struct fixture *f, uint32_t subscription_no) {
    bool mine = !f->in_transaction;
    uint32_t tenant_no;
    if (mine)
        begin(f);
    assert_int_equal(store_get_subscription_tenant(f->store, subscription_no, &tenant_no), 0);
    if (mine)
        commit(f);
    return tenant_no;
}

struct attempts *list_attempts(struct fixture *f, struct id event, uint32_t subscription_no) {
    struct attempts *a = calloc(1, sizeof *a);
    assert_int_equal(store_list_attempts(f->reader, tenant_of(f, subscription_no), event.key, subscription_no,
                                         keep_attempt, a),
                     0);
    return a;
}

static int keep_transition(void *arg, const struct transition_row *row) {
    struct transitions *t = arg;
    assert_true(t->n < ROWS_MAX);
    t->at[t->n++] = *row;
    return 0;
}

struct transitions list_transitions(struct fixture *f, struct id event, uint32_t subscription_no) {
    struct transitions t = {0};
    assert_int_equal(store_list_transitions(f->reader, tenant_of(f, subscription_no), event.key,
                                            subscription_no, keep_transition, &t),
                     0);
    return t;
}
