#include "observe/tracer.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"

enum {
    FLUSH_EVERY_MS = 1000,
    RETRY_PAUSE_MS = 500, /* doubled each time */
    POST_TIMEOUT_MS = 5000,
    POST_TIMEOUT_AT_STOP_MS = 1000,
    URL_MAX = 2048,
};

struct tracer {
    struct tracer_options o;
    char url[URL_MAX];
    CURL *easy;
    struct curl_slist *headers;
    struct buf body; /* of the request under way */
    bool failing;    /* the last request did: said once */
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stopping;
    struct rng rng;
    size_t first, n; /* of the ring */
    struct span ring[TRACER_QUEUE_MAX];
    struct span batch[TRACER_BATCH_MAX]; /* the thread's */
};

/* ---- for the stages ---- */

static uint64_t new_id(struct tracer *t) {
    uint64_t id = rng_next(&t->rng);
    return id ? id : 1;
}

uint64_t tracer_new_id(struct tracer *t) {
    pthread_mutex_lock(&t->lock);
    uint64_t id = new_id(t);
    pthread_mutex_unlock(&t->lock);
    return id;
}

/* A traceparent that nobody gave; false when chance leaves it out. */
static bool begin_root(struct tracer *t, struct buf *out, uint64_t *ret_span) {
    pthread_mutex_lock(&t->lock);
    bool sampled = rng_below(&t->rng, 100) < t->o.sample_percent;
    uint64_t high = new_id(t), low = new_id(t);
    *ret_span = sampled ? new_id(t) : 0;
    pthread_mutex_unlock(&t->lock);
    if (sampled)
        buf_addf(out, "00-%016llx%016llx-%016llx-01", (unsigned long long)high, (unsigned long long)low,
                 (unsigned long long)*ret_span);
    return sampled;
}

void tracer_begin(struct tracer *t, struct slice given, struct buf *out, uint64_t *ret_span) {
    if (!given.p) {
        (void)begin_root(t, out, ret_span);
        return;
    }
    if (!trace_sampled(given)) {
        *ret_span = 0;
        buf_add_slice(out, given);
        return;
    }
    char parent[TRACEPARENT_N + 1];
    *ret_span = tracer_new_id(t);
    trace_parent_for(given, *ret_span, parent);
    buf_add_str(out, parent);
    buf_add_slice(out, trace_state(given));
}

void tracer_add(struct tracer *t, const struct span *s) {
    pthread_mutex_lock(&t->lock);
    bool room = t->n < TRACER_QUEUE_MAX;
    if (room)
        t->ring[(t->first + t->n++) % TRACER_QUEUE_MAX] = *s;
    bool enough = t->n == TRACER_BATCH_MAX;
    pthread_mutex_unlock(&t->lock);
    if (!room)
        metrics_count(t->o.metrics, METRIC_SPANS_DROPPED, 1);
    if (enough)
        pthread_cond_signal(&t->wake);
}

/* ---- the thread ---- */

static void wait_ms(struct tracer *t, int64_t ms) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += (ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&t->wake, &t->lock, &until);
}

/* Waits until there are a batch's worth, or for a moment; *ret_stopping: this is the last chance. */
static size_t take_batch(struct tracer *t, bool *ret_stopping) {
    pthread_mutex_lock(&t->lock);
    if (t->n < TRACER_BATCH_MAX && !t->stopping)
        wait_ms(t, FLUSH_EVERY_MS);
    size_t n = t->n < TRACER_BATCH_MAX ? t->n : TRACER_BATCH_MAX;
    for (size_t i = 0; i < n; i++)
        t->batch[i] = t->ring[(t->first + i) % TRACER_QUEUE_MAX];
    t->first = (t->first + n) % TRACER_QUEUE_MAX;
    t->n -= n;
    *ret_stopping = t->stopping;
    pthread_mutex_unlock(&t->lock);
    return n;
}

static size_t ignore_answer(char *data, size_t size, size_t n, void *arg) {
    (void)data, (void)arg;
    return size * n;
}

/* 0; -EAGAIN when the collector may take it later; -EBADMSG when it will not. */
static int post(struct tracer *t, bool stopping, const char **ret_why) {
    static __thread char why[64];
    long status = 0;
    curl_easy_setopt(t->easy, CURLOPT_TIMEOUT_MS, stopping ? POST_TIMEOUT_AT_STOP_MS : POST_TIMEOUT_MS);
    curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, t->body.p);
    curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)t->body.n);
    CURLcode code = curl_easy_perform(t->easy);
    if (code != CURLE_OK) {
        *ret_why = curl_easy_strerror(code);
        return -EAGAIN;
    }
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 200 && status < 300)
        return 0;
    snprintf(why, sizeof why, "it answered %ld", status);
    *ret_why = why;
    return status == 429 || status == 502 || status == 503 || status == 504 ? -EAGAIN : -EBADMSG;
}

