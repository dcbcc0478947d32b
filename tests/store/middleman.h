/* Stands between the store and its PostgreSQL, on a Unix socket of its own, and can make the network fail at
 * a chosen moment. What is connected when a failure is chosen suffers it; what comes later passes. */
#pragma once

#include "store/postgres/source.h"

struct middleman;

enum mischief {
    PASS,
    SWALLOW_ANSWERS, /* the server's answers do not come; when it is idle again the connection breaks */
    SWALLOW_REQUEST, /* the next request does not arrive: the connection breaks instead */
    HOLD_REQUEST,    /* likewise, but it arrives later: see middleman_release */
};

/* `url` is that of the server. */
struct middleman *middleman_start(const char *url);
/* The URL that leads to the server through it. */
const char *middleman_url(const struct middleman *m);
void middleman_set(struct middleman *m, enum mischief mischief);
/* Requests that were held go to the server now, on connections whose client is long gone; returns when the
 * server has closed those. */
void middleman_release(struct middleman *m);
void middleman_stop(struct middleman *m);
