#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "ingest/outbox_text.h"

static const struct outbox_dialect *const dialects[] = {&outbox_postgres, &outbox_mysql, &outbox_sqlite};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void assert_has(const struct buf *text, const char *part) {
    if (!strstr(text->p, part))
        fail_msg("\"%s\" is missing in:\n%s", part, text->p);
}

static void assert_has_not(const struct buf *text, const char *part) {
    if (strstr(text->p, part))
        fail_msg("\"%s\" stands in:\n%s", part, text->p);
}

/* No {blank} is left, but for JSON in examples. */
static void assert_filled_in(const struct buf *text) {
    for (const char *at = text->p; (at = strchr(at, '{')); at++)
        if (at[1] >= 'a' && at[1] <= 'z')
            fail_msg("a blank is left: %.30s", at);
}

static void tables(void **state) {
    (void)state;
    static const char *const good[] = {"posthorn_outbox", "shop.events", "_a", "A1.b_2"};
    static const char *const bad[] = {
        "",   "1a", "a.b.c", "a b", "a;drop",  "\"a\"",
        ".a", "a.", "a-b",   "a'",  "{table}", "a234567890123456789012345678901234567890x"};
    for (size_t i = 0; i < COUNT(good); i++)
        assert_true(outbox_table_valid(good[i]));
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_false(outbox_table_valid(bad[i]));
}

static void names_of_dialects(void **state) {
    (void)state;
    assert_ptr_equal(outbox_dialect_find("postgres"), &outbox_postgres);
    assert_ptr_equal(outbox_dialect_find("PostgreSQL"), &outbox_postgres);
    assert_ptr_equal(outbox_dialect_find("mariadb"), &outbox_mysql);
    assert_ptr_equal(outbox_dialect_find("mysql"), &outbox_mysql);
    assert_ptr_equal(outbox_dialect_find("sqlite"), &outbox_sqlite);
    assert_null(outbox_dialect_find("oracle"));
}

static void ddl_names_table_helper_and_rejected(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(dialects); i++) {
        _cleanup_buf_ struct buf usual = {0}, other = {0};
        outbox_ddl(dialects[i], &(struct outbox_ddl_options){"posthorn_outbox", true}, &usual);
        assert_filled_in(&usual);
        assert_has(&usual, "posthorn_publish");
        assert_has(&usual, "posthorn_outbox_rejected");
        outbox_ddl(dialects[i], &(struct outbox_ddl_options){"shop.events", true}, &other);
        assert_filled_in(&other);
        assert_has(&other, "events_publish");
        assert_has(&other, "events_rejected");
        assert_has(&other, "shop");
        assert_has_not(&other, "posthorn_outbox");
    }
}

static void ddl_notifies_when_asked(void **state) {
    (void)state;
    _cleanup_buf_ struct buf with = {0}, without = {0};
    outbox_ddl(&outbox_postgres, &(struct outbox_ddl_options){"shop.events", true}, &with);
    assert_has(&with, "pg_notify('events', '')");
    assert_has(&with, "create trigger \"events_wake\" after insert on \"shop\".\"events\"");
    assert_has(&with, "(128 + new.hash_range)");
    outbox_ddl(&outbox_postgres, &(struct outbox_ddl_options){"shop.events", false}, &without);
    assert_has_not(&without, "notify");
    assert_has_not(&without, "trigger");
}

static void every_statement_is_filled_in(void **state) {
    (void)state;
    const struct outbox_blanks b = {.table = "t", .list = "1,2", .literal = "'why'", .row_bytes_max = 100};
    for (size_t i = 0; i < COUNT(dialects); i++) {
        for (int which = 0; which < OUTBOX_STATEMENTS; which++) {
            _cleanup_buf_ struct buf out = {0};
            if (outbox_statement(dialects[i], (enum outbox_statement)which, &b, &out))
                assert_filled_in(&out);
            else
                assert_int_equal(out.n, 0);
        }
    }
}

static void a_look_at_all_ranges_needs_no_union(void **state) {
    (void)state;
    _cleanup_buf_ struct buf out = {0};
    outbox_look(&outbox_postgres, "t", OUTBOX_ALL_RANGES, NULL, "''", 7, &out);
    assert_string_equal(out.p, "select seq, octet_length(data::text) from \"t\" order by seq limit 7");
    outbox_look(&outbox_postgres, "t", OUTBOX_ALL_RANGES, "'a'", "'d'", 7, &out);
    assert_string_equal(out.p,
                        "select seq, octet_length(data::text) from \"t\" where coalesce(tenant, 'd') not in "
                        "('a') order by seq limit 7");
}

static void a_look_at_some_ranges_takes_the_first_of_each(void **state) {
    (void)state;
    _cleanup_buf_ struct buf out = {0};
    outbox_look(&outbox_mysql, "t", 0x8002, NULL, "''", 7, &out);
    assert_string_equal(out.p,
                        "(select seq, octet_length(data) from `t` where hash_range = 1 order by seq limit 7)"
                        " union all (select seq, octet_length(data) from `t` where hash_range = 15 order by "
                        "seq limit 7) order by 1 limit 7");
}

static void locks(void **state) {
    (void)state;
    _cleanup_buf_ struct buf out = {0};
    outbox_try_locks(&outbox_postgres, "1000", 5, 0, &out);
    assert_string_equal(out.p, "select pg_try_advisory_lock(1000 + 0), pg_try_advisory_lock(1000 + 2)");
    outbox_unlock(&outbox_mysql, "b", 2, OUTBOX_RANGES, &out);
    assert_string_equal(out.p, "select release_lock('b.17')");
    outbox_members(&outbox_mysql, "b", &out);
    assert_has(&out,
               "select (is_used_lock('b.16') is not null) * 1 + (is_used_lock('b.17') is not null) * 2");
    outbox_members(&outbox_postgres, "1000", &out);
    assert_filled_in(&out);
    assert_true(outbox_evict(&outbox_postgres, "1000", &out));
    assert_filled_in(&out);
    assert_has(&out, "interval '75 seconds'");
    assert_false(outbox_evict(&outbox_mysql, "b", &out));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables),
        cmocka_unit_test(names_of_dialects),
        cmocka_unit_test(ddl_names_table_helper_and_rejected),
        cmocka_unit_test(ddl_notifies_when_asked),
        cmocka_unit_test(every_statement_is_filled_in),
        cmocka_unit_test(a_look_at_all_ranges_needs_no_union),
        cmocka_unit_test(a_look_at_some_ranges_takes_the_first_of_each),
        cmocka_unit_test(locks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
