#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/heap.h"

#include "base/random.h"

enum { NODES = 1000 };

/* Takes the top off and checks that it is `expected`. */
static void assert_top(struct heap *h, struct heap_node *expected) {
    struct heap_node *top = heap_top(h);
    assert_ptr_equal(top, expected);
    assert_true(heap_contains(top));
    heap_remove(h, top);
    assert_false(heap_contains(top));
}

static void test_empty(void **state) {
    (void)state;
    struct heap h = {0};
    struct heap_node node = {0};
    assert_null(heap_top(&h));
    assert_false(heap_contains(&node));
    heap_remove(&h, &node);
    heap_free(&h);
    heap_free(&h);
}

static void test_smallest_first(void **state) {
    (void)state;
    struct heap h = {0};
    struct heap_node a = {0}, b = {0}, c = {0};
    assert_int_equal(heap_set(&h, &a, 30), 0);
    assert_int_equal(heap_set(&h, &b, -10), 0);
    assert_int_equal(heap_set(&h, &c, INT64_MAX), 0);
    assert_top(&h, &b);
    assert_top(&h, &a);
    assert_top(&h, &c);
    assert_null(heap_top(&h));
    heap_free(&h);
}

static void test_equal_keys_leave_as_they_came(void **state) {
    (void)state;
    struct heap h = {0};
    static struct heap_node nodes[NODES];
    for (int i = 0; i < NODES; i++)
        assert_int_equal(heap_set(&h, &nodes[i], i % 3), 0);
    for (int key = 0; key < 3; key++)
        for (int i = key; i < NODES; i += 3)
            assert_top(&h, &nodes[i]);
    heap_free(&h);
}

static void test_moving(void **state) {
    (void)state;
    struct heap h = {0};
    struct heap_node a = {0}, b = {0}, c = {0};
    assert_int_equal(heap_set(&h, &a, 1), 0);
    assert_int_equal(heap_set(&h, &b, 2), 0);
    assert_int_equal(heap_set(&h, &c, 3), 0);
    assert_int_equal(heap_set(&h, &a, 4), 0);
    assert_int_equal(heap_set(&h, &c, 0), 0);
    assert_int_equal(h.n, 3);
    assert_top(&h, &c);
    heap_remove(&h, &c); /* is out already */
    assert_top(&h, &b);
    assert_top(&h, &a);
    heap_free(&h);
}

/* Against a plain array, with random insertions, moves and removals. */
static void test_against_a_model(void **state) {
    (void)state;
    static struct heap_node nodes[NODES];
    struct heap h = {0};
    struct rng rng;
    rng_seed(&rng, 1);
    for (int step = 0; step < 50000; step++) {
        struct heap_node *node = &nodes[rng_below(&rng, NODES)];
        if (rng_below(&rng, 3) == 0)
            heap_remove(&h, node);
        else
            assert_int_equal(heap_set(&h, node, (int64_t)rng_below(&rng, 50)), 0);
        if (step % 100 != 0)
            continue;
        const struct heap_node *least = NULL;
        size_t n = 0;
        for (int i = 0; i < NODES; i++) {
            if (!heap_contains(&nodes[i]))
                continue;
            n++;
            assert_ptr_equal(h.nodes[nodes[i].slot - 1], &nodes[i]);
            if (!least || nodes[i].key < least->key ||
                (nodes[i].key == least->key && nodes[i].order < least->order))
                least = &nodes[i];
        }
        assert_int_equal(h.n, n);
        assert_ptr_equal(heap_top(&h), least);
    }
    int64_t last = INT64_MIN;
    while (heap_top(&h)) {
        struct heap_node *top = heap_top(&h);
        assert_true(top->key >= last);
        last = top->key;
        heap_remove(&h, top);
    }
    heap_free(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_smallest_first),
        cmocka_unit_test(test_equal_keys_leave_as_they_came),
        cmocka_unit_test(test_moving),
        cmocka_unit_test(test_against_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
