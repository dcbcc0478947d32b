#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>

#include "core/event.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* 2026-11-24T20:49:00.123Z */
static const int64_t NOW = 1795553340123;
static const struct id EXAMPLE = {.key = UINT64_C(1795553340123) << 12, .tail = 5};

static const struct publish_rules RULES = {.prefix = "", .data_bytes_max = 1000, .now = NOW};
static const struct publish_rules BATCH = {
    .prefix = "[3].", .in_batch = true, .data_bytes_max = 1000, .now = NOW};

/* JSON that every rewriting library would change. */
static const char *const VERBATIM[] = {
    "1.0",
    "1e5",
    "1E+05",
    "-0",
    "0.1000",
    "12345678901234567890",
    "3.141592653589793238462643383279502884197",
    "1e999999",
    "\"\\u00e9\\u20AC\\ud83d\\ude00\"",
    "\"é€😀\"",
    "\"\\/\\b\\f\\n\\r\\t\\\"\\\\\"",
    "\"</script>&\\u0000\\ud800\"",
    "\"\xE2\x80\xA8\x7f\"",
    "{\"z\":1,\"a\":2,\"m\":{\"b\":[],\"a\":{}}}",
    "{ \"spaced\" :\t[ 1 ,\n 2 ] }",
    "{\"a\":1,\"a\":2}",
    "{\"data\":{\"data\":\"}\"}}",
    "[]",
    "{}",
    "\"\"",
    "null",
    "true",
    "false",
    "\"a\\\\\\\"}\"",
};

static struct field_errors errors;
static const char *problem;
static size_t offset;

static int parse_slice(struct slice body, const struct publish_rules *rules, struct publish *ret) {
    memset(&errors, 0, sizeof errors);
    problem = NULL;
    offset = 0;
    return publish_parse(body, rules, ret, &errors, &problem, &offset);
}

static int parse(const char *body, const struct publish_rules *rules, struct publish *ret) {
    return parse_slice(slice_of(body), rules, ret);
}

static void assert_slice(struct slice s, const char *expected) {
    if (!expected)
        assert_null(s.p);
    else if (!slice_eq(s, slice_of(expected)))
        fail_msg("\"%.*s\" should be \"%s\"", SLICE_ARG(s), expected);
}

/* The errors' fields are exactly these, separated by spaces. */
static void assert_fields(const char *expected) {
    char fields[2048] = "";
    for (size_t i = 0, n = 0; i < errors.n; i++)
        n += (size_t)snprintf(fields + n, sizeof fields - n, "%s%s", i ? " " : "", errors.at[i].field);
    assert_string_equal(fields, expected);
}

static void assert_invalid(const char *body, const struct publish_rules *rules, const char *fields) {
    struct publish p = {.deliver_at = 7};
    int r = parse(body, rules, &p);
    if (r != -EINVAL)
        fail_msg("%s is answered %d", body, r);
    assert_fields(fields);
    assert_int_equal(p.deliver_at, 7);
    assert_null(p.type.p);
}

static void test_least(void **state) {
    (void)state;
    struct publish p;
    assert_int_equal(parse("{\"type\":\"invoice.paid\",\"data\":null}", &RULES, &p), 0);
    assert_slice(p.type, "invoice.paid");
    assert_slice(p.schema_version, "1");
    assert_slice(p.ordering_key, NULL);
    assert_slice(p.idempotency_key, NULL);
    assert_slice(p.data, "null");
    assert_true(p.deliver_at == 0);
    assert_int_equal(p.type.p[p.type.n], 0);
}

static void test_all(void **state) {
    (void)state;
    struct publish p;
    assert_int_equal(parse(" {\"idempotency_key\":\"k 1\", \"deliver_at\" : \"2026-11-24T22:49:01+02:00\","
                           "\"ordering_key\":\"käy\",\"schema_version\":\"2026-01\",\"data\": [1 , 2] ,"
                           "\"type\":\"a\"}\r\n",
                           &BATCH, &p),
                     0);
    assert_slice(p.type, "a");
    assert_slice(p.schema_version, "2026-01");
    assert_slice(p.ordering_key, "käy");
    assert_slice(p.idempotency_key, "k 1");
    assert_slice(p.data, "[1 , 2]");
    assert_true(p.deliver_at == 1795553341000);
}

