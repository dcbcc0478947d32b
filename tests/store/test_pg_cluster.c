/* Nodes on one PostgreSQL: membership, partitions, the change feed and what they tell each other. */
#include "fixture.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "store/cluster.h"
#include "store/postgres/postgres.h"

/* A machine may be held up for some seconds; a short lease is not over by that. */
enum { LEASE_MS = 60000, SHORT_MS = 4000, WAIT_MS = 60000, CLOCK_MS = 10000 };

/* A node as a process has it: a store of its own, and a feed. */
struct node {
    struct store *store;
    struct store_feed *feed;
    uint32_t no, slot;
};

static void join(struct fixture *f, struct node *n, uint32_t tiers, int64_t lease_ms) {
    const char *message = "";
    uint32_t worker;
    *n = (struct node){0};
    if (store_open(f->url, &n->store, &message) < 0)
        fail_msg("%s", message);
    fixture_unlock(n->store);
    assert_true(store_is_shared(n->store));
    struct node_entry e = {.roles = ROLES_ALL, .tiers = tiers, .name = "test", .lease_ms = lease_ms};
    assert_int_equal(store_begin(n->store), 0);
    assert_int_equal(store_register_worker(n->store, "test", "posthorn/test", f->now, &worker), 0);
    assert_int_equal(store_join(n->store, &e, &n->no, &n->slot), 0);
    assert_int_equal(store_commit(n->store), 0);
    assert_int_equal(store_feed_open(n->store, &n->feed), 0);
}

static void leave(struct node *n) {
    store_feed_close(n->feed);
    store_close(n->store);
}

static size_t take(struct node *n, uint16_t from, uint16_t count) {
    uint16_t nos[PARTITIONS];
    size_t taken = 0;
    for (uint16_t i = 0; i < count; i++)
        nos[i] = (uint16_t)(from + i);
    assert_int_equal(store_begin(n->store), 0);
    assert_int_equal(store_take_partitions(n->store, TIER_STANDARD, nos, count, &taken), 0);
    assert_int_equal(store_commit(n->store), 0);
    for (size_t i = 0; i < taken; i++)
        assert_in_range(nos[i], from, from + count - 1);
    return taken;
}

static unsigned owned(const struct cluster_view *v, uint32_t no) {
    unsigned n = 0;
    for (unsigned p = 0; p < PARTITIONS; p++)
        n += v->owners[TIER_STANDARD][p] == no;
    return n;
}

static struct cluster_view *look(struct node *n) {
    static struct cluster_view view;
    assert_int_equal(store_feed_view(n->feed, &view), 0);
    return &view;
}

static void test_partitions_have_one_owner(void **state) {
    struct fixture *f = *state;
    struct node a, b;
    join(f, &a, 7, LEASE_MS);
    join(f, &b, 1, LEASE_MS);
    assert_true(a.no != b.no && a.slot != b.slot);
    struct cluster_view *v = look(&a);
    assert_int_equal(v->n, 2);
    assert_true(v->nodes[0].no == a.no && v->nodes[0].tiers == 7 && v->nodes[1].tiers == 1);
    assert_in_range(v->nodes[0].lease_left_ms, 1, LEASE_MS);
    assert_in_range(v->clock_offset_us / 1000 + CLOCK_MS, 0, 2 * CLOCK_MS);
    assert_int_equal(take(&a, 0, 100), 100);
    assert_int_equal(take(&b, 90, 20), 10);
    assert_int_equal(take(&a, 90, 20), 0);
    v = look(&b);
    assert_true(owned(v, a.no) == 100 && owned(v, b.no) == 10);
    /* What is given is free; what is another's cannot be given. */
    uint16_t some[] = {98, 99, 100};
    assert_int_equal(store_begin(a.store), 0);
    assert_int_equal(store_give_partitions(a.store, TIER_STANDARD, some, 3), 0);
    assert_int_equal(store_commit(a.store), 0);
    v = look(&b);
    assert_true(owned(v, a.no) == 98 && owned(v, b.no) == 10);
    assert_int_equal(take(&b, 90, 20), 2);
    /* Whoever ends leaves nothing behind. */
    leave(&a);
    v = look(&b);
    assert_int_equal(v->n, 1);
    assert_int_equal(take(&b, 0, 1024), 1012);
    leave(&b);
}

