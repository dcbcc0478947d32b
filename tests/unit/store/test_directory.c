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

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_walk)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
