/* Enters this process in its store: as the worker of the attempts it will record, and on a shared store as a
 * node among others. */
#pragma once

#include "cli/config.h"
#include "cluster/node.h"
#include "core/receipt.h"

struct enlisted {
    char worker_name[NODE_NAME_SIZE];
    uint32_t worker_no;
    uint8_t receipt_key[RECEIPT_KEY_SIZE];
    struct node *node; /* NULL: the store is this process's alone; node_free it */
};

/* `ids` goes on from what is stored, in the node's slot. */
int enlist(const struct config *c, struct store *s, struct id_source *ids, struct enlisted *ret) MUST_USE;
