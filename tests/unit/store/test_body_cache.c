#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/random.h"
#include "store/body_cache.h"

enum { SMALL = 100, ROUNDS = 200000, EVENTS = 5000 };

static struct blob *body_of(uint64_t event_key, size_t n) {
    struct blob *b = blob_new(n);
    assert_non_null(b);
    memset(b->p, (int)(event_key & 0x7f), n);
    return b;
}

static void put(struct body_cache *c, uint64_t event_key, size_t n) {
    struct blob *b = body_of(event_key, n);
    body_cache_put(c, event_key, &(struct body){.envelope = b, .data_size = (uint32_t)event_key});
    blob_unref(b);
}

/* Whether it is there, and then as it was put. */
static bool has(struct body_cache *c, uint64_t event_key) {
    struct body found;
    if (!body_cache_get(c, event_key, &found))
        return false;
    assert_int_equal(found.data_size, (uint32_t)event_key);
    for (size_t i = 0; i < found.envelope->n; i++)
        assert_int_equal(found.envelope->p[i], event_key & 0x7f);
    blob_unref(found.envelope);
    return true;
}

static void test_what_was_put_is_found(void **state) {
    (void)state;
    struct body_cache *c;
    assert_int_equal(body_cache_new(1 << 20, &c), 0);
    assert_false(has(c, 1));
    for (uint64_t key = 1; key <= 100; key++)
        put(c, key, SMALL);
    for (uint64_t key = 1; key <= 100; key++)
        assert_true(has(c, key));
    assert_false(has(c, 101));
    put(c, 50, SMALL); /* again */
    assert_true(has(c, 50));
    body_cache_free(c);
}

static void test_the_oldest_leave_first(void **state) {
    (void)state;
    struct body_cache *c;
    assert_int_equal(body_cache_new(10000, &c), 0);
    for (uint64_t key = 1; key <= 1000; key++) {
        put(c, key, SMALL);
        assert_true(has(c, key));
    }
    uint64_t first = 1;
    while (!has(c, first))
        first++;
    assert_in_range(first, 1000 - 10000 / SMALL, 1000 - 5000 / SMALL);
    for (uint64_t key = first; key <= 1000; key++)
        assert_true(has(c, key));
    put(c, 2000, 10001); /* larger than all of it */
    assert_false(has(c, 2000));
    assert_true(has(c, 1000));
    put(c, 2001, 9000);
    assert_true(has(c, 2001));
    assert_false(has(c, 990));
    body_cache_free(c);
}

static void test_a_cache_of_nothing(void **state) {
    (void)state;
    struct body_cache *c;
    assert_int_equal(body_cache_new(0, &c), 0);
    put(c, 1, 0);
    assert_false(has(c, 1));
    body_cache_free(c);
}

/* Few slots, many collisions, every order of coming: against a list of what may be there. */
static void test_any_order(void **state) {
    (void)state;
    struct body_cache *c;
    struct rng rng;
    static uint32_t put_at[EVENTS + 1];
    rng_seed(&rng, 1);
    assert_int_equal(body_cache_new(8000, &c), 0);
    for (uint32_t round = 1; round < ROUNDS; round++) {
        uint64_t key = 1 + rng_below(&rng, EVENTS);
        bool was_there = has(c, key);
        assert_true(!was_there || put_at[key]);
        put(c, key, (size_t)rng_below(&rng, 200));
        assert_true(has(c, key));
        if (!was_there)
            put_at[key] = round;
    }
    /* What is there are the latest that were put: nothing newer than one that is there is missing. */
    uint32_t oldest = ROUNDS;
    for (uint64_t key = 1; key <= EVENTS; key++)
        if (has(c, key) && put_at[key] < oldest)
            oldest = put_at[key];
    for (uint64_t key = 1; key <= EVENTS; key++)
        assert_int_equal(has(c, key), put_at[key] >= oldest);
    body_cache_free(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_put_is_found),
        cmocka_unit_test(test_the_oldest_leave_first),
        cmocka_unit_test(test_a_cache_of_nothing),
        cmocka_unit_test(test_any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
