#include "core/subscription_doc.h"

#include <errno.h>
#include <stdio.h>
#include <sys/param.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum { STATUS_LEAST = 300, STATUS_MOST = 599 };

static void parse_rate_limit(struct doc *policy) {
    static const char *const names[] = {"per_second", "burst"};
    if (!doc_get(policy, "rate_limit")) {
        doc_put(policy, "rate_limit", json_null());
        return;
    }
    struct doc d;
    doc_enter(&d, policy, "rate_limit");
    if (d.from && !doc_get(&d, "per_second"))
        doc_error(&d, "per_second", "is required");
    int64_t per_second = doc_int(&d, "per_second", 1, POLICY_RATE_PER_SECOND_MAX, 1);
    (void)doc_int(&d, "burst", 1, POLICY_RATE_PER_SECOND_MAX, per_second);
    doc_refuse_unknown(&d, names, COUNT(names));
    doc_leave(&d, policy, "rate_limit");
}

static void parse_schedule(struct doc *retry) {
    const json_t *given = doc_get(retry, "schedule_seconds");
    size_t n = json_array_size(given);
    if (!json_is_array(given) || n < 1 || n > POLICY_SCHEDULE_MAX) {
        doc_error(retry, "schedule_seconds", "must be a list of 1 to %d delays", POLICY_SCHEDULE_MAX);
        return;
    }
    json_t *schedule = json_array();
    for (size_t i = 0; i < n; i++) {
        const json_t *entry = json_array_get(given, i);
        json_int_t seconds = json_integer_value(entry);
        char name[40];
        snprintf(name, sizeof name, "schedule_seconds[%zu]", i);
        if (!json_is_integer(entry) || seconds < 0 || seconds > POLICY_RETRY_SECONDS_MAX)
            doc_error(retry, name, "must be an integer from 0 to %d", POLICY_RETRY_SECONDS_MAX);
        else
            (void)json_array_append_new(schedule, json_integer(seconds));
    }
    /* An entry lost to lack of memory must not shorten the schedule in silence. */
    if (!doc_failed(retry) && json_array_size(schedule) != n) {
        json_decref(schedule);
        schedule = NULL;
    }
    doc_put(retry, "schedule_seconds", schedule);
}

static void parse_retry(struct doc *policy) {
    static const char *const names[] = {"schedule_seconds", "initial_seconds", "multiplier", "max_seconds",
                                        "jitter"};
    struct policy defaults;
    policy_init(&defaults);
    const struct retry_policy *r = &defaults.retry;
    struct doc d;
    doc_enter(&d, policy, "retry");
    bool explicit = doc_get(&d, "schedule_seconds");
    bool exponential =
        doc_get(&d, "initial_seconds") || doc_get(&d, "multiplier") || doc_get(&d, "max_seconds");
    if (explicit && exponential)
        doc_error(&d, "schedule_seconds",
                  "cannot stand beside initial_seconds, multiplier and max_seconds: give either");
    if (explicit)
        parse_schedule(&d);
    if (exponential || !explicit) {
        (void)doc_int(&d, "initial_seconds", 0, POLICY_RETRY_INITIAL_SECONDS_MAX, r->initial_seconds);
        (void)doc_real(&d, "multiplier", 1, POLICY_RETRY_MULTIPLIER_MAX, r->multiplier);
        (void)doc_int(&d, "max_seconds", 1, POLICY_RETRY_SECONDS_MAX, r->max_seconds);
    }
    (void)doc_real(&d, "jitter", 0, 1, explicit ? 0 : r->jitter);
    doc_refuse_unknown(&d, names, COUNT(names));
    doc_leave(&d, policy, "retry");
}

static bool holds(const json_t *list, size_t n, json_int_t status) {
    for (size_t i = 0; i < n; i++)
        if (json_is_integer(json_array_get(list, i)) && json_integer_value(json_array_get(list, i)) == status)
            return true;
    return false;
}

/* One of retry_on and no_retry_on; `other` is the one that came before, or NULL. */
static void parse_statuses(struct doc *policy, const char *name, const char *other) {
    const json_t *given = doc_get(policy, name), *taken = other ? doc_get(policy, other) : NULL;
    json_t *list = json_array();
    size_t n = json_array_size(given), errors_before = field_errors_count(policy->errors);
    if (given && (!json_is_array(given) || n > POLICY_STATUSES_MAX)) {
        doc_error(policy, name, "must be a list of up to %d status codes", POLICY_STATUSES_MAX);
        n = 0;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *entry = json_array_get(given, i);
        json_int_t status = json_integer_value(entry);
        char field[40];
        snprintf(field, sizeof field, "%s[%zu]", name, i);
        if (!json_is_integer(entry) || status < STATUS_LEAST || status > STATUS_MOST)
            doc_error(policy, field, "must be a status code from %d to %d", STATUS_LEAST, STATUS_MOST);
        else if (holds(given, i, status))
            doc_error(policy, field, "is listed twice");
        else if (holds(taken, json_array_size(taken), status))
            doc_error(policy, field, "is in %s too", other);
        else
            (void)json_array_append_new(list, json_integer(status));
    }
    if (field_errors_count(policy->errors) == errors_before && json_array_size(list) != n) {
        json_decref(list);
        list = NULL;
    }
    doc_put(policy, name, list);
}