static int bury(struct node *by, uint32_t no) {
    assert_int_equal(store_begin(by->store), 0);
    int r = store_bury_node(by->store, no);
    assert_int_equal(store_commit(by->store), 0);
    return r;
}

static void wait_until(bool (*fn)(struct node *n, uint32_t no), struct node *n, uint32_t no) {
    int64_t until = clock_mono_us() + WAIT_MS * 1000;
    while (!fn(n, no)) {
        assert_true(clock_mono_us() < until);
        usleep(10000);
    }
}

static bool is_buried(struct node *n, uint32_t no) {
    return bury(n, no) == 1;
}

/* In a process of its own, which is ended when it writes after all. */
static int write_as_dead(struct node *n) {
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        (void)!store_begin(n->store);
        (void)!store_set_node_tiers(n->store, 7);
        int r = store_commit(n->store);
        _exit(r == 0 ? 1 : 2);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_a_dead_node_is_buried_and_writes_no_more(void **state) {
    struct fixture *f = *state;
    struct node a, b;
    join(f, &a, 7, SHORT_MS);
    join(f, &b, 7, LEASE_MS);
    assert_int_equal(take(&a, 0, 1024), 1024);
    assert_true(atomic_load(store_send_until(a.store)) > clock_mono_us());
    assert_int_equal(bury(&b, a.no), 0);
    wait_until(is_buried, &b, a.no);
    assert_true(atomic_load(store_send_until(a.store)) <= clock_mono_us());
    assert_int_equal(bury(&b, a.no), 0);
    struct cluster_view *v = look(&b);
    assert_true(v->n == 1 && owned(v, 0) == PARTITIONS);
    assert_int_equal(take(&b, 0, 1024), 1024);
    assert_int_equal(write_as_dead(&a), 75);
    assert_int_equal(owned(look(&b), b.no), PARTITIONS);
    leave(&b);
    store_feed_close(a.feed);
    store_close(a.store);
}

static int64_t setting(struct node *n, const char *sql) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    assert_int_equal(store_begin(n->store), 0);
    assert_int_equal(pg_query_row(&pg_of(n->store)->writer, sql, &rows), 1);
    int64_t value = pg_column_int(&rows, 0);
    store_rollback(n->store);
    return value;
}

/* A send that was decided on takes a moment to begin: nothing is sent in the lease's last tenth. And what a
 * frozen node has locked is free before its lease is over. */
static void test_a_lease_binds_what_a_node_does(void **state) {
    struct fixture *f = *state;
    struct node a;
    int64_t before_us = clock_mono_us();
    join(f, &a, 7, LEASE_MS);
    assert_int_equal(store_begin(a.store), 0);
    assert_int_equal(store_heartbeat(a.store, 7), 0);
    assert_int_equal(store_commit(a.store), 0);
    int64_t until_us = atomic_load(store_send_until(a.store)), most_us = LEASE_MS * INT64_C(900);
    assert_true(until_us > before_us && until_us <= clock_mono_us() + most_us);
    assert_int_equal(setting(&a, "SELECT setting::int FROM pg_settings WHERE name="
                                 "'idle_in_transaction_session_timeout'"),
                     LEASE_MS / 2);
    leave(&a);
}

static void test_a_heartbeat_keeps_a_node_alive(void **state) {
    struct fixture *f = *state;
    struct node a, b;
    join(f, &a, 7, SHORT_MS);
    join(f, &b, 7, LEASE_MS);
    for (int64_t until = clock_mono_us() + 3 * SHORT_MS / 2 * 1000; clock_mono_us() < until; usleep(50000)) {
        assert_int_equal(store_begin(a.store), 0);
        assert_int_equal(store_heartbeat(a.store, 7), 0);
        assert_int_equal(store_commit(a.store), 0);
        /* It may have been held up: then it lives by the store's clock all the same, or it is dead. */
        if (look(&b)->nodes[0].lease_left_ms > 0)
            assert_int_equal(bury(&b, b.no), 0);
    }
    leave(&a);
    leave(&b);
}

