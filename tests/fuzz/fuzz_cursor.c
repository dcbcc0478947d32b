/* Lists: any bytes as a query string and as a cursor. The first byte chooses the list and how many numbers
 * its cursor has. */
#include <errno.h>

#include "api/query.h"
#include "core/id.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A cursor has one spelling: what is accepted is what this server wrote. */
static void check_cursor(struct slice text, char list, size_t parts_n) {
    struct query_param p = {.name = "cursor", .value = text};
    struct field_errors errors;
    field_errors_init(&errors);
    uint64_t parts[CURSOR_PARTS_MAX] = {0};
    bool good = query_cursor(&p, list, parts, parts_n, &errors);
    CHECK(good == (text.p && errors.n == 0));
    if (!good)
        return;
    char again[CURSOR_TEXT_SIZE];
    cursor_format(list, parts, parts_n, again);
    CHECK(slice_eq(text, slice_of(again)));
    for (size_t i = 0; i < parts_n; i++)
        CHECK(parts[i] > 0 && parts[i] <= ID_KEY_MAX);
    /* Of another list, or of as many numbers as another list's, it is none. */
    CHECK(!query_cursor(&p, (char)(list ^ 1), parts, parts_n, &errors));
    CHECK(!query_cursor(&p, list, parts, 3 - parts_n, &errors));
}

static void check_values(struct query_param *p, const char *begin, const char *end,
                         struct field_errors *errors) {
    for (int i = 0; i < 4; i++)
        CHECK(!p[i].value.p || (p[i].value.p >= begin && p[i].value.p + p[i].value.n <= end));
    size_t limit = query_limit(&p[0], errors);
    CHECK(limit >= 1 && limit <= QUERY_LIMIT_MAX);
    int64_t since = query_time(&p[2], errors);
    CHECK(p[2].value.p ? since > 0 : since == 0);
}

static void check_query(struct slice text, char list, size_t parts_n) {
    struct query_param p[] = {{.name = "limit"}, {.name = "cursor"}, {.name = "since"}, {.name = "q"}};
    struct field_errors errors;
    field_errors_init(&errors);
    _cleanup_free_ char *copy = malloc(text.n + 1);
    CHECK(copy);
    memcpy(copy, text.p, text.n);
    int r = query_parse(copy, text.n, p, 4, &errors);
    CHECK(r == 0 || r == -EINVAL);
    if (r < 0)
        return;
    check_values(p, copy, copy + text.n, &errors);
    check_cursor(p[1].value, list, parts_n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    static const char lists[] = "edatsukcl";
    char list = lists[(data[0] >> 1) % (sizeof lists - 1)];
    size_t parts_n = 1 + (data[0] & 1);
    struct slice text = {(const char *)data + 1, size - 1};
    check_cursor(text, list, parts_n);
    check_query(text, list, parts_n);
    return 0;
}
