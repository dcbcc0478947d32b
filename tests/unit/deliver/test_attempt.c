/* What an attempt sends, and when it may not: to a receiver of the test's own, on loopback. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/random.h"
#include "core/receipt.h"
#include "deliver/attempt.h"

enum { LIMIT_US = 60 * 1000000, EVENT = 7, TIMEOUT_MS = 60000, KEYS_MAX = 3 };

#define NOW INT64_C(1764100000000)
static const char envelope[] =
    "{\"id\":\"evt_01JZZZZZZZEZZ8ZZZZZZZZZZZZ\",\"type\":\"a.b\",\"timestamp\":\"2026-11-"
    "24T20:49:00.123Z\",\"tenant_id\":\"t\",\"schema_version\":\"1\",\"data\":1}";

struct fixture {
    struct loop *loop;
    struct address_policy policy;
    struct egress egress;
    struct attempt_context context;
    struct rng rng;
    uint8_t receipt_key[RECEIPT_KEY_SIZE];
    int listener, fd;
    uint16_t port;
    char heard[4096];
    size_t heard_n;
    struct attempt *attempt;
    int ended;
};

static void set_up(struct fixture *f) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    *f = (struct fixture){.fd = -1};
    f->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(f->listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(f->listener, 16), 0);
    assert_int_equal(getsockname(f->listener, (struct sockaddr *)&a, &n), 0);
    f->port = ntohs(a.sin_port);
    assert_int_equal(address_policy_allow_cidr(&f->policy, SLICE_LIT("127.0.0.0/8")), 0);
    assert_int_equal(address_policy_allow_port(&f->policy, SLICE_LIT("1-65535")), 0);
    f->egress.addresses = &f->policy;
    rng_seed(&f->rng, 1);
    struct client_options o = {.egress = &f->egress, .connections_kept = 1};
    f->context = (struct attempt_context){
        .signer = signer_new(), .user_agent = "posthorn/test", .receipt_key = f->receipt_key, .rng = &f->rng};
    assert_non_null(f->context.signer);
    assert_int_equal(loop_new(&f->loop), 0);
    assert_int_equal(client_new(f->loop, &o, &f->context.client), 0);
    assert_int_equal(body_cache_new(1 << 16, &f->context.bodies), 0);
    struct body body = {.envelope = blob_of(slice_of(envelope)), .data_size = 1};
    body_cache_put(f->context.bodies, EVENT, &body);
    blob_unref(body.envelope);
}

static void tear_down(struct fixture *f) {
    client_free(f->context.client); /* with the request, which may be under way */
    attempt_free(f->attempt);
    body_cache_free(f->context.bodies);
    signer_free(f->context.signer);
    loop_free(f->loop);
    close(f->listener);
    if (f->fd >= 0)
        close(f->fd);
}

/* With keys that expire at these times (0: never), newest first. */
static struct subscription *subscribed(const struct fixture *f, const int64_t *expire_at, uint16_t keys) {
    struct subscription *s = calloc(1, sizeof *s);
    char url[64];
    assert_non_null(s);
    snprintf(url, sizeof url, "http://127.0.0.1:%u/hook", f->port);
    atomic_init(&s->refs, 1);
    s->no = 3;
    s->tenant_no = 1;
    s->allow_http = true;
    s->url = s->texts = strdup(url);
    s->policy = policy_new();
    s->keys = calloc(KEYS_MAX, sizeof *s->keys);
    assert_true(s->url && s->policy && s->keys && keys <= KEYS_MAX);
    s->policy->timeout_ms = TIMEOUT_MS;
    s->keys_n = keys;
    for (uint16_t i = 0; i < keys; i++) {
        assert_int_equal(signing_key_generate(SIGNING_HMAC, &s->keys[i]), 0);
        s->keys[i].expires_at = expire_at[i];
    }
    return s;
}

static void attempt_done(struct attempt *a) {
    struct fixture *f = a->owner;
    f->ended++;
}

