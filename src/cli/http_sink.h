/* Where a relay that runs by itself puts its rows: batch requests to a server. */
#pragma once

#include "ingest/source.h"

/* The texts are borrowed. NULL: memory is out. */
struct source_sink *http_sink_new(const char *url, const char *key, const char *ca);
