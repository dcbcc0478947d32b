#include "base/json_tape.h"

void json_tape_free(struct json_tape *t) {
    free(t->nodes);
    *t = (struct json_tape){0};
}

int json_node_compare(const struct json_node *node, const char *text, struct slice prefix) {
    CHECK(node->type == JSON_TYPE_STRING && node->n >= 2);
    if (node->escaped)
        return json_string_compare(json_node_text(node, text), prefix);
    size_t n = node->n - 2;
    if (n < prefix.n || memcmp(text + node->start + 1, prefix.p, prefix.n) != 0)
        return -1;
    return n == prefix.n;
}
