#include "ingest/cdc_position.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"

#define ITEM "position"

/* ---- in the store ---- */

/* "SYSTEM.TIMELINE LSN GAPS" */
static int parse(const char *text, struct cdc_position *ret) {
    char lsn[LSN_TEXT_SIZE];
    int n = 0;
    if (sscanf(text, "%31[0-9].%" SCNu32 " %17[0-9A-F/] %" SCNu32 "%n", ret->system, &ret->timeline, lsn,
               &ret->gaps, &n) != 4 ||
        text[n])
        return -EINVAL;
    return lsn_parse(slice_of(lsn), &ret->lsn);
}
_Static_assert(TIMELINE_SYSTEM_SIZE == 32 && LSN_TEXT_SIZE == 18, "as wide as the scan reads");

/* -ENOENT: the source is new. */
static int load(struct source *s, struct cdc_position *ret) {
    _cleanup_buf_ struct buf text = {0};
    int r = source_load(s, ITEM, &text);
    if (r == 0 && parse(text.p ? text.p : "", ret) < 0) {
        source_fault(s, "the store's word of how far the source has come cannot be read", NULL,
                     "was the store changed from outside? put a backup in its place");
        r = -EIO;
    }
    return r;
}

int cdc_position_keep(struct source *s, const struct cdc_position *p) {
    char text[TIMELINE_SYSTEM_SIZE + LSN_TEXT_SIZE + 24], lsn[LSN_TEXT_SIZE];
    lsn_format(p->lsn, lsn);
    int n = snprintf(text, sizeof text, "%s.%" PRIu32 " %s %" PRIu32, p->system, p->timeline, lsn, p->gaps);
    return source_save(s, ITEM, (struct slice){text, (size_t)n});
}

/* ---- gaps ---- */

#define GAP_GONE  "the replication slot is gone: changes may be missing"
#define GAP_LOST  "the replication slot has lost its log: changes are missing"
#define GAP_OTHER "it is another database, or another history of it, than before: changes may be missing"
#define GAP_AHEAD "the replication slot was moved on by somebody else: changes are missing"

static const char *find_gap(const struct cdc_position *was, const struct timeline_history *h,
                            const struct cdc_slot *slot) {
    if (strcmp(was->system, h->system) != 0 || !timeline_holds(h, was->timeline, was->lsn))
        return GAP_OTHER;
    if (!slot->there)
        return GAP_GONE;
    if (slot->lost)
        return GAP_LOST;
    return slot->confirmed > was->lsn ? GAP_AHEAD : NULL;
}

static bool is_accepted(const struct source_settings *s, uint64_t lsn) {
    uint64_t accepted;
    return s->accept_gap && lsn_parse(slice_of(s->accept_gap), &accepted) == 0 && accepted == lsn;
}

static int stop_at_gap(struct source *s, const char *gap, const struct cdc_position *was) {
    char lsn[LSN_TEXT_SIZE], detail[TIMELINE_SYSTEM_SIZE + LSN_TEXT_SIZE + 128];
    _cleanup_buf_ struct buf advice = {0};
    lsn_format(was->lsn, lsn);
    snprintf(detail, sizeof detail,
             "everything before %s of timeline %" PRIu32 " of the cluster %s was taken", lsn, was->timeline,
             was->system);
    buf_addf(&advice,
             "find out from the database what was committed since, and publish it; then set accept-gap = %s "
             "in [source "
             "%s] to go on without the rest (docs/producers.md, CDC, gaps)",
             lsn, source_settings(s)->name);
    source_fault(s, gap, detail, advice.p);
    return -ENODATA;
}

static void go_on_after(struct source *s, const char *gap, const struct cdc_position *was) {
    char lsn[LSN_TEXT_SIZE];
    lsn_format(was->lsn, lsn);
    log_warn("a gap of a source was accepted: what was committed in it is not delivered",
             log_str("source", source_settings(s)->name), log_str("gap", gap), log_str("after", lsn));
}

int cdc_position_is_shared(struct source *s, const struct cdc_slot *slot) {
    struct cdc_position ours;
    if (!slot->confirmed)
        return 1;
    int r = load(s, &ours);
    return r == 0 ? slot->confirmed <= ours.lsn : r == -ENOENT ? 0 : r;
}

/* ---- the slot ---- */

static int make_slot(struct sql *c, uint64_t *ret_from) {
    const struct source_settings *from = source_settings(c->source);
    _cleanup_buf_ struct buf advice = {0};
    char lsn[LSN_TEXT_SIZE];
    if (!from->create_slot) {
        buf_addf(&advice,
                 "create-slot = true in [source %s], or SELECT pg_create_logical_replication_slot('%s', "
                 "'pgoutput')",
                 from->name, from->slot);
        source_fault(c->source, "the replication slot is not there", NULL, advice.p);
        return -ENOENT;
    }
    int r = cdc_database_make_slot(c, ret_from);
    if (r < 0)
        return r;
    lsn_format(*ret_from, lsn);
    log_info("a replication slot was made", log_str("source", from->name), log_str("slot", from->slot),
             log_str("from", lsn));
    return 0;
}

/* A slot that is there and whole; *ret_from: where it stands. */
static int have_slot(struct sql *c, const struct cdc_slot *slot, uint64_t *ret_from) {
    *ret_from = slot->confirmed;
    if (slot->there && !slot->lost)
        return 0;
    if (slot->there && !source_settings(c->source)->create_slot) {
        source_fault(c->source, "the replication slot has lost its log", NULL,
                     "drop the slot with pg_drop_replication_slot, and let it be made anew");
        return -ENODATA;
    }
    int r = slot->there ? cdc_database_drop_slot(c) : 0;
    return r == 0 ? make_slot(c, ret_from) : r;
}

/* -EEXIST: it is there by now. */
static int is_still_gone(struct sql *c) {
    struct cdc_slot now;
    int r = cdc_database_slot(c, &now);
    return r == 0 && now.there ? -EEXIST : r;
}

int cdc_position_find(struct sql *c, const struct timeline_history *h, const struct cdc_slot *slot,
                      struct cdc_position *ret) {
    struct source *s = c->source;
    struct cdc_position was;
    const char *gap = NULL;
    *ret = (struct cdc_position){.timeline = h->timeline};
    memcpy(ret->system, h->system, sizeof ret->system);
    if (slot->there && !slot->usable) {
        source_fault(s, "the replication slot is not one of pgoutput in this database", NULL,
                     "name another slot, or drop this one");
        return -EINVAL;
    }
    int r = load(s, &was);
    if (r < 0 && r != -ENOENT)
        return r;
    bool is_new = r == -ENOENT;
    if (!is_new && !slot->there) {
        r = is_still_gone(c);
        if (r < 0)
            return r;
    }
    if (!is_new && !(gap = find_gap(&was, h, slot))) {
        ret->lsn = was.lsn;
        ret->gaps = was.gaps;
        return 0;
    }
    if (gap && !is_accepted(source_settings(s), was.lsn))
        return stop_at_gap(s, gap, &was);
    ret->gaps = gap ? was.gaps + 1 : 0;
    r = have_slot(c, slot, &ret->lsn);
    if (r == 0)
        r = cdc_position_keep(s, ret);
    if (r == 0 && gap)
        go_on_after(s, gap, &was);
    return r;
}
