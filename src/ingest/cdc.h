/* The source kind "cdc": events out of PostgreSQL's log, by logical replication (docs/producers.md). */
#pragma once

#include "ingest/source.h"

extern const struct source_kind cdc_source;
