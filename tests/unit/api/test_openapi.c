/* openapi.json and the route table tell of the same operations. What the operations answer is held against
 * the document by tests/e2e. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "api/routes.h"

static json_t *document;

static int load(void **state) {
    (void)state;
    json_error_t error;
    document = json_loads(openapi_document, JSON_REJECT_DUPLICATES, &error);
    if (!document)
        fprintf(stderr, "openapi.json:%d: %s\n", error.line, error.text);
    return document ? 0 : -1;
}

static int drop(void **state) {
    (void)state;
    json_decref(document);
    return 0;
}

/* The operation of a method and path, or NULL. */
static json_t *operation(const char *path, const char *method) {
    char name[16] = "";
    for (size_t i = 0; method[i] && i + 1 < sizeof name; i++)
        name[i] = (char)(method[i] | 0x20);
    return json_object_get(json_object_get(json_object_get(document, "paths"), path), name);
}

static void test_version(void **state) {
    (void)state;
    const json_t *info = json_object_get(document, "info");
    assert_string_equal(json_string_value(json_object_get(document, "openapi")), "3.1.0");
    assert_string_equal(json_string_value(json_object_get(info, "version")), POSTHORN_VERSION);
}

static void test_every_route_is_told_of(void **state) {
    (void)state;
    size_t i = 0;
    for (const struct route *r; (r = routes_at(i)); i++)
        if (!operation(r->pattern, r->method))
            fail_msg("openapi.json lacks %s %s of src/api/routes.c", r->method, r->pattern);
    assert_true(i > 30);
}

static bool is_method(const char *name) {
    return strcmp(name, "parameters") != 0 && strcmp(name, "summary") != 0 &&
           strcmp(name, "description") != 0;
}

static bool is_route(const char *path, const char *method) {
    const struct route *r;
    for (size_t i = 0; (r = routes_at(i)); i++)
        if (strcmp(r->pattern, path) == 0 && strcasecmp(r->method, method) == 0)
            return true;
    return false;
}

static void test_nothing_else_is_told_of(void **state) {
    (void)state;
    const char *path, *method;
    json_t *item, *op;
    json_object_foreach (json_object_get(document, "paths"), path, item)
        json_object_foreach (item, method, op)
            if (is_method(method) && !is_route(path, method))
                fail_msg("openapi.json tells of %s %s, which src/api/routes.c lacks", method, path);
}

/* security is [] for SCOPE_NONE, else [{"key": ["the:scope"]}], with one more of these for each other scope
 * that will do. */
static void test_scopes(void **state) {
    (void)state;
    const struct route *r;
    for (size_t i = 0; (r = routes_at(i)); i++) {
        const json_t *security = json_object_get(operation(r->pattern, r->method), "security");
        assert_true(json_is_array(security));
        uint32_t told = SCOPE_NONE;
        for (size_t k = 0; k < json_array_size(security); k++) {
            const json_t *scopes = json_object_get(json_array_get(security, k), "key");
            assert_int_equal(json_array_size(scopes), 1);
            told |= scope_named(slice_of(json_string_value(json_array_get(scopes, 0))));
        }
        if (told != r->scope)
            fail_msg("%s %s needs other scopes than openapi.json tells of", r->method, r->pattern);
    }
}

/* A body is told of only where one is taken. */
static void test_bodies(void **state) {
    (void)state;
    const struct route *r;
    for (size_t i = 0; (r = routes_at(i)); i++)
        if (json_object_get(operation(r->pattern, r->method), "requestBody") && r->body == BODY_NONE)
            fail_msg("%s %s takes no body", r->method, r->pattern);
}

static void test_operation_ids(void **state) {
    (void)state;
    json_t *seen = json_object();
    const struct route *r;
    for (size_t i = 0; (r = routes_at(i)); i++) {
        const char *id = json_string_value(json_object_get(operation(r->pattern, r->method), "operationId"));
        assert_non_null(id);
        if (json_object_get(seen, id))
            fail_msg("two operations are called %s", id);
        assert_int_equal(json_object_set_new(seen, id, json_true()), 0);
    }
    json_decref(seen);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version),
        cmocka_unit_test(test_every_route_is_told_of),
        cmocka_unit_test(test_nothing_else_is_told_of),
        cmocka_unit_test(test_scopes),
        cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_operation_ids),
    };
    return cmocka_run_group_tests(tests, load, drop);
}
