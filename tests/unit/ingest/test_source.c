/* The framework of sources, with a kind and a sink that do as a test says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "base/clock.h"
#include "ingest/source.h"

enum { LIMIT_MS = 60000 };

/* What kind and sink are to do, and what they saw. */
static struct {
    atomic_int open_result, publish_result, step_result;
    atomic_int opened, closed, steps, published;
    atomic_int rows;                           /* a step's; 0: it is caught up */
    atomic_bool stands_by, duplicates, breaks; /* after a step that took rows */
    atomic_int_fast64_t behind_since;          /* of one that stands by */
    atomic_int reject_from;
    atomic_int wanted_ms;
} world;

static int fake_open(struct source *s, void **ret) {
    world.opened++;
    if (world.open_result < 0) {
        source_fault(s, "the database cannot be reached", "no such host", "start it");
        return world.open_result;
    }
    *ret = &world;
    return 0;
}

static void fake_close(void *state) {
    assert_ptr_equal(state, &world);
    world.closed++;
}

static int fake_step(struct source *s, void *state) {
    assert_ptr_equal(state, &world);
    struct source_row rows[8] = {0};
    size_t n = (size_t)world.rows;
    world.steps++;
    if (world.step_result < 0) {
        source_fault(s, "the connection is lost", NULL, "nothing");
        return world.step_result;
    }
    if (world.breaks && world.published % 2 == 1) {
        world.published++;
        source_fault(s, "what comes next is wrong", NULL, "mend it");
        return -EINVAL;
    }
    if (world.stands_by)
        return source_stands_by(s, world.behind_since);
    if (n == 0) {
        source_caught_up(s);
        int r = source_wait(s, -1, 0, 1);
        return r < 0 ? r : 0;
    }
    for (size_t i = 0; i < n; i++)
        rows[i] = (struct source_row){.type = SLICE_LIT("a"), .committed_at = clock_now_ms() - 1000};
    return source_publish(s, rows, n);
}

static int fake_check(const struct source_settings *s, struct buf *complaint) {
    (void)s, (void)complaint;
    return 0;
}

static const struct source_kind kind = {
    .name = "fake", .check = fake_check, .open = fake_open, .step = fake_step, .close = fake_close};

static int fake_publish(struct source_sink *s, const struct source_settings *from, struct source_row *rows,
                        size_t n, int64_t *ret_wait_ms) {
    (void)s;
    *ret_wait_ms = world.wanted_ms;
    assert_string_equal(from->name, "shop");
    world.published++;
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(rows[i].outcome, SOURCE_WAITING);
        if (world.publish_result == 0)
            rows[i].outcome = (int)i >= world.reject_from  ? SOURCE_REJECTED
                              : i == 0 || world.duplicates ? SOURCE_DUPLICATE
                                                           : SOURCE_ACCEPTED;
    }
    return world.publish_result;
}

static void fake_free(struct source_sink *s) {
    free(s);
}

static struct source_sink *fake_sink(void *arg) {
    (void)arg;
    struct source_sink *s = calloc(1, sizeof *s);
    *s = (struct source_sink){.publish = fake_publish, .free = fake_free, .problem = "the server says no"};
    return s;
}

/* ---- a running source ---- */

struct running {
    struct metrics *metrics;
    struct sources *sources;
};

static const struct source_settings shop = {.name = "shop"};

static struct running begin(void) {
    struct running r = {.metrics = metrics_new()};
    struct sources_options o = {.metrics = r.metrics, .sink = fake_sink};
    assert_int_equal(sources_new(&o, &r.sources), 0);
    assert_int_equal(sources_add(r.sources, &shop, &kind), 0);
    assert_int_equal(sources_start(r.sources), 0);
    return r;
}

static void end(struct running *r) {
    sources_stop(r->sources);
    assert_int_equal(world.opened - (world.open_result < 0 ? world.opened : 0), world.closed);
    sources_free(r->sources);
    metrics_free(r->metrics);
}

