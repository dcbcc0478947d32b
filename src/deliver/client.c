#include "deliver/client.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <utlist.h>

#include "base/clock.h"

enum {
    HANDLES_IDLE_MAX = 1024,
    RESOLVE_LINE_MAX = URL_HOST_MAX + 16 + RESOLVER_ADDRESSES_MAX * (INET6_ADDRSTRLEN + 3)
};

/* An easy handle with what a request needs while it lasts; reused, so that libcurl sets up little anew. */
struct client_handle {
    CURL *easy;
    EVP_MD_CTX *hash;
    struct curl_slist headers[CLIENT_HEADER_LINES_MAX];
    struct curl_slist resolve;
    char resolve_line[RESOLVE_LINE_MAX];
    struct client_handle *next;
};

/* A socket libcurl wants watched. */
struct client_socket {
    struct loop_watch watch;
    struct client *client;
    curl_socket_t fd;
    bool idle; /* libcurl does not wait for it now */
    struct client_socket *prev, *next;
};

struct client {
    struct loop *loop;
    CURLM *multi;
    struct resolver *resolver;
    const struct address_policy *addresses;
    struct loop_timer timer;
    struct client_socket *sockets, **by_fd; /* by_fd[fd], NULL where there is none */
    size_t by_fd_cap;
    struct client_handle *idle;
    unsigned idle_n;
    struct client_request *under_way;
    /* Requests that ended before libcurl saw them: done is called from the loop, never from client_send. */
    struct client_request *ended;
    struct loop_timer ended_timer;
};

/* ---- libcurl's callbacks for one request ---- */

