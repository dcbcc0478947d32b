#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>

#include "core/subscription.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

enum { THREADS = 4, TURNS = 10000 };

static const char URL[] = "https://example.com/hook";

/* The snapshot of a document as a user writes it. */
static struct subscription *snapshot(const char *text) {
    struct field_errors errors = {0};
    json_t *given = json_loads(text, JSON_ALLOW_NUL, NULL);
    assert_non_null(given);
    json_t *doc = subscription_parse(given, &errors);
    if (!doc)
        fail_msg("%s: %s", errors.at[0].field, errors.at[0].message);
    struct subscription *s = subscription_from_doc(doc, SLICE_NONE);
    assert_non_null(s);
    json_decref(given);
    json_decref(doc);
    return s;
}

static void test_defaults(void **state) {
    (void)state;
    _cleanup_subscription_ struct subscription *s = snapshot("{\"url\":\"https://example.com/hook\"}");
    struct policy defaults;
    policy_init(&defaults);
    assert_string_equal(s->url, URL);
    assert_int_equal(s->status, SUBSCRIPTION_ACTIVE);
    assert_int_equal(s->ordering, ORDERING_NONE);
    assert_int_equal(s->format, FORMAT_ENVELOPE);
    assert_false(s->receipts);
    assert_int_equal(s->event_types_n, 0);
    assert_null(s->headers);
    assert_int_equal(s->keys_n, 0);
    assert_int_equal(s->policy->timeout_ms, defaults.timeout_ms);
    assert_int_equal(s->policy->max_in_flight, defaults.max_in_flight);
    assert_int_equal(s->policy->rate_per_second, 0);
    assert_null(s->policy->retry.schedule_seconds);
    assert_int_equal(s->policy->retry.initial_seconds, defaults.retry.initial_seconds);
    assert_true(s->policy->retry.multiplier == defaults.retry.multiplier);
    assert_int_equal(s->policy->retry.max_seconds, defaults.retry.max_seconds);
    assert_true(s->policy->retry.jitter == defaults.retry.jitter);
    assert_int_equal(s->policy->max_attempts, defaults.max_attempts);
    assert_int_equal(s->policy->window_seconds, defaults.window_seconds);
    assert_int_equal(s->policy->disable_after_seconds, defaults.disable_after_seconds);
    assert_int_equal(s->policy->retry_on_n + s->policy->no_retry_on_n, 0);
}

static void test_everything_set(void **state) {
    (void)state;
    _cleanup_subscription_ struct subscription *s = snapshot(
        "{\"url\":\"http://127.0.0.1:9/h?a=1\",\"event_types\":[\"a.b\",\"c.*\"],\"status\":\"paused\","
        "\"ordering\":\"strict\",\"format\":\"cloudevents\",\"receipts\":true,"
        "\"headers\":{\"X-A\":\"1 2\",\"authorization\":\"Bearer é\",\"x-empty\":\"\"},"
        "\"policy\":{\"timeout_ms\":100,\"max_in_flight\":7,\"rate_limit\":{\"per_second\":5},"
        "\"retry\":{\"schedule_seconds\":[0,300],\"jitter\":0.5},\"max_attempts\":3,"
        "\"window_seconds\":60,\"retry_on\":[404,403],\"no_retry_on\":[500],"
        "\"disable_after_seconds\":9}}");
    assert_string_equal(s->url, "http://127.0.0.1:9/h?a=1");
    assert_int_equal(s->event_types_n, 2);
    assert_string_equal(s->event_types, "a.b");
    assert_string_equal(event_type_after(s->event_types), "c.*");
    assert_int_equal(s->status, SUBSCRIPTION_PAUSED);
    assert_int_equal(s->ordering, ORDERING_STRICT);
    assert_int_equal(s->format, FORMAT_CLOUDEVENTS);
    assert_true(s->receipts);
    assert_string_equal(s->headers, "X-A: 1 2\r\nauthorization: Bearer é\r\nx-empty: \r\n");
    const struct policy *p = s->policy;
    assert_int_equal(p->timeout_ms, 100);
    assert_int_equal(p->max_in_flight, 7);
    assert_int_equal(p->rate_per_second, 5);
    assert_int_equal(p->rate_burst, 5);
    assert_int_equal(p->retry.schedule_n, 2);
    assert_int_equal(p->retry.schedule_seconds[0], 0);
    assert_int_equal(p->retry.schedule_seconds[1], 300);
    assert_true(p->retry.jitter == 0.5);
    assert_int_equal(p->max_attempts, 3);
    assert_int_equal(p->window_seconds, 60);
    assert_int_equal(p->retry_on_n, 2);
    assert_int_equal(p->retry_on[0], 404);
    assert_int_equal(p->retry_on[1], 403);
    assert_int_equal(p->no_retry_on_n, 1);
    assert_int_equal(p->no_retry_on[0], 500);
    assert_int_equal(p->disable_after_seconds, 9);
}

