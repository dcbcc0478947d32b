/* What the tests of the store share. They are written against store.h alone and run on a fresh SQLite file
 * each, or in a fresh schema each of a database of the program's own, on the PostgreSQL server that
 * POSTHORN_TEST_STORE names. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "store/store.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define HOUR_MS      INT64_C(3600000)
#define DAY_MS       (24 * HOUR_MS)

enum { ROWS_MAX = 256 };

struct fixture {
    char *folder; /* of the SQLite file, or NULL */
    char *url;
    struct store *store;
    struct store_reader *reader;
    int64_t now;  /* the test's time: nothing in the store is newer */
    unsigned ids; /* handed out */
    bool in_transaction;
};

/* For cmocka: *state becomes a struct fixture with an open store. */
int fixture_setup(void **state);
int fixture_teardown(void **state);
/* Of the whole program, behind its last test. */
int fixture_end(void **state);
#define STORE_TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)

bool fixture_is_sqlite(const struct fixture *f);
char *fixture_path(const struct fixture *f); /* of the SQLite file; the caller frees it */
/* What a query for one number answers, on a connection of its own. */
int64_t fixture_number(const struct fixture *f, const char *sql);
int64_t number_in_file(const char *path, const char *sql); /* of an SQLite file */
/* Closes and opens the store again, as a restart does. */
void fixture_close(struct fixture *f);
void fixture_open(struct fixture *f);
void fixture_reopen(struct fixture *f);
/* Unlocks a store with the key that every test uses. */
void fixture_unlock(struct store *s);

/* Makes a folder of its own below TMPDIR; and removes it with the files in it. The caller frees the name. */
char *folder_make(void);
void folder_remove(const char *folder);

/* Each helper below runs in a transaction of its own unless one was begun. */
void begin(struct fixture *f);
void commit(struct fixture *f);
void rollback(struct fixture *f);

/* Of any time, also a past one; ascending among those of the same one, of which there may be 4,096. */
struct id next_id(struct fixture *f, int64_t at);
uint32_t make_tenant(struct fixture *f);
uint32_t make_subscription(struct fixture *f, uint32_t tenant_no);
/* Whose subscription it is, also a deleted one. */
uint32_t tenant_of(struct fixture *f, uint32_t subscription_no);
/* A secret of 24 bytes of `filling`. */
struct id make_secret(struct fixture *f, uint32_t subscription_no, char filling);

struct event_spec {
    int64_t at; /* 0: now */
    const char *type, *ordering_key, *body;
    int64_t deliver_at;
};
struct id make_event(struct fixture *f, uint32_t tenant_no, struct event_spec spec);
/* An unordered delivery of an event to a subscription, due when it was made. */
void make_delivery(struct fixture *f, struct id event, uint32_t tenant_no, uint32_t subscription_no);
void make_ordered(struct fixture *f, struct id event, uint32_t tenant_no, uint32_t subscription_no,
                  uint64_t lane_key);
/* Event and delivery at once. */
struct id publish(struct fixture *f, uint32_t tenant_no, uint32_t subscription_no);
struct id publish_ordered(struct fixture *f, uint32_t tenant_no, uint32_t subscription_no, uint64_t lane_key);

/* A claim of up to `limit` from one lane, with a window of 72 hours and leases of a minute. */
struct claim {
    struct lane_claim lane;
    struct task tasks[ROWS_MAX];
    size_t n;
    struct expired_task expired[ROWS_MAX];
    size_t expired_n;
};
struct lane_claim lane_of(uint32_t tenant_no, uint32_t subscription_no, uint32_t limit);
struct claim claim(struct fixture *f, struct lane_claim lane);
/* Claims and expects exactly one task. */
struct task claim_one(struct fixture *f, uint32_t tenant_no, uint32_t subscription_no);

/* What an attempt that got this status line (0: a timeout) would settle. */
struct settlement outcome_of(const struct fixture *f, const struct task *t, enum delivery_state to,
                             int status);
struct settlement settle(struct fixture *f, struct settlement s);
/* Claims one and brings it to DELIVERED or DLQ. */
void finish_one(struct fixture *f, uint32_t tenant_no, uint32_t subscription_no, enum delivery_state to);

/* Rows as a reader sees them. Their slices are gone; the texts of a delivery are copied ("" for none). */
struct got_delivery {
    struct delivery_row row;
    char type[64], ordering_key[64], source[64], requested_by[64];
};
struct deliveries {
    struct got_delivery at[ROWS_MAX];
    size_t n;
};
struct got_delivery read_delivery(struct fixture *f, uint32_t tenant_no, struct id event,
                                  uint32_t subscription_no);
enum delivery_state state_of(struct fixture *f, uint32_t tenant_no, struct id event,
                             uint32_t subscription_no);
struct deliveries *list_deliveries(struct fixture *f, struct delivery_query q); /* the caller frees it */

struct attempts {
    struct attempt_row at[ROWS_MAX];
    size_t n;
};
struct attempts *list_attempts(struct fixture *f, struct id event, uint32_t subscription_no);
struct transitions {
    struct transition_row at[ROWS_MAX];
    size_t n;
};
struct transitions list_transitions(struct fixture *f, struct id event, uint32_t subscription_no);
