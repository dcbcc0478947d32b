/* Where the sources of a server put their rows: the same ingest that the API publishes through, with the same
 * rules, limits and quotas. */
#pragma once

#include "ingest/ingest.h"
#include "ingest/source.h"
#include "store/directory.h"

struct ingest_sink_options {
    struct ingest *ingest;
    struct directory *directory;
    struct writer *writer;  /* for what sources remember */
    size_t event_bytes_max; /* of a row's data, beside the tenant's own limit */
};

/* NULL: memory is out. The options' parts outlive it. */
struct source_sink *ingest_sink_new(const struct ingest_sink_options *o);
