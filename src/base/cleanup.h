/* One way to free: a local declared with _cleanup_(fn) is handed to fn when its scope ends, on every path.
 *   _cleanup_free_ char *name = NULL;
 *   return TAKE_PTR(name);           // hands ownership out, the cleanup then sees NULL
 */
#pragma once

#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(fn) __attribute__((cleanup(fn)))

#define TAKE_PTR(p)                                                                                          \
    ({                                                                                                       \
        __typeof__(p) _taken = (p);                                                                          \
        (p) = NULL;                                                                                          \
        _taken;                                                                                              \
    })

/* Defines static void NAME(TYPE **p) for use with _cleanup_, calling FREE on what it points to. */
#define DEFINE_CLEANUP(NAME, TYPE, FREE)                                                                     \
    __attribute__((unused)) static inline void NAME(TYPE **p) {                                              \
        if (*p)                                                                                              \
            FREE(*p);                                                                                        \
    }

static inline void cleanup_free(void *p) {
    free(*(void **)p);
}

static inline void cleanup_close(int *fd) {
    if (*fd >= 0)
        close(*fd);
}

#define _cleanup_free_  _cleanup_(cleanup_free)
#define _cleanup_close_ _cleanup_(cleanup_close)
