#include "deliver/plain_http.h"

#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "deliver/connection_pool.h"
#include "deliver/http1.h"
#include "deliver/response.h"

enum {
    READ_SIZE = 65536,
    BUFFER_KEPT_MAX = 4096, /* a kept connection holds on to no larger buffers */
    BODY_COPIED_MAX = 4096, /* up to here body and headers go out as one piece */
};

struct connection {
    struct pooled pooled; /* first */
    struct plain_http *owner;
    struct client_request *request;     /* NULL: kept */
    struct loop_timer timer;            /* the request's deadline, or the present address' share of it */
    struct sockaddr_storage *addresses; /* to connect to, until connected */
    size_t addresses_n, address_i;
    struct http1 http;
    struct buf out, in; /* in: bytes of a line that has not ended */
    size_t sent, to_send;
    int64_t sent_at_us, opened_at_us;
    bool connected, reused, heard, send_failed;
};

struct plain_http {
    struct transport_options o;
    struct connection_pool *pool;
    char *read_buffer;
};

static void on_ready(struct loop_watch *w, uint32_t events);
static void on_deadline(struct loop_timer *t);

/* ---- connections ---- */

static struct connection *connection_new(struct plain_http *p, struct slice authority) {
    struct connection *k = calloc(1, sizeof *k);
    if (!k)
        return NULL;
    k->owner = p;
    k->pooled.watch = (struct loop_watch){.fn = on_ready, .fd = -1};
    k->timer.fn = on_deadline;
    if (connection_pool_enter(p->pool, authority, &k->pooled) < 0) {
        free(k);
        return NULL;
    }
    return k;
}

static void connection_close(struct connection *k) {
    CHECK(!k->request);
    connection_pool_close(k->owner->pool, &k->pooled);
}

/* The pool lets go of it. */
static void release(struct pooled *pooled) {
    struct connection *k = (struct connection *)pooled;
    loop_timer_clear(k->owner->o.loop, &k->timer);
    free(k->addresses);
    buf_free(&k->out);
    buf_free(&k->in);
    loop_free_later(k->owner->o.loop, k);
}

static void trim_buffer(struct buf *b) {
    if (b->cap > BUFFER_KEPT_MAX)
        buf_free(b);
    else
        buf_reset(b);
}

static void keep(struct connection *k) {
    trim_buffer(&k->out);
    trim_buffer(&k->in);
    connection_pool_keep(k->owner->pool, &k->pooled, clock_mono_us());
}

/* ---- the end of a request ---- */

static struct client_request *detach(struct connection *k) {
    struct client_request *r = k->request;
    loop_timer_clear(k->owner->o.loop, &k->timer);
    k->request = NULL;
    r->transfer = NULL;
    return r;
}

static void end_request(struct connection *k, bool reusable) {
    struct plain_http *p = k->owner;
    struct client_request *r = detach(k);
    if (reusable)
        keep(k);
    else
        connection_close(k);
    p->o.ended(p->o.arg, r);
}

static void fail(struct connection *k, enum attempt_error error, const char *detail) {
    k->request->error = error;
    k->request->error_detail = detail;
    end_request(k, false);
}

/* ---- sending ---- */

static void build_head(struct connection *k) {
    const struct client_request *r = k->request;
    buf_reset(&k->out);
    buf_add_str(&k->out, "POST ");
    buf_add_slice(&k->out, r->url->target);
    buf_add_str(&k->out, " HTTP/1.1\r\nhost: ");
    buf_add_slice(&k->out, r->url->authority);
    buf_add_str(&k->out, "\r\n");
    buf_add_slice(&k->out, r->header_lines);
    buf_addf(&k->out, "content-length: %zu\r\n\r\n", r->body.n);
    k->to_send = k->out.n + r->body.n;
    if (r->body.n <= BODY_COPIED_MAX)
        buf_add_slice(&k->out, r->body);
}

