/* The transactional outbox as a source: rows of a table in the producer's database, written in the
 * transaction of the change that they tell of (outbox_text.h has the table). A round looks for the first rows
 * of its ranges, locks them, publishes them and deletes them in one transaction of the database. What has an
 * id but is not yet committed is not seen, and not passed: rows are taken away, there is no mark that moves
 * past them. */
#pragma once

#include "ingest/source.h"

extern const struct source_kind outbox_source;
