#include "cli/client/interrupt.h"

#include <signal.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t caught;

enum { AGAIN_SECONDS = 1 };

static void note(int number) {
    (void)number;
    caught = 1;
    alarm(AGAIN_SECONDS); /* a write that nobody reads may have begun just now: it is not to wait for ever */
}

static void fill_set(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
}

void interrupt_catch(void) {
    struct sigaction action = {.sa_handler = note};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
}

bool interrupted(void) {
    return caught != 0;
}

bool interrupt_sleep(int64_t ms) {
    struct timespec span = {.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000};
    sigset_t set, before;
    fill_set(&set);
    /* Blocked until the wait begins: none can slip in between the look and the wait. */
    sigprocmask(SIG_BLOCK, &set, &before);
    if (!caught && sigtimedwait(&set, NULL, &span) > 0)
        note(0);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return !caught;
}
