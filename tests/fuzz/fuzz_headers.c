/* Custom headers of a subscription: any names and values. Each header is a byte with the length of its name,
 * the name, and its value up to the next byte 0xff. What is accepted goes into the request as whole lines. */
#include <jansson.h>

#include "core/subscription.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static json_t *headers_of(const uint8_t *data, size_t size) {
    json_t *headers = json_object();
    CHECK(headers);
    while (size > 1) {
        size_t name_n = data[0] < size - 1 ? data[0] : size - 1;
        const char *name = (const char *)data + 1, *value = name + name_n;
        size_t left = size - 1 - name_n;
        const char *stop = left ? memchr(value, 0xff, left) : NULL;
        size_t value_n = stop ? (size_t)(stop - value) : left;
        /* As of a parser: names without a NUL, both of them UTF-8. */
        json_t *text = json_stringn(value, value_n);
        _cleanup_free_ char *key =
            memchr(name, '\0', name_n) ? NULL : slice_dup((struct slice){name, name_n});
        if (text && key)
            (void)json_object_set(headers, key, text); /* refuses what is not UTF-8 */
        json_decref(text);
        size_t used = 1 + name_n + value_n + (stop ? 1 : 0);
        data += used;
        size -= used;
    }
    return headers;
}

static bool is_reserved(struct slice name) {
    static const char *const reserved[] = {"host",
                                           "content-length",
                                           "transfer-encoding",
                                           "connection",
                                           "content-type",
                                           "user-agent",
                                           "webhook-id",
                                           "webhook-signature",
                                           "webhook-timestamp",
                                           "webhook-x",
                                           "posthorn-event-id",
                                           "posthorn-attempt",
                                           "posthorn-x",
                                           "proxy-connection",
                                           "keep-alive",
                                           "te",
                                           "trailer",
                                           "upgrade",
                                           "expect",
                                           "proxy-authorization"};
    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++)
        if (slice_eq_nocase(name, slice_of(reserved[i])))
            return true;
    return false;
}

/* Takes "Name: value\r\n" off the front, and holds that it is no more and no less than that. */
static void check_line(struct slice *rest, const json_t *headers) {
    const char *end = memmem(rest->p, rest->n, "\r\n", 2), *colon = memchr(rest->p, ':', rest->n);
    CHECK(end && colon && colon < end && colon > rest->p && colon[1] == ' ');
    struct slice name = {rest->p, (size_t)(colon - rest->p)};
    struct slice value = {colon + 2, (size_t)(end - colon - 2)};
    for (size_t i = 0; i < name.n; i++)
        CHECK(name.p[i] > ' ' && name.p[i] < 0x7f && !strchr("\"(),/:;<=>?@[\\]{}", name.p[i]));
    for (size_t i = 0; i < value.n; i++)
        CHECK((unsigned char)value.p[i] >= ' ' && value.p[i] != 0x7f);
    CHECK(!is_reserved(name) && name.n + value.n <= SUBSCRIPTION_HEADER_BYTES_MAX);
    _cleanup_free_ char *key = slice_dup(name);
    const json_t *given = json_object_get(headers, key);
    CHECK(slice_eq(value, (struct slice){json_string_value(given), json_string_length(given)}));
    *rest = (struct slice){end + 2, rest->n - (size_t)(end + 2 - rest->p)};
}

static void check_accepted(const json_t *doc, const json_t *headers) {
    _cleanup_subscription_ struct subscription *s = subscription_from_doc(doc, SLICE_NONE);
    CHECK(s);
    struct slice rest = slice_of(s->headers);
    size_t n = 0;
    for (; rest.n; n++)
        check_line(&rest, headers);
    CHECK(n == json_object_size(headers) && n <= SUBSCRIPTION_HEADERS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct field_errors errors;
    field_errors_init(&errors);
    json_t *headers = headers_of(data, size);
    json_t *body = json_pack("{s:s, s:O}", "url", "https://example.com/", "headers", headers);
    CHECK(body);
    json_t *doc = subscription_parse(body, &errors);
    CHECK((doc != NULL) == (field_errors_count(&errors) == 0));
    if (doc)
        check_accepted(doc, headers);
    json_decref(doc);
    json_decref(body);
    json_decref(headers);
    return 0;
}
