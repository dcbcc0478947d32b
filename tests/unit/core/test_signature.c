#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>
#include <openssl/err.h>

#include "core/signature.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

enum { TOLERANCE_SECONDS = 300, VECTORS_MAX = 16, LINE_MAX_BYTES = 1024 };

/* One line of tests/cases/signatures.tsv. */
struct vector {
    char line[LINE_MAX_BYTES];
    struct slice scheme, secret, public, id, payload, signature;
    int64_t timestamp;
};

static struct vector vectors[VECTORS_MAX];
static size_t vectors_n;

static struct slice next_field(char **at) {
    char *field = strsep(at, "\t\n");
    assert_non_null(field);
    return slice_of(field);
}

/* The build tells where the cases are; by hand, tests run in the project's root folder. */
static void read_vectors(void) {
    const char *folder = getenv("POSTHORN_TEST_CASES");
    char path[512];
    snprintf(path, sizeof path, "%s/signatures.tsv", folder ? folder : "tests/cases");
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    while (vectors_n < VECTORS_MAX) {
        struct vector *v = &vectors[vectors_n];
        if (!fgets(v->line, sizeof v->line, f))
            break;
        if (v->line[0] == '#')
            continue;
        char *at = v->line;
        v->scheme = next_field(&at);
        v->secret = next_field(&at);
        v->public = next_field(&at);
        v->id = next_field(&at);
        v->timestamp = strtoll(next_field(&at).p, NULL, 10);
        v->payload = next_field(&at);
        v->signature = next_field(&at);
        vectors_n++;
    }
    fclose(f);
    assert_true(vectors_n >= 2);
}

static int setup(void **state) {
    if (vectors_n == 0)
        read_vectors();
    *state = signer_new();
    return *state ? 0 : -1;
}

static int teardown(void **state) {
    /* Whatever went wrong, the thread's error queue is not left dirty for TLS. */
    assert_int_equal(ERR_peek_error(), 0);
    signer_free(*state);
    return 0;
}

static struct signing_key key_of(struct slice text) {
    struct signing_key key = {.size = 7};
    assert_int_equal(signing_key_parse(text, &key), 0);
    return key;
}

static bool verify(struct signer *s, const struct signing_key *key, const struct vector *v,
                   struct slice header) {
    return signer_verify(s, key, v->id, v->timestamp, v->payload, header, v->timestamp, TOLERANCE_SECONDS);
}

static void test_vectors_sign(void **state) {
    for (size_t i = 0; i < vectors_n; i++) {
        const struct vector *v = &vectors[i];
        struct signing_key key = key_of(v->secret);
        assert_int_equal(key.scheme, slice_eq(v->scheme, SLICE_LIT("hmac")) ? SIGNING_HMAC : SIGNING_ED25519);
        char signature[SIGNATURE_TEXT_SIZE];
        for (int again = 0; again < 3; again++) {
            assert_int_equal(signer_sign(*state, &key, v->id, v->timestamp, v->payload, signature), 0);
            assert_true(slice_eq(slice_of(signature), v->signature));
        }
        assert_true(verify(*state, &key, v, v->signature));
    }
}

static void test_vectors_public_halves(void **state) {
    for (size_t i = 0; i < vectors_n; i++) {
        const struct vector *v = &vectors[i];
        if (slice_eq(v->public, SLICE_LIT("-")))
            continue;
        struct signing_key key = key_of(v->secret), public = key_of(v->public);
        char text[SECRET_TEXT_SIZE], signature[SIGNATURE_TEXT_SIZE];
        signing_key_public_text(&key, text);
        assert_true(slice_eq(slice_of(text), v->public));
        signing_key_public_text(&public, text);
        assert_true(slice_eq(slice_of(text), v->public));
        assert_true(verify(*state, &public, v, v->signature));
        assert_int_equal(signer_sign(*state, &public, v->id, v->timestamp, v->payload, signature), -EINVAL);
    }
}

