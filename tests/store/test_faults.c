/* Deliveries accepted, claimed and settled while one change of a file after the other fails, or the process
 * is killed at it: afterwards each transaction is there whole or not at all, and what was answered is there.
 */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/wait.h>

#include "base/log.h"
#include "faulty_vfs.h"

/* One event a lane. */
enum { LANES = 4, FAULTS_MAX = 20000, FSYNC_FAILED = 74 };

enum level { ABSENT, PUBLISHED, CLAIMED, SETTLED };

struct bench {
    char *folder, *template, *path, *url;
    uint32_t tenant, subs[LANES];
    size_t body_size;
    char *body;
};

static const int64_t now = INT64_C(1795553340123);

static struct id event_of(size_t i) {
    uint64_t key = id_key_at(now) + i;
    return (struct id){.key = key, .tail = mix64(key) & ID_TAIL_MAX};
}

/* ---- the work ---- */

static int publish_one(struct bench *b, struct store *s, size_t i) {
    struct event_record e = {.id = event_of(i),
                             .tenant_no = b->tenant,
                             .type = SLICE_LIT("a"),
                             .schema_version = SLICE_LIT("1"),
                             .deliveries = 1,
                             .body = {b->body, b->body_size}};
    struct new_delivery d = {
        .event_key = e.id.key, .subscription_no = b->subs[i], .tenant_no = b->tenant, .order_at = now};
    char name[16];
    snprintf(name, sizeof name, "key-%zu", i);
    struct idempotency_record key = {
        .tenant_no = b->tenant, .key = slice_of(name), .ids = &e.id, .ids_n = 1, .created_at = now};
    size_t made;
    int r = store_insert_events(s, &e, 1);
    if (r == 0)
        r = store_insert_idempotency(s, &key);
    return r == 0 ? store_insert_deliveries(s, &d, 1, &made) : r;
}

static int claim_next(struct bench *b, struct store *s, size_t i) {
    struct lane_claim lane = {.subscription_no = b->subs[i],
                              .tenant_no = b->tenant,
                              .limit = 1,
                              .window_ms = HOUR_MS,
                              .lease_ms = 60000};
    struct task task;
    struct expired_task expired;
    size_t n = 0, expired_n = 0;
    int r = store_claim(s, &lane, 1, now, &task, 1, &n, &expired, 1, &expired_n);
    if (r == 0)
        assert_int_equal(n, 1);
    return r;
}

static int settle_it(struct bench *b, struct store *s, size_t i) {
    struct settlement item = {
        .event_key = event_of(i).key,
        .subscription_no = b->subs[i],
        .number = 1,
        .to = DELIVERY_DELIVERED,
        .counted = true,
        .settled_at = now,
        .attempt = {.started_at = now, .status = 200, .url = SLICE_LIT("x"), .content_type = SLICE_LIT("x")},
    };
    int r = store_settle(s, &item, 1);
    if (r == 0)
        assert_false(item.stale);
    return r;
}

typedef int (*step_fn)(struct bench *b, struct store *s, size_t i);

static int in_transaction(struct bench *b, struct store *s, step_fn step, size_t i) {
    int r = store_begin(s);
    if (r == 0)
        r = step(b, s, i);
    if (r == 0)
        r = store_commit(s);
    if (r < 0)
        store_rollback(s);
    store_tidy(s, STORE_BUSY);
    return r;
}

/* Brings a lane's event as far as it goes; `tell`, when given, gets each level once it is committed. */
static enum level work_on(struct bench *b, struct store *s, size_t i, int tell) {
    static const step_fn steps[] = {publish_one, claim_next, settle_it};
    for (size_t k = 0; k < COUNT(steps); k++) {
        int r = in_transaction(b, s, steps[k], i);
        if (r < 0) {
            assert_true(r == -ENOSPC || r == -EIO);
            return (enum level)k;
        }
        char said[2] = {(char)i, (char)(k + 1)};
        if (tell >= 0 && write(tell, said, sizeof said) != sizeof said)
            _exit(9);
    }
    return SETTLED;
}

/* ---- what is there afterwards ---- */

static int note_event(void *arg, const struct event_row *row) {
    const struct bench *b = arg;
    assert_int_equal(row->event.body.n, b->body_size);
    assert_memory_equal(row->event.body.p, b->body, b->body_size);
    return 0;
}

static int note_state(void *arg, const struct delivery_row *row) {
    *(enum delivery_state *)arg = row->state;
    return 0;
}

static int count_attempt(void *arg, const struct attempt_row *row) {
    (void)row;
    ++*(size_t *)arg;
    return 0;
}

