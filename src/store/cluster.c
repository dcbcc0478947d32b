#include "store/cluster.h"

#include <errno.h>

#include "store/backend.h"

bool store_is_shared(const struct store *s) {
    return s->backend->cluster != NULL;
}

static const struct store_cluster *cluster_of(const struct store_backend *b) {
    CHECK(b->cluster != NULL);
    return b->cluster;
}

int store_join(struct store *s, const struct node_entry *e, uint32_t *ret_no, uint32_t *ret_slot) {
    return cluster_of(s->backend)->join(s, e, ret_no, ret_slot);
}

int store_heartbeat(struct store *s, uint64_t applied) {
    return cluster_of(s->backend)->heartbeat(s, applied);
}

int store_set_node_tiers(struct store *s, uint32_t tiers) {
    return cluster_of(s->backend)->set_node_tiers(s, tiers);
}

int store_change_tier(struct store *s, uint32_t tenant_no, uint64_t *ret) {
    return cluster_of(s->backend)->change_tier(s, tenant_no, ret);
}

int store_set_tier_changes(struct store *s, uint64_t change) {
    return cluster_of(s->backend)->set_tier_changes(s, change);
}

const atomic_int_fast64_t *store_send_until(struct store *s) {
    return cluster_of(s->backend)->send_until(s);
}

int store_bury_node(struct store *s, uint32_t no) {
    return cluster_of(s->backend)->bury_node(s, no);
}

int store_take_partitions(struct store *s, enum tenant_tier tier, uint16_t *nos, size_t n, size_t *ret_n) {
    return cluster_of(s->backend)->take_partitions(s, tier, nos, n, ret_n);
}

int store_give_partitions(struct store *s, enum tenant_tier tier, const uint16_t *nos, size_t n) {
    return cluster_of(s->backend)->give_partitions(s, tier, nos, n);
}

int store_take_job(struct store *s, uint64_t after_key, struct fanout_job *ret) {
    if (s->backend->cluster)
        return s->backend->cluster->take_job(s, after_key, ret);
    size_t n = 0;
    int r = store_list_jobs(s, after_key, ret, 1, &n);
    return r == 0 && n == 0 ? -ENOENT : r;
}

bool store_clashed(struct store *s) {
    return s->backend->cluster && s->backend->cluster->clashed(s);
}

int store_be_alone(struct store *s) {
    return s->backend->cluster ? s->backend->cluster->be_alone(s) : 0;
}

int store_try_duty(struct store *s, enum store_duty duty, bool *ret) {
    if (s->backend->cluster)
        return s->backend->cluster->try_duty(s, duty, ret);
    *ret = true;
    return 0;
}

void store_feed_applied(struct store *s, const struct feed_position *p) {
    cluster_of(s->backend)->feed_applied(s, p);
}

int store_feed_open(struct store *s, struct store_feed **ret) {
    return cluster_of(s->backend)->feed_open(s, ret);
}

void store_feed_close(struct store_feed *f) {
    if (f)
        cluster_of(f->backend)->feed_close(f);
}

int store_feed_view(struct store_feed *f, struct cluster_view *ret) {
    return cluster_of(f->backend)->feed_view(f, ret);
}

int store_feed_changes(struct store_feed *f, struct feed_change *ret, size_t *ret_n,
                       struct feed_position *p) {
    return cluster_of(f->backend)->feed_changes(f, ret, ret_n, p);
}

int store_feed_attempts(struct store_feed *f, const struct partition_set *partitions, feed_attempt_fn fn,
                        void *arg) {
    return cluster_of(f->backend)->feed_attempts(f, partitions, fn, arg);
}

int store_feed_under_way(struct store_feed *f, struct feed_attempt *attempts, size_t n, size_t *ret_n) {
    return cluster_of(f->backend)->feed_under_way(f, attempts, n, ret_n);
}

int store_feed_sending(struct store_feed *f, uint32_t subscription_no, bool *ret) {
    return cluster_of(f->backend)->feed_sending(f, subscription_no, ret);
}

int store_feed_tiers(struct store_feed *f, struct tier_view *ret) {
    return cluster_of(f->backend)->feed_tiers(f, ret);
}

int store_feed_lanes_due(struct store_feed *f, const struct partition_set *partitions, uint32_t *after_no,
                         struct lane_due *ret, size_t max, size_t *ret_n, bool *ret_more) {
    return cluster_of(f->backend)->feed_lanes_due(f, partitions, after_no, ret, max, ret_n, ret_more);
}

int store_feed_tell(struct store_feed *f, const char *text) {
    return cluster_of(f->backend)->feed_tell(f, text);
}

int store_feed_wait(struct store_feed *f, int wake_fd, int timeout_ms, feed_text_fn heard, void *arg,
                    bool *ret_changed) {
    return cluster_of(f->backend)->feed_wait(f, wake_fd, timeout_ms, heard, arg, ret_changed);
}
