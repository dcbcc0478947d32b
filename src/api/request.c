#include "api/request.h"

#include <errno.h>
#include <stdio.h>
#include <strings.h>

#include "api/internal.h"
#include "api/problem.h"
#include "base/log.h"

static const char plain_type[] = "application/json";
static const char problem_type[] = "application/problem+json";

/* ---- answers ---- */

struct buf *request_write(struct request *r, int status) {
    buf_reset(&r->out);
    r->status = status;
    r->content_type = plain_type;
    return &r->out;
}

void request_header(struct request *r, const char *name, const char *value) {
    CHECK(r->headers_n < REQUEST_HEADERS_MAX);
    r->headers[r->headers_n].name = name;
    snprintf(r->headers[r->headers_n].value, sizeof r->headers[0].value, "%s", value);
    r->headers_n++;
}

void request_problem(struct request *r, int status, const char *format, ...) {
    char detail[512];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    problem_render(request_write(r, status), status, detail, NULL);
    r->content_type = problem_type;
}

void request_invalid(struct request *r, const struct field_errors *errors) {
    problem_render(request_write(r, 422), 422, "See errors: each names a field and what is wrong with it.",
                   errors);
    r->content_type = problem_type;
}

void request_unavailable(struct request *r, int error) {
    const char *detail =
        error == -EAGAIN      ? "The server is overloaded: try again after Retry-After seconds."
        : error == -ESHUTDOWN ? "The server is stopping: try again after Retry-After seconds."
        : error == -ENOSPC    ? "The server's disk is full: nothing was accepted."
                              : "The store is unavailable: nothing was accepted, try again later.";
    request_problem(r, 503, "%s", detail);
    if (r->headers_n < REQUEST_HEADERS_MAX)
        request_header(r, "Retry-After", error == -EAGAIN ? "1" : "5");
}

void request_json(struct request *r, int status, json_t *doc) {
    char *text = doc ? json_dumps(doc, JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;
    json_decref(doc);
    if (!text) {
        request_unavailable(r, -ENOMEM);
        return;
    }
    buf_add_str(request_write(r, status), text);
    wipe_free(text); /* it may be where a secret is shown */
}

/* ---- what came ---- */

const char *request_header_value(struct request *r, const char *name) {
    return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
}

/* RFC 9110 §8.4: none is known here but identity, which is none. */
static bool is_coded(struct request *r) {
    const char *coding = request_header_value(r, MHD_HTTP_HEADER_CONTENT_ENCODING);
    if (!coding || !*coding || strcasecmp(coding, "identity") == 0)
        return false;
    request_problem(r, 415, "Content-Encoding %.100s is not supported here: send the body as it is.", coding);
    request_header(r, MHD_HTTP_HEADER_ACCEPT_ENCODING, "identity");
    return true;
}

bool request_content_type(struct request *r, const char *const *allowed, size_t n) {
    const char *type = request_header_value(r, MHD_HTTP_HEADER_CONTENT_TYPE);
    if (is_coded(r))
        return false;
    if (!type)
        return true;
    size_t length = strcspn(type, "; \t");
    for (size_t i = 0; i < n; i++)
        if (strlen(allowed[i]) == length && strncasecmp(type, allowed[i], length) == 0)
            return true;
    request_problem(r, 415, "Content-Type %.100s is not supported here: send %s%s%s.", type, allowed[0],
                    n > 1 ? " or " : "", n > 1 ? allowed[1] : "");
    return false;
}

/* 400 for what is no JSON. Our own scanner finds the spot: jansson would quote what stands there, which may
 * be a secret. */
static bool is_json(struct request *r, struct slice text) {
    struct json_cursor c = json_open(text);
    struct slice value;
    enum json_type type;
    if (json_value(&c, &value, &type) == 0 && json_finish(&c) == 0)
        return true;
    request_problem(r, 400, "The body is not JSON: %s at byte %zu.", c.problem, json_offset(&c));
    return false;
}

json_t *request_object(struct request *r) {
    static const char *const types[] = {"application/json", "application/merge-patch+json"};
    if (!request_content_type(r, types, strcmp(r->route->method, "PATCH") == 0 ? 2 : 1))
        return NULL;
    json_error_t error;
    struct slice text = buf_slice(&r->body);
    json_t *doc =
        json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!is_json(r, text)) {
        json_decref(doc);
        return NULL;
    }
    if (json_is_object(doc))
        return doc;
    /* Not an object; or one with a member twice, a number out of range or the like. */
    struct field_errors errors;
    field_errors_init(&errors);
    if (doc) {
        field_error_add(&errors, "body", "must be an object");
    } else {
        char *quote = strstr(error.text, " near ");
        if (quote)
            *quote = '\0';
        field_error_add(&errors, "body", "%s", error.text);
    }
    request_invalid(r, &errors);
    json_decref(doc);
    return NULL;
}

