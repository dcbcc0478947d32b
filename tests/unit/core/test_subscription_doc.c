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
    json_error_t error;
    json_t *value = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!value)
        fail_msg("%s: %s", text, error.text);
    return value;
}

/* The normal form of a document; NULL when it was refused. */
static json_t *parse(const char *text) {
    json_t *given = read_json(text), *copy = json_deep_copy(given);
    memset(&errors, 0, sizeof errors);
    json_t *doc = subscription_parse(given, &errors);
    assert_true((doc == NULL) == (errors.n > 0));
    assert_true(json_equal(given, copy));
    json_decref(given);
    json_decref(copy);
    return doc;
}

/* The normal form of an accepted document reads back as itself. */
static void assert_accepted(const char *text) {
    json_t *doc = parse(text);
    if (!doc)
        fail_msg("%s: %s %s", text, errors.at[0].field, errors.at[0].message);
    memset(&errors, 0, sizeof errors);
    json_t *again = subscription_parse(doc, &errors);
    assert_true(json_equal(again, doc));
    json_decref(again);
    json_decref(doc);
}

/* The errors' fields are exactly these, separated by spaces. */
static void assert_refused(const char *text, const char *expected) {
    char fields[2048] = "";
    json_t *doc = parse(text);
    if (doc)
        fail_msg("%s is accepted", text);
    for (size_t i = 0, n = 0; i < errors.n; i++)
        n += (size_t)snprintf(fields + n, sizeof fields - n, "%s%s", i ? " " : "", errors.at[i].field);
    assert_string_equal(fields, expected);
}

/* The same with one member beside the url. */
static void assert_member_accepted(const char *name, const char *value) {
    _cleanup_buf_ struct buf text = {0};
    buf_addf(&text, "{\"url\":\"x\",\"%s\":%s}", name, value);
    assert_accepted(text.p);
}

static void assert_member_refused(const char *name, const char *value, const char *field) {
    _cleanup_buf_ struct buf text = {0};
    buf_addf(&text, "{\"url\":\"x\",\"%s\":%s}", name, value);
    assert_refused(text.p, field);
}

/* A JSON string of n letters. */
static const char *letters(size_t n, struct buf *out) {
    buf_reset(out);
    buf_addf(out, "\"%0*d\"", (int)n, 0);
    return out->p;
}

/* api.md §2.1, without what the server sets. */
static const char DEFAULTS[] =
    "{\"url\":\"https://example.com/"
    "hook\",\"event_types\":[],\"filter\":null,\"description\":\"\",\"metadata\":{},"
    "\"status\":\"active\",\"ordering\":\"none\",\"format\":\"envelope\",\"signature\":\"hmac\",\"headers\":{"
    "},"
    "\"receipts\":false,\"policy\":{\"timeout_ms\":15000,\"max_in_flight\":10,\"rate_limit\":null,\"retry\":{"
    "\"initial_seconds\":5,\"multiplier\":4,\"max_seconds\":21600,\"jitter\":0.2},\"max_attempts\":24,"
    "\"window_seconds\":259200,\"retry_on\":[],\"no_retry_on\":[],\"disable_after_seconds\":432000}}";

static void assert_normal(const char *text, const char *expected) {
    json_t *doc = parse(text);
    assert_non_null(doc);
    _cleanup_free_ char *dumped = json_dumps(doc, JSON_COMPACT | JSON_REAL_PRECISION(15));
    json_decref(doc);
    assert_string_equal(dumped, expected);
}

static void test_defaults(void **state) {
    (void)state;
    assert_normal("{\"url\":\"https://example.com/hook\"}", DEFAULTS);
    assert_normal(DEFAULTS, DEFAULTS);
    assert_normal("{\"tls\":null,\"policy\":null,\"receipts\":null,\"headers\":null,\"signature\":null,"
                  "\"format\":null,\"ordering\":null,\"status\":null,\"metadata\":null,\"description\":null,"
                  "\"filter\":null,\"event_types\":null,\"url\":\"https://example.com/hook\"}",
                  DEFAULTS);
    assert_normal("{\"policy\":{\"timeout_ms\":null,\"rate_limit\":null,\"retry\":null,\"retry_on\":null},"
                  "\"url\":\"https://example.com/hook\"}",
                  DEFAULTS);
}

