#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/tenant.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static struct field_errors errors;

/* The normal form of a document, as text; NULL when it was refused. */
static char *parse(const char *text, struct tenant *ret) {
    json_t *doc = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    assert_non_null(doc);
    memset(&errors, 0, sizeof errors);
    json_t *normal = tenant_parse(doc, ret, &errors);
    json_decref(doc);
    assert_true((normal == NULL) == (errors.n > 0));
    char *dumped = normal ? json_dumps(normal, JSON_COMPACT) : NULL;
    json_decref(normal);
    return dumped;
}

static void assert_normal(const char *text, const char *expected) {
    struct tenant t = {0};
    _cleanup_free_ char *normal = parse(text, &t);
    assert_non_null(normal);
    assert_string_equal(normal, expected);
}

/* The errors' fields are exactly these, separated by spaces. */
static void assert_refused(const char *text, const char *expected) {
    struct tenant t = {.no = 7, .limits.max_in_flight = 7};
    char fields[1024] = "";
    _cleanup_free_ char *normal = parse(text, &t);
    if (normal)
        fail_msg("%s is accepted", text);
    for (size_t i = 0, n = 0; i < errors.n; i++)
        n += (size_t)snprintf(fields + n, sizeof fields - n, "%s%s", i ? " " : "", errors.at[i].field);
    assert_string_equal(fields, expected);
    assert_int_equal(t.limits.max_in_flight, 7);
}

static void test_ids(void **state) {
    (void)state;
    char text[TENANT_ID_MAX + 1];
    memset(text, 'x', sizeof text);
    static const char *const good[] = {"a", "acme", "A.b_-9", ".", "..", "-", "0"};
    static const char *const bad[] = {"", "a b", "a/b", "ä", "a\n", "a%", "a:b"};
    for (size_t i = 0; i < COUNT(good); i++)
        assert_true(tenant_id_valid(slice_of(good[i])));
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_false(tenant_id_valid(slice_of(bad[i])));
    assert_true(tenant_id_valid((struct slice){text, TENANT_ID_MAX}));
    assert_false(tenant_id_valid((struct slice){text, TENANT_ID_MAX + 1}));
    assert_false(tenant_id_valid(SLICE_LIT("a\0")));
    assert_false(tenant_id_valid(SLICE_NONE));
}

static void test_tiers(void **state) {
    (void)state;
    static const char *const names[TIERS] = {"premium", "standard", "bulk"};
    for (int tier = 0; tier < TIERS; tier++) {
        char text[64];
        struct tenant t = {0};
        struct tenant_limits limits = tenant_tier_limits((enum tenant_tier)tier);
        assert_string_equal(tenant_tier_name((enum tenant_tier)tier), names[tier]);
        snprintf(text, sizeof text, "{\"tier\":\"%s\"}", names[tier]);
        _cleanup_free_ char *normal = parse(text, &t);
        assert_string_equal(normal, text);
        assert_int_equal(t.tier, tier);
        assert_memory_equal(&t.limits, &limits, sizeof limits);
        assert_true(limits.events_per_second > 0 && limits.max_subscriptions > 0 && limits.max_in_flight > 0);
        assert_int_equal(limits.max_payload_bytes, 1024 * 1024);
        assert_true(limits.retention_days >= 7);
        assert_int_equal(limits.deliveries_per_minute, 0);
        assert_true(tenant_tier_window_seconds((enum tenant_tier)tier) >= 86400);
    }
    assert_int_equal(tenant_tier_window_seconds(TIER_STANDARD), 259200);
}

static void test_defaults(void **state) {
    (void)state;
    struct tenant t = {.no = 7, .allow_http = true, .tier = TIER_BULK};
    struct tenant_limits limits = tenant_tier_limits(TIER_STANDARD);
    _cleanup_free_ char *normal = parse("{}", &t);
    assert_string_equal(normal, "{}");
    assert_int_equal(t.tier, TIER_STANDARD);
    assert_memory_equal(&t.limits, &limits, sizeof limits);
    assert_false(t.allow_http);
    assert_int_equal(t.no, 7);
}

static void test_normal_form_holds_what_was_set(void **state) {
    (void)state;
    assert_normal(
        "{\"allow_http\":true,\"limits\":{\"retention_days\":3,\"events_per_second\":10},"
        "\"tier\":\"bulk\",\"name\":\"Acme\",\"id\":\"acme\"}",
        "{\"name\":\"Acme\",\"tier\":\"bulk\",\"limits\":{\"events_per_second\":10,\"retention_days\":3},"
        "\"allow_http\":true}");
    assert_normal("{\"name\":null,\"tier\":null,\"limits\":{\"retention_days\":null},\"allow_http\":null}",
                  "{}");
    assert_normal("{\"limits\":null}", "{}");
    assert_normal("{\"limits\":{}}", "{}");
    assert_normal("{\"name\":\"\",\"allow_http\":false}", "{\"name\":\"\",\"allow_http\":false}");
}