/* ---- the change feed ---- */

static size_t changes(struct node *n, struct feed_change *ret, struct feed_position *p) {
    static struct feed_change room[FEED_CHANGES_MAX];
    size_t got = 0;
    assert_int_equal(store_feed_changes(n->feed, ret ? ret : room, &got, p), 0);
    return got;
}

static void test_changes_of_others_are_told_once(void **state) {
    struct fixture *f = *state;
    struct node a, b;
    static struct feed_change got[FEED_CHANGES_MAX];
    struct feed_position p;
    join(f, &a, 7, LEASE_MS);
    join(f, &b, 7, LEASE_MS);
    fixture_close(f);
    f->store = a.store; /* the fixture's helpers write as node a */
    uint32_t before = make_tenant(f);
    assert_int_equal(changes(&b, got, &p), 0); /* the first call: memory is filled afterwards */
    assert_int_equal(changes(&a, got, &p), 0);
    uint32_t tenant = make_tenant(f), subscription = make_subscription(f, tenant);
    assert_true(before < tenant);
    assert_int_equal(changes(&b, got, &p), 2);
    bool tenant_told = false, subscription_told = false;
    for (size_t i = 0; i < 2; i++) {
        tenant_told |= got[i].kind == FEED_TENANT && got[i].no == tenant;
        subscription_told |=
            got[i].kind == FEED_SUBSCRIPTION && got[i].no == subscription && got[i].tenant_no == tenant;
    }
    assert_true(tenant_told && subscription_told);
    assert_int_equal(changes(&b, got, &p), 0);
    assert_int_equal(changes(&a, got, &p), 0); /* its own */

    /* What commits late is not passed over, and what is above it is told once all the same. */
    assert_int_equal(store_begin(b.store), 0);
    struct tenant_record late = {
        .id = SLICE_LIT("late"), .doc = SLICE_LIT("{}"), .created_at = 1, .updated_at = 1};
    uint32_t late_no;
    assert_int_equal(store_insert_tenant(b.store, &late, &late_no), 0);
    struct node c;
    join(f, &c, 7, LEASE_MS);
    assert_int_equal(changes(&c, got, &p), 0);
    make_tenant(f);
    assert_int_equal(changes(&c, got, &p), 1);
    assert_int_equal(changes(&c, got, &p), 0);
    assert_true(p.known >= 1); /* an open transaction of another database keeps older ones in sight too */
    assert_int_equal(store_commit(b.store), 0);
    assert_int_equal(changes(&c, got, &p), 1);
    assert_true(got[0].kind == FEED_TENANT && got[0].no == late_no);
    assert_int_equal(changes(&c, got, &p), 0);
    f->store = NULL;
    leave(&c);
    leave(&b);
    leave(&a);
    fixture_open(f);
}

/* ---- attempts of others ---- */

struct seen_attempts {
    struct feed_attempt last;
    size_t n;
};

static int see_attempt(void *arg, const struct feed_attempt *row) {
    struct seen_attempts *seen = arg;
    seen->last = *row;
    seen->n++;
    return 0;
}

static size_t attempts_in(struct node *n, unsigned partition, struct feed_attempt *ret) {
    struct partition_set set = {0};
    struct seen_attempts seen = {.n = 0};
    partition_add(&set, TIER_STANDARD, partition);
    assert_int_equal(store_feed_attempts(n->feed, &set, see_attempt, &seen), 0);
    *ret = seen.last;
    return seen.n;
}

static size_t still_under_way(struct node *n, struct feed_attempt attempt) {
    size_t left = 9;
    assert_int_equal(store_feed_under_way(n->feed, &attempt, 1, &left), 0);
    return left;
}

