#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/render.h"

static const int64_t T0 = 1795553340123; /* 2026-11-24T20:49:00.123Z */

static json_t *parsed(const struct buf *out) {
    json_error_t error;
    assert_true(buf_ok(out));
    json_t *doc = json_loadb(out->p, out->n, JSON_REJECT_DUPLICATES, &error);
    if (!doc)
        fail_msg("%s in %s", error.text, out->p);
    return doc;
}

static json_t *at(const json_t *doc, const char *name) {
    json_t *value = json_object_get(doc, name);
    if (!value)
        fail_msg("%s is missing", name);
    return value;
}

static void assert_text(const json_t *doc, const char *name, const char *expected) {
    json_t *value = at(doc, name);
    if (expected)
        assert_string_equal(json_string_value(value), expected);
    else
        assert_true(json_is_null(value));
}

/* ---- events ---- */

static void test_event_data_keep_their_bytes(void **state) {
    (void)state;
    static const char envelope[] = "{\"id\":\"x\",\"data\":{ \"n\" : 1.0 }}";
    _cleanup_buf_ struct buf out = {0};
    struct event_row row = {.event = {.id = {.key = id_key_at(T0)},
                                      .type = SLICE_LIT("invoice.paid"),
                                      .schema_version = SLICE_LIT("1"),
                                      .body = SLICE_LIT(envelope),
                                      .data_size = sizeof "{ \"n\" : 1.0 }" - 1},
                            .fanout = FANOUT_EXPANDING,
                            .fanout_deliveries = 5000000000};
    render_event(&out, "acme", &row);
    assert_non_null(strstr(out.p, "\"data\":{ \"n\" : 1.0 },\"fanout\""));
    json_t *doc = parsed(&out);
    assert_int_equal(json_object_size(doc), 9);
    assert_text(doc, "created_at", "2026-11-24T20:49:00.123Z");
    assert_text(doc, "deliver_at", NULL);
    assert_text(doc, "ordering_key", NULL);
    assert_text(at(doc, "fanout"), "state", "expanding");
    assert_true(json_integer_value(at(at(doc, "fanout"), "deliveries")) == 5000000000);
    json_decref(doc);
}

/* ---- deliveries ---- */

static struct delivery_row delivery(enum delivery_state state) {
    return (struct delivery_row){.event_key = id_key_at(T0),
                                 .subscription_no = 7,
                                 .event_id = {.key = id_key_at(T0), .tail = 9},
                                 .subscription_id = {.key = id_key_at(T0), .tail = 8},
                                 .event_type = SLICE_LIT("a.b"),
                                 .state = state,
                                 .attempts = 2,
                                 .created_at = T0};
}

static json_t *rendered(const struct delivery_row *row, enum lane_wait wait) {
    _cleanup_buf_ struct buf out = {0};
    render_delivery_open(&out, "acme", row, wait);
    buf_add_char(&out, '}');
    return parsed(&out);
}

static void test_delivery_that_waits(void **state) {
    (void)state;
    struct delivery_row row = delivery(DELIVERY_RETRY);
    row.last_status = 500;
    row.next_attempt_at = T0 + 1;
    json_t *doc = rendered(&row, LANE_WAIT_RATE_LIMIT);
    assert_int_equal(json_object_size(doc), 18);
    assert_text(doc, "state", "RETRY");
    assert_text(doc, "next_attempt_at", "2026-11-24T20:49:00.124Z");
    assert_text(doc, "waiting_on", "rate_limit");
    assert_int_equal(json_integer_value(at(doc, "last_status_code")), 500);
    assert_int_equal(json_integer_value(at(doc, "attempt_count")), 2);
    const char *const nulls[] = {"delivered_at", "last_error", "failure_reason", "exhausted_at",
                                 "ordering_key", "replay",     "receipt"};
    for (size_t i = 0; i < sizeof nulls / sizeof nulls[0]; i++)
        assert_text(doc, nulls[i], NULL);
    json_decref(doc);
}

static void test_delivery_that_is_dead(void **state) {
    (void)state;
    struct delivery_row row = delivery(DELIVERY_DLQ);
    row.closed_at = T0 + 5;
    row.reason = REASON_ATTEMPTS_EXHAUSTED;
    row.last_error = ATTEMPT_TIMEOUT;
    json_t *doc = rendered(&row, LANE_WAIT_NONE);
    assert_text(doc, "delivered_at", NULL);
    assert_text(doc, "exhausted_at", "2026-11-24T20:49:00.128Z");
    assert_text(doc, "failure_reason", "attempts_exhausted");
    assert_text(doc, "last_error", "timeout");
    assert_text(doc, "last_status_code", NULL);
    json_decref(doc);
}

