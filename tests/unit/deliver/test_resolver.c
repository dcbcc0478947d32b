#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>

#include "base/clock.h"
#include "base/loop.h"
#include "deliver/resolver.h"
#include "dns_stub.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* ---- what every test stands on ---- */

enum { LIMIT_US = 60 * 1000000, SHORT_TRY_MS = 100 };

static struct zone_entry zone[] = {
    {.name = "v4.test", .v4 = {"192.0.2.1"}, .ttl = 20},
    {.name = "v6.test", .v6 = {"2001:db8::1"}, .ttl = 20},
    {.name = "both.test", .v4 = {"192.0.2.1", "192.0.2.2"}, .v6 = {"2001:db8::1"}, .ttl = 20},
    {.name = "mixed.test", .v4 = {"8.8.8.8", "127.0.0.1"}, .v6 = {"::ffff:10.0.0.1"}, .ttl = 20},
    {.name = "alias.test", .v4 = {"10.0.0.7"}, .ttl = 20, .cname = "inside.test", .cname_ttl = 5},
    {.name = "many.test",
     .v4 = {"192.0.2.1",  "192.0.2.2",  "192.0.2.3",  "192.0.2.4",  "192.0.2.5",  "192.0.2.6",  "192.0.2.7",
            "192.0.2.8",  "192.0.2.9",  "192.0.2.10", "192.0.2.11", "192.0.2.12", "192.0.2.13", "192.0.2.14",
            "192.0.2.15", "192.0.2.16", "192.0.2.17", "192.0.2.18", "192.0.2.19", "192.0.2.20"},
     .v6 = {"2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "2001:db8::5", "2001:db8::6",
            "2001:db8::7", "2001:db8::8", "2001:db8::9", "2001:db8::10", "2001:db8::11", "2001:db8::12",
            "2001:db8::13"},
     .ttl = 20},
    {.name = "long.test", .v4 = {"192.0.2.1"}, .ttl = 86400},
    {.name = "zero.test", .v4 = {"192.0.2.1"}, .ttl = 0},
    {.name = "nodata.test"},
    {.name = "missing.test", .rcode = RCODE_NXDOMAIN},
    {.name = "broken.test", .rcode = RCODE_SERVFAIL},
    {.name = "refused.test", .rcode = RCODE_REFUSED},
    {.name = "lossy.test", .v4 = {"192.0.2.1"}, .ttl = 20},
    {.name = "silent.test", .silent = -1},
    {.name = "large.test", .v4 = {"192.0.2.1"}, .ttl = 20, .truncated = true},
};

static struct dns_stub stub;
static int64_t clock_offset_us;

static int64_t test_clock(void) {
    return clock_mono_us() + clock_offset_us;
}

struct fixture {
    struct loop *loop;
    struct resolver *resolver;
};

struct asker {
    struct resolver_query query; /* first: its fn gets back here */
    int calls, error;
    struct resolver_addresses addresses;
    struct resolver_query *cancels;
    struct fixture *looks_up_in; /* the callback looks the same name up again */
    const char *name;
    int again;
};

static int64_t in_us(int64_t us) {
    return clock_mono_us() + us;
}

static void answered(struct resolver_query *q, int error, const struct resolver_addresses *addresses) {
    struct asker *a = (struct asker *)q;
    a->calls++;
    a->error = error;
    assert_int_equal(error == 0, addresses != NULL);
    if (addresses)
        a->addresses = *addresses;
    if (a->cancels)
        resolver_cancel(a->cancels);
    if (a->looks_up_in)
        a->again =
            resolver_lookup(a->looks_up_in->resolver, q, slice_of(a->name), in_us(LIMIT_US), &a->addresses);
}

static int setup_with(void **state, int try_ms) {
    struct fixture *f = calloc(1, sizeof *f);
    clock_offset_us = 0;
    for (size_t i = 0; i < COUNT(zone); i++)
        atomic_store(&zone[i].asked, 0);
    struct resolver_options options = {.name_servers = stub.address, .try_ms = try_ms, .now_us = test_clock};
    assert_non_null(f);
    assert_int_equal(loop_new(&f->loop), 0);
    assert_int_equal(resolver_new(f->loop, &options, &f->resolver), 0);
    *state = f;
    return 0;
}

static int setup(void **state) {
    return setup_with(state, LIMIT_US / 1000);
}

static int setup_impatient(void **state) {
    return setup_with(state, SHORT_TRY_MS);
}

