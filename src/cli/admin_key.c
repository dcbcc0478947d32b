#include "cli/admin_key.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "api/base64url.h"
#include "base/random.h"

enum { KEY_BYTES = 32 };

static int read_key(int fd, char ret[ADMIN_KEY_SIZE]) {
    ssize_t n = read(fd, ret, ADMIN_KEY_SIZE);
    if (n < 0)
        return -errno;
    while (n > 0 && (ret[n - 1] == '\n' || ret[n - 1] == '\r' || ret[n - 1] == ' '))
        n--;
    if (n == 0 || n >= ADMIN_KEY_SIZE)
        return -EINVAL;
    ret[n] = '\0';
    return 0;
}

/* Durable before it is told: a key that is gone after a crash would lock the operator out. */
static int write_key(int fd, const char *key) {
    _cleanup_buf_ struct buf line = {0};
    buf_addf(&line, "%s\n", key);
    if (!buf_ok(&line))
        return -ENOMEM;
    if (write(fd, line.p, line.n) != (ssize_t)line.n || fsync(fd) < 0)
        return errno ? -errno : -EIO;
    return 0;
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
    _cleanup_close_ int fd = open(path.p, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        return read_key(fd, ret);
    if (errno != ENOENT)
        return -errno;
    _cleanup_close_ int made = open(path.p, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (made < 0)
        return -errno;
    make_key(ret);
    int r = write_key(made, ret);
    if (r < 0)
        unlink(path.p);
    else
        *ret_made = true;
    return r;
}