static void test_everything_set(void **state) {
    (void)state;
    static const char all[] =
        "{\"url\":\"http://127.0.0.1:9/hook?a=1&b=%20\",\"event_types\":[\"invoice.*\",\"user.created\"],"
        "\"filter\":null,\"description\":\"Ünïcode “quotes” \\\\ \\n\",\"metadata\":{\"team\":\"billing\","
        "\"n\":\"1\"},\"status\":\"paused\",\"ordering\":\"key\",\"format\":\"raw\",\"signature\":"
        "\"ed25519\","
        "\"headers\":{\"X-Api-Key\":\"k 1\"},\"receipts\":true,\"policy\":{\"timeout_ms\":2000,"
        "\"max_in_flight\":3,\"rate_limit\":{\"per_second\":5,\"burst\":10},\"retry\":{\"schedule_seconds\":"
        "[5,300,1800],\"jitter\":0},\"max_attempts\":7,\"window_seconds\":60,\"retry_on\":[404],"
        "\"no_retry_on\":[500],\"disable_after_seconds\":3600}}";
    assert_normal(all, all);
    assert_accepted(all);
}

static void test_tiers_have_their_window(void **state) {
    (void)state;
    json_t *given = read_json("{\"url\":\"x\"}");
    for (int tier = 0; tier < TIERS; tier++) {
        memset(&errors, 0, sizeof errors);
        json_t *doc = subscription_parse_for(given, (enum tenant_tier)tier, &errors);
        json_t *window = json_object_get(json_object_get(doc, "policy"), "window_seconds");
        assert_int_equal(json_integer_value(window), tenant_tier_window_seconds((enum tenant_tier)tier));
        json_decref(doc);
    }
    json_decref(given);
}

static void test_every_bad_field_is_told(void **state) {
    (void)state;
    assert_refused(
        "{\"url\":5,\"event_types\":[\"a b\"],\"description\":5,\"metadata\":[],\"status\":\"sleeping\","
        "\"ordering\":\"maybe\",\"format\":\"xml\",\"signature\":\"md5\",\"headers\":{\"x-a\":"
        "\"b\\r\\nx-c: d\"},\"receipts\":1,\"filter\":{},\"tls\":7,\"policy\":{\"timeout_ms\":1},"
        "\"colour\":\"red\",\"id\":\"sub_1\"}",
        "url event_types[0] filter description metadata status ordering format signature headers.x-a "
        "receipts policy.timeout_ms tls colour id");
    assert_refused("{}", "url");
    static const char *const others[] = {"[]", "null", "1", "\"a\"", "true"};
    for (size_t i = 0; i < COUNT(others); i++)
        assert_refused(others[i], "body");
}

static void test_url(void **state) {
    (void)state;
    _cleanup_buf_ struct buf text = {0}, doc = {0};
    assert_refused("{\"url\":null}", "url");
    assert_refused("{\"url\":\"\"}", "url");
    assert_refused("{\"url\":\"a\\u0000b\"}", "url");
    for (size_t n = SUBSCRIPTION_URL_MAX; n <= SUBSCRIPTION_URL_MAX + 1; n++) {
        buf_reset(&doc);
        buf_addf(&doc, "{\"url\":%s}", letters(n, &text));
        if (n == SUBSCRIPTION_URL_MAX)
            assert_accepted(doc.p);
        else
            assert_refused(doc.p, "url");
    }
}

