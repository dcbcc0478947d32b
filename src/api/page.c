#include "api/page.h"

#include <errno.h>

bool page_begin(struct request *r, char list, struct query_param *filters, size_t n,
                struct field_errors *errors, struct page *ret) {
    struct query_param params[2 + PAGE_FILTERS_MAX] = {{.name = "limit"}, {.name = "cursor"}};
    CHECK(n <= PAGE_FILTERS_MAX);
    for (size_t i = 0; i < n; i++)
        params[2 + i] = filters[i];
    if (!request_query(r, params, 2 + n, errors))
        return false;
    for (size_t i = 0; i < n; i++)
        filters[i] = params[2 + i];
    *ret = (struct page){.list = list, .data = json_array()};
    if (!ret->data) {
        request_unavailable(r, -ENOMEM);
        return false;
    }
    ret->limit = query_limit(&params[0], errors);
    (void)query_cursor(&params[1], list, &ret->before, 1, errors);
    return true;
}

struct store_reader *page_reader(struct request *r, struct page *p, const struct field_errors *errors) {
    struct store_reader *reader = NULL;
    if (field_errors_count(errors))
        request_invalid(r, errors);
    else
        reader = request_reader(r);
    if (!reader)
        page_drop(p);
    return reader;
}

int page_add(struct page *p, uint64_t position, json_t *row) {
    if (!row)
        return -ENOMEM;
    if (json_array_size(p->data) == p->limit) {
        p->more = true;
        json_decref(row);
        return 1;
    }
    p->last = position;
    return json_array_append_new(p->data, row) == 0 ? 0 : -ENOMEM;
}

void page_answer(struct request *r, struct page *p, int result) {
    char cursor[CURSOR_TEXT_SIZE];
    cursor_format(p->list, &p->last, 1, cursor);
    if (result < 0)
        request_unavailable(r, result);
    else
        request_json(r, 200,
                     json_pack("{s:O, s:s?}", "data", p->data, "next_cursor", p->more ? cursor : NULL));
    page_drop(p);
}

void page_drop(struct page *p) {
    json_decref(TAKE_PTR(p->data));
}
