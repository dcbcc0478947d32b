#include "ingest/source.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"

/* The same fault is not logged again sooner, however often it comes and goes. */
enum { SAY_AGAIN_MS = 60000 };

struct source {
    struct sources *set;
    const struct source_settings *settings;
    const struct source_kind *kind;
    struct source_sink *sink;
    struct metric_source *series; /* NULL: nobody counts */
    pthread_t thread;
    bool started;
    bool worked; /* since it was last opened: it was of use */
    struct rng rng;
    int64_t pause_ms;  /* after the step under way pushed back */
    int64_t wanted_ms; /* how long the sink asks to be left alone; 0: it did not say */
    int64_t said_at;
    const char *said;
    atomic_int health;
    _Atomic(const char *) reason;
    atomic_int_fast64_t behind_since; /* Unix ms; 0: caught up */
};

struct sources {
    struct sources_options o;
    int stop_fd; /* readable from the stop on */
    atomic_bool stopping;
    size_t n;
    struct source at[SOURCES_MAX];
};

void source_settings_free(struct source_settings *s) {
    char *const texts[] = {s->kind,  s->url,  s->password,    s->password_file, s->tenant,
                           s->table, s->slot, s->publication, s->rules,         s->accept_gap};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        wipe_free(texts[i]);
    *s = (struct source_settings){0};
}

const struct source_settings *source_settings(const struct source *s) {
    return s->settings;
}

bool source_stopping(const struct source *s) {
    return atomic_load(&s->set->stopping);
}

/* ---- health ---- */

static void become_healthy(struct source *s) {
    s->worked = true;
    int before = atomic_exchange(&s->health, SOURCE_RUNNING);
    atomic_store(&s->reason, NULL);
    if (before != SOURCE_RUNNING && before != SOURCE_SLOWED)
        log_info("source runs", log_str("source", s->settings->name), log_str("kind", s->kind->name));
}

int source_stands_by(struct source *s, int64_t behind_since) {
    s->worked = true;
    int before = atomic_exchange(&s->health, SOURCE_STANDING_BY);
    atomic_store(&s->reason, NULL);
    atomic_store(&s->behind_since, behind_since);
    if (before != SOURCE_STANDING_BY)
        log_info("source stands by: another process reads it", log_str("source", s->settings->name),
                 log_str("kind", s->kind->name));
    return SOURCE_STANDS_BY;
}

void source_fault(struct source *s, const char *what, const char *detail, const char *advice) {
    int64_t now = clock_now_ms(), caught_up = 0;
    atomic_compare_exchange_strong(&s->behind_since, &caught_up, now);
    atomic_store(&s->reason, what);
    atomic_store(&s->health, SOURCE_FAILING);
    if (s->said == what && now - s->said_at < SAY_AGAIN_MS && now >= s->said_at)
        return;
    s->said = what;
    s->said_at = now;
    log_error(what, log_str("source", s->settings->name), log_str("kind", s->kind->name),
              log_str("error", detail), log_str("advice", advice));
}

void source_caught_up(struct source *s) {
    atomic_store(&s->behind_since, 0);
    become_healthy(s);
}

void source_rejected(struct source *s, uint64_t n) {
    if (s->series)
        metrics_source_rows(s->series, METRIC_SOURCE_REJECTED, n);
}

void source_log_bytes(struct source *s, int64_t lag, int64_t kept) {
    if (s->series)
        metrics_source_log_bytes(s->series, lag, kept);
}

const char *source_folder(const struct source *s) {
    return s->set->o.folder;
}

/* ---- memory ---- */

static int memory_failed(struct source *s, int r) {
    source_fault(s, "the store does not keep how far the source has come", strerror(-r),
                 "see the lines of the store; it is tried again");
    return r;
}

int source_load(struct source *s, const char *item, struct buf *ret) {
    CHECK(s->sink->load);
    int r = s->sink->load(s->sink, s->settings, item, ret);
    return r == 0 || r == -ENOENT ? r : memory_failed(s, r);
}

int source_save(struct source *s, const char *item, struct slice text) {
    CHECK(s->sink->save);
    int r = s->sink->save(s->sink, s->settings, item, text);
    return r == 0 ? 0 : memory_failed(s, r);
}

/* ---- waiting ---- */

int64_t source_wanted_ms(const struct source *s) {
    return s->wanted_ms;
}

