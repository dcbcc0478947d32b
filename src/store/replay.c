#include "store/replay.h"

const char *replay_state_name(enum replay_state s) {
    static const char *const names[] = {"running", "running", "done", "cancelling", "cancelled"};
    CHECK(s <= REPLAY_CANCELLED);
    return names[s];
}

uint64_t replay_matched(const struct replay_record *r) {
    bool all_found = r->state == REPLAY_SENDING || r->state == REPLAY_DONE;
    return all_found || r->started > r->matched ? r->started : r->matched;
}
