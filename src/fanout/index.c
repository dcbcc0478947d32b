#include "fanout/index.h"

#include <errno.h>
#include <uthash.h>

#include "core/event.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* The tenant's number, then a name: exact, "prefix.*", or empty for all. */
enum { KEY_SIZE = 4 + 130 + 1 };

struct number_list {
    uint32_t *numbers; /* ascending; `few` while they fit there */
    uint32_t n, cap;
    uint32_t few[2]; /* most names are listed once */
    UT_hash_handle hh;
    char key[];
};

struct index {
    struct number_list *lists;
    struct subscription **by_no; /* [no], NULL where there is none */
    size_t by_no_cap;
    uint32_t upper;
};

int index_new(struct index **ret) {
    struct index *x = calloc(1, sizeof *x);
    if (!x)
        return -ENOMEM;
    *ret = x;
    return 0;
}

static void free_list(struct index *x, struct number_list *list) {
    HASH_DEL(x->lists, list);
    if (list->numbers != list->few)
        free(list->numbers);
    free(list);
}

void index_free(struct index *x) {
    if (!x)
        return;
    struct number_list *list, *next;
    HASH_ITER (hh, x->lists, list, next) {
        free_list(x, list);
    }
    for (uint32_t no = 0; no < x->by_no_cap; no++)
        subscription_unref(x->by_no[no]);
    free(x->by_no);
    free(x);
}

static size_t make_key(char key[KEY_SIZE], uint32_t tenant_no, struct slice name, bool prefix) {
    CHECK(name.n <= 130);
    memcpy(key, &tenant_no, sizeof tenant_no);
    memcpy(key + sizeof tenant_no, name.p, name.n);
    size_t n = sizeof tenant_no + name.n;
    if (prefix)
        key[n++] = '*';
    return n;
}

static struct number_list *find_list(const struct index *x, const char *key, size_t key_n) {
    struct number_list *list;
    HASH_FIND(hh, x->lists, key, key_n, list);
    return list;
}