static void test_limits_override_their_tier(void **state) {
    (void)state;
    struct tenant t = {0};
    struct tenant_limits limits = tenant_tier_limits(TIER_BULK);
    _cleanup_free_ char *normal = parse("{\"tier\":\"bulk\",\"allow_http\":true,\"limits\":{"
                                        "\"deliveries_per_minute\":60,\"max_payload_bytes\":1000}}",
                                        &t);
    assert_non_null(normal);
    limits.deliveries_per_minute = 60;
    limits.max_payload_bytes = 1000;
    assert_memory_equal(&t.limits, &limits, sizeof limits);
    assert_true(t.allow_http);
}

static void test_bounds(void **state) {
    (void)state;
    static const struct {
        const char *name;
        long long least, most;
    } limits[] = {
        {"events_per_second", 1, 1000000}, {"max_subscriptions", 1, 10000000},
        {"max_in_flight", 1, 100000},      {"max_payload_bytes", 1, 16 * 1024 * 1024},
        {"retention_days", 1, 3650},       {"deliveries_per_minute", 0, 100000000},
    };
    for (size_t i = 0; i < COUNT(limits) * 4; i++) {
        const long long values[] = {limits[i / 4].least, limits[i / 4].most, limits[i / 4].least - 1,
                                    limits[i / 4].most + 1};
        char text[128], field[64];
        snprintf(text, sizeof text, "{\"limits\":{\"%s\":%lld}}", limits[i / 4].name, values[i % 4]);
        snprintf(field, sizeof field, "limits.%s", limits[i / 4].name);
        if (i % 4 < 2)
            assert_normal(text, text);
        else
            assert_refused(text, field);
    }
}

static void test_every_bad_field_is_told(void **state) {
    (void)state;
    assert_refused("{\"id\":\"fine\",\"name\":7,\"tier\":\"gold\",\"limits\":{\"events_per_second\":-1,"
                   "\"parsecs\":1},\"allow_http\":\"yes\",\"colour\":\"red\"}",
                   "name tier limits.events_per_second limits.parsecs allow_http colour");
    assert_non_null(strstr(errors.at[1].message, "\"premium\", \"standard\" or \"bulk\""));
    assert_refused("{\"limits\":{\"retention_days\":1.0,\"max_in_flight\":\"5\",\"max_subscriptions\":true}}",
                   "limits.max_subscriptions limits.max_in_flight limits.retention_days");
    assert_refused("{\"limits\":[]}", "limits");
    assert_refused("{\"limits\":5}", "limits");
    assert_refused("{\"tier\":5}", "tier");
    assert_refused("{\"tier\":\"Standard\"}", "tier");
    assert_refused("{\"tier\":\"bulk\\u0000\"}", "tier");
    assert_refused("{\"name\":\"a\\u0000b\"}", "name");
    assert_refused("{\"created_at\":\"now\"}", "created_at");
    static const char *const others[] = {"[]", "null", "1", "\"a\"", "true"};
    for (size_t i = 0; i < COUNT(others); i++)
        assert_refused(others[i], "body");
}

static void test_names(void **state) {
    (void)state;
    char text[256];
    for (int n = 200; n <= 201; n++) {
        snprintf(text, sizeof text, "{\"name\":\"%0*d\"}", n, 0);
        if (n == 200)
            assert_normal(text, text);
        else
            assert_refused(text, "name");
    }
    assert_normal("{\"name\":\"Ünïcode “quotes” \\\\\"}", "{\"name\":\"Ünïcode “quotes” \\\\\"}");
}

static void test_limits_as_they_are_answered(void **state) {
    (void)state;
    struct tenant_limits limits = {1, 2, 3, 4, 5, 0};
    json_t *doc = tenant_limits_doc(&limits);
    _cleanup_free_ char *text = json_dumps(doc, JSON_COMPACT);
    json_decref(doc);
    assert_string_equal(text, "{\"events_per_second\":1,\"max_subscriptions\":2,\"max_in_flight\":3,"
                              "\"max_payload_bytes\":4,\"retention_days\":5,\"deliveries_per_minute\":0}");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_tiers),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_normal_form_holds_what_was_set),
        cmocka_unit_test(test_limits_override_their_tier),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_every_bad_field_is_told),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_limits_as_they_are_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
