#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

static atomic_int_fast64_t offset_us;

void clock_set_offset(int64_t us) {
    atomic_store_explicit(&offset_us, us, memory_order_relaxed);
}

int64_t clock_now_ms(void) {
    return (clock_system_us() + atomic_load_explicit(&offset_us, memory_order_relaxed)) / 1000;
}

int64_t clock_system_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t clock_mono_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void put_digits(char *out, int width, int v) {
    for (int i = width - 1; i >= 0; i--, v /= 10)
        out[i] = (char)('0' + v % 10);
}

void rfc3339_format(int64_t unix_ms, char out[RFC3339_SIZE]) {
    int64_t seconds = unix_ms / 1000;
    int ms = (int)(unix_ms % 1000);
    if (ms < 0) {
        ms += 1000;
        seconds--;
    }
    time_t t = (time_t)seconds;
    struct tm tm;
    gmtime_r(&t, &tm);
    /* By hand: every event and every row of a list has times, and printf takes its time. */
    memcpy(out, "0000-00-00T00:00:00.000Z", RFC3339_SIZE);
    put_digits(out, 4, tm.tm_year + 1900);
    put_digits(out + 5, 2, tm.tm_mon + 1);
    put_digits(out + 8, 2, tm.tm_mday);
    put_digits(out + 11, 2, tm.tm_hour);
    put_digits(out + 14, 2, tm.tm_min);
    put_digits(out + 17, 2, tm.tm_sec);
    put_digits(out + 20, 3, ms);
}

static int days_in_month(int year, int month) {
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap ? 1 : 0);
}

bool utc_to_ms(int year, int month, int day, int hour, int minute, int second, int64_t *ret_ms) {
    if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) || hour < 0 || hour > 23 ||
        minute < 0 || minute > 59 || second < 0 || second > 60)
        return false;
    struct tm tm = {.tm_year = year - 1900,
                    .tm_mon = month - 1,
                    .tm_mday = day,
                    .tm_hour = hour,
                    .tm_min = minute,
                    .tm_sec = second};
    *ret_ms = (int64_t)timegm(&tm) * 1000;
    return true;
}

/* Reads exactly `digits` decimal digits at *i. */
static bool read_digits(struct slice s, size_t *i, int digits, int *ret) {
    int v = 0;
    for (int k = 0; k < digits; k++, (*i)++) {
        if (*i >= s.n || s.p[*i] < '0' || s.p[*i] > '9')
            return false;
        v = v * 10 + (s.p[*i] - '0');
    }
    *ret = v;
    return true;
}

static bool read_char(struct slice s, size_t *i, const char *any_of) {
    if (*i >= s.n || !strchr(any_of, s.p[*i]) || s.p[*i] == '\0')
        return false;
    (*i)++;
    return true;
}

/* The fraction after the seconds, as milliseconds; no fraction is 0. */
static bool read_fraction(struct slice s, size_t *i, int *ret_ms) {
    *ret_ms = 0;
    if (*i >= s.n || s.p[*i] != '.')
        return true;
    (*i)++;
    int digits = 0, scale = 100;
    for (; *i < s.n && s.p[*i] >= '0' && s.p[*i] <= '9'; (*i)++, digits++, scale /= 10)
        *ret_ms += (s.p[*i] - '0') * scale;
    return digits >= 1 && digits <= 9;
}

static bool read_offset(struct slice s, size_t *i, int *ret_minutes) {
    *ret_minutes = 0;
    if (read_char(s, i, "Zz"))
        return true;
    if (*i >= s.n || (s.p[*i] != '+' && s.p[*i] != '-'))
        return false;
    int sign = s.p[(*i)++] == '-' ? -1 : 1, hour, minute;
    if (!read_digits(s, i, 2, &hour) || !read_char(s, i, ":") || !read_digits(s, i, 2, &minute) ||
        hour > 23 || minute > 59)
        return false;
    *ret_minutes = sign * (hour * 60 + minute);
    return true;
}

int rfc3339_parse(struct slice s, int64_t *ret_ms) {
    int year, month, day, hour, minute, second, ms, offset;
    size_t i = 0;
    int64_t at;
    if (!read_digits(s, &i, 4, &year) || !read_char(s, &i, "-") || !read_digits(s, &i, 2, &month) ||
        !read_char(s, &i, "-") || !read_digits(s, &i, 2, &day) || !read_char(s, &i, "Tt ") ||
        !read_digits(s, &i, 2, &hour) || !read_char(s, &i, ":") || !read_digits(s, &i, 2, &minute) ||
        !read_char(s, &i, ":") || !read_digits(s, &i, 2, &second) || !read_fraction(s, &i, &ms) ||
        !read_offset(s, &i, &offset) || i != s.n)
        return -EINVAL;
    if (!utc_to_ms(year, month, day, hour, minute, second, &at))
        return -EINVAL;
    *ret_ms = at + ms - (int64_t)offset * 60000;
    return 0;
}
