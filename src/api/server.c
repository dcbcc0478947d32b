#include "api/server.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>

#include "api/http_listener.h"
#include "api/internal.h"
#include "api/side.h"
#include "base/clock.h"
#include "base/log.h"

enum {
    REQUESTS_IDLE_MAX = 256,             /* kept for reuse, a thread */
    BODY_KEPT_MAX = 65536,               /* memory a request kept for reuse may hold */
    BODY_DRAINED_MAX = 64 * 1024 * 1024, /* of a refused body, read so that the answer reaches its sender */
    BODY_SMALL_MAX = 65536,              /* a refused body up to this is read, and the connection kept */
    SENDING_MS_MAX = 2000,               /* how long a stop waits for answers that are on their way */
    ALLOW_SIZE = 64,
};

/* A way in: the one that producers use, and the operator's own. */
struct door {
    struct api *api;
    struct http_listener *listener; /* NULL: there is none */
    bool public_only;
};

enum { DOOR_PUBLIC, DOOR_ADMIN, DOORS };

struct api {
    struct api_options o;
    struct door doors[DOORS];
    struct connections *connections;
    struct side *side;
    uint8_t admin_hash[32];
    atomic_bool stopping;
    atomic_uint under_way; /* requests that a route has got and that are not answered */
    atomic_uint sending;   /* those that are answered and not yet sent */
    pthread_mutex_t lock;
    struct worker *workers; /* of all threads, freed at the end */
};

/* What each of libmicrohttpd's threads has of its own. */
struct worker {
    struct worker *next;
    struct store_reader *reader; /* NULL: not needed yet */
    struct request *idle;        /* a stock of used requests */
    unsigned idle_n;
};

static _Thread_local struct worker *thread_worker;

/* NULL when memory is out. */
static struct worker *worker_here(struct api *a) {
    if (thread_worker)
        return thread_worker;
    struct worker *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    pthread_mutex_lock(&a->lock);
    w->next = a->workers;
    a->workers = w;
    pthread_mutex_unlock(&a->lock);
    return thread_worker = w;
}

static void request_destroy(struct request *r) {
    buf_free(&r->body);
    buf_free(&r->out);
    free(r);
}

/* Its thread has ended. */
static void worker_free(struct worker *w) {
    while (w->idle) {
        struct request *r = w->idle;
        w->idle = r->next;
        request_destroy(r);
    }
    store_reader_close(w->reader);
    free(w);
}

/* ---- requests come and go ---- */

static struct request *request_new(struct door *d, struct MHD_Connection *connection) {
    struct api *a = d->api;
    struct worker *w = worker_here(a);
    struct request *r = w ? w->idle : NULL;
    if (r) {
        w->idle = r->next;
        w->idle_n--;
    } else if (!w || !(r = calloc(1, sizeof *r))) {
        return NULL;
    }
    struct buf body = r->body, out = r->out;
    memset(r, 0, offsetof(struct request, query));
    memset(&r->id, 0, sizeof *r - offsetof(struct request, id));
    r->query[0] = r->path[0] = '\0';
    r->query_n = 0;
    r->body = body;
    r->out = out;
    buf_reset(&r->body);
    buf_reset(&r->out);
    r->api = a;
    r->o = &a->o;
    r->public_only = d->public_only;
    r->connection = connection;
    r->now = clock_now_ms();
    return r;
}

static void wipe(struct buf *b) {
    if (b->p)
        explicit_bzero(b->p, b->cap);
}

static void request_free(struct request *r) {
    if (r->data_free && r->data)
        r->data_free(r->data);
    r->data = NULL;
    r->data_free = NULL;
    /* Where secrets and keys are given and shown. */
    if (r->route && r->route->body == BODY_JSON) {
        wipe(&r->body);
        wipe(&r->out);
    }
    struct worker *w = thread_worker;
    if (!w || w->idle_n >= REQUESTS_IDLE_MAX || r->body.cap > BODY_KEPT_MAX || r->out.cap > BODY_KEPT_MAX) {
        request_destroy(r);
        return;
    }
    r->next = w->idle;
    w->idle = r;
    w->idle_n++;
}

struct side *api_side(struct api *a) {
    return a->side;
}

struct store_reader *request_reader(struct request *r) {
    struct worker *w = thread_worker;
    CHECK(w); /* this thread has made the request */
    int err = w->reader ? 0 : store_reader_open(r->o->store, &w->reader);
    if (err < 0)
        request_unavailable(r, err);
    return w->reader;
}

