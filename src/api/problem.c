#include "api/problem.h"

static const struct problem {
    int status;
    const char *type, *title;
} problems[] = {
    {400, "malformed", "The request is malformed"},
    {401, "unauthorized", "A valid API key is needed"},
    {403, "forbidden", "The API key lacks the scope"},
    {404, "not_found", "Not found"},
    {405, "method_not_allowed", "The method is not allowed here"},
    {409, "conflict", "The request conflicts with what is there"},
    {410, "gone", "The payload has expired"},
    {413, "too_large", "The request is too large"},
    {414, "uri_too_long", "The URL is too long"},
    {415, "unsupported_media_type", "The content type is not supported"},
    {422, "validation", "The request is not valid"},
    {429, "over_quota", "The quota is used up"},
    {503, "unavailable", "The service is not available now"},
    {500, "internal", "Something went wrong here"},
};

static const struct problem *problem_of(int status) {
    size_t last = sizeof problems / sizeof problems[0] - 1, i = 0;
    while (i < last && problems[i].status != status)
        i++;
    return &problems[i];
}

static void render_errors(struct buf *out, const struct field_errors *errors) {
    buf_add_str(out, ",\"errors\":[");
    for (size_t i = 0; i < errors->n; i++) {
        buf_add_str(out, i ? ",{\"field\":" : "{\"field\":");
        buf_add_json_string(out, slice_of(errors->at[i].field));
        buf_add_str(out, ",\"message\":");
        buf_add_json_string(out, slice_of(errors->at[i].message));
        buf_add_char(out, '}');
    }
    buf_add_char(out, ']');
}

void problem_render(struct buf *out, int status, const char *detail, const struct field_errors *errors) {
    const struct problem *p = problem_of(status);
    buf_addf(out, "{\"type\":\"urn:posthorn:problem:%s\",\"title\":\"%s\",\"status\":%d,\"detail\":", p->type,
             p->title, p->status);
    buf_add_json_string(out, slice_of(detail));
    if (errors && errors->n)
        render_errors(out, errors);
    buf_add_char(out, '}');
}