/* Whether anything went out: until somebody connects and has sent a request, or the attempt has ended. */
static bool begin(struct fixture *f, struct subscription *s, int64_t lease_until) {
    int64_t limit = clock_mono_us() + LIMIT_US;
    assert_non_null(f->attempt = calloc(1, sizeof *f->attempt));
    *f->attempt = (struct attempt){.task = {.event_key = EVENT,
                                            .subscription_no = 3,
                                            .tenant_no = 1,
                                            .number = 1,
                                            .lease_until = lease_until},
                                   .subscription = s,
                                   .done = attempt_done,
                                   .owner = f};
    attempt_start(f->attempt, &f->context, NOW);
    assert_int_equal(f->ended, 0);
    while (!f->ended && !strstr(f->heard, envelope)) {
        assert_true(clock_mono_us() < limit);
        loop_step(f->loop, 5);
        if (f->fd < 0)
            f->fd = accept4(f->listener, NULL, NULL, SOCK_NONBLOCK);
        ssize_t n = f->fd < 0 ? 0 : recv(f->fd, f->heard + f->heard_n, sizeof f->heard - 1 - f->heard_n, 0);
        f->heard_n += n > 0 ? (size_t)n : 0;
    }
    return f->fd >= 0 || (f->fd = accept4(f->listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;
}

/* As one whose keys never expire. */
static bool begin_until(struct fixture *f, int64_t lease_until) {
    static const int64_t never[] = {0};
    return begin(f, subscribed(f, never, 1), lease_until);
}

static void assert_not_sent(const struct fixture *f, enum attempt_error error) {
    assert_int_equal(f->ended, 1);
    assert_true(f->attempt->not_sent);
    assert_int_equal(f->attempt->outcome.status, 0);
    assert_int_equal(f->attempt->outcome.error, error);
}

/* ---- tests ---- */

static void test_a_lease_must_outlive_the_deadline(void **state) {
    (void)state;
    static const struct {
        int64_t lease_ms;
        bool sent;
    } cases[] = {{-1, false}, {0, false}, {TIMEOUT_MS, false}, {TIMEOUT_MS + 1, true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fixture f;
        set_up(&f);
        assert_int_equal(begin_until(&f, NOW + cases[i].lease_ms), cases[i].sent);
        if (!cases[i].sent)
            assert_not_sent(&f, ATTEMPT_LEASE_EXPIRED);
        tear_down(&f);
    }
}

static void test_nothing_is_sent_once_the_nodes_lease_is_over(void **state) {
    (void)state;
    for (int over = 0; over < 2; over++) {
        struct fixture f;
        set_up(&f);
        atomic_int_fast64_t send_until_us;
        atomic_init(&send_until_us, clock_mono_us() + (over ? 0 : 3600 * INT64_C(1000000)));
        f.context.send_until_us = &send_until_us;
        assert_int_equal(begin_until(&f, NOW + 10 * TIMEOUT_MS), !over);
        if (over)
            assert_not_sent(&f, ATTEMPT_LEASE_EXPIRED);
        tear_down(&f);
    }
}

static size_t times(const char *text, const char *word) {
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, word)); at += strlen(word))
        n++;
    return n;
}

static void test_only_what_is_in_force_signs(void **state) {
    (void)state;
    static const int64_t expire_at[] = {0, NOW + 1, NOW};
    struct fixture f;
    set_up(&f);
    struct subscription *s = subscribed(&f, expire_at, 3);
    char first[SIGNATURE_TEXT_SIZE], second[SIGNATURE_TEXT_SIZE], expected[3 * SIGNATURE_TEXT_SIZE], *id;
    struct signing_key keys[2] = {s->keys[0], s->keys[1]};
    assert_true(begin(&f, s, NOW + 10 * TIMEOUT_MS));
    assert_int_equal(times(f.heard, "v1,"), 2);
    assert_non_null(id = strstr(f.heard, "webhook-id: "));
    struct slice delivery = {id + 12, strcspn(id + 12, "\r")};
    assert_int_equal(signer_sign(f.context.signer, &keys[0], delivery, NOW / 1000, slice_of(envelope), first),
                     0);
    assert_int_equal(
        signer_sign(f.context.signer, &keys[1], delivery, NOW / 1000, slice_of(envelope), second), 0);
    snprintf(expected, sizeof expected, "webhook-signature: %s %s\r\n", first, second);
    assert_non_null(strstr(f.heard, expected));
    tear_down(&f);
}

static void test_nothing_goes_unsigned(void **state) {
    (void)state;
    static const int64_t expire_at[] = {NOW, NOW - 1000};
    struct fixture f;
    set_up(&f);
    assert_false(begin(&f, subscribed(&f, expire_at, 2), NOW + 10 * TIMEOUT_MS));
    assert_not_sent(&f, ATTEMPT_INTERNAL);
    tear_down(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_lease_must_outlive_the_deadline),
        cmocka_unit_test(test_nothing_is_sent_once_the_nodes_lease_is_over),
        cmocka_unit_test(test_only_what_is_in_force_signs),
        cmocka_unit_test(test_nothing_goes_unsigned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
