#include "cli/key_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <sys/stat.h>

int key_file_read(const char *path, struct buf *ret, bool *ret_open_to_others) {
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    char bytes[KEY_FILE_BYTES_MAX + 1];
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    ssize_t n = read(fd, bytes, sizeof bytes);
    int r = n < 0 ? -errno : n > KEY_FILE_BYTES_MAX ? -EFBIG : 0;
    if (r == 0)
        buf_add(ret, bytes, (size_t)n);
    explicit_bzero(bytes, sizeof bytes);
    *ret_open_to_others = (st.st_mode & (S_IRWXG | S_IRWXO)) != 0;
    return r == 0 && !buf_ok(ret) ? -ENOMEM : r;
}

static int write_line(const char *path, const char *line) {
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    size_t n = strlen(line);
    if (fd < 0 || fchmod(fd, 0600) < 0)
        return -errno;
    errno = EIO; /* of a short write */
    return write(fd, line, n) == (ssize_t)n && write(fd, "\n", 1) == 1 && fsync(fd) == 0 ? 0 : -errno;
}

static int sync_folder(const char *path) {
    char *copy = slice_dup(slice_of(path));
    if (!copy)
        return -ENOMEM;
    _cleanup_close_ int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(copy);
    return fd >= 0 && fsync(fd) == 0 ? 0 : -errno;
}

int key_file_make(const char *path, const char *line) {
    _cleanup_buf_ struct buf made = {0};
    buf_addf(&made, "%s.new", path);
    if (!buf_ok(&made))
        return -ENOMEM;
    int r = write_line(made.p, line);
    /* A link does not replace what is there. */
    if (r == 0 && link(made.p, path) < 0)
        r = -errno;
    (void)unlink(made.p);
    return r == 0 ? sync_folder(path) : r;
}