static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address) {
    struct client_request *r = arg;
    const char *reason;
    (void)purpose;
    /* The last word: whatever was resolved, whoever resolved it, this is where the bytes would go. */
    if (address_judge_endpoint(r->client->addresses, &address->addr, &reason) < 0) {
        r->blocked = true;
        r->error_detail = reason;
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static bool is_status_line(struct slice line) {
    return slice_starts_with(line, SLICE_LIT("HTTP/"));
}

static size_t on_header(char *data, size_t size, size_t n, void *arg) {
    struct client_request *r = arg;
    struct slice line = {data, size * n};
    r->headers_read += line.n;
    if (r->headers_read > CLIENT_HEADERS_READ_MAX)
        return 0;
    if (is_status_line(line)) {
        /* Of several responses (100 Continue) only the final one's headers are kept. */
        buf_reset(&r->headers);
        r->retry_after = SLICE_NONE;
        return line.n;
    }
    if (line.n <= 2 || r->headers.n + line.n > CLIENT_HEADERS_KEPT_MAX)
        return line.n;
    buf_add_slice(&r->headers, line);
    return line.n;
}

static size_t on_body(char *data, size_t size, size_t n, void *arg) {
    struct client_request *r = arg;
    size_t got = size * n, left = CLIENT_BODY_READ_MAX - r->body_read, take = got < left ? got : left;
    size_t keep = CLIENT_BODY_KEPT_MAX - r->body_kept.n;
    buf_add(&r->body_kept, data, take < keep ? take : keep);
    if (r->body_read == 0)
        r->has_hash = EVP_DigestInit_ex2(r->handle->hash, EVP_sha256(), NULL) == 1;
    if (r->has_hash)
        r->has_hash = EVP_DigestUpdate(r->handle->hash, data, take) == 1;
    r->body_read += take;
    /* Enough was read: a short count makes libcurl end the transfer. */
    return take < got || r->body_read == CLIENT_BODY_READ_MAX ? 0 : got;
}

/* ---- handles ---- */

static void handle_free(struct client_handle *h) {
    curl_easy_cleanup(h->easy);
    EVP_MD_CTX_free(h->hash);
    free(h);
}

static int close_socket(void *arg, curl_socket_t fd);

/* Options that are the same for every request. */
static void handle_setup(CURL *e) {
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_POST, 1L);
    curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(e, CURLOPT_PROXY, "");
    curl_easy_setopt(e, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(e, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(e, CURLOPT_HTTP_CONTENT_DECODING, 0L);
    curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(e, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
}

static struct client_handle *handle_take(struct client *c) {
    struct client_handle *h = c->idle;
    if (h) {
        c->idle = h->next;
        c->idle_n--;
        return h;
    }
    h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    h->easy = curl_easy_init();
    h->hash = EVP_MD_CTX_new();
    if (!h->easy || !h->hash) {
        handle_free(h);
        return NULL;
    }
    handle_setup(h->easy);
    return h;
}

static void handle_return(struct client *c, struct client_handle *h) {
    if (c->idle_n >= HANDLES_IDLE_MAX) {
        handle_free(h);
        return;
    }
    h->next = c->idle;
    c->idle = h;
    c->idle_n++;
}

/* ---- the end of a request ---- */

static void finish(struct client *c, struct client_request *r) {
    r->latency_us = clock_mono_us() - r->started_us;
    if (r->handle) {
        handle_return(c, r->handle);
        r->handle = NULL;
    }
    DL_DELETE(c->under_way, r);
    r->done(r);
}

static void flush_ended(struct loop_timer *t) {
    struct client *c = (struct client *)((char *)t - offsetof(struct client, ended_timer));
    struct client_request *r, *next;
    struct client_request *ended = c->ended;
    c->ended = NULL;
    DL_FOREACH_SAFE (ended, r, next) {
        DL_DELETE(ended, r);
        DL_APPEND(c->under_way, r);
        finish(c, r);
    }
}

/* Ends a request that libcurl has not got. */
static void end_early(struct client *c, struct client_request *r, enum attempt_error error,
                      const char *detail) {
    r->error = error;
    r->error_detail = detail;
    DL_DELETE(c->under_way, r);
    DL_APPEND(c->ended, r);
    loop_timer_set(c->loop, &c->ended_timer, 0);
}

static enum attempt_error error_of(const struct client_request *r, CURLcode code) {
    long os_errno = 0;
    switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
        return ATTEMPT_TIMEOUT;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return ATTEMPT_DNS;
    case CURLE_COULDNT_CONNECT:
        if (r->blocked)
            return ATTEMPT_BLOCKED_ADDRESS;
        curl_easy_getinfo(r->handle->easy, CURLINFO_OS_ERRNO, &os_errno);
        return os_errno == ECONNREFUSED ? ATTEMPT_CONNECT_REFUSED : ATTEMPT_CONNECT_FAILED;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ENGINE_INITFAILED:
        return ATTEMPT_TLS;
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
        return ATTEMPT_RESET;
    case CURLE_OUT_OF_MEMORY:
    case CURLE_FAILED_INIT:
        return ATTEMPT_INTERNAL;
    default:
        return ATTEMPT_PROTOCOL;
    }
}

static void read_phases(struct client_request *r, CURL *e) {
    curl_off_t connect = 0, tls = 0, first_byte = 0, sent = 0;
    curl_easy_getinfo(e, CURLINFO_CONNECT_TIME_T, &connect);
    curl_easy_getinfo(e, CURLINFO_APPCONNECT_TIME_T, &tls);
    curl_easy_getinfo(e, CURLINFO_PRETRANSFER_TIME_T, &sent);
    curl_easy_getinfo(e, CURLINFO_STARTTRANSFER_TIME_T, &first_byte);
    r->connect_us = connect;
    r->tls_us = tls > connect ? tls - connect : 0;
    r->wait_us = first_byte > sent ? first_byte - sent : 0;
}

static struct slice header_value(struct slice headers, struct slice name) {
    while (headers.n) {
        const char *end = memchr(headers.p, '\n', headers.n);
        size_t line_n = end ? (size_t)(end - headers.p) + 1 : headers.n;
        struct slice line = {headers.p, line_n};
        if (line.n > name.n && line.p[name.n] == ':' &&
            slice_eq_nocase((struct slice){line.p, name.n}, name)) {
            struct slice value = {line.p + name.n + 1, line.n - name.n - 1};
            while (value.n && (value.p[value.n - 1] == '\n' || value.p[value.n - 1] == '\r'))
                value.n--;
            return value;
        }
        headers.p += line_n;
        headers.n -= line_n;
    }
    return SLICE_NONE;
}

static void transfer_ended(struct client *c, struct client_request *r, CURLcode code) {
    CURL *e = r->handle->easy;
    long status = 0;
    curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &status);
    /* The final status line decides, whatever became of the rest. */
    r->status = status >= 200 ? (int)status : 0;
    if (r->status == 0) {
        r->error = error_of(r, code);
        if (!r->error_detail && code != CURLE_OK)
            r->error_detail = curl_easy_strerror(code);
    }
    r->retry_after = header_value(buf_slice(&r->headers), SLICE_LIT("retry-after"));
    if (r->has_hash)
        r->has_hash = EVP_DigestFinal_ex(r->handle->hash, r->body_hash, NULL) == 1;
    read_phases(r, e);
    curl_multi_remove_handle(c->multi, e);
    finish(c, r);
}

static void collect_ended(struct client *c) {
    int left;
    CURLMsg *m;
    while ((m = curl_multi_info_read(c->multi, &left))) {
        if (m->msg != CURLMSG_DONE)
            continue;
        struct client_request *r = NULL;
        CURLcode code = m->data.result;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&r);
        transfer_ended(c, r, code);
    }
}

/* ---- libcurl's multi interface on the loop ---- */

static void on_socket_ready(struct loop_watch *w, uint32_t events) {
    struct client_socket *s = (struct client_socket *)w;
    struct client *c = s->client;
    if (s->idle) {
        /* A kept connection that the receiver has closed; libcurl finds out when it wants to use it. */
        loop_watch_clear(c->loop, w);
        return;
    }
    int flags = (events & EPOLLIN ? CURL_CSELECT_IN : 0) | (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                (events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
    int running;
    curl_multi_socket_action(c->multi, w->fd, flags, &running);
    collect_ended(c);
}

static void drop_socket(struct client *c, struct client_socket *s) {
    loop_watch_clear(c->loop, &s->watch);
    c->by_fd[s->fd] = NULL;
    DL_DELETE(c->sockets, s);
    loop_free_later(c->loop, s);
}

static struct client_socket *socket_for(struct client *c, curl_socket_t fd) {
    if ((size_t)fd >= c->by_fd_cap) {
        size_t cap = (size_t)fd * 2 + 64;
        struct client_socket **by_fd = realloc(c->by_fd, cap * sizeof(struct client_socket *));
        if (!by_fd)
            return NULL;
        memset(by_fd + c->by_fd_cap, 0, (cap - c->by_fd_cap) * sizeof(struct client_socket *));
        c->by_fd = by_fd;
        c->by_fd_cap = cap;
    }
    struct client_socket *s = c->by_fd[fd];
    if (s || !(s = calloc(1, sizeof *s)))
        return s;
    s->watch = (struct loop_watch){.fn = on_socket_ready, .fd = -1};
    s->client = c;
    s->fd = fd;
    c->by_fd[fd] = s;
    DL_APPEND(c->sockets, s);
    return s;
}

/* libcurl stops watching a connection after each request and begins again with the next. The kernel is not
 * told: the watch stays until the connection is closed, or stirs while nobody waits for it. */
static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg) {
    struct client *c = arg;
    (void)easy;
    (void)socket_arg;
    struct client_socket *s = socket_for(c, fd);
    if (!s)
        return -1;
    s->idle = what == CURL_POLL_REMOVE || what == CURL_POLL_NONE;
    if (s->idle)
        return 0;
    uint32_t events = (what & CURL_POLL_IN ? EPOLLIN : 0U) | (what & CURL_POLL_OUT ? EPOLLOUT : 0U);
    return loop_watch_set(c->loop, &s->watch, fd, events) < 0 ? -1 : 0;
}

static int close_socket(void *arg, curl_socket_t fd) {
    struct client *c = arg;
    if ((size_t)fd < c->by_fd_cap && c->by_fd[fd])
        drop_socket(c, c->by_fd[fd]);
    return close(fd);
}

static void on_timer(struct loop_timer *t) {
    struct client *c = (struct client *)((char *)t - offsetof(struct client, timer));
    int running;
    curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    collect_ended(c);
}

static int set_timer(CURLM *multi, long timeout_ms, void *arg) {
    struct client *c = arg;
    (void)multi;
    if (timeout_ms < 0)
        loop_timer_clear(c->loop, &c->timer);
    else
        loop_timer_set(c->loop, &c->timer, timeout_ms == 0 ? 0 : clock_mono_us() + timeout_ms * 1000);
    return 0;
}

/* ---- sending ---- */

static void chain_headers(struct client_handle *h, const struct client_request *r) {
    CHECK(r->header_lines_n > 0 && r->header_lines_n <= CLIENT_HEADER_LINES_MAX);
    for (size_t i = 0; i < r->header_lines_n; i++) {
        h->headers[i].data = (char *)r->header_lines[i];
        h->headers[i].next = i + 1 < r->header_lines_n ? &h->headers[i + 1] : NULL;
    }
}

/* Tells libcurl the judged addresses, so that it looks nothing up itself. */
static void pin_addresses(struct client_handle *h, const struct client_request *r,
                          const struct resolver_addresses *a) {
    char *out = h->resolve_line, *end = out + sizeof h->resolve_line;
    out += snprintf(out, (size_t)(end - out), "+%.*s:%u:", SLICE_ARG(r->url->host), r->url->port);
    for (size_t i = 0; i < a->n; i++) {
        char text[INET6_ADDRSTRLEN];
        bool v6 = a->a[i].ss_family == AF_INET6;
        const void *address = v6 ? (const void *)&((const struct sockaddr_in6 *)&a->a[i])->sin6_addr
                                 : (const void *)&((const struct sockaddr_in *)&a->a[i])->sin_addr;
        inet_ntop(a->a[i].ss_family, address, text, sizeof text);
        out += snprintf(out, (size_t)(end - out), v6 ? "%s[%s]" : "%s%s", i ? "," : "", text);
    }
    h->resolve = (struct curl_slist){.data = h->resolve_line};
}

static void start_transfer(struct client *c, struct client_request *r,
                           const struct resolver_addresses *addresses) {
    struct client_handle *h = handle_take(c);
    if (!h) {
        end_early(c, r, ATTEMPT_INTERNAL, "out of memory");
        return;
    }
    int64_t left_ms = r->timeout_ms - (clock_mono_us() - r->started_us) / 1000;
    r->handle = h;
    chain_headers(h, r);
    CURL *e = h->easy;
    curl_easy_setopt(e, CURLOPT_URL, r->url->text);
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, h->headers);
    curl_easy_setopt(e, CURLOPT_POSTFIELDS, r->body.p);
    curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body.n);
    curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)(left_ms > 1 ? left_ms : 1));
    curl_easy_setopt(e, CURLOPT_PRIVATE, r);
    curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, r);
    curl_easy_setopt(e, CURLOPT_CLOSESOCKETDATA, c);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, r);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, r);
    if (addresses)
        pin_addresses(h, r, addresses);
    curl_easy_setopt(e, CURLOPT_RESOLVE, addresses ? &h->resolve : NULL);
    if (curl_multi_add_handle(c->multi, e) != CURLM_OK)
        end_early(c, r, ATTEMPT_INTERNAL, "libcurl refuses the request");
}