static int teardown(void **state) {
    struct fixture *f = *state;
    resolver_free(f->resolver);
    loop_free(f->loop);
    free(f);
    return 0;
}

static int ask(struct fixture *f, struct asker *a, const char *name, int64_t deadline_us) {
    a->query.fn = answered;
    return resolver_lookup(f->resolver, &a->query, slice_of(name), deadline_us, &a->addresses);
}

static void wait_for(struct fixture *f, const struct asker *a) {
    int64_t until = in_us(LIMIT_US);
    while (a->calls == 0 && clock_mono_us() < until)
        loop_step(f->loop, 100);
    assert_int_equal(a->calls, 1);
}

/* Asks and waits; the error or 0. */
static int resolve(struct fixture *f, struct asker *a, const char *name) {
    *a = (struct asker){0};
    int r = ask(f, a, name, in_us(LIMIT_US));
    if (r != 0)
        return r < 0 ? r : 0;
    wait_for(f, a);
    return a->error;
}

static bool holds(const struct resolver_addresses *all, const char *text) {
    for (size_t i = 0; i < all->n; i++) {
        char got[INET6_ADDRSTRLEN];
        struct sockaddr_in6 in6;
        struct sockaddr_in in;
        memcpy(&in6, &all->a[i], sizeof in6);
        memcpy(&in, &all->a[i], sizeof in);
        bool is_v4 = in.sin_family == AF_INET;
        assert_true(is_v4 || in6.sin6_family == AF_INET6);
        assert_int_equal(is_v4 ? in.sin_port : in6.sin6_port, 0);
        assert_non_null(is_v4 ? inet_ntop(AF_INET, &in.sin_addr, got, sizeof got)
                              : inet_ntop(AF_INET6, &in6.sin6_addr, got, sizeof got));
        if (strcmp(got, text) == 0)
            return true;
    }
    return false;
}

static struct zone_entry *entry(const char *name) {
    struct zone_entry *z = zone_find(&stub, name);
    assert_non_null(z);
    return z;
}

static int times_asked(const char *name) {
    return atomic_load(&entry(name)->asked);
}

/* ---- answers ---- */

static void test_families(void **state) {
    struct asker a;
    assert_int_equal(resolve(*state, &a, "v4.test"), 0);
    assert_int_equal(a.addresses.n, 1);
    assert_true(holds(&a.addresses, "192.0.2.1"));
    assert_int_equal(resolve(*state, &a, "v6.test"), 0);
    assert_int_equal(a.addresses.n, 1);
    assert_true(holds(&a.addresses, "2001:db8::1"));
    assert_int_equal(resolve(*state, &a, "both.test"), 0);
    assert_int_equal(a.addresses.n, 3);
    assert_true(holds(&a.addresses, "192.0.2.1") && holds(&a.addresses, "192.0.2.2"));
    assert_true(holds(&a.addresses, "2001:db8::1"));
    assert_int_equal(a.addresses.a[2].ss_family, AF_INET6); /* last */
}

/* None is hidden from the guard; a mapped address comes out as what it is. */
static void test_mixed(void **state) {
    struct asker a;
    assert_int_equal(resolve(*state, &a, "mixed.test"), 0);
    assert_int_equal(a.addresses.n, 3);
    assert_true(holds(&a.addresses, "8.8.8.8") && holds(&a.addresses, "127.0.0.1"));
    assert_true(holds(&a.addresses, "10.0.0.1"));
}

static void test_cname(void **state) {
    struct asker a;
    assert_int_equal(resolve(*state, &a, "alias.test"), 0);
    assert_int_equal(a.addresses.n, 1);
    assert_true(holds(&a.addresses, "10.0.0.7"));
}

/* Too large for a datagram: asked again over TCP. */
static void test_truncated(void **state) {
    struct asker a;
    assert_int_equal(resolve(*state, &a, "large.test"), 0);
    assert_int_equal(a.addresses.n, 1);
    assert_int_equal(times_asked("large.test"), 2);
    assert_int_equal(resolve(*state, &a, "v4.test"), 0);
}

static void test_addresses_are_bounded(void **state) {
    struct asker a;
    assert_int_equal(resolve(*state, &a, "many.test"), 0);
    assert_int_equal(a.addresses.n, RESOLVER_ADDRESSES_MAX);
    assert_false(a.addresses.whole); /* the last one is not among them */
    assert_int_equal(resolve(*state, &a, "both.test"), 0);
    assert_true(a.addresses.whole);
}

