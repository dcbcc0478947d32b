#include "lanes/bucket.h"

#include "base/check.h"

void bucket_init(struct bucket *b, double burst, int64_t now) {
    *b = (struct bucket){.tokens = burst, .filled_at = now};
}

uint32_t bucket_available(struct bucket *b, double per_second, double burst, int64_t now) {
    CHECK(per_second > 0 && burst >= 1);
    if (now > b->filled_at)
        b->tokens += (double)(now - b->filled_at) / 1000.0 * per_second;
    b->filled_at = now;
    if (b->tokens > burst)
        b->tokens = burst;
    return b->tokens >= 1 ? (uint32_t)b->tokens : 0;
}

void bucket_take(struct bucket *b, uint32_t n) {
    CHECK(b->tokens >= n);
    b->tokens -= n;
}

void bucket_return(struct bucket *b, uint32_t n, double burst) {
    b->tokens = b->tokens + n > burst ? burst : b->tokens + n;
}

int64_t bucket_ready_at(const struct bucket *b, double per_second, int64_t now) {
    CHECK(per_second > 0);
    double missing = 1 - b->tokens;
    return missing <= 0 ? now : now + (int64_t)(missing / per_second * 1000) + 1;
}