void policy_doc_parse(struct doc *subscription, uint32_t window_seconds_default) {
    static const char *const names[] = {"timeout_ms",
                                        "max_in_flight",
                                        "rate_limit",
                                        "retry",
                                        "max_attempts",
                                        "window_seconds",
                                        "retry_on",
                                        "no_retry_on",
                                        "disable_after_seconds",
                                        "replay_on_recovery"};
    struct doc d;
    doc_enter(&d, subscription, "policy");
    (void)doc_int(&d, "timeout_ms", POLICY_TIMEOUT_MS_MIN, POLICY_TIMEOUT_MS_MAX, POLICY_TIMEOUT_MS_DEFAULT);
    (void)doc_int(&d, "max_in_flight", 1, POLICY_MAX_IN_FLIGHT_MAX, POLICY_MAX_IN_FLIGHT_DEFAULT);
    parse_rate_limit(&d);
    parse_retry(&d);
    (void)doc_int(&d, "max_attempts", 1, POLICY_MAX_ATTEMPTS_MAX, POLICY_MAX_ATTEMPTS_DEFAULT);
    (void)doc_int(&d, "window_seconds", 1, POLICY_WINDOW_SECONDS_MAX, window_seconds_default);
    parse_statuses(&d, "retry_on", NULL);
    parse_statuses(&d, "no_retry_on", "retry_on");
    (void)doc_int(&d, "disable_after_seconds", 1, POLICY_DISABLE_AFTER_SECONDS_MAX,
                  POLICY_DISABLE_AFTER_SECONDS_DEFAULT);
    if (doc_get(&d, "replay_on_recovery")) /* else it stays absent */
        (void)doc_bool(&d, "replay_on_recovery", false);
    doc_refuse_unknown(&d, names, COUNT(names));
    doc_leave(&d, subscription, "policy");
}

/* ---- from a normal form ---- */

static void read_u32(const json_t *doc, const char *name, uint32_t *to) {
    const json_t *value = json_object_get(doc, name);
    if (json_is_integer(value) && json_integer_value(value) >= 0 && json_integer_value(value) <= UINT32_MAX)
        *to = (uint32_t)json_integer_value(value);
}

static void read_double(const json_t *doc, const char *name, double *to) {
    const json_t *value = json_object_get(doc, name);
    if (json_is_number(value))
        *to = json_number_value(value);
}

static int read_schedule(const json_t *list, struct retry_policy *r) {
    size_t n = MIN(json_array_size(list), POLICY_SCHEDULE_MAX);
    if (n == 0)
        return 0;
    r->schedule_seconds = calloc(n, sizeof *r->schedule_seconds);
    if (!r->schedule_seconds)
        return -ENOMEM;
    r->schedule_n = (uint32_t)n;
    for (size_t i = 0; i < n; i++)
        r->schedule_seconds[i] = (uint32_t)json_integer_value(json_array_get(list, i));
    /* Only one form is in force. */
    r->initial_seconds = r->max_seconds = 0;
    r->multiplier = 0;
    r->jitter = 0;
    return 0;
}

static int read_statuses(const json_t *list, uint16_t **to, uint16_t *to_n) {
    size_t n = MIN(json_array_size(list), POLICY_STATUSES_MAX);
    if (n == 0)
        return 0;
    *to = calloc(n, sizeof **to);
    if (!*to)
        return -ENOMEM;
    *to_n = (uint16_t)n;
    for (size_t i = 0; i < n; i++)
        (*to)[i] = (uint16_t)json_integer_value(json_array_get(list, i));
    return 0;
}

struct policy *policy_from_doc(const json_t *policy) {
    _cleanup_policy_ struct policy *p = policy_new();
    if (!p)
        return NULL;
    read_u32(policy, "timeout_ms", &p->timeout_ms);
    read_u32(policy, "max_in_flight", &p->max_in_flight);
    const json_t *rate = json_object_get(policy, "rate_limit"), *retry = json_object_get(policy, "retry");
    read_u32(rate, "per_second", &p->rate_per_second);
    read_u32(rate, "burst", &p->rate_burst);
    read_u32(policy, "max_attempts", &p->max_attempts);
    read_u32(policy, "window_seconds", &p->window_seconds);
    read_u32(policy, "disable_after_seconds", &p->disable_after_seconds);
    p->replay_on_recovery = json_is_true(json_object_get(policy, "replay_on_recovery"));
    if (read_schedule(json_object_get(retry, "schedule_seconds"), &p->retry) < 0 ||
        read_statuses(json_object_get(policy, "retry_on"), &p->retry_on, &p->retry_on_n) < 0 ||
        read_statuses(json_object_get(policy, "no_retry_on"), &p->no_retry_on, &p->no_retry_on_n) < 0)
        return NULL;
    read_u32(retry, "initial_seconds", &p->retry.initial_seconds);
    read_double(retry, "multiplier", &p->retry.multiplier);
    read_u32(retry, "max_seconds", &p->retry.max_seconds);
    read_double(retry, "jitter", &p->retry.jitter);
    return TAKE_PTR(p);
}