static struct source_status status_of(struct running *r) {
    struct source_status status;
    sources_status(r->sources, 0, clock_now_ms(), &status);
    return status;
}

#define WAIT_FOR(condition)                                                                                  \
    for (int64_t until = clock_now_ms() + LIMIT_MS; !(condition);) {                                         \
        if (clock_now_ms() > until)                                                                          \
            fail_msg("gave up waiting for " #condition);                                                     \
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);                                             \
    }

static void assert_metric(struct running *r, const char *line) {
    _cleanup_buf_ struct buf out = {0};
    metrics_render(r->metrics, &out);
    if (!strstr(out.p, line))
        fail_msg("\"%s\" is missing in the metrics", line);
}

static long told_lag(struct running *r) {
    static const char name[] = "\nposthorn_source_lag_seconds{source=\"shop\"} ";
    _cleanup_buf_ struct buf out = {0};
    metrics_render(r->metrics, &out);
    const char *line = strstr(out.p, name);
    assert_non_null(line);
    return strtol(line + strlen(name), NULL, 10);
}

/* ---- tests ---- */

static int clear(void **state) {
    (void)state;
    memset(&world, 0, sizeof world);
    world.reject_from = 8;
    return 0;
}

static void a_source_that_is_caught_up_runs_and_lags_not(void **state) {
    (void)state;
    struct running r = begin();
    WAIT_FOR(world.steps >= 3);
    WAIT_FOR(status_of(&r).health == SOURCE_RUNNING);
    assert_int_equal(status_of(&r).lag_ms, 0);
    assert_null(status_of(&r).reason);
    end(&r);
    assert_int_equal(world.opened, 1);
}

static void outcomes_are_counted(void **state) {
    (void)state;
    world.rows = 8;
    world.reject_from = 6;
    struct running r = begin();
    WAIT_FOR(world.published >= 1);
    world.rows = 0;
    sources_stop(r.sources);
    char line[128];
    const struct {
        const char *outcome;
        int n;
    } expected[] = {{"duplicate", 1}, {"accepted", 5}, {"rejected", 2}};
    for (size_t i = 0; i < 3; i++) {
        snprintf(line, sizeof line, "posthorn_source_rows_total{source=\"shop\",outcome=\"%s\"} %d\n",
                 expected[i].outcome, expected[i].n * world.published);
        assert_metric(&r, line);
    }
    end(&r);
}

static void a_source_that_is_pushed_back_slows_down_and_keeps_its_connection(void **state) {
    (void)state;
    world.rows = 2;
    world.publish_result = -EAGAIN;
    struct running r = begin();
    WAIT_FOR(status_of(&r).health == SOURCE_SLOWED);
    WAIT_FOR(world.published >= 3);
    assert_true(status_of(&r).lag_ms >= 1000);
    sources_observe(r.sources, clock_now_ms());
    assert_in_range(told_lag(&r), 1, (status_of(&r).lag_ms + 999) / 1000); /* it grows all the time */
    world.publish_result = 0;
    WAIT_FOR(status_of(&r).health == SOURCE_RUNNING);
    end(&r);
    assert_int_equal(world.opened, 1);
}

static void a_fault_of_the_sink_is_told_and_mended_without_a_new_connection(void **state) {
    (void)state;
    world.rows = 2;
    world.publish_result = -EHOSTUNREACH;
    struct running r = begin();
    WAIT_FOR(status_of(&r).health == SOURCE_FAILING);
    assert_string_equal(status_of(&r).reason, "the server says no");
    world.publish_result = 0;
    WAIT_FOR(status_of(&r).health == SOURCE_RUNNING);
    assert_null(status_of(&r).reason);
    end(&r);
    assert_int_equal(world.opened, 1);
}

