#include "cli/serve.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

#include <curl/curl.h>

#include "base/clock.h"
#include "cli/client/interrupt.h"
#include "cli/commands.h"
#include "cli/egress_check.h"
#include "cli/hardening.h"
#include "cli/hints.h"
#include "cli/housekeeper.h"
#include "cli/notify.h"
#include "cli/operator.h"
#include "cli/secret_key.h"
#include "cli/stages.h"
#include "store/snapshot.h"

enum { FILES_BESIDE_SOCKETS = 1024 };

static int failed(const char *what, int error, const char *advice) {
    log_error(what, log_str("error", strerror(-error)), log_str("advice", advice));
    return error;
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
        (r = load_memory(s, now)) < 0 || (r = stages_recover_leases(s, now)) < 0)
        return failed("the store cannot be read", r,
                      "see the line before; posthorn-data must be on a working disk");
    if ((r = stages_start(s)) < 0 || (r = stages_prepare_sources(s)) < 0 || (r = stages_start_api(s)) < 0)
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

static void interrupt_again(int signal_number) {
    static const char text[] = "posthorn: ended at once; attempts under way are sent again\n";
    (void)signal_number;
    ssize_t n = write(STDERR_FILENO, text, sizeof text - 1);
    (void)n;
    _exit(EXIT_INTERRUPTED);
}

/* Whoever presses Ctrl-C again does not want to wait. Other threads keep it blocked. */
static void let_interrupt(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    signal(SIGINT, interrupt_again);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* Takes no more events, lets attempts in flight end and settle, then lets go of everything; also of a
 * half-made start. */
static void stop(struct server *s) {
    signal(SIGALRM, give_up);
    alarm((unsigned)((s->c->stop_timeout_ms + 999) / 1000));
    let_interrupt();
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

/* Who looks at a terminal may want them again; the journal of a server that is in use does not. */
static bool wants_first_steps(const struct server *s) {
    struct tenant any;
    return !s->c->log_json && (isatty(STDERR_FILENO) || !directory_tenant_after(s->directory, 0, &any));
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
    if (!wants_first_steps(s))
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
        struct housekeeper_options o = {
            .store = s->store,
            .node = s->self.node,
            .lease_ms = s->c->node_lease_ms,
            .worker_no = s->self.worker_no,
            .retention = {.audit_days = c->audit_retention_days, .key_days = c->key_retention_days},
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
        if (r == SIGINT && isatty(STDERR_FILENO))
            fputs("Ctrl-C again ends it at once.\n", stderr);
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
