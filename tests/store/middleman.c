#include "middleman.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/clock.h"

enum { CONNECTIONS_MAX = 16, ROOM = 65536, PATIENCE_MS = 60000 };

/* client < 0: gone. */
struct connection {
    int client, server;
    enum mischief mischief;
    char held[ROOM];
    size_t held_n;
    char tail[6]; /* of what the server said last */
};

struct middleman {
    pthread_t thread;
    pthread_mutex_t lock;
    char folder[64], path[96], server_path[108], *url;
    int listener;
    bool stopping;
    struct connection *connections[CONNECTIONS_MAX];
};

static void end(struct connection **c) {
    if ((*c)->client >= 0)
        close((*c)->client);
    close((*c)->server);
    free(*c);
    *c = NULL;
}

static int connect_server(const struct middleman *m) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path, sizeof to.sun_path, "%s", m->server_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0)
        return fd;
    close(fd);
    return -1;
}

static void take_client(struct middleman *m) {
    int client = accept4(m->listener, NULL, NULL, SOCK_CLOEXEC);
    int server = client < 0 ? -1 : connect_server(m);
    struct connection *c = server < 0 ? NULL : calloc(1, sizeof *c);
    for (size_t i = 0; c && i < CONNECTIONS_MAX; i++)
        if (!m->connections[i]) {
            *c = (struct connection){.client = client, .server = server};
            m->connections[i] = c;
            return;
        }
    if (server >= 0)
        close(server);
    if (client >= 0)
        close(client);
    free(c);
}

static bool pass_on(int to, const char *p, size_t n) {
    while (n) {
        ssize_t done = send(to, p, n, MSG_NOSIGNAL);
        if (done < 0)
            return false;
        p += done;
        n -= (size_t)done;
    }
    return true;
}

/* Whether the connection lives on. */
static bool from_client(struct connection *c) {
    char bytes[ROOM];
    ssize_t n = recv(c->client, bytes, sizeof bytes, 0);
    if (n <= 0)
        return false;
    switch (c->mischief) {
    case SWALLOW_REQUEST:
        return false;
    case HOLD_REQUEST:
        memcpy(c->held, bytes, (size_t)n);
        c->held_n = (size_t)n;
        close(c->client);
        c->client = -1;
        return true;
    default:
        return pass_on(c->server, bytes, (size_t)n);
    }
}

/* ReadyForQuery, outside of a transaction. */
static bool is_idle(struct connection *c, const char *bytes, size_t n) {
    size_t keep = n < sizeof c->tail ? sizeof c->tail - n : 0;
    memmove(c->tail, c->tail + sizeof c->tail - keep, keep);
    memcpy(c->tail + keep, bytes + n - (sizeof c->tail - keep), sizeof c->tail - keep);
    return memcmp(c->tail, "Z\0\0\0\5I", sizeof c->tail) == 0;
}

static bool from_server(struct connection *c) {
    char bytes[ROOM];
    ssize_t n = recv(c->server, bytes, sizeof bytes, 0);
    if (n <= 0)
        return false;
    bool idle = is_idle(c, bytes, (size_t)n);
    if (c->mischief == SWALLOW_ANSWERS)
        return !idle;
    return c->client < 0 || pass_on(c->client, bytes, (size_t)n);
}

static void *run(void *arg) {
    struct middleman *m = arg;
    for (;;) {
        struct pollfd fds[1 + 2 * CONNECTIONS_MAX];
        pthread_mutex_lock(&m->lock);
        bool stopping = m->stopping;
        fds[0] = (struct pollfd){.fd = m->listener, .events = POLLIN};
        for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
            const struct connection *c = m->connections[i];
            fds[1 + 2 * i] = (struct pollfd){.fd = c ? c->client : -1, .events = POLLIN};
            fds[2 + 2 * i] = (struct pollfd){.fd = c ? c->server : -1, .events = POLLIN};
        }
        pthread_mutex_unlock(&m->lock);
        if (stopping)
            return NULL;
        poll(fds, sizeof fds / sizeof fds[0], 20);
        pthread_mutex_lock(&m->lock);
        for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
            struct connection **c = &m->connections[i];
            if (*c && fds[1 + 2 * i].revents && !from_client(*c))
                end(c);
            if (*c && fds[2 + 2 * i].revents && !from_server(*c))
                end(c);
        }
        if (fds[0].revents)
            take_client(m);
        pthread_mutex_unlock(&m->lock);
    }
}

static const char *option_of(const struct pg_source *source, const char *keyword) {
    for (const PQconninfoOption *o = source->options; o->keyword; o++)
        if (strcmp(o->keyword, keyword) == 0)
            return o->val;
    return NULL;
}

struct middleman *middleman_start(const char *url) {
    struct middleman *m = calloc(1, sizeof *m);
    _cleanup_pg_source_ struct pg_source *source = NULL;
    const char *message = "", *options;
    int r = pg_source_parse(url, &source, &message);
    CHECK(m && r == 0);
    snprintf(m->server_path, sizeof m->server_path, "%s/.s.PGSQL.5432", option_of(source, "host"));
    snprintf(m->folder, sizeof m->folder, "/tmp/posthorn-middleman-XXXXXX");
    CHECK(mkdtemp(m->folder));
    snprintf(m->path, sizeof m->path, "%s/.s.PGSQL.5432", m->folder);
    options = option_of(source, "options");
    r = asprintf(&m->url, "postgres://postgres@/%s?host=%s&connect_timeout=60&options=%s%s",
                 option_of(source, "dbname"), m->folder, options ? "-csearch_path%3D" : "",
                 options ? strchr(options, '=') + 1 : "");
    CHECK(r > 0);
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(at.sun_path, sizeof at.sun_path, "%s", m->path);
    m->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(m->listener, (struct sockaddr *)&at, sizeof at) == 0 && listen(m->listener, 16) == 0);
    pthread_mutex_init(&m->lock, NULL);
    CHECK(pthread_create(&m->thread, NULL, run, m) == 0);
    return m;
}

const char *middleman_url(const struct middleman *m) {
    return m->url;
}

void middleman_set(struct middleman *m, enum mischief mischief) {
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < CONNECTIONS_MAX; i++)
        if (m->connections[i])
            m->connections[i]->mischief = mischief;
    pthread_mutex_unlock(&m->lock);
}

static bool has_held(struct middleman *m) {
    bool any = false;
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < CONNECTIONS_MAX; i++)
        any |= m->connections[i] && m->connections[i]->client < 0;
    pthread_mutex_unlock(&m->lock);
    return any;
}

void middleman_release(struct middleman *m) {
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *c = m->connections[i];
        if (c && c->client < 0) {
            (void)pass_on(c->server, c->held, c->held_n);
            shutdown(c->server, SHUT_WR); /* so that it ends when it has worked that off */
        }
    }
    pthread_mutex_unlock(&m->lock);
    int64_t until = clock_mono_us() + (int64_t)PATIENCE_MS * 1000;
    while (has_held(m)) {
        CHECK(clock_mono_us() < until);
        poll(NULL, 0, 5);
    }
}

void middleman_stop(struct middleman *m) {
    pthread_mutex_lock(&m->lock);
    m->stopping = true;
    pthread_mutex_unlock(&m->lock);
    pthread_join(m->thread, NULL);
    for (size_t i = 0; i < CONNECTIONS_MAX; i++)
        if (m->connections[i])
            end(&m->connections[i]);
    close(m->listener);
    unlink(m->path);
    rmdir(m->folder);
    free(m->url);
    free(m);
}
