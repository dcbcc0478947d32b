#include "deliver/curl_http.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <utlist.h>

#include "base/clock.h"
#include "deliver/response.h"

enum {
    HANDLES_IDLE_MAX = 1024,
    HEADER_LINES_MAX = 64,
    ROUTE_LINE_MAX = URL_HOST_MAX + 16 + RESOLVER_ADDRESSES_MAX * (INET6_ADDRSTRLEN + 3)
};

/* An easy handle with what a request needs while it lasts; reused, so that libcurl sets up little anew. */
struct handle {
    CURL *easy;
    struct curl_http *owner;
    struct client_request *request;
    bool blocked, has_tls;
    size_t headers_read;
    struct buf lines; /* NUL-separated, as the list below points into it */
    struct curl_slist headers[HEADER_LINES_MAX];
    struct curl_slist
        route; /* where the name leads: for CURLOPT_RESOLVE, or CURLOPT_CONNECT_TO through a proxy */
    char route_line[ROUTE_LINE_MAX];
    struct handle *next;
};

/* A socket libcurl wants watched. */
struct socket_watch {
    struct loop_watch watch;
    struct curl_http *owner;
    curl_socket_t fd;
    bool idle; /* libcurl does not wait for it now */
    struct socket_watch *prev, *next;
};

struct curl_http {
    struct transport_options o;
    CURLM *multi;
    struct loop_timer timer;
    struct socket_watch *sockets, **by_fd; /* by_fd[fd], NULL where there is none */
    size_t by_fd_cap;
    struct handle *idle;
    unsigned idle_n;
};

/* ---- libcurl's callbacks for one request ---- */

static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address) {
    struct handle *h = arg;
    const struct egress *egress = h->owner->o.egress;
    const char *reason = NULL;
    (void)purpose;
    /* Through a proxy, the judged address is what it is asked to connect to. */
    int fd = egress->proxy ? egress_socket_to_proxy(egress, &address->addr, 0)
                           : egress_socket(egress, &address->addr, 0, &reason);
    if (fd == -EPERM && reason) {
        h->blocked = true;
        h->request->error_detail = reason;
    }
    return fd < 0 ? CURL_SOCKET_BAD : fd;
}

/* "HTTP/2 200 OK": the status, or 0 when it is no status line. */
static int status_of(struct slice line) {
    if (!slice_starts_with(line, SLICE_LIT("HTTP/")))
        return 0;
    const char *space = memchr(line.p, ' ', line.n);
    int status = 0;
    if (!space || line.p + line.n - space < 4)
        return 0;
    for (int i = 1; i <= 3; i++)
        status = space[i] >= '0' && space[i] <= '9' ? status * 10 + space[i] - '0' : 0;
    return status;
}

static size_t on_header(char *data, size_t size, size_t n, void *arg) {
    struct handle *h = arg;
    struct slice line = {data, size * n};
    h->headers_read += line.n;
    if (h->headers_read > CLIENT_HEADERS_READ_MAX)
        return 0;
    int status = status_of(line);
    struct slice text = line;
    while (text.n && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == '\r'))
        text.n--;
    if (status)
        response_status(h->request, status);
    else if (h->request->status && text.n && memchr(text.p, ':', text.n))
        response_header(h->request, text);
    return line.n;
}

static size_t on_body(char *data, size_t size, size_t n, void *arg) {
    struct handle *h = arg;
    /* A short count makes libcurl end the transfer. */
    return response_body(h->request, (struct slice){data, size * n}) ? size * n : 0;
}

/* ---- handles ---- */

static void handle_free(struct handle *h) {
    curl_easy_cleanup(h->easy);
    buf_free(&h->lines);
    free(h);
}

static int close_socket(void *arg, curl_socket_t fd);

/* libcurl asks the system's folder of authorities beside every other: only where those are meant. */
static void choose_folder(CURL *e, const struct egress *egress, const char *ca) {
    const char *of_system = curl_version_info(CURLVERSION_NOW)->capath;
    curl_easy_setopt(e, CURLOPT_CAPATH, ca || egress->ca_file ? NULL : of_system);
}