static void test_exponential_retry(void **state) {
    (void)state;
    _cleanup_subscription_ struct subscription *s =
        snapshot("{\"url\":\"https://example.com/hook\",\"policy\":{\"retry\":{\"initial_seconds\":1,"
                 "\"multiplier\":1.5,\"max_seconds\":60,\"jitter\":1}}}");
    const struct retry_policy *r = &s->policy->retry;
    assert_null(r->schedule_seconds);
    assert_int_equal(r->initial_seconds, 1);
    assert_true(r->multiplier == 1.5);
    assert_int_equal(r->max_seconds, 60);
    assert_true(r->jitter == 1);
}

/* A document from another version may lack members, or have more. */
static void test_a_document_with_gaps(void **state) {
    (void)state;
    json_t *doc =
        json_loads("{\"url\":\"https://example.com/hook\",\"later\":1,\"format\":\"hologram\"}", 0, NULL);
    _cleanup_subscription_ struct subscription *s = subscription_from_doc(doc, SLICE_NONE);
    json_decref(doc);
    assert_string_equal(s->url, URL);
    assert_int_equal(s->format, FORMAT_ENVELOPE);
    assert_int_equal(s->policy->timeout_ms, POLICY_TIMEOUT_MS_DEFAULT);
    doc = json_object();
    _cleanup_subscription_ struct subscription *empty = subscription_from_doc(doc, SLICE_NONE);
    json_decref(doc);
    assert_string_equal(empty->url, "");
}

static int read_text(const char *text, struct policy_memo *memo, struct subscription **ret) {
    *ret = NULL;
    return subscription_from_text(slice_of(text), SLICE_LIT("acme"), memo, ret);
}

static void test_text(void **state) {
    (void)state;
    static const char *const damaged[] = {
        "",
        "[]",
        "{",
        "{}x",
        "{\"url\":1}",
        "{\"url\":\"a\\u0000\"}",
        "{\"event_types\":[1]}",
        "{\"headers\":{\"a\":1}}",
        "{\"filter\":{\"a\":[1]}}",
        "{\"filter\":[}",
    };
    struct policy_memo memo = {0};
    struct subscription *s;
    for (size_t i = 0; i < COUNT(damaged); i++)
        if (read_text(damaged[i], &memo, &s) != -EINVAL)
            fail_msg("%s is read", damaged[i]);
    assert_int_equal(read_text("{ \"url\" : \"https:\\/\\/x\\u00e9\" , \"status\":\"p\\u0061used\","
                               "\"event_types\":[\"a\",\"b.*\"],\"headers\":{\"x-a\":\"\\\"1\",\"x-b\":\"\"},"
                               "\"receipts\":true,\"policy\":null}",
                               &memo, &s),
                     0);
    assert_string_equal(s->url, "https://x\xc3\xa9");
    assert_int_equal(s->status, SUBSCRIPTION_PAUSED);
    assert_int_equal(s->event_types_n, 2);
    assert_string_equal(event_type_after(s->event_types), "b.*");
    assert_string_equal(s->tenant_id, "acme");
    assert_string_equal(s->headers, "x-a: \"1\r\nx-b: \r\n");
    assert_true(s->receipts);
    assert_int_equal(s->policy->max_attempts, POLICY_MAX_ATTEMPTS_DEFAULT);
    subscription_unref(s);
    policy_memo_clear(&memo);
}

