/* Confinement of the process by the kernel: after it has started it reads and writes files in a few places
 * alone (Landlock), and runs no program, traces no process and loads nothing into the kernel (seccomp). */
#pragma once

#include "base/bytes.h"

enum { SANDBOX_PATHS_MAX = 192 };

struct sandbox {
    const char *writable[SANDBOX_PATHS_MAX]; /* folders whose files are made, changed and removed */
    size_t writable_n;
    const char *readable[SANDBOX_PATHS_MAX]; /* files, or folders with all below them */
    size_t readable_n;
};

enum { SANDBOX_FILES = 1, SANDBOX_CALLS = 2 };

/* Confines this thread and those that it starts, for good: call it before the others. What resolving names,
 * TLS and the C library read is readable besides; paths that are not there are passed over. *ret_confined:
 * what the kernel could do, SANDBOX_FILES and SANDBOX_CALLS; less than both is no error. Negative errno:
 * half-confined, do not go on. */
int sandbox_enter(const struct sandbox *s, unsigned *ret_confined) MUST_USE;
