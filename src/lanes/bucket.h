/* A token bucket: `per_second` on average, `burst` at once. Pure; times are Unix milliseconds. A clock that
 * goes back adds nothing and takes nothing. */
#pragma once

#include <stdint.h>

struct bucket {
    double tokens;
    int64_t filled_at;
};

void bucket_init(struct bucket *b, double burst, int64_t now);
/* Whole tokens there are now, at most burst. */
uint32_t bucket_available(struct bucket *b, double per_second, double burst, int64_t now);
/* Takes n, which were available. */
void bucket_take(struct bucket *b, uint32_t n);
/* Gives back what was taken and not used. */
void bucket_return(struct bucket *b, uint32_t n, double burst);
/* When a whole token is there again: now when one is. */
int64_t bucket_ready_at(const struct bucket *b, double per_second, int64_t now);