/* How far an event got; fails when a transaction is there in part. */
static enum level level_of(struct bench *b, struct store *s, struct store_reader *r, size_t i) {
    char name[16];
    snprintf(name, sizeof name, "key-%zu", i);
    uint8_t hash[32];
    struct id id;
    size_t ids_n, attempts = 0;
    enum delivery_state state = DELIVERY_PENDING;
    int event = store_read_event(r, b->tenant, event_of(i), note_event, b);
    int key = store_find_idempotency(s, b->tenant, slice_of(name), hash, &id, 1, &ids_n);
    int delivery = store_read_delivery(r, b->tenant, event_of(i).key, b->subs[i], note_state, &state);
    assert_int_equal(store_list_attempts(r, b->tenant, event_of(i).key, b->subs[i], count_attempt, &attempts),
                     0);
    assert_true(event == 0 || event == -ENOENT);
    assert_int_equal(key, event);
    assert_int_equal(delivery, event);
    assert_int_equal(attempts, state == DELIVERY_DELIVERED ? 1 : 0);
    if (event < 0)
        return ABSENT;
    return state == DELIVERY_PENDING ? PUBLISHED : state == DELIVERY_ATTEMPTING ? CLAIMED : SETTLED;
}

static void assert_sound(const char *path) {
    sqlite3 *db;
    sqlite3_stmt *st;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &st, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(st), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(st, 0), "ok");
    sqlite3_finalize(st);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static struct store *open_store(struct bench *b) {
    struct store *s = NULL;
    const char *message = "";
    if (store_open(b->url, &s, &message) < 0)
        fail_msg("%s", message);
    return s;
}

/* Each event is as far as was told, or, when `or_next`, one step further: its answer was on the way. */
static void assert_levels(struct bench *b, const enum level *told, bool or_next) {
    struct store *s = open_store(b);
    struct store_reader *r = NULL;
    assert_int_equal(store_reader_open(s, &r), 0);
    for (size_t i = 0; i < LANES; i++) {
        enum level level = level_of(b, s, r, i);
        if (level != told[i] && !(or_next && level == told[i] + 1))
            fail_msg("event %zu is at %d, told was %d", i, level, told[i]);
    }
    store_reader_close(r);
    store_close(s);
    assert_sound(b->path);
}

/* ---- the bench ---- */

static void copy_file(const char *from, const char *to) {
    char bytes[65536];
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(in >= 0 && out >= 0);
    for (ssize_t n; (n = read(in, bytes, sizeof bytes)) != 0;)
        assert_true(n > 0 && write(out, bytes, (size_t)n) == n);
    close(in);
    close(out);
}

static void fresh_store(struct bench *b) {
    static const char *const suffixes[] = {"-wal", "-shm"};
    for (size_t i = 0; i < COUNT(suffixes); i++) {
        char *path = NULL;
        assert_true(asprintf(&path, "%s%s", b->path, suffixes[i]) > 0);
        (void)unlink(path);
        free(path);
    }
    copy_file(b->template, b->path);
}

static void fill_template(struct bench *b) {
    struct store *s = NULL;
    const char *message;
    char *url = NULL;
    assert_true(asprintf(&url, "sqlite:%s", b->template) > 0);
    assert_int_equal(store_open(url, &s, &message), 0);
    struct tenant_record t = {.id = SLICE_LIT("acme"), .doc = SLICE_LIT("{}"), .created_at = now};
    assert_int_equal(store_begin(s), 0);
    assert_int_equal(store_insert_tenant(s, &t, &b->tenant), 0);
    for (size_t i = 0; i < LANES; i++) {
        struct subscription_record r = {.tenant_no = b->tenant,
                                        .id = {.key = id_key_at(now - 1000) + i, .tail = i},
                                        .doc = SLICE_LIT("{}"),
                                        .created_at = now};
        assert_int_equal(store_insert_subscription(s, &r, &b->subs[i]), 0);
    }
    assert_int_equal(store_commit(s), 0);
    store_close(s);
    free(url);
}

static int bench_setup(void **state) {
    struct bench *b = calloc(1, sizeof *b);
    b->folder = folder_make();
    assert_true(asprintf(&b->template, "%s/template.db", b->folder) > 0);
    assert_true(asprintf(&b->path, "%s/posthorn.db", b->folder) > 0);
    assert_true(asprintf(&b->url, "sqlite:%s", b->path) > 0);
    b->body_size = 9000; /* more than a page */
    b->body = malloc(b->body_size);
    memset(b->body, 'x', b->body_size);
    fill_template(b);
    *state = b;
    return 0;
}

static int bench_teardown(void **state) {
    struct bench *b = *state;
    folder_remove(b->folder);
    free(b->folder);
    free(b->template);
    free(b->path);
    free(b->url);
    free(b->body);
    free(b);
    return 0;
}

/* ---- errors ---- */

