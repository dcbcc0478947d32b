/* The whole server in one process: opens the store, starts the stages from the end of the flow to its
 * beginning, waits for a signal, and stops them in the other order. */
#pragma once

#include "cli/config.h"

struct serve_hooks {
    /* Once the API answers; base_url is "http://HOST:PORT". */
    void (*ready)(void *arg, const char *base_url, const char *admin_key);
    void *arg;
};

/* Returns an exit status after SIGTERM or SIGINT, or when it could not start (logged). hooks may be NULL. */
int serve_run(const struct config *c, const struct serve_hooks *hooks);
