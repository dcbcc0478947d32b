#include "cli/http_sink.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "cli/client/field.h"
#include "cli/client/http.h"
#include "cli/client/interrupt.h"

enum { PROBLEM_SIZE = 256 };
#define FIRST "[0]." /* how a batch of one names what is wrong with it */

struct http_sink {
    struct source_sink base;
    struct http *http;
    struct buf request, path;
    /* of the call under way */
    const struct source_settings *from;
    struct source_row *rows;
    int64_t wait_ms;
    size_t of_tenant[SOURCE_ROWS_MAX]; /* the rows of the tenant under way */
    char problem[PROBLEM_SIZE];
};

static void reject(struct source_row *row, const char *reason) {
    row->outcome = SOURCE_REJECTED;
    snprintf(row->reason, sizeof row->reason, "%s", reason);
}

static struct slice tenant_of(const struct http_sink *s, const struct source_row *row) {
    return row->tenant.p ? row->tenant : slice_of(s->from->tenant);
}

static int fault(struct http_sink *s, int error, const char *problem) {
    s->base.problem = problem;
    s->base.detail = s->problem[0] ? s->problem : NULL;
    return error;
}

/* ---- rows as lines ---- */

/* Adds the row's line when it can be an event; what the server would refuse for reasons of its own it
 * refuses. */
static int add_line(struct http_sink *s, struct source_row *row, struct publish *scratch) {
    struct publish_rules rules = {
        .prefix = "", .in_batch = true, .data_bytes_max = SIZE_MAX, .now = clock_now_ms()};
    struct field_errors errors;
    const char *problem = "";
    size_t offset = 0, begin = s->request.n;
    field_errors_init(&errors);
    int r = source_row_body(s->from->name, row, &s->request, row->reason);
    if (r == -EINVAL)
        row->outcome = SOURCE_REJECTED;
    if (r == 0) {
        struct slice body = {s->request.p + begin, s->request.n - begin};
        r = publish_parse(body, &rules, scratch, &errors, &problem, &offset);
        if (errors.n) {
            row->outcome = SOURCE_REJECTED;
            snprintf(row->reason, sizeof row->reason, "%s: %s", errors.at[0].field, errors.at[0].message);
        } else if (r == -EBADMSG) {
            reject(row, problem);
        }
    }
    if (r == 0)
        buf_add_char(&s->request, '\n');
    else
        s->request.n = begin;
    return r == -ENOMEM || !buf_ok(&s->request) ? -ENOMEM : 0;
}

/* ---- what the server answers ---- */

/* Whether it is posthorn that refused, and not something on the way. */
static bool is_problem(const struct http_answer *a) {
    _cleanup_buf_ struct buf type = {0};
    struct field document;
    const char *why;
    if (field_parse(buf_slice(&a->body), &document, &why) < 0 || document.type != JSON_TYPE_OBJECT)
        return false;
    field_plain(field_find(document.text, "type"), &type);
    return slice_starts_with(buf_slice(&type), SLICE_LIT("urn:posthorn:problem:"));
}

/* The first bad field, else the detail, without the place in a batch of one. */
static void reject_as_told(struct source_row *row, const struct http_answer *a) {
    _cleanup_buf_ struct buf reason = {0};
    struct field errors = field_find(buf_slice(&a->body), "errors"), first;
    struct json_cursor c = json_open(errors.text);
    bool begins = true;
    if (errors.type == JSON_TYPE_ARRAY && errors.text.p && json_enter_array(&c) == 0 &&
        json_next_element(&c, &begins, &first.text, &first.type) > 0 && first.type == JSON_TYPE_OBJECT) {
        field_plain(field_find(first.text, "field"), &reason);
        buf_add_str(&reason, ": ");
        field_plain(field_find(first.text, "message"), &reason);
    } else {
        field_plain(field_find(buf_slice(&a->body), "detail"), &reason);
    }
    const char *told = buf_ok(&reason) && reason.n ? reason.p : "the server refuses it";
    reject(row, strncmp(told, FIRST, strlen(FIRST)) == 0 ? told + strlen(FIRST) : told);
}

/* The outcomes of rows that were accepted. -EBADMSG: the answer is another server's. */
static int take_outcomes(struct http_sink *s, const struct http_answer *a, const size_t *of, size_t n) {
    struct field document, data, element;
    const char *why;
    size_t i = 0;
    if (field_parse(buf_slice(&a->body), &document, &why) < 0)
        return -EBADMSG;
    data = field_find(document.text, "data");
    struct json_cursor c = json_open(data.text);
    bool first = true;
    if (!data.text.p || json_enter_array(&c) < 0)
        return -EBADMSG;
    for (; json_next_element(&c, &first, &element.text, &element.type) > 0; i++) {
        if (i == n || element.type != JSON_TYPE_OBJECT)
            return -EBADMSG;
        bool duplicate = field_find(element.text, "duplicate").type == JSON_TYPE_TRUE;
        s->rows[of[i]].outcome = duplicate ? SOURCE_DUPLICATE : SOURCE_ACCEPTED;
    }
    return i == n ? 0 : -EBADMSG;
}

/* ---- one tenant's rows ---- */

static int ask(struct http_sink *s, const size_t *of, size_t n, struct http_answer *answer) {
    struct publish *scratch = malloc(sizeof *scratch);
    int r = scratch ? 0 : -ENOMEM;
    buf_reset(&s->request);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = add_line(s, &s->rows[of[i]], scratch);
    free(scratch);
    if (r < 0)
        return r;
    struct http_request request = {"POST", s->path.p, "application/x-ndjson", buf_slice(&s->request), NULL};
    r = http_ask(s->http, &request, answer);
    if (r == -ECANCELED)
        return -ESHUTDOWN;
    if (r < 0) {
        snprintf(s->problem, sizeof s->problem, "%s", http_problem(s->http));
        return fault(s, -EHOSTUNREACH, "the server cannot be reached");
    }
    return 0;
}