/* Equal policies that follow one another are read and held once. */
static void test_policy_memo(void **state) {
    (void)state;
    static const char *const texts[] = {
        "{\"policy\":{\"retry\":{\"schedule_seconds\":[1,2]},\"retry_on\":[404],\"no_retry_on\":[500,501]}}",
        "{\"url\":\"x\",\"policy\":{\"retry\":{\"schedule_seconds\":[1,2]},\"retry_on\":[404],\"no_retry_"
        "on\":[500,501]}}",
        "{\"policy\":{\"timeout_ms\":5000}}",
        "{\"policy\":{\"retry\":{\"schedule_seconds\":[1,2]},\"retry_on\":[404],\"no_retry_on\":[500,501]}}",
        "{}",
    };
    struct policy_memo memo = {0};
    struct subscription *s[COUNT(texts)];
    for (size_t i = 0; i < COUNT(texts); i++)
        assert_int_equal(read_text(texts[i], &memo, &s[i]), 0);
    policy_memo_clear(&memo);
    for (size_t i = 0; i < COUNT(texts); i++) {
        const struct policy *p = s[i]->policy;
        bool listed = i < 2 || i == 3;
        assert_int_equal(p->retry.schedule_n, listed ? 2 : 0);
        assert_int_equal(p->retry_on_n + p->no_retry_on_n, listed ? 3 : 0);
        assert_int_equal(p->timeout_ms, i == 2 ? 5000 : POLICY_TIMEOUT_MS_DEFAULT);
        if (listed)
            assert_true(p->retry.schedule_seconds[1] == 2 && p->retry_on[0] == 404 &&
                        p->no_retry_on[1] == 501);
    }
    assert_ptr_equal(s[0]->policy, s[1]->policy);
    assert_ptr_not_equal(s[0]->policy, s[2]->policy);
    assert_ptr_not_equal(s[0]->policy, s[3]->policy);
    for (size_t i = 0; i < COUNT(texts); i++)
        subscription_unref(s[i]);
}

static void test_matches(void **state) {
    (void)state;
    static const struct {
        const char *types, *event_type;
        bool matches;
    } cases[] = {
        {"", "a", true},
        {"", "posthorn", true},
        {"", "posthornish.x", true},
        {"", "posthorn.test", false},
        {"", "posthorn.", false},
        {"\"a.b\"", "a.b", true},
        {"\"a.b\"", "a", false},
        {"\"a.b\"", "a.b.c", false},
        {"\"a.b\"", "A.b", false},
        {"\"x.*\"", "x.a", true},
        {"\"x.*\"", "x.a.b", true},
        {"\"x.*\"", "x", false},
        {"\"x.*\"", "xy", false},
        {"\"x.*\"", "xy.a", false},
        {"\"x.*\"", "X.a", false},
        {"\"x.*\"", "y.x.a", false},
        {"\"x.y.*\"", "x.y.z", true},
        {"\"x.y.*\"", "x.y", false},
        {"\"a\",\"b\",\"c.*\"", "b", true},
        {"\"a\",\"b\",\"c.*\"", "c.d", true},
        {"\"a\",\"b\",\"c.*\"", "d", false},
        {"\"posthorn.*\"", "posthorn.delivery.exhausted", true},
        {"\"posthorn.delivery.*\"", "posthorn.delivery.exhausted", true},
        {"\"posthorn.delivery.*\"", "posthorn.subscription.failing", false},
        {"\"posthorn.test\"", "posthorn.test", true},
        {"\"a.*\"", "posthorn.test", false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char text[256];
        snprintf(text, sizeof text, "{\"url\":\"x\",\"event_types\":[%s]}", cases[i].types);
        _cleanup_subscription_ struct subscription *s = snapshot(text);
        if (subscription_matches(s, slice_of(cases[i].event_type)) != cases[i].matches)
            fail_msg("[%s] and %s", cases[i].types, cases[i].event_type);
    }
}

static void *take_and_give_back(void *arg) {
    for (int i = 0; i < TURNS; i++)
        subscription_unref(subscription_ref(arg));
    return NULL;
}

static void test_references(void **state) {
    (void)state;
    struct subscription *s = snapshot("{\"url\":\"x\",\"event_types\":[\"a\"],\"headers\":{\"a\":\"b\"}}");
    pthread_t threads[THREADS];
    s->keys = calloc(2, sizeof *s->keys);
    s->keys_n = 2;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_give_back, s), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&s->refs), 1);
    assert_ptr_equal(subscription_ref(s), s);
    subscription_unref(s);
    assert_string_equal(s->url, "x");
    subscription_unref(s);
    subscription_unref(NULL);
}

