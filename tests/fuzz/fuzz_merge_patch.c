/* Merge patches: two JSON texts with a NUL between them. A second reading of RFC 7396 must come to the same;
 * and what a patch makes of a subscription is valid, or refused with a reason. */
#include <jansson.h>

#include "core/merge_patch.h"
#include "core/subscription.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NESTED_MAX = 64 };

static json_t *load(struct slice text) {
    return text.n ? json_loadb(text.p, text.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL) : NULL;
}

static int depth(json_t *value) {
    int deepest = 0;
    const char *name;
    json_t *member;
    size_t i;
    json_object_foreach (value, name, member) {
        int d = depth(member);
        deepest = d > deepest ? d : deepest;
    }
    json_array_foreach (value, i, member) {
        int d = depth(member);
        deepest = d > deepest ? d : deepest;
    }
    return deepest + 1;
}

/* The pseudo code of RFC 7396 §2, to the letter: changes target, which the caller owns. */
static json_t *merge_patch(json_t *target, json_t *patch) {
    const char *name;
    json_t *value;
    if (!json_is_object(patch)) {
        json_decref(target);
        return json_deep_copy(patch);
    }
    if (!json_is_object(target)) {
        json_decref(target);
        target = json_object();
    }
    json_object_foreach (patch, name, value) {
        json_t *before = json_incref(json_object_get(target, name));
        (void)json_object_del(target, name);
        if (json_is_null(value))
            json_decref(before);
        else
            CHECK(json_object_set_new(target, name, merge_patch(before, value)) == 0);
    }
    return target;
}

static void check_merge(json_t *target, json_t *patch) {
    json_t *target_before = json_deep_copy(target), *patch_before = json_deep_copy(patch);
    json_t *merged = json_merge_patch(target, patch);
    json_t *expected = merge_patch(json_deep_copy(target), patch);
    CHECK(merged && json_equal(merged, expected));
    CHECK(json_equal(target, target_before) && json_equal(patch, patch_before));
    json_t *again = json_merge_patch(merged, patch);
    CHECK(json_equal(again, merged));
    json_decref(again);
    json_decref(expected);
    json_decref(merged);
    json_decref(patch_before);
    json_decref(target_before);
}

/* A document that was accepted, patched and accepted, is its own normal form. */
static void check_subscription(json_t *target, json_t *patch) {
    static struct field_errors errors;
    field_errors_init(&errors);
    json_t *stored = subscription_parse(target, &errors);
    if (!stored || !json_is_object(patch)) {
        json_decref(stored);
        return;
    }
    json_t *merged = subscription_merge(stored, patch);
    CHECK(merged);
    json_t *doc = subscription_parse(merged, &errors);
    CHECK((doc != NULL) == (field_errors_count(&errors) == 0));
    if (doc) {
        json_t *again = subscription_parse(doc, &errors);
        CHECK(again && json_equal(again, doc));
        _cleanup_subscription_ struct subscription *s = subscription_from_doc(doc, SLICE_NONE);
        CHECK(s);
        json_decref(again);
    }
    json_decref(doc);
    json_decref(merged);
    json_decref(stored);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *begin = (const char *)data, *cut = size ? memchr(begin, '\0', size) : NULL;
    if (!cut)
        return 0;
    json_t *target = load((struct slice){begin, (size_t)(cut - begin)});
    json_t *patch = load((struct slice){cut + 1, size - (size_t)(cut + 1 - begin)});
    if (target && patch && depth(target) <= NESTED_MAX && depth(patch) <= NESTED_MAX) {
        check_merge(target, patch);
        check_subscription(target, patch);
    }
    json_decref(target);
    json_decref(patch);
    return 0;
}
