#include "cluster/plan.h"

struct share {
    uint32_t no;
    bool delivers;
    unsigned have, target;
};

/* The share of a node by its number; NULL: it is not alive. */
static struct share *share_of(struct share *shares, size_t n, uint32_t no) {
    for (size_t i = 0; i < n; i++)
        if (shares[i].no == no)
            return &shares[i];
    return NULL;
}

/* Whoever has most gets those that are left over, so that they need not move. */
static void set_targets(struct share *shares, size_t n, unsigned delivering) {
    for (size_t i = 0; i < n; i++)
        shares[i].target = shares[i].delivers ? PARTITIONS / delivering : 0;
    for (unsigned left = PARTITIONS % delivering; left > 0; left--) {
        struct share *most = NULL;
        for (size_t i = 0; i < n; i++)
            if (shares[i].delivers && shares[i].target == PARTITIONS / delivering &&
                (!most || shares[i].have > most->have))
                most = &shares[i];
        CHECK(most != NULL);
        most->target++;
    }
}

void plan_partitions(const struct plan_node *nodes, size_t n, enum tenant_tier tier,
                     const uint32_t owners[PARTITIONS], uint32_t me, struct partition_plan *ret) {
    struct share shares[CLUSTER_NODES_MAX], *of[PARTITIONS];
    unsigned delivering = 0;
    CHECK(n <= CLUSTER_NODES_MAX);
    ret->take_n = ret->give_n = 0;
    for (size_t i = 0; i < n; i++) {
        CHECK(nodes[i].no != 0 && (i == 0 || nodes[i].no > nodes[i - 1].no));
        shares[i] =
            (struct share){.no = nodes[i].no, .delivers = (nodes[i].tiers & 1U << (unsigned)tier) != 0};
        delivering += shares[i].delivers;
    }
    for (unsigned p = 0; p < PARTITIONS; p++) {
        of[p] = owners[p] ? share_of(shares, n, owners[p]) : NULL;
        if (of[p])
            of[p]->have++;
    }
    if (delivering)
        set_targets(shares, n, delivering);
    /* Downwards, so that what a node keeps are its first ones; then upwards, from what is to be shared out,
     * to those that lack some. A node gives all of a tier that it does not deliver. */
    bool pool[PARTITIONS];
    for (unsigned p = PARTITIONS; p-- > 0;) {
        pool[p] = !of[p] || of[p]->have > of[p]->target;
        if (of[p] && pool[p])
            of[p]->have--;
    }
    size_t next = 0;
    for (unsigned p = 0; p < PARTITIONS; p++) {
        if (!pool[p])
            continue;
        if (of[p] && of[p]->no == me)
            ret->give[ret->give_n++] = (uint16_t)p;
        while (next < n && shares[next].have >= shares[next].target)
            next++;
        if (next == n) /* nobody delivers this tier */
            continue;
        shares[next].have++;
        if (!of[p] && shares[next].no == me)
            ret->take[ret->take_n++] = (uint16_t)p;
    }
}
