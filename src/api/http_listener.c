#include "api/http_listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "api/tls.h"
#include "base/log.h"

enum { OPTIONS_MAX = 16 };

struct http_listener {
    struct MHD_Daemon *daemon;
    struct connections *connections;
};

static size_t keep_encoded(void *arg, struct MHD_Connection *connection, char *s) {
    (void)arg;
    (void)connection;
    return strlen(s);
}

__attribute__((format(printf, 2, 0))) static void log_library(void *arg, const char *format, va_list args) {
    (void)arg;
    char line[512];
    vsnprintf(line, sizeof line, format, args);
    line[strcspn(line, "\r\n")] = '\0';
    log_debug("libmicrohttpd", log_str("says", line));
}

static void on_connection(void *arg, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode what) {
    struct http_listener *l = arg;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        connections_leave(l->connections, *context);
        *context = NULL;
        return;
    }
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    *context = info ? connections_enter(l->connections, info->connect_fd) : NULL;
}

struct connection_watch *http_connection_watch(struct MHD_Connection *connection) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

/* The options that are not always there. */
static void choose_options(const struct http_listener_options *o, struct MHD_OptionItem ret[OPTIONS_MAX]) {
    size_t n = 0;
    if (o->threads > 1)
        ret[n++] = (struct MHD_OptionItem){MHD_OPTION_THREAD_POOL_SIZE, (intptr_t)o->threads, NULL};
    if (o->connections_per_client_max)
        ret[n++] = (struct MHD_OptionItem){MHD_OPTION_PER_IP_CONNECTION_LIMIT,
                                           (intptr_t)o->connections_per_client_max, NULL};
    if (o->tls) {
        ret[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)tls_priorities};
        ret[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_CERT_CALLBACK, 0, (void *)(uintptr_t)tls_pick};
    }
    ret[n] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    CHECK(n < OPTIONS_MAX);
}

int http_listener_start(const struct http_listener_options *o, struct http_listener **ret) {
    struct http_listener *l = calloc(1, sizeof *l);
    struct MHD_OptionItem more[OPTIONS_MAX];
    int fd = fcntl(o->fd, F_DUPFD_CLOEXEC, 0);
    if (!l || fd < 0) {
        int r = l ? -errno : -ENOMEM;
        free(l);
        return r;
    }
    l->connections = o->connections;
    choose_options(o, more);
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG |
                     (o->tls ? MHD_USE_TLS : 0);
    /* The log comes first: it is of use to the options behind it. */
    l->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, o->handlers.request, o->handlers.arg, MHD_OPTION_EXTERNAL_LOGGER, log_library,
        NULL, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, o->connections_max,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, o->head_bytes_max, MHD_OPTION_CONNECTION_TIMEOUT, o->idle_seconds,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, l, MHD_OPTION_NOTIFY_COMPLETED, o->handlers.completed,
        o->handlers.arg, MHD_OPTION_URI_LOG_CALLBACK, o->handlers.uri, o->handlers.arg,
        MHD_OPTION_UNESCAPE_CALLBACK, keep_encoded, NULL, MHD_OPTION_ARRAY, more, MHD_OPTION_END);
    if (!l->daemon) {
        int r = errno ? -errno : -EIO;
        close(fd);
        free(l);
        return r;
    }
    *ret = l;
    return 0;
}

void http_listener_quiesce(struct http_listener *l) {
    MHD_socket fd = MHD_quiesce_daemon(l->daemon);
    if (fd != MHD_INVALID_SOCKET)
        close(fd);
}

void http_listener_stop(struct http_listener *l) {
    if (!l)
        return;
    MHD_stop_daemon(l->daemon);
    free(l);
}
