#include "core/retry.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"

static const int64_t RETRY_AFTER_MS_MAX = INT64_C(10) * 366 * 86400 * 1000;

const char *outcome_class_name(enum outcome_class c) {
    static const char *const names[OUTCOME_CLASSES] = {"success", "transient", "backpressure",
                                                       "gone",    "permanent", "blocked"};
    CHECK(c < OUTCOME_CLASSES);
    return names[c];
}

static bool listed(const uint16_t *codes, uint16_t n, int status) {
    for (uint16_t i = 0; i < n; i++)
        if (codes[i] == status)
            return true;
    return false;
}

static enum outcome_class classify_status(int status, bool has_retry_after) {
    if (status >= 200 && status < 300)
        return OUTCOME_SUCCESS;
    if (status == 429 || (status == 503 && has_retry_after))
        return OUTCOME_BACKPRESSURE;
    if (status == 410)
        return OUTCOME_GONE;
    if (status == 408 || status == 409 || status == 425 || status < 400 || status >= 500)
        return OUTCOME_TRANSIENT;
    return OUTCOME_PERMANENT;
}

enum outcome_class outcome_classify(const struct outcome *o, const struct policy *p) {
    if (o->status == 0)
        return o->error == ATTEMPT_BLOCKED_ADDRESS ? OUTCOME_BLOCKED : OUTCOME_TRANSIENT;
    enum outcome_class class = classify_status(o->status, o->retry_after_ms >= 0);
    if (class == OUTCOME_SUCCESS)
        return class;
    if (listed(p->no_retry_on, p->no_retry_on_n, o->status))
        return OUTCOME_PERMANENT;
    if (class != OUTCOME_BACKPRESSURE && listed(p->retry_on, p->retry_on_n, o->status))
        return OUTCOME_TRANSIENT;
    return class;
}

int64_t retry_backoff_ms(const struct retry_policy *r, uint32_t attempts_made) {
    CHECK(attempts_made >= 1);
    if (r->schedule_seconds)
        return attempts_made > r->schedule_n ? -1 : (int64_t)r->schedule_seconds[attempts_made - 1] * 1000;
    double seconds = r->initial_seconds;
    for (uint32_t i = 1; i < attempts_made && seconds < r->max_seconds; i++)
        seconds *= r->multiplier;
    if (seconds > r->max_seconds)
        seconds = r->max_seconds;
    return (int64_t)(seconds * 1000);
}

static int64_t with_jitter(int64_t delay_ms, double jitter, struct rng *rng) {
    if (jitter <= 0)
        return delay_ms;
    return (int64_t)((double)delay_ms * (1 + jitter * (2 * rng_unit(rng) - 1)));
}

static struct verdict to_dlq(enum delivery_reason reason, bool counted) {
    return (struct verdict){.to = DELIVERY_DLQ, .reason = reason, .counted = counted};
}

/* The delay before the next attempt, jittered; -1 when the explicit schedule is used up. Backpressure
 * stretches an explicit schedule's last delay instead of ending it. */
static int64_t next_delay(const struct policy *p, uint32_t made, uint32_t counted, bool backpressure,
                          struct rng *rng) {
    const struct retry_policy *r = &p->retry;
    uint32_t step = r->schedule_seconds ? (counted ? counted : 1) : made;
    if (r->schedule_seconds && backpressure && step > r->schedule_n)
        step = r->schedule_n;
    int64_t delay = step ? retry_backoff_ms(r, step) : (int64_t)r->initial_seconds * 1000;
    return delay < 0 ? -1 : with_jitter(delay, r->jitter, rng);
}

static struct verdict schedule_retry(const struct policy *p, const struct attempt_tally *t,
                                     const struct outcome *o, bool backpressure, int64_t now,
                                     struct rng *rng) {
    uint32_t made = t->number - t->base;
    uint32_t uncounted = t->uncounted + (backpressure ? 1 : 0);
    CHECK(made >= 1 && uncounted <= made);
    uint32_t counted = made - uncounted;
    int64_t window_end = retry_window_end(p, t->window_at);
    if (!backpressure && counted >= p->max_attempts)
        return to_dlq(REASON_ATTEMPTS_EXHAUSTED, true);
    int64_t delay = o->error == ATTEMPT_LEASE_EXPIRED && o->status == 0
                        ? 0
                        : next_delay(p, made, counted, backpressure, rng);
    if (delay < 0)
        return to_dlq(REASON_ATTEMPTS_EXHAUSTED, true);
    if (o->retry_after_ms > 0) {
        int64_t asked = now + o->retry_after_ms > window_end ? window_end - now : o->retry_after_ms;
        delay = asked > delay ? asked : delay;
    }
    int64_t due_at = now + delay;
    if (due_at > window_end)
        return to_dlq(REASON_WINDOW_EXPIRED, !backpressure);
    return (struct verdict){.to = DELIVERY_RETRY, .due_at = due_at, .counted = !backpressure};
}