static void test_secrets_read_back(void **state) {
    (void)state;
    for (size_t i = 0; i < vectors_n; i++) {
        char text[SECRET_TEXT_SIZE];
        struct signing_key key = key_of(vectors[i].secret);
        signing_key_text(&key, text);
        assert_true(slice_eq(slice_of(text), vectors[i].secret));
    }
}

static void test_refused_headers(void **state) {
    for (size_t i = 0; i < vectors_n; i++) {
        const struct vector *v = &vectors[i];
        struct signing_key key = key_of(v->secret);
        const char *comma = memchr(v->signature.p, ',', v->signature.n);
        size_t label_n = (size_t)(comma - v->signature.p) + 1;
        char other[SIGNATURE_TEXT_SIZE + 8];

        assert_false(verify(*state, &key, v, SLICE_NONE));
        assert_false(verify(*state, &key, v, SLICE_LIT(" ")));
        assert_false(verify(*state, &key, v, SLICE_LIT("v1,")));
        assert_false(verify(*state, &key, v, SLICE_LIT("v1a,")));
        assert_false(verify(*state, &key, v, SLICE_LIT("v1")));
        for (size_t n = 0; n < v->signature.n; n++)
            assert_false(verify(*state, &key, v, (struct slice){v->signature.p, n}));
        /* Without its label, and with another one. */
        assert_false(verify(*state, &key, v, (struct slice){comma + 1, v->signature.n - label_n}));
        static const char *const labels[] = {"v2,", "v1a,", "v1,", "V1,", "v1A,", "v,", "v1b,"};
        for (size_t l = 0; l < COUNT(labels); l++) {
            if (slice_eq(slice_of(labels[l]), (struct slice){v->signature.p, label_n}))
                continue;
            snprintf(other, sizeof other, "%s%s", labels[l], comma + 1);
            assert_false(verify(*state, &key, v, slice_of(other)));
        }
        /* More after it, and any other character. */
        snprintf(other, sizeof other, "%.*sA", SLICE_ARG(v->signature));
        assert_false(verify(*state, &key, v, slice_of(other)));
        snprintf(other, sizeof other, "%.*s,", SLICE_ARG(v->signature));
        assert_false(verify(*state, &key, v, slice_of(other)));
        for (size_t at = 0; at < v->signature.n; at++) {
            snprintf(other, sizeof other, "%.*s", SLICE_ARG(v->signature));
            other[at] = other[at] == 'A' ? 'B' : 'A';
            assert_false(verify(*state, &key, v, slice_of(other)));
        }
    }
}

static void test_refused_contents(void **state) {
    for (size_t i = 0; i < vectors_n; i++) {
        const struct vector *v = &vectors[i];
        struct signing_key key = key_of(v->secret);
        struct vector other = *v;
        other.id = SLICE_LIT("msg_other");
        assert_false(verify(*state, &key, &other, v->signature));
        other = *v;
        other.timestamp++;
        assert_false(verify(*state, &key, &other, v->signature));
        other = *v;
        other.payload.n--;
        assert_false(verify(*state, &key, &other, v->signature));
        other.payload = SLICE_NONE;
        assert_false(verify(*state, &key, &other, v->signature));
        struct signing_key another;
        assert_int_equal(signing_key_generate(key.scheme, &another), 0);
        assert_false(verify(*state, &another, v, v->signature));
    }
}

static void test_tolerance(void **state) {
    for (size_t i = 0; i < vectors_n; i++) {
        const struct vector *v = &vectors[i];
        struct signing_key key = key_of(v->secret);
        static const struct {
            int64_t off;
            bool good;
        } cases[] = {{0, true}, {300, true}, {-300, true}, {301, false}, {-301, false}};
        for (size_t k = 0; k < COUNT(cases); k++)
            assert_int_equal(signer_verify(*state, &key, v->id, v->timestamp, v->payload, v->signature,
                                           v->timestamp + cases[k].off, TOLERANCE_SECONDS),
                             cases[k].good);
        assert_false(signer_verify(*state, &key, v->id, INT64_MIN, v->payload, v->signature, v->timestamp,
                                   TOLERANCE_SECONDS));
        assert_false(signer_verify(*state, &key, v->id, v->timestamp, v->payload, v->signature, INT64_MIN,
                                   TOLERANCE_SECONDS));
    }
}