static void test_event_types(void **state) {
    (void)state;
    static const char *const good[] = {"[]",
                                       "[\"a\"]",
                                       "[\"a.*\"]",
                                       "[\"A.b-c_d.9\",\"a\",\"a.*\",\"a.b.*\"]",
                                       "[\"posthorn.*\"]",
                                       "[\"posthorn.subscription.disabled\"]",
                                       "[\"..*\"]"};
    static const char *const bad[][2] = {
        {"\"a\"", "event_types"},
        {"{}", "event_types"},
        {"[\"\"]", "event_types[0]"},
        {"[\"a\",\"*\"]", "event_types[1]"},
        {"[\".*\"]", "event_types[0]"},
        {"[\"a*\"]", "event_types[0]"},
        {"[\"a.*.b\"]", "event_types[0]"},
        {"[\"*.a\"]", "event_types[0]"},
        {"[\"a.**\"]", "event_types[0]"},
        {"[\"a b\"]", "event_types[0]"},
        {"[\"ä\"]", "event_types[0]"},
        {"[\"a\\u0000\"]", "event_types[0]"},
        {"[1]", "event_types[0]"},
        {"[null]", "event_types[0]"},
        {"[\"a\",\"b\",\"a\"]", "event_types[2]"},
        {"[\"a.*\",\"a.*\"]", "event_types[1]"},
        {"[\"*\",\"a\",\"a\",1]", "event_types[0] event_types[2] event_types[3]"},
    };
    for (size_t i = 0; i < COUNT(good); i++)
        assert_member_accepted("event_types", good[i]);
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_member_refused("event_types", bad[i][0], bad[i][1]);
    assert_member_refused("event_types", "[\"*\"]", "event_types[0]");
    assert_non_null(strstr(errors.at[0].message, "an empty list stands for all types"));
}

static void test_lengths_of_event_types(void **state) {
    (void)state;
    char text[280];
    snprintf(text, sizeof text, "[\"%0128d\",\"%0126d.*\"]", 0, 0);
    assert_member_accepted("event_types", text);
    snprintf(text, sizeof text, "[\"%0129d\",\"%0127d.*\"]", 0, 0);
    assert_member_refused("event_types", text, "event_types[0] event_types[1]");
    for (int n = SUBSCRIPTION_EVENT_TYPES_MAX; n <= SUBSCRIPTION_EVENT_TYPES_MAX + 1; n++) {
        _cleanup_buf_ struct buf list = {0};
        buf_add_str(&list, "[\"a\"");
        for (int i = 1; i < n; i++)
            buf_addf(&list, ",\"a%d\"", i);
        buf_add_str(&list, "]");
        if (n == SUBSCRIPTION_EVENT_TYPES_MAX)
            assert_member_accepted("event_types", list.p);
        else
            assert_member_refused("event_types", list.p, "event_types");
    }
}

static void test_words(void **state) {
    (void)state;
    static const struct {
        const char *name, *words[4];
    } members[] = {
        {"status", {"active", "paused", "disabled"}},
        {"ordering", {"none", "key", "strict"}},
        {"format", {"envelope", "raw", "cloudevents"}},
        {"signature", {"hmac", "ed25519"}},
    };
    static const char *const bad[] = {"\"\"", "\"Active\"", "\"deleted\"",      "5",
                                      "[]",   "true",       "\"active\\u0000\""};
    for (size_t i = 0; i < COUNT(members); i++) {
        char value[32];
        for (size_t k = 0; members[i].words[k]; k++) {
            snprintf(value, sizeof value, "\"%s\"", members[i].words[k]);
            assert_member_accepted(members[i].name, value);
        }
        for (size_t k = 0; k < COUNT(bad); k++)
            assert_member_refused(members[i].name, bad[k], members[i].name);
    }
}

static void test_filter(void **state) {
    (void)state;
    static const char filter[] = "{\"data\":{\"status\":[\"paid\",{\"prefix\":\"par\"}],\"n\":[0.1,"
                                 "9007199254740993]},\"type\":[\"a\"]}";
    assert_member_accepted("filter", filter);
    assert_member_accepted("filter", "null");
    assert_member_refused("filter", "{\"a\":1}", "filter");
    assert_string_equal(errors.at[0].message,
                        "at filter.a: there are data, type, schema_version and ordering_key; fields of the "
                        "payload stand under data");
    assert_member_refused("filter", "false", "filter");
    assert_member_refused("filter", "{}", "filter");
}

static void test_tls(void **state) {
    (void)state;
    assert_member_refused("tls", "{\"ca\":\"x\"}", "tls.ca");
    assert_member_refused("tls", "{\"ca\":7}", "tls.ca");
    assert_member_refused("tls", "{\"pin\":\"x\"}", "tls.pin");
    assert_member_refused("tls", "[]", "tls");
    assert_member_accepted("tls", "null");
}

