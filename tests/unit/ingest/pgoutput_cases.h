/* What a real PostgreSQL sent, for tests of what reads it. */
#pragma once

#include <errno.h>

#include "ingest/pgoutput.h"

/* tests/cases/pgoutput.tsv holds what PostgreSQL 15 sent for
 *   CREATE TABLE orders (id int PRIMARY KEY, total numeric(10,2), paid boolean, note text, doc jsonb,
 *                        tags text[], at timestamptz);           -- note: STORAGE EXTERNAL
 *   CREATE TABLE full_orders (id int PRIMARY KEY, note text);    -- REPLICA IDENTITY FULL
 *   CREATE TABLE moods (id int PRIMARY KEY, m mood);             -- an enum
 *   INSERT INTO orders VALUES (1, 12.50, true, repeat('x', 3000), '{"a":[1,2.50]}', '{a,b}', …);
 *   UPDATE orders SET total = 13, paid = NULL WHERE id = 1;  UPDATE orders SET id = 2 WHERE id = 1;
 *   DELETE FROM orders;  INSERT INTO full_orders VALUES (1, 'été');  UPDATE full_orders SET note = 'b';
 *   DELETE FROM full_orders;  INSERT INTO moods VALUES (1, 'sad');  TRUNCATE orders, moods;
 *   SELECT pg_logical_emit_message(true, 'posthorn', …);  SELECT pg_logical_emit_message(false, 'posthorn',
 * 'now');
 */
enum { CASES = 17, CASE_MAX = 16384 };

static struct {
    char name[32];
    char bytes[CASE_MAX];
    size_t n;
} cases[CASES];

static void read_case(char *line, size_t i) {
    char *rest = NULL;
    const char *name = strtok_r(line, "\t\n", &rest), *hex = strtok_r(NULL, "\t\n", &rest);
    assert_non_null(hex);
    assert_in_range(i, 0, CASES - 1);
    snprintf(cases[i].name, sizeof cases[i].name, "%s", name);
    for (; hex[0] && hex[1]; hex += 2) {
        unsigned byte;
        assert_int_equal(sscanf(hex, "%2x", &byte), 1);
        assert_in_range(cases[i].n, 0, CASE_MAX - 1);
        cases[i].bytes[cases[i].n++] = (char)byte;
    }
}

static int read_cases(void **state) {
    (void)state;
    const char *folder = getenv("POSTHORN_TEST_CASES");
    static char path[4096], line[4 * CASE_MAX];
    snprintf(path, sizeof path, "%s/pgoutput.tsv", folder ? folder : "tests/cases");
    FILE *f = fopen(path, "r");
    if (!f)
        fail_msg("%s: %s", path, strerror(errno));
    size_t i = 0;
    while (fgets(line, sizeof line, f))
        if (line[0] != '#')
            read_case(line, i++);
    fclose(f);
    assert_int_equal(i, CASES);
    return 0;
}

static struct slice bytes_of(const char *name) {
    for (size_t i = 0; i < CASES; i++)
        if (strcmp(cases[i].name, name) == 0)
            return (struct slice){cases[i].bytes, cases[i].n};
    fail_msg("no case %s", name);
    return SLICE_NONE;
}

static void assert_slice(struct slice s, const char *text) {
    if (!slice_eq(s, slice_of(text)))
        fail_msg("\"%.*s\" is not \"%s\"", SLICE_ARG(s), text);
}
