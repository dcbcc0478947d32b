#include "cli/certificate.h"

#include "base/clock.h"

static void say(const char *what, const struct tls *t) {
    char end[RFC3339_SIZE];
    rfc3339_format(tls_expires_at(t), end);
    log_info(what, log_str("expires_at", end));
}

int certificate_load(const struct config *c, struct tls **ret) {
    _cleanup_buf_ struct buf complaint = {0};
    if (!c->tls_certificate) {
        *ret = NULL;
        return 0;
    }
    int r = tls_load(c->tls_certificate, c->tls_key, clock_now_ms(), ret, &complaint);
    if (r < 0)
        log_error("the TLS certificate cannot be used", log_slice("reason", buf_slice(&complaint)));
    else
        say("TLS certificate in force", *ret);
    return r;
}

void certificate_reload(struct tls *t) {
    _cleanup_buf_ struct buf complaint = {0};
    if (tls_reload(t, clock_now_ms(), &complaint) < 0)
        log_error("the new TLS certificate is refused, the old one stays in force",
                  log_slice("reason", buf_slice(&complaint)));
    else
        say("new TLS certificate in force", t);
}