static void test_description_and_receipts(void **state) {
    (void)state;
    _cleanup_buf_ struct buf text = {0};
    assert_member_accepted("description", letters(SUBSCRIPTION_DESCRIPTION_MAX, &text));
    assert_member_refused("description", letters(SUBSCRIPTION_DESCRIPTION_MAX + 1, &text), "description");
    assert_member_refused("description", "[]", "description");
    assert_member_refused("description", "\"a\\u0000\"", "description");
    assert_member_accepted("receipts", "true");
    assert_member_refused("receipts", "0", "receipts");
    assert_member_refused("receipts", "\"true\"", "receipts");
}

static void test_metadata(void **state) {
    (void)state;
    assert_member_accepted("metadata", "{\"a\":\"\",\"\":\"b\",\"ü\":\"\\n\"}");
    assert_member_refused("metadata", "[]", "metadata");
    assert_member_refused("metadata", "\"a\"", "metadata");
    assert_member_refused("metadata", "{\"a\":1,\"b\":null,\"c\":\"x\",\"d\":{},\"e\":\"\\u0000\"}",
                          "metadata.a metadata.b metadata.d metadata.e");
    for (int n = 50; n <= 51; n++) {
        _cleanup_buf_ struct buf object = {0};
        for (int i = 0; i < n; i++)
            buf_addf(&object, "%s\"k%d\":\"v\"", i ? "," : "{", i);
        buf_add_str(&object, "}");
        if (n == 50)
            assert_member_accepted("metadata", object.p);
        else
            assert_member_refused("metadata", object.p, "metadata");
    }
    for (int n = SUBSCRIPTION_METADATA_BYTES_MAX - 1; n <= SUBSCRIPTION_METADATA_BYTES_MAX; n++) {
        _cleanup_buf_ struct buf object = {0}, text = {0};
        buf_addf(&object, "{\"k\":%s}", letters((size_t)n, &text));
        if (n < SUBSCRIPTION_METADATA_BYTES_MAX)
            assert_member_accepted("metadata", object.p);
        else
            assert_member_refused("metadata", object.p, "metadata");
    }
}

static void test_headers(void **state) {
    (void)state;
    static const char *const good[] = {
        "{}", "{\"X-Api-Key\":\"k 1\",\"authorization\":\"Bearer theirs\"}",
        "{\"!#$%&'*+-.^_`|~09azAZ\":\"\"}", "{\"x\":\"é\"}",
        "{\"hosts\":\"a\",\"proxy\":\"b\",\"webhook\":\"c\",\"posthornx-a\":\"d\"}"};
    static const char *const bad[][2] = {
        {"[]", "headers"},
        {"\"x-a: b\"", "headers"},
        {"{\"x-a\":\"b\\r\\nx-c: d\"}", "headers.x-a"},
        {"{\"x-a\":\"b\\nc\"}", "headers.x-a"},
        {"{\"x-a\":\"b\\rc\"}", "headers.x-a"},
        {"{\"x-a\":\"b\\u0000c\"}", "headers.x-a"},
        {"{\"x-a\":\"b\\tc\"}", "headers.x-a"},
        {"{\"x-a\":\"b\\u007fc\"}", "headers.x-a"},
        {"{\"x-a\\r\\n\":\"b\"}", "headers.x-a\r\n"},
        {"{\"x a\":\"b\"}", "headers.x a"},
        {"{\"x:a\":\"b\"}", "headers.x:a"},
        {"{\"é\":\"b\"}", "headers.é"},
        {"{\"\":\"b\"}", "headers."},
        {"{\"x-a\":5}", "headers.x-a"},
        {"{\"x-a\":null}", "headers.x-a"},
        {"{\"x-a\":[\"b\"]}", "headers.x-a"},
        {"{\"x-a\":\"1\",\"X-A\":\"2\"}", "headers.X-A"},
        {"{\"x a\":5}", "headers.x a headers.x a"},
    };
    static const char *const reserved[] = {"host",
                                           "Content-Length",
                                           "content-type",
                                           "USER-AGENT",
                                           "transfer-encoding",
                                           "te",
                                           "connection",
                                           "keep-alive",
                                           "trailer",
                                           "upgrade",
                                           "expect",
                                           "proxy-authorization",
                                           "Proxy-",
                                           "Webhook-Id",
                                           "webhook-signature",
                                           "webhook-",
                                           "posthorn-attempt",
                                           "Posthorn-Event-Id",
                                           "traceparent",
                                           "TraceState"};
    for (size_t i = 0; i < COUNT(good); i++)
        assert_member_accepted("headers", good[i]);
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_member_refused("headers", bad[i][0], bad[i][1]);
    for (size_t i = 0; i < COUNT(reserved); i++) {
        char value[64], field[64];
        snprintf(value, sizeof value, "{\"%s\":\"x\"}", reserved[i]);
        snprintf(field, sizeof field, "headers.%s", reserved[i]);
        assert_member_refused("headers", value, field);
    }
}

