/* In place of the C library's, for libmicrohttpd too. Its epoll loop (0.9.75, MHD_epoll) takes up to 128
 * events, and after exactly so many it waits once more before it looks at any of them, for as long as it
 * likes: when all its connections are among them, nobody is served until something else happens. So a wait
 * that follows a full harvest does not block; whoever handles his events first loses nothing by it. */
#include <stdbool.h>
#include <stddef.h>
#include <sys/epoll.h>

/* The thread sanitizer needs its own. */
#ifndef __SANITIZE_THREAD__

int epoll_wait(int fd, struct epoll_event *events, int max, int timeout_ms) {
    static _Thread_local bool full;
    int n = epoll_pwait(fd, events, max, full ? 0 : timeout_ms, NULL);
    full = n == max;
    return n;
}

#endif
