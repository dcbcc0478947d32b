#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>

#include "base/random.h"
#include "core/id.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

enum { THREADS = 4, TAKES = 20000, ROUNDS = 10000 };

/* 2026-11-24T20:49:00.123Z, counter 0x0ABC. */
static const struct id EXAMPLE = {.key = UINT64_C(1795553340123) << 12 | 0xABC,
                                  .tail = UINT64_C(0x123456789ABCDEF)};

static void test_format(void **state) {
    (void)state;
    static const char *const prefixes[] = {"evt_", "sub_", "dlv_", "att_", "sec_", "rpl_", "key_"};
    for (size_t kind = 0; kind < COUNT(prefixes); kind++) {
        char text[ID_TEXT_SIZE];
        struct id back = {0};
        id_format((enum id_kind)kind, EXAMPLE, text);
        assert_int_equal(strlen(text), 30);
        assert_memory_equal(text, prefixes[kind], 4);
        assert_int_equal(strspn(text + 4, "0123456789ABCDEFGHJKMNPQRSTVWXYZ"), 26);
        assert_int_equal(id_parse((enum id_kind)kind, slice_of(text), &back), 0);
        assert_true(id_eq(back, EXAMPLE));
        assert_true(id_ms(back) == 1795553340123);
    }
}

static unsigned digit(char c) {
    static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    return (unsigned)(strchr(alphabet, c) - alphabet);
}

/* The 128 bits are a UUIDv7 as RFC 9562 §5.7 lays it out. */
static void test_layout(void **state) {
    (void)state;
    char text[ID_TEXT_SIZE];
    unsigned __int128 v = 0;
    id_format(ID_EVENT, EXAMPLE, text);
    for (const char *c = text + 4; *c; c++)
        v = v << 5 | digit(*c);
    assert_true((uint64_t)(v >> 80) == 1795553340123);
    assert_int_equal((unsigned)(v >> 76) & 0xF, 7);
    assert_int_equal((unsigned)(v >> 64) & 0xFFF, 0xABC);
    assert_int_equal((unsigned)(v >> 62) & 3, 2);
    assert_true(((uint64_t)v & ID_TAIL_MAX) == EXAMPLE.tail);
}

static void test_extremes(void **state) {
    (void)state;
    static const struct id ids[] = {{0, 0}, {ID_KEY_MAX, ID_TAIL_MAX}, {ID_KEY_MAX, 0}, {0, ID_TAIL_MAX}};
    for (size_t i = 0; i < COUNT(ids); i++) {
        char text[ID_TEXT_SIZE];
        struct id back = EXAMPLE;
        id_format(ID_SUBSCRIPTION, ids[i], text);
        assert_int_equal(id_parse(ID_SUBSCRIPTION, slice_of(text), &back), 0);
        assert_true(id_eq(back, ids[i]));
    }
}

static void test_texts_ascend_with_keys(void **state) {
    (void)state;
    char last[ID_TEXT_SIZE] = "";
    for (uint64_t key = 0xFFE; key < 0x1100; key++) {
        char text[ID_TEXT_SIZE];
        id_format(ID_EVENT, (struct id){.key = key, .tail = mix64(key) & ID_TAIL_MAX}, text);
        assert_true(strcmp(text, last) > 0);
        memcpy(last, text, sizeof text);
    }
}

static void test_lenient_digits(void **state) {
    (void)state;
    char text[ID_TEXT_SIZE];
    struct id back = {0};
    id_format(ID_EVENT, EXAMPLE, text);
    for (char *c = text + 4; *c; c++)
        *c = (char)(*c >= 'A' ? *c + 32 : *c);
    assert_int_equal(id_parse(ID_EVENT, slice_of(text), &back), 0);
    assert_true(id_eq(back, EXAMPLE));
    for (char *c = text + 4; *c; c++)
        *c = *c == '0' ? 'o' : *c == '1' ? 'l' : *c;
    back = (struct id){0};
    assert_int_equal(id_parse(ID_EVENT, slice_of(text), &back), 0);
    assert_true(id_eq(back, EXAMPLE));
}

