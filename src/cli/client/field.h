/* Values of JSON documents, found by name and shown to people. The bytes of numbers stay as they came. */
#pragma once

#include "base/bytes.h"
#include "base/json.h"

/* An answer has at most these levels around an event's data: document, list and event. */
enum { ANSWER_AROUND = 3 };

/* A value of a document that was validated; absent: text.p == NULL. */
struct field {
    struct slice text;
    enum json_type type;
};

/* `path` has dots between names: "fanout.state". Absent when there is none, and for what is no object. */
struct field field_find(struct slice object, const char *path);
/* Whether a text is one JSON document. On -EINVAL *ret_problem says in words what is wrong. */
int field_parse(struct slice text, struct field *ret, const char **ret_problem) MUST_USE;
/* A value as people read it: strings without quotes, null and absent as "-", an array of plain values with
 * commas, anything else as JSON. What would steer a terminal is escaped. */
void field_show(struct field f, struct buf *out);
/* The same of text that came from outside. */
void field_show_text(struct slice text, struct buf *out);
/* The decoded string, or the bytes of another value; nothing when it is absent or null. */
void field_plain(struct field f, struct buf *out);
/* An integer, or `otherwise`. */
int64_t field_int(struct field f, int64_t otherwise);