static void test_escapes_are_resolved(void **state) {
    (void)state;
    struct publish p;
    assert_int_equal(parse("{\"t\\u0079pe\":\"\\u0061.b\",\"data\":\"\\u0061\","
                           "\"schema_version\":\"\\\"\\u005c\",\"ordering_key\":\"\\ud83d\\ude00\\n\","
                           "\"idempotency_key\":\"\\/\",\"deliver\\u005fat\":\"2026-11-24T2\\u0031:49:00Z\"}",
                           &BATCH, &p),
                     0);
    assert_slice(p.type, "a.b");
    assert_slice(p.data, "\"\\u0061\"");
    assert_slice(p.schema_version, "\"\\");
    assert_slice(p.ordering_key, "😀\n");
    assert_slice(p.idempotency_key, "/");
    assert_true(p.deliver_at == 1795556940000);
}

static void test_null_is_absent(void **state) {
    (void)state;
    struct publish p;
    assert_int_equal(parse("{\"type\":\"a\",\"data\":1,\"schema_version\":null,\"ordering_key\":null,"
                           "\"deliver_at\":null,\"idempotency_key\":null}",
                           &BATCH, &p),
                     0);
    assert_slice(p.schema_version, "1");
    assert_slice(p.ordering_key, NULL);
    assert_slice(p.idempotency_key, NULL);
    assert_true(p.deliver_at == 0);
}

static void test_data_are_kept(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(VERBATIM); i++) {
        char body[256];
        struct publish p;
        snprintf(body, sizeof body, "{\"type\":\"a.b\",\"data\" : \t%s \n, \"ordering_key\":null}",
                 VERBATIM[i]);
        if (parse(body, &RULES, &p) != 0)
            fail_msg("%s is refused", VERBATIM[i]);
        assert_slice(p.data, VERBATIM[i]);
        assert_true(p.data.p >= body && p.data.p < body + sizeof body);
    }
}

static void test_malformed(void **state) {
    (void)state;
    static const struct slice cases[] = {
        {"", 0},
        {NULL, 0},
        {" ", 1},
        {"{", 1},
        {"{\"type\":\"a.b\",\"data\":1}x", 24},
        {"{\"type\":\"a.b\",\"data\":1}\0", 24},
        {"{\"type\":\"a.b\",\"data\":1,}", 24},
        {"{'type':'a'}", 12},
        {"{\"type\":\"a.b\",\"data\":01}", 24},
        {"{\"type\":\"a.b\",\"data\":NaN}", 25},
        {"{\"type\":\"a.b\",\"data\":\"\xff\xfe\"}", 26},
        {"{\"type\":\"a.b\",\"data\":", 21},
        {"{\"colour\":1,\"type\":5,\"data\":", 29}, /* what was wrong before is not told */
        {"[1,]", 4},
        {"[] []", 5},
        {"nul", 3},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct publish p = {.deliver_at = 7};
        if (parse_slice(cases[i], &RULES, &p) != -EBADMSG)
            fail_msg("case %zu is not malformed", i);
        assert_non_null(problem);
        assert_true(offset <= cases[i].n);
        assert_int_equal(errors.n, 0);
        assert_int_equal(p.deliver_at, 7);
    }
}

static void test_offset(void **state) {
    (void)state;
    struct publish p;
    assert_int_equal(parse("{\"type\":\"a\",\"data\":tru}", &RULES, &p), -EBADMSG);
    assert_int_equal(offset, 19);
    assert_string_equal(problem, "not a JSON value");
}

static void test_depth(void **state) {
    (void)state;
    for (int depth = JSON_DEPTH_MAX; depth <= JSON_DEPTH_MAX + 1; depth++) {
        _cleanup_buf_ struct buf body = {0};
        struct publish p;
        buf_add_str(&body, "{\"type\":\"a\",\"data\":");
        for (int i = 0; i < depth; i++)
            buf_add_char(&body, '[');
        for (int i = 0; i < depth; i++)
            buf_add_char(&body, ']');
        buf_add_char(&body, '}');
        assert_int_equal(parse_slice(buf_slice(&body), &RULES, &p), depth > JSON_DEPTH_MAX ? -EBADMSG : 0);
    }
}

