#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>

#include "base/clock.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static void test_format(void **state) {
    (void)state;
    static const struct {
        int64_t ms;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {1, "1970-01-01T00:00:00.001Z"},
        {-1, "1969-12-31T23:59:59.999Z"},
        {-1000, "1969-12-31T23:59:59.000Z"},
        {951782400000, "2000-02-29T00:00:00.000Z"},
        {1795553340123, "2026-11-24T20:49:00.123Z"},
        {253402300799999, "9999-12-31T23:59:59.999Z"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char text[RFC3339_SIZE];
        int64_t back = 7;
        rfc3339_format(cases[i].ms, text);
        assert_string_equal(text, cases[i].text);
        assert_int_equal(rfc3339_parse(slice_of(text), &back), 0);
        assert_true(back == cases[i].ms);
    }
}

static void test_parse(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } cases[] = {
        {"2026-11-24T20:49:00Z", 1795553340000},
        {"2026-11-24t20:49:00z", 1795553340000},
        {"2026-11-24 20:49:00Z", 1795553340000},
        {"2026-11-24T20:49:00.1Z", 1795553340100},
        {"2026-11-24T20:49:00.123456789Z", 1795553340123},
        {"2026-11-24T20:49:00.0009Z", 1795553340000},
        {"2026-11-24T20:49:00+00:00", 1795553340000},
        {"2026-11-24T20:49:00-00:00", 1795553340000},
        {"2026-11-24T22:19:00+01:30", 1795553340000},
        {"2026-11-24T12:49:00-08:00", 1795553340000},
        {"2026-11-25T20:48:00+23:59", 1795553340000},
        {"2016-12-31T23:59:60Z", 1483228800000}, /* a leap second is the next one */
        {"2000-02-29T00:00:00Z", 951782400000},
        {"1969-12-31T23:59:59Z", -1000},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t ms = 7;
        if (rfc3339_parse(slice_of(cases[i].text), &ms) != 0 || ms != cases[i].ms)
            fail_msg("%s is read as %lld", cases[i].text, (long long)ms);
    }
}

static void test_refusals(void **state) {
    (void)state;
    static const char *const cases[] = {
        "",
        "tomorrow",
        "2026-11-24",
        "2026-11-24T20:49:00",
        "2026-11-24T20:49Z",
        "2026-11-24T20:49:00.Z",
        "2026-11-24T20:49:00.1234567890Z",
        "2026-11-24T20:49:00,1Z",
        "2026-11-24T20:49:00ZZ",
        "2026-11-24T20:49:00Z ",
        " 2026-11-24T20:49:00Z",
        "2026-11-24T20:49:00+1:00",
        "2026-11-24T20:49:00+0100",
        "2026-11-24T20:49:00+24:00",
        "2026-11-24T20:49:00+00:60",
        "2026-11-24T24:00:00Z",
        "2026-11-24T20:60:00Z",
        "2026-11-24T20:49:61Z",
        "2026-00-24T20:49:00Z",
        "2026-13-24T20:49:00Z",
        "2026-11-00T20:49:00Z",
        "2026-11-31T20:49:00Z",
        "2026-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2026-02-30T00:00:60Z", /* the leap second does not make the day */
        "26-11-24T20:49:00Z",
        "+026-11-24T20:49:00Z",
        "2026-11-24X20:49:00Z",
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t ms = 7;
        if (rfc3339_parse(slice_of(cases[i]), &ms) != -EINVAL)
            fail_msg("\"%s\" is accepted", cases[i]);
        assert_int_equal(ms, 7);
    }
    int64_t ms = 7;
    assert_int_equal(rfc3339_parse(SLICE_NONE, &ms), -EINVAL);
    assert_int_equal(rfc3339_parse(SLICE_LIT("2026-11-24T20:49:00\0"), &ms), -EINVAL);
    assert_int_equal(rfc3339_parse(SLICE_LIT("2026-11-24\0"
                                             "20:49:00Z"),
                                   &ms),
                     -EINVAL);
}

static void test_utc(void **state) {
    (void)state;
    int64_t ms = 7;
    assert_false(utc_to_ms(2026, 0, 1, 0, 0, 0, &ms));
    assert_false(utc_to_ms(2026, 4, 31, 0, 0, 0, &ms));
    assert_false(utc_to_ms(1900, 2, 29, 0, 0, 0, &ms));
    assert_int_equal(ms, 7);
    assert_true(utc_to_ms(2024, 2, 29, 23, 59, 59, &ms));
    assert_true(ms == 1709251199000);
    assert_true(utc_to_ms(1969, 12, 31, 23, 59, 59, &ms));
    assert_int_equal(ms, -1000);
}

static void test_clocks_go(void **state) {
    (void)state;
    assert_true(clock_now_ms() > 1700000000000);
    int64_t first = clock_mono_us();
    assert_true(clock_mono_us() >= first);
}

static void test_offset(void **state) {
    (void)state;
    static const int64_t offsets_us[] = {INT64_C(-3600000000), 0};
    for (size_t i = 0; i < sizeof offsets_us / sizeof offsets_us[0]; i++) {
        clock_set_offset(offsets_us[i]);
        int64_t before_ms = (clock_system_us() + offsets_us[i]) / 1000, now_ms = clock_now_ms(),
                after_ms = (clock_system_us() + offsets_us[i]) / 1000;
        assert_in_range(now_ms, before_ms, after_ms); /* time goes on between two looks */
    }
    clock_set_offset(0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_format), cmocka_unit_test(test_parse),     cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_utc),    cmocka_unit_test(test_clocks_go), cmocka_unit_test(test_offset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