/* They count against caps and order of whoever takes the lane over, until they have ended. */
static void test_attempts_of_others_are_seen_until_they_end(void **state) {
    struct fixture *f = *state;
    struct node a, b;
    struct feed_attempt seen, own;
    bool sending = true;
    join(f, &a, 7, LEASE_MS);
    join(f, &b, 7, LEASE_MS);
    fixture_close(f);
    f->store = a.store;
    uint32_t tenant = make_tenant(f), lane = make_subscription(f, tenant);
    unsigned partition = partition_of(lane);
    struct id event = publish(f, tenant, lane);
    assert_int_equal(attempts_in(&b, partition, &seen), 0);
    assert_int_equal(store_feed_sending(b.feed, lane, &sending), 0);
    assert_false(sending);
    struct task first = claim_one(f, tenant, lane);
    assert_int_equal(attempts_in(&b, partition, &seen), 1);
    assert_true(seen.event_key == event.key && seen.subscription_no == lane && seen.tenant_no == tenant &&
                seen.number == 1);
    assert_int_equal(attempts_in(&b, (partition + 1) % PARTITIONS, &own), 0);
    assert_int_equal(attempts_in(&a, partition, &own), 0); /* its own */
    assert_int_equal(still_under_way(&b, seen), 1);
    assert_int_equal(store_feed_sending(b.feed, lane, &sending), 0);
    assert_true(sending);
    /* The next attempt of the same delivery is another one. */
    struct settlement s = settle(f, outcome_of(f, &first, DELIVERY_RETRY, 500));
    assert_int_equal(still_under_way(&b, seen), 0);
    f->now = s.due_at;
    struct task second = claim_one(f, tenant, lane);
    assert_int_equal(still_under_way(&b, seen), 0);
    seen.number = 2;
    assert_int_equal(still_under_way(&b, seen), 1);
    settle(f, outcome_of(f, &second, DELIVERY_DELIVERED, 200));
    assert_int_equal(attempts_in(&b, partition, &own), 0);
    assert_int_equal(still_under_way(&b, seen), 0);
    assert_int_equal(store_feed_sending(b.feed, lane, &sending), 0);
    assert_false(sending);
    f->store = NULL;
    leave(&b);
    leave(&a);
    fixture_open(f);
}

/* ---- hearing ---- */

static void keep_text(void *arg, const char *text) {
    struct buf *b = arg;
    buf_add_str(b, text);
    buf_add_char(b, ';');
}

static void test_nodes_hear_each_other(void **state) {
    struct fixture *f = *state;
    struct node a, b;
    _cleanup_buf_ struct buf heard = {0};
    bool changed;
    int wake = eventfd(0, EFD_CLOEXEC);
    join(f, &a, 7, LEASE_MS);
    join(f, &b, 7, LEASE_MS);
    assert_int_equal(store_feed_wait(a.feed, wake, 0, keep_text, &heard, &changed), 0);
    assert_true(changed); /* it listens from now on: it has to look once */
    assert_int_equal(store_feed_wait(b.feed, wake, 0, keep_text, &heard, &changed), 0);
    assert_int_equal(store_feed_tell(a.feed, "d 1 2"), 0);
    assert_int_equal(store_feed_tell(a.feed, "n"), 0);
    for (int i = 0; i < 100 && heard.n < 8; i++)
        assert_int_equal(store_feed_wait(b.feed, wake, 100, keep_text, &heard, &changed), 0);
    assert_true(slice_eq(buf_slice(&heard), SLICE_LIT("d 1 2;n;")));
    assert_int_equal(store_feed_wait(a.feed, wake, 0, keep_text, &heard, &changed), 0);
    assert_int_equal(heard.n, 8); /* nobody hears itself */
    assert_false(changed);
    assert_int_equal(eventfd_write(wake, 1), 0);
    int64_t began = clock_mono_us();
    assert_int_equal(store_feed_wait(a.feed, wake, WAIT_MS, keep_text, &heard, &changed), 0);
    assert_true(clock_mono_us() - began < WAIT_MS * 1000);
    close(wake);
    leave(&a);
    leave(&b);
}