static void test_not_an_object(void **state) {
    (void)state;
    static const char *const bodies[] = {"[]",   "1",    "\"a\"",
                                         "null", "true", " [{\"type\":\"a\",\"data\":1}] "};
    for (size_t i = 0; i < COUNT(bodies); i++) {
        assert_invalid(bodies[i], &RULES, "body");
        assert_invalid(bodies[i], &BATCH, "[3]");
    }
}

static void test_required(void **state) {
    (void)state;
    assert_invalid("{}", &RULES, "type data");
    assert_invalid("{\"type\":\"a\"}", &BATCH, "[3].data");
    assert_invalid("{\"data\":1}", &RULES, "type");
    assert_invalid("{\"data\":1,\"type\":null}", &RULES, "type");
}

static void test_every_bad_field_is_told(void **state) {
    (void)state;
    assert_invalid("{\"type\":\"no spaces\",\"data\":1,\"schema_version\":3,\"ordering_key\":7,"
                   "\"deliver_at\":\"soon\",\"colour\":\"red\",\"size\":1}",
                   &RULES, "type schema_version ordering_key deliver_at colour size");
    assert_invalid("{\"type\":\"a\",\"data\":1,\"idempotency_key\":\"\",\"colour\":1}", &BATCH,
                   "[3].idempotency_key [3].colour");
}

static void test_unknown_members(void **state) {
    (void)state;
    assert_invalid(
        "{\"type\":\"a\",\"data\":1,\"Type\":\"b\",\"\":2,\"d\\u00e9j\\u00e0\":3,\"nul\\u0000\":4}", &RULES,
        "Type  déjà nul\\u0000");
    /* A name that is cut ends with a whole character. */
    assert_invalid("{\"type\":\"a\",\"data\":1,"
                   "\"éééééééééééééééééééééééééééééééééééééééééééééééééééééééé\":1}",
                   &RULES, "ééééééééééééééééééééééééééééééééééééééé");
    struct publish p;
    assert_int_equal(parse("{\"type\":\"a\",\"data\":1,\"idempotency_key\":\"k\"}", &RULES, &p), -EINVAL);
    assert_fields("idempotency_key");
    assert_non_null(strstr(errors.at[0].message, "Idempotency-Key"));
}

static void test_members_given_twice(void **state) {
    (void)state;
    assert_invalid("{\"type\":\"a\",\"data\":1,\"type\":\"a\"}", &RULES, "type");
    assert_invalid("{\"data\":1,\"type\":\"a\",\"d\\u0061ta\":1}", &RULES, "data");
    assert_invalid("{\"data\":1,\"type\":\"a\",\"deliver_at\":null,\"deliver_at\":null}", &RULES,
                   "deliver_at");
}

static void test_types(void **state) {
    (void)state;
    char long_type[130];
    memset(long_type, 'a', sizeof long_type);
    const struct slice good[] = {SLICE_LIT("a"),           SLICE_LIT("A.b-c_d.9"), {long_type, 128},
                                 SLICE_LIT("posthornish"), SLICE_LIT("posthorn"),  SLICE_LIT("Posthorn.x"),
                                 SLICE_LIT("."),           SLICE_LIT("-")};
    const struct slice bad[] = {SLICE_LIT(""),    SLICE_LIT("a b"), SLICE_LIT("a/b"),  SLICE_LIT("ä"),
                                {long_type, 129}, SLICE_LIT("a*"),  SLICE_LIT("a\x7f")};
    for (size_t i = 0; i < COUNT(good) + COUNT(bad); i++) {
        struct slice type = i < COUNT(good) ? good[i] : bad[i - COUNT(good)];
        char body[256];
        struct publish p;
        snprintf(body, sizeof body, "{\"type\":\"%.*s\",\"data\":1}", SLICE_ARG(type));
        if (parse(body, &RULES, &p) != (i < COUNT(good) ? 0 : -EINVAL))
            fail_msg("type \"%.*s\"", SLICE_ARG(type));
        assert_int_equal(event_type_valid(type), i < COUNT(good));
    }
    static const char *const others[] = {"1",
                                         "[\"a\"]",
                                         "{}",
                                         "true",
                                         "\"a\\n\"",
                                         "\"a\\u0000\"",
                                         "\"posthorn.\"",
                                         "\"posthorn.test\"",
                                         "\"post\\u0068orn.x\""};
    for (size_t i = 0; i < COUNT(others); i++) {
        char body[128];
        snprintf(body, sizeof body, "{\"type\":%s,\"data\":1}", others[i]);
        assert_invalid(body, &RULES, "type");
    }
    assert_false(event_type_valid(SLICE_NONE));
    assert_false(event_type_valid(SLICE_LIT("a\0b")));
}

