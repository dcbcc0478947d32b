/* Bulk replays as the replayer works them off, step by step on the writer. */
#include "fixture.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "fanout/replayer.h"

enum { LOST = 1200 /* more than a step looks at */, LIMIT_MS = 60000 };

struct bench {
    struct fixture *f;
    uint32_t tenant, sub;
    struct metrics *metrics;
    struct writer *writer;
    struct fanout *fanout;
    struct replayer *replayer;
    struct id_source ids;
};

static struct subscription *snapshot(const struct bench *b) {
    struct subscription *s = calloc(1, sizeof *s);
    assert_non_null(s);
    atomic_init(&s->refs, 1);
    s->no = b->sub;
    s->tenant_no = b->tenant;
    s->policy = policy_new();
    assert_non_null(s->policy);
    return s;
}

static void lose(struct bench *b, unsigned n) {
    begin(b->f);
    while (n-- > 0) {
        (void)publish(b->f, b->tenant, b->sub);
        finish_one(b->f, b->tenant, b->sub, DELIVERY_DLQ);
    }
    commit(b->f);
}

static struct id ask_for(struct bench *b, struct replay_record r) {
    r.id = next_id(b->f, b->f->now);
    r.filter.tenant_no = b->tenant;
    r.filter.states = 1U << DELIVERY_DLQ;
    r.filter.last_event = r.id.key;
    r.most = INT64_MAX;
    r.requested_by = SLICE_LIT("key_1");
    begin(b->f);
    assert_int_equal(store_insert_replay(b->f->store, &r, REPLAY_OPEN_MAX), 0);
    commit(b->f);
    return r.id;
}

/* There are no loops that could be told of anything to send: with one that is started the test ends here. */
static void start(struct bench *b) {
    struct subscription *s = snapshot(b);
    b->metrics = metrics_new();
    assert_non_null(b->metrics);
    assert_int_equal(fanout_new(b->metrics, &b->fanout), 0);
    assert_int_equal(fanout_put(b->fanout, s), 0);
    subscription_unref(s);
    assert_int_equal(writer_start(b->f->store, 100, NULL, &b->writer), 0);
    struct replayer_options o = {
        .fanout = b->fanout, .writer = b->writer, .metrics = b->metrics, .ids = &b->ids, .share_percent = 50};
    assert_int_equal(replayer_new(&o, &b->replayer), 0);
}

static void stop(struct bench *b) {
    replayer_stop(b->replayer);
    writer_stop(b->writer);
    replayer_free(b->replayer);
    fanout_free(b->fanout);
    metrics_free(b->metrics);
}

static int copy_row(void *arg, const struct replay_record *row) {
    *(struct replay_record *)arg = *row;
    return 0;
}

static struct replay_record wait_until_done(struct bench *b, struct id id) {
    struct replay_record row = {.state = REPLAY_RUNNING};
    for (int64_t limit = clock_mono_us() + LIMIT_MS * INT64_C(1000); row.state != REPLAY_DONE; usleep(2000)) {
        assert_true(clock_mono_us() < limit);
        replayer_tick(b->replayer);
        assert_int_equal(store_read_replay(b->f->reader, b->tenant, id, copy_row, &row), 0);
    }
    return row;
}

/* What a request does not count itself, for there is too much of it, is counted on the way. */
static void test_a_dry_run_counts_and_starts_nothing(void **state) {
    struct bench b = {.f = *state};
    uint64_t pending = 9, dlq = 0;
    b.tenant = make_tenant(b.f);
    b.sub = make_subscription(b.f, b.tenant);
    lose(&b, LOST);
    struct id id = ask_for(&b, (struct replay_record){.dry_run = true, .matched = 7});
    start(&b);
    struct replay_record row = wait_until_done(&b, id);
    stop(&b);
    assert_int_equal(replay_matched(&row), LOST);
    assert_true(row.done == 0 && row.failed == 0);
    assert_int_equal(store_count_lane(b.f->reader, b.sub, b.tenant, 2 * LOST, &pending, &dlq), 0);
    assert_int_equal(pending, 0);
    assert_int_equal(dlq, LOST);
}

/* The subscription recovers; *ret is the tenant's newest replay afterwards. */
static void recover(struct bench *b, bool asks_for_it, struct replay_record *ret) {
    struct subscription *s = snapshot(b);
    s->policy->replay_on_recovery = asks_for_it;
    *ret = (struct replay_record){.started = 99};
    begin(b->f);
    assert_int_equal(replayer_recover(b->replayer, b->f->store, s, b->f->now), 0);
    commit(b->f);
    assert_int_equal(store_list_replays(b->f->reader, b->tenant, 0, 1, copy_row, ret), 0);
    subscription_unref(s);
}

/* What it lost since the last time, and to its being away alone: one that is asked for already does. */
static void test_a_recovery_asks_once_for_what_was_lost_since_the_last(void **state) {
    struct bench b = {.f = *state};
    struct replay_record first, again;
    b.tenant = make_tenant(b.f);
    b.sub = make_subscription(b.f, b.tenant);
    start(&b);
    replayer_stop(b.replayer); /* nothing is worked off */
    recover(&b, false, &first);
    assert_int_equal(first.started, 99);
    recover(&b, true, &first);
    assert_true(first.filter.subscription_no == b.sub && first.filter.states == 1U << DELIVERY_DLQ);
    assert_int_equal(first.filter.reasons, 1U << REASON_ATTEMPTS_EXHAUSTED | 1U << REASON_WINDOW_EXPIRED);
    assert_int_equal(first.filter.closed_after, 0);
    assert_int_equal(first.per_second, REPLAY_RECOVERY_PER_SECOND);
    assert_int_equal(first.most, REPLAY_RECOVERY_MAX);
    b.f->now += 5000;
    recover(&b, true, &again);
    assert_true(id_eq(again.id, first.id)); /* it has not begun */
    first.state = REPLAY_DONE;
    first.started = 1;
    begin(b.f);
    assert_int_equal(store_update_replay(b.f->store, &first), 0);
    commit(b.f);
    recover(&b, true, &again);
    assert_false(id_eq(again.id, first.id));
    assert_true(again.filter.closed_after == id_ms(first.id));
    stop(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_a_dry_run_counts_and_starts_nothing),
        STORE_TEST(test_a_recovery_asks_once_for_what_was_lost_since_the_last),
    };
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