int request_lane_stats(struct request *r, uint32_t subscription_no, struct lane_stats *ret) {
    return r->o->node ? node_stats(r->o->node, subscription_no, r->tenant.tier, ret)
                      : dispatch_stats(r->o->dispatch, subscription_no, ret);
}

/* ---- the head of a request ---- */

/* The URL as it came, before anything is decoded. Called for every request before its head has been read. */
static void *on_uri(void *arg, const char *uri, struct MHD_Connection *connection) {
    struct door *d = arg;
    connections_head_begins(d->api->connections, http_connection_watch(connection));
    struct request *r = request_new(d, connection);
    if (!r)
        return NULL;
    const char *query = strchrnul(uri, '?');
    size_t path_n = (size_t)(query - uri), query_n = *query ? strlen(query + 1) : 0;
    if (path_n >= sizeof r->path) {
        request_problem(r, 404, "There is no path this long.");
        return r;
    }
    if (query_n >= sizeof r->query) {
        request_problem(r, 414, "The query may have %zu bytes.", sizeof r->query - 1);
        return r;
    }
    memcpy(r->path, uri, path_n);
    r->path[path_n] = '\0';
    memcpy(r->query, query + (*query ? 1 : 0), query_n);
    r->query[query_n] = '\0';
    r->query_n = query_n;
    return r;
}

static size_t body_limit(const struct request *r) {
    switch (r->route->body) {
    case BODY_EVENT:
        return r->o->event_bytes_max;
    case BODY_BATCH:
        return r->o->batch_bytes_max;
    case BODY_RECEIPT:
        return API_RECEIPT_BYTES_MAX;
    case BODY_NONE:
    case BODY_JSON:
        break;
    }
    return API_BODY_BYTES_MAX;
}

static void too_large(struct request *r) {
    request_problem(r, 413, "The body may have at most %zu bytes here.", r->body_max);
}

/* What Content-Length says; 0 when it is absent. libmicrohttpd has refused one that is no number. */
static unsigned long long announced_body(struct request *r) {
    const char *length = request_header_value(r, MHD_HTTP_HEADER_CONTENT_LENGTH);
    return length ? strtoull(length, NULL, 10) : 0;
}

/* Everything that can be judged before the body: an answer set here stands, the body is only drained. */
static void judge_head(struct request *r, const char *method) {
    char allow[ALLOW_SIZE];
    struct slice tenant = SLICE_NONE;
    r->route = routes_find(r, method, allow, sizeof allow, &tenant);
    if (!r->route) {
        request_problem(r, *allow ? 405 : 404,
                        *allow ? "%s is not for this path." : "%s: there is no such path.", method);
        if (*allow)
            request_header(r, "Allow", allow);
        return;
    }
    r->body_max = body_limit(r);
    if (r->route->scope == SCOPE_NONE) {
        /* The route itself judges who comes; an unknown tenant is not told of before. */
        if (r->route->tenant_route && !directory_tenant(r->o->directory, tenant, &r->tenant))
            r->tenant = (struct tenant){0};
        return;
    }
    if (atomic_load(&r->api->stopping)) {
        request_unavailable(r, -ESHUTDOWN);
        return;
    }
    if (!auth_identify(r, r->api->admin_hash) || !auth_permit(r, tenant))
        return;
    if (announced_body(r) > r->body_max)
        too_large(r);
}

/* ---- the answer ---- */

static void begin_phase(struct request *r, enum connection_phase phase) {
    connections_phase(r->api->connections, http_connection_watch(r->connection), phase);
}

/* By the pattern of its route: a path, or a query, may hold what nobody should read. */
static void log_answer(const struct request *r) {
    log_debug("a request was answered", log_str("method", r->route ? r->route->method : NULL),
              log_str("route", r->route ? r->route->pattern : "none"), log_int("status", r->status),
              log_str("tenant", r->tenant.no ? r->tenant.id : NULL),
              log_str("actor", r->actor[0] ? r->actor : NULL));
}

