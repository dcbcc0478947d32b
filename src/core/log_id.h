/* Ids as fields of log lines: log_info("…", log_id("event", ID_EVENT, id)). The text lives until the end of
 * the block that the line is written in. */
#pragma once

#include "base/log.h"
#include "core/id.h"

static inline const char *id_text(enum id_kind kind, struct id id, char out[ID_TEXT_SIZE]) {
    id_format(kind, id, out);
    return out;
}

#define log_id(key, kind, id) log_str(key, id_text(kind, id, (char[ID_TEXT_SIZE]){0}))
