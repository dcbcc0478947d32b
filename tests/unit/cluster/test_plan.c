#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/random.h"
#include "cluster/plan.h"

enum { HISTORIES = 60, STEPS = 40, ROUNDS_MAX = 4, NODES = 9 };

/* What the nodes of a played cluster read in the store. */
struct cluster {
    struct plan_node nodes[CLUSTER_NODES_MAX];
    size_t n;
    uint32_t last_no;
    uint32_t owners[TIERS][PARTITIONS];
};

static unsigned owned(const struct cluster *c, int tier, uint32_t no) {
    unsigned n = 0;
    for (unsigned p = 0; p < PARTITIONS; p++)
        n += c->owners[tier][p] == no;
    return n;
}

static unsigned delivering(const struct cluster *c, int tier) {
    unsigned n = 0;
    for (size_t i = 0; i < c->n; i++)
        n += (c->nodes[i].tiers >> tier & 1) != 0;
    return n;
}

/* The fewest partitions that can change hands: what is above the base of each node, but for one each of as
 * many nodes as there are left over. */
static unsigned least_moves(const struct cluster *c, int tier) {
    unsigned n = delivering(c, tier), moves = 0;
    unsigned base = n ? PARTITIONS / n : 0, left = n ? PARTITIONS % n : 0;
    for (size_t i = 0; i < c->n; i++) {
        unsigned have = owned(c, tier, c->nodes[i].no);
        if (!(c->nodes[i].tiers >> tier & 1)) {
            moves += have;
        } else if (have > base) {
            moves += have - base - (left > 0);
            left -= left > 0;
        }
    }
    return moves;
}

static bool alive(const struct cluster *c, uint32_t no) {
    for (size_t i = 0; i < c->n; i++)
        if (c->nodes[i].no == no)
            return true;
    return false;
}

/* Each node does what its plan says, one after another, from a view that all of them read before. Returns how
 * many partitions were given. */
static unsigned play_round(struct cluster *c, int tier, bool *ret_changed) {
    uint32_t view[PARTITIONS];
    unsigned given = 0;
    memcpy(view, c->owners[tier], sizeof view);
    *ret_changed = false;
    for (size_t i = 0; i < c->n; i++) {
        struct partition_plan plan;
        uint32_t me = c->nodes[i].no;
        plan_partitions(c->nodes, c->n, (enum tenant_tier)tier, view, me, &plan);
        for (size_t k = 0; k < plan.take_n; k++) {
            /* Nobody else takes it, and nobody who lives has it. */
            uint32_t owner = c->owners[tier][plan.take[k]];
            assert_true(owner == 0 || !alive(c, owner));
            assert_true(k == 0 || plan.take[k] > plan.take[k - 1]);
            c->owners[tier][plan.take[k]] = me;
        }
        for (size_t k = 0; k < plan.give_n; k++) {
            assert_int_equal(c->owners[tier][plan.give[k]], me);
            c->owners[tier][plan.give[k]] = 0;
        }
        given += (unsigned)plan.give_n;
        *ret_changed |= plan.take_n || plan.give_n;
    }
    return given;
}

static void settle_down(struct cluster *c) {
    for (int tier = 0; tier < TIERS; tier++) {
        unsigned least = least_moves(c, tier), given = 0;
        bool changed = true;
        for (int round = 0; changed; round++) {
            assert_in_range(round, 0, ROUNDS_MAX);
            given += play_round(c, tier, &changed);
        }
        assert_int_equal(given, least);
        unsigned n = delivering(c, tier), total = 0;
        for (size_t i = 0; i < c->n; i++) {
            unsigned have = owned(c, tier, c->nodes[i].no);
            total += have;
            if (c->nodes[i].tiers >> tier & 1)
                assert_in_range(have, PARTITIONS / n, (PARTITIONS + n - 1) / n);
            else
                assert_int_equal(have, 0);
        }
        assert_int_equal(total, n ? PARTITIONS : 0);
    }
}

static void remove_node(struct cluster *c, size_t i) {
    memmove(&c->nodes[i], &c->nodes[i + 1], (c->n - i - 1) * sizeof c->nodes[0]);
    c->n--;
}

/* A join, a death, or a node that is about to leave, or delivers other tiers than before. */
static void happen(struct cluster *c, struct rng *rng) {
    uint64_t what = rng_next(rng) % 4;
    size_t i = c->n ? rng_next(rng) % c->n : 0;
    uint32_t tiers = rng_next(rng) % 3 ? (1U << TIERS) - 1 : (uint32_t)(rng_next(rng) % (1U << TIERS));
    if (what <= 1 && c->n < NODES)
        c->nodes[c->n++] = (struct plan_node){++c->last_no, tiers};
    else if (what == 2 && c->n)
        remove_node(c, i);
    else if (c->n)
        c->nodes[i].tiers = tiers;
}

static void test_any_history_ends_balanced(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= HISTORIES; seed++) {
        struct rng rng;
        static struct cluster c;
        c = (struct cluster){0};
        rng_seed(&rng, seed);
        for (int step = 0; step < STEPS; step++) {
            happen(&c, &rng);
            if (rng_next(&rng) % 3)
                settle_down(&c);
        }
    }
}

static void test_what_a_live_node_has_is_not_taken(void **state) {
    (void)state;
    struct cluster c = {.nodes = {{1, 7}, {2, 7}}, .n = 2};
    struct partition_plan plan;
    for (unsigned p = 0; p < PARTITIONS; p++)
        c.owners[0][p] = 1;
    plan_partitions(c.nodes, c.n, TIER_PREMIUM, c.owners[0], 2, &plan);
    assert_int_equal(plan.take_n, 0);
    plan_partitions(c.nodes, c.n, TIER_PREMIUM, c.owners[0], 1, &plan);
    assert_int_equal(plan.give_n, PARTITIONS / 2);
}

static void test_a_dead_nodes_share_is_taken_whole(void **state) {
    (void)state;
    struct cluster c = {.nodes = {{2, 7}, {5, 7}}, .n = 2};
    struct partition_plan two, five;
    for (unsigned p = 0; p < PARTITIONS; p++)
        c.owners[0][p] = p % 3 == 0 ? 2 : p % 3 == 1 ? 3 /* dead */ : 5;
    plan_partitions(c.nodes, c.n, TIER_PREMIUM, c.owners[0], 2, &two);
    plan_partitions(c.nodes, c.n, TIER_PREMIUM, c.owners[0], 5, &five);
    assert_int_equal(two.give_n + five.give_n, 0);
    assert_int_equal(two.take_n + five.take_n, 341);
    for (size_t i = 0; i < two.take_n; i++)
        assert_int_equal(two.take[i] % 3, 1);
}

static void test_nobody_takes_what_nobody_delivers(void **state) {
    (void)state;
    struct plan_node nodes[] = {{1, 1U << TIER_PREMIUM}};
    uint32_t owners[PARTITIONS] = {0};
    struct partition_plan plan;
    plan_partitions(nodes, 1, TIER_BULK, owners, 1, &plan);
    assert_int_equal(plan.take_n, 0);
    plan_partitions(nodes, 1, TIER_PREMIUM, owners, 1, &plan);
    assert_int_equal(plan.take_n, PARTITIONS);
    plan_partitions(NULL, 0, TIER_PREMIUM, owners, 1, &plan);
    assert_int_equal(plan.take_n, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_history_ends_balanced),
        cmocka_unit_test(test_what_a_live_node_has_is_not_taken),
        cmocka_unit_test(test_a_dead_nodes_share_is_taken_whole),
        cmocka_unit_test(test_nobody_takes_what_nobody_delivers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
