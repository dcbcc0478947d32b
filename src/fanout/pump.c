#include "fanout/pump.h"

#include <errno.h>

#include "base/clock.h"
#include "base/log.h"

struct pump {
    struct fanout *fanout;
    struct writer *writer;
    struct writer_job job;
    bool running; /* the writer's thread alone */
    bool more;
    atomic_bool stopping;
};

static int expand(struct writer_job *job, struct store *s) {
    struct pump *p = (struct pump *)((char *)job - offsetof(struct pump, job));
    return fanout_expand(p->fanout, s, clock_now_ms(), &p->more);
}

static void expanded(struct writer_job *job, int result) {
    struct pump *p = (struct pump *)((char *)job - offsetof(struct pump, job));
    p->running = false;
    if (result < 0)
        log_error("a fan-out could not go on; it is taken up again with the next event",
                  log_str("error", strerror(-result)));
    else if (p->more)
        pump_kick(p);
}

int pump_new(struct fanout *f, struct writer *w, struct pump **ret) {
    struct pump *p = calloc(1, sizeof *p);
    if (!p)
        return -ENOMEM;
    *p = (struct pump){.fanout = f, .writer = w, .job = {.run = expand, .done = expanded}};
    *ret = p;
    return 0;
}

void pump_kick(struct pump *p) {
    if (p->running || atomic_load(&p->stopping) || !fanout_has_jobs(p->fanout))
        return;
    p->running = true;
    writer_submit_internal(p->writer, &p->job);
}

void pump_stop(struct pump *p) {
    atomic_store(&p->stopping, true);
}

void pump_free(struct pump *p) {
    free(p);
}