static void test_failures(void **state) {
    struct asker a;
    assert_int_equal(resolve(*state, &a, "missing.test"), -ENOENT);
    assert_int_equal(resolve(*state, &a, "nodata.test"), -ENOENT);
    assert_int_equal(resolve(*state, &a, "unknown.test"), -ENOENT);
    assert_int_equal(resolve(*state, &a, "broken.test"), -EIO);
    assert_int_equal(resolve(*state, &a, "refused.test"), -EIO);
}

static void test_hosts_file_answers_at_once(void **state) {
    struct asker a = {0};
    assert_int_equal(ask(*state, &a, "localhost", in_us(LIMIT_US)), 1);
    assert_true(holds(&a.addresses, "127.0.0.1") || holds(&a.addresses, "::1"));
    assert_int_equal(ask(*state, &a, "localhost", in_us(LIMIT_US)), 1);
    assert_int_equal(a.calls, 0);
}

static void test_not_a_name(void **state) {
    struct fixture *f = *state;
    struct asker a = {.query.fn = answered};
    char longest[255];
    memset(longest, 'a', sizeof longest);
    struct slice bad[] = {SLICE_LIT(""), SLICE_LIT("v4.test\0x"), {longest, 254}};
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(resolver_lookup(f->resolver, &a.query, bad[i], in_us(LIMIT_US), &a.addresses),
                         -EINVAL);
    resolver_cancel(&a.query);
}

static void test_malformed_name_servers(void **state) {
    struct fixture *f = *state;
    struct resolver *r = NULL;
    struct resolver_options options = {.name_servers = "not an address"};
    assert_int_equal(resolver_new(f->loop, &options, &r), -EINVAL);
    assert_null(r);
    resolver_free(r);
}

/* ---- deadlines and lost questions ---- */

static void test_deadline(void **state) {
    struct fixture *f = *state;
    struct asker a = {0}, patient = {0};
    assert_int_equal(ask(f, &patient, "silent.test", in_us(LIMIT_US)), 0);
    assert_int_equal(ask(f, &a, "silent.test", in_us(20000)), 0);
    wait_for(f, &a);
    assert_int_equal(a.error, -ETIMEDOUT);
    assert_int_equal(patient.calls, 0);
    resolver_cancel(&patient.query);
}

static void test_deadline_in_the_past(void **state) {
    struct fixture *f = *state;
    struct asker a = {0};
    assert_int_equal(ask(f, &a, "silent.test", in_us(-1)), 0);
    assert_int_equal(a.calls, 0);
    wait_for(f, &a);
    assert_int_equal(a.error, -ETIMEDOUT);
}

static void test_lost_questions_are_asked_again(void **state) {
    struct asker a;
    atomic_store(&entry("lossy.test")->silent, 2); /* A and AAAA of the first try */
    assert_int_equal(resolve(*state, &a, "lossy.test"), 0);
    assert_true(holds(&a.addresses, "192.0.2.1"));
    assert_in_range(times_asked("lossy.test"), 2, RESOLVER_TRIES);
}

static void test_silent_name_server(void **state) {
    struct asker a;
    assert_int_equal(resolve(*state, &a, "silent.test"), -ETIMEDOUT);
    assert_int_equal(times_asked("silent.test"), RESOLVER_TRIES);
    /* Remembered as other failures are. */
    assert_int_equal(ask(*state, &a, "silent.test", in_us(LIMIT_US)), -ETIMEDOUT);
}

static void test_free_with_waiters(void **state) {
    struct fixture *f = *state;
    struct asker a = {0}, b = {0};
    assert_int_equal(ask(f, &a, "silent.test", in_us(LIMIT_US)), 0);
    assert_int_equal(ask(f, &b, "silent.test", in_us(LIMIT_US)), 0);
    resolver_free(f->resolver);
    f->resolver = NULL;
    loop_step(f->loop, 0);
    assert_int_equal(a.calls + b.calls, 0);
    resolver_cancel(&a.query);
}

/* ---- the cache ---- */

static void test_ttl(void **state) {
    struct fixture *f = *state;
    static const struct {
        const char *name;
        int seconds;
    } cases[] = {
        {"v4.test", 20},
        {"alias.test", 5},
        {"long.test", 30},
        {"zero.test", 1},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct asker a;
        clock_offset_us = 0;
        assert_int_equal(resolve(f, &a, cases[i].name), 0);
        assert_int_equal(times_asked(cases[i].name), 1);
        /* Real time goes on beside the offset, so the near edge leaves room. */
        clock_offset_us = (cases[i].seconds - 1) * INT64_C(1000000);
        if (cases[i].seconds > 1) {
            assert_int_equal(ask(f, &a, cases[i].name, in_us(LIMIT_US)), 1);
            assert_int_equal(a.addresses.n, 1);
        }
        clock_offset_us = cases[i].seconds * INT64_C(1000000);
        assert_int_equal(resolve(f, &a, cases[i].name), 0);
        assert_int_equal(a.calls, 1);
        assert_int_equal(times_asked(cases[i].name), 2);
    }
}

