/* From a command line to a request. */
#include <errno.h>

#include "cli/client/call.h"
#include "cli/client/moment.h"
#include "cli/input.h"

enum { BODY_FILE_MAX = 16 << 20, OPTION_FILE_MAX = 256 << 10, FIELD_PATH_MAX = 128 };

void call_add_escaped(struct buf *out, const char *text) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-~";
    for (const char *c = text; *c; c++)
        if (strchr(plain, *c))
            buf_add_char(out, *c);
        else
            buf_addf(out, "%%%02X", (unsigned char)*c);
}

/* ---- path and query ---- */

static void add_query(const struct call *c, const struct given *g, char *separator, struct buf *out) {
    _cleanup_buf_ struct buf value = {0};
    const struct option *o = g->option;
    if (o->kind == OPTION_PAST || o->kind == OPTION_FUTURE)
        moment_add(&value, g->value, o->kind == OPTION_FUTURE, c->now);
    else
        buf_add_str(&value, g->value);
    buf_addf(out, "%c%s=", *separator, o->field);
    call_add_escaped(out, value.p ? value.p : "");
    *separator = '&';
}

int call_path(const struct call *c, struct buf *out, struct buf *problems) {
    const char *id = c->args.plain_n > 0 ? c->args.plain[0] : NULL;
    char separator = '?';
    for (const char *at = c->verb->path; *at;) {
        bool tenant = strncmp(at, "{t}", 3) == 0, own = strncmp(at, "{id}", 4) == 0;
        const char *value = tenant ? c->tenant : id;
        if ((tenant || own) && (!value || !value[0])) {
            buf_addf(problems, "the %s must not be empty\n", tenant ? "tenant" : "id");
            return -EINVAL;
        }
        if (tenant || own)
            call_add_escaped(out, value);
        else
            buf_add_char(out, *at);
        at += tenant ? 3 : own ? 4 : 1;
    }
    for (size_t i = 0; i < c->args.given_n; i++)
        if (c->args.given[i].option->place == IN_QUERY)
            add_query(c, &c->args.given[i], &separator, out);
    return buf_ok(out) ? 0 : -EINVAL;
}

int call_headers(const struct call *c, struct buf *out, struct buf *problems) {
    for (size_t i = 0; i < c->args.given_n; i++) {
        const struct given *g = &c->args.given[i];
        if (g->option->place != IN_HEADER)
            continue;
        if (strpbrk(g->value, "\r\n") || g->value[0] == '\0') {
            buf_addf(problems, "--%s must be one line that is not empty\n", g->option->name);
            return -EINVAL;
        }
        buf_addf(out, "%s: %s\n", g->option->field, g->value);
    }
    return buf_ok(out) ? 0 : -EINVAL;
}

/* ---- body ---- */

/* The object that holds the last name of a path with dots, made where it is missing; NULL: memory is out. */
static json_t *holder_of(json_t *body, const char *path, const char **ret_name) {
    for (const char *dot; (dot = strchr(path, '.')); path = dot + 1) {
        char name[FIELD_PATH_MAX];
        size_t n = (size_t)(dot - path);
        if (n >= sizeof name)
            return NULL;
        memcpy(name, path, n);
        name[n] = '\0';
        json_t *inner = json_object_get(body, name);
        if (!json_is_object(inner) && json_object_set_new(body, name, json_object()) < 0)
            return NULL;
        body = json_object_get(body, name);
    }
    *ret_name = path;
    return body;
}

static json_t *parse_json(const char *flag, const char *text, size_t n, struct buf *problems) {
    json_error_t error;
    json_t *value = json_loadb(text, n, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &error);
    if (!value)
        buf_addf(problems, "%s is not JSON: %s\n", flag, error.text);
    return value;
}

static json_t *number_of(const struct option *o, const char *text, size_t n, struct buf *problems) {
    json_error_t error;
    json_t *value = json_loadb(text, n, JSON_DECODE_ANY, &error);
    if (json_is_number(value))
        return value;
    json_decref(value);
    buf_addf(problems, "--%s %.*s: must be a number\n", o->name, (int)n, text);
    return NULL;
}

static json_t *file_of(const struct option *o, const char *path, struct buf *problems) {
    _cleanup_(buf_wipe) struct buf text = {0};
    if (input_read(path, OPTION_FILE_MAX, &text, problems) < 0)
        return NULL;
    json_t *value = json_stringn(text.p ? text.p : "", text.n);
    if (!value)
        buf_addf(problems, "--%s %s: is not text in UTF-8\n", o->name, path);
    return value;
}

static json_t *text_of(const struct option *o, const char *text, size_t n, struct buf *problems) {
    json_t *value = json_stringn(text, n);
    if (!value)
        buf_addf(problems, "--%s: is not text in UTF-8\n", o->name);
    return value;
}