struct verdict retry_decide(const struct policy *p, const struct attempt_tally *t, const struct outcome *o,
                            int64_t now, struct rng *rng) {
    enum outcome_class class = outcome_classify(o, p);
    switch (class) {
    case OUTCOME_SUCCESS:
        return (struct verdict){.to = DELIVERY_DELIVERED, .counted = true};
    case OUTCOME_GONE:
        return to_dlq(REASON_GONE, true);
    case OUTCOME_PERMANENT:
        return to_dlq(REASON_PERMANENT_RESPONSE, true);
    case OUTCOME_BLOCKED:
        return to_dlq(REASON_BLOCKED_ADDRESS, true);
    case OUTCOME_TRANSIENT:
    case OUTCOME_BACKPRESSURE:
        return schedule_retry(p, t, o, class == OUTCOME_BACKPRESSURE, now, rng);
    case OUTCOME_CLASSES:
        break;
    }
    UNREACHABLE();
}

static bool parse_delay_seconds(struct slice v, int64_t *ret_ms) {
    int64_t seconds = 0;
    for (size_t i = 0; i < v.n; i++) {
        if (v.p[i] < '0' || v.p[i] > '9')
            return false;
        if (seconds <= RETRY_AFTER_MS_MAX / 1000)
            seconds = seconds * 10 + (v.p[i] - '0');
    }
    if (v.n == 0)
        return false;
    int64_t ms = seconds * 1000;
    *ret_ms = ms > RETRY_AFTER_MS_MAX ? RETRY_AFTER_MS_MAX : ms;
    return true;
}

static int month_number(const char *name) {
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    const char *at = strstr(months, name);
    return strlen(name) == 3 && at && (at - months) % 3 == 0 ? (int)(at - months) / 3 + 1 : 0;
}

/* IMF-fixdate, RFC 850 or asctime (RFC 9110 §5.6.7). */
static bool parse_http_date(const char *text, int64_t now_ms, int64_t *ret_ms) {
    int day, year, hour, minute, second, used = 0;
    char month[4];
    if (sscanf(text, "%*3[A-Za-z], %2d %3[A-Za-z] %4d %2d:%2d:%2d GMT%n", &day, month, &year, &hour, &minute,
               &second, &used) == 6 &&
        used && !text[used])
        return utc_to_ms(year, month_number(month), day, hour, minute, second, ret_ms);
    used = 0;
    if (sscanf(text, "%*3[A-Za-z] %3[A-Za-z] %2d %2d:%2d:%2d %4d%n", month, &day, &hour, &minute, &second,
               &year, &used) == 6 &&
        used && !text[used])
        return utc_to_ms(year, month_number(month), day, hour, minute, second, ret_ms);
    used = 0;
    if (sscanf(text, "%*9[A-Za-z], %2d-%3[A-Za-z]-%2d %2d:%2d:%2d GMT%n", &day, month, &year, &hour, &minute,
               &second, &used) != 6 ||
        !used || text[used])
        return false;
    /* A two-digit year more than 50 years ahead is of the century before. */
    int64_t at;
    if (!utc_to_ms(2000 + year, month_number(month), day, hour, minute, second, &at))
        return false;
    if (at > now_ms + INT64_C(50) * 365 * 86400 * 1000 &&
        !utc_to_ms(1900 + year, month_number(month), day, hour, minute, second, &at))
        return false;
    *ret_ms = at;
    return true;
}

int retry_after_parse(struct slice value, int64_t now_ms, int64_t *ret_delay_ms) {
    while (value.n && (*value.p == ' ' || *value.p == '\t'))
        value.p++, value.n--;
    while (value.n && (value.p[value.n - 1] == ' ' || value.p[value.n - 1] == '\t'))
        value.n--;
    if (parse_delay_seconds(value, ret_delay_ms))
        return 0;
    char text[64];
    int64_t at;
    if (value.n >= sizeof text || memchr(value.p ? value.p : "", '\0', value.n))
        return -EINVAL;
    memcpy(text, value.p ? value.p : "", value.n);
    text[value.n] = '\0';
    if (!parse_http_date(text, now_ms, &at))
        return -EINVAL;
    int64_t delay = at > now_ms ? at - now_ms : 0;
    *ret_delay_ms = delay > RETRY_AFTER_MS_MAX ? RETRY_AFTER_MS_MAX : delay;
    return 0;
}
