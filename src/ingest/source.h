/* Sources: events that come out of a producer's own database (an outbox table, or its write-ahead log)
 * instead of over HTTP. A source is a thread that reads rows, hands them to a sink, and tells the database
 * what was taken only once that is durable. What dies in between is repeated, and folds by idempotency key.
 */
#pragma once

#include "core/event.h"
#include "core/tenant.h"
#include "observe/metrics.h"

enum {
    SOURCES_MAX = METRIC_SOURCES_MAX,
    SOURCE_NAME_MAX = METRIC_SOURCE_NAME_MAX,
    SOURCE_ROWS_MAX = 1000, /* of one call of source_publish */
    /* Bytes of the data of such a call, unless it is of a single row; and of a row, which is refused unread
     * when it has more. */
    SOURCE_BYTES_MAX = 8 << 20,
    SOURCE_ROW_BYTES_MAX = 64 << 20,
    SOURCE_KEY_MAX = IDEMPOTENCY_KEY_MAX - SOURCE_NAME_MAX - 1, /* of a row's key, which follows "NAME:" */
    SOURCE_REASON_SIZE = 512,                                   /* of a text, NUL included */
    /* How long a lost database is left alone, doubling from the one to the other. */
    SOURCE_RETRY_MS_MIN = 250,
    SOURCE_RETRY_MS_MAX = 30000,
    /* The same of a sink that pushed back; no step is called meanwhile. */
    SOURCE_PAUSE_MS_MIN = 50,
    SOURCE_PAUSE_MS_MAX = 10000,
    SOURCE_STANDBY_MS = 1000,   /* between looks whether another process has left the source */
    SOURCE_WAIT_MS_MAX = 10000, /* of one source_wait */
    SOURCE_FINISH_MS = 3000,    /* after a stop, for a call that is under way */
};

/* What a [source NAME] section says. Texts are owned; NULL: not given. */
struct source_settings {
    char name[SOURCE_NAME_MAX + 1];
    char *kind;
    char *url;      /* postgres://, mysql:// or sqlite:; may hold a password: never logged */
    char *password; /* of password-file; NULL: the URL's, or none */
    char *password_file;
    char *tenant; /* of rows that name none */
    char *table;
    /* of cdc */
    char *slot, *publication;
    char *rules; /* a line each, see cdc_rules.h */
    char *accept_gap;
    bool create_slot, messages;
    /* of all */
    int64_t batch;   /* rows at a time, at most SOURCE_ROWS_MAX */
    int64_t poll_ms; /* between looks at a database that does not tell of new rows by itself */
};
void source_settings_free(struct source_settings *s); /* the texts; secrets are overwritten */
/* [A-Za-z0-9._-]{1,32} */
bool source_name_valid(struct slice name);

/* ---- rows ---- */

enum source_outcome {
    SOURCE_WAITING,   /* not decided: give it again */
    SOURCE_LATER,     /* likewise: its tenant's quota is used up, others' rows may go on */
    SOURCE_ACCEPTED,  /* durable */
    SOURCE_DUPLICATE, /* it was accepted before; durable */
    SOURCE_REJECTED,  /* never will be accepted; `reason` says why */
};

/* What a row or message says. Bytes are borrowed until source_publish returns. Absent: p == NULL. */
struct source_row {
    struct slice
        key; /* never the same for another event of this source, up to SOURCE_KEY_MAX printable ASCII */
    struct slice tenant, type, data, ordering_key, schema_version;
    int64_t deliver_at;   /* Unix ms; 0: at once */
    int64_t committed_at; /* Unix ms, for the lag; 0: not known */
    bool key_is_enough;   /* whatever was accepted with this key is this row, whatever it says by now */
    /* results */
    enum source_outcome outcome;
    char reason[SOURCE_REASON_SIZE]; /* of a rejected one */
};

/* The body that publishes a row, as it stands in a batch request: the same bytes each time, for they are what
 * a repetition is recognised by. -EINVAL: the row can't be one, ret_reason says why; -ENOMEM. */
int source_row_body(const char *source, const struct source_row *row, struct buf *out,
                    char ret_reason[SOURCE_REASON_SIZE]) MUST_USE;

/* ---- where rows go ---- */

/* Belongs to one source and is used by its thread alone. */
struct source_sink {
    /* Publishes rows (1…SOURCE_ROWS_MAX, all SOURCE_WAITING) in their order within each tenant, and waits
     * until they are durable. 0: each has an outcome. -EAGAIN: those that are still SOURCE_WAITING are to be
     * given again after *ret_wait_ms (0: not known). -EHOSTUNREACH, -EACCES: the same, for a fault that
     * `problem` tells. -ESHUTDOWN: it stops. */
    int (*publish)(struct source_sink *s, const struct source_settings *from, struct source_row *rows,
                   size_t n, int64_t *ret_wait_ms);
    /* What the source remembers between starts: a text by item. load appends it; -ENOENT. save returns once
     * it is durable. NULL: the sink has no memory. */
    int (*load)(struct source_sink *s, const struct source_settings *from, const char *item, struct buf *ret);
    int (*save)(struct source_sink *s, const struct source_settings *from, const char *item,
                struct slice text);
    void (*free)(struct source_sink *s);
    const char *problem; /* a constant */
    const char *detail;  /* for the log, without secrets; NULL: none */
};