/* The position of the first number that is at least `no`. */
static size_t lower_bound(const struct number_list *list, uint32_t no) {
    size_t low = 0, high = list->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (list->numbers[mid] < no)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static struct number_list *list_for(struct index *x, uint32_t tenant_no, struct slice name) {
    char key[KEY_SIZE];
    size_t key_n = make_key(key, tenant_no, name, false);
    struct number_list *list = find_list(x, key, key_n);
    if (list)
        return list;
    list = calloc(1, sizeof *list + key_n + 1);
    if (!list)
        return NULL;
    list->numbers = list->few;
    list->cap = COUNT(list->few);
    memcpy(list->key, key, key_n);
    HASH_ADD_KEYPTR(hh, x->lists, list->key, key_n, list);
    return list;
}

static int grow(struct number_list *list) {
    bool few = list->numbers == list->few;
    uint32_t *numbers = realloc(few ? NULL : list->numbers, list->cap * 2 * sizeof *numbers);
    if (!numbers)
        return -ENOMEM;
    if (few)
        memcpy(numbers, list->few, sizeof list->few);
    list->numbers = numbers;
    list->cap *= 2;
    return 0;
}

static int list_add(struct index *x, uint32_t tenant_no, struct slice name, uint32_t no) {
    struct number_list *list = list_for(x, tenant_no, name);
    if (!list)
        return -ENOMEM;
    size_t at = lower_bound(list, no);
    if (at < list->n && list->numbers[at] == no)
        return 0;
    if (list->n == list->cap && grow(list) < 0)
        return -ENOMEM;
    memmove(list->numbers + at + 1, list->numbers + at, (list->n - at) * sizeof *list->numbers);
    list->numbers[at] = no;
    list->n++;
    return 0;
}

static void list_drop(struct index *x, uint32_t tenant_no, struct slice name, uint32_t no) {
    char key[KEY_SIZE];
    struct number_list *list = find_list(x, key, make_key(key, tenant_no, name, false));
    if (!list)
        return;
    size_t at = lower_bound(list, no);
    if (at == list->n || list->numbers[at] != no)
        return;
    memmove(list->numbers + at, list->numbers + at + 1, (list->n - at - 1) * sizeof *list->numbers);
    if (--list->n == 0) {
        free_list(x, list);
    }
}

static bool matches_new_events(const struct subscription *s) {
    return s->status == SUBSCRIPTION_ACTIVE || s->status == SUBSCRIPTION_PAUSED;
}

static void unlist(struct index *x, const struct subscription *s) {
    if (s->event_types_n == 0)
        list_drop(x, s->tenant_no, SLICE_LIT(""), s->no);
    const char *type = s->event_types;
    for (uint16_t i = 0; i < s->event_types_n; i++, type = event_type_after(type))
        list_drop(x, s->tenant_no, slice_of(type), s->no);
}

static int enlist(struct index *x, const struct subscription *s) {
    int r = s->event_types_n == 0 ? list_add(x, s->tenant_no, SLICE_LIT(""), s->no) : 0;
    const char *type = s->event_types;
    for (uint16_t i = 0; i < s->event_types_n && r == 0; i++, type = event_type_after(type))
        r = list_add(x, s->tenant_no, slice_of(type), s->no);
    return r;
}

static int make_room(struct index *x, uint32_t no) {
    if (no < x->by_no_cap)
        return 0;
    size_t cap = x->by_no_cap ? x->by_no_cap : 64;
    while (cap <= no)
        cap *= 2;
    struct subscription **by_no = realloc(x->by_no, cap * sizeof(struct subscription *));
    if (!by_no)
        return -ENOMEM;
    memset(by_no + x->by_no_cap, 0, (cap - x->by_no_cap) * sizeof(struct subscription *));
    x->by_no = by_no;
    x->by_no_cap = cap;
    return 0;
}

int index_put(struct index *x, struct subscription *s) {
    CHECK(s->no > 0);
    int r = make_room(x, s->no);
    if (r < 0)
        return r;
    struct subscription *before = x->by_no[s->no];
    if (before && matches_new_events(before))
        unlist(x, before);
    x->by_no[s->no] = subscription_ref(s);
    subscription_unref(before);
    if (s->no > x->upper)
        x->upper = s->no;
    return matches_new_events(s) ? enlist(x, s) : 0;
}

void index_remove(struct index *x, uint32_t no) {
    struct subscription *s = index_get(x, no);
    if (!s)
        return;
    if (matches_new_events(s))
        unlist(x, s);
    x->by_no[no] = NULL;
    subscription_unref(s);
}

struct subscription *index_get(const struct index *x, uint32_t no) {
    return no < x->by_no_cap ? x->by_no[no] : NULL;
}

uint32_t index_upper(const struct index *x) {
    return x->upper;
}

static void walk_list(struct index_walk *w, uint32_t tenant_no, struct slice name, bool prefix,
                      uint32_t cursor) {
    char key[KEY_SIZE];
    struct number_list *list = find_list(w->index, key, make_key(key, tenant_no, name, prefix));
    if (!list)
        return;
    size_t at = cursor == UINT32_MAX ? list->n : lower_bound(list, cursor + 1);
    if (at == list->n)
        return;
    CHECK(w->n < INDEX_LISTS_MAX);
    w->lists[w->n] = list;
    w->at[w->n++] = at;
}

void index_match(const struct index *x, uint32_t tenant_no, struct slice type, uint32_t cursor,
                 struct index_walk *ret) {
    CHECK(type.n <= 128);
    *ret = (struct index_walk){.index = x};
    walk_list(ret, tenant_no, type, false, cursor);
    if (!event_type_reserved(type))
        walk_list(ret, tenant_no, SLICE_LIT(""), false, cursor);
    /* "a.b.c" is meant by "a.*" and "a.b.*". More dots than lists can only come from empty parts: cut. */
    for (size_t i = 0, dots = 0; i < type.n && dots < INDEX_DOTS_MAX; i++)
        if (type.p[i] == '.' && ++dots)
            walk_list(ret, tenant_no, (struct slice){type.p, i + 1}, true, cursor);
}

size_t index_walk_bound(const struct index_walk *w) {
    size_t bound = 0;
    for (size_t i = 0; i < w->n; i++)
        bound += w->lists[i]->n - w->at[i];
    return bound;
}

struct subscription *index_walk_next(struct index_walk *w) {
    uint32_t least = UINT32_MAX;
    for (size_t i = 0; i < w->n; i++)
        if (w->at[i] < w->lists[i]->n && w->lists[i]->numbers[w->at[i]] < least)
            least = w->lists[i]->numbers[w->at[i]];
    if (least == UINT32_MAX)
        return NULL;
    for (size_t i = 0; i < w->n; i++)
        if (w->at[i] < w->lists[i]->n && w->lists[i]->numbers[w->at[i]] == least)
            w->at[i]++;
    struct subscription *s = index_get(w->index, least);
    CHECK(s != NULL);
    return s;
}