bool request_query(struct request *r, struct query_param *params, size_t n, struct field_errors *errors) {
    if (query_parse(r->query, r->query_n, params, n, errors) == 0)
        return true;
    request_problem(r, 400, "The query cannot be decoded.");
    return false;
}

bool request_no_query(struct request *r) {
    struct field_errors errors;
    field_errors_init(&errors);
    if (!request_query(r, NULL, 0, &errors))
        return false;
    if (field_errors_count(&errors))
        request_invalid(r, &errors);
    return !field_errors_count(&errors);
}

bool request_id(struct request *r, enum id_kind kind, struct id *ret) {
    if (id_parse(kind, r->id, ret) == 0)
        return true;
    request_problem(r, 404, "There is no such object.");
    return false;
}

/* ---- writing ---- */

void request_suspend(struct request *r) {
    CHECK(r->stage == REQUEST_READING);
    r->stage = REQUEST_SUSPENDED;
    MHD_suspend_connection(r->connection);
}

void request_resume(struct request *r) {
    CHECK(r->stage == REQUEST_SUSPENDED && (r->status || r->finish));
    r->stage = REQUEST_ANSWERED;
    MHD_resume_connection(r->connection);
}

static int run_change(struct writer_job *job, struct store *s) {
    struct request *r = (struct request *)((char *)job - offsetof(struct request, job));
    return r->change(r, s);
}

static void change_done(struct writer_job *job, int result) {
    struct request *r = (struct request *)((char *)job - offsetof(struct request, job));
    if (result == 0 && r->changed)
        r->changed(r);
    if (result == -EIO || result == -ENOSPC || result == -ENOMEM || !r->status)
        request_unavailable(r, result);
    request_resume(r);
}

void *request_keep(struct request *r, size_t size, void (*release)(void *data)) {
    void *data = calloc(1, size);
    if (!data) {
        request_unavailable(r, -ENOMEM);
        return NULL;
    }
    r->data = data;
    r->data_free = release;
    return data;
}

void request_change(struct request *r, int (*change)(struct request *r, struct store *s),
                    void (*changed)(struct request *r)) {
    request_suspend(r);
    request_change_suspended(r, change, changed);
}

void request_change_suspended(struct request *r, int (*change)(struct request *r, struct store *s),
                              void (*changed)(struct request *r)) {
    CHECK(r->stage == REQUEST_SUSPENDED);
    r->change = change;
    r->changed = changed;
    r->job = (struct writer_job){.run = run_change, .done = change_done, .guarded = true};
    int err = writer_submit(r->o->writer, &r->job);
    if (err < 0) {
        request_unavailable(r, err);
        request_resume(r);
    }
}

int request_audit(struct request *r, struct store *s, const char *action, const char *object,
                  const json_t *detail) {
    char *text = detail ? json_dumps(detail, JSON_COMPACT) : NULL;
    if (detail && !text)
        return -ENOMEM;
    struct audit_record record = {
        .at = r->now,
        .actor = slice_of(r->actor),
        .action = slice_of(action),
        .object = slice_of(object),
        .tenant_no = r->tenant.no,
        .detail = slice_of(text),
    };
    int err = store_insert_audit(s, &record);
    free(text);
    return err;
}