static void test_sizes_of_headers(void **state) {
    (void)state;
    for (int n = SUBSCRIPTION_HEADERS_MAX; n <= SUBSCRIPTION_HEADERS_MAX + 1; n++) {
        _cleanup_buf_ struct buf object = {0};
        for (int i = 0; i < n; i++)
            buf_addf(&object, "%s\"x-%d\":\"v\"", i ? "," : "{", i);
        buf_add_str(&object, "}");
        if (n == SUBSCRIPTION_HEADERS_MAX)
            assert_member_accepted("headers", object.p);
        else
            assert_member_refused("headers", object.p, "headers");
    }
    for (int n = SUBSCRIPTION_HEADER_BYTES_MAX - 1; n <= SUBSCRIPTION_HEADER_BYTES_MAX; n++) {
        _cleanup_buf_ struct buf object = {0}, text = {0};
        buf_addf(&object, "{\"x\":%s}", letters((size_t)n, &text));
        if (n < SUBSCRIPTION_HEADER_BYTES_MAX)
            assert_member_accepted("headers", object.p);
        else
            assert_member_refused("headers", object.p, "headers.x");
    }
}

/* ---- PATCH ---- */

/* The document after a PATCH, or NULL when what came out was refused. */
static json_t *patched(const char *stored, const char *patch) {
    json_t *doc = parse(stored), *change = read_json(patch);
    assert_non_null(doc);
    json_t *merged = subscription_merge(doc, change);
    assert_non_null(merged);
    memset(&errors, 0, sizeof errors);
    json_t *result = subscription_parse(merged, &errors);
    json_decref(doc);
    json_decref(change);
    json_decref(merged);
    return result;
}

/* The member of the result at `path` (such as "policy.retry") is this. */
static void assert_patched(const char *stored, const char *patch, const char *path, const char *expected) {
    json_t *result = patched(stored, patch), *member = result, *value = read_json(expected);
    if (!result)
        fail_msg("%s: %s %s", patch, errors.at[0].field, errors.at[0].message);
    char names[64], *at = names, *name;
    snprintf(names, sizeof names, "%s", path);
    while ((name = strsep(&at, ".")))
        member = json_object_get(member, name);
    if (!json_equal(member, value)) {
        char *text = json_dumps(member, JSON_COMPACT | JSON_ENCODE_ANY);
        fail_msg("%s makes %s of %s", patch, text ? text : "nothing", path);
    }
    json_decref(value);
    json_decref(result);
}

static void assert_patch_refused(const char *stored, const char *patch, const char *field) {
    json_t *result = patched(stored, patch);
    if (result)
        fail_msg("%s is accepted", patch);
    assert_string_equal(errors.at[0].field, field);
}