static void test_refusals(void **state) {
    (void)state;
    char good[ID_TEXT_SIZE];
    struct id back = {.key = 7};
    id_format(ID_EVENT, EXAMPLE, good);
    struct slice s = slice_of(good);
    assert_int_equal(id_parse(ID_SUBSCRIPTION, s, &back), -EINVAL);
    assert_int_equal(id_parse(ID_EVENT, (struct slice){s.p, s.n - 1}, &back), -EINVAL);
    assert_int_equal(id_parse(ID_EVENT, (struct slice){s.p, s.n + 1}, &back), -EINVAL);
    assert_int_equal(id_parse(ID_EVENT, SLICE_NONE, &back), -EINVAL);
    static const struct {
        size_t at;
        char c;
    } changes[] = {
        {0, 'E'},
        {3, '-'},
        {4, '8'} /* past 128 bits */,
        {5, 'U'},
        {5, 'u'},
        {5, '-'},
        {5, '\0'},
        {5, ' '},
        {5, (char)0xC3},
        {14, '0'} /* the version */,
        {17, '0'} /* the variant */,
    };
    for (size_t i = 0; i < COUNT(changes); i++) {
        char bad[ID_TEXT_SIZE];
        memcpy(bad, good, sizeof bad);
        bad[changes[i].at] = changes[i].c;
        if (id_parse(ID_EVENT, (struct slice){bad, s.n}, &back) != -EINVAL)
            fail_msg("change %zu, %s, is accepted", i, bad);
    }
    assert_int_equal(back.key, 7);
}

static void test_keys_of_times(void **state) {
    (void)state;
    assert_true(id_key_at(0) == 0);
    assert_true(id_key_at(-5) == 0);
    assert_true(id_key_at(1) == 4096);
    assert_true(id_ms((struct id){.key = id_key_at(1795553340123)}) == 1795553340123);
}

static void test_source_ascends_whatever_the_clock_does(void **state) {
    (void)state;
    struct id_source s = {0};
    assert_true(id_source_take(&s, 1000, 1) == id_key_at(1000));
    assert_true(id_source_take(&s, 1000, 3) == id_key_at(1000) + 1);
    assert_true(id_source_take(&s, 1000, 1) == id_key_at(1000) + 4);
    assert_true(id_source_take(&s, 900, 1) == id_key_at(1000) + 5);
    assert_true(id_source_take(&s, 1001, 1) == id_key_at(1001));
    /* More than a millisecond holds run on into the next. */
    assert_true(id_source_take(&s, 2000, 5000) == id_key_at(2000));
    assert_true(id_source_take(&s, 2001, 1) == id_key_at(2000) + 5000);
    assert_true(id_source_take(&s, -1, 1) == id_key_at(2000) + 5001);
}

/* Whatever the clock says and however many are taken: no two slots hand out the same, each ascends. */
static void test_slots_have_keys_of_their_own(void **state) {
    (void)state;
    enum { SLOTS = 64, TAKEN = 200 };
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        struct id_source s = {0};
        id_source_set_slot(&s, slot, SLOTS);
        id_source_raise(&s, id_key_at(999) + slot * 7);
        uint64_t last = 0;
        for (unsigned i = 0; i < TAKEN; i++) {
            unsigned n = i % 5 + 1;
            uint64_t first = id_source_take(&s, 1000 + i % 3, n);
            assert_true(first > last && first % SLOTS == slot);
            last = first + (uint64_t)(n - 1) * id_source_step(&s);
            assert_true(id_source_take(&s, 0, 1) == last + SLOTS);
            last += SLOTS;
        }
    }
    struct id_source s = {0};
    id_source_set_slot(&s, 5, SLOTS);
    assert_true(id_source_take(&s, 1000, 1) == id_key_at(1000) + 5);
    assert_true(id_source_take(&s, 1000, 2) == id_key_at(1000) + 69);
    assert_true(id_source_take(&s, 1000, 1) == id_key_at(1000) + 197);
}

static void test_source_raised(void **state) {
    (void)state;
    struct id_source s = {0};
    id_source_raise(&s, 500);
    id_source_raise(&s, 400);
    assert_true(id_source_take(&s, 0, 1) == 501);
}

struct taker {
    struct id_source *source;
    uint64_t *keys;
    pthread_t thread;
};

static void *take_keys(void *arg) {
    struct taker *t = arg;
    for (int i = 0; i < TAKES; i++)
        t->keys[i] = id_source_take(t->source, 1000 + i / 100, 1);
    return NULL;
}

