#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/subscription.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static struct field_errors errors;

static json_t *read_json(const char *text) {
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    if (!value)
        fail_msg("%s is no JSON", text);
    return value;
}

/* The normal form of a subscription with this policy; NULL when it was refused. */
static json_t *parse(const char *policy) {
    _cleanup_buf_ struct buf text = {0};
    buf_addf(&text, "{\"url\":\"x\",\"policy\":%s}", policy);
    json_t *given = read_json(text.p);
    memset(&errors, 0, sizeof errors);
    json_t *doc = subscription_parse(given, &errors);
    json_decref(given);
    return doc;
}

/* The policy is accepted, and its member `name` becomes `expected`. */
static void assert_member(const char *policy, const char *name, const char *expected) {
    json_t *doc = parse(policy), *value = read_json(expected);
    if (!doc)
        fail_msg("%s: %s %s", policy, errors.at[0].field, errors.at[0].message);
    json_t *member = json_object_get(json_object_get(doc, "policy"), name);
    if (!json_equal(member, value)) {
        char *text = json_dumps(member, JSON_COMPACT | JSON_ENCODE_ANY);
        fail_msg("%s makes %s of %s", policy, text ? text : "nothing", name);
    }
    json_decref(value);
    json_decref(doc);
}

/* The errors' fields are exactly these, without "policy.", separated by spaces. */
static void assert_refused(const char *policy, const char *expected) {
    char fields[2048] = "";
    json_t *doc = parse(policy);
    if (doc)
        fail_msg("%s is accepted", policy);
    for (size_t i = 0, n = 0; i < errors.n; i++) {
        assert_memory_equal(errors.at[i].field, "policy", 6);
        const char *field = errors.at[i].field + (errors.at[i].field[6] == '.' ? 7 : 0);
        n += (size_t)snprintf(fields + n, sizeof fields - n, "%s%s", i ? " " : "", field);
    }
    assert_string_equal(fields, expected);
}

static void test_integers(void **state) {
    (void)state;
    static const struct {
        const char *name;
        long long least, most;
    } members[] = {
        {"timeout_ms", POLICY_TIMEOUT_MS_MIN, POLICY_TIMEOUT_MS_MAX},
        {"max_in_flight", 1, POLICY_MAX_IN_FLIGHT_MAX},
        {"max_attempts", 1, POLICY_MAX_ATTEMPTS_MAX},
        {"window_seconds", 1, POLICY_WINDOW_SECONDS_MAX},
        {"disable_after_seconds", 1, POLICY_DISABLE_AFTER_SECONDS_MAX},
    };
    static const char *const others[] = {
        "\"5000\"", "500.5", "1000.0", "1e3", "true", "[]", "{}", "-1", "9223372036854775807"};
    for (size_t i = 0; i < COUNT(members); i++) {
        const long long values[] = {members[i].least, members[i].most, members[i].least - 1,
                                    members[i].most + 1};
        char policy[128], value[32];
        for (size_t k = 0; k < COUNT(values); k++) {
            snprintf(value, sizeof value, "%lld", values[k]);
            snprintf(policy, sizeof policy, "{\"%s\":%s}", members[i].name, value);
            if (k < 2)
                assert_member(policy, members[i].name, value);
            else
                assert_refused(policy, members[i].name);
        }
        for (size_t k = 0; k < COUNT(others); k++) {
            snprintf(policy, sizeof policy, "{\"%s\":%s}", members[i].name, others[k]);
            assert_refused(policy, members[i].name);
        }
    }
}

static void test_every_bad_field_is_told(void **state) {
    (void)state;
    assert_refused("{\"timeout_ms\":99,\"max_in_flight\":0,\"rate_limit\":{\"per_second\":-1},\"retry\":"
                   "{\"schedule_seconds\":[-1]},\"max_attempts\":0,\"window_seconds\":-1,\"retry_on\":[99],"
                   "\"no_retry_on\":[\"x\"],\"disable_after_seconds\":-1,\"patience\":1}",
                   "timeout_ms max_in_flight rate_limit.per_second retry.schedule_seconds[0] max_attempts "
                   "window_seconds retry_on[0] no_retry_on[0] disable_after_seconds patience");
    assert_refused("[]", "policy");
    assert_refused("\"fast\"", "policy");
}

