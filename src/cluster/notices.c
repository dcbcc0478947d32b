/* What nodes tell each other, one text a notice:
 *   d NO[@DUE] …   something is due in these lanes: now, or at DUE (Unix ms)
 *   a              … in more lanes than could be named
 *   j              there are fan-outs, or replays, to be shared out
 *   n              partitions are free
 *   x NODE NO      does NODE still send for the deleted subscription NO?
 *   s NO           nothing of the deleted subscription NO is sent any more
 *   e NODE TENANT:N …  so many events a second are asked of NODE by these tenants
 *   q NODE … / r   what does the lane tell of itself? and the answer (questions.c) */
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "cluster/node_state.h"

void notices_elsewhere(void *arg, const struct lane_notice *notices, size_t count) {
    struct node *n = arg;
    pthread_mutex_lock(&n->lock);
    bool first = n->notices_n == 0 && !n->too_many;
    size_t room = NOTICES_MAX - n->notices_n, some = count < room ? count : room;
    memcpy(n->notices + n->notices_n, notices, some * sizeof notices[0]);
    n->notices_n += some;
    n->too_many |= some < count;
    pthread_mutex_unlock(&n->lock);
    if (first)
        node_wake(n);
}

static void tell(struct node *n, const char *text) {
    (void)!store_feed_tell(n->feed, text); /* found by looking when it is lost */
}

static void tell_due(struct node *n, const struct lane_notice *notices, size_t count) {
    enum { ONE_MAX = 40 };
    char text[FEED_TEXT_MAX + 1];
    int64_t now = clock_now_ms();
    for (size_t i = 0; i < count;) {
        size_t at = 1;
        text[0] = 'd';
        for (; i < count && at < FEED_TEXT_MAX - ONE_MAX; i++)
            at += (size_t)(notices[i].due_at <= now
                               ? snprintf(text + at, ONE_MAX, " %u", notices[i].subscription_no)
                               : snprintf(text + at, ONE_MAX, " %u@%lld", notices[i].subscription_no,
                                          (long long)notices[i].due_at));
        tell(n, text);
    }
}

static void tell_stopped(struct node *n, const uint32_t *stopped, size_t count) {
    char text[32];
    for (size_t i = 0; i < count; i++) {
        snprintf(text, sizeof text, "s %u", stopped[i]);
        tell(n, text);
    }
}

void notices_tell(struct node *n) {
    static struct lane_notice notices[NOTICES_MAX];
    pthread_mutex_lock(&n->lock);
    size_t count = n->notices_n, stopped_n = n->stopped_n;
    bool too_many = n->too_many, jobs = n->jobs_made;
    uint32_t *stopped = TAKE_PTR(n->stopped);
    memcpy(notices, n->notices, count * sizeof notices[0]);
    n->notices_n = n->stopped_n = n->stopped_cap = 0;
    n->too_many = n->jobs_made = false;
    pthread_mutex_unlock(&n->lock);
    bool alone = n->view.n <= 1;
    if (!alone) {
        tell_due(n, notices, count);
        tell_stopped(n, stopped, stopped_n);
        if (too_many)
            tell(n, "a");
        if (jobs)
            tell(n, "j");
    }
    free(stopped);
    questions_ask(n);
}

/* ---- hearing ---- */

static bool may_be_ours(const struct node *n, uint32_t no) {
    for (int tier = 0; tier < TIERS; tier++)
        if (ownership_of(&n->ownership, (enum tenant_tier)tier, no) == PARTITION_OWN)
            return true;
    return false;
}

static void hear_due(struct node *n, const char *text) {
    struct lane_notice notices[LANES_A_LOOK];
    size_t count = 0;
    int64_t now = clock_now_ms();
    while (*text == ' ') {
        char *end;
        uint32_t no = (uint32_t)strtoul(text + 1, &end, 10);
        int64_t due_at = *end == '@' ? strtoll(end + 1, &end, 10) : now;
        text = end;
        if (no && may_be_ours(n, no))
            notices[count++] = (struct lane_notice){no, due_at};
        if (count < LANES_A_LOOK && *text == ' ')
            continue;
        if (dispatch_hear(n->parts.dispatch, notices, count) < 0)
            log_error("no memory to tell lanes what is due; they are told with the next look");
        count = 0;
    }
}

void notices_hear(void *arg, const char *text) {
    struct node *n = arg;
    unsigned node = 0, no = 0;
    switch (text[0]) {
    case 'd':
        hear_due(n, text + 1);
        break;
    case 'a':
        n->due_at_us = 0;
        break;
    case 'j':
        n->jobs_at_us = 0;
        break;
    case 'n':
        n->look_at_us = 0;
        break;
    case 'x':
        if (sscanf(text, "x %u %u", &node, &no) == 2 && node == n->me.no)
            deletions_asked(n, no);
        break;
    case 's':
        if (sscanf(text, "s %u", &no) == 1)
            deletions_heard(n, no);
        break;
    case 'e':
        quotas_heard(n, text);
        break;
    case 'q':
        questions_heard(n, text);
        break;
    case 'r':
        questions_answered(n, text);
        break;
    default: /* of a version to come */
        break;
    }
}
