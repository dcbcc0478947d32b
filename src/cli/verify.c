#include <stdio.h>

#include "base/clock.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/input.h"
#include "core/webhook.h"

enum { VERIFY_BODY_MAX = 80 << 20 }; /* above the largest event that a server may be set to take */

struct verify_flags {
    const char *secret, *id, *timestamp, *signature;
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

static int command_verify(int argc, char **argv) {
    struct args args = {0};
    _cleanup_buf_ struct buf problems = {0}, body = {0};
    struct signing_key key = {0};
    int64_t tolerance = 0;
    args_know(&args, verify_command.options, verify_command.options_n);
    int r = args_parse(&args, argc, argv, verify_command.arguments, &problems);
    struct verify_flags v = {args_value(&args, "secret"), args_value(&args, "id"),
                             args_value(&args, "timestamp"), args_value(&args, "signature")};
    if (r == 0) {
        need("secret", v.secret, &problems);
        need("id", v.id, &problems);
        need("timestamp", v.timestamp, &problems);
        need("signature", v.signature, &problems);
    }
    if (v.secret && signing_key_parse(slice_of(v.secret), &key) < 0)
        buf_add_str(&problems, "--secret must be whsec_… or whpk_… as the server gave it\n");
    if (!parse_tolerance(args_value(&args, "tolerance"), &tolerance))
        buf_add_str(&problems, "--tolerance must be a number of seconds or any\n");
    if (r < 0 || problems.n || input_read(args.plain[0], VERIFY_BODY_MAX, &body, &problems) < 0)
        return usage_problems("verify", &problems);
    int status = judge(&v, &key, tolerance, buf_slice(&body));
    explicit_bzero(&key, sizeof key);
    return status;
}

static const struct option options[] = {
    {"secret", "SECRET", "the subscription's secret (whsec_…) or public key (whpk_…)", OPTION_TEXT,
     IN_COMMAND, NULL, NULL},
    {"id", "ID", "header webhook-id", OPTION_TEXT, IN_COMMAND, NULL, NULL},
    {"timestamp", "T", "header webhook-timestamp: Unix seconds", OPTION_TEXT, IN_COMMAND, NULL, NULL},
    {"signature", "SIG", "header webhook-signature", OPTION_TEXT, IN_COMMAND, NULL, NULL},
    {"tolerance", "S", "how many seconds the timestamp may be off (default 300; \"any\": any age)",
     OPTION_TEXT, IN_COMMAND, NULL, NULL},
};

const struct command verify_command = {
    .name = "verify",
    .run = command_verify,
    .arguments = "[FILE]",
    .summary = "check a webhook's signature",
    .details = "The body is read from FILE, or from standard input. Exit status 0: valid, 1: not valid.\n",
    .examples =
        "posthorn verify --secret whsec_… --id dlv_… --timestamp 1795553340 --signature v1,… body.json\n",
    OPTIONS(options),
};
