#include "cli/serve.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

#include <curl/curl.h>

#include "api/server.h"
#include "base/clock.h"
#include "base/random.h"
#include "cli/admin_key.h"
#include "cli/commands.h"
#include "cli/egress_check.h"
#include "cli/enlist.h"
#include "cli/hardening.h"
#include "cli/hints.h"
#include "cli/housekeeper.h"
#include "cli/listeners.h"
#include "cli/notify.h"
#include "cli/operator.h"
#include "cli/secret_key.h"
#include "cluster/lane_starts.h"
#include "core/log_id.h"
#include "deliver/egress.h"
#include "fanout/apply.h"
#include "fanout/pump.h"
#include "fanout/raise.h"
#include "fanout/replayer.h"
#include "ingest/ingest_sink.h"
#include "store/snapshot.h"

enum { LANES_A_LOOK = 1024, FILES_BESIDE_SOCKETS = 1024 };

/* The parts, in the order they are started. */
struct server {
    const struct config *c;
    struct address_policy addresses;
    struct egress egress;
    char admin_key[ADMIN_KEY_SIZE];
    bool admin_key_made;
    struct listeners listeners;
    struct store *store;
    struct store_reader *reader;
    struct enlisted self;
    struct id_source ids;
    struct metrics *metrics;
    struct tracer *tracer;
    struct directory *directory;
    struct body_cache *bodies;
    struct fanout *fanout;
    struct reaper *reaper;
    struct writer *writer;
    struct pump *pump;
    struct replayer *replayer;
    struct dispatch *dispatch;
    struct ingest *ingest;
    struct sources *sources;
    struct api *api;
    struct apply_context apply;
    struct policy_memo policies; /* of the writer's thread */
    struct raiser raiser;
};

static int failed(const char *what, int error, const char *advice) {
    log_error(what, log_str("error", strerror(-error)), log_str("advice", advice));
    return error;
}

/* ---- what the stages ask of one another ---- */