static void test_words(void **state) {
    (void)state;
    static const char *const statuses[] = {"active", "paused", "disabled", "deleted"};
    enum subscription_status status;
    for (unsigned i = 0; i < COUNT(statuses); i++) {
        assert_string_equal(subscription_status_name((enum subscription_status)i), statuses[i]);
        assert_int_equal(subscription_status_parse(slice_of(statuses[i]), &status), 0);
        assert_int_equal(status, i);
    }
    status = SUBSCRIPTION_PAUSED;
    assert_int_equal(subscription_status_parse(SLICE_LIT("asleep"), &status), -EINVAL);
    assert_int_equal(subscription_status_parse(SLICE_NONE, &status), -EINVAL);
    assert_int_equal(status, SUBSCRIPTION_PAUSED);
    assert_string_equal(subscription_ordering_name(ORDERING_NONE), "none");
    assert_string_equal(subscription_ordering_name(ORDERING_KEY), "key");
    assert_string_equal(subscription_ordering_name(ORDERING_STRICT), "strict");
    assert_string_equal(subscription_format_name(FORMAT_ENVELOPE), "envelope");
    assert_string_equal(subscription_format_name(FORMAT_RAW), "raw");
    assert_string_equal(subscription_format_name(FORMAT_CLOUDEVENTS), "cloudevents");
}

static void test_filter(void **state) {
    (void)state;
    _cleanup_subscription_ struct subscription *s = snapshot(
        "{\"url\":\"https://example.com/hook\",\"event_types\":[\"a.*\"],\"filter\":{\"data\":{\"n\":[1]}}}");
    _cleanup_subscription_ struct subscription *all =
        snapshot("{\"url\":\"https://example.com/hook\",\"filter\":null}");
    struct json_tape tape = {0};
    static const struct {
        const char *type, *data;
        bool wanted;
    } cases[] = {{"a.b", "{\"n\":1}", true}, {"a.b", "{\"n\":2}", false}, {"b", "{\"n\":1}", false}};
    assert_non_null(s->filter);
    assert_null(all->filter);
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint64_t steps = 0;
        struct filter_subject event = {
            .type = slice_of(cases[i].type), .data = slice_of(cases[i].data), .tape = &tape};
        assert_int_equal(json_tape_read(&tape, event.data), 0);
        assert_int_equal(subscription_wants(s, &event, &steps), cases[i].wanted);
        assert_true(subscription_wants(all, &event, &steps));
    }
    json_tape_free(&tape);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_filter),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_policy_memo),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_everything_set),
        cmocka_unit_test(test_exponential_retry),
        cmocka_unit_test(test_a_document_with_gaps),
        cmocka_unit_test(test_matches),
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