/* What is left to send, in one or two pieces. */
static int pieces(const struct connection *k, struct iovec v[2]) {
    struct slice body = k->request->body;
    size_t head_n = k->out.n, at = k->sent;
    int n = 0;
    if (at < head_n)
        v[n++] = (struct iovec){k->out.p + at, head_n - at};
    if (k->to_send > head_n) {
        size_t body_at = at > head_n ? at - head_n : 0;
        v[n++] = (struct iovec){(char *)body.p + body_at, body.n - body_at};
    }
    return n;
}

/* Sends what the socket takes. A failure shows itself when reading, after an answer that may have come. */
static void flush(struct connection *k) {
    while (k->sent < k->to_send && !k->send_failed) {
        struct iovec v[2];
        struct msghdr m = {.msg_iov = v};
        m.msg_iovlen = (size_t)pieces(k, v);
        ssize_t n = sendmsg(k->pooled.watch.fd, &m, MSG_NOSIGNAL);
        if (n >= 0)
            k->sent += (size_t)n;
        else if (errno == EAGAIN)
            break;
        else if (errno != EINTR)
            k->send_failed = true;
    }
    bool more = k->sent < k->to_send && !k->send_failed;
    if (!more)
        k->sent_at_us = clock_mono_us();
    if (loop_watch_set(k->owner->o.loop, &k->pooled.watch, k->pooled.watch.fd,
                       EPOLLIN | (more ? EPOLLOUT : 0U)) < 0)
        k->send_failed = true; /* the deadline ends it */
}

static int64_t deadline_us(const struct client_request *r) {
    return r->started_us + (int64_t)r->timeout_ms * 1000;
}

/* Gives a request to a connection, connected or not. */
static int load(struct connection *k, struct client_request *r) {
    k->request = r;
    r->transfer = k;
    k->sent = 0;
    k->sent_at_us = 0;
    k->heard = k->send_failed = false;
    http1_begin(&k->http);
    build_head(k);
    if (buf_ok(&k->out))
        return 0;
    r->error = ATTEMPT_INTERNAL;
    r->error_detail = "out of memory";
    return -ENOMEM;
}

/* ---- connecting ---- */

static int refuse(struct client_request *r, enum attempt_error error, const char *detail) {
    r->error = error;
    r->error_detail = detail;
    return -ECONNABORTED;
}

static int connect_failed(struct client_request *r, int os_errno) {
    return os_errno == ECONNREFUSED ? refuse(r, ATTEMPT_CONNECT_REFUSED, "the receiver refuses connections")
                                    : refuse(r, ATTEMPT_CONNECT_FAILED, strerrordesc_np(os_errno));
}

static int open_socket(struct connection *k, const struct sockaddr_storage *address,
                       const char **ret_reason) {
    const struct sockaddr *target = (const struct sockaddr *)address;
    socklen_t n = address->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    int fd = egress_socket(k->owner->o.egress, target, SOCK_NONBLOCK, ret_reason);
    if (fd < 0)
        return fd;
    int r = connect(fd, target, n) < 0 && errno != EINPROGRESS ? -errno : 0;
    if (r == 0)
        r = loop_watch_set(k->owner->o.loop, &k->pooled.watch, fd, EPOLLOUT);
    if (r < 0)
        close(fd);
    return r;
}

/* Tries the next address, and those after it as long as they fail at once. An address that others follow gets
 * half of the time that is left. */
static int connect_next(struct connection *k) {
    struct client_request *r = k->request;
    int result = connect_failed(r, ECONNREFUSED);
    while (k->address_i < k->addresses_n) {
        const char *reason = NULL;
        k->pooled.peer = k->addresses[k->address_i++];
        int opened = open_socket(k, &k->pooled.peer, &reason);
        if (opened == -EPERM)
            return refuse(r, ATTEMPT_BLOCKED_ADDRESS, reason);
        if (opened == 0) {
            int64_t end_us = deadline_us(r), now_us = clock_mono_us();
            bool last = k->address_i == k->addresses_n;
            loop_timer_set(k->owner->o.loop, &k->timer, last ? end_us : now_us + (end_us - now_us) / 2);
            return 0;
        }
        result = connect_failed(r, -opened);
    }
    return result;
}