/* Rows that are not worth a request leave the list. */
static int drop_bad_rows(struct http_sink *s, size_t *n) {
    struct publish *scratch = malloc(sizeof *scratch);
    size_t kept = 0;
    int r = scratch ? 0 : -ENOMEM;
    for (size_t i = 0; r == 0 && i < *n; i++) {
        buf_reset(&s->request);
        r = add_line(s, &s->rows[s->of_tenant[i]], scratch);
        if (s->rows[s->of_tenant[i]].outcome == SOURCE_WAITING)
            s->of_tenant[kept++] = s->of_tenant[i];
    }
    free(scratch);
    *n = kept;
    return r;
}

static void leave_for_later(struct http_sink *s, const size_t *of, size_t n, const struct http_answer *a) {
    int64_t wait_ms = a->retry_after_seconds > 0 ? a->retry_after_seconds * 1000 : 1000;
    for (size_t i = 0; i < n; i++)
        s->rows[of[i]].outcome = SOURCE_LATER;
    s->wait_ms = s->wait_ms > wait_ms ? s->wait_ms : wait_ms;
}

/* What an answer means for the first n of `left` rows. 1: ask with fewer; 0: they are decided, or left. */
static int judge(struct http_sink *s, const struct http_answer *a, const size_t *of, size_t n, size_t left) {
    bool ours = a->status >= 400 && is_problem(a);
    if (a->status == 202)
        return take_outcomes(s, a, of, n) == 0 ? 0 : fault(s, -EHOSTUNREACH, "what answers is not posthorn");
    if (a->status == 503) {
        s->wait_ms = a->retry_after_seconds * 1000;
        return -EAGAIN;
    }
    if (!ours)
        return fault(s, -EHOSTUNREACH, "what answers is not posthorn");
    if (a->status == 401 || a->status == 403)
        return fault(s, -EACCES, "the server does not let this key publish");
    if (a->status == 429 && n == 1) {
        leave_for_later(s, of, left, a);
        return 0;
    }
    if (a->status == 404)
        for (size_t i = 0; i < left; i++)
            reject(&s->rows[of[i]], "tenant: there is no such tenant, or the key is another's");
    else if (a->status < 400 || a->status >= 500)
        return fault(s, -EHOSTUNREACH, "the server does not take events");
    else if (n > 1)
        return 1;
    else
        reject_as_told(&s->rows[of[0]], a);
    return 0;
}

/* All or nothing, says the server: rows that it refuses are found by halving. */
static int publish_tenant(struct http_sink *s, struct slice tenant, size_t n) {
    int r = drop_bad_rows(s, &n);
    size_t at = 0, size = n;
    buf_reset(&s->path);
    buf_addf(&s->path, "/v1/tenants/%.*s/events/batch", SLICE_ARG(tenant));
    while (r == 0 && at < n) {
        _cleanup_answer_ struct http_answer answer = {0};
        size_t *of = s->of_tenant + at;
        r = ask(s, of, size, &answer);
        if (r == 0)
            r = judge(s, &answer, of, size, n - at);
        if (r > 0) {
            size /= 2;
            r = 0;
            continue;
        }
        while (r == 0 && at < n && s->rows[s->of_tenant[at]].outcome != SOURCE_WAITING)
            at++;
        size = n - at;
    }
    return r;
}

/* ---- a call ---- */

/* The waiting rows of the tenant of row `first`. */
static size_t gather(struct http_sink *s, size_t first, size_t n, struct slice tenant) {
    size_t found = 0;
    for (size_t i = first; i < n; i++)
        if (s->rows[i].outcome == SOURCE_WAITING && slice_eq(tenant_of(s, &s->rows[i]), tenant))
            s->of_tenant[found++] = i;
    return found;
}

static int publish(struct source_sink *base, const struct source_settings *from, struct source_row *rows,
                   size_t n, int64_t *ret_wait_ms) {
    struct http_sink *s = (struct http_sink *)base;
    CHECK(n > 0 && n <= SOURCE_ROWS_MAX);
    s->from = from;
    s->rows = rows;
    s->wait_ms = 0;
    s->problem[0] = '\0';
    int r = 0;
    for (size_t i = 0; r == 0 && i < n; i++) {
        struct slice tenant = tenant_of(s, &rows[i]);
        if (rows[i].outcome != SOURCE_WAITING)
            continue;
        if (!tenant.p)
            reject(&rows[i], "tenant: the row names none, and neither do the source's settings");
        else if (!tenant_id_valid(tenant))
            reject(&rows[i], "tenant: there is no such tenant");
        else
            r = publish_tenant(s, tenant, gather(s, i, n, tenant));
    }
    *ret_wait_ms = s->wait_ms;
    for (size_t i = 0; r == 0 && i < n; i++)
        if (!source_row_is_decided(&rows[i]))
            r = -EAGAIN;
    return r == -ENOMEM ? -EAGAIN : r;
}

static void sink_free(struct source_sink *base) {
    struct http_sink *s = (struct http_sink *)base;
    http_free(s->http);
    buf_free(&s->request);
    buf_free(&s->path);
    free(s);
}

struct source_sink *http_sink_new(const char *url, const char *key, const char *ca) {
    struct http_sink *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->base = (struct source_sink){.publish = publish, .free = sink_free};
    s->http = http_new(url, key, ca);
    if (!s->http) {
        free(s);
        return NULL;
    }
    return &s->base;
}
