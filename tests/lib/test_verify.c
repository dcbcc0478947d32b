/* libposthorn-verify by its header alone: the vectors, and everything that must be refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <posthorn/verify.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LINE_BYTES_MAX = 1024 };

struct vector {
    char line[LINE_BYTES_MAX];
    char *scheme, *secret, *public, *id, *timestamp, *payload, *signature;
};

static FILE *open_vectors(void) {
    const char *folder = getenv("POSTHORN_TEST_CASES");
    char path[512];
    snprintf(path, sizeof path, "%s/signatures.tsv", folder ? folder : "tests/cases");
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    return f;
}

static int next_vector(FILE *f, struct vector *v) {
    do
        if (!fgets(v->line, sizeof v->line, f))
            return 0;
    while (v->line[0] == '#');
    char *at = v->line;
    char **const fields[] = {&v->scheme,    &v->secret,  &v->public,   &v->id,
                             &v->timestamp, &v->payload, &v->signature};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        *fields[i] = strsep(&at, "\t\n");
        assert_non_null(*fields[i]);
    }
    return 1;
}

/* What a subscriber is given. */
static const char *key_of(const struct vector *v) {
    return strcmp(v->public, "-") == 0 ? v->secret : v->public;
}

static struct posthorn_webhook webhook_of(const struct vector *v) {
    return (struct posthorn_webhook){v->id, v->timestamp, v->signature, v->payload, strlen(v->payload)};
}

static void judge_vector(const struct vector *v) {
    struct posthorn_webhook good = webhook_of(v), w;
    int64_t at = strtoll(v->timestamp, NULL, 10);
    char text[LINE_BYTES_MAX * 2];
#define VERDICT(now, tolerance) posthorn_verify(key_of(v), &w, now, tolerance)
#define ALTERED(field, value)   (w = good, w.field = (value), VERDICT(at, POSTHORN_TOLERANCE_SECONDS))
    w = good;
    assert_int_equal(VERDICT(at, 0), POSTHORN_VALID);
    assert_int_equal(VERDICT(at + 300, 300), POSTHORN_VALID);
    assert_int_equal(VERDICT(at - 300, 300), POSTHORN_VALID);
    assert_int_equal(VERDICT(at + 301, 300), POSTHORN_TOO_FAR_OFF);
    assert_int_equal(VERDICT(at - 301, 300), POSTHORN_TOO_FAR_OFF);
    assert_int_equal(VERDICT(INT64_MIN, 300), POSTHORN_TOO_FAR_OFF);
    assert_int_equal(VERDICT(0, 300), POSTHORN_TOO_FAR_OFF); /* the system's clock is long past it */
    assert_int_equal(VERDICT(at + 301, POSTHORN_ANY_AGE), POSTHORN_VALID);
    assert_int_equal(posthorn_verify(v->secret, &w, at, 0), POSTHORN_VALID);

    snprintf(text, sizeof text, "v1,AAAA  %s v2,x", v->signature);
    assert_int_equal(ALTERED(signature, text), POSTHORN_VALID);
    snprintf(text, sizeof text, "%.*s", (int)strlen(v->signature) - 1, v->signature);
    assert_int_equal(ALTERED(signature, text), POSTHORN_FORGED);
    snprintf(text, sizeof text, "v2%s", strchr(v->signature, ','));
    assert_int_equal(ALTERED(signature, text), POSTHORN_FORGED);
    assert_int_equal(ALTERED(signature, "v1,"), POSTHORN_FORGED);
    assert_int_equal(ALTERED(signature, ""), POSTHORN_FORGED);
    assert_int_equal(ALTERED(id, "msg_other"), POSTHORN_FORGED);
    assert_int_equal(ALTERED(body_size, good.body_size - 1), POSTHORN_FORGED);
    assert_int_equal(ALTERED(body, NULL), POSTHORN_FORGED);
    snprintf(text, sizeof text, "%lld", (long long)at + 1);
    assert_int_equal(ALTERED(timestamp, text), POSTHORN_FORGED);
    snprintf(text, sizeof text, "0%s", v->timestamp);
    assert_int_equal(ALTERED(timestamp, text), POSTHORN_BAD_TIMESTAMP);
    assert_int_equal(ALTERED(timestamp, "now"), POSTHORN_BAD_TIMESTAMP);
    assert_int_equal(ALTERED(id, NULL), POSTHORN_NO_ID);
    assert_int_equal(ALTERED(timestamp, NULL), POSTHORN_NO_TIMESTAMP);
    assert_int_equal(ALTERED(signature, NULL), POSTHORN_NO_SIGNATURE);
}

static void test_vectors(void **state) {
    (void)state;
    FILE *f = open_vectors();
    struct vector v;
    size_t n = 0;
    for (; next_vector(f, &v); n++)
        judge_vector(&v);
    fclose(f);
    assert_true(n >= 2);
}

static void test_keys(void **state) {
    (void)state;
    FILE *f = open_vectors();
    struct vector v;
    assert_true(next_vector(f, &v));
    fclose(f);
    struct posthorn_webhook w = webhook_of(&v);
    int64_t at = strtoll(v.timestamp, NULL, 10);
    const char *const none[] = {NULL,       "", "whsec_", "whsec_short", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                                "whpk_AAAA"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        assert_int_equal(posthorn_verify(none[i], &w, at, 300), POSTHORN_BAD_KEY);
    assert_int_equal(posthorn_verify("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &w, at, 300), POSTHORN_FORGED);
}

static void test_texts(void **state) {
    (void)state;
    for (int i = -1; i <= POSTHORN_NO_MEMORY + 1; i++)
        assert_true(strlen(posthorn_verdict_text((enum posthorn_verdict)i)) > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