static void set_port(struct sockaddr_storage *address, uint16_t port) {
    if (address->ss_family == AF_INET)
        ((struct sockaddr_in *)address)->sin_port = htons(port);
    else
        ((struct sockaddr_in6 *)address)->sin6_port = htons(port);
}

static int keep_addresses(struct connection *k, const struct sockaddr_storage *addresses, size_t n,
                          uint16_t port) {
    k->addresses = malloc(n * sizeof *addresses);
    if (!k->addresses)
        return -ENOMEM;
    memcpy(k->addresses, addresses, n * sizeof *addresses);
    for (size_t i = 0; i < n; i++)
        set_port(&k->addresses[i], port);
    k->addresses_n = n;
    return 0;
}

/* Sends over a connection of its own. */
static int send_anew(struct plain_http *p, struct client_request *r, const struct sockaddr_storage *addresses,
                     size_t n) {
    struct connection *k = connection_new(p, r->url->authority);
    if (!k)
        return refuse(r, ATTEMPT_INTERNAL, "out of memory");
    int result = load(k, r);
    if (result == 0 && keep_addresses(k, addresses, n, r->url->port) < 0)
        result = refuse(r, ATTEMPT_INTERNAL, "out of memory");
    k->opened_at_us = clock_mono_us();
    if (result == 0)
        result = connect_next(k);
    if (result < 0) {
        detach(k);
        connection_close(k);
        return result;
    }
    r->error = ATTEMPT_OK;
    r->error_detail = NULL;
    return 0;
}

/* The socket can be written to: connected, or failed. */
static void connect_ended(struct connection *k) {
    int os_errno = 0;
    socklen_t n = sizeof os_errno;
    if (getsockopt(k->pooled.watch.fd, SOL_SOCKET, SO_ERROR, &os_errno, &n) < 0)
        os_errno = errno;
    if (os_errno) {
        connection_pool_close_socket(k->owner->pool, &k->pooled);
        if (k->address_i < k->addresses_n ? connect_next(k) < 0 : connect_failed(k->request, os_errno) < 0)
            end_request(k, false);
        return;
    }
    k->connected = true;
    free(k->addresses);
    k->addresses = NULL;
    k->request->error = ATTEMPT_OK;
    k->request->error_detail = NULL;
    k->request->connect_us = clock_mono_us() - k->opened_at_us;
    loop_timer_set(k->owner->o.loop, &k->timer, deadline_us(k->request));
    flush(k);
}

static void on_deadline(struct loop_timer *t) {
    struct connection *k = (struct connection *)((char *)t - offsetof(struct connection, timer));
    if (!k->connected && k->address_i < k->addresses_n) {
        connection_pool_close_socket(k->owner->pool, &k->pooled);
        if (connect_next(k) < 0)
            end_request(k, false);
        return;
    }
    fail(k, ATTEMPT_TIMEOUT,
         k->connected ? "no answer within timeout_ms" : "no connection within timeout_ms");
}

/* ---- reading ---- */

static void on_status(void *arg, int status) {
    response_status(arg, status);
}

static void on_header(void *arg, struct slice line) {
    response_header(arg, line);
}

static bool on_body(void *arg, struct slice bytes) {
    return response_body(arg, bytes);
}

static const struct http1_events events_of_response = {on_status, on_header, on_body};

/* A kept connection that the receiver closed as we sent: it has read nothing of this request or will see the
 * same webhook-id again. Once, over a new connection to the same address. */
static void retry_anew(struct connection *k) {
    struct plain_http *p = k->owner;
    struct sockaddr_storage peer = k->pooled.peer;
    struct client_request *r = detach(k);
    connection_close(k);
    response_forget(r);
    if (send_anew(p, r, &peer, 1) < 0)
        p->o.ended(p->o.arg, r);
}

static void peer_closed(struct connection *k, int os_errno) {
    struct client_request *r = k->request;
    if (!k->heard && k->reused)
        retry_anew(k);
    else if (os_errno == 0 && http1_ends_here(&k->http))
        end_request(k, false);
    else
        fail(k, ATTEMPT_RESET, r->status ? NULL : "the receiver closed the connection without an answer");
}

