#include "cli/enlist.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/random.h"

static void name_worker(const struct config *c, char out[NODE_NAME_SIZE]) {
    char host[64] = "localhost";
    gethostname(host, sizeof host - 1);
    if (c->node_name)
        snprintf(out, NODE_NAME_SIZE, "%s", c->node_name);
    else
        snprintf(out, NODE_NAME_SIZE, "%s:%d", host, (int)getpid());
}

static int enter(const struct config *c, struct store *s, struct enlisted *e, struct node_setup *node,
                 uint32_t *ret_slot, uint64_t *ret_last) {
    uint8_t fresh[RECEIPT_KEY_SIZE];
    random_bytes(fresh, sizeof fresh);
    int r = store_last_key(s, ret_last);
    if (r == 0)
        r = store_register_worker(s, e->worker_name, "posthorn/" POSTHORN_VERSION, clock_now_ms(),
                                  &e->worker_no);
    if (r == 0)
        r = store_server_key(s, "receipts", fresh, e->receipt_key);
    if (r < 0 || !store_is_shared(s))
        return r;
    *node = (struct node_setup){.roles = c->roles, .tiers = c->tiers, .lease_ms = c->node_lease_ms};
    struct node_entry entry = {
        .roles = c->roles, .tiers = c->tiers, .name = e->worker_name, .lease_ms = c->node_lease_ms};
    return store_join(s, &entry, &node->no, ret_slot);
}

int enlist(const struct config *c, struct store *s, struct id_source *ids, struct enlisted *ret) {
    struct node_setup node = {0};
    uint32_t slot = 0;
    uint64_t last = 0;
    name_worker(c, ret->worker_name);
    int r = store_begin(s);
    if (r == 0)
        r = enter(c, s, ret, &node, &slot, &last);
    if (r == 0)
        r = store_commit(s);
    id_source_raise(ids, last);
    if (r < 0 || !store_is_shared(s))
        return r;
    id_source_set_slot(ids, slot, NODES_MAX);
    return node_new(s, &node, &ret->node);
}
