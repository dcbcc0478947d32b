/* An event as it is published, and the bodies a subscriber gets. The bytes of `data` are kept as they came.
 */
#pragma once

#include "base/json.h"
#include "core/field_errors.h"
#include "core/id.h"
#include "core/subscription.h"

enum {
    EVENT_TYPE_MAX = 128,
    EVENT_SCHEMA_VERSION_MAX = 64,
    EVENT_ORDERING_KEY_MAX = 255,
    IDEMPOTENCY_KEY_MAX = 255,
};

#define EVENT_DELIVER_AHEAD_MS_MAX (INT64_C(30) * 86400 * 1000)

enum {
    PUBLISH_STRINGS_SIZE =
        EVENT_TYPE_MAX + EVENT_SCHEMA_VERSION_MAX + EVENT_ORDERING_KEY_MAX + IDEMPOTENCY_KEY_MAX + 4
};

/* A parsed publish body. `data` points into the request; the texts are decoded copies in `strings`, each with
 * a NUL after it, so a copied struct still points into the first. Absent: p == NULL; schema_version has its
 * default then. */
struct publish {
    struct slice type, schema_version, ordering_key, idempotency_key;
    struct slice data;
    int64_t deliver_at; /* Unix ms, 0 when absent or not in the future */
    char strings[PUBLISH_STRINGS_SIZE];
};

/* Parses one publish body. `body` must be one whole JSON value. 0; -EBADMSG when it is not JSON (*ret_problem
 * says what is wrong, *ret_offset where); -EINVAL when it is not a valid event: `errors` has an entry a bad
 * field, their names preceded by `prefix` (such as "[3]."; ""); -EMSGSIZE when `data` has more than
 * data_bytes_max bytes, whatever else is wrong (`errors` says it too); -ENOMEM. `in_batch` allows
 * "idempotency_key"; `allow_reserved` allows types of "posthorn.". `now` is Unix ms. */
struct publish_rules {
    const char *prefix;
    bool in_batch, allow_reserved;
    size_t data_bytes_max;
    int64_t now;
};
int publish_parse(struct slice body, const struct publish_rules *rules, struct publish *ret,
                  struct field_errors *errors, const char **ret_problem, size_t *ret_offset) MUST_USE;

/* [A-Za-z0-9_.-]{1,128} */
bool event_type_valid(struct slice type);
/* "posthorn.…": the server's own, which no producer may publish. */
bool event_type_reserved(struct slice type);

/* {"id":…,"type":…,"timestamp":…,"tenant_id":…,"schema_version":…,"data":…}; NULL when memory is out. The
 * data are the last bytes before the closing brace. */
struct blob *event_envelope(struct id id, const char *tenant_id, const struct publish *p);

/* The type within an envelope that event_envelope built; its characters need no escapes. */
struct slice event_envelope_type(struct slice envelope);

/* The data's bytes within an envelope. */
static inline struct slice event_data(struct slice envelope, size_t data_size) {
    CHECK(envelope.n > data_size);
    return (struct slice){envelope.p + envelope.n - 1 - data_size, data_size};
}

/* A structured CloudEvents 1.0 event (application/cloudevents+json) into out: look at buf_ok afterwards. The
 * schema version is the extension attribute "schemaversion", the ordering key, when there is one, "subject".
 */
struct event_meta {
    struct id id;
    struct slice type, schema_version, ordering_key;
    const char *tenant_id;
};
void event_cloudevents(const struct event_meta *m, struct slice data, struct buf *out);