/* The value of an option that is given once; NULL with a line in problems. */
static json_t *single_of(const struct call *c, const struct given *g, struct buf *problems) {
    const struct option *o = g->option;
    _cleanup_buf_ struct buf text = {0};
    switch (o->kind) {
    case OPTION_NUMBER:
        return number_of(o, g->value, strlen(g->value), problems);
    case OPTION_BOOL:
        return json_boolean(strcmp(g->value, "true") == 0);
    case OPTION_JSON:
        buf_addf(&text, "--%s", o->name);
        return parse_json(text.p ? text.p : "", g->value, strlen(g->value), problems);
    case OPTION_FILE:
        return file_of(o, g->value, problems);
    case OPTION_PAST:
    case OPTION_FUTURE:
        moment_add(&text, g->value, o->kind == OPTION_FUTURE, c->now);
        return text_of(o, text.p ? text.p : "", text.n, problems);
    default:
        return text_of(o, g->value, strlen(g->value), problems);
    }
}

/* Adds to the array at the option's place; what --body had there is replaced by the first. */
static void add_list(const struct given *g, json_t *holder, const char *name, bool first,
                     struct buf *problems) {
    const struct option *o = g->option;
    if (first)
        json_object_set_new(holder, name, json_array());
    json_t *list = json_object_get(holder, name);
    for (const char *at = g->value; *at;) {
        size_t n = strcspn(at, ",");
        json_t *value =
            o->kind == OPTION_NUMBERS ? number_of(o, at, n, problems) : text_of(o, at, n, problems);
        if (value && json_array_append_new(list, value) < 0)
            buf_add_str(problems, "memory is out\n");
        at += n + (at[n] == ',');
    }
}

static void add_pair(const struct given *g, json_t *holder, const char *name, bool first,
                     struct buf *problems) {
    const char *equals = strchr(g->value, '=');
    if (!equals || equals == g->value) {
        buf_addf(problems, "--%s %s: must be NAME=VALUE\n", g->option->name, g->value);
        return;
    }
    if (first)
        json_object_set_new(holder, name, json_object());
    _cleanup_free_ char *key = slice_dup((struct slice){g->value, (size_t)(equals - g->value)});
    json_t *value = text_of(g->option, equals + 1, strlen(equals + 1), problems);
    if (key && value && json_object_set_new(json_object_get(holder, name), key, value) < 0)
        buf_addf(problems, "--%s: is not text in UTF-8\n", g->option->name);
}

static bool is_first(const struct args *a, const struct given *g) {
    for (const struct given *before = a->given; before < g; before++)
        if (before->option == g->option)
            return false;
    return true;
}

static void set_field(const struct call *c, const struct given *g, json_t *body, struct buf *problems) {
    const char *name;
    json_t *holder = holder_of(body, g->option->field, &name);
    if (!holder) {
        buf_add_str(problems, "memory is out\n");
    } else if (g->option->kind == OPTION_LIST || g->option->kind == OPTION_NUMBERS) {
        add_list(g, holder, name, is_first(&c->args, g), problems);
    } else if (g->option->kind == OPTION_PAIRS) {
        add_pair(g, holder, name, is_first(&c->args, g), problems);
    } else {
        json_t *value = single_of(c, g, problems);
        if (value)
            json_object_set_new(holder, name, value);
    }
}

static void unset_fields(const char *list, json_t *body, struct buf *problems) {
    for (const char *at = list; *at;) {
        size_t n = strcspn(at, ",");
        _cleanup_free_ char *path = slice_dup((struct slice){at, n});
        const char *name;
        json_t *holder = path ? holder_of(body, path, &name) : NULL;
        if (!holder || json_object_set_new(holder, name, json_null()) < 0)
            buf_addf(problems, "--unset %.*s: is no name of a field\n", (int)n, at);
        at += n + (at[n] == ',');
    }
}

/* What --body holds, to which the other options are added. */
static json_t *base_of(const struct call *c, struct buf *problems) {
    const char *given = args_value(&c->args, "body");
    _cleanup_(buf_wipe) struct buf file = {0};
    if (!given)
        return c->verb->fixed_body ? json_loads(c->verb->fixed_body, 0, NULL) : json_object();
    bool is_file = given[0] == '@' || strcmp(given, "-") == 0;
    if (is_file && input_read(given[0] == '@' ? given + 1 : given, BODY_FILE_MAX, &file, problems) < 0)
        return NULL;
    json_t *body = is_file ? parse_json("--body", file.p ? file.p : "", file.n, problems)
                           : parse_json("--body", given, strlen(given), problems);
    if (!body || json_is_object(body))
        return body;
    buf_add_str(problems, "--body must be an object\n");
    json_decref(body);
    return NULL;
}

int call_body(const struct call *c, json_t **ret, struct buf *problems) {
    const struct verb *v = c->verb;
    size_t before = problems->n;
    *ret = NULL;
    if (!verb_has_body(v))
        return 0;
    json_t *body = base_of(c, problems);
    if (!body)
        return -EINVAL;
    if (v->argument_field && c->args.plain_n > 0)
        json_object_set_new(body, v->argument_field, json_string(c->args.plain[0]));
    for (size_t i = 0; i < c->args.given_n; i++) {
        const struct given *g = &c->args.given[i];
        if (g->option->place == IN_BODY)
            set_field(c, g, body, problems);
        else if (strcmp(g->option->name, "unset") == 0)
            unset_fields(g->value, body, problems);
    }
    if (strcmp(v->method, "PATCH") == 0 && json_object_size(body) == 0)
        buf_add_str(problems, "there is nothing to change: give a flag, --unset or --body\n");
    *ret = body;
    return problems->n > before || !buf_ok(problems) ? -EINVAL : 0;
}
