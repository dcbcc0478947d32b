#include "deliver/client.h"

#include <errno.h>
#include <utlist.h>

#include "base/clock.h"
#include "deliver/curl_http.h"
#include "deliver/plain_http.h"
#include "deliver/response.h"

struct client {
    struct loop *loop;
    struct resolver *resolver;
    const struct egress *egress;
    struct plain_http *plain;
    struct curl_http *curl;
    struct client_request *under_way;
    /* Requests that ended before a transport had them: done is called from the loop, never from client_send.
     */
    struct client_request *ended;
    struct loop_timer ended_timer;
};

/* ---- the end of a request ---- */

static void finish(void *arg, struct client_request *r) {
    struct client *c = arg;
    r->latency_us = clock_mono_us() - r->started_us;
    response_finish(r);
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

static void end_later(struct client *c, struct client_request *r) {
    DL_DELETE(c->under_way, r);
    DL_APPEND(c->ended, r);
    loop_timer_set(c->loop, &c->ended_timer, 0);
}

static void end_early(struct client *c, struct client_request *r, enum attempt_error error,
                      const char *detail) {
    r->error = error;
    r->error_detail = detail;
    end_later(c, r);
}

/* ---- sending ---- */

/* libcurl's part is TLS, and the way through a proxy. */
static bool is_plain(const struct client *c, const struct client_request *r) {
    return r->url->scheme == URL_HTTP && !c->egress->proxy;
}

static void start_transfer(struct client *c, struct client_request *r,
                           const struct sockaddr_storage *addresses, size_t n) {
    int sent = is_plain(c, r) ? plain_http_send(c->plain, r, addresses, n)
                              : curl_http_send(c->curl, r, addresses, n);
    if (sent < 0)
        end_later(c, r);
}

static void drop_transfer(struct client *c, struct client_request *r) {
    if (!r->transfer)
        return;
    if (is_plain(c, r))
        plain_http_cancel(c->plain, r);
    else
        curl_http_cancel(c->curl, r);
}

static enum attempt_error lookup_error(int error) {
    return error == -ETIMEDOUT || error == -ENOENT || error == -EIO || error == -EINVAL ? ATTEMPT_DNS
                                                                                        : ATTEMPT_INTERNAL;
}

static void with_addresses(struct client *c, struct client_request *r, const struct resolver_addresses *a) {
    const char *reason;
    r->dns_us = clock_mono_us() - r->started_us;
    if (address_judge_resolved(c->egress->addresses, a->a, a->n, r->url->port, &reason) < 0)
        end_early(c, r, ATTEMPT_BLOCKED_ADDRESS, reason);
    else if (!a->whole)
        end_early(c, r, ATTEMPT_BLOCKED_ADDRESS, RESOLVER_TOO_MANY_REASON);
    else
        start_transfer(c, r, a->a, a->n);
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

/* IPv4 addresses travel as IPv4-mapped ones within the URL. */
static struct sockaddr_storage literal_address(const struct url *url) {
    struct sockaddr_storage s = {.ss_family = AF_INET6};
    if (IN6_IS_ADDR_V4MAPPED(&url->address)) {
        s.ss_family = AF_INET;
        memcpy(&((struct sockaddr_in *)&s)->sin_addr, &url->address.s6_addr[12], 4);
    } else {
        ((struct sockaddr_in6 *)&s)->sin6_addr = url->address;
    }
    return s;
}

void client_send(struct client *c, struct client_request *r) {
    CHECK(r->url && r->done && r->timeout_ms > 0);
    r->client = c;
    r->started_us = clock_mono_us();
    DL_APPEND(c->under_way, r);
    const char *reason;
    if (address_judge_url(c->egress->addresses, r->allow_http, r->url, &reason) < 0) {
        end_early(c, r, ATTEMPT_BLOCKED_ADDRESS, reason);
        return;
    }
    if (r->url->is_literal) {
        struct sockaddr_storage address = literal_address(r->url);
        start_transfer(c, r, &address, 1);
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

static int open_parts(struct client *c, const struct client_options *o) {
    struct resolver_options resolver = {.name_servers = o->egress->name_servers};
    struct transport_options transport = {
        .loop = c->loop,
        .egress = o->egress,
        .connections_kept = o->connections_kept,
        .ended = finish,
        .arg = c,
    };
    int r = resolver_new(c->loop, &resolver, &c->resolver);
    if (r == 0)
        r = plain_http_new(&transport, &c->plain);
    return r == 0 ? curl_http_new(&transport, &c->curl) : r;
}

int client_new(struct loop *l, const struct client_options *o, struct client **ret) {
    struct client *c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    c->loop = l;
    c->egress = o->egress;
    c->ended_timer.fn = flush_ended;
    int r = open_parts(c, o);
    if (r < 0) {
        client_free(c);
        return r;
    }
    *ret = c;
    return 0;
}

void client_free(struct client *c) {
    if (!c)
        return;
    struct client_request *r, *next;
    DL_FOREACH_SAFE (c->under_way, r, next) {
        resolver_cancel(&r->query);
        drop_transfer(c, r);
        response_forget(r);
        DL_DELETE(c->under_way, r);
    }
    loop_timer_clear(c->loop, &c->ended_timer);
    plain_http_free(c->plain);
    curl_http_free(c->curl);
    resolver_free(c->resolver);
    free(c);
}
