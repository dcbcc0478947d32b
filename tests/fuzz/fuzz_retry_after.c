/* Retry-After: any bytes of a header's value, at a time before and after the dates of the corpus. */
#include <errno.h>

#include "core/retry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const int64_t TEN_YEARS_MS = INT64_C(10) * 366 * 86400 * 1000;

static int64_t parse(struct slice value, int64_t now) {
    int64_t delay = -7;
    int r = retry_after_parse(value, now, &delay);
    CHECK(r == 0 || r == -EINVAL);
    CHECK(r == 0 ? delay >= 0 && delay <= TEN_YEARS_MS : delay == -7);
    return delay;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct slice value = {(const char *)data, size};
    int64_t early = parse(value, 784111777000 - 60000), late = parse(value, 1795553340123);
    CHECK((early < 0) == (late < 0)); /* whether it is a value does not hang on the clock */

    _cleanup_buf_ struct buf padded = {0};
    buf_add_str(&padded, " \t");
    buf_add_slice(&padded, value);
    buf_add_str(&padded, "\t ");
    CHECK(parse(buf_slice(&padded), 1795553340123) == late);
    return 0;
}
