/* What is done to a store as a whole: copies of it, their return, a look whether all of it is sound, a new
 * schema. None of it needs a server. `url` is as for store_open. On failure *ret_message (a static or
 * thread-local text) says what to do. */
#pragma once

#include "store/store.h"

enum { STORE_KEYS_TOLD_MAX = 8 };

struct store_summary {
    size_t schema, schema_known; /* the store's, and the newest that this program knows */
    uint64_t bytes, tenants, subscriptions, events, deliveries;
    /* Of the keys that sealed the secrets in it. None: nothing is sealed. */
    uint8_t keys[STORE_KEYS_TOLD_MAX][SEAL_FINGERPRINT_SIZE];
    size_t keys_n;
};

/* Pages copied, of how many; called some times a second of work. */
typedef void (*store_progress_fn)(void *arg, uint64_t done, uint64_t total);

/* Copies the store as it was at one moment after the call, into a new file of mode 0600, durable and whole or
 * not there at all. A server may run on it: it is not held up, but its write-ahead log grows until the copy
 * is made. What was sealed stays sealed: the key is not in the copy. -EEXIST: `file` is there; -EBUSY:
 * another backup is writing it; -ENOENT: there is no store. */
int store_backup(const char *url, const char *file, store_progress_fn progress, void *arg,
                 struct store_summary *ret, const char **ret_message) MUST_USE;

/* Something that must not be in a store. */
struct store_finding {
    const char *what;
    uint64_t n;          /* how many rows */
    const char *example; /* one of them */
};
struct store_check {
    int64_t now;                                /* for a backup: when it was made, or later */
    const struct seal_keyring *keys;            /* every sealed secret is opened with them; NULL: none is */
    void (*looking)(void *arg, const char *at); /* before each look; may be NULL */
    void (*found)(void *arg, const struct store_finding *f);
    void *arg;
};
/* Looks at all there is, in one moment's state: the pages, the schema, and what the program holds true of its
 * rows. Changes nothing, and may run beside a server. 0 when it could look, whatever was found; of an older
 * schema the pages alone are looked at. */
int store_check(const char *url, const struct store_check *check, struct store_summary *ret,
                const char **ret_message) MUST_USE;

struct store_restore {
    bool replace;                    /* a store that is there already */
    const struct store_check *check; /* NULL: take the copy as it is */
    store_progress_fn progress;
    void *arg;
};
/* Puts a copy in the place of the store: all of it, or nothing. Until it is done a start is refused where
 * there was no store before. -EBUSY: the store is in use; -EEXIST: there is one; -EUCLEAN: the copy is no
 * store of ours or the check found something; -EPROTONOSUPPORT: it is of a newer program. */
int store_restore(const char *file, const char *url, const struct store_restore *how,
                  struct store_summary *ret, const char **ret_message) MUST_USE;

/* Brings the schema up to date, a migration a transaction; makes the store when there is none. *ret_from:
 * what it was, 0 when it is new. Errors as of store_open. */
int store_migrate(const char *url, size_t *ret_from, size_t *ret_to, const char **ret_message) MUST_USE;