static enum MHD_Result answer(struct request *r) {
    if (!buf_ok(&r->out))
        request_unavailable(r, -ENOMEM);
    CHECK(r->status);
    r->stage = REQUEST_ANSWERED;
    /* The buffer lives until the request has been sent and is freed. */
    if (r->counted == COUNT_UNDER_WAY) {
        r->counted = COUNT_SENDING;
        atomic_fetch_add(&r->api->sending, 1);
        atomic_fetch_sub(&r->api->under_way, 1);
    }
    struct MHD_Response *response =
        MHD_create_response_from_buffer(r->out.n, r->out.p, MHD_RESPMEM_PERSISTENT);
    if (!response)
        return MHD_NO;
    if (r->out.n && r->content_type)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, r->content_type);
    for (size_t i = 0; i < r->headers_n; i++)
        MHD_add_response_header(response, r->headers[i].name, r->headers[i].value);
    begin_phase(r, CONNECTION_ANSWER);
    enum MHD_Result result = MHD_queue_response(r->connection, (unsigned)r->status, response);
    MHD_destroy_response(response);
    metrics_http(r->o->metrics, r->route ? r->route->pattern : "none", r->status);
    if (log_enabled(LOG_DEBUG))
        log_answer(r);
    return result;
}

/* libmicrohttpd closes the connection when a body has not been read; a second descriptor of it takes in what
 * the sender still sends, or a reset would keep the answer from it. */
static enum MHD_Result answer_at_once(struct request *r) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    int fd = info ? fcntl(info->connect_fd, F_DUPFD_CLOEXEC, 0) : -1;
    if (fd >= 0)
        side_linger(r->api->side, fd);
    return answer(r);
}

/* A request refused for its head, whose body is small or absent, is read whole, and its connection kept. A
 * large one is answered at once. */
static enum MHD_Result refuse_early(struct request *r) {
    bool chunked = request_header_value(r, MHD_HTTP_HEADER_TRANSFER_ENCODING) != NULL;
    bool waits = request_header_value(r, MHD_HTTP_HEADER_EXPECT) != NULL;
    return announced_body(r) <= BODY_SMALL_MAX && !chunked && !waits ? MHD_YES : answer_at_once(r);
}

/* A head that can be read in two ways: nothing that comes behind it is read as a request. */
static enum MHD_Result refuse_ambiguous(struct request *r, const char *fault) {
    request_problem(r, 400, "%s", fault);
    request_header(r, MHD_HTTP_HEADER_CONNECTION, "close");
    return answer_at_once(r);
}

/* Keeps, or only drains, a piece of the body. */
static enum MHD_Result take_body(struct request *r, const char *data, size_t *size) {
    size_t n = *size;
    *size = 0;
    r->body_came += n;
    if (r->body_came > BODY_DRAINED_MAX)
        return MHD_NO;
    if (r->status)
        return MHD_YES;
    if (r->body_came > r->body_max) {
        too_large(r);
        buf_reset(&r->body);
        return MHD_YES;
    }
    buf_add(&r->body, data, n);
    if (!buf_ok(&r->body))
        request_unavailable(r, -ENOMEM);
    return MHD_YES;
}

/* The time that counts is when the whole request was there: a key may have been revoked, or have expired,
 * while the body came. false after having answered 401. */
static bool begin_work(struct request *r) {
    r->now = clock_now_ms();
    return r->body.n == 0 || r->route->scope == SCOPE_NONE || auth_identify(r, r->api->admin_hash);
}

static enum MHD_Result run_route(struct request *r) {
    if (!begin_work(r))
        return answer(r);
    begin_phase(r, CONNECTION_WORK);
    atomic_fetch_add(&r->api->under_way, 1);
    r->counted = COUNT_UNDER_WAY;
    r->route->handle(r);
    return r->stage == REQUEST_READING ? answer(r) : MHD_YES;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *data_size, void **context) {
    (void)arg;
    (void)url;
    struct request *r = *context;
    const char *fault;
    if (!r)
        return MHD_NO;
    switch (atomic_load(&r->stage)) {
    case REQUEST_NEW:
        r->stage = REQUEST_READING;
        begin_phase(r, CONNECTION_BODY);
        if ((fault = head_fault(connection, version)))
            return refuse_ambiguous(r, fault);
        if (!r->status)
            judge_head(r, method);
        return r->status ? refuse_early(r) : MHD_YES;
    case REQUEST_READING:
        if (*data_size)
            return take_body(r, data, data_size);
        return r->status ? answer(r) : run_route(r);
    case REQUEST_SUSPENDED:
        return MHD_YES; /* libmicrohttpd called too early; the answer is not there yet */
    case REQUEST_ANSWERED:
        if (r->finish)
            r->finish(r);
        return answer(r);
    }
    UNREACHABLE();
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode why) {
    (void)why;
    struct api *a = ((struct door *)arg)->api;
    struct request *r = *context;
    connections_phase(a->connections, http_connection_watch(connection), CONNECTION_IDLE);
    if (!r)
        return;
    CHECK(r->stage != REQUEST_SUSPENDED);
    CHECK(r->counted != COUNT_UNDER_WAY || r->stage == REQUEST_ANSWERED);
    if (r->counted == COUNT_UNDER_WAY)
        atomic_fetch_sub(&a->under_way, 1);
    else if (r->counted == COUNT_SENDING)
        atomic_fetch_sub(&a->sending, 1);
    request_free(r);
    *context = NULL;
}