/* The cycle with one fault; false when there were not so many changes. */
static bool cycle_survives(struct bench *b, struct fault fault) {
    enum level told[LANES] = {ABSENT};
    fresh_store(b);
    struct store *s = open_store(b);
    faulty_vfs_arm(fault);
    for (size_t i = 0; i + 1 < LANES; i++)
        told[i] = work_on(b, s, i, -1);
    bool in_work = faulty_vfs_struck();
    if (in_work) {
        /* The same process goes on once the disk has recovered. */
        (void)faulty_vfs_disarm();
        told[LANES - 1] = work_on(b, s, LANES - 1, -1);
        assert_int_equal(told[LANES - 1], SETTLED);
    }
    store_close(s); /* checkpoints: still under the fault, when it has not struck yet */
    bool struck = faulty_vfs_disarm() || in_work;
    assert_levels(b, told, false);
    return struck;
}

static void sweep(struct bench *b, struct fault fault, unsigned stride) {
    unsigned n = 0;
    for (fault.at = 1; cycle_survives(b, fault); fault.at += stride, n++)
        assert_true(fault.at < FAULTS_MAX);
    assert_true(n > 10);
}

static void test_disk_full_at_any_write(void **state) {
    sweep(*state, (struct fault){.what = FAULT_FULL}, 1);
}

static void test_disk_full_from_any_write_on(void **state) {
    sweep(*state, (struct fault){.what = FAULT_FULL, .stays = true}, 1);
}

static void test_io_error_at_any_write(void **state) {
    sweep(*state, (struct fault){.what = FAULT_IO_ERROR}, 1);
}

static void test_io_errors_from_any_write_on(void **state) {
    sweep(*state, (struct fault){.what = FAULT_IO_ERROR, .stays = true}, 1);
}

/* Events so large that the log is checkpointed in the middle of the work. */
static void test_disk_full_around_a_checkpoint(void **state) {
    struct bench *b = *state;
    b->body_size = 8 << 20;
    b->body = realloc(b->body, b->body_size);
    memset(b->body, 'x', b->body_size);
    sweep(b, (struct fault){.what = FAULT_FULL}, 797);
}

/* ---- the end of the process ---- */

/* Runs the cycle in a child under the fault and gathers what it told; its wait status. */
static int run_child(struct bench *b, struct fault fault, enum level told[LANES]) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fresh_store(b);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct store *s = NULL;
        const char *message;
        if (store_open(b->url, &s, &message) < 0)
            _exit(8);
        faulty_vfs_arm(fault);
        for (size_t i = 0; i < LANES; i++)
            (void)work_on(b, s, i, ends[1]);
        (void)faulty_vfs_disarm();
        _exit(0);
    }
    close(ends[1]);
    for (char said[2]; read(ends[0], said, sizeof said) == sizeof said;)
        told[(size_t)said[0]] = (enum level)said[1];
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void test_failed_fsync_ends_the_process(void **state) {
    struct bench *b = *state;
    struct fault fault = {.what = FAULT_SYNC, .at = 1};
    for (;; fault.at++) {
        enum level told[LANES] = {ABSENT};
        int status = run_child(b, fault, told);
        assert_true(WIFEXITED(status));
        assert_levels(b, told, true);
        if (WEXITSTATUS(status) == 0)
            break;
        assert_int_equal(WEXITSTATUS(status), FSYNC_FAILED);
        assert_true(fault.at < FAULTS_MAX);
    }
    /* A transaction is synced at least once. */
    assert_true(fault.at > 3 * LANES);
}

static void test_failed_fsync_of_a_checkpoint_ends_the_process(void **state) {
    struct bench *b = *state;
    b->body_size = 8 << 20;
    b->body = realloc(b->body, b->body_size);
    memset(b->body, 'x', b->body_size);
    test_failed_fsync_ends_the_process(state);
}

static void test_kill_at_any_change(void **state) {
    struct bench *b = *state;
    struct fault fault = {.what = FAULT_DIE, .at = 1};
    for (;; fault.at++) {
        enum level told[LANES] = {ABSENT};
        int status = run_child(b, fault, told);
        assert_levels(b, told, true);
        if (!WIFSIGNALED(status))
            break;
        assert_int_equal(WTERMSIG(status), SIGKILL);
        assert_true(fault.at < FAULTS_MAX);
    }
    assert_true(fault.at > 3 * LANES);
}

int main(void) {
    if (getenv("POSTHORN_TEST_STORE"))
        return 0; /* of the SQLite file alone */
    faulty_vfs_install();
    log_configure((enum log_level)(LOG_ERROR + 1), false); /* thousands of errors, all made here */
#define FAULT_TEST(fn) cmocka_unit_test_setup_teardown(fn, bench_setup, bench_teardown)
    const struct CMUnitTest tests[] = {
        FAULT_TEST(test_disk_full_at_any_write),
        FAULT_TEST(test_disk_full_from_any_write_on),
        FAULT_TEST(test_io_error_at_any_write),
        FAULT_TEST(test_io_errors_from_any_write_on),
        FAULT_TEST(test_disk_full_around_a_checkpoint),
        FAULT_TEST(test_failed_fsync_ends_the_process),
        FAULT_TEST(test_failed_fsync_of_a_checkpoint_ends_the_process),
        FAULT_TEST(test_kill_at_any_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