static void tell(struct tracer *t, int r, const char *why) {
    if (r < 0 && !t->failing)
        log_warn("the collector does not take spans; they are dropped, deliveries go on",
                 log_str("collector", t->url), log_str("error", why));
    if (r == 0 && t->failing)
        log_info("the collector takes spans again", log_str("collector", t->url));
    t->failing = r < 0;
}

/* True when the thread is to end. */
static bool pause_before_retry(struct tracer *t, unsigned tries) {
    pthread_mutex_lock(&t->lock);
    if (!t->stopping)
        wait_ms(t, RETRY_PAUSE_MS << tries);
    bool stopping = t->stopping;
    pthread_mutex_unlock(&t->lock);
    return stopping;
}

static void send_batch(struct tracer *t, size_t n, bool stopping) {
    const char *why = "memory is out";
    int r = -ENOMEM;
    buf_reset(&t->body);
    spans_render(t->batch, n, t->o.instance, &t->body);
    for (unsigned tries = 0; buf_ok(&t->body); tries++) {
        r = post(t, stopping, &why);
        tell(t, r, why);
        if (r != -EAGAIN || stopping || tries + 1 == TRACER_TRIES_MAX)
            break;
        stopping = pause_before_retry(t, tries);
    }
    metrics_count(t->o.metrics, r == 0 ? METRIC_SPANS_EXPORTED : METRIC_SPANS_DROPPED, n);
    if (!buf_ok(&t->body))
        buf_free(&t->body);
}

static void *tracer_main(void *arg) {
    struct tracer *t = arg;
    bool stopping = false;
    pthread_setname_np(pthread_self(), "spans");
    /* At the end each batch gets one try, until one fails. */
    while (!stopping || !t->failing) {
        size_t n = take_batch(t, &stopping);
        if (n)
            send_batch(t, n, stopping);
        else if (stopping)
            break;
    }
    return NULL;
}

/* ---- life ---- */

static int prepare_curl(struct tracer *t) {
    static const char path[] = "/v1/traces";
    struct slice url = slice_of(t->o.url);
    bool whole = url.n >= sizeof path - 1 && strcmp(url.p + url.n - (sizeof path - 1), path) == 0;
    while (!whole && url.n && url.p[url.n - 1] == '/')
        url.n--;
    int n = snprintf(t->url, sizeof t->url, "%.*s%s", SLICE_ARG(url), whole ? "" : path);
    if (n < 0 || (size_t)n >= sizeof t->url)
        return -EINVAL;
    t->easy = curl_easy_init();
    t->headers = curl_slist_append(NULL, "Content-Type: application/json");
    if (t->o.header && t->headers && !curl_slist_append(t->headers, t->o.header))
        return -ENOMEM;
    if (!t->easy || !t->headers)
        return -ENOMEM;
    curl_easy_setopt(t->easy, CURLOPT_URL, t->url);
    curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers);
    curl_easy_setopt(t->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(t->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(t->easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(t->easy, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(t->easy, CURLOPT_USERAGENT, "posthorn/" POSTHORN_VERSION);
    curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, ignore_answer);
    return 0;
}

static void release(struct tracer *t) {
    curl_easy_cleanup(t->easy);
    curl_slist_free_all(t->headers);
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->lock);
    buf_free(&t->body);
    free(t);
}

int tracer_start(const struct tracer_options *o, struct tracer **ret) {
    struct tracer *t = calloc(1, sizeof *t);
    if (!t)
        return -ENOMEM;
    t->o = *o;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&t->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&t->lock, NULL);
    rng_seed_from_system(&t->rng);
    int r = prepare_curl(t);
    if (r == 0)
        r = -pthread_create(&t->thread, NULL, tracer_main, t);
    if (r < 0) {
        release(t);
        return r;
    }
    *ret = t;
    return 0;
}

void tracer_stop(struct tracer *t) {
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    t->stopping = true;
    pthread_cond_signal(&t->wake);
    pthread_mutex_unlock(&t->lock);
    pthread_join(t->thread, NULL);
    release(t);
}