static enum attempt_error lookup_error(int error) {
    return error == -ETIMEDOUT || error == -ENOENT || error == -EIO || error == -EINVAL ? ATTEMPT_DNS
                                                                                        : ATTEMPT_INTERNAL;
}

static void with_addresses(struct client *c, struct client_request *r, const struct resolver_addresses *a) {
    const char *reason;
    r->dns_us = clock_mono_us() - r->started_us;
    if (address_judge_resolved(c->addresses, a->a, a->n, r->url->port, &reason) < 0)
        end_early(c, r, ATTEMPT_BLOCKED_ADDRESS, reason);
    else
        start_transfer(c, r, a);
}

static void on_resolved(struct resolver_query *q, int error, const struct resolver_addresses *addresses) {
    struct client_request *r = (struct client_request *)((char *)q - offsetof(struct client_request, query));
    struct client *c = r->client;
    if (error < 0) {
        bool late = clock_mono_us() - r->started_us >= (int64_t)r->timeout_ms * 1000;
        end_early(c, r, late ? ATTEMPT_TIMEOUT : lookup_error(error), "the name could not be resolved");
        return;
    }
    with_addresses(c, r, addresses);
}

void client_send(struct client *c, struct client_request *r) {
    CHECK(r->url && r->done && r->timeout_ms > 0);
    r->client = c;
    r->started_us = clock_mono_us();
    DL_APPEND(c->under_way, r);
    const char *reason;
    if (address_judge_url(c->addresses, r->allow_http, r->url, &reason) < 0) {
        end_early(c, r, ATTEMPT_BLOCKED_ADDRESS, reason);
        return;
    }
    if (r->url->is_literal) {
        start_transfer(c, r, NULL);
        return;
    }
    r->query = (struct resolver_query){.fn = on_resolved};
    struct resolver_addresses found;
    int64_t deadline_us = r->started_us + (int64_t)r->timeout_ms * 1000;
    int known = resolver_lookup(c->resolver, &r->query, r->url->host, deadline_us, &found);
    if (known < 0)
        end_early(c, r, lookup_error(known), "the name could not be resolved");
    else if (known > 0)
        with_addresses(c, r, &found);
}