static void test_failures_are_remembered_shortly(void **state) {
    struct fixture *f = *state;
    struct asker a;
    assert_int_equal(resolve(f, &a, "missing.test"), -ENOENT);
    clock_offset_us = -2 * INT64_C(1000000); /* before it was found: still fresh, however slow this test */
    assert_int_equal(ask(f, &a, "missing.test", in_us(LIMIT_US)), -ENOENT);
    assert_int_equal(times_asked("missing.test"), 1);
    clock_offset_us = RESOLVER_FAILURE_TTL_US;
    assert_int_equal(resolve(f, &a, "missing.test"), -ENOENT);
    assert_int_equal(a.calls, 1);
    assert_int_equal(times_asked("missing.test"), 2);
}

static void test_cache_is_bounded(void **state) {
    struct fixture *f = *state;
    struct asker a;
    assert_int_equal(resolve(f, &a, "v4.test"), 0);
    for (unsigned i = 0; i < RESOLVER_NAMES_MAX; i++) {
        /* The library answers these itself (RFC 7686), so that thousands need no server. */
        char name[32];
        snprintf(name, sizeof name, "n%u.onion", i);
        assert_int_equal(ask(f, &a, name, in_us(LIMIT_US)), -ENOENT);
    }
    assert_int_equal(resolve(f, &a, "v4.test"), 0);
    assert_int_equal(times_asked("v4.test"), 2);
}

static void test_names_in_flight_are_bounded(void **state) {
    struct fixture *f = *state;
    static struct asker askers[RESOLVER_NAMES_MAX + 1];
    char name[32];
    memset(askers, 0, sizeof askers);
    for (unsigned i = 0; i < RESOLVER_NAMES_MAX; i++) {
        snprintf(name, sizeof name, "n%u.test", i);
        assert_int_equal(ask(f, &askers[i], name, in_us(LIMIT_US)), 0);
    }
    assert_int_equal(ask(f, &askers[RESOLVER_NAMES_MAX], "v4.test", in_us(LIMIT_US)), -EAGAIN);
    assert_int_equal(ask(f, &askers[RESOLVER_NAMES_MAX], name, in_us(LIMIT_US)), 0); /* waits with another */
}

/* The stub has not got through these questions yet, and drops the next test's while its socket is full. */
static int teardown_drained(void **state) {
    int64_t until = in_us(LIMIT_US);
    int error = -ETIMEDOUT;
    (void)teardown(state);
    while (error && clock_mono_us() < until) {
        struct asker a;
        void *fresh;
        (void)setup_impatient(&fresh);
        error = resolve(fresh, &a, "v4.test");
        (void)teardown(&fresh);
    }
    return error ? -1 : 0;
}

/* ---- waiting together, cancelling ---- */

static void test_waiters_share_one_look_up(void **state) {
    struct fixture *f = *state;
    struct asker askers[8] = {0};
    for (size_t i = 0; i < COUNT(askers); i++) {
        assert_int_equal(ask(f, &askers[i], "both.test", in_us(LIMIT_US)), 0);
        assert_int_equal(askers[i].calls, 0);
    }
    for (size_t i = 0; i < COUNT(askers); i++) {
        wait_for(f, &askers[i]);
        assert_int_equal(askers[i].error, 0);
        assert_int_equal(askers[i].addresses.n, 3);
    }
    assert_int_equal(times_asked("both.test"), 1);
}

static void test_cancel(void **state) {
    struct fixture *f = *state;
    struct asker *cancelled = calloc(1, sizeof *cancelled), kept = {0};
    assert_non_null(cancelled);
    assert_int_equal(ask(f, cancelled, "v4.test", in_us(50000)), 0);
    assert_int_equal(ask(f, &kept, "v4.test", in_us(LIMIT_US)), 0);
    resolver_cancel(&cancelled->query);
    resolver_cancel(&cancelled->query);
    assert_int_equal(cancelled->calls, 0);
    free(cancelled);
    wait_for(f, &kept);
    assert_int_equal(kept.error, 0);
}

