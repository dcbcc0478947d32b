#include "cli/hints.h"

#include <stdio.h>

#define JSON_HEADER "-H 'Content-Type: application/json'"

/* One word of a shell, bare where it may be. */
static void add_word(struct buf *out, const char *text) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-";
    if (text[0] && text[strspn(text, plain)] == '\0') {
        buf_add_str(out, text);
        return;
    }
    buf_add_char(out, '\'');
    for (const char *c = text; *c; c++) {
        if (*c == '\'')
            buf_add_str(out, "'\\''");
        else
            buf_add_char(out, *c);
    }
    buf_add_char(out, '\'');
}

void hints_key(struct buf *out, const char *data, bool from_environment) {
    if (from_environment) {
        buf_add_str(out, "$POSTHORN_ADMIN_KEY");
        return;
    }
    _cleanup_free_ char *folder = realpath(data, NULL);
    _cleanup_buf_ struct buf path = {0};
    buf_addf(&path, "%s/admin.key", folder ? folder : data);
    buf_add_str(out, "$(cat ");
    add_word(out, buf_ok(&path) ? path.p : "admin.key");
    buf_add_char(out, ')');
}

/* The program as it was started, which need not be in PATH. */
static void add_program(struct buf *out) {
    _cleanup_free_ char *program = realpath("/proc/self/exe", NULL);
    add_word(out, program ? program : "posthorn");
}

static void add_receiver(struct buf *out, uint16_t port) {
    if (port == 0) {
        buf_add_str(out, "# This server may not send to this machine over http: put your receiver's URL for "
                         "https://example.com/.\n# For one on this machine start it with --allow-http "
                         "--allow-address 127.0.0.0/8 --allow-port 1-65535.\n\n");
        return;
    }
    buf_add_str(out,
                "# a receiver, in a terminal of its own; with --secret and the secret that 1. answers it "
                "verifies\n");
    add_program(out);
    buf_addf(out, " receive --listen 127.0.0.1:%u\n\n", port);
}

void hints_first_steps(struct buf *out, const char *base_url, const char *key, uint16_t receiver_port) {
    char receiver[48] = "https://example.com/";
    if (receiver_port)
        snprintf(receiver, sizeof receiver, "http://127.0.0.1:%u/", receiver_port);
    buf_add_str(out, "Paste these into another terminal:\n\n");
    add_receiver(out, receiver_port);
    buf_addf(out,
             "# 1. a tenant, and its subscription\n"
             "curl -sS -H \"Authorization: Bearer %s\" " JSON_HEADER
             " -d '{\"id\":\"demo\"}' %s/v1/tenants && "
             "curl -sS -H \"Authorization: Bearer %s\" " JSON_HEADER
             " -d '{\"url\":\"%s\"}' %s/v1/tenants/demo/subscriptions\n\n",
             key, base_url, key, receiver, base_url);
    buf_addf(out,
             "# 2. an event\n"
             "curl -sS -H \"Authorization: Bearer %s\" " JSON_HEADER
             " -d '{\"type\":\"invoice.paid\",\"data\":{\"amount\":4200}}' %s/v1/tenants/demo/events\n\n"
             "# 3. its delivery, with the newest first\n"
             "curl -sS -H \"Authorization: Bearer %s\" '%s/v1/tenants/demo/deliveries?limit=1'\n\n",
             key, base_url, key, base_url);
}

void hints_dev(struct buf *out, const char *base_url, const char *key, const char *delivery_id) {
    buf_addf(out,
             "Paste these into another terminal:\n\n"
             "# another event\n"
             "curl -sS -H \"Authorization: Bearer %s\" " JSON_HEADER
             " -d '{\"type\":\"invoice.paid\",\"data\":{\"amount\":4200}}' %s/v1/tenants/demo/events\n\n"
             "# the deliveries, newest first\n"
             "curl -sS -H \"Authorization: Bearer %s\" '%s/v1/tenants/demo/deliveries?limit=5'\n\n"
             "# the first of them with its attempts\n"
             "curl -sS -H \"Authorization: Bearer %s\" %s/v1/tenants/demo/deliveries/%s\n\n",
             key, base_url, key, base_url, key, base_url, delivery_id);
}