/* Options that are the same for every request. */
static void handle_setup(CURL *e, const struct egress *egress) {
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_POST, 1L);
    curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
    /* Variables such as https_proxy do not count. */
    curl_easy_setopt(e, CURLOPT_PROXY, egress->proxy ? egress->proxy : "");
    curl_easy_setopt(e, CURLOPT_NOPROXY, egress->proxy ? "" : "*");
    curl_easy_setopt(e, CURLOPT_HTTPPROXYTUNNEL, 1L);
    curl_easy_setopt(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (egress->ca_file)
        curl_easy_setopt(e, CURLOPT_CAINFO, egress->ca_file);
    choose_folder(e, egress, NULL);
    curl_easy_setopt(e, CURLOPT_HTTP_CONTENT_DECODING, 0L);
    curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(e, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
}

static struct handle *handle_take(struct curl_http *c) {
    struct handle *h = c->idle;
    if (h) {
        c->idle = h->next;
        c->idle_n--;
        return h;
    }
    h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    h->easy = curl_easy_init();
    h->owner = c;
    if (!h->easy) {
        handle_free(h);
        return NULL;
    }
    handle_setup(h->easy, c->o.egress);
    return h;
}

static void handle_return(struct curl_http *c, struct handle *h) {
    if (c->idle_n >= HANDLES_IDLE_MAX) {
        handle_free(h);
        return;
    }
    h->next = c->idle;
    c->idle = h;
    c->idle_n++;
}

/* ---- TLS material ---- */

/* Not copied: libcurl would not wipe it. It is the subscription's, which outlives the request. */
static void set_blob(CURL *e, CURLoption option, const char *pem) {
    struct curl_blob blob = {(void *)(uintptr_t)pem, pem ? strlen(pem) : 0, CURL_BLOB_NOCOPY};
    curl_easy_setopt(e, option, pem ? &blob : NULL);
}

/* A subscription's authorities stand in place of the server's, those in place of the system's. NULL: it has
 * none of its own. */
static void set_tls(struct handle *h, const struct tls_material *tls) {
    if (!tls && !h->has_tls)
        return;
    h->has_tls = tls != NULL;
    set_blob(h->easy, CURLOPT_SSLCERT_BLOB, tls ? tls->client_certificate : NULL);
    set_blob(h->easy, CURLOPT_SSLKEY_BLOB, tls ? tls->client_key : NULL);
    set_blob(h->easy, CURLOPT_CAINFO_BLOB, tls ? tls->ca : NULL);
    choose_folder(h->easy, h->owner->o.egress, tls ? tls->ca : NULL);
}

/* ---- the end of a request ---- */

static enum attempt_error error_of(const struct handle *h, CURLcode code) {
    long os_errno = 0, refusal = 0;
    switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
        return ATTEMPT_TIMEOUT;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return ATTEMPT_DNS;
    case CURLE_COULDNT_CONNECT:
        if (h->blocked)
            return ATTEMPT_BLOCKED_ADDRESS;
        curl_easy_getinfo(h->easy, CURLINFO_OS_ERRNO, &os_errno);
        return os_errno == ECONNREFUSED ? ATTEMPT_CONNECT_REFUSED : ATTEMPT_CONNECT_FAILED;
    case CURLE_PROXY:
        return ATTEMPT_CONNECT_FAILED;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ENGINE_INITFAILED:
        return ATTEMPT_TLS;
    case CURLE_RECV_ERROR:
        /* Told also when the proxy refuses. */
        curl_easy_getinfo(h->easy, CURLINFO_HTTP_CONNECTCODE, &refusal);
        return refusal >= 300 ? ATTEMPT_CONNECT_FAILED : ATTEMPT_RESET;
    case CURLE_SEND_ERROR:
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

static void release(struct curl_http *c, struct handle *h) {
    curl_multi_remove_handle(c->multi, h->easy);
    set_tls(h, NULL);
    h->request->transfer = NULL;
    h->request = NULL;
    handle_return(c, h);
}

static void transfer_ended(struct curl_http *c, struct handle *h, CURLcode code) {
    struct client_request *r = h->request;
    if (r->status == 0) {
        r->error = error_of(h, code);
        if (!r->error_detail && code != CURLE_OK)
            r->error_detail = curl_easy_strerror(code);
    }
    read_phases(r, h->easy);
    release(c, h);
    c->o.ended(c->o.arg, r);
}

static void collect_ended(struct curl_http *c) {
    int left;
    CURLMsg *m;
    while ((m = curl_multi_info_read(c->multi, &left))) {
        if (m->msg != CURLMSG_DONE)
            continue;
        struct handle *h = NULL;
        CURLcode code = m->data.result;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&h);
        transfer_ended(c, h, code);
    }
}

/* ---- libcurl's multi interface on the loop ---- */

static void on_socket_ready(struct loop_watch *w, uint32_t events) {
    struct socket_watch *s = (struct socket_watch *)w;
    struct curl_http *c = s->owner;
    if (s->idle) {
        /* A kept connection that the receiver has closed; libcurl finds out when it wants to use it. */
        loop_watch_clear(c->o.loop, w);
        return;
    }
    int flags = (events & EPOLLIN ? CURL_CSELECT_IN : 0) | (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                (events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
    int running;
    curl_multi_socket_action(c->multi, w->fd, flags, &running);
    collect_ended(c);
}

static void drop_socket(struct curl_http *c, struct socket_watch *s) {
    loop_watch_clear(c->o.loop, &s->watch);
    c->by_fd[s->fd] = NULL;
    DL_DELETE(c->sockets, s);
    loop_free_later(c->o.loop, s);
}

static struct socket_watch *socket_for(struct curl_http *c, curl_socket_t fd) {
    if ((size_t)fd >= c->by_fd_cap) {
        size_t cap = (size_t)fd * 2 + 64;
        struct socket_watch **by_fd = realloc(c->by_fd, cap * sizeof(struct socket_watch *));
        if (!by_fd)
            return NULL;
        memset(by_fd + c->by_fd_cap, 0, (cap - c->by_fd_cap) * sizeof(struct socket_watch *));
        c->by_fd = by_fd;
        c->by_fd_cap = cap;
    }
    struct socket_watch *s = c->by_fd[fd];
    if (s || !(s = calloc(1, sizeof *s)))
        return s;
    s->watch = (struct loop_watch){.fn = on_socket_ready, .fd = -1};
    s->owner = c;
    s->fd = fd;
    c->by_fd[fd] = s;
    DL_APPEND(c->sockets, s);
    return s;
}

/* libcurl stops watching a connection after each request and begins again with the next. The kernel is not
 * told: the watch stays until the connection is closed, or stirs while nobody waits for it. */
static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg) {
    struct curl_http *c = arg;
    (void)easy;
    (void)socket_arg;
    struct socket_watch *s = socket_for(c, fd);
    if (!s)
        return -1;
    s->idle = what == CURL_POLL_REMOVE || what == CURL_POLL_NONE;
    if (s->idle)
        return 0;
    uint32_t events = (what & CURL_POLL_IN ? EPOLLIN : 0U) | (what & CURL_POLL_OUT ? EPOLLOUT : 0U);
    return loop_watch_set(c->o.loop, &s->watch, fd, events) < 0 ? -1 : 0;
}

static int close_socket(void *arg, curl_socket_t fd) {
    struct curl_http *c = arg;
    if ((size_t)fd < c->by_fd_cap && c->by_fd[fd])
        drop_socket(c, c->by_fd[fd]);
    return close(fd);
}

static void on_timer(struct loop_timer *t) {
    struct curl_http *c = (struct curl_http *)((char *)t - offsetof(struct curl_http, timer));
    int running;
    curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    collect_ended(c);
}

static int set_timer(CURLM *multi, long timeout_ms, void *arg) {
    struct curl_http *c = arg;
    (void)multi;
    if (timeout_ms < 0)
        loop_timer_clear(c->o.loop, &c->timer);
    else
        loop_timer_set(c->o.loop, &c->timer, timeout_ms == 0 ? 0 : clock_mono_us() + timeout_ms * 1000);
    return 0;
}

/* ---- sending ---- */

static void add_line(struct handle *h, size_t i, char *text) {
    h->headers[i] = (struct curl_slist){.data = text};
    if (i > 0)
        h->headers[i - 1].next = &h->headers[i];
}

/* The lines as libcurl takes them. A header without a value is "Name;" to it: "Name:" would leave it out. */
static int list_headers(struct handle *h, struct slice lines) {
    buf_reset(&h->lines);
    buf_add_slice(&h->lines, lines);
    buf_add_char(&h->lines, '\0');
    if (!buf_ok(&h->lines))
        return -ENOMEM;
    size_t n = 0;
    add_line(h, n++, "Expect:"); /* no waiting for 100 Continue */
    add_line(h, n++, "Accept:");
    char *p = h->lines.p, *end;
    while ((end = strchr(p, '\r'))) {
        CHECK(end[1] == '\n' && n < HEADER_LINES_MAX);
        char *colon = strchr(p, ':');
        *end = '\0';
        if (colon && colon + 2 >= end) {
            colon[0] = ';';
            colon[1] = '\0';
        }
        add_line(h, n++, p);
        p = end + 2;
    }
    return 0;
}

static size_t address_text(const struct sockaddr_storage *address, char *out, size_t size) {
    char text[INET6_ADDRSTRLEN];
    bool v6 = address->ss_family == AF_INET6;
    const void *bytes = v6 ? (const void *)&((const struct sockaddr_in6 *)address)->sin6_addr
                           : (const void *)&((const struct sockaddr_in *)address)->sin_addr;
    inet_ntop(address->ss_family, bytes, text, sizeof text);
    return (size_t)snprintf(out, size, v6 ? "[%s]" : "%s", text);
}

/* Tells libcurl the judged addresses, so that it looks nothing up itself. */
static void pin_addresses(struct handle *h, const struct sockaddr_storage *addresses, size_t n) {
    const struct url *url = h->request->url;
    char *out = h->route_line, *end = out + sizeof h->route_line;
    CHECK(n <= RESOLVER_ADDRESSES_MAX);
    out += snprintf(out, (size_t)(end - out), "+%.*s:%u:", SLICE_ARG(url->host), url->port);
    for (size_t i = 0; i < n; i++) {
        if (i)
            *out++ = ',';
        out += address_text(&addresses[i], out, (size_t)(end - out));
    }
}

/* The proxy is asked for the judged address, not for the name. */
static void route_through_proxy(struct handle *h, const struct sockaddr_storage *address) {
    char text[INET6_ADDRSTRLEN + 2];
    address_text(address, text, sizeof text);
    snprintf(h->route_line, sizeof h->route_line, "::%s:%u", text, h->request->url->port);
}

static void set_route(struct handle *h, const struct sockaddr_storage *addresses, size_t n) {
    CURL *e = h->easy;
    bool proxy = h->owner->o.egress->proxy != NULL, pinned = !proxy && !h->request->url->is_literal;
    h->route = (struct curl_slist){.data = h->route_line};
    if (proxy)
        route_through_proxy(h, addresses);
    else if (pinned)
        pin_addresses(h, addresses, n);
    curl_easy_setopt(e, CURLOPT_CONNECT_TO, proxy ? &h->route : NULL);
    curl_easy_setopt(e, CURLOPT_RESOLVE, pinned ? &h->route : NULL);
}

/* Options of this request. */
static void set_up(struct handle *h, const struct sockaddr_storage *addresses, size_t n) {
    struct client_request *r = h->request;
    CURL *e = h->easy;
    int64_t left_ms = r->timeout_ms - (clock_mono_us() - r->started_us) / 1000;
    curl_easy_setopt(e, CURLOPT_URL, r->url->text);
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, h->headers);
    curl_easy_setopt(e, CURLOPT_POSTFIELDS, r->body.p);
    curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body.n);
    curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)(left_ms > 1 ? left_ms : 1));
    curl_easy_setopt(e, CURLOPT_PRIVATE, h);
    curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, h);
    curl_easy_setopt(e, CURLOPT_CLOSESOCKETDATA, h->owner);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, h);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, h);
    set_route(h, addresses, n);
    set_tls(h, r->tls);
}