void client_fail(struct client *c, struct client_request *r, enum attempt_error error) {
    r->client = c;
    r->started_us = clock_mono_us();
    DL_APPEND(c->under_way, r);
    end_early(c, r, error, NULL);
}

void client_request_clear(struct client_request *r) {
    buf_free(&r->headers);
    buf_free(&r->body_kept);
}

int client_new(struct loop *l, const struct client_options *o, struct client **ret) {
    struct client *c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    c->loop = l;
    c->addresses = o->addresses;
    c->timer.fn = on_timer;
    c->ended_timer.fn = flush_ended;
    struct resolver_options resolver = {.name_servers = o->name_servers};
    int r = resolver_new(l, &resolver, &c->resolver);
    c->multi = r == 0 ? curl_multi_init() : NULL;
    if (!c->multi) {
        client_free(c);
        return r < 0 ? r : -ENOMEM;
    }
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, set_timer);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
    curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, (long)o->connections_kept);
    *ret = c;
    return 0;
}

void client_free(struct client *c) {
    if (!c)
        return;
    struct client_request *r, *next;
    DL_FOREACH_SAFE (c->under_way, r, next) {
        resolver_cancel(&r->query);
        if (r->handle) {
            curl_multi_remove_handle(c->multi, r->handle->easy);
            handle_free(r->handle);
            r->handle = NULL;
        }
        DL_DELETE(c->under_way, r);
    }
    while (c->idle) {
        struct client_handle *h = c->idle;
        c->idle = h->next;
        handle_free(h);
    }
    if (c->multi)
        curl_multi_cleanup(c->multi);
    loop_timer_clear(c->loop, &c->timer);
    loop_timer_clear(c->loop, &c->ended_timer);
    while (c->sockets)
        drop_socket(c, c->sockets);
    free(c->by_fd);
    resolver_free(c->resolver);
    free(c);
}
