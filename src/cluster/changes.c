/* What other nodes have changed in the control plane is put in force here. */
#include <errno.h>

#include "base/clock.h"
#include "base/log.h"
#include "cluster/node_state.h"

enum { KEYS_MAX = 1000000 };

/* Tenants that were changed, read within the step's transaction. */
struct applying {
    struct tenant tenants[FEED_CHANGES_MAX];
    bool gone[FEED_CHANGES_MAX];
};

static int read_tenants(struct node *n, struct store *s, void *arg) {
    struct applying *a = arg;
    for (size_t i = 0; i < n->changes_n; i++) {
        struct tenant_record record;
        if (n->changes[i].kind != FEED_TENANT)
            continue;
        int r = store_get_tenant(s, (uint32_t)n->changes[i].no, &record);
        if (r == 0)
            r = tenant_of_record(&record, &a->tenants[i]);
        a->gone[i] = r == -ENOENT;
        if (r < 0 && r != -ENOENT)
            return r;
    }
    return 0;
}

static void apply_changed_tenant(struct node *n, const struct tenant *t) {
    struct tenant before = {0};
    bool known = directory_tenant_by_no(n->parts.directory, t->no, &before);
    int r = directory_put_tenant(n->parts.directory, t);
    if (r == 0)
        r = dispatch_configure_tenant(n->parts.dispatch, t->no, &t->limits);
    if (r < 0)
        log_error("a tenant that another node has changed could not be put in force; restart to do so",
                  log_str("tenant", t->id), log_str("error", strerror(-r)));
    if (known && (before.tier != t->tier || before.tier_change != t->tier_change ||
                  before.allow_http != t->allow_http))
        apply_tenant(n->parts.apply, t->no, clock_now_ms());
}

static void apply_changed_subscription(struct node *n, uint32_t no) {
    int64_t now = clock_now_ms();
    struct lane_notice notice = {no, now};
    apply_subscription(n->parts.apply, no, now);
    if (subscription_is_gone(n->parts.apply, no))
        deletions_remove(n, no);
    /* What another node has made for it already was told before its lane was here. */
    else if (dispatch_wake(n->parts.dispatch, &notice, 1) < 0)
        log_error("no memory to tell a lane what is due; it is told with the next look");
}

static void apply_all(struct node *n, void *arg) {
    const struct applying *a = arg;
    bool tenants = false;
    /* Tenants first: what their subscriptions are follows from them. */
    for (size_t i = 0; i < n->changes_n; i++) {
        if (n->changes[i].kind != FEED_TENANT)
            continue;
        tenants = true;
        if (a->gone[i])
            directory_remove_tenant(n->parts.directory, (uint32_t)n->changes[i].no);
        else
            apply_changed_tenant(n, &a->tenants[i]);
    }
    for (size_t i = 0; i < n->changes_n; i++)
        if (n->changes[i].kind == FEED_SUBSCRIPTION)
            apply_changed_subscription(n, (uint32_t)n->changes[i].no);
    if (tenants)
        shares_set(n);
}

static int put_key(void *arg, const struct key_record *row) {
    struct node *n = arg;
    struct api_key key = {
        .id = row->id, .tenant_no = row->tenant_no, .scopes = row->scopes, .expires_at = row->expires_at};
    if (!row->revoked_at)
        return directory_put_key(n->parts.directory, row->hash, &key);
    directory_remove_key(n->parts.directory, row->id);
    return 0;
}

static int apply_keys(struct node *n) {
    bool any = false;
    for (size_t i = 0; i < n->changes_n; i++)
        any |= n->changes[i].kind == FEED_KEY;
    return any ? store_list_keys(n->reader, KEYS_MAX, put_key, n) : 0;
}

static void note_position(struct node *n, void *arg) {
    (void)arg;
    store_feed_applied(n->store, &n->position);
    apply_go_on(n->parts.apply);
}

void changes_apply(struct node *n) {
    struct feed_position before = n->position;
    static struct applying a;
    do {
        int r = store_feed_changes(n->feed, n->changes, &n->changes_n, &n->position);
        if (r < 0)
            return;
        r = apply_keys(n);
        if (r == 0 && n->changes_n)
            r = node_write(n, read_tenants, apply_all, &a);
        /* Told is told: what fails here would not come up again. Everything is looked at instead. */
        while (r < 0 && !atomic_load(&n->leaving)) {
            node_talk(n, 200);
            r = apply_keys(n);
            if (r == 0)
                r = node_write(n, read_tenants, apply_all, &a);
        }
        if (r < 0)
            return;
    } while (n->changes_n == FEED_CHANGES_MAX);
    if (n->position.from != before.from || n->position.known != before.known ||
        n->position.timeline != before.timeline || n->position.tier_changes != n->tier_changes ||
        atomic_load(&n->walks.under_way)) {
        if (node_write(n, NULL, note_position, NULL) < 0)
            return;
        atomic_store(&n->applied, n->position.from);
        /* This node's own changes are in force, too: the writer has been past their commits. */
        n->tier_changes = n->position.tier_changes;
    }
    deletions_answer(n);
}
