#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "store/directory.h"

static void put(struct directory *d, uint32_t no) {
    struct tenant t = {.no = no};
    snprintf(t.id, sizeof t.id, "t%u", no);
    assert_int_equal(directory_put_tenant(d, &t), 0);
}

/* The numbers of a walk, which drops `drop` (0: none) once it stands there. */
static void assert_walk(struct directory *d, uint32_t drop, const char *expected) {
    _cleanup_buf_ struct buf got = {0};
    struct tenant t = {0};
    buf_add_str(&got, "");
    while (directory_tenant_after(d, t.no, &t)) {
        buf_addf(&got, "%u ", t.no);
        if (t.no == drop)
            directory_remove_tenant(d, t.no);
    }
    assert_string_equal(got.p, expected);
}

static void test_walk(void **state) {
    (void)state;
    struct directory *d;
    assert_int_equal(directory_new(&d), 0);
    assert_walk(d, 0, "");
    static const uint32_t numbers[] = {7, 3, 9, 1, 4};
    for (size_t i = 0; i < 5; i++)
        put(d, numbers[i]);
    assert_walk(d, 0, "1 3 4 7 9 ");
    put(d, 5);
    put(d, 3); /* replaces */
    assert_walk(d, 4, "1 3 4 5 7 9 ");
    assert_walk(d, 1, "1 3 5 7 9 ");
    assert_walk(d, 9, "3 5 7 9 ");
    assert_walk(d, 0, "3 5 7 ");
    struct tenant t;
    assert_true(directory_tenant_after(d, 4, &t));
    assert_int_equal(t.no, 5);
    assert_false(directory_tenant_after(d, 7, &t));
    directory_free(d);
}

/* ---- events_per_second ---- */

enum { BURST = 1000 /* at least */, SECOND_US = 1000000 };

static void put_rate(struct directory *d, uint32_t no, uint32_t per_second) {
    struct tenant t = {.no = no, .limits.events_per_second = per_second};
    snprintf(t.id, sizeof t.id, "t%u", no);
    assert_int_equal(directory_put_tenant(d, &t), 0);
}

/* How many are taken one by one, up to most. */
static unsigned take(struct directory *d, uint32_t no, int64_t now_us, unsigned most) {
    unsigned n = 0, ignored;
    while (n < most && directory_take_events(d, no, 1, now_us, &ignored))
        n++;
    return n;
}

static void test_a_quota_is_a_burst_and_then_its_rate(void **state) {
    (void)state;
    struct directory *d;
    unsigned wait = 0;
    int64_t now = 5000 * INT64_C(1000000);
    assert_int_equal(directory_new(&d), 0);
    put_rate(d, 1, 10);
    assert_int_equal(take(d, 1, now, 9999), BURST);
    assert_false(directory_take_events(d, 1, 1, now, &wait));
    assert_int_equal(wait, 1);
    assert_false(directory_take_events(d, 1, 25, now, &wait));
    assert_int_equal(wait, 3);
    /* What is refused uses nothing up; who waits as long as he was told is served. */
    assert_true(directory_take_events(d, 1, 25, now + 3 * SECOND_US, &wait));
    assert_int_equal(take(d, 1, now + 3 * SECOND_US, 9999), 5);
    /* No more than the burst is saved. */
    assert_int_equal(take(d, 1, now + 100000 * INT64_C(1000000), 9999), BURST);
    directory_free(d);
}

static void test_a_quota_is_its_tenants_own_and_may_change(void **state) {
    (void)state;
    struct directory *d;
    unsigned wait = 0;
    int64_t now = 5000 * INT64_C(1000000);
    assert_int_equal(directory_new(&d), 0);
    put_rate(d, 1, 1);
    put_rate(d, 2, 1);
    put_rate(d, 3, 0); /* none */
    put_rate(d, 4, 2 * BURST);
    assert_int_equal(take(d, 1, now, 9999), BURST);
    assert_int_equal(take(d, 2, now, 9999), BURST);
    assert_int_equal(take(d, 3, now, 9999), 9999);
    assert_int_equal(take(d, 4, now, 9999), 2 * BURST);
    /* A batch of more than the burst is taken when nothing else was. */
    put_rate(d, 5, 1);
    assert_true(directory_take_events(d, 5, 2 * BURST, now, &wait));
    assert_false(directory_take_events(d, 5, 1, now, &wait));
    /* A rate that is raised holds from the next request on, not only when the old one would have let go. */
    put_rate(d, 1, 1000);
    assert_false(directory_take_events(d, 1, 1, now + SECOND_US, &wait));
    assert_int_equal(wait, 1);
    assert_int_equal(take(d, 1, now + SECOND_US + SECOND_US / 10, 9999), 100);
    directory_free(d);
}

static void add_asked(void *arg, uint32_t tenant_no, uint32_t quota, uint64_t asked) {
    buf_addf(arg, "%u %u %llu ", tenant_no, quota, (unsigned long long)asked);
}

static void assert_asked(struct directory *d, const char *expected) {
    _cleanup_buf_ struct buf got = {0};
    buf_add_str(&got, "");
    directory_take_asked(d, add_asked, &got);
    assert_string_equal(got.p, expected);
}

static void test_a_share_of_a_quota(void **state) {
    (void)state;
    struct directory *d;
    assert_int_equal(directory_new(&d), 0);
    put_rate(d, 1, 2000);
    put_rate(d, 2, 0);
    assert_int_equal(take(d, 1, SECOND_US, 9999), 2000);
    assert_int_equal(take(d, 2, SECOND_US, 10), 10);
    assert_asked(d, "1 2000 2001 ");
    assert_asked(d, "");
    /* Bucket and rate are a quarter, and fill in the same time. */
    directory_share_quota(d, 1, 0.25);
    assert_in_range(take(d, 1, 2 * SECOND_US, 9999), 499, 501);
    assert_int_equal(take(d, 1, 2 * SECOND_US, 9999), 0);
    assert_in_range(take(d, 1, 2 * SECOND_US + SECOND_US / 2, 9999), 249, 251);
    assert_in_range(take(d, 1, 60 * SECOND_US, 9999), 499, 501);
    directory_share_quota(d, 1, 1);
    assert_int_equal(take(d, 1, 120 * SECOND_US, 9999), 2000);
    directory_share_quota(d, 3, 1); /* of nobody that is known */
    directory_free(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_walk),
        cmocka_unit_test(test_a_quota_is_a_burst_and_then_its_rate),
        cmocka_unit_test(test_a_quota_is_its_tenants_own_and_may_change),
        cmocka_unit_test(test_a_share_of_a_quota),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
