/* Time. Domain code never calls these: it takes `now` as an argument. Wall time is Unix milliseconds. */
#pragma once

#include <stdint.h>

#include "base/bytes.h"

int64_t clock_now_ms(void);  /* wall clock, Unix milliseconds */
int64_t clock_mono_us(void); /* monotonic microseconds, for latencies and deadlines */
/* From now on clock_now_ms is the system's clock and so many microseconds: on a shared store the clock of its
 * database holds, so that the due times, leases and ids of all nodes agree. From any thread. */
void clock_set_offset(int64_t us);
int64_t clock_system_us(void); /* without it: to measure it by */

/* RFC 3339, UTC, milliseconds: "2026-11-24T20:49:00.123Z" (24 characters and NUL). */
#define RFC3339_SIZE 25
void rfc3339_format(int64_t unix_ms, char out[RFC3339_SIZE]);

/* Parses RFC 3339 with any offset and up to nine fraction digits (the rest is cut to milliseconds).
 * 0, or -EINVAL with *ret_ms untouched. */
int rfc3339_parse(struct slice s, int64_t *ret_ms) MUST_USE;

/* Unix milliseconds of a UTC calendar time; false for a day or time that does not exist. */
bool utc_to_ms(int year, int month, int day, int hour, int minute, int second, int64_t *ret_ms);
