#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "core/webhook.h"

enum { VERIFY_BODY_MAX = 80 << 20 }; /* above the largest event that a server may be set to take */

struct verify_flags {
    const char *secret, *id, *timestamp, *signature, *tolerance, *file;
};

/* "any", or seconds. */
static bool parse_tolerance(const char *text, int64_t *ret) {
    if (!text) {
        *ret = WEBHOOK_TOLERANCE_SECONDS;
        return true;
    }
    if (strcmp(text, "any") == 0) {
        *ret = WEBHOOK_ANY_AGE;
        return true;
    }
    size_t n = strspn(text, "0123456789");
    if (n == 0 || text[n] != '\0' || n > 12)
        return false;
    *ret = strtoll(text, NULL, 10);
    return true;
}

static void need(const char *name, const char *value, struct buf *problems) {
    if (!value)
        buf_addf(problems, "--%s is missing\n", name);
}

static int read_body(const char *path, struct buf *body, struct buf *problems) {
    bool standard_input = !path || strcmp(path, "-") == 0;
    FILE *f = standard_input ? stdin : fopen(path, "re");
    char block[65536];
    size_t n;
    body->limit = VERIFY_BODY_MAX;
    while (f && (n = fread(block, 1, sizeof block, f)) > 0)
        buf_add(body, block, n);
    if (!f || ferror(f))
        buf_addf(problems, "%s: cannot be read: %s\n", path ? path : "-", strerror(errno));
    else if (!buf_ok(body))
        buf_addf(problems, "%s: is longer than %d bytes\n", path ? path : "-", VERIFY_BODY_MAX);
    if (f && !standard_input)
        fclose(f);
    return problems->n ? -EINVAL : 0;
}

static int judge(const struct verify_flags *v, const struct signing_key *key, int64_t tolerance,
                 struct slice body) {
    struct signer *s = signer_new();
    if (!s) {
        fputs("posthorn verify: memory is out\n", stderr);
        return EXIT_REFUSED;
    }
    struct webhook_headers h = {v->id, v->timestamp, v->signature};
    enum webhook_verdict verdict = webhook_judge(s, key, &h, body, clock_now_ms() / 1000, tolerance);
    signer_free(s);
    if (verdict == WEBHOOK_VALID)
        puts("valid");
    else
        printf("not valid: %s\n", webhook_verdict_text(verdict));
    return verdict != WEBHOOK_VALID ? EXIT_REFUSED : EXIT_DONE;
}

int command_verify(int argc, char **argv) {
    struct verify_flags v = {0};
    const struct flag_spec specs[] = {
        {"secret", &v.secret, NULL},       {"id", &v.id, NULL},
        {"timestamp", &v.timestamp, NULL}, {"signature", &v.signature, NULL},
        {"tolerance", &v.tolerance, NULL},
    };
    _cleanup_buf_ struct buf problems = {0}, body = {0};
    struct signing_key key = {0};
    int64_t tolerance = 0;
    int r = flags_parse(argc, argv, specs, sizeof specs / sizeof specs[0], &v.file, &problems);
    if (r == 0) {
        need("secret", v.secret, &problems);
        need("id", v.id, &problems);
        need("timestamp", v.timestamp, &problems);
        need("signature", v.signature, &problems);
    }
    if (v.secret && signing_key_parse(slice_of(v.secret), &key) < 0)
        buf_add_str(&problems, "--secret must be whsec_… or whpk_… as the server gave it\n");
    if (!parse_tolerance(v.tolerance, &tolerance))
        buf_add_str(&problems, "--tolerance must be a number of seconds or any\n");
    if (r < 0 || problems.n || read_body(v.file, &body, &problems) < 0)
        return usage_problems("verify", &problems);
    int status = judge(&v, &key, tolerance, buf_slice(&body));
    explicit_bzero(&key, sizeof key);
    return status;
}