static void test_reserved_types_where_allowed(void **state) {
    (void)state;
    struct publish p;
    struct publish_rules rules = RULES;
    rules.allow_reserved = true;
    assert_int_equal(parse("{\"type\":\"posthorn.test\",\"data\":1}", &rules, &p), 0);
    assert_slice(p.type, "posthorn.test");
}

/* Each text at its greatest length and one more, plain and with every character escaped. */
static void test_lengths_of_texts(void **state) {
    (void)state;
    static const struct {
        const char *name;
        size_t max;
    } texts[] = {{"type", EVENT_TYPE_MAX},
                 {"schema_version", EVENT_SCHEMA_VERSION_MAX},
                 {"ordering_key", EVENT_ORDERING_KEY_MAX},
                 {"idempotency_key", IDEMPOTENCY_KEY_MAX}};
    for (size_t i = 0; i < COUNT(texts) * 4; i++) {
        size_t which = i / 4, n = texts[which].max + (i & 1);
        bool escaped = i & 2;
        _cleanup_buf_ struct buf body = {0};
        buf_add_str(&body, "{\"data\":1");
        if (which != 0)
            buf_add_str(&body, ",\"type\":\"a\"");
        buf_addf(&body, ",\"%s\":\"", texts[which].name);
        for (size_t k = 0; k < n; k++)
            buf_add_str(&body, escaped ? "\\u0061" : "a");
        buf_add_str(&body, "\"}");
        struct publish p;
        int r = parse(body.p, &BATCH, &p);
        if (r != (i & 1 ? -EINVAL : 0))
            fail_msg("%s of %zu bytes is answered %d", texts[which].name, n, r);
    }
}

static void test_all_texts_at_their_greatest(void **state) {
    (void)state;
    _cleanup_buf_ struct buf body = {0};
    static const char *const names[] = {"type", "schema_version", "ordering_key", "idempotency_key"};
    static const size_t sizes[] = {EVENT_TYPE_MAX, EVENT_SCHEMA_VERSION_MAX, EVENT_ORDERING_KEY_MAX,
                                   IDEMPOTENCY_KEY_MAX};
    buf_add_str(&body, "{\"data\":1");
    for (size_t i = 0; i < COUNT(names); i++) {
        buf_addf(&body, ",\"%s\":\"", names[i]);
        for (size_t k = 0; k < sizes[i]; k++)
            buf_addf(&body, "\\u00%02x", 'a' + (int)i);
        buf_add_char(&body, '"');
    }
    buf_add_char(&body, '}');
    struct publish p;
    assert_int_equal(parse(body.p, &BATCH, &p), 0);
    const struct slice kept[] = {p.type, p.schema_version, p.ordering_key, p.idempotency_key};
    for (size_t i = 0; i < COUNT(kept); i++) {
        assert_int_equal(kept[i].n, sizes[i]);
        assert_int_equal(strspn(kept[i].p, (char[]){(char)('a' + i), '\0'}), sizes[i]);
    }
}

