#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "ingest/outbox_share.h"

static void each_range_is_one_members(void **state) {
    (void)state;
    for (uint32_t members = 1; members < UINT32_C(1) << OUTBOX_MEMBERS_MAX; members++) {
        uint32_t all = 0;
        int least = OUTBOX_RANGES, most = 0;
        for (unsigned m = 0; m < OUTBOX_MEMBERS_MAX; m++) {
            if (!(members >> m & 1))
                continue;
            uint32_t share = outbox_share(members, m);
            int n = __builtin_popcount(share);
            assert_int_equal(all & share, 0);
            all |= share;
            least = n < least ? n : least;
            most = n > most ? n : most;
        }
        assert_int_equal(all, OUTBOX_ALL_RANGES);
        assert_true(most - least <= 1);
    }
}

static void a_lone_relay_has_them_all(void **state) {
    (void)state;
    for (unsigned m = 0; m < OUTBOX_MEMBERS_MAX; m++)
        assert_int_equal(outbox_share(UINT32_C(1) << m, m), OUTBOX_ALL_RANGES);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_range_is_one_members),
        cmocka_unit_test(a_lone_relay_has_them_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
