#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/decimal.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static int compare(const char *a, const char *b) {
    return decimal_compare(decimal_of(slice_of(a)), decimal_of(slice_of(b)));
}

/* Numbers of one line are equal, and less than those of every later line. */
static const char *const ascending[][5] = {
    {"-1e999999999999999999999", "-10e999999999999999999999"},
    {"-1e309", "-10e308"},
    {"-9223372036854775808", "-9223372036854775808.0"},
    {"-10.5", "-1.05e1", "-105e-1"},
    {"-10", "-1e1", "-10.0", "-1.0E+1"},
    {"-0.001", "-1e-3"},
    {"-1e-999999999999999999999"},
    {"0", "-0", "0.000", "0e5", "-0.0e-99999999999999999999"},
    {"1e-999999999999999999999"},
    {"5e-324"},
    {"0.0999999999999999999999999999"},
    {"0.1", "0.10", "1e-1", "0.01e1", "100e-3"},
    {"0.1000000000000000055511151231257827"},
    {"1", "1.0", "10e-1", "0.1e1"},
    {"1.0000000000000000000000000001"},
    {"9", "9.00"},
    {"10", "1e1", "1E+1", "0.1e2"},
    {"100", "1e2", "100.00"},
    {"101"},
    {"9007199254740992"},
    {"9007199254740993", "9007199254740993.0"},
    {"18446744073709551616", "1844674407370955161.6e1"},
    {"1e309", "10e308"},
    {"1e999999999999999999999"},
};

static void test_order(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(ascending); i++)
        for (size_t k = 0; k < COUNT(ascending); k++)
            for (size_t a = 0; a < 5 && ascending[i][a]; a++)
                for (size_t b = 0; b < 5 && ascending[k][b]; b++) {
                    int r = compare(ascending[i][a], ascending[k][b]), want = (i > k) - (i < k);
                    /* Exponents past 10^18 are all one. */
                    if (i == k && (strstr(ascending[i][a], "99999999999999999999")))
                        continue;
                    if ((r > 0) - (r < 0) != want)
                        fail_msg("%s against %s is %d", ascending[i][a], ascending[k][b], r);
                }
}

int main(void) {
    static const struct CMUnitTest tests[] = {cmocka_unit_test(test_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