static int compare_keys(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void test_threads_get_keys_of_their_own(void **state) {
    (void)state;
    static uint64_t keys[THREADS * TAKES];
    struct id_source s = {0};
    struct taker takers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        takers[i] = (struct taker){.source = &s, .keys = keys + i * TAKES};
        assert_int_equal(pthread_create(&takers[i].thread, NULL, take_keys, &takers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(takers[i].thread, NULL);
    for (int i = 0; i < THREADS; i++)
        for (int k = 1; k < TAKES; k++)
            assert_true(takers[i].keys[k] > takers[i].keys[k - 1]);
    qsort(keys, COUNT(keys), sizeof keys[0], compare_keys);
    for (size_t i = 1; i < COUNT(keys); i++)
        assert_true(keys[i] != keys[i - 1]);
}

static void test_delivery_ids(void **state) {
    (void)state;
    struct rng rng;
    rng_seed(&rng, 1);
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t key = rng_next(&rng) & ID_KEY_MAX, back_key = 0;
        uint32_t no = (uint32_t)rng_next(&rng) | (i % 2 ? 1 : 0x80000000), back_no = 0;
        struct id id = id_of_delivery(key, no), again = id_of_delivery(key, no);
        assert_true(id_eq(id, again));
        assert_true(id.tail <= ID_TAIL_MAX);
        assert_int_equal(id_delivery_parts(id, &back_key, &back_no), 0);
        assert_true(back_key == key && back_no == no);
        assert_false(id_eq(id, id_of_delivery(key, no == 1 ? 2 : no - 1)));
        assert_false(id_eq(id, id_of_delivery(key ^ 1, no)));
    }
}

static void test_delivery_id_survives_its_text(void **state) {
    (void)state;
    static const uint32_t numbers[] = {1, 2, 65536, UINT32_MAX};
    for (size_t i = 0; i < COUNT(numbers); i++) {
        char text[ID_TEXT_SIZE];
        struct id back;
        uint64_t key;
        uint32_t no;
        id_format(ID_DELIVERY, id_of_delivery(EXAMPLE.key, numbers[i]), text);
        assert_int_equal(id_parse(ID_DELIVERY, slice_of(text), &back), 0);
        assert_int_equal(id_delivery_parts(back, &key, &no), 0);
        assert_true(key == EXAMPLE.key && no == numbers[i]);
    }
}

static void test_guessed_delivery_ids_do_not_parse(void **state) {
    (void)state;
    struct rng rng;
    uint64_t key = 7;
    uint32_t no = 7;
    rng_seed(&rng, 1);
    for (int i = 0; i < ROUNDS; i++) {
        struct id id = {.key = rng_next(&rng) & ID_KEY_MAX, .tail = rng_next(&rng) & ID_TAIL_MAX};
        assert_int_equal(id_delivery_parts(id, &key, &no), -EINVAL);
    }
    for (int bit = 0; bit < 62; bit++) {
        struct id id = id_of_delivery(EXAMPLE.key, 42);
        id.tail ^= UINT64_C(1) << bit;
        assert_int_equal(id_delivery_parts(id, &key, &no), -EINVAL);
    }
    assert_true(key == 7 && no == 7);
}

static void test_attempt_ids(void **state) {
    (void)state;
    struct id first = id_of_attempt(EXAMPLE.key, 42, 1, 1795553340123);
    assert_true(id_ms(first) == 1795553340123);
    assert_true(first.key <= ID_KEY_MAX && first.tail <= ID_TAIL_MAX);
    assert_true(id_eq(first, id_of_attempt(EXAMPLE.key, 42, 1, 1795553340123)));
    assert_false(id_eq(first, id_of_attempt(EXAMPLE.key, 42, 2, 1795553340123)));
    assert_false(id_eq(first, id_of_attempt(EXAMPLE.key, 43, 1, 1795553340123)));
    assert_false(id_eq(first, id_of_attempt(EXAMPLE.key + 1, 42, 1, 1795553340123)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_texts_ascend_with_keys),
        cmocka_unit_test(test_lenient_digits),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_keys_of_times),
        cmocka_unit_test(test_source_ascends_whatever_the_clock_does),
        cmocka_unit_test(test_slots_have_keys_of_their_own),
        cmocka_unit_test(test_source_raised),
        cmocka_unit_test(test_threads_get_keys_of_their_own),
        cmocka_unit_test(test_delivery_ids),
        cmocka_unit_test(test_delivery_id_survives_its_text),
        cmocka_unit_test(test_guessed_delivery_ids_do_not_parse),
        cmocka_unit_test(test_attempt_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