int source_wait(struct source *s, int fd, short events, int64_t ms) {
    struct pollfd at[] = {{.fd = s->set->stop_fd, .events = POLLIN}, {.fd = fd, .events = events}};
    if (ms > SOURCE_WAIT_MS_MAX)
        ms = SOURCE_WAIT_MS_MAX;
    int r = poll(at, 2, ms < 0 ? 0 : (int)ms);
    if (r < 0 && errno != EINTR)
        return -errno;
    if (source_stopping(s))
        return -ESHUTDOWN;
    return r > 0 && at[1].revents;
}

int source_wait_finish(struct source *s, int fd, short events, int64_t deadline_ms) {
    struct pollfd at[] = {{.fd = fd, .events = events}, {.fd = s->set->stop_fd, .events = POLLIN}};
    bool stopping = false;
    for (;;) {
        int64_t now = clock_mono_us() / 1000;
        if (!stopping && source_stopping(s)) {
            stopping = true;
            deadline_ms = now + SOURCE_FINISH_MS < deadline_ms ? now + SOURCE_FINISH_MS : deadline_ms;
        }
        if (now >= deadline_ms)
            return -ETIMEDOUT;
        int r = poll(at, stopping ? 1 : 2, (int)(deadline_ms - now));
        if (r < 0 && errno != EINTR)
            return -errno;
        if (r > 0 && at[0].revents)
            return 1;
    }
}

/* Half of it, and up to the other half by chance, so that many do not come back at once. */
static int64_t jittered(struct source *s, int64_t ms) {
    return ms / 2 + (int64_t)rng_below(&s->rng, (uint64_t)(ms / 2) + 1);
}

static void sleep_for(struct source *s, int64_t ms) {
    int64_t until = clock_mono_us() / 1000 + ms, left = ms;
    while (left > 0 && source_wait(s, -1, 0, left) == 0)
        left = until - clock_mono_us() / 1000;
}

/* ---- publishing ---- */

static void note_lag(struct source *s, const struct source_row *rows, size_t n) {
    int64_t oldest = 0;
    for (size_t i = 0; i < n; i++)
        if (rows[i].committed_at && (!oldest || rows[i].committed_at < oldest))
            oldest = rows[i].committed_at;
    atomic_store(&s->behind_since, oldest ? oldest : clock_now_ms());
}

static void count(struct source *s, const struct source_row *rows, size_t n) {
    static const enum metric_source_outcome outcomes[] = {
        [SOURCE_ACCEPTED] = METRIC_SOURCE_ACCEPTED,
        [SOURCE_DUPLICATE] = METRIC_SOURCE_DUPLICATE,
        [SOURCE_REJECTED] = METRIC_SOURCE_REJECTED,
    };
    for (size_t i = 0; s->series && i < n; i++)
        if (source_row_is_decided(&rows[i]))
            metrics_source_rows(s->series, outcomes[rows[i].outcome], 1);
}

/* That rows are repeated shows nothing: what breaks off after them lets them come again each time. */
static void took_rows(struct source *s, const struct source_row *rows, size_t n) {
    int slowed = SOURCE_SLOWED;
    s->pause_ms = 0;
    for (size_t i = 0; i < n; i++)
        if (rows[i].outcome == SOURCE_ACCEPTED) {
            become_healthy(s);
            return;
        }
    atomic_compare_exchange_strong(&s->health, &slowed, SOURCE_RUNNING);
}

int source_publish(struct source *s, struct source_row *rows, size_t n) {
    CHECK(n > 0 && n <= SOURCE_ROWS_MAX);
    if (source_stopping(s))
        return -ESHUTDOWN;
    for (size_t i = 0; i < n; i++)
        rows[i].outcome = SOURCE_WAITING;
    note_lag(s, rows, n);
    s->wanted_ms = 0;
    int r = s->sink->publish(s->sink, s->settings, rows, n, &s->wanted_ms);
    count(s, rows, n);
    if (r == 0)
        took_rows(s, rows, n);
    if (r == 0 || r == -ESHUTDOWN)
        return r;
    if (r == -EAGAIN)
        atomic_store(&s->health, SOURCE_SLOWED);
    else
        source_fault(s, s->sink->problem ? s->sink->problem : "the server does not take events",
                     s->sink->detail, "see that the server runs and that the key may publish; the rows wait");
    return -EAGAIN;
}

/* ---- the thread ---- */

