#include "core/decimal.h"

#define EXPONENT_MAX INT64_C(1000000000000000000)

/* The digits behind an 'e'. */
static int64_t read_exponent(const char *p, const char *end) {
    bool negative = *p == '-';
    int64_t v = 0;
    if (*p == '-' || *p == '+')
        p++;
    for (; p < end && v < EXPONENT_MAX / 10; p++)
        v = v * 10 + (*p - '0');
    if (p < end)
        v = EXPONENT_MAX;
    return negative ? -v : v;
}

struct decimal decimal_of(struct slice number) {
    CHECK(number.n > 0);
    const char *p = number.p, *end = p + number.n, *first = NULL;
    struct decimal d = {.negative = *p == '-'};
    bool fraction = false;
    if (d.negative)
        p++;
    for (; p < end && (*p | 0x20) != 'e'; p++) {
        if (*p == '.') {
            fraction = true;
            continue;
        }
        if (!first && *p != '0')
            first = p;
        if (first && !fraction)
            d.exponent++;
        else if (!first && fraction)
            d.exponent--;
    }
    if (!first)
        return (struct decimal){0};
    d.digits = (struct slice){first, (size_t)(p - first)};
    if (p < end)
        d.exponent += read_exponent(p + 1, end);
    return d;
}

/* The next digit; '0' for ever behind the last. */
static char next_digit(const char **p, const char *end) {
    if (*p < end && **p == '.')
        ++*p;
    return *p < end ? *(*p)++ : '0';
}

static int compare_digits(struct slice a, struct slice b) {
    const char *pa = a.p, *pb = b.p, *a_end = a.p + a.n, *b_end = b.p + b.n;
    while (pa < a_end || pb < b_end) {
        char da = next_digit(&pa, a_end), db = next_digit(&pb, b_end);
        if (da != db)
            return da < db ? -1 : 1;
    }
    return 0;
}

/* Of numbers with one sign, whatever it is. */
static int compare_sizes(struct decimal a, struct decimal b) {
    if (!a.digits.n || !b.digits.n)
        return (a.digits.n > 0) - (b.digits.n > 0);
    if (a.exponent != b.exponent)
        return a.exponent < b.exponent ? -1 : 1;
    return compare_digits(a.digits, b.digits);
}

int decimal_compare(struct decimal a, struct decimal b) {
    if (a.negative != b.negative)
        return a.negative ? -1 : 1;
    int r = compare_sizes(a, b);
    return a.negative ? -r : r;
}
