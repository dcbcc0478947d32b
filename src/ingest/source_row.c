/* A row as the body that publishes it. Pure. */
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "ingest/source.h"

/* The end of the year 9999, the last that RFC 3339 can write. */
#define DELIVER_AT_MAX INT64_C(253402300799999)

static int refuse(char reason[SOURCE_REASON_SIZE], const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static int refuse(char reason[SOURCE_REASON_SIZE], const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(reason, SOURCE_REASON_SIZE, format, args);
    va_end(args);
    return -EINVAL;
}

bool source_name_valid(struct slice name) {
    return name.n <= SOURCE_NAME_MAX && tenant_id_valid(name);
}

/* One whole JSON value: what follows it would become members of the body. */
static int check_data(struct slice data, char reason[SOURCE_REASON_SIZE]) {
    if (!data.p)
        return refuse(reason, "data: is missing");
    struct json_cursor c = json_open(data);
    struct slice value;
    enum json_type type;
    if (json_value(&c, &value, &type) < 0 || json_finish(&c) < 0)
        return refuse(reason, "data: is not JSON: %s at byte %zu", c.problem, json_offset(&c));
    return 0;
}

static void add_text(struct buf *out, const char *name, struct slice text) {
    if (!text.p)
        return;
    buf_addf(out, ",\"%s\":", name);
    buf_add_json_string(out, text);
}

int source_row_body(const char *source, const struct source_row *row, struct buf *out,
                    char ret_reason[SOURCE_REASON_SIZE]) {
    if (row->data.n > SOURCE_ROW_BYTES_MAX)
        return refuse(ret_reason, "data: has more than %d bytes", SOURCE_ROW_BYTES_MAX);
    if (!row->type.p)
        return refuse(ret_reason, "type: is missing");
    if (row->deliver_at > DELIVER_AT_MAX)
        return refuse(ret_reason, "deliver_at: is no time, or too far ahead");
    int r = check_data(row->data, ret_reason);
    if (r < 0)
        return r;
    _cleanup_buf_ struct buf key = {0};
    buf_addf(&key, "%s:%.*s", source, SLICE_ARG(row->key));
    buf_add_str(out, "{\"type\":");
    buf_add_json_string(out, row->type);
    add_text(out, "idempotency_key", buf_slice(&key));
    add_text(out, "ordering_key", row->ordering_key);
    add_text(out, "schema_version", row->schema_version);
    if (row->deliver_at > 0) { /* before 1970 is at once, too */
        char at[RFC3339_SIZE];
        rfc3339_format(row->deliver_at, at);
        buf_addf(out, ",\"deliver_at\":\"%s\"", at);
    }
    buf_add_str(out, ",\"data\":");
    buf_add_slice(out, row->data);
    buf_add_char(out, '}');
    return buf_ok(out) && buf_ok(&key) ? 0 : -ENOMEM;
}