static void test_one_of_many(void **state) {
    for (size_t i = 0; i < vectors_n; i++) {
        const struct vector *v = &vectors[i];
        struct signing_key key = key_of(v->secret);
        _cleanup_buf_ struct buf header = {0};
        buf_add_str(&header, "v2,abc v1,AAAA v1a,AAAA  v1a, ");
        buf_add_slice(&header, v->signature);
        assert_true(verify(*state, &key, v, buf_slice(&header)));
        buf_add_str(&header, " v1,AAAA ");
        assert_true(verify(*state, &key, v, buf_slice(&header)));
        /* A header that goes on for ever is not read for ever. */
        buf_reset(&header);
        for (int k = 0; k < 100; k++)
            buf_add_str(&header, "v1,x ");
        buf_add_slice(&header, v->signature);
        assert_false(verify(*state, &key, v, buf_slice(&header)));
    }
}

static void test_generated_keys(void **state) {
    static const enum signing_scheme schemes[] = {SIGNING_HMAC, SIGNING_ED25519};
    for (size_t i = 0; i < COUNT(schemes); i++) {
        struct signing_key key, other;
        char text[SECRET_TEXT_SIZE], signature[SIGNATURE_TEXT_SIZE];
        assert_int_equal(signing_key_generate(schemes[i], &key), 0);
        assert_int_equal(signing_key_generate(schemes[i], &other), 0);
        assert_int_equal(key.scheme, schemes[i]);
        assert_int_equal(key.expires_at, 0);
        assert_memory_not_equal(key.bytes, other.bytes, SECRET_BYTES_MADE);
        signing_key_text(&key, text);
        struct signing_key back = key_of(slice_of(text));
        assert_int_equal(back.size, key.size);
        assert_memory_equal(back.bytes, key.bytes, key.size);
        assert_int_equal(signer_sign(*state, &key, SLICE_LIT("dlv_1"), 1, SLICE_NONE, signature), 0);
        assert_true(signer_verify(*state, &back, SLICE_LIT("dlv_1"), 1, SLICE_LIT(""), slice_of(signature), 1,
                                  TOLERANCE_SECONDS));
        assert_false(signer_verify(*state, &other, SLICE_LIT("dlv_1"), 1, SLICE_LIT(""), slice_of(signature),
                                   1, TOLERANCE_SECONDS));
    }
}

/* Keys take turns on one signer: nothing of one is left when another signs. */
static void test_keys_take_turns(void **state) {
    struct signing_key keys[4];
    char first[COUNT(keys)][SIGNATURE_TEXT_SIZE];
    for (size_t i = 0; i < COUNT(keys); i++) {
        assert_int_equal(signing_key_generate(i % 2 ? SIGNING_ED25519 : SIGNING_HMAC, &keys[i]), 0);
        assert_int_equal(signer_sign(*state, &keys[i], SLICE_LIT("a"), 1, SLICE_LIT("b"), first[i]), 0);
    }
    for (size_t i = 0; i < 3 * COUNT(keys); i++) {
        char signature[SIGNATURE_TEXT_SIZE];
        assert_int_equal(
            signer_sign(*state, &keys[i % COUNT(keys)], SLICE_LIT("a"), 1, SLICE_LIT("b"), signature), 0);
        assert_string_equal(signature, first[i % COUNT(keys)]);
    }
}

