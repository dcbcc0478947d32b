#include "cli/stages.h"

#include <errno.h>

#include "base/clock.h"
#include "base/log.h"
#include "cluster/lane_starts.h"
#include "core/log_id.h"
#include "ingest/ingest_sink.h"

enum { LANES_A_LOOK = 1024 };

/* ---- what the stages ask of one another ---- */

static void after_transaction(void *arg, bool committed) {
    struct server *s = arg;
    dispatch_made(s->dispatch, committed);
    if (!committed) {
        fanout_forget(s->fanout);
        return;
    }
    fanout_announce(s->fanout, s->dispatch);
    if (s->c->roles & ROLE_FANOUT)
        pump_kick(s->pump);
    if (s->self.node)
        node_committed(s->self.node);
    replayer_committed(s->replayer, s->store);
}

static const struct subscription *subscription_of(void *arg, uint32_t no) {
    struct server *s = arg;
    return fanout_subscription(s->fanout, no);
}

static void lane_due(void *arg, uint32_t no, int64_t due_at) {
    struct server *s = arg;
    struct lane_notice notice = {no, due_at};
    const struct subscription *sub = fanout_subscription(s->fanout, no);
    if (dispatch_notify(s->dispatch, &notice, 1) < 0)
        log_error(
            "a lane could not be told of a due delivery; it is found at the next start",
            log_str("tenant", sub ? sub->tenant_id : NULL),
            log_str("subscription", sub ? id_text(ID_SUBSCRIPTION, sub->id, (char[ID_TEXT_SIZE]){0}) : NULL),
            log_int("subscription_no", no));
}

static int disable(void *arg, struct store *store, uint32_t no, const char *reason, int64_t now) {
    struct server *s = arg;
    CHECK(store == s->store);
    return disable_subscription(&s->apply, no, reason, now);
}

static int raise_event(void *arg, struct store *store, const struct operational_event *e) {
    struct server *s = arg;
    int r = raise_operational(&s->raiser, store, e);
    if (r < 0 || e->kind != OPERATIONAL_RECOVERED)
        return r;
    const struct subscription *sub = fanout_subscription(s->fanout, e->subscription_no);
    return sub ? replayer_recover(s->replayer, store, sub, e->at) : 0;
}

static bool holds(void *arg, uint32_t no) {
    struct server *s = arg;
    const struct subscription *sub = fanout_subscription(s->fanout, no);
    return sub && sub->relane;
}

static void changed(void *arg, uint32_t no) {
    struct server *s = arg;
    apply_subscription(&s->apply, no, clock_now_ms());
}

static bool reaps(void *arg, uint32_t no, int64_t lease_until) {
    struct server *s = arg;
    return node_reaps(s->self.node, no, lease_until, clock_now_ms());
}

int stages_recover_leases(struct server *s, int64_t now) {
    struct reaper_options o = {.metrics = s->metrics,
                               .worker_no = s->self.worker_no,
                               .subscription = subscription_of,
                               .due = lane_due,
                               .ours = s->self.node ? reaps : NULL,
                               .raise = raise_event,
                               .arg = s};
    int r = reaper_new(&o, &s->reaper);
    bool more = !s->self.node;
    while (r == 0 && more) {
        r = store_begin(s->store);
        if (r == 0)
            r = reaper_run(s->reaper, s->store, INT64_MAX, now, &more);
        if (r == 0)
            r = store_commit(s->store);
        if (r == 0)
            reaper_forget(s->reaper);
    }
    return r;
}

/* ---- starting them ---- */

/* A node's come with their partitions. */
static int start_lanes(struct server *s) {
    _cleanup_lane_starts_ struct lane_starts starts = {0};
    int r = s->self.node ? 0 : lane_starts_read(&starts, s->reader);
    for (uint32_t no = 1; r == 0 && !s->self.node && no <= fanout_upper(s->fanout); no++) {
        struct subscription *sub = fanout_subscription(s->fanout, no);
        struct lane_start start = lane_starts_of(&starts, no);
        r = sub ? dispatch_resume(s->dispatch, sub, &start) : 0;
    }
    if (r < 0)
        return r;
    struct tenant t = {0};
    while (directory_tenant_after(s->directory, t.no, &t)) {
        r = dispatch_configure_tenant(s->dispatch, t.no, &t.limits);
        if (r < 0)
            return r;
    }
    return 0;
}

/* A writer job that tells every lane what waits for it, a page at a time. */
struct waking {
    struct writer_job job;
    struct server *s;
    struct lane_due due[LANES_A_LOOK];
    size_t n;
    uint32_t after;
};

static int find_due(struct writer_job *job, struct store *store) {
    struct waking *w = (struct waking *)job;
    return store_list_lanes_due(store, w->after, w->due, LANES_A_LOOK, &w->n);
}

static void wake_due(struct writer_job *job, int result) {
    struct waking *w = (struct waking *)job;
    for (size_t i = 0; result == 0 && i < w->n; i++) {
        lane_due(w->s, w->due[i].subscription_no, w->due[i].due_at);
        w->after = w->due[i].subscription_no;
    }
    if (result < 0)
        log_error("waiting deliveries could not be listed; restart to send them",
                  log_str("error", strerror(-result)));
    if (result == 0 && w->n == LANES_A_LOOK)
        writer_submit_internal(w->s->writer, job);
    else
        free(w);
}

static int wake_lanes(struct server *s) {
    struct waking *w = calloc(1, sizeof *w);
    if (!w)
        return -ENOMEM;
    w->job = (struct writer_job){.run = find_due, .done = wake_due};
    w->s = s;
    writer_submit_internal(s->writer, &w->job);
    return 0;
}

