#include "cli/admin_key.h"

#include <errno.h>
#include <stdio.h>

#include "api/base64url.h"
#include "base/log.h"
#include "base/random.h"
#include "cli/key_file.h"

enum { KEY_BYTES = 32 };

static int read_key(const char *path, char ret[ADMIN_KEY_SIZE]) {
    _cleanup_(buf_wipe) struct buf text = {0};
    bool open_to_others;
    int r = key_file_read(path, &text, &open_to_others);
    if (r < 0)
        return r;
    struct slice key = buf_slice(&text);
    while (key.n > 0 && (key.p[key.n - 1] == '\n' || key.p[key.n - 1] == '\r' || key.p[key.n - 1] == ' '))
        key.n--;
    bool usable = key.n > 0 && key.n < ADMIN_KEY_SIZE;
    for (size_t i = 0; i < key.n; i++)
        usable = usable && key.p[i] > ' ' && key.p[i] < 0x7f;
    if (open_to_others)
        log_warn("the admin key may be read by others: chmod 600", log_str("key", path));
    if (usable) {
        memcpy(ret, key.p, key.n);
        ret[key.n] = '\0';
    }
    return usable ? 0 : -EINVAL;
}

static void make_key(char ret[ADMIN_KEY_SIZE]) {
    unsigned char bytes[KEY_BYTES];
    random_bytes(bytes, sizeof bytes);
    char text[BASE64URL_SIZE(KEY_BYTES)];
    base64url_encode(bytes, sizeof bytes, text);
    snprintf(ret, ADMIN_KEY_SIZE, "phk_%s", text);
    explicit_bzero(text, sizeof text);
    explicit_bzero(bytes, sizeof bytes);
}

int admin_key_load(const char *data, const char *given, char ret[ADMIN_KEY_SIZE], bool *ret_made) {
    *ret_made = false;
    if (given) {
        size_t n = strlen(given);
        if (n == 0 || n >= ADMIN_KEY_SIZE)
            return -EINVAL;
        memcpy(ret, given, n + 1);
        return 0;
    }
    _cleanup_buf_ struct buf path = {0};
    buf_addf(&path, "%s/admin.key", data);
    if (!buf_ok(&path))
        return -ENOMEM;
    int r = read_key(path.p, ret);
    if (r != -ENOENT)
        return r;
    make_key(ret);
    /* Durable before it is told: a key that is gone after a crash would lock the operator out. */
    r = key_file_make(path.p, ret);
    *ret_made = r == 0;
    return r;
}
