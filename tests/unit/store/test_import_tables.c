/* What a move to PostgreSQL takes along (store/import/tables.h): every column of every table of the SQLite
 * schema. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <ctype.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <string.h>

#include "store/import/tables.h"
#include "store/schema/schema.h"

/* What stays behind. */
static const char *const left[] = {
    "secrets_plain",   /* a store that has not sealed them is refused */
    "sqlite_sequence", /* the sequences there are set to the same numbers */
    "subscription_log", "type_log",
    "marks" /* indexes do there what these logs do, marks say how far they are */
};

static bool stays(const char *table) {
    for (size_t i = 0; i < sizeof left / sizeof left[0]; i++)
        if (strcmp(left[i], table) == 0)
            return true;
    return false;
}

static bool is_letter(char c) {
    return isalnum((unsigned char)c) || c == '_';
}

static bool has_word(const char *text, const char *word) {
    size_t n = strlen(word);
    for (const char *p = text; (p = strstr(p, word)); p += n)
        if ((p == text || !is_letter(p[-1])) && !is_letter(p[n]))
            return true;
    return false;
}

/* Whether a table's rows are made of this column, among others. */
static bool moves(const char *table, const char *column) {
    for (size_t i = 0; i < import_tables_n; i++)
        if (has_word(import_tables[i].select, table) && has_word(import_tables[i].select, column))
            return true;
    return false;
}

static void test_every_column_moves(void **state) {
    (void)state;
    sqlite3 *db;
    sqlite3_stmt *st;
    unsigned columns = 0, missing = 0;
    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    for (size_t i = 0; i < sqlite_migrations_n; i++)
        assert_int_equal(sqlite3_exec(db, sqlite_migrations[i], NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(
        sqlite3_prepare_v2(
            db,
            "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type='table'",
            -1, &st, NULL),
        SQLITE_OK);
    for (; sqlite3_step(st) == SQLITE_ROW; columns++) {
        const char *table = (const char *)sqlite3_column_text(st, 0);
        const char *column = (const char *)sqlite3_column_text(st, 1);
        if (moves(table, column) != stays(table))
            continue;
        print_error("%s.%s %s\n", table, column, stays(table) ? "moves after all" : "does not move");
        missing++;
    }
    assert_true(columns > 100);
    assert_int_equal(missing, 0);
    sqlite3_finalize(st);
    sqlite3_close(db);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_column_moves)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
