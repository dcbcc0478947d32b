#include "cluster/lane_starts.h"

#include <errno.h>
#include <uthash.h>

struct known_lane {
    uint32_t no;
    struct lane_start start;
    UT_hash_handle hh;
};

static struct known_lane *lane_of(struct lane_starts *l, uint32_t no) {
    struct known_lane *k;
    HASH_FIND_INT(l->known, &no, k);
    if (k || !(k = calloc(1, sizeof *k)))
        return k;
    k->no = no;
    HASH_ADD_INT(l->known, no, k);
    return k;
}

static int keep(void *arg, uint32_t subscription_no, struct slice state) {
    struct lane_memory memory;
    if (!lane_memory_read(state, &memory)) /* of another version: the lane learns anew */
        return 0;
    struct known_lane *k = lane_of(arg, subscription_no);
    if (!k)
        return -ENOMEM;
    k->start.memory = memory;
    return 0;
}

int lane_starts_read(struct lane_starts *l, struct store_reader *r) {
    return store_each_lane_state(r, keep, l);
}

int lane_starts_inherit(struct lane_starts *l, uint32_t subscription_no) {
    struct known_lane *k = lane_of(l, subscription_no);
    if (!k)
        return -ENOMEM;
    k->start.inherited++;
    return 0;
}

struct lane_start lane_starts_of(const struct lane_starts *l, uint32_t subscription_no) {
    const struct known_lane *k;
    HASH_FIND_INT(l->known, &subscription_no, k);
    struct lane_start start = k ? k->start : (struct lane_start){0};
    start.taken_over = l->taken_over;
    return start;
}

void lane_starts_clear(struct lane_starts *l) {
    struct known_lane *k, *next;
    HASH_ITER (hh, l->known, k, next) {
        HASH_DEL(l->known, k);
        free(k);
    }
}
