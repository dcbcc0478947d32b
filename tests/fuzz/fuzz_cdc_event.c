/* Contents of messages that producers write into the log: any bytes. jansson is the second opinion on what
 * they say. */
#include <errno.h>
#include <jansson.h>

#include "ingest/cdc_event.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void compare(const json_t *object, const char *name, const struct buf *ours) {
    const json_t *theirs = json_object_get(object, name);
    if (ours->n && !memmem(ours->p, ours->n, "\xEF\xBF\xBD", 3)) /* a half of a surrogate pair */
        CHECK(json_is_string(theirs) && strcmp(json_string_value(theirs), ours->p) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct cdc_event e = {0};
    _cleanup_buf_ struct buf reason = {0};
    int r = cdc_event_of_message((struct slice){(const char *)data, size}, &e, &reason);
    CHECK(r == 0 || (r == -EINVAL && reason.n));
    json_t *object = r == 0 ? json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL) : NULL;
    if (object) { /* jansson refuses some numbers, and escapes in data */
        compare(object, "type", &e.type);
        compare(object, "tenant", &e.tenant);
        compare(object, "ordering_key", &e.ordering_key);
        compare(object, "schema_version", &e.schema_version);
        json_t *value = json_loadb(e.data.p, e.data.n, JSON_DECODE_ANY, NULL);
        CHECK(json_equal(value, json_object_get(object, "data")));
        json_decref(value);
    }
    json_decref(object);
    cdc_event_free(&e);
    return 0;
}