static void test_texts(void **state) {
    (void)state;
    struct publish p;
    assert_invalid("{\"type\":\"a\",\"data\":1,\"schema_version\":\"\"}", &RULES, "schema_version");
    assert_invalid("{\"type\":\"a\",\"data\":1,\"schema_version\":\"é\"}", &RULES, "schema_version");
    assert_invalid("{\"type\":\"a\",\"data\":1,\"schema_version\":\"a\\tb\"}", &RULES, "schema_version");
    assert_invalid("{\"type\":\"a\",\"data\":1,\"ordering_key\":\"\"}", &RULES, "ordering_key");
    assert_invalid("{\"type\":\"a\",\"data\":1,\"ordering_key\":\"\\u0000\"}", &RULES, "ordering_key");
    assert_invalid("{\"type\":\"a\",\"data\":1,\"ordering_key\":[]}", &RULES, "ordering_key");
    assert_invalid("{\"type\":\"a\",\"data\":1,\"idempotency_key\":\"é\"}", &BATCH, "[3].idempotency_key");
    assert_invalid("{\"type\":\"a\",\"data\":1,\"idempotency_key\":1}", &BATCH, "[3].idempotency_key");
    assert_int_equal(parse("{\"type\":\"a\",\"data\":1,\"schema_version\":\" ~\"}", &RULES, &p), 0);
}

static void test_deliver_at(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t at;
    } good[] = {
        {"2026-11-24T20:49:00.124Z", NOW + 1},
        {"2026-11-24T20:49:00.123Z", 0},
        {"1970-01-01T00:00:00Z", 0},
        {"0001-01-01T00:00:00Z", 0},
        {"2026-12-24T20:49:00.123Z", NOW + EVENT_DELIVER_AHEAD_MS_MAX},
    };
    static const char *const bad[] = {"\"2026-12-24T20:49:00.124Z\"",
                                      "\"9999-12-31T23:59:59Z\"",
                                      "\"2026-11-24\"",
                                      "\"tomorrow\"",
                                      "\"\"",
                                      "\"2026-02-30T00:00:00Z\"",
                                      "1790000000",
                                      "{}",
                                      "true"};
    char body[128];
    for (size_t i = 0; i < COUNT(good); i++) {
        struct publish p;
        snprintf(body, sizeof body, "{\"type\":\"a\",\"data\":1,\"deliver_at\":\"%s\"}", good[i].text);
        assert_int_equal(parse(body, &RULES, &p), 0);
        assert_true(p.deliver_at == good[i].at);
    }
    for (size_t i = 0; i < COUNT(bad); i++) {
        snprintf(body, sizeof body, "{\"type\":\"a\",\"data\":1,\"deliver_at\":%s}", bad[i]);
        assert_invalid(body, &RULES, "deliver_at");
    }
}

static void test_data_too_large(void **state) {
    (void)state;
    struct publish_rules rules = RULES;
    struct publish p = {.deliver_at = 7};
    rules.data_bytes_max = 5;
    assert_int_equal(parse("{\"type\":\"a\",\"data\":  12345  }", &rules, &p), 0);
    p.deliver_at = 7;
    assert_int_equal(parse("{\"type\":\"a\",\"data\":123456}", &rules, &p), -EMSGSIZE);
    assert_fields("data");
    assert_int_equal(parse("{\"type\":\"a b\",\"data\":123456,\"x\":1}", &rules, &p), -EMSGSIZE);
    assert_fields("type data x");
    assert_int_equal(p.deliver_at, 7);
    /* What is no JSON is that first. */
    assert_int_equal(parse("{\"type\":\"a\",\"data\":123456", &rules, &p), -EBADMSG);
}

/* Errors add to those of earlier events of a batch; a full list must not make a bad event good. */
static void test_errors_of_a_batch(void **state) {
    (void)state;
    struct publish p;
    memset(&errors, 0, sizeof errors);
    for (int i = 0; i < FIELD_ERRORS_MAX + 10; i++)
        assert_int_equal(publish_parse(SLICE_LIT("{\"type\":\"a\",\"data\":1,\"ordering_key\":\"\"}"), &RULES,
                                       &p, &errors, &problem, &offset),
                         -EINVAL);
    assert_int_equal(errors.n, FIELD_ERRORS_MAX);
    assert_int_equal(
        publish_parse(SLICE_LIT("{\"type\":\"a\",\"data\":1}"), &RULES, &p, &errors, &problem, &offset), 0);
    assert_int_equal(field_errors_count(&errors), FIELD_ERRORS_MAX + 10);
}

