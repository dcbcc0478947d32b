/* JSON numbers compared by their value, exactly, whatever their length: 0.1, 1e-1 and 0.10 are equal,
 * 9007199254740992 and 9007199254740993 are not. Nothing is rounded and nothing is copied. */
#pragma once

#include "base/bytes.h"

/* 0.DIGITS × 10^exponent; no digits: zero, which has no sign. */
struct decimal {
    struct slice digits; /* from the first that is not 0; may have a '.' in it, and zeros at the end */
    int64_t exponent;
    bool negative;
};

/* Reads a valid JSON number. The digits are borrowed from it. An exponent past ±10^18 is taken for that. */
struct decimal decimal_of(struct slice number);

/* Below 0, 0 or above 0: a is less than, equal to or greater than b. */
int decimal_compare(struct decimal a, struct decimal b);