static void after_transaction(void *arg, bool committed) {
    struct server *s = arg;
    dispatch_made(s->dispatch, committed);
    if (!committed)
        return;
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

/* ---- start: the store and what memory holds of it ---- */

static int open_store(struct server *s) {
    int r = hardening_take_data(s->c);
    if (r < 0)
        return r;
    r = admin_key_load(s->c->data, s->c->admin_key, s->admin_key, &s->admin_key_made);
    if (r < 0)
        return failed("the admin key cannot be read or made", r,
                      "see admin.key in the data folder, or set POSTHORN_ADMIN_KEY");
    const char *message = "";
    r = store_open(s->c->store, &s->store, &message);
    if (r < 0) {
        log_error("the store cannot be opened", log_str("reason", message), log_str("data", s->c->data));
        return r;
    }
    r = secret_key_unlock(s->c, s->store);
    if (r == 0)
        r = hardening_confine(s->c);
    return r < 0 ? r : store_reader_open(s->store, &s->reader);
}

static int prepare_operator(struct server *s, int64_t now) {
    struct operator_options o = {.store = s->store,
                                 .reader = s->reader,
                                 .ids = &s->ids,
                                 .url = s->c->operator_url,
                                 .secret = s->c->operator_secret};
    return operator_prepare(&o, now);
}

static int into_index(void *arg, struct subscription *sub) {
    struct server *s = arg;
    int r = fanout_put(s->fanout, sub);
    subscription_unref(sub);
    return r;
}

static int load_memory(struct server *s, int64_t now) {
    if (!(s->metrics = metrics_new()))
        return -ENOMEM;
    int r = s->c->metrics_per_subscription
                ? metrics_keep_subscriptions(s->metrics, (unsigned)s->c->metrics_per_subscription)
                : 0;
    if (r == 0)
        r = directory_new(&s->directory);
    if (r == 0)
        r = directory_load(s->directory, s->reader);
    if (r == 0)
        r = body_cache_new((size_t)s->c->body_cache_bytes, &s->bodies);
    if (r == 0)
        r = fanout_new(s->metrics, &s->fanout);
    if (r == 0 && store_is_shared(s->store))
        fanout_share(s->fanout);
    if (r == 0)
        r = snapshot_each(s->reader, now, s->c->allow_http, into_index, s);
    s->raiser = (struct raiser){.fanout = s->fanout, .ids = &s->ids, .bodies = s->bodies};
    uint64_t pending = 0, dlq = 0;
    if (r == 0)
        r = store_count_deliveries(s->reader, &pending, &dlq);
    metrics_gauge_set(s->metrics, METRIC_DELIVERIES_PENDING, (int64_t)pending);
    metrics_gauge_set(s->metrics, METRIC_DLQ_SIZE, (int64_t)dlq);
    return r;
}

static bool reaps(void *arg, uint32_t no, int64_t lease_until) {
    struct server *s = arg;
    return node_reaps(s->self.node, no, lease_until, clock_now_ms());
}

/* Where this process is the store's only one, whoever began an attempt is dead, and its outcome unknown. */
static int recover_leases(struct server *s, int64_t now) {
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

/* ---- start: the stages ---- */

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

static int start_stages(struct server *s) {
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
    s->apply =
        (struct apply_context){s->store, s->writer, s->fanout, s->dispatch, s->c->allow_http, &s->policies};
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

/* The databases that events come from; nothing comes before sources_start. Events come in by the role api. */
static int prepare_sources(struct server *s) {
    if (!(s->c->roles & ROLE_API))
        return 0;
    struct sources_options o = {.metrics = s->metrics, .folder = s->c->data, .sink = new_sink, .arg = s};
    int r = s->c->from.n > 0 ? sources_new(&o, &s->sources) : 0;
    for (size_t i = 0; r == 0 && i < s->c->from.n; i++)
        r = sources_add(s->sources, &s->c->from.at[i], source_kind_find(s->c->from.at[i].kind));
    return r;
}

static int start_api(struct server *s) {
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

/* Each attempt under way takes a socket; the system's soft limit is often too low. */
static void raise_file_limit(const struct config *c) {
    struct rlimit limit;
    rlim_t wanted = (rlim_t)(c->max_in_flight * 2 + c->connections_max + FILES_BESIDE_SOCKETS);
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted)
        return;
    limit.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < wanted)
        log_warn("too few files may be open for max-in-flight attempts; raise the limit (ulimit -n)",
                 log_int("limit", (int64_t)limit.rlim_cur), log_int("wanted", (int64_t)wanted));
}

/* Whether what the settings send to, and through, can be used at all. */
static int check_outgoing(const struct server *s) {
    const char *reason;
    int r =
        s->c->operator_url ? operator_judge(s->c->operator_url, &s->addresses, s->c->allow_http, &reason) : 0;
    return r < 0 ? failed("operator-url cannot be sent to", r, reason) : egress_check(&s->egress);
}

static int start(struct server *s) {
    int64_t now = clock_now_ms();
    int r = listeners_open(s->c, &s->addresses, &s->listeners);
    if (r == 0)
        r = check_outgoing(s);
    if (r == 0)
        r = open_store(s);
    if (r < 0)
        return r;
    if ((r = enlist(s->c, s->store, &s->ids, &s->self)) < 0 || (r = prepare_operator(s, now)) < 0 ||
        (r = load_memory(s, now)) < 0 || (r = recover_leases(s, now)) < 0)
        return failed("the store cannot be read", r,
                      "see the line before; posthorn-data must be on a working disk");
    if ((r = start_stages(s)) < 0 || (r = prepare_sources(s)) < 0 || (r = start_api(s)) < 0)
        return failed("the server cannot start", r, "memory, threads or files may be short");
    return 0;
}

/* ---- the end ---- */

static void give_up(int signal_number) {
    static const char text[] =
        "posthorn: attempts under way did not end within stop-timeout-ms; their leases run out and they "
        "are sent again\n";
    (void)signal_number;
    ssize_t n = write(STDERR_FILENO, text, sizeof text - 1);
    (void)n;
    _exit(0);
}

/* Takes no more events, lets attempts in flight end and settle, then lets go of everything; also of a
 * half-made start. */
static void stop(struct server *s) {
    signal(SIGALRM, give_up);
    alarm((unsigned)((s->c->stop_timeout_ms + 999) / 1000));
    if (s->api)
        api_stop_accepting(s->api);
    sources_stop(s->sources);
    if (s->pump)
        pump_stop(s->pump);
    if (s->replayer)
        replayer_stop(s->replayer);
    if (s->self.node)
        node_leave(s->self.node);
    /* The API before the loops: a deletion under way is answered by its loop. */
    if (s->dispatch)
        dispatch_stop_claiming(s->dispatch);
    if (s->api)
        api_stop(s->api);
    if (s->dispatch)
        dispatch_stop(s->dispatch);
    if (s->self.node)
        node_end(s->self.node);
    if (s->writer)
        writer_stop(s->writer);
    tracer_stop(s->tracer);
    alarm(0);
    dispatch_free(s->dispatch);
    sources_free(s->sources);
    ingest_free(s->ingest);
    pump_free(s->pump);
    replayer_free(s->replayer);
    reaper_free(s->reaper);
    fanout_free(s->fanout);
    body_cache_free(s->bodies);
    directory_free(s->directory);
    node_free(s->self.node);
    store_reader_close(s->reader);
    if (s->store)
        store_close(s->store);
    metrics_free(s->metrics);
    policy_memo_clear(&s->policies);
    listeners_free(&s->listeners);
    explicit_bzero(s->admin_key, sizeof s->admin_key);
    explicit_bzero(s->self.receipt_key, sizeof s->self.receipt_key);
}

/* Where the hints would have `posthorn receive` listen; 0 when deliveries may not go there. */
static uint16_t receiver_port(const struct server *s) {
    enum { PORT = 8485 };
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const char *reason;
    return s->c->allow_http &&
                   address_judge_endpoint(&s->addresses, (const struct sockaddr *)&a, &reason) == 0
               ? PORT
               : 0;
}

static void say_ready(struct server *s, const struct serve_hooks *hooks) {
    log_info("ready", log_str("url", s->listeners.url), log_str("version", POSTHORN_VERSION),
             log_str("data", s->c->data));
    if (s->c->admin_listen.size)
        log_info("the control plane is served apart", log_str("url", s->listeners.admin_url));
    if (s->admin_key_made && s->c->log_json)
        log_info("the admin key, shown this once", log_str("kept_in", s->c->data),
                 log_str("admin_key", s->admin_key));
    else if (s->admin_key_made)
        fprintf(stderr, "The admin key, kept in %s/admin.key and shown this once: %s\n", s->c->data,
                s->admin_key);
    if (hooks && hooks->ready) {
        hooks->ready(hooks->arg, s->listeners.admin_url, s->admin_key);
        return;
    }
    if (s->c->log_json) /* a program reads stderr */
        return;
    _cleanup_buf_ struct buf hints = {0};
    _cleanup_buf_ struct buf key = {0};
    hints_key(&key, s->c->data, s->c->admin_key != NULL);
    if (buf_ok(&key))
        hints_first_steps(&hints, s->listeners.admin_url, key.p, receiver_port(s));
    if (buf_ok(&hints) && hints.n)
        fputs(hints.p, stderr);
}

static void reload(void *arg) {
    struct server *s = arg;
    notify_manager("RELOADING=1");
    certificate_reload(s->listeners.tls);
    notify_manager("READY=1");
}

int serve_run(const struct config *c, const struct serve_hooks *hooks) {
    log_configure(c->log_level, c->log_json);
    hardening_keep_secrets(c);
    housekeeper_block_signals();
    raise_file_limit(c);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    struct server *s = calloc(1, sizeof *s);
    if (!s)
        return EXIT_REFUSED;
    s->c = c;
    s->addresses = c->addresses;
    s->egress = (struct egress){.addresses = &s->addresses,
                                .source = c->source_address,
                                .proxy = c->proxy,
                                .ca_file = c->ca_file,
                                .name_servers = c->name_servers};
    int r = start(s);
    if (r == 0) {
        say_ready(s, hooks);
        notify_manager("READY=1");
        struct housekeeper_options o = {.store = s->store,
                                        .node = s->self.node,
                                        .lease_ms = s->c->node_lease_ms,
                                        .writer = s->writer,
                                        .reaper = s->reaper,
                                        .replayer = s->replayer,
                                        .reader = s->reader,
                                        .metrics = s->metrics,
                                        .reload = s->listeners.tls ? reload : NULL,
                                        .arg = s};
        r = housekeeper_run(&o);
        notify_manager("STOPPING=1");
        log_info("stopping: no more events are taken, attempts under way may end", log_int("signal", r));
    }
    stop(s);
    free(s);
    curl_global_cleanup();
    if (r >= 0)
        log_info("stopped", log_str("data", c->data));
    return r < 0 ? EXIT_REFUSED : EXIT_DONE;
}

int command_serve(int argc, char **argv) {
    _cleanup_config_ struct config c = {0};
    _cleanup_buf_ struct buf problems = {0};
    int r = config_load(argc, argv, environ, &c, &problems);
    if (r < 0)
        return usage_problems("serve", &problems);
    return serve_run(&c, NULL);
}
