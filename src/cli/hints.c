#include "cli/hints.h"

#define JSON_HEADER "-H 'Content-Type: application/json'"

void hints_first_steps(struct buf *out, const char *base_url, const char *key, const char *receiver) {
    buf_addf(out,
             "Paste these into another terminal:\n\n"
             "# 1. a tenant, and its subscription to %s (for a receiver: build/posthorn receive --listen "
             "127.0.0.1:8485)\n"
             "curl -sS -H \"Authorization: Bearer %s\" " JSON_HEADER
             " -d '{\"id\":\"demo\"}' %s/v1/tenants && "
             "curl -sS -H \"Authorization: Bearer %s\" " JSON_HEADER
             " -d '{\"url\":\"%s\"}' %s/v1/tenants/demo/subscriptions\n\n",
             receiver, key, base_url, key, receiver, base_url);
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
