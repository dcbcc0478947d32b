#include "observe/subscription_series.h"

#include <errno.h>
#include <pthread.h>

#include "core/tenant.h"

struct series {
    atomic_uint_fast32_t no; /* 0: free; set once, after the labels */
    struct id id;
    char tenant_id[TENANT_ID_MAX + 1];
    atomic_uint_fast64_t outcomes[2]; /* failures, successes */
};

struct subscription_series {
    pthread_mutex_t lock; /* for taking a slot */
    unsigned max;
    atomic_uint taken;
    size_t slots_n; /* a power of two, at least twice max: a search always comes to a free one soon */
    struct series other;
    struct series slots[];
};

int subscription_series_new(unsigned max, struct subscription_series **ret) {
    CHECK(max >= 1 && max <= SUBSCRIPTION_SERIES_MAX);
    size_t slots = 2;
    while (slots < (size_t)max * 2)
        slots *= 2;
    struct subscription_series *s = calloc(1, sizeof *s + slots * sizeof s->slots[0]);
    if (!s)
        return -ENOMEM;
    pthread_mutex_init(&s->lock, NULL);
    s->max = max;
    s->slots_n = slots;
    *ret = s;
    return 0;
}

void subscription_series_free(struct subscription_series *s) {
    if (!s)
        return;
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* The subscription's slot, or the free one where it would be. */
static struct series *find(struct subscription_series *s, uint32_t no) {
    for (size_t at = mix64(no);; at++) {
        struct series *slot = &s->slots[at & (s->slots_n - 1)];
        uint32_t held = (uint32_t)atomic_load_explicit(&slot->no, memory_order_acquire);
        if (held == no || held == 0)
            return slot;
    }
}

static struct series *take(struct subscription_series *s, uint32_t no, struct id id, const char *tenant_id) {
    pthread_mutex_lock(&s->lock);
    struct series *slot = find(s, no);
    if (!atomic_load(&slot->no) && atomic_load(&s->taken) == s->max) {
        slot = &s->other;
    } else if (!atomic_load(&slot->no)) {
        slot->id = id;
        memcpy(slot->tenant_id, tenant_id, strnlen(tenant_id, TENANT_ID_MAX));
        atomic_fetch_add(&s->taken, 1);
        atomic_store_explicit(&slot->no, no, memory_order_release);
    }
    pthread_mutex_unlock(&s->lock);
    return slot;
}

void subscription_series_count(struct subscription_series *s, uint32_t no, struct id id,
                               const char *tenant_id, bool success) {
    CHECK(no != 0);
    struct series *slot = find(s, no);
    if (!atomic_load_explicit(&slot->no, memory_order_relaxed))
        slot = atomic_load(&s->taken) < s->max ? take(s, no, id, tenant_id) : &s->other;
    atomic_fetch_add_explicit(&slot->outcomes[success], 1, memory_order_relaxed);
}

static void render_one(struct series *s, const char *id, struct buf *out) {
    static const char *const outcomes[] = {"failure", "success"};
    for (int i = 0; i < 2; i++)
        buf_addf(
            out,
            "posthorn_subscription_attempts_total{tenant=\"%s\",subscription=\"%s\",outcome=\"%s\"} %llu\n",
            s->tenant_id, id, outcomes[i],
            (unsigned long long)atomic_load_explicit(&s->outcomes[i], memory_order_relaxed));
}

void subscription_series_render(struct subscription_series *s, struct buf *out) {
    buf_add_str(out, "# HELP posthorn_subscription_attempts_total Attempts by subscription, as many as "
                     "metrics-per-subscription says; the others together.\n"
                     "# TYPE posthorn_subscription_attempts_total counter\n");
    for (size_t i = 0; i < s->slots_n; i++) {
        if (!atomic_load_explicit(&s->slots[i].no, memory_order_acquire))
            continue;
        char id[ID_TEXT_SIZE];
        id_format(ID_SUBSCRIPTION, s->slots[i].id, id);
        render_one(&s->slots[i], id, out);
    }
    render_one(&s->other, "other", out);
}