/* Keeps the bytes that have to come again, `rest` being the end of what there was. */
static bool keep_rest(struct connection *k, struct slice rest, bool was_kept) {
    if (!was_kept) {
        if (rest.n)
            buf_add_slice(&k->in, rest);
        return buf_ok(&k->in);
    }
    memmove(k->in.p, rest.p, rest.n);
    k->in.n = rest.n;
    return true;
}

static void received(struct connection *k, struct slice bytes) {
    struct client_request *r = k->request;
    bool was_kept = k->in.n > 0;
    size_t used;
    if (was_kept) {
        buf_add_slice(&k->in, bytes);
        bytes = buf_slice(&k->in);
    }
    if (!k->heard) {
        k->heard = true;
        r->wait_us = k->sent_at_us ? clock_mono_us() - k->sent_at_us : 0;
    }
    enum http1_result result =
        buf_ok(&k->in) ? http1_read(&k->http, bytes, &events_of_response, r, &used) : HTTP1_BROKEN;
    switch (result) {
    case HTTP1_MORE:
        if (!keep_rest(k, (struct slice){bytes.p + used, bytes.n - used}, was_kept))
            fail(k, ATTEMPT_INTERNAL, "out of memory");
        break;
    case HTTP1_DONE:
        end_request(k, k->http.keep_alive && used == bytes.n && k->sent == k->to_send);
        break;
    case HTTP1_BROKEN:
        fail(k, ATTEMPT_PROTOCOL, "the answer is not HTTP/1");
        break;
    case HTTP1_STOPPED:
        end_request(k, false);
        break;
    }
}

static void read_answer(struct connection *k) {
    ssize_t n = recv(k->pooled.watch.fd, k->owner->read_buffer, READ_SIZE, 0);
    if (n > 0)
        received(k, (struct slice){k->owner->read_buffer, (size_t)n});
    else if (n == 0)
        peer_closed(k, 0);
    else if (errno != EAGAIN && errno != EINTR)
        peer_closed(k, errno);
}

static void on_ready(struct loop_watch *w, uint32_t events) {
    struct connection *k = (struct connection *)w;
    if (!k->request) {
        /* The receiver closed it, or sends what nobody asked for. */
        connection_pool_drop(k->owner->pool, &k->pooled);
        return;
    }
    if (!k->connected) {
        connect_ended(k);
        return;
    }
    if (events & EPOLLOUT)
        flush(k);
    if (events & ~(uint32_t)EPOLLOUT)
        read_answer(k);
}

/* ---- the transport ---- */

int plain_http_send(struct plain_http *p, struct client_request *r, const struct sockaddr_storage *addresses,
                    size_t n) {
    CHECK(n > 0 && n <= RESOLVER_ADDRESSES_MAX);
    struct connection *k =
        (struct connection *)connection_pool_take(p->pool, r->url->authority, addresses, n);
    if (!k)
        return send_anew(p, r, addresses, n);
    k->reused = true;
    int result = load(k, r);
    if (result < 0) {
        detach(k);
        connection_close(k);
        return result;
    }
    loop_timer_set(p->o.loop, &k->timer, deadline_us(r));
    flush(k);
    return 0;
}

void plain_http_cancel(struct plain_http *p, struct client_request *r) {
    struct connection *k = r->transfer;
    CHECK(k && k->owner == p);
    detach(k);
    connection_close(k);
}

int plain_http_new(const struct transport_options *o, struct plain_http **ret) {
    struct plain_http *p = calloc(1, sizeof *p);
    if (!p)
        return -ENOMEM;
    p->o = *o;
    p->read_buffer = malloc(READ_SIZE);
    struct connection_pool_options pool = {o->loop, o->connections_kept, release};
    int r = p->read_buffer ? connection_pool_new(&pool, &p->pool) : -ENOMEM;
    if (r < 0)
        plain_http_free(p);
    else
        *ret = p;
    return r;
}

void plain_http_free(struct plain_http *p) {
    if (!p)
        return;
    connection_pool_free(p->pool);
    free(p->read_buffer);
    free(p);
}