static void test_one_node_has_a_duty(void **state) {
    struct fixture *f = *state;
    struct node a, b;
    bool has = false;
    join(f, &a, 7, LEASE_MS);
    join(f, &b, 7, LEASE_MS);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(store_begin(a.store), 0);
        assert_int_equal(store_try_duty(a.store, DUTY_HOUSEKEEPING, &has), 0);
        store_rollback(a.store);
        assert_true(has);
        assert_int_equal(store_begin(b.store), 0);
        assert_int_equal(store_try_duty(b.store, DUTY_HOUSEKEEPING, &has), 0);
        assert_int_equal(store_commit(b.store), 0);
        assert_false(has);
    }
    leave(&a);
    int64_t until = clock_mono_us() + WAIT_MS * 1000;
    while (!has && clock_mono_us() < until) { /* its session ends a moment later */
        assert_int_equal(store_begin(b.store), 0);
        assert_int_equal(store_try_duty(b.store, DUTY_HOUSEKEEPING, &has), 0);
        assert_int_equal(store_commit(b.store), 0);
    }
    assert_true(has);
    leave(&b);
}

/* ---- the numbers of fan-out jobs ---- */

static void insert_job(struct node *n, uint32_t tenant, struct id event) {
    struct fanout_job job = {
        .event_key = event.key, .tenant_no = tenant, .upper = 9, .state = FANOUT_PENDING};
    assert_int_equal(store_begin(n->store), 0);
    assert_int_equal(store_insert_job(n->store, &job), 0);
    size_t listed;
    struct fanout_job own;
    assert_int_equal(store_list_jobs(n->store, event.key - 1, &own, 1, &listed), 0);
    assert_true(listed == 1 && own.seq > 0);
}

/* Two nodes may have read a job one after the other: what the slower one says takes nothing back. */
static void test_a_job_does_not_go_back(void **state) {
    struct fixture *f = *state;
    struct node a;
    join(f, &a, 7, LEASE_MS);
    fixture_close(f);
    f->store = a.store;
    uint32_t tenant = make_tenant(f);
    struct id event = make_event(f, tenant, (struct event_spec){0});
    insert_job(&a, tenant, event);
    assert_int_equal(store_commit(a.store), 0);
    struct fanout_job later = {.event_key = event.key,
                               .tenant_no = tenant,
                               .cursor = 5,
                               .deliveries = 4,
                               .upper = 9,
                               .state = FANOUT_EXPANDING},
                      earlier = later, listed;
    earlier.cursor = 3;
    earlier.deliveries = 2;
    earlier.state = FANOUT_PENDING;
    size_t n = 0;
    begin(f);
    assert_int_equal(store_update_job(a.store, &later), 0);
    assert_int_equal(store_update_job(a.store, &earlier), 0);
    assert_int_equal(store_list_jobs(a.store, 0, &listed, 1, &n), 0);
    commit(f);
    assert_int_equal(n, 1);
    assert_true(listed.cursor == 5 && listed.deliveries == 4 && listed.state == FANOUT_EXPANDING);
    f->store = NULL;
    leave(&a);
    fixture_open(f);
}

/* Who does not know yet of a change before the job would pass somebody over. */
static void test_a_job_waits_for_the_changes_before_it(void **state) {
    struct fixture *f = *state;
    struct node a, b;
    struct feed_position p;
    struct fanout_job job;
    join(f, &a, 7, LEASE_MS);
    join(f, &b, 7, LEASE_MS);
    fixture_close(f);
    f->store = a.store;
    uint32_t tenant = make_tenant(f);
    (void)changes(&b, NULL, &p);
    store_feed_applied(b.store, &p);
    (void)make_subscription(f, tenant);
    struct id event = make_event(f, tenant, (struct event_spec){0});
    insert_job(&a, tenant, event);
    assert_int_equal(store_commit(a.store), 0);
    assert_int_equal(store_begin(b.store), 0);
    assert_int_equal(store_take_job(b.store, 0, &job), -ENOENT);
    assert_int_equal(store_commit(b.store), 0);
    assert_int_equal(changes(&b, NULL, &p), 1);
    store_feed_applied(b.store, &p);
    assert_int_equal(store_begin(b.store), 0);
    assert_int_equal(store_take_job(b.store, 0, &job), 0);
    assert_int_equal(store_commit(b.store), 0);
    assert_true(job.event_key == event.key);
    f->store = NULL;
    leave(&b);
    leave(&a);
    fixture_open(f);
}