static void test_a_large_body(void **state) {
    _cleanup_buf_ struct buf body = {0};
    for (int i = 0; i < 300000; i++)
        buf_add_str(&body, "0123456789");
    for (int scheme = SIGNING_HMAC; scheme <= SIGNING_ED25519; scheme++) {
        struct signing_key key;
        char signature[SIGNATURE_TEXT_SIZE];
        assert_int_equal(signing_key_generate((enum signing_scheme)scheme, &key), 0);
        assert_int_equal(signer_sign(*state, &key, SLICE_LIT("a"), 1, buf_slice(&body), signature), 0);
        assert_true(
            signer_verify(*state, &key, SLICE_LIT("a"), 1, buf_slice(&body), slice_of(signature), 1, 0));
        body.p[body.n - 1] ^= 1;
        assert_false(
            signer_verify(*state, &key, SLICE_LIT("a"), 1, buf_slice(&body), slice_of(signature), 1, 0));
    }
}

static void test_secret_lengths(void **state) {
    (void)state;
    for (size_t n = 0; n <= 80; n++) {
        static const char as[] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
                                 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        char text[160];
        struct signing_key key = {.size = 7};
        /* Base64 of n zero bytes. */
        snprintf(text, sizeof text, "whsec_%.*s%s", (int)(n / 3 * 4 + (n % 3 ? n % 3 + 1 : 0)), as,
                 n % 3 == 1   ? "=="
                 : n % 3 == 2 ? "="
                              : "");
        bool good = n >= SECRET_BYTES_MIN && n <= SECRET_BYTES_MAX;
        assert_int_equal(signing_key_parse(slice_of(text), &key), good ? 0 : -EINVAL);
        assert_int_equal(key.size, good ? n : 7);
    }
}

static void test_refused_secrets(void **state) {
    (void)state;
    static const struct slice cases[] = {
        {"", 0},
        {NULL, 0},
        {"whsec_", 6},
        {"whsec_!!!!", 10},
        {"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", 32},      /* no prefix */
        {"whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", 37}, /* too short for its kind */
        {"whpk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", 37},
        {"WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", 38},
        {"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", 37}, /* cut short */
        {"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", 39},
        {"whsec_ MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", 39},
        {"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw    ", 42},
        {"whsec_    MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", 42},
        {"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2La\0aSw", 38},
        {"whsec_MfKQ9r8GKYqr-wjUPD8ILPZIo2LaLaSw", 38}, /* the URL's alphabet */
        {"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAA==AAAA", 46},
        {"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAB==", 42}, /* stray bits */
        {"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwA===", 42},
        {"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw====", 42},
        /* A seed and another's public key. */
        {"whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvw==", 93},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct signing_key key = {.size = 7};
        if (signing_key_parse(cases[i], &key) != -EINVAL)
            fail_msg("case %zu is accepted", i);
        assert_int_equal(key.size, 7);
    }
    signer_free(NULL);
}

/* What was forgotten is set up again by the next signature. */
static void test_signing_goes_on_after_forgetting(void **state) {
    struct signer *s = *state;
    static const enum signing_scheme schemes[] = {SIGNING_HMAC, SIGNING_ED25519};
    signer_forget(s);
    for (size_t i = 0; i < 2; i++) {
        struct signing_key key;
        char before[SIGNATURE_TEXT_SIZE], after[SIGNATURE_TEXT_SIZE];
        assert_int_equal(signing_key_generate(schemes[i], &key), 0);
        assert_int_equal(signer_sign(s, &key, SLICE_LIT("id"), 1, SLICE_LIT("body"), before), 0);
        signer_forget(s);
        signer_forget(s);
        assert_int_equal(signer_sign(s, &key, SLICE_LIT("id"), 1, SLICE_LIT("body"), after), 0);
        assert_string_equal(before, after);
    }
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_vectors_sign),
        TEST(test_signing_goes_on_after_forgetting),
        TEST(test_vectors_public_halves),
        TEST(test_secrets_read_back),
        TEST(test_refused_headers),
        TEST(test_refused_contents),
        TEST(test_tolerance),
        TEST(test_one_of_many),
        TEST(test_generated_keys),
        TEST(test_keys_take_turns),
        TEST(test_a_large_body),
        TEST(test_secret_lengths),
        TEST(test_refused_secrets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