static void test_patch_merges(void **state) {
    (void)state;
    static const char stored[] =
        "{\"url\":\"x\",\"description\":\"d\",\"metadata\":{\"a\":\"1\",\"b\":\"2\"},"
        "\"event_types\":[\"a.*\"],\"headers\":{\"x-a\":\"1\"},"
        "\"filter\":{\"data\":{\"a\":[1],\"b\":[1]},\"type\":[\"t\"]},"
        "\"policy\":{\"timeout_ms\":2000,\"max_in_flight\":3,\"max_attempts\":2}}";
    assert_patched(stored, "{}", "description", "\"d\"");
    assert_patched(stored, "{\"metadata\":{\"a\":null,\"c\":\"3\"}}", "metadata",
                   "{\"b\":\"2\",\"c\":\"3\"}");
    assert_patched(stored, "{\"event_types\":[\"b\"]}", "event_types", "[\"b\"]");
    assert_patched(stored, "{\"headers\":{\"x-b\":\"2\"}}", "headers", "{\"x-a\":\"1\",\"x-b\":\"2\"}");
    assert_patched(stored, "{\"filter\":{\"data\":{\"a\":[2],\"b\":null}}}", "filter",
                   "{\"data\":{\"a\":[2]},\"type\":[\"t\"]}");
    assert_patched(stored, "{\"filter\":{\"data\":null}}", "filter", "{\"type\":[\"t\"]}");
    assert_patched(stored, "{\"filter\":null}", "filter", "null");
    assert_patch_refused(stored, "{\"filter\":{\"data\":null,\"type\":null}}", "filter");
    assert_patched(stored, "{\"policy\":{\"timeout_ms\":3000}}", "policy.timeout_ms", "3000");
    assert_patched(stored, "{\"policy\":{\"timeout_ms\":3000}}", "policy.max_in_flight", "3");
    assert_patch_refused(stored, "{\"url\":null}", "url");
    assert_patch_refused(stored, "{\"colour\":1}", "colour");
    assert_patch_refused(stored, "{\"colour\":null}", "colour");
    assert_patch_refused(stored, "{\"policy\":{\"timout_ms\":null}}", "policy.timout_ms");
    assert_patch_refused(stored, "{\"policy\":{\"retry\":{\"initial\":null}}}", "policy.retry.initial");
    assert_patch_refused(stored, "{\"policy\":{\"rate_limit\":{\"rate\":null,\"per_second\":1}}}",
                         "policy.rate_limit.rate");
    assert_patched(stored, "{\"metadata\":{\"c\":null},\"headers\":{\"x-c\":null},\"disabled_reason\":null}",
                   "metadata", "{\"a\":\"1\",\"b\":\"2\"}");
    assert_patch_refused(stored, "{\"policy\":5}", "policy");
    assert_patch_refused(stored, "[]", "body");
    assert_patch_refused(stored, "null", "body");
    assert_int_equal(errors.n, 1);
}

static void test_patch_null_restores_the_default(void **state) {
    (void)state;
    static const char stored[] =
        "{\"url\":\"https://example.com/"
        "hook\",\"description\":\"d\",\"metadata\":{\"a\":\"1\"},\"event_types\":"
        "[\"a\"],\"status\":\"paused\",\"ordering\":\"key\",\"format\":\"raw\",\"signature\":\"ed25519\","
        "\"headers\":"
        "{\"a\":\"b\"},\"receipts\":true,\"policy\":{\"timeout_ms\":2000,\"max_in_flight\":3,\"rate_limit\":"
        "{\"per_second\":5},\"retry\":{\"schedule_seconds\":[7]},\"max_attempts\":2,\"window_seconds\":60,"
        "\"retry_on\":[404],\"no_retry_on\":[500],\"disable_after_seconds\":60}}";
    assert_patched(stored, "{\"policy\":{\"max_attempts\":null}}", "policy.max_attempts", "24");
    assert_patched(stored, "{\"policy\":{\"rate_limit\":null}}", "policy.rate_limit", "null");
    assert_patched(stored, "{\"policy\":{\"retry\":null}}", "policy.retry",
                   "{\"initial_seconds\":5,\"multiplier\":4,\"max_seconds\":21600,\"jitter\":0.2}");
    static const char all[] = "{\"description\":null,\"metadata\":null,\"event_types\":null,\"status\":null,"
                              "\"ordering\":null,\"format\":null,\"signature\":null,\"headers\":null,"
                              "\"receipts\":null,\"policy\":null,\"filter\":null,\"tls\":null}";
    json_t *result = patched(stored, all), *expected = read_json(DEFAULTS);
    assert_true(json_equal(result, expected));
    json_decref(result);
    json_decref(expected);
}