/* Each job is worked on by one node at a time: another takes the next one, and does not wait. */
static void test_a_job_is_one_nodes_at_a_time(void **state) {
    struct fixture *f = *state;
    struct node a, b;
    struct fanout_job first, second;
    join(f, &a, 7, LEASE_MS);
    join(f, &b, 7, LEASE_MS);
    fixture_close(f);
    f->store = a.store;
    uint32_t tenant = make_tenant(f);
    struct id events[2];
    for (int i = 0; i < 2; i++) {
        events[i] = make_event(f, tenant, (struct event_spec){0});
        insert_job(&a, tenant, events[i]);
        assert_int_equal(store_commit(a.store), 0);
    }
    assert_int_equal(store_begin(a.store), 0);
    assert_int_equal(store_begin(b.store), 0);
    assert_int_equal(store_take_job(a.store, 0, &first), 0);
    assert_int_equal(store_take_job(b.store, 0, &second), 0);
    assert_true(first.event_key == events[0].key && second.event_key == events[1].key);
    assert_int_equal(store_commit(b.store), 0);
    assert_int_equal(store_commit(a.store), 0);
    f->store = NULL;
    leave(&b);
    leave(&a);
    fixture_open(f);
}

struct asking {
    struct node *node;
    uint64_t event_key, last, seen; /* the job's number, 0: it was not seen */
    int result;
    atomic_bool done;
};

/* What a change of a subscription asks before it settles the jobs. */
static void *ask_last(void *arg) {
    struct asking *q = arg;
    struct fanout_job job;
    size_t n = 0;
    q->result = store_begin(q->node->store);
    if (q->result == 0)
        q->result = store_last_job(q->node->store, &q->last);
    if (q->result == 0)
        q->result = store_list_jobs(q->node->store, q->event_key - 1, &job, 1, &n);
    q->seen = n ? job.seq : 0;
    if (q->result == 0)
        q->result = store_commit(q->node->store);
    atomic_store(&q->done, true);
    return NULL;
}

static bool somebody_waits(struct node *n) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    assert_int_equal(store_begin(n->store), 0);
    assert_int_equal(
        pg_query_row(&pg_of(n->store)->writer,
                     "SELECT count(*) FROM pg_locks WHERE locktype='advisory' AND NOT granted"
                     " AND database=(SELECT oid FROM pg_database WHERE datname=current_database())",
                     &rows),
        1);
    bool waits = pg_column_int(&rows, 0) > 0;
    store_rollback(n->store);
    return waits;
}

static void test_no_job_is_numbered_behind_who_has_asked_for_the_last(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f);
    struct id event = make_event(f, tenant, (struct event_spec){0});
    struct node a, b, c;
    join(f, &a, 7, LEASE_MS);
    join(f, &b, 7, LEASE_MS);
    join(f, &c, 7, LEASE_MS);
    insert_job(&a, tenant, event); /* not committed yet */
    struct asking q = {.node = &b, .event_key = event.key};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, ask_last, &q), 0);
    while (!somebody_waits(&c) && !atomic_load(&q.done))
        usleep(1000);
    assert_int_equal(store_commit(a.store), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(q.result, 0);
    assert_true(q.seen && q.seen < q.last);
    /* And every later one is behind. */
    struct id later = make_event(f, tenant, (struct event_spec){0});
    insert_job(&a, tenant, later);
    struct fanout_job job;
    size_t n;
    assert_int_equal(store_list_jobs(a.store, later.key - 1, &job, 1, &n), 0);
    assert_true(n == 1 && job.seq > q.last);
    assert_int_equal(store_commit(a.store), 0);
    leave(&a);
    leave(&b);
    leave(&c);
}

