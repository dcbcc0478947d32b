/* URLs of MariaDB and MySQL: mysql://USER[:PASSWORD]@HOST[:PORT]/DATABASE[?socket=…&ssl-mode=…&ssl-ca=…]. */
#pragma once

#include "base/bytes.h"

enum mysql_ssl {
    MYSQL_SSL_PREFERRED, /* when the server offers it */
    MYSQL_SSL_DISABLED,
    MYSQL_SSL_REQUIRED, /* whoever the server is */
    MYSQL_SSL_VERIFY,   /* the certificate's authority and name are judged */
};

/* Owned texts; NULL: not given. */
struct mysql_url {
    char *user, *password, *host, *database, *socket, *ssl_ca;
    unsigned port; /* 0: the usual one */
    enum mysql_ssl ssl;
};

/* -EINVAL: *ret_complaint says what is wrong, without quoting the URL; -ENOMEM. */
int mysql_url_parse(const char *url, struct mysql_url *ret, const char **ret_complaint) MUST_USE;
void mysql_url_free(struct mysql_url *u);
