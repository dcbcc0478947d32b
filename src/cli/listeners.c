#include "cli/listeners.h"

#include <errno.h>
#include <stdio.h>

#include "cli/listener.h"

static const char *advice(int error) {
    if (error == -EADDRINUSE)
        return "another program is on this port: stop it, or name another port";
    if (error == -EACCES)
        return "a port below 1024 is for root, who can give up its rights afterwards: see the setting user";
    return "name an address of this machine";
}

static int open_one(struct listeners *l, const struct listen_address *a, struct address_policy *addresses,
                    int *ret_fd, char *ret_url, size_t url_size) {
    int r = listener_open(a, l->tls ? "https" : "http", ret_fd, ret_url, url_size);
    if (r < 0) {
        log_error("the API cannot listen there", log_str("listen", a->text), log_str("error", strerror(-r)),
                  log_str("advice", advice(r)));
        return r;
    }
    listener_refuse_own(*ret_fd, addresses);
    return 0;
}

int listeners_open(const struct config *c, struct address_policy *addresses, struct listeners *ret) {
    *ret = (struct listeners){.fd = -1, .admin_fd = -1};
    int r = certificate_load(c, &ret->tls);
    if (r == 0)
        r = open_one(ret, &c->listen, addresses, &ret->fd, ret->url, sizeof ret->url);
    memcpy(ret->admin_url, ret->url, sizeof ret->admin_url);
    if (r == 0 && c->admin_listen.size)
        r = open_one(ret, &c->admin_listen, addresses, &ret->admin_fd, ret->admin_url, sizeof ret->admin_url);
    return r;
}

void listeners_close(struct listeners *l) {
    int *const fds[] = {&l->fd, &l->admin_fd};
    for (size_t i = 0; i < 2; i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
}

void listeners_free(struct listeners *l) {
    listeners_close(l);
    tls_free(l->tls);
    l->tls = NULL;
}