static void test_rate_limit(void **state) {
    (void)state;
    assert_member("{}", "rate_limit", "null");
    assert_member("{\"rate_limit\":null}", "rate_limit", "null");
    assert_member("{\"rate_limit\":{\"per_second\":5}}", "rate_limit", "{\"per_second\":5,\"burst\":5}");
    assert_member("{\"rate_limit\":{\"burst\":1,\"per_second\":100000}}", "rate_limit",
                  "{\"per_second\":100000,\"burst\":1}");
    assert_member("{\"rate_limit\":{\"per_second\":1,\"burst\":null}}", "rate_limit",
                  "{\"per_second\":1,\"burst\":1}");
    static const char *const bad[][2] = {
        {"{}", "rate_limit.per_second"},
        {"{\"burst\":5}", "rate_limit.per_second"},
        {"{\"per_second\":null}", "rate_limit.per_second"},
        {"{\"per_second\":0}", "rate_limit.per_second"},
        {"{\"per_second\":100001}", "rate_limit.per_second"},
        {"{\"per_second\":1.5}", "rate_limit.per_second"},
        {"{\"per_second\":1,\"burst\":0}", "rate_limit.burst"},
        {"{\"per_second\":1,\"burst\":\"1\"}", "rate_limit.burst"},
        {"{\"per_second\":1,\"per_minute\":1}", "rate_limit.per_minute"},
        {"[]", "rate_limit"},
        {"5", "rate_limit"},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        char policy[128];
        snprintf(policy, sizeof policy, "{\"rate_limit\":%s}", bad[i][0]);
        assert_refused(policy, bad[i][1]);
    }
}

static void test_exponential_retry(void **state) {
    (void)state;
    static const char *const good[][2] = {
        {"null", "{\"initial_seconds\":5,\"multiplier\":4,\"max_seconds\":21600,\"jitter\":0.2}"},
        {"{}", "{\"initial_seconds\":5,\"multiplier\":4,\"max_seconds\":21600,\"jitter\":0.2}"},
        {"{\"jitter\":0}", "{\"initial_seconds\":5,\"multiplier\":4,\"max_seconds\":21600,\"jitter\":0}"},
        {"{\"jitter\":1,\"schedule_seconds\":null}",
         "{\"initial_seconds\":5,\"multiplier\":4,\"max_seconds\":21600,\"jitter\":1}"},
        {"{\"initial_seconds\":0,\"multiplier\":1,\"max_seconds\":1,\"jitter\":0.0}",
         "{\"initial_seconds\":0,\"multiplier\":1,\"max_seconds\":1,\"jitter\":0.0}"},
        {"{\"initial_seconds\":86400,\"multiplier\":100.0,\"max_seconds\":2592000,\"jitter\":0.999}",
         "{\"initial_seconds\":86400,\"multiplier\":100.0,\"max_seconds\":2592000,\"jitter\":0.999}"},
        {"{\"multiplier\":1.5}",
         "{\"initial_seconds\":5,\"multiplier\":1.5,\"max_seconds\":21600,\"jitter\":0.2}"},
    };
    static const char *const bad[][2] = {
        {"[]", "retry"},
        {"\"often\"", "retry"},
        {"{\"initial_seconds\":\"soon\"}", "retry.initial_seconds"},
        {"{\"initial_seconds\":-1}", "retry.initial_seconds"},
        {"{\"initial_seconds\":86401}", "retry.initial_seconds"},
        {"{\"initial_seconds\":1.0}", "retry.initial_seconds"},
        {"{\"multiplier\":0.99}", "retry.multiplier"},
        {"{\"multiplier\":100.01}", "retry.multiplier"},
        {"{\"multiplier\":\"2\"}", "retry.multiplier"},
        {"{\"max_seconds\":0}", "retry.max_seconds"},
        {"{\"max_seconds\":2592001}", "retry.max_seconds"},
        {"{\"jitter\":1.1}", "retry.jitter"},
        {"{\"jitter\":-0.1}", "retry.jitter"},
        {"{\"jitter\":\"0\"}", "retry.jitter"},
        {"{\"jitter\":true}", "retry.jitter"},
        {"{\"patience\":1}", "retry.patience"},
    };
    char policy[256];
    for (size_t i = 0; i < COUNT(good); i++) {
        snprintf(policy, sizeof policy, "{\"retry\":%s}", good[i][0]);
        assert_member(policy, "retry", good[i][1]);
    }
    for (size_t i = 0; i < COUNT(bad); i++) {
        snprintf(policy, sizeof policy, "{\"retry\":%s}", bad[i][0]);
        assert_refused(policy, bad[i][1]);
    }
}