static void test_cancelled_look_up_fills_the_cache(void **state) {
    struct fixture *f = *state;
    struct asker a = {0}, later = {0};
    assert_int_equal(ask(f, &a, "v4.test", in_us(LIMIT_US)), 0);
    resolver_cancel(&a.query);
    int64_t until = in_us(LIMIT_US);
    int r = 0;
    while (r == 0 && clock_mono_us() < until) {
        loop_step(f->loop, 10);
        r = ask(f, &later, "v4.test", in_us(LIMIT_US));
        if (r == 0)
            resolver_cancel(&later.query);
    }
    assert_int_equal(r, 1);
    assert_int_equal(a.calls + later.calls, 0);
    assert_int_equal(times_asked("v4.test"), 1);
}

static void test_callback_cancels_the_next(void **state) {
    struct fixture *f = *state;
    struct asker first = {0}, second = {0}, third = {0};
    assert_int_equal(ask(f, &first, "v4.test", in_us(LIMIT_US)), 0);
    assert_int_equal(ask(f, &second, "v4.test", in_us(LIMIT_US)), 0);
    assert_int_equal(ask(f, &third, "v4.test", in_us(LIMIT_US)), 0);
    first.cancels = &second.query;
    wait_for(f, &third);
    assert_int_equal(first.calls, 1);
    assert_int_equal(second.calls, 0);
}

static void test_callback_looks_up(void **state) {
    struct fixture *f = *state;
    struct asker a = {.looks_up_in = f, .name = "v4.test"}, other = {0};
    assert_int_equal(ask(f, &a, "v4.test", in_us(LIMIT_US)), 0);
    assert_int_equal(ask(f, &other, "v4.test", in_us(LIMIT_US)), 0);
    wait_for(f, &other);
    assert_int_equal(a.calls, 1);
    assert_int_equal(a.again, 1);
    struct asker next = {.looks_up_in = f, .name = "v6.test"};
    assert_int_equal(ask(f, &next, "both.test", in_us(LIMIT_US)), 0);
    wait_for(f, &next);
    assert_int_equal(next.again, 0);
    next.calls = 0;
    next.looks_up_in = NULL;
    wait_for(f, &next);
    assert_true(holds(&next.addresses, "2001:db8::1"));
}

static void freeing(struct resolver_query *q, int error, const struct resolver_addresses *addresses) {
    (void)addresses;
    assert_int_equal(error, 0);
    free(q);
}

static void test_callback_frees_its_query(void **state) {
    struct fixture *f = *state;
    struct resolver_query *q = calloc(1, sizeof *q);
    struct resolver_addresses addresses;
    struct asker last = {0};
    assert_non_null(q);
    q->fn = freeing;
    assert_int_equal(resolver_lookup(f->resolver, q, SLICE_LIT("v4.test"), in_us(LIMIT_US), &addresses), 0);
    assert_int_equal(ask(f, &last, "v4.test", in_us(LIMIT_US)), 0);
    wait_for(f, &last);
}

static int start(void **state) {
    (void)state;
    stub.zone = zone;
    stub.zone_count = COUNT(zone);
    dns_stub_start(&stub);
    return 0;
}

static int stop(void **state) {
    (void)state;
    dns_stub_stop(&stub);
    return 0;
}

#define TEST(name)           cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_IMPATIENT(name) cmocka_unit_test_setup_teardown(name, setup_impatient, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_families),
        TEST(test_mixed),
        TEST(test_cname),
        TEST(test_truncated),
        TEST(test_addresses_are_bounded),
        TEST(test_failures),
        TEST(test_hosts_file_answers_at_once),
        TEST(test_not_a_name),
        TEST(test_malformed_name_servers),
        TEST(test_deadline),
        TEST(test_deadline_in_the_past),
        TEST_IMPATIENT(test_lost_questions_are_asked_again),
        TEST_IMPATIENT(test_silent_name_server),
        TEST(test_free_with_waiters),
        TEST(test_ttl),
        TEST(test_failures_are_remembered_shortly),
        TEST(test_cache_is_bounded),
        cmocka_unit_test_setup_teardown(test_names_in_flight_are_bounded, setup, teardown_drained),
        TEST(test_waiters_share_one_look_up),
        TEST(test_cancel),
        TEST(test_cancelled_look_up_fills_the_cache),
        TEST(test_callback_cancels_the_next),
        TEST(test_callback_looks_up),
        TEST(test_callback_frees_its_query),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