static struct tier_view look_at_tiers(struct node *n) {
    struct tier_view v;
    assert_int_equal(store_feed_tiers(n->feed, &v), 0);
    return v;
}

static void tell_tiers(struct node *n, uint64_t change) {
    assert_int_equal(store_begin(n->store), 0);
    assert_int_equal(store_set_tier_changes(n->store, change), 0);
    assert_int_equal(store_commit(n->store), 0);
}

static void change_tier(struct node *n, uint32_t tenant_no, uint64_t expected) {
    uint64_t change = 0;
    assert_int_equal(store_begin(n->store), 0);
    assert_int_equal(store_change_tier(n->store, UINT16_MAX, &change), -ENOENT);
    assert_int_equal(store_change_tier(n->store, tenant_no, &change), 0);
    assert_int_equal(store_commit(n->store), 0);
    assert_int_equal(change, expected);
}

static void test_a_change_of_a_tier_is_open_until_all_have_it(void **state) {
    struct fixture *f = *state;
    struct feed_change changes[FEED_CHANGES_MAX];
    struct feed_position position;
    struct tenant_record tenant;
    struct node a, b, c;
    uint32_t tenant_no = make_tenant(f);
    size_t n;
    join(f, &a, 7, LEASE_MS);
    join(f, &b, 7, LEASE_MS);
    struct tier_view v = look_at_tiers(&a);
    assert_true(v.in_force == 0 && v.n == 0);
    change_tier(&a, tenant_no, 1);
    assert_int_equal(store_feed_changes(b.feed, changes, &n, &position), 0);
    assert_int_equal(position.tier_changes, 1);
    assert_int_equal(store_begin(b.store), 0);
    assert_int_equal(store_get_tenant(b.store, tenant_no, &tenant), 0);
    assert_int_equal(tenant.tier_change, 1);
    assert_int_equal(store_commit(b.store), 0);
    /* One that joins has read it. */
    join(f, &c, 7, LEASE_MS);
    tell_tiers(&a, 1);
    v = look_at_tiers(&c);
    assert_true(v.in_force == 0 && v.n == 1 && v.open[0] == tenant_no);
    tell_tiers(&b, 1);
    v = look_at_tiers(&c);
    assert_true(v.in_force == 1 && v.n == 0);
    /* What changes again is open again. */
    change_tier(&b, tenant_no, 2);
    tell_tiers(&a, 2);
    v = look_at_tiers(&a);
    assert_true(v.in_force == 1 && v.n == 1 && v.open[0] == tenant_no);
    tell_tiers(&b, 2);
    leave(&c);
    v = look_at_tiers(&a);
    assert_true(v.in_force == 2 && v.n == 0);
    leave(&a);
    leave(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_partitions_have_one_owner),
        STORE_TEST(test_a_dead_node_is_buried_and_writes_no_more),
        STORE_TEST(test_a_lease_binds_what_a_node_does),
        STORE_TEST(test_a_heartbeat_keeps_a_node_alive),
        STORE_TEST(test_changes_of_others_are_told_once),
        STORE_TEST(test_attempts_of_others_are_seen_until_they_end),
        STORE_TEST(test_nodes_hear_each_other),
        STORE_TEST(test_one_node_has_a_duty),
        STORE_TEST(test_a_job_does_not_go_back),
        STORE_TEST(test_a_change_of_a_tier_is_open_until_all_have_it),
        STORE_TEST(test_a_job_waits_for_the_changes_before_it),
        STORE_TEST(test_a_job_is_one_nodes_at_a_time),
        STORE_TEST(test_no_job_is_numbered_behind_who_has_asked_for_the_last),
    };
    if (!getenv("POSTHORN_TEST_STORE")) {
        puts("without POSTHORN_TEST_STORE there is no PostgreSQL to test on");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
