#include "core/merge_patch.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "base/cleanup.h"

DEFINE_CLEANUP(cleanup_json, json_t, json_decref)
#define _cleanup_json_ _cleanup_(cleanup_json)

json_t *json_merge_patch(const json_t *target, const json_t *patch) {
    if (!json_is_object(patch))
        return json_deep_copy(patch);
    _cleanup_json_ json_t *merged = json_is_object(target) ? json_deep_copy(target) : json_object();
    if (!merged)
        return NULL;
    /* jansson's iterators want an object that may change. */
    json_t *from = (json_t *)(uintptr_t)patch;
    for (void *at = json_object_iter(from); at; at = json_object_iter_next(from, at)) {
        const char *name = json_object_iter_key(at);
        const json_t *change = json_object_iter_value(at);
        if (json_is_null(change))
            (void)json_object_del(merged, name); /* fails when there is none: then that is so already */
        else if (json_object_set_new(merged, name, json_merge_patch(json_object_get(merged, name), change)) <
                 0)
            return NULL;
    }
    return TAKE_PTR(merged);
}

int json_keep_nulls(json_t *merged, const json_t *patch, const char *const *but, size_t n) {
    json_t *from = (json_t *)(uintptr_t)patch;
    for (void *at = json_object_iter(from); at; at = json_object_iter_next(from, at)) {
        const char *name = json_object_iter_key(at);
        size_t i = 0;
        while (i < n && strcmp(name, but[i]) != 0)
            i++;
        if (json_is_null(json_object_iter_value(at)) && i == n && json_is_object(merged) &&
            json_object_set_new(merged, name, json_null()) < 0)
            return -ENOMEM;
    }
    return 0;
}