/* ---- life ---- */

static int start_listener(struct door *d, int fd, unsigned threads, unsigned connections_max,
                          unsigned connections_per_client_max) {
    const struct api_options *o = &d->api->o;
    struct http_listener_options listener = {
        .fd = fd,
        .threads = threads,
        .connections_max = connections_max,
        .connections_per_client_max = connections_per_client_max,
        .head_bytes_max = API_CONNECTION_BYTES,
        .idle_seconds = API_IDLE_SECONDS,
        .tls = o->tls,
        .connections = d->api->connections,
        .handlers = {on_uri, on_request, on_completed, d},
    };
    return http_listener_start(&listener, &d->listener);
}

static int start_parts(struct api *a) {
    const struct api_options *o = &a->o;
    struct connection_limits limits = {.ms = {
                                           [CONNECTION_HEAD] = o->head_timeout_ms,
                                           [CONNECTION_BODY] = o->body_timeout_ms,
                                           [CONNECTION_ANSWER] = API_ANSWER_SECONDS * 1000,
                                           [CONNECTION_IDLE] = API_IDLE_SECONDS * 1000 + o->head_timeout_ms,
                                       }};
    int r = side_start(o->addresses, o->name_servers, &a->side);
    if (r == 0)
        r = connections_new(side_loop(a->side), &limits, &a->connections);
    if (r == 0 && o->admin_listen_fd >= 0)
        r = start_listener(&a->doors[DOOR_ADMIN], o->admin_listen_fd, 1, API_ADMIN_CONNECTIONS_MAX, 0);
    if (r == 0)
        r = start_listener(&a->doors[DOOR_PUBLIC], o->listen_fd, o->threads, o->connections_max,
                           o->connections_per_client_max);
    return r;
}

/* Ends what was started; no request is under way. */
static void end_parts(struct api *a) {
    for (size_t i = 0; i < DOORS; i++)
        http_listener_stop(a->doors[i].listener);
    side_stop(a->side);
    connections_free(a->connections);
    while (a->workers) {
        struct worker *w = a->workers;
        a->workers = w->next;
        worker_free(w);
    }
    pthread_mutex_destroy(&a->lock);
    free(a);
}

int api_start(const struct api_options *o, struct api **ret) {
    struct api *a = calloc(1, sizeof *a);
    if (!a)
        return -ENOMEM;
    a->o = *o;
    a->o.admin_key = NULL;
    auth_hash(slice_of(o->admin_key), a->admin_hash);
    pthread_mutex_init(&a->lock, NULL);
    for (size_t i = 0; i < DOORS; i++)
        a->doors[i].api = a;
    a->doors[DOOR_PUBLIC].public_only = o->admin_listen_fd >= 0;
    int r = start_parts(a);
    if (r < 0) {
        end_parts(a);
        return r;
    }
    *ret = a;
    return 0;
}

void api_stop_accepting(struct api *a) {
    atomic_store(&a->stopping, true);
    for (size_t i = 0; i < DOORS; i++)
        if (a->doors[i].listener)
            http_listener_quiesce(a->doors[i].listener);
}

void api_stop(struct api *a) {
    /* Every request under way waits for the writer or a loop, which answer within their own limits. */
    while (atomic_load(&a->under_way) > 0)
        usleep(2000);
    /* Who is slow to read an answer does not hold the stop up for long. */
    for (int i = 0; i < SENDING_MS_MAX / 2 && atomic_load(&a->sending) > 0; i++)
        usleep(2000);
    end_parts(a);
}
