#include "cli/egress_check.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <unistd.h>

#include "base/log.h"
#include "core/tls_material.h"

enum { CA_FILE_BYTES_MAX = 4 << 20 };

static int read_file(const char *path, struct buf *ret) {
    char piece[65536];
    size_t n;
    FILE *f = fopen(path, "re");
    if (!f)
        return -errno;
    ret->limit = CA_FILE_BYTES_MAX;
    while (buf_ok(ret) && (n = fread(piece, 1, sizeof piece, f)) > 0)
        buf_add(ret, piece, n);
    int r = ferror(f) ? -EIO : buf_ok(ret) ? 0 : -EFBIG;
    fclose(f);
    return r;
}

static int check_ca_file(const char *path) {
    _cleanup_buf_ struct buf pem = {0};
    int r = read_file(path, &pem);
    if (r < 0) {
        log_error("ca-file cannot be read", log_str("file", path), log_str("error", strerror(-r)));
        return r;
    }
    int n = tls_certificates_count(buf_slice(&pem));
    if (n > 0)
        return 0;
    log_error("ca-file must hold certificates in PEM form", log_str("file", path));
    return -EINVAL;
}

static int check_source(const struct egress *e) {
    struct sockaddr_storage any = {.ss_family = e->source.ss_family};
    int fd = egress_socket_to_proxy(e, (const struct sockaddr *)&any, 0);
    if (fd >= 0) {
        close(fd);
        return 0;
    }
    log_error("source-address is no address of this machine", log_str("error", strerror(-fd)));
    return fd;
}

int egress_check(const struct egress *e) {
    int r = e->ca_file ? check_ca_file(e->ca_file) : 0;
    return r == 0 && e->source.ss_family != AF_UNSPEC ? check_source(e) : r;
}