static void test_schedules(void **state) {
    (void)state;
    assert_member("{\"retry\":{\"schedule_seconds\":[5,300,1800]}}", "retry",
                  "{\"schedule_seconds\":[5,300,1800],\"jitter\":0}");
    assert_member("{\"retry\":{\"jitter\":0.5,\"schedule_seconds\":[0,2592000,0]}}", "retry",
                  "{\"schedule_seconds\":[0,2592000,0],\"jitter\":0.5}");
    assert_member("{\"retry\":{\"schedule_seconds\":[1],\"multiplier\":null}}", "retry",
                  "{\"schedule_seconds\":[1],\"jitter\":0}");
    static const char *const bad[][2] = {
        {"\"schedule_seconds\":[]", "schedule_seconds"},
        {"\"schedule_seconds\":\"often\"", "schedule_seconds"},
        {"\"schedule_seconds\":5", "schedule_seconds"},
        {"\"schedule_seconds\":{}", "schedule_seconds"},
        {"\"schedule_seconds\":[1,-1]", "schedule_seconds[1]"},
        {"\"schedule_seconds\":[2592001]", "schedule_seconds[0]"},
        {"\"schedule_seconds\":[1.0]", "schedule_seconds[0]"},
        {"\"schedule_seconds\":[null]", "schedule_seconds[0]"},
        {"\"schedule_seconds\":[\"1\"]", "schedule_seconds[0]"},
        {"\"schedule_seconds\":[1],\"initial_seconds\":1", "schedule_seconds"},
        {"\"schedule_seconds\":[1],\"multiplier\":2", "schedule_seconds"},
        {"\"schedule_seconds\":[1],\"max_seconds\":2", "schedule_seconds"},
        {"\"schedule_seconds\":[1],\"patience\":1", "patience"},
        {"\"schedule_seconds\":[1],\"jitter\":2", "jitter"},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        char policy[128], field[64];
        snprintf(policy, sizeof policy, "{\"retry\":{%s}}", bad[i][0]);
        snprintf(field, sizeof field, "retry.%s", bad[i][1]);
        assert_refused(policy, field);
    }
}

static void test_lengths_of_schedules(void **state) {
    (void)state;
    for (int n = POLICY_SCHEDULE_MAX; n <= POLICY_SCHEDULE_MAX + 1; n++) {
        _cleanup_buf_ struct buf policy = {0};
        buf_add_str(&policy, "{\"retry\":{\"schedule_seconds\":[0");
        for (int i = 1; i < n; i++)
            buf_addf(&policy, ",%d", i);
        buf_add_str(&policy, "]}}");
        if (n > POLICY_SCHEDULE_MAX) {
            assert_refused(policy.p, "retry.schedule_seconds");
            continue;
        }
        json_t *doc = parse(policy.p);
        _cleanup_subscription_ struct subscription *s = subscription_from_doc(doc, SLICE_NONE);
        json_decref(doc);
        assert_int_equal(s->policy->retry.schedule_n, n);
        assert_int_equal(s->policy->retry.schedule_seconds[n - 1], n - 1);
    }
}

static void test_statuses(void **state) {
    (void)state;
    static const char *const names[] = {"retry_on", "no_retry_on"};
    static const char *const bad[][2] = {
        {"5", ""},         {"{}", ""},           {"[99]", "[0]"},        {"[299]", "[0]"},
        {"[600]", "[0]"},  {"[404,404]", "[1]"}, {"[404,\"x\"]", "[1]"}, {"[404.0]", "[0]"},
        {"[null]", "[0]"},
    };
    for (size_t i = 0; i < COUNT(names); i++) {
        char policy[512], field[64];
        snprintf(policy, sizeof policy, "{\"%s\":[300,599,404]}", names[i]);
        assert_member(policy, names[i], "[300,599,404]");
        snprintf(policy, sizeof policy, "{\"%s\":[]}", names[i]);
        assert_member(policy, names[i], "[]");
        for (size_t k = 0; k < COUNT(bad); k++) {
            snprintf(policy, sizeof policy, "{\"%s\":%s}", names[i], bad[k][0]);
            snprintf(field, sizeof field, "%s%s", names[i], bad[k][1]);
            assert_refused(policy, field);
        }
        for (int n = POLICY_STATUSES_MAX; n <= POLICY_STATUSES_MAX + 1; n++) {
            _cleanup_buf_ struct buf list = {0};
            for (int k = 0; k < n; k++)
                buf_addf(&list, "%c%d", k ? ',' : '[', 400 + k);
            buf_add_char(&list, ']');
            snprintf(policy, sizeof policy, "{\"%s\":%s}", names[i], list.p);
            if (n == POLICY_STATUSES_MAX)
                assert_member(policy, names[i], list.p);
            else
                assert_refused(policy, names[i]);
        }
    }
}

static void test_a_status_is_in_one_list(void **state) {
    (void)state;
    assert_member("{\"retry_on\":[404],\"no_retry_on\":[500]}", "no_retry_on", "[500]");
    assert_refused("{\"retry_on\":[404,403],\"no_retry_on\":[500,403]}", "no_retry_on[1]");
    assert_refused("{\"retry_on\":7,\"no_retry_on\":[403]}", "retry_on");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers),   cmocka_unit_test(test_every_bad_field_is_told),
        cmocka_unit_test(test_rate_limit), cmocka_unit_test(test_exponential_retry),
        cmocka_unit_test(test_schedules),  cmocka_unit_test(test_lengths_of_schedules),
        cmocka_unit_test(test_statuses),   cmocka_unit_test(test_a_status_is_in_one_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