static void test_delivery_that_was_replayed(void **state) {
    (void)state;
    struct delivery_row row = delivery(DELIVERY_DELIVERED);
    row.closed_at = T0 + 5;
    row.replay_source = SLICE_LIT("api");
    row.replay_requested_by = SLICE_LIT("admin");
    row.replay_at = T0 + 2;
    json_t *doc = rendered(&row, LANE_WAIT_NONE);
    assert_text(doc, "delivered_at", "2026-11-24T20:49:00.128Z");
    assert_text(at(doc, "replay"), "source", "api");
    assert_text(at(doc, "replay"), "requested_by", "admin");
    assert_text(at(doc, "replay"), "at", "2026-11-24T20:49:00.125Z");
    json_decref(doc);
}

/* ---- attempts ---- */

static struct attempt_row attempt(void) {
    return (struct attempt_row){
        .number = 3,
        .id = {.key = id_key_at(T0)},
        .worker = SLICE_LIT("host:1"),
        .user_agent = SLICE_LIT("posthorn/0"),
        .attempt = {.started_at = T0,
                    .latency_ms = 12,
                    .status = 200,
                    .url = SLICE_LIT("https://example.com/"),
                    .content_type = SLICE_LIT("application/json"),
                    .signature = SLICE_LIT("v1,x v1,y"),
                    .request_headers = SLICE_LIT("X-Api-Key: k: 1\r\n"),
                    .response_headers = SLICE_LIT("Server: a\r\nSet-Cookie: b\r\nempty:\r\nset-cookie:c\r\n"),
                    .response_body = SLICE_LIT("ok\xff")},
    };
}

static json_t *rendered_attempt(const struct attempt_row *row) {
    _cleanup_buf_ struct buf out = {0};
    struct delivery_row of = delivery(DELIVERY_DELIVERED);
    render_attempt(&out, &of, row);
    return parsed(&out);
}

static void test_attempt(void **state) {
    (void)state;
    struct attempt_row row = attempt();
    json_t *doc = rendered_attempt(&row);
    assert_int_equal(json_object_size(doc), 15);
    assert_text(doc, "error", NULL);
    assert_text(doc, "trigger", "schedule");
    assert_text(doc, "worker_id", "host:1");
    assert_text(doc, "response_body", "ok\xEF\xBF\xBD");
    json_decref(doc);
}

static void test_request_headers(void **state) {
    (void)state;
    struct attempt_row row = attempt();
    json_t *doc = rendered_attempt(&row), *sent = at(doc, "request_headers");
    assert_int_equal(json_object_size(sent), 8);
    assert_text(sent, "content-type", "application/json");
    assert_text(sent, "user-agent", "posthorn/0");
    assert_string_equal(json_string_value(at(sent, "webhook-id")), json_string_value(at(doc, "delivery_id")));
    assert_text(sent, "webhook-timestamp", "1795553340");
    assert_text(sent, "webhook-signature", "v1,x v1,y");
    assert_text(sent, "posthorn-attempt", "3");
    assert_text(sent, "x-api-key", "k: 1");
    json_decref(doc);
}

static void test_response_headers_are_joined_by_name(void **state) {
    (void)state;
    struct attempt_row row = attempt();
    json_t *doc = rendered_attempt(&row), *came = at(doc, "response_headers");
    assert_int_equal(json_object_size(came), 3);
    assert_text(came, "server", "a");
    assert_text(came, "set-cookie", "b, c");
    assert_text(came, "empty", "");
    json_decref(doc);
}

static void test_nothing_was_read(void **state) {
    (void)state;
    struct attempt_row row = attempt();
    row.attempt.response_body = row.attempt.response_headers = SLICE_NONE;
    json_t *doc = rendered_attempt(&row);
    assert_text(doc, "response_hash",
                "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_text(doc, "response_body", "");
    assert_int_equal(json_object_size(at(doc, "response_headers")), 0);
    json_decref(doc);
}

static void test_no_answer_came(void **state) {
    (void)state;
    struct attempt_row row = attempt();
    row.attempt.response_body = row.attempt.response_headers = SLICE_NONE;
    row.attempt.status = 0;
    row.attempt.error = ATTEMPT_CONNECT_REFUSED;
    row.attempt.signature = SLICE_NONE; /* nothing was sent either */
    json_t *doc = rendered_attempt(&row);
    assert_text(doc, "status_code", NULL);
    assert_text(doc, "error", "connect_refused");
    assert_text(doc, "response_body", NULL);
    assert_text(doc, "response_hash", NULL);
    assert_null(json_object_get(at(doc, "request_headers"), "webhook-signature"));
    json_decref(doc);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_event_data_keep_their_bytes),
        cmocka_unit_test(test_delivery_that_waits),
        cmocka_unit_test(test_delivery_that_is_dead),
        cmocka_unit_test(test_delivery_that_was_replayed),
        cmocka_unit_test(test_attempt),
        cmocka_unit_test(test_request_headers),
        cmocka_unit_test(test_response_headers_are_joined_by_name),
        cmocka_unit_test(test_nothing_was_read),
        cmocka_unit_test(test_no_answer_came),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
