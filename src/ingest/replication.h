/* A connection that streams the changes of a PostgreSQL database through a logical replication slot (the
 * manual's "Streaming Replication Protocol"). No call waits longer than REPLICATION_LIMIT_MS. Used by its
 * source's thread alone; what goes wrong is told with source_fault. */
#pragma once

#include "ingest/source.h"
#include "ingest/timeline.h"

enum {
    REPLICATION_LIMIT_MS = 10000,     /* of a command, and of sending a status */
    REPLICATION_SILENCE_MS = 60000,   /* a server that says nothing for so long, though asked, is lost */
    REPLICATION_VERSION_MIN = 140000, /* the first PostgreSQL whose pgoutput passes messages on */
};

struct replication;

/* Connects and asks which database it is, and of which history. Negative errno after source_fault. */
int replication_open(struct source *s, struct replication **ret,
                     struct timeline_history *ret_history) MUST_USE;
/* Begins to stream from `from` on, or from where the slot was confirmed when that is later. -EBUSY, without a
 * fault: somebody else reads the slot. */
int replication_start(struct replication *r, const char *slot, const char *publication,
                      uint64_t from) MUST_USE;

struct replication_message {
    bool keepalive;
    bool reply;         /* it waits for a status */
    uint64_t lsn;       /* of the change; of a keepalive: how far the log has been read */
    struct slice bytes; /* for pgoutput_read; until the next call */
};
/* 1 with a message; 0: there is none now; negative errno after source_fault. */
int replication_read(struct replication *r, struct replication_message *ret) MUST_USE;
/* Readable when there is something to read. */
int replication_fd(const struct replication *r);
/* What is before `confirmed` is not needed any more; `received` is how far it was read. */
int replication_confirm(struct replication *r, uint64_t received, uint64_t confirmed, int64_t now) MUST_USE;
void replication_close(struct replication *r); /* NULL-safe */