static int refuse(struct client_request *r, const char *detail, int error) {
    r->error = ATTEMPT_INTERNAL;
    r->error_detail = detail;
    return error;
}

int curl_http_send(struct curl_http *c, struct client_request *r, const struct sockaddr_storage *addresses,
                   size_t n) {
    struct handle *h = handle_take(c);
    if (!h)
        return refuse(r, "out of memory", -ENOMEM);
    h->request = r;
    h->blocked = false;
    h->headers_read = 0;
    r->transfer = h;
    if (list_headers(h, r->header_lines) < 0) {
        release(c, h);
        return refuse(r, "out of memory", -ENOMEM);
    }
    set_up(h, addresses, n);
    if (curl_multi_add_handle(c->multi, h->easy) != CURLM_OK) {
        release(c, h);
        return refuse(r, "libcurl refuses the request", -EIO);
    }
    return 0;
}

void curl_http_cancel(struct curl_http *c, struct client_request *r) {
    release(c, r->transfer);
}

int curl_http_new(const struct transport_options *o, struct curl_http **ret) {
    struct curl_http *c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    c->o = *o;
    c->timer.fn = on_timer;
    c->multi = curl_multi_init();
    if (!c->multi) {
        free(c);
        return -ENOMEM;
    }
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, set_timer);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
    curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, (long)o->connections_kept);
    *ret = c;
    return 0;
}

void curl_http_free(struct curl_http *c) {
    if (!c)
        return;
    while (c->idle) {
        struct handle *h = c->idle;
        c->idle = h->next;
        handle_free(h);
    }
    curl_multi_cleanup(c->multi);
    loop_timer_clear(c->o.loop, &c->timer);
    while (c->sockets)
        drop_socket(c, c->sockets);
    free(c->by_fd);
    free(c);
}
