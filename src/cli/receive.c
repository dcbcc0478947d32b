#include <errno.h>
#include <signal.h>
#include <stdio.h>

#include "cli/args.h"
#include "cli/commands.h"
#include "cli/housekeeper.h"
#include "cli/listener.h"
#include "cli/receiver.h"

static void wait_for_the_end(void) {
    sigset_t set;
    int caught;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigwait(&set, &caught);
}

static int serve(const struct listen_address *listen, const struct signing_key *key) {
    struct receiver *receiver;
    char url[128];
    int fd = -1;
    housekeeper_block_signals();
    int r = listener_open(listen, "http", &fd, url, sizeof url);
    if (r < 0) {
        fprintf(stderr, "posthorn receive: %s: cannot listen there: %s\n", listen->text, strerror(-r));
        return EXIT_REFUSED;
    }
    r = receiver_start(fd, key, &receiver);
    if (r < 0) {
        fprintf(stderr, "posthorn receive: cannot start: %s\n", strerror(-r));
        return EXIT_REFUSED;
    }
    printf("receiving on %s/%s\n\n", url, key ? "" : " (nothing is verified: there is no --secret)");
    fflush(stdout);
    wait_for_the_end();
    receiver_stop(receiver);
    return EXIT_DONE;
}

static int command_receive(int argc, char **argv) {
    struct args args = {0};
    _cleanup_buf_ struct buf problems = {0};
    struct listen_address listen = {0};
    struct signing_key key = {0};
    args_know(&args, receive_command.options, receive_command.options_n);
    int r = args_parse(&args, argc, argv, "", &problems);
    const char *listen_text = args_value(&args, "listen"), *secret = args_value(&args, "secret");
    listen_text = listen_text ? listen_text : "127.0.0.1:0";
    if (r == 0 && listen_address_parse(slice_of(listen_text), &listen) < 0)
        buf_addf(&problems, "--listen %s: must be HOST:PORT\n", listen_text);
    if (r == 0 && secret && signing_key_parse(slice_of(secret), &key) < 0)
        buf_add_str(&problems, "--secret must be whsec_… or whpk_… as the server gave it\n");
    if (r < 0 || problems.n)
        return usage_problems("receive", &problems);
    int status = serve(&listen, secret ? &key : NULL);
    explicit_bzero(&key, sizeof key);
    return status;
}

static const struct option options[] = {
    {"listen", "HOST:PORT", "where it listens (default 127.0.0.1:0: the system chooses the port)",
     OPTION_TEXT, IN_COMMAND, NULL, NULL},
    {"secret", "SECRET",
     "the subscription's secret (whsec_…) or public key (whpk_…); without it nothing is verified",
     OPTION_TEXT, IN_COMMAND, NULL, NULL},
};

const struct command receive_command = {
    .name = "receive",
    .heading = "For receivers",
    .run = command_receive,
    .summary = "run a receiver that verifies and prints webhooks",
    .details = "Answers 204, or 401 to a signature that is not valid.\n",
    .examples = "posthorn receive --listen 127.0.0.1:8485 --secret whsec_…\n",
    OPTIONS(options),
};