static void a_database_that_is_away_is_asked_again(void **state) {
    (void)state;
    world.open_result = -ECONNREFUSED;
    struct running r = begin();
    WAIT_FOR(world.opened >= 2);
    assert_int_equal(status_of(&r).health, SOURCE_FAILING);
    assert_string_equal(status_of(&r).reason, "the database cannot be reached");
    WAIT_FOR(status_of(&r).lag_ms > 0);
    int before = world.opened;
    world.open_result = 0;
    WAIT_FOR(status_of(&r).health == SOURCE_RUNNING);
    sources_stop(r.sources);
    assert_true(world.opened > before);
    assert_int_equal(world.closed, 1);
    sources_free(r.sources);
    metrics_free(r.metrics);
}

static void a_lost_connection_is_closed_and_opened_anew(void **state) {
    (void)state;
    struct running r = begin();
    WAIT_FOR(world.steps >= 2);
    world.step_result = -EPIPE;
    WAIT_FOR(world.closed >= 2);
    assert_int_equal(status_of(&r).health, SOURCE_FAILING);
    world.step_result = 0;
    WAIT_FOR(status_of(&r).health == SOURCE_RUNNING);
    end(&r);
}

static void one_that_stands_by_is_no_fault_and_asks_until_it_is_its_turn(void **state) {
    (void)state;
    world.stands_by = true;
    world.behind_since = clock_now_ms() - 5000;
    struct running r = begin();
    WAIT_FOR(world.steps >= 2);
    assert_int_equal(status_of(&r).health, SOURCE_STANDING_BY);
    assert_null(status_of(&r).reason);
    assert_true(status_of(&r).lag_ms >= 5000);
    world.behind_since = 0;
    WAIT_FOR(status_of(&r).lag_ms == 0);
    sources_observe(r.sources, clock_now_ms());
    assert_metric(&r, "posthorn_source_state{source=\"shop\",state=\"standing_by\"} 1\n");
    assert_metric(&r, "posthorn_source_state{source=\"shop\",state=\"failing\"} 0\n");
    world.stands_by = false;
    WAIT_FOR(status_of(&r).health == SOURCE_RUNNING);
    end(&r);
    assert_int_equal(world.opened, 1);
}

/* What is repeated each time before the same fault is no sign of health. */
static void one_that_takes_the_same_rows_again_and_breaks_off_fails_and_lags(void **state) {
    (void)state;
    world.rows = 2;
    world.duplicates = true;
    world.breaks = true;
    struct running r = begin();
    WAIT_FOR(world.closed >= 1);
    for (int closed = world.closed; world.closed < closed + 3;) {
        assert_int_equal(status_of(&r).health, SOURCE_FAILING);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    assert_true(status_of(&r).lag_ms >= 1000);
    world.breaks = false;
    world.duplicates = false;
    WAIT_FOR(status_of(&r).health == SOURCE_RUNNING);
    end(&r);
}

static void a_stop_waits_for_no_pause(void **state) {
    (void)state;
    world.rows = 1;
    world.publish_result = -EAGAIN;
    world.wanted_ms = SOURCE_PAUSE_MS_MAX;
    struct running r = begin();
    WAIT_FOR(status_of(&r).health == SOURCE_SLOWED);
    int64_t before = clock_now_ms();
    end(&r);
    assert_true(clock_now_ms() - before < SOURCE_PAUSE_MS_MAX / 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_source_that_is_caught_up_runs_and_lags_not, clear),
        cmocka_unit_test_setup(outcomes_are_counted, clear),
        cmocka_unit_test_setup(a_source_that_is_pushed_back_slows_down_and_keeps_its_connection, clear),
        cmocka_unit_test_setup(a_fault_of_the_sink_is_told_and_mended_without_a_new_connection, clear),
        cmocka_unit_test_setup(a_database_that_is_away_is_asked_again, clear),
        cmocka_unit_test_setup(a_lost_connection_is_closed_and_opened_anew, clear),
        cmocka_unit_test_setup(one_that_stands_by_is_no_fault_and_asks_until_it_is_its_turn, clear),
        cmocka_unit_test_setup(one_that_takes_the_same_rows_again_and_breaks_off_fails_and_lags, clear),
        cmocka_unit_test_setup(a_stop_waits_for_no_pause, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
