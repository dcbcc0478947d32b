#include "cli/hardening.h"

#include <errno.h>
#include <jansson.h>
#include <sys/prctl.h>
#include <sys/resource.h>

static void forbid_core_dumps(void) {
    /* The limit alone does not hold where cores are piped to a program. */
    struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_CORE, &none) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        log_warn("core dumps cannot be forbidden: one would hold signing secrets",
                 log_str("error", strerror(errno)));
}

void hardening_keep_secrets(const struct config *c) {
    json_set_alloc_funcs(malloc, wipe_free);
    if (!c->permit_core_dumps)
        forbid_core_dumps();
}