static void test_patch_of_retry(void **state) {
    (void)state;
    static const char exponential[] =
        "{\"url\":\"x\",\"policy\":{\"retry\":{\"initial_seconds\":1,\"jitter\":0.5}}}";
    static const char explicit[] =
        "{\"url\":\"x\",\"policy\":{\"retry\":{\"schedule_seconds\":[7],\"jitter\":0.1}}}";
    static const char *const cases[][3] = {
        {exponential, "{\"schedule_seconds\":[1]}", "{\"schedule_seconds\":[1],\"jitter\":0}"},
        {exponential, "{\"schedule_seconds\":[1],\"jitter\":1}", "{\"schedule_seconds\":[1],\"jitter\":1}"},
        {exponential, "{\"schedule_seconds\":[1],\"initial_seconds\":null}",
         "{\"schedule_seconds\":[1],\"jitter\":0}"},
        {exponential, "{\"multiplier\":2}",
         "{\"initial_seconds\":1,\"multiplier\":2,\"max_seconds\":21600,\"jitter\":0.5}"},
        {exponential, "{\"initial_seconds\":null}",
         "{\"initial_seconds\":5,\"multiplier\":4,\"max_seconds\":21600,\"jitter\":0.5}"},
        {exponential, "{\"schedule_seconds\":null}",
         "{\"initial_seconds\":1,\"multiplier\":4,\"max_seconds\":21600,\"jitter\":0.5}"},
        {explicit, "{\"max_seconds\":60}",
         "{\"initial_seconds\":5,\"multiplier\":4,\"max_seconds\":60,\"jitter\":0.2}"},
        {explicit, "{\"initial_seconds\":2,\"jitter\":0,\"schedule_seconds\":null}",
         "{\"initial_seconds\":2,\"multiplier\":4,\"max_seconds\":21600,\"jitter\":0}"},
        {explicit, "{\"schedule_seconds\":null}",
         "{\"initial_seconds\":5,\"multiplier\":4,\"max_seconds\":21600,\"jitter\":0.2}"},
        {explicit, "{\"schedule_seconds\":[8,9]}", "{\"schedule_seconds\":[8,9],\"jitter\":0.1}"},
        {explicit, "{\"jitter\":null}", "{\"schedule_seconds\":[7],\"jitter\":0}"},
        {explicit, "{\"initial_seconds\":null}", "{\"schedule_seconds\":[7],\"jitter\":0.1}"},
        {explicit, "{}", "{\"schedule_seconds\":[7],\"jitter\":0.1}"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char patch[256];
        snprintf(patch, sizeof patch, "{\"policy\":{\"retry\":%s}}", cases[i][1]);
        assert_patched(cases[i][0], patch, "policy.retry", cases[i][2]);
    }
    static const char both[] = "{\"policy\":{\"retry\":{\"schedule_seconds\":[1],\"initial_seconds\":1}}}";
    assert_patch_refused(exponential, both, "policy.retry.schedule_seconds");
    assert_patch_refused(explicit, both, "policy.retry.schedule_seconds");
    assert_patch_refused(exponential, "{\"policy\":{\"retry\":{\"schedule_seconds\":[]}}}",
                         "policy.retry.schedule_seconds");
    assert_patch_refused(explicit, "{\"policy\":{\"retry\":7}}", "policy.retry");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_everything_set),
        cmocka_unit_test(test_tiers_have_their_window),
        cmocka_unit_test(test_every_bad_field_is_told),
        cmocka_unit_test(test_url),
        cmocka_unit_test(test_event_types),
        cmocka_unit_test(test_lengths_of_event_types),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_filter),
        cmocka_unit_test(test_tls),
        cmocka_unit_test(test_description_and_receipts),
        cmocka_unit_test(test_metadata),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_sizes_of_headers),
        cmocka_unit_test(test_patch_merges),
        cmocka_unit_test(test_patch_null_restores_the_default),
        cmocka_unit_test(test_patch_of_retry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