static int start_dispatch(struct server *s) {
    struct dispatch_options o = {
        .store = s->store,
        .writer = s->writer,
        .metrics = s->metrics,
        .tracer = s->tracer,
        .bodies = s->bodies,
        .egress = &s->egress,
        .loops = (unsigned)s->c->loops,
        .max_in_flight = (unsigned)s->c->max_in_flight,
        .lease_margin_ms = s->c->lease_margin_ms,
        .worker_no = s->self.worker_no,
        .worker_name = s->self.worker_name,
        .user_agent = "posthorn/" POSTHORN_VERSION,
        .receipt_key = s->self.receipt_key,
        .disable = disable,
        .changed = changed,
        .holds = holds,
        .raise = raise_event,
        .arg = s,
    };
    if (s->self.node)
        node_dispatch(s->self.node, &o.node);
    return dispatch_start(&o, &s->dispatch);
}

static int start_node(struct server *s) {
    bool fans_out = s->c->roles & ROLE_FANOUT;
    struct node_parts parts = {.writer = s->writer,
                               .fanout = s->fanout,
                               .dispatch = s->dispatch,
                               .pump = fans_out ? s->pump : NULL,
                               .replayer = fans_out ? s->replayer : NULL,
                               .directory = s->directory,
                               .apply = &s->apply,
                               .metrics = s->metrics};
    return node_start(s->self.node, &parts);
}

static int start_replayer(struct server *s) {
    struct replayer_options o = {.fanout = s->fanout,
                                 .writer = s->writer,
                                 .dispatch = s->dispatch,
                                 .metrics = s->metrics,
                                 .ids = &s->ids,
                                 .share_percent = (unsigned)s->c->replay_share};
    int r = replayer_new(&o, &s->replayer);
    if (r == 0 && !(s->c->roles & ROLE_FANOUT))
        replayer_stop(s->replayer); /* another node does it */
    return r;
}

static int start_tracer(struct server *s) {
    struct tracer_options o = {.url = s->c->otlp_url,
                               .header = s->c->otlp_header,
                               .instance = s->self.worker_name,
                               .sample_percent = (unsigned)s->c->otlp_sample_percent,
                               .metrics = s->metrics};
    int r = o.url ? tracer_start(&o, &s->tracer) : 0;
    fanout_record(s->fanout, s->tracer);
    return r;
}

int stages_start(struct server *s) {
    int r = start_tracer(s);
    if (r == 0)
        r = writer_start(s->store, (size_t)s->c->queue_max, s->metrics, &s->writer);
    if (r == 0)
        r = pump_new(s->fanout, s->writer, &s->pump);
    if (r == 0)
        r = start_dispatch(s);
    if (r == 0)
        r = start_replayer(s);
    if (r < 0)
        return r;
    s->apply = (struct apply_context){.store = s->store,
                                      .writer = s->writer,
                                      .fanout = s->fanout,
                                      .dispatch = s->dispatch,
                                      .server_allow_http = s->c->allow_http,
                                      .policies = &s->policies,
                                      .walks = s->self.node ? node_walks(s->self.node) : NULL};
    writer_on_end(s->writer, after_transaction, s);
    r = start_lanes(s);
    struct ingest_options ingest = {s->writer, s->fanout,  s->dispatch, s->bodies,
                                    &s->ids,   s->metrics, s->tracer};
    if (r == 0)
        r = ingest_new(&ingest, &s->ingest);
    if (r < 0)
        return r;
    return s->self.node ? start_node(s) : wake_lanes(s);
}

static struct source_sink *new_sink(void *arg) {
    struct server *s = arg;
    struct ingest_sink_options o = {.ingest = s->ingest,
                                    .directory = s->directory,
                                    .writer = s->writer,
                                    .event_bytes_max = (size_t)s->c->event_bytes_max};
    return ingest_sink_new(&o);
}

/* Events come in by the role api. */
int stages_prepare_sources(struct server *s) {
    if (!(s->c->roles & ROLE_API))
        return 0;
    struct sources_options o = {.metrics = s->metrics, .folder = s->c->data, .sink = new_sink, .arg = s};
    int r = s->c->from.n > 0 ? sources_new(&o, &s->sources) : 0;
    for (size_t i = 0; r == 0 && i < s->c->from.n; i++)
        r = sources_add(s->sources, &s->c->from.at[i], source_kind_find(s->c->from.at[i].kind));
    return r;
}

int stages_start_api(struct server *s) {
    struct api_options o = {
        .listen_fd = s->listeners.fd,
        .admin_listen_fd = s->listeners.admin_fd,
        .tls = s->listeners.tls != NULL,
        .threads = (unsigned)s->c->api_threads,
        .connections_max = (unsigned)s->c->connections_max,
        .connections_per_client_max = (unsigned)s->c->connections_per_client_max,
        .head_timeout_ms = s->c->head_timeout_ms,
        .body_timeout_ms = s->c->body_timeout_ms,
        .store = s->store,
        .writer = s->writer,
        .ingest = s->ingest,
        .sources = s->sources,
        .fanout = s->fanout,
        .replayer = s->replayer,
        .dispatch = s->dispatch,
        .node = s->self.node,
        .health_only = !(s->c->roles & ROLE_API),
        .ids = &s->ids,
        .metrics = s->metrics,
        .addresses = &s->addresses,
        .name_servers = s->c->name_servers,
        .directory = s->directory,
        .apply = &s->apply,
        .allow_http = s->c->allow_http,
        .admin_key = s->admin_key,
        .receipt_key = s->self.receipt_key,
        .event_bytes_max = (size_t)s->c->event_bytes_max,
        .batch_bytes_max = (size_t)s->c->batch_bytes_max,
    };
    int r = api_start(&o, &s->api);
    if (r == 0)
        listeners_close(&s->listeners);
    return r == 0 && s->sources ? sources_start(s->sources) : r;
}
