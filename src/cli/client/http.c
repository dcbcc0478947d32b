#include "cli/client/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>

#include "cli/client/interrupt.h"

struct http {
    CURL *curl;
    const char *url, *key, *ca;
    char problem[CURL_ERROR_SIZE];
};

struct http *http_new(const char *url, const char *key, const char *ca) {
    struct http *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    *h = (struct http){.url = url, .key = key, .ca = ca};
    h->curl = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? curl_easy_init() : NULL;
    if (!h->curl) {
        free(h);
        return NULL;
    }
    return h;
}

void http_free(struct http *h) {
    if (!h)
        return;
    curl_easy_cleanup(h->curl);
    curl_global_cleanup();
    free(h);
}

const char *http_problem(const struct http *h) {
    return h->problem;
}

const char *http_url(const struct http *h) {
    return h->url;
}

const char *http_key(const struct http *h) {
    return h->key;
}

void http_answer_free(struct http_answer *a) {
    buf_free(&a->body);
}

static size_t take_body(char *p, size_t size, size_t n, void *arg) {
    struct http_answer *a = arg;
    buf_add(&a->body, p, size * n);
    return buf_ok(&a->body) ? size * n : 0;
}

static int check_stop(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d) {
    (void)arg, (void)a, (void)b, (void)c, (void)d;
    return interrupted();
}

static bool add_header(struct curl_slist **list, const char *text) {
    struct curl_slist *longer = curl_slist_append(*list, text);
    if (longer)
        *list = longer;
    return longer != NULL;
}

/* False when memory is out. */
static bool make_headers(const struct http *h, const struct http_request *r, struct curl_slist **list) {
    _cleanup_(buf_wipe) struct buf line = {0};
    bool ok = add_header(list, "Accept: application/json") && add_header(list, "Expect:");
    if (h->key) {
        buf_addf(&line, "Authorization: Bearer %s", h->key);
        ok = ok && buf_ok(&line) && add_header(list, line.p);
    }
    buf_reset(&line);
    buf_addf(&line, "Content-Type: %s", r->content_type ? r->content_type : "");
    ok = ok && buf_ok(&line) && add_header(list, line.p);
    for (const char *at = r->headers ? r->headers : ""; *at && ok; at += strcspn(at, "\n") + 1) {
        buf_reset(&line);
        buf_add(&line, at, strcspn(at, "\n"));
        ok = buf_ok(&line) && add_header(list, line.p);
    }
    return ok;
}

static void set_up(struct http *h, const char *url, const struct http_request *r,
                   struct http_answer *answer) {
    CURL *c = h->curl;
    bool is_get = strcmp(r->method, "GET") == 0;
    curl_easy_reset(c); /* keeps its connections */
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_PATH_AS_IS, 1L); /* a tenant may be called ".." */
    curl_easy_setopt(c, CURLOPT_USERAGENT, "posthorn-cli/" POSTHORN_VERSION);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, h->problem);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)HTTP_CONNECT_LIMIT_MS);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)HTTP_SILENCE_LIMIT_SECONDS);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, answer);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, check_stop);
    if (h->ca)
        curl_easy_setopt(c, CURLOPT_CAINFO, h->ca);
    if (!is_get && (r->content_type || strcmp(r->method, "POST") == 0)) {
        curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body.n);
        curl_easy_setopt(c, CURLOPT_POSTFIELDS, r->body.n ? r->body.p : "");
    }
    curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, r->method);
}

int http_ask(struct http *h, const struct http_request *r, struct http_answer *ret) {
    _cleanup_buf_ struct buf url = {0};
    struct curl_slist *headers = NULL;
    size_t n = strlen(h->url);
    while (n > 0 && h->url[n - 1] == '/')
        n--;
    buf_add(&url, h->url, n);
    buf_add_str(&url, r->path);
    buf_reset(&ret->body);
    ret->body.limit = HTTP_ANSWER_MAX;
    h->problem[0] = '\0';
    CURLcode code = CURLE_OUT_OF_MEMORY;
    if (buf_ok(&url) && make_headers(h, r, &headers)) {
        set_up(h, url.p, r, ret);
        curl_easy_setopt(h->curl, CURLOPT_HTTPHEADER, headers);
        code = curl_easy_perform(h->curl);
    }
    curl_slist_free_all(headers);
    curl_off_t retry_after = 0;
    curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &ret->status);
    curl_easy_getinfo(h->curl, CURLINFO_RETRY_AFTER, &retry_after);
    ret->retry_after_seconds = retry_after;
    if (code == CURLE_OK)
        return 0;
    if (!h->problem[0])
        strncpy(h->problem, curl_easy_strerror(code), sizeof h->problem - 1);
    return code == CURLE_ABORTED_BY_CALLBACK ? -ECANCELED : -EHOSTUNREACH;
}
