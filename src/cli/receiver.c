#include "cli/receiver.h"

#include <errno.h>
#include <stdio.h>

#include <microhttpd.h>

#include "base/clock.h"
#include "base/json.h"

enum {
    BODY_BYTES_MAX = 16 * 1024 * 1024,
    BODY_SHOWN_MAX = 4096, /* of a body, in bytes */
    WORD_SHOWN_MAX = 200,  /* of a header or an event type */
    IDLE_SECONDS = 60,     /* how long a connection may stand still */
    CONNECTIONS_MAX = 256,
};

struct receiver {
    struct MHD_Daemon *daemon;
    struct signer *signer;
    struct signing_key key;
    bool has_key;
};

/* One request: its body as far as it came. */
struct webhook {
    struct buf body;
};

/* ---- printing ---- */

static bool is_c1_control(const char *at, const char *end) {
    return at[0] == '\xc2' && at + 1 < end && (unsigned char)at[1] >= 0x80 && (unsigned char)at[1] < 0xa0;
}

/* What came from outside must not steer the terminal: control characters become dots. */
static void add_visible(struct buf *out, struct slice text, size_t most, bool lines) {
    const char *at = text.p, *end = text.p + (text.n < most ? text.n : most);
    while (at < end) {
        if (is_c1_control(at, end)) {
            buf_add_char(out, '.');
            at += 2;
            continue;
        }
        unsigned char c = (unsigned char)*at++;
        if (lines && c == '\n')
            buf_add_str(out, "\n  ");
        else
            buf_add_char(out, (c < ' ' && c != '\t') || c == 0x7f ? '.' : (char)c);
    }
}

static void add_word(struct buf *out, const char *text) {
    add_visible(out, slice_of(text ? text : "none"), WORD_SHOWN_MAX, false);
}

/* The "type" of an envelope (or of a CloudEvent). */
static void add_event_type(struct buf *out, struct slice body) {
    struct json_cursor c = json_open(body);
    struct json_member m;
    bool first = true;
    if (json_enter_object(&c) == 0) {
        while (json_next_member(&c, &first, &m) == 1) {
            _cleanup_buf_ struct buf type = {0};
            if (!json_key_is(m.key, "type") || m.type != JSON_TYPE_STRING ||
                json_string_decode(m.value, &type) < 0)
                continue;
            add_visible(out, buf_slice(&type), WORD_SHOWN_MAX, false);
            return;
        }
    }
    buf_add_str(out, "(no event type)");
}

static void print_webhook(const struct webhook_headers *h, const char *attempt, struct slice body,
                          const char *refusal) {
    char now[RFC3339_SIZE];
    _cleanup_buf_ struct buf out = {0};
    rfc3339_format(clock_now_ms(), now);
    buf_addf(&out, "%s  ", now);
    add_event_type(&out, body);
    buf_addf(&out, "  %s%s\n  webhook-id ", refusal ? "NOT VERIFIED: " : "verified", refusal ? refusal : "");
    add_word(&out, h->id);
    buf_add_str(&out, "  attempt ");
    add_word(&out, attempt);
    buf_add_str(&out, "\n  ");
    add_visible(&out, body, BODY_SHOWN_MAX, true);
    if (body.n > BODY_SHOWN_MAX)
        buf_addf(&out, "… (%zu bytes in all)", body.n);
    buf_add_str(&out, "\n\n");
    if (buf_ok(&out)) {
        fwrite(out.p, 1, out.n, stdout);
        fflush(stdout);
    }
}

/* ---- HTTP ---- */

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, const char *text) {
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);
    if (!response)
        return MHD_NO;
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "POST");
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static const char *header(struct MHD_Connection *connection, const char *name) {
    return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

static enum MHD_Result take_webhook(struct receiver *r, struct MHD_Connection *connection,
                                    struct slice body) {
    struct webhook_headers h = {header(connection, "webhook-id"), header(connection, "webhook-timestamp"),
                                header(connection, "webhook-signature")};
    const char *refusal = "no secret was given";
    if (r->has_key) {
        enum webhook_verdict verdict =
            webhook_judge(r->signer, &r->key, &h, body, clock_now_ms() / 1000, WEBHOOK_TOLERANCE_SECONDS);
        refusal = verdict == WEBHOOK_VALID ? NULL : webhook_verdict_text(verdict);
    }
    print_webhook(&h, header(connection, "posthorn-attempt"), body, refusal);
    if (r->has_key && refusal)
        return answer(connection, MHD_HTTP_UNAUTHORIZED, "the signature is not valid\n");
    return answer(connection, MHD_HTTP_NO_CONTENT, "");
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data, size_t *size,
                                  void **state) {
    (void)url;
    (void)version;
    struct webhook *w = *state;
    if (!w) {
        if (!(w = calloc(1, sizeof *w)))
            return MHD_NO;
        w->body.limit = BODY_BYTES_MAX;
        *state = w;
        return MHD_YES;
    }
    if (*size) {
        buf_add(&w->body, data, *size);
        *size = 0;
        return MHD_YES;
    }
    if (strcmp(method, "POST") != 0)
        return answer(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "webhooks come by POST\n");
    if (!buf_ok(&w->body))
        return answer(connection, MHD_HTTP_CONTENT_TOO_LARGE, "the body has more than 16 MiB\n");
    return take_webhook(arg, connection, buf_slice(&w->body));
}

static void on_end(void *arg, struct MHD_Connection *connection, void **state,
                   enum MHD_RequestTerminationCode why) {
    (void)arg;
    (void)connection;
    (void)why;
    struct webhook *w = *state;
    if (!w)
        return;
    buf_free(&w->body);
    free(w);
    *state = NULL;
}

int receiver_start(int listen_fd, const struct signing_key *key, struct receiver **ret) {
    struct receiver *r = calloc(1, sizeof *r);
    if (r && key) {
        r->key = *key;
        r->has_key = true;
    }
    if (!r || !(r->signer = signer_new())) {
        close(listen_fd);
        receiver_stop(r);
        return -ENOMEM;
    }
    r->daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, on_request, r,
                                 MHD_OPTION_LISTEN_SOCKET, listen_fd, MHD_OPTION_NOTIFY_COMPLETED, on_end,
                                 NULL, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS,
                                 MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX, MHD_OPTION_END);
    if (!r->daemon) {
        close(listen_fd);
        receiver_stop(r);
        return -EIO;
    }
    *ret = r;
    return 0;
}

void receiver_stop(struct receiver *r) {
    if (!r)
        return;
    if (r->daemon)
        MHD_stop_daemon(r->daemon); /* closes the socket */
    signer_free(r->signer);
    explicit_bzero(&r->key, sizeof r->key);
    free(r);
}
