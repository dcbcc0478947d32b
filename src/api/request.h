/* A request on its way through a route: what came, who asks, and the answer that is built. */
#pragma once

#include <jansson.h>
#include <microhttpd.h>

#include "api/query.h"
#include "api/server.h"

enum scope {
    SCOPE_EVENTS_WRITE = 1,
    SCOPE_EVENTS_READ = 2,
    SCOPE_SUBSCRIPTIONS_WRITE = 4,
    SCOPE_SUBSCRIPTIONS_READ = 8,
    SCOPE_DELIVERIES_READ = 16,
    SCOPE_REPLAYS_WRITE = 32,
    SCOPE_ADMIN = 64, /* all of them, and the control plane of tenants and keys */
    SCOPE_NONE = 0,   /* the route needs no key */
    SCOPE_REPLAYS_READ = SCOPE_DELIVERIES_READ | SCOPE_REPLAYS_WRITE, /* either of them */
};

/* Of "events:write" and the like; SCOPE_NONE when there is none of that name. */
uint32_t scope_named(struct slice name);

enum { REQUEST_HEADERS_MAX = 3 };

struct request {
    struct api *api;
    const struct api_options *o; /* the api's */
    struct MHD_Connection *connection;
    const struct route *route;
    int64_t now; /* Unix ms, when its head had come */
    struct buf body;
    size_t body_max;
    bool public_only; /* it came where the control plane is not served */
    char query[4096]; /* undecoded */
    size_t query_n;
    char path[1024];        /* decoded parts point in here */
    struct slice id;        /* the {id} of the path, absent: p == NULL */
    struct tenant tenant;   /* of the path's {t}; no == 0 without one */
    struct id key_id;       /* who asks */
    bool is_admin_key;      /* the first admin key, which has no id */
    uint32_t key_tenant_no; /* the tenant the key belongs to, 0: every one */
    uint32_t scopes;
    char actor[ID_TEXT_SIZE]; /* "key_…" or "admin" */

    /* the answer */
    int status;
    const char *content_type;
    struct buf out;
    struct {
        const char *name;
        char value[128];
    } headers[REQUEST_HEADERS_MAX];
    size_t headers_n;

    /* When set: called on a thread of the API after request_resume, to fill the answer in there. */
    void (*finish)(struct request *r);

    /* private to request.c and server.c */
    /* Atomic: a request may be answered before the route that suspended it has returned. */
    _Atomic enum { REQUEST_NEW, REQUEST_READING, REQUEST_SUSPENDED, REQUEST_ANSWERED } stage;
    struct writer_job job;
    int (*change)(struct request *r, struct store *s);
    void (*changed)(struct request *r);
    size_t body_came; /* bytes of the body, those passed over too */
    enum { COUNT_NONE, COUNT_UNDER_WAY, COUNT_SENDING } counted;
    struct request *next;
    void *data; /* the route's own */
    void (*data_free)(void *data);
};

/* ---- answers; each sets the whole answer, the last call counts ---- */

/* A problem document (api.md §1). */
void request_problem(struct request *r, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* 422 with every bad field. */
void request_invalid(struct request *r, const struct field_errors *errors);
/* 503 with Retry-After, for -EAGAIN, -ESHUTDOWN, -EIO, -ENOSPC …; 500 never. */
void request_unavailable(struct request *r, int error);
void request_header(struct request *r, const char *name, const char *value); /* name is static */
/* Takes a reference away from doc; NULL: out of memory. */
void request_json(struct request *r, int status, json_t *doc);
/* Empties `out` and sets status and JSON; the caller then writes the document into r->out. */
struct buf *request_write(struct request *r, int status);

/* ---- what came ---- */

/* The body as a JSON object; NULL after having answered 400 or 422. The caller owns it. Duplicate members are
 * refused. */
json_t *request_object(struct request *r);
/* Content-Type is one of these (parameters ignored) or absent, and the body is not coded (gzip, …); otherwise
 * answers 415 and returns false. */
bool request_content_type(struct request *r, const char *const *allowed, size_t n);
const char *request_header_value(struct request *r, const char *name); /* NULL when absent */
/* The query's parameters, see query_parse: false after having answered 400 to one that cannot be decoded. */
bool request_query(struct request *r, struct query_param *params, size_t n, struct field_errors *errors);
/* For routes without parameters: false after having answered 422 (or 400) to a query. */
bool request_no_query(struct request *r);
/* Parses the id of the path; false after having answered 404. */
bool request_id(struct request *r, enum id_kind kind, struct id *ret);

/* What the lane of one of the tenant's subscriptions tells of itself, wherever it is served. */
int request_lane_stats(struct request *r, uint32_t subscription_no, struct lane_stats *ret) MUST_USE;
/* This thread's reader of the store; NULL after having answered 503. */
struct store_reader *request_reader(struct request *r);

/* ---- writing routes ---- */

/* Zeroed memory of the route's own, r->data from now on; `release` frees it with the request. NULL after
 * having answered 503. */
void *request_keep(struct request *r, size_t size, void (*release)(void *data)) MUST_USE;

/* Runs `change` on the writer's thread in a savepoint; it fills in the answer itself and returns 0, or a
 * negative errno to undo what it wrote (having filled in the answer, unless it is a storage error, which is
 * answered 503). `changed` (or NULL) runs on the writer's thread after the commit of a change that returned
 * 0: the place to put it in force. Then the answer is sent. */
void request_change(struct request *r, int (*change)(struct request *r, struct store *s),
                    void (*changed)(struct request *r));

/* For routes that wait for something else: after request_suspend, exactly one request_resume from any thread,
 * with the answer filled in before. */
void request_suspend(struct request *r);
void request_resume(struct request *r);
/* request_change for a request that is suspended already. */
void request_change_suspended(struct request *r, int (*change)(struct request *r, struct store *s),
                              void (*changed)(struct request *r));

/* An audit record of the change that is being made, with the requester as actor. `detail` may be NULL. */
int request_audit(struct request *r, struct store *s, const char *action, const char *object,
                  const json_t *detail) MUST_USE;