/* ---- kinds ---- */

struct source;

enum { SOURCE_STANDS_BY = 1 }; /* of a step */

/* One each for outbox and CDC. Calls come from the source's thread. Every call to the database has a limit in
 * time. */
struct source_kind {
    const char *name;
    /* Whether the settings, each by itself right, are of use together. -EINVAL: complaint says what is wrong,
     * in words that hold no secret. */
    int (*check)(const struct source_settings *s, struct buf *complaint);
    /* Connects, and makes sure that what it needs is there. 0 and a state of its own; negative errno after
     * source_fault. */
    int (*open)(struct source *s, void **ret);
    /* One round: takes rows that are there, source_publish, tells the database what was accepted and what
     * rejected. When there are none it says source_caught_up and waits with source_wait. 0: go on;
     * SOURCE_STANDS_BY (from source_stands_by): called again after SOURCE_STANDBY_MS; -EAGAIN (from
     * source_publish): called again after a pause, the database is to be held up by nothing meanwhile;
     * -ESHUTDOWN; other negative errno, after source_fault: closed, and opened anew after a while. */
    int (*step)(struct source *s, void *state);
    void (*close)(void *state);
};

/* What a kind asks of the framework. */
const struct source_settings *source_settings(const struct source *s);
/* Hands rows on and counts what became of them. 0: each has an outcome. -EAGAIN: some are SOURCE_WAITING or
 * SOURCE_LATER; what has an outcome counts. -ESHUTDOWN. */
int source_publish(struct source *s, struct source_row *rows, size_t n) MUST_USE;
static inline bool source_row_is_decided(const struct source_row *r) {
    return r->outcome > SOURCE_LATER;
}
/* How long the sink asked to be left alone when it last pushed back; 0: it did not say. */
int64_t source_wanted_ms(const struct source *s);
/* Waits until fd (-1: none) is ready for `events` of poll(2). 1; 0 after `ms`; -ESHUTDOWN; negative errno. */
int source_wait(struct source *s, int fd, short events, int64_t ms) MUST_USE;
/* Waits for fd so that something begun can be finished, until deadline_ms of the monotonic clock, but no
 * longer than SOURCE_FINISH_MS once it is to stop. 1; -ETIMEDOUT; negative errno. */
int source_wait_finish(struct source *s, int fd, short events, int64_t deadline_ms) MUST_USE;
bool source_stopping(const struct source *s);
/* All that is committed has been accepted. This, and rows that are accepted, is what shows that a source
 * runs. */
void source_caught_up(struct source *s);
/* Another process reads what only one may: no fault, for this one takes over when that ends. `behind_since`:
 * as far as is known, since when committed rows wait (Unix ms; 0: none does). Returns SOURCE_STANDS_BY. */
int source_stands_by(struct source *s, int64_t behind_since) MUST_USE;
/* Rows that the kind rejects by itself, to be counted as the others are. */
void source_rejected(struct source *s, uint64_t n);
/* Bytes of the database's log that are not accepted yet, and that it keeps for this source. */
void source_log_bytes(struct source *s, int64_t lag, int64_t kept);
/* The sink's memory; a failure but -ENOENT comes after source_fault. */
int source_load(struct source *s, const char *item, struct buf *ret) MUST_USE;
int source_save(struct source *s, const char *item, struct slice text) MUST_USE;
/* Where the source may keep files; NULL: nowhere. */
const char *source_folder(const struct source *s);
/* Something does not work. `what` is shown without a key (/readyz): a constant sentence. `detail` (NULL:
 * none) goes to the log alone and is without secrets. Logged when it is new. */
void source_fault(struct source *s, const char *what, const char *detail, const char *advice);

/* ---- the set of a process ---- */

struct sources;

struct sources_options {
    struct metrics *metrics; /* NULL: none */
    const char *folder;      /* of source_folder; stays the caller's */
    /* A sink for each; owned by the set from then on. NULL: memory is out. */
    struct source_sink *(*sink)(void *arg);
    void *arg;
};
int sources_new(const struct sources_options *o, struct sources **ret) MUST_USE;
/* Before the start; settings stay the caller's and outlive the set. -ENOMEM. */
int sources_add(struct sources *s, const struct source_settings *settings,
                const struct source_kind *kind) MUST_USE;
/* A thread each. */
int sources_start(struct sources *s) MUST_USE;
/* They take no more rows, finish what is under way, and end. The sinks must still work. NULL-safe. */
void sources_stop(struct sources *s);
void sources_free(struct sources *s); /* NULL-safe */

struct source_status {
    const char *name, *kind;
    enum source_health health;
    const char *reason; /* of a failing one, constant; NULL: none */
    int64_t lag_ms;     /* how long the oldest row that is not accepted has waited; 0: there is none */
};
size_t sources_count(const struct sources *s); /* NULL-safe: 0 */
/* From any thread. `now`: Unix ms. */
void sources_status(struct sources *s, size_t i, int64_t now, struct source_status *ret);
/* Tells the metrics of the lags as they are now: before they are rendered. NULL-safe. */
void sources_observe(struct sources *s, int64_t now);
