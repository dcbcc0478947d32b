#include "store/postgres/source.h"

#include <errno.h>
#include <stdio.h>

#include "store/backend.h"

static const char *const host_keywords[] = {"host", "hostaddr", "port"};

/* A dead server is noticed within seconds, whatever the network does with the packets. Sessions that may not
 * write are no place for leases and claims. */
static const char *const defaults[][2] = {{"application_name", "posthorn"},
                                          {"keepalives_idle", "10"},
                                          {"keepalives_interval", "3"},
                                          {"keepalives_count", "3"},
                                          {"tcp_user_timeout", "10000"}};
static const char *const always[][2] = {{"client_encoding", "UTF8"}, {"target_session_attrs", "read-write"}};

static const char *option(const struct pg_source *s, const char *keyword) {
    for (const PQconninfoOption *o = s->options; o->keyword; o++)
        if (strcmp(o->keyword, keyword) == 0)
            return o->val;
    return NULL;
}

static int split_hosts(struct pg_source *s, const char *list, char *ret[PG_HOSTS_MAX]) {
    size_t n = 0;
    for (const char *at = list; at && n < PG_HOSTS_MAX; n++) {
        const char *end = strchrnul(at, ',');
        ret[n] = strndup(at, (size_t)(end - at));
        if (!ret[n])
            return -ENOMEM;
        at = *end ? end + 1 : NULL;
    }
    if (n > s->hosts_n)
        s->hosts_n = n;
    return 0;
}

static void add(struct pg_source *s, const char *keyword, const char *value) {
    CHECK(s->n + 1 < PG_KEYWORDS_MAX);
    s->keywords[s->n] = keyword;
    s->values[s->n++] = value;
}

static bool is_in(const char *keyword, const char *const list[][2], size_t n) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(keyword, list[i][0]) == 0)
            return true;
    return false;
}

static int fill(struct pg_source *s) {
    for (size_t i = 0; i < 3; i++) {
        add(s, host_keywords[i], NULL);
        int r = split_hosts(s, option(s, host_keywords[i]), s->hosts[i]);
        if (r < 0)
            return r;
    }
    s->hosts_n = s->hosts_n ? s->hosts_n : 1;
    for (const PQconninfoOption *o = s->options; o->keyword; o++) {
        bool is_host = strcmp(o->keyword, "host") == 0 || strcmp(o->keyword, "hostaddr") == 0 ||
                       strcmp(o->keyword, "port") == 0;
        if (o->val && !is_host && !is_in(o->keyword, always, sizeof always / sizeof always[0]))
            add(s, o->keyword, o->val);
    }
    for (size_t i = 0; i < sizeof defaults / sizeof defaults[0]; i++)
        if (!option(s, defaults[i][0]))
            add(s, defaults[i][0], defaults[i][1]);
    for (size_t i = 0; i < sizeof always / sizeof always[0]; i++)
        add(s, always[i][0], always[i][1]);
    const char *timeout = option(s, "connect_timeout");
    s->connect_ms = timeout ? atoi(timeout) * 1000 : 0;
    const char *host = option(s, "host") ? option(s, "host") : option(s, "hostaddr");
    const char *port = option(s, "port"), *database = option(s, "dbname");
    snprintf(s->name, sizeof s->name, "%s%s%s/%s", host ? host : "the local host", port ? ":" : "",
             port ? port : "", database ? database : "");
    return 0;
}

int pg_source_parse(const char *url, struct pg_source **ret, const char **ret_message) {
    _cleanup_pg_source_ struct pg_source *s = calloc(1, sizeof *s);
    if (s)
        s->outage = calloc(1, sizeof *s->outage);
    if (!s || !s->outage)
        return store_explain(-ENOMEM, ret_message, "memory is out");
    /* What libpq says of a URI that it cannot read quotes from it, maybe of the password. */
    char *quoted = NULL;
    s->options = PQconninfoParse(url, &quoted);
    PQfreemem(quoted);
    if (!s->options)
        return store_explain(-EINVAL, ret_message,
                             "the store's URL cannot be read: postgres://USER:PASSWORD@HOST:PORT/DATABASE was"
                             " expected, other characters than letters and digits as %%XX in each part");
    if (fill(s) < 0)
        return store_explain(-ENOMEM, ret_message, "memory is out");
    *ret = TAKE_PTR(s);
    return 0;
}

void pg_source_free(struct pg_source *s) {
    if (!s)
        return;
    free(s->outage);
    wipe_free(s->password);
    for (const PQconninfoOption *o = s->options; o && o->keyword; o++)
        if (o->val)
            explicit_bzero(o->val, strlen(o->val));
    PQconninfoFree(s->options);
    for (size_t i = 0; i < 3; i++)
        for (size_t n = 0; n < PG_HOSTS_MAX; n++)
            free(s->hosts[i][n]);
    free(s);
}

int pg_source_keep_password(struct pg_source *s, const char *password) {
    if (!password || !*password || option(s, "password") || s->password)
        return 0;
    s->password = strdup(password);
    if (!s->password)
        return -ENOMEM;
    add(s, "password", s->password);
    return 0;
}

void pg_source_host(const struct pg_source *s, size_t n, const char *values[PG_KEYWORDS_MAX]) {
    memcpy(values, s->values, sizeof s->values);
    for (size_t i = 0; i < 3; i++) /* one port may stand for all hosts */
        values[i] = s->hosts[i][n] ? s->hosts[i][n] : i == 2 ? s->hosts[i][0] : NULL;
}
