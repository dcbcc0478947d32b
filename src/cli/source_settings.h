/* The sections [source NAME] of the config file, one a source. As settings.h, a row a setting:
 *   X(KIND, field, "name", "default", least, most, "VALUE", "what it is", "why one would change it")
 * The fields are those of struct source_settings. */
#pragma once

#include "cli/settings.h"
#include "ingest/cdc_rules.h"
#include "ingest/source.h"

#define SOURCE_SETTINGS(X)                                                                                   \
    X(TEXT, kind, "kind", "outbox", 0, 0, "KIND",                                                            \
      "how events come out of the database: outbox (a table), or cdc (PostgreSQL's log)",                    \
      "take events, or changes of tables, without a table between")                                          \
    X(TEXT, url, "url", NULL, 0, 0, "URL",                                                                   \
      "the producer's database: postgres://…, mysql://… or sqlite:FILE", "it must be given")                 \
    X(TEXT, password_file, "password-file", NULL, 0, 0, "FILE",                                              \
      "file whose first line is the database user's password, in place of one in url",                       \
      "keep the password out of the settings")                                                               \
    X(TEXT, tenant, "tenant", NULL, 0, 0, "TENANT",                                                          \
      "the tenant of rows, messages and changes that name none", "all rows of a database are of one tenant") \
    X(TEXT, table, "table", "posthorn_outbox", 0, 0, "NAME",                                                 \
      "of outbox: the table, with its schema where it needs one",                                            \
      "several outboxes in one database, or another schema")                                                 \
    X(TEXT, slot, "slot", "posthorn", 0, 0, "NAME",                                                          \
      "of cdc: the logical replication slot, which remembers for this source alone",                         \
      "each server and source that reads a database's log has one of its own")                               \
    X(FLAG, create_slot, "create-slot", "false", 0, 0, "true|false",                                         \
      "of cdc: make the slot when a new source finds none; what was committed before does not come",         \
      "let the source set itself up; its database user has REPLICATION in any case")                         \
    X(TEXT, publication, "publication", "posthorn", 0, 0, "NAME",                                            \
      "of cdc: the publication of the tables that rules map; an empty one for messages alone",               \
      "several sources of different tables")                                                                 \
    X(FLAG, messages, "messages", "true", 0, 0, "true|false",                                                \
      "of cdc: take what producers write with pg_logical_emit_message(true, 'posthorn', …)",                 \
      "of several sources on one database, one alone should take messages")                                  \
    X(LINES, rules, "rule", NULL, 0, CDC_RULES_MAX, "RULE",                                                  \
      "of cdc: changes of a table that become events (repeatable), such as public.orders insert,update "     \
      "type=order.{status} tenant={account} ordering-key={id}",                                              \
      "see docs/producers.md, CDC, for what a rule may say")                                                 \
    X(TEXT, accept_gap, "accept-gap", NULL, 0, 0, "POSITION",                                                \
      "of cdc: go on past the gap that begins here, without what was committed in it",                       \
      "only once a source has stopped at a gap, whose line in the log names the position")                   \
    X(NUMBER, batch, "batch", "500", 1, SOURCE_ROWS_MAX, "N", "rows that are handed on at one time",         \
      "fewer for large rows; more where a transaction of the database takes long")                           \
    X(NUMBER, poll_ms, "poll-ms", "1000", 10, SOURCE_WAIT_MS_MAX, "MS",                                      \
      "of outbox: how long an empty one is left alone; PostgreSQL tells of new rows by itself before",       \
      "a shorter wait where the database tells nothing, for more questions")

#define SOURCE_SETTING_COUNT(...) +1
enum { SOURCE_SETTINGS_N = 0 SOURCE_SETTINGS(SOURCE_SETTING_COUNT) };
extern const struct setting source_setting_rows[SOURCE_SETTINGS_N];

/* The sections while they are read. Zero-initialise it. */
struct source_sections {
    struct source_settings at[SOURCES_MAX];
    uint32_t given[SOURCES_MAX]; /* a bit a setting */
    size_t n;
};

static inline bool is_source_section(const char *section) {
    return strcmp(section, "source") == 0 || strncmp(section, "source ", strlen("source ")) == 0;
}
/* A line of a section for which is_source_section is true. -EINVAL: complaint says why, without the value;
 * -ENOMEM. */
int source_section_line(struct source_sections *s, const char *section, const char *name, const char *value,
                        struct buf *complaint) MUST_USE;
/* One setting, by its name, and the defaults of the others. Likewise. */
int source_setting_set(struct source_settings *s, const char *name, const char *value,
                       struct buf *complaint) MUST_USE;
int source_settings_preset(struct source_settings *s) MUST_USE;
/* Once all is read: whether it fits together; reads password-file. -EINVAL with a line in problems for each
 * mistake; -ENOMEM. */
int source_settings_check(struct source_settings *s, struct buf *problems) MUST_USE;
/* NULL: there is none of that name. */
const struct source_kind *source_kind_find(const char *name);

/* For docs/configuration.md, and deploy/posthorn.conf. */
void source_settings_markdown(struct buf *out);
void source_settings_file(struct buf *out);
