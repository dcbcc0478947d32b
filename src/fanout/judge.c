#include "fanout/judge.h"

#include <errno.h>

/* A failed allocation leaves the entry out of its table instead of ending the process. */
#define HASH_NONFATAL_OOM            1
#define uthash_nonfatal_oom(element) ((element)->left_out = true)
#include <uthash.h>

enum {
    PAYLOADS_KEPT = 4,
    NODES_KEPT_MAX = 65536, /* a greater payload is kept only until another event comes */
};

/* A filter that some subscriptions have, and what it said of the event it was asked about last. */
struct shared_filter {
    struct filter *filter;
    size_t uses;
    uint64_t event_key; /* 0: none yet */
    bool answer;
    bool left_out;
    UT_hash_handle hh;
};

struct payload {
    uint64_t event_key; /* 0: none */
    struct json_tape tape;
};

struct judge {
    struct shared_filter *filters; /* by program */
    struct shared_filter **by_no;  /* [subscription number]; NULL: it has none */
    size_t by_no_cap;
    struct payload payloads[PAYLOADS_KEPT];
    size_t next_payload;
};

int judge_new(struct judge **ret) {
    struct judge *j = calloc(1, sizeof *j);
    if (!j)
        return -ENOMEM;
    *ret = j;
    return 0;
}

static void drop(struct judge *j, struct shared_filter *f) {
    HASH_DEL(j->filters, f);
    filter_unref(f->filter);
    free(f);
}

void judge_free(struct judge *j) {
    if (!j)
        return;
    struct shared_filter *f, *next;
    HASH_ITER (hh, j->filters, f, next) {
        drop(j, f);
    }
    for (size_t i = 0; i < PAYLOADS_KEPT; i++)
        json_tape_free(&j->payloads[i].tape);
    free(j->by_no);
    free(j);
}

/* ---- the filters there are ---- */

static int make_room(struct judge *j, uint32_t no) {
    if (no < j->by_no_cap)
        return 0;
    size_t cap = j->by_no_cap ? j->by_no_cap : 64;
    while (cap <= no)
        cap *= 2;
    struct shared_filter **by_no = realloc(j->by_no, cap * sizeof(struct shared_filter *));
    if (!by_no)
        return -ENOMEM;
    memset(by_no + j->by_no_cap, 0, (cap - j->by_no_cap) * sizeof(struct shared_filter *));
    j->by_no = by_no;
    j->by_no_cap = cap;
    return 0;
}

/* The entry with an equal filter, made when there is none; NULL: memory is out. */
static struct shared_filter *share(struct judge *j, struct filter *filter) {
    struct slice program = filter_program(filter);
    struct shared_filter *f;
    HASH_FIND(hh, j->filters, program.p, program.n, f);
    if (f)
        return f;
    f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    f->filter = filter_ref(filter);
    HASH_ADD_KEYPTR(hh, j->filters, program.p, program.n, f);
    if (!f->left_out)
        return f;
    filter_unref(f->filter);
    free(f);
    return NULL;
}

int judge_put(struct judge *j, struct subscription *s) {
    struct shared_filter *f = NULL;
    if (s->filter) {
        f = make_room(j, s->no) == 0 ? share(j, s->filter) : NULL;
        if (!f)
            return -ENOMEM;
        f->uses++;
        struct filter *own = s->filter;
        s->filter = filter_ref(f->filter);
        filter_unref(own);
    }
    judge_remove(j, s->no);
    if (f)
        j->by_no[s->no] = f;
    return 0;
}

void judge_remove(struct judge *j, uint32_t subscription_no) {
    struct shared_filter *f = subscription_no < j->by_no_cap ? j->by_no[subscription_no] : NULL;
    if (!f)
        return;
    j->by_no[subscription_no] = NULL;
    if (--f->uses == 0)
        drop(j, f);
}

/* ---- asking them ---- */

static struct payload *find_payload(struct judge *j, uint64_t event_key) {
    for (size_t i = 0; i < PAYLOADS_KEPT; i++)
        if (j->payloads[i].event_key == event_key)
            return &j->payloads[i];
    return NULL;
}

/* Where the next payload goes; the large ones of other events go. */
static struct payload *make_payload(struct judge *j) {
    for (size_t i = 0; i < PAYLOADS_KEPT; i++) {
        if (j->payloads[i].tape.cap <= NODES_KEPT_MAX)
            continue;
        json_tape_free(&j->payloads[i].tape);
        j->payloads[i].event_key = 0;
    }
    j->next_payload = (j->next_payload + 1) % PAYLOADS_KEPT;
    return &j->payloads[j->next_payload];
}

static int read_payload(struct judge *j, const struct event_record *e, struct slice data,
                        const struct json_tape **ret) {
    struct payload *p = find_payload(j, e->id.key);
    if (!p) {
        p = make_payload(j);
        p->event_key = 0;
        int r = json_tape_read(&p->tape, data);
        if (r < 0)
            return r == -ENOMEM ? r : -EIO; /* what is published was JSON */
        p->event_key = e->id.key;
    }
    *ret = &p->tape;
    return 0;
}

int judge_wants(struct judge *j, uint32_t subscription_no, const struct event_record *e, uint64_t *steps) {
    struct shared_filter *f = subscription_no < j->by_no_cap ? j->by_no[subscription_no] : NULL;
    if (!f)
        return 1;
    if (f->event_key == e->id.key)
        return f->answer;
    struct filter_subject subject = {.type = e->type,
                                     .schema_version = e->schema_version,
                                     .ordering_key = e->ordering_key,
                                     .data = event_data(e->body, e->data_size)};
    int r = read_payload(j, e, subject.data, &subject.tape);
    if (r < 0)
        return r;
    f->answer = filter_matches(f->filter, &subject, steps);
    f->event_key = e->id.key;
    return f->answer;
}