/* How long it is to leave the sink alone: what that asks for, else longer each time. */
static int64_t next_pause(struct source *s) {
    s->pause_ms = s->pause_ms ? s->pause_ms * 2 : SOURCE_PAUSE_MS_MIN;
    if (s->pause_ms > SOURCE_PAUSE_MS_MAX)
        s->pause_ms = SOURCE_PAUSE_MS_MAX;
    int64_t pause = jittered(s, s->pause_ms);
    if (s->wanted_ms > pause)
        pause = s->wanted_ms < SOURCE_PAUSE_MS_MAX ? s->wanted_ms : SOURCE_PAUSE_MS_MAX;
    return pause;
}

/* While the database is there. */
static void work(struct source *s, void *state) {
    int r = 0;
    while ((r >= 0 || r == -EAGAIN) && !source_stopping(s)) {
        r = s->kind->step(s, state);
        if (r == SOURCE_STANDS_BY)
            sleep_for(s, SOURCE_STANDBY_MS);
        else if (r == -EAGAIN)
            sleep_for(s, next_pause(s));
    }
}

static void *run(void *arg) {
    struct source *s = arg;
    int64_t retry_ms = SOURCE_RETRY_MS_MIN;
    while (!source_stopping(s)) {
        void *state = NULL;
        s->worked = false;
        if (s->kind->open(s, &state) == 0) {
            work(s, state);
            s->kind->close(state);
        }
        retry_ms = s->worked ? SOURCE_RETRY_MS_MIN : retry_ms;
        sleep_for(s, jittered(s, retry_ms));
        retry_ms = retry_ms * 2 < SOURCE_RETRY_MS_MAX ? retry_ms * 2 : SOURCE_RETRY_MS_MAX;
    }
    return NULL;
}

/* ---- the set ---- */

int sources_new(const struct sources_options *o, struct sources **ret) {
    struct sources *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->o = *o;
    s->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->stop_fd < 0) {
        int r = -errno;
        free(s);
        return r;
    }
    *ret = s;
    return 0;
}

int sources_add(struct sources *set, const struct source_settings *settings, const struct source_kind *kind) {
    CHECK(set->n < SOURCES_MAX && source_name_valid(slice_of(settings->name)));
    struct source_sink *sink = set->o.sink(set->o.arg);
    if (!sink)
        return -ENOMEM;
    struct source *s = &set->at[set->n++];
    *s = (struct source){.set = set, .settings = settings, .kind = kind, .sink = sink};
    atomic_store(&s->health, SOURCE_STARTING);
    atomic_store(&s->behind_since, clock_now_ms());
    s->series = set->o.metrics ? metrics_keep_source(set->o.metrics, settings->name) : NULL;
    rng_seed_from_system(&s->rng);
    return 0;
}

int sources_start(struct sources *set) {
    sigset_t all, before;
    int r = 0;
    /* Signals are the main thread's. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (size_t i = 0; r == 0 && i < set->n; i++) {
        r = pthread_create(&set->at[i].thread, NULL, run, &set->at[i]);
        set->at[i].started = r == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -r;
}

void sources_stop(struct sources *set) {
    if (!set)
        return;
    atomic_store(&set->stopping, true);
    CHECK(eventfd_write(set->stop_fd, 1) == 0);
    for (size_t i = 0; i < set->n; i++) {
        if (set->at[i].started)
            pthread_join(set->at[i].thread, NULL);
        set->at[i].started = false;
    }
}

void sources_free(struct sources *set) {
    if (!set)
        return;
    for (size_t i = 0; i < set->n; i++) {
        CHECK(!set->at[i].started);
        set->at[i].sink->free(set->at[i].sink);
    }
    close(set->stop_fd);
    free(set);
}

size_t sources_count(const struct sources *s) {
    return s ? s->n : 0;
}

void sources_status(struct sources *set, size_t i, int64_t now, struct source_status *ret) {
    CHECK(i < set->n);
    struct source *s = &set->at[i];
    int64_t since = atomic_load(&s->behind_since);
    *ret = (struct source_status){
        .name = s->settings->name,
        .kind = s->kind->name,
        .health = (enum source_health)atomic_load(&s->health),
        .reason = atomic_load(&s->reason),
        .lag_ms = since && since < now ? now - since : 0,
    };
}

void sources_observe(struct sources *set, int64_t now) {
    for (size_t i = 0; i < sources_count(set); i++) {
        struct source_status status;
        sources_status(set, i, now, &status);
        if (set->at[i].series)
            metrics_source_health(set->at[i].series, status.health, status.lag_ms);
    }
}
