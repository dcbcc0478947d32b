/* A subscription's filter: which events it wants, judged by what is in them. docs/filters.md is the language.
 * A filter is compiled once, immutable, shared by reference, and matched against the payload's bytes as they
 * came.
 *
 * Names have the shape of what was published: "type", "schema_version", "ordering_key", and the payload under
 * "data". Where a payload has a member twice, the last one counts. Numbers are compared exactly, as decimals.
 */
#pragma once

#include <jansson.h>

#include "base/json_tape.h"
#include "core/field_errors.h"

enum {
    FILTER_BYTES_MAX = 16384,  /* of its JSON, without white space */
    FILTER_VALUES_MAX = 1000,  /* fields, values and operators in it */
    FILTER_DEPTH_MAX = 16,     /* patterns within patterns */
    FILTER_NUMBER_DIGITS = 15, /* of a number that is no 64-bit integer */
    FILTER_STEPS_MAX = 1000000 /* of one match; see filter_matches */
};

struct filter;

/* Validates and compiles. What is wrong is told with the field "filter" and its place in the message; then
 * NULL. NULL without an entry: memory is out. The caller owns the reference. */
struct filter *filter_compile(const json_t *doc, struct field_errors *errors);
struct filter *filter_ref(struct filter *f);
void filter_unref(struct filter *f); /* NULL-safe */

DEFINE_CLEANUP(cleanup_filter, struct filter, filter_unref)
#define _cleanup_filter_ _cleanup_(cleanup_filter)

/* The compiled bytes: equal ones match the same events. Filters that differ only in the order of their
 * members have equal ones. */
struct slice filter_program(const struct filter *f);

/* What is matched; absent texts have p == NULL. */
struct filter_subject {
    struct slice type, schema_version, ordering_key;
    struct slice data;
    const struct json_tape *tape; /* of data */
};

/* Adds what it cost to *steps, in values looked at. A match that would take more than FILTER_STEPS_MAX is not
 * decided: the event matches, for to deliver too much is better than to lose. */
bool filter_matches(const struct filter *f, const struct filter_subject *subject, uint64_t *steps);