static void test_envelope(void **state) {
    (void)state;
    char id[ID_TEXT_SIZE];
    id_format(ID_EVENT, EXAMPLE, id);
    for (size_t i = 0; i < COUNT(VERBATIM); i++) {
        char body[256], expected[512];
        struct publish p;
        snprintf(body, sizeof body, "{\"data\": %s ,\"type\":\"a.b\",\"ordering_key\":\"k\"}", VERBATIM[i]);
        assert_int_equal(parse(body, &RULES, &p), 0);
        snprintf(expected, sizeof expected,
                 "{\"id\":\"%s\",\"type\":\"a.b\",\"timestamp\":\"2026-11-24T20:49:00.123Z\","
                 "\"tenant_id\":\"acme\",\"schema_version\":\"1\",\"data\":%s}",
                 id, VERBATIM[i]);
        _cleanup_blob_ struct blob *envelope = event_envelope(EXAMPLE, "acme", &p);
        assert_non_null(envelope);
        assert_slice(blob_slice(envelope), expected);
        assert_slice(event_data(blob_slice(envelope), p.data.n), VERBATIM[i]);
        assert_slice(event_envelope_type(blob_slice(envelope)), "a.b");
    }
}

static void test_envelope_escapes_texts(void **state) {
    (void)state;
    struct publish p;
    assert_int_equal(parse("{\"type\":\"a\",\"data\":1,\"schema_version\":\"\\\"\\\\\"}", &RULES, &p), 0);
    _cleanup_blob_ struct blob *envelope = event_envelope(EXAMPLE, "acme", &p);
    assert_non_null(strstr(envelope->p, "\"schema_version\":\"\\\"\\\\\",\"data\":1}"));
}

static void test_cloudevents(void **state) {
    (void)state;
    char id[ID_TEXT_SIZE], expected[512];
    id_format(ID_EVENT, EXAMPLE, id);
    struct event_meta m = {.id = EXAMPLE,
                           .type = SLICE_LIT("invoice.paid"),
                           .schema_version = SLICE_LIT("2"),
                           .ordering_key = SLICE_LIT("in \"1\""),
                           .tenant_id = "acme"};
    for (int with_key = 1; with_key >= 0; with_key--) {
        _cleanup_buf_ struct buf out = {0};
        if (!with_key)
            m.ordering_key = SLICE_NONE;
        event_cloudevents(&m, SLICE_LIT("{\"z\":1.0}"), &out);
        snprintf(expected, sizeof expected,
                 "{\"specversion\":\"1.0\",\"id\":\"%s\",\"source\":\"/tenants/acme\","
                 "\"type\":\"invoice.paid\",\"time\":\"2026-11-24T20:49:00.123Z\",%s"
                 "\"datacontenttype\":\"application/json\",\"schemaversion\":\"2\",\"data\":{\"z\":1.0}}",
                 id, with_key ? "\"subject\":\"in \\\"1\\\"\"," : "");
        assert_true(buf_ok(&out));
        assert_string_equal(out.p, expected);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_least),
        cmocka_unit_test(test_all),
        cmocka_unit_test(test_escapes_are_resolved),
        cmocka_unit_test(test_null_is_absent),
        cmocka_unit_test(test_data_are_kept),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_offset),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_not_an_object),
        cmocka_unit_test(test_required),
        cmocka_unit_test(test_every_bad_field_is_told),
        cmocka_unit_test(test_unknown_members),
        cmocka_unit_test(test_members_given_twice),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_reserved_types_where_allowed),
        cmocka_unit_test(test_lengths_of_texts),
        cmocka_unit_test(test_all_texts_at_their_greatest),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_deliver_at),
        cmocka_unit_test(test_data_too_large),
        cmocka_unit_test(test_errors_of_a_batch),
        cmocka_unit_test(test_envelope),
        cmocka_unit_test(test_envelope_escapes_texts),
        cmocka_unit_test(test_cloudevents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
