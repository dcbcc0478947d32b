/* Messages of PostgreSQL's logical replication, protocol version 1 (PostgreSQL's manual, "Logical Replication
 * Message Formats"), as the plugin pgoutput sends them with the option messages. Decoded in place: nothing is
 * allocated or copied, every slice points into the message's bytes. */
#pragma once

#include "base/bytes.h"

enum { PGOUTPUT_COLUMNS_MAX = 1664 }; /* PostgreSQL's MaxTupleAttributeNumber */

enum pgoutput_kind {
    PGOUTPUT_BEGIN,
    PGOUTPUT_COMMIT,
    PGOUTPUT_ORIGIN,
    PGOUTPUT_RELATION,
    PGOUTPUT_TYPE,
    PGOUTPUT_INSERT,
    PGOUTPUT_UPDATE,
    PGOUTPUT_DELETE,
    PGOUTPUT_TRUNCATE,
    PGOUTPUT_MESSAGE,
};

struct pgoutput_value {
    enum {
        PGOUTPUT_NULL,
        PGOUTPUT_UNCHANGED, /* a value stored apart (TOAST) that the update left as it was: it is not told */
        PGOUTPUT_TEXT
    } kind;
    struct slice text; /* as the type's output function writes it; absent unless PGOUTPUT_TEXT */
};

struct pgoutput_column {
    struct slice name;
    uint32_t type; /* OID */
    bool identity; /* part of the replica identity: in old rows */
};

/* What is left of a row's values, or of a relation's columns: walk a copy to keep the whole. */
struct pgoutput_list {
    struct slice bytes;
    uint16_t n;
};

struct pgoutput_message {
    enum pgoutput_kind kind;
    union {
        struct {
            uint64_t final_lsn; /* of the commit's record */
            int64_t committed_at;
        } begin;
        struct {
            uint64_t commit_lsn;
            uint64_t end_lsn; /* behind the commit's record: what may be confirmed */
            int64_t committed_at;
        } commit;
        struct {
            uint32_t oid;
            struct slice schema, name; /* schema "pg_catalog" is sent empty */
            char identity;             /* pg_class.relreplident: d, n, f or i */
            struct pgoutput_list columns;
        } relation;
        struct {
            uint32_t oid;
            enum {
                PGOUTPUT_OLD_NONE,
                PGOUTPUT_OLD_KEY, /* identity columns alone; the others are told as null */
                PGOUTPUT_OLD_ROW
            } has_old;
            struct pgoutput_list old; /* empty without */
            struct pgoutput_list new; /* empty in a delete */
        } row;
        struct {
            struct slice oids; /* n of 4 bytes each: pgoutput_truncated */
            uint32_t n;
        } truncate;
        struct {
            bool transactional;
            uint64_t lsn;
            struct slice prefix, content;
        } message;
    };
};

/* Decodes one message and validates all of it, so that walking its lists cannot fail. -EBADMSG: it is
 * malformed, or of a kind or version that was not asked for; *ret is untouched. Times are Unix milliseconds.
 */
int pgoutput_read(struct slice bytes, struct pgoutput_message *ret) MUST_USE;

/* Steps over the next one; false when none is left. */
bool pgoutput_next_value(struct pgoutput_list *values, struct pgoutput_value *ret);
bool pgoutput_next_column(struct pgoutput_list *columns, struct pgoutput_column *ret);
/* The OID of the i-th relation of a truncate, i < n. */
uint32_t pgoutput_truncated(const struct pgoutput_message *m, uint32_t i);

/* A position in the log as PostgreSQL writes it: "16/B374D848". */
enum { LSN_TEXT_SIZE = 18 };
void lsn_format(uint64_t lsn, char ret[LSN_TEXT_SIZE]);
/* -EINVAL: it is none. */
int lsn_parse(struct slice text, uint64_t *ret) MUST_USE;
