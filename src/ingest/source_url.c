#include "ingest/source_url.h"

#include <curl/curl.h>
#include <errno.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct {
    const char *name;
    enum mysql_ssl mode;
} modes[] = {
    {"preferred", MYSQL_SSL_PREFERRED},
    {"disabled", MYSQL_SSL_DISABLED},
    {"required", MYSQL_SSL_REQUIRED},
    {"verify", MYSQL_SSL_VERIFY},
};

void mysql_url_free(struct mysql_url *u) {
    char *const texts[] = {u->user, u->password, u->host, u->database, u->socket, u->ssl_ca};
    for (size_t i = 0; i < COUNT(texts); i++)
        wipe_free(texts[i]);
    *u = (struct mysql_url){0};
}

static int refuse(const char **ret_complaint, const char *why) {
    *ret_complaint = why;
    return -EINVAL;
}

static int copy(char **field, struct slice text) {
    wipe_free(*field);
    *field = slice_dup(text);
    return *field ? 0 : -ENOMEM;
}

/* A decoded part; absent parts stay NULL. */
static int take_part(CURLU *url, CURLUPart part, char **field) {
    char *text = NULL;
    CURLUcode code = curl_url_get(url, part, &text, CURLU_URLDECODE);
    int r = code == CURLUE_OUT_OF_MEMORY ? -ENOMEM : 0;
    if (code == CURLUE_OK && text[0])
        r = copy(field, slice_of(text));
    else if (code == CURLUE_BAD_PARTPOINTER || code == CURLUE_URLDECODE)
        r = -EINVAL;
    curl_free(text);
    return r;
}

static int take_option(struct mysql_url *u, const char *name, const char *value, const char **ret_complaint) {
    if (strcmp(name, "socket") == 0)
        return copy(&u->socket, slice_of(value));
    if (strcmp(name, "ssl-ca") == 0)
        return copy(&u->ssl_ca, slice_of(value));
    if (strcmp(name, "ssl-mode") != 0)
        return refuse(ret_complaint, "url has a parameter other than socket, ssl-mode and ssl-ca");
    for (size_t i = 0; i < COUNT(modes); i++) {
        if (strcmp(value, modes[i].name) == 0) {
            u->ssl = modes[i].mode;
            return 0;
        }
    }
    return refuse(ret_complaint, "ssl-mode of the url must be preferred, disabled, required or verify");
}

/* NAME=VALUE, both still encoded. */
static int take_encoded(struct mysql_url *u, struct slice pair, const char **ret_complaint) {
    const char *equals = memchr(pair.p, '=', pair.n);
    if (!equals)
        return refuse(ret_complaint, "a parameter of the url must be NAME=VALUE");
    int name_n = (int)(equals - pair.p), value_n = (int)pair.n - name_n - 1, n;
    char *name = curl_easy_unescape(NULL, pair.p, name_n, &n);
    char *value = curl_easy_unescape(NULL, equals + 1, value_n, &n);
    int r = name && value ? take_option(u, name, value, ret_complaint) : -ENOMEM;
    curl_free(name);
    curl_free(value);
    return r;
}

static int take_query(CURLU *url, struct mysql_url *u, const char **ret_complaint) {
    char *query = NULL;
    int r = 0;
    if (curl_url_get(url, CURLUPART_QUERY, &query, 0) != CURLUE_OK)
        return 0;
    for (const char *at = query; r == 0 && *at;) {
        size_t n = strcspn(at, "&");
        if (n > 0)
            r = take_encoded(u, (struct slice){at, n}, ret_complaint);
        at += n + (at[n] == '&');
    }
    curl_free(query);
    return r;
}

static int take_port(CURLU *url, struct mysql_url *u) {
    char *text = NULL;
    if (curl_url_get(url, CURLUPART_PORT, &text, 0) == CURLUE_OK)
        u->port = (unsigned)strtoul(text, NULL, 10);
    curl_free(text);
    return 0;
}

static int take_all(CURLU *url, struct mysql_url *u, const char **ret_complaint) {
    static const CURLUPart parts[] = {CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_HOST, CURLUPART_PATH};
    char *path = NULL;
    char **const fields[] = {&u->user, &u->password, &u->host, &path};
    int r = take_port(url, u);
    for (size_t i = 0; r == 0 && i < COUNT(parts); i++)
        r = take_part(url, parts[i], fields[i]);
    if (r == 0 && path && path[1])
        r = copy(&u->database, slice_of(path + 1));
    free(path);
    if (r == -EINVAL)
        return refuse(ret_complaint, "url cannot be read: percent-encode what is special in its parts");
    if (r == 0)
        r = take_query(url, u, ret_complaint);
    if (r == 0 && !u->database)
        return refuse(ret_complaint, "url names no database: mysql://USER@HOST/DATABASE");
    if (r == 0 && !u->host && !u->socket)
        return refuse(ret_complaint, "url names neither a host nor a socket");
    if (r == 0 && u->ssl == MYSQL_SSL_DISABLED && u->ssl_ca)
        return refuse(ret_complaint, "ssl-ca of the url is of no use with ssl-mode=disabled");
    return r;
}

int mysql_url_parse(const char *url, struct mysql_url *ret, const char **ret_complaint) {
    struct mysql_url u = {0};
    CURLU *parsed = curl_url();
    if (!parsed)
        return -ENOMEM;
    CURLUcode code = curl_url_set(parsed, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME | CURLU_NO_AUTHORITY);
    int r = code == CURLUE_OUT_OF_MEMORY ? -ENOMEM
            : code != CURLUE_OK
                ? refuse(ret_complaint, "url cannot be read: percent-encode what is special in its parts")
                : take_all(parsed, &u, ret_complaint);
    curl_url_cleanup(parsed);
    if (r < 0)
        mysql_url_free(&u);
    else
        *ret = u;
    return r;
}
