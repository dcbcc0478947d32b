#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>

#include "cli/config.h"

#define OFFSET_OF(field) offsetof(struct config, field)
#define SETTING_ROW(KIND, field, name, preset, least, most, placeholder, what, why)                          \
    {SETTING_##KIND, OFFSET_OF(field), name, preset, least, most, placeholder, what, why},

const struct setting settings[SETTINGS_N] = {SETTINGS(SETTING_ROW)};

/* Words of which a setting lists some. */
struct word {
    const char *name;
    unsigned bit;
};
static const struct word roles[] = {
    {"api", ROLE_API}, {"fanout", ROLE_FANOUT}, {"deliver", ROLE_DELIVER}, {0}};
static const struct word tiers[] = {
    {"premium", 1U << TIER_PREMIUM}, {"standard", 1U << TIER_STANDARD}, {"bulk", 1U << TIER_BULK}, {0}};

static const struct {
    const char *suffix;
    int64_t factor;
} units[] = {{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* Digits alone, at most `most`. */
static bool parse_digits(struct slice s, int64_t most, int64_t *ret) {
    int64_t value = 0;
    if (s.n == 0 || s.n > 18)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        value = value * 10 + (s.p[i] - '0');
    }
    if (value > most)
        return false;
    *ret = value;
    return true;
}

static int set_text(void *field, struct slice value) {
    if (value.n == 0)
        return -EINVAL;
    char *copy = slice_dup(value);
    if (!copy)
        return -ENOMEM;
    char **text = field;
    free(*text);
    *text = copy;
    return 0;
}

static int set_flag(bool *field, struct slice value) {
    if (slice_eq(value, SLICE_LIT("true")) || slice_eq(value, SLICE_LIT("1")))
        *field = true;
    else if (slice_eq(value, SLICE_LIT("false")) || slice_eq(value, SLICE_LIT("0")))
        *field = false;
    else
        return -EINVAL;
    return 0;
}

static int set_number(int64_t *field, const struct setting *s, struct slice value) {
    int64_t factor = 1, number;
    for (size_t i = 0; s->kind == SETTING_BYTES && i < COUNT(units); i++) {
        size_t n = strlen(units[i].suffix);
        if (value.n > n && memcmp(value.p + value.n - n, units[i].suffix, n) == 0) {
            factor = units[i].factor;
            value.n -= n;
            break;
        }
    }
    if (!parse_digits(value, s->most / factor, &number) || number * factor < s->least)
        return -EINVAL;
    *field = number * factor;
    return 0;
}

/* An IPv4 address where a name has both: that is what people type next. */
static int resolve_listener(const char *host, const char *port, struct listen_address *ret) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list, *chosen;
    if (getaddrinfo(host, port, &hints, &list) != 0)
        return -EINVAL;
    for (chosen = list; chosen && chosen->ai_family != AF_INET; chosen = chosen->ai_next)
        ;
    if (!chosen)
        chosen = list;
    memcpy(&ret->address, chosen->ai_addr, chosen->ai_addrlen);
    ret->size = chosen->ai_addrlen;
    freeaddrinfo(list);
    return 0;
}

int listen_address_parse(struct slice value, struct listen_address *field) {
    struct listen_address parsed = {0};
    char host[sizeof parsed.text], port_text[8];
    int64_t port;
    const char *colon = value.p ? memrchr(value.p, ':', value.n) : NULL;
    if (!colon || value.n >= sizeof parsed.text || memchr(value.p, '\0', value.n))
        return -EINVAL;
    struct slice name = {value.p, (size_t)(colon - value.p)};
    struct slice digits = {colon + 1, value.n - name.n - 1};
    if (name.n > 2 && name.p[0] == '[' && name.p[name.n - 1] == ']')
        name = (struct slice){name.p + 1, name.n - 2};
    else if (name.n == 0 || memchr(name.p, ':', name.n))
        return -EINVAL;
    if (!parse_digits(digits, UINT16_MAX, &port))
        return -EINVAL;
    snprintf(host, sizeof host, "%.*s", SLICE_ARG(name));
    snprintf(port_text, sizeof port_text, "%d", (int)port);
    snprintf(parsed.text, sizeof parsed.text, "%.*s", SLICE_ARG(value));
    int r = resolve_listener(host, port_text, &parsed);
    if (r == 0)
        *field = parsed;
    return r;
}

/* Calls add for each part of a comma-separated list, without the space around it. */
static int each_part(struct slice list, int (*add)(void *arg, struct slice part), void *arg) {
    const char *at = list.p, *end = list.p + list.n;
    while (at < end) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        const char *stop = comma ? comma : end;
        struct slice part = {at, (size_t)(stop - at)};
        while (part.n > 0 && part.p[0] == ' ')
            part = (struct slice){part.p + 1, part.n - 1};
        while (part.n > 0 && part.p[part.n - 1] == ' ')
            part.n--;
        int r = add(arg, part);
        if (r < 0)
            return r;
        at = comma ? comma + 1 : end;
    }
    return 0;
}

struct words {
    const struct word *known;
    unsigned set;
};

static int add_word(void *arg, struct slice part) {
    struct words *w = arg;
    for (const struct word *k = w->known; k->name; k++) {
        if (slice_eq(part, slice_of(k->name))) {
            w->set |= k->bit;
            return 0;
        }
    }
    return -EINVAL;
}

static int set_words(unsigned *field, const struct word *known, struct slice value) {
    struct words w = {.known = known};
    int r = each_part(value, add_word, &w);
    if (r < 0 || w.set == 0)
        return -EINVAL;
    *field = w.set;
    return 0;
}

static int add_cidr(void *arg, struct slice part) {
    return address_policy_allow_cidr(arg, part);
}

static int add_port(void *arg, struct slice part) {
    return address_policy_allow_port(arg, part);
}

/* An address, of either family, without brackets. */
static int set_address(struct sockaddr_storage *field, struct slice s) {
    char text[INET6_ADDRSTRLEN];
    struct sockaddr_storage parsed = {.ss_family = AF_INET};
    if (s.n == 0 || s.n >= sizeof text)
        return -EINVAL;
    snprintf(text, sizeof text, "%.*s", SLICE_ARG(s));
    if (inet_pton(AF_INET, text, &((struct sockaddr_in *)&parsed)->sin_addr) != 1) {
        parsed.ss_family = AF_INET6;
        if (inet_pton(AF_INET6, text, &((struct sockaddr_in6 *)&parsed)->sin6_addr) != 1)
            return -EINVAL;
    }
    *field = parsed;
    return 0;
}

static bool is_address(struct slice s) {
    struct sockaddr_storage ignored;
    return set_address(&ignored, s) == 0;
}

/* Whether it has this part, but for a path of "/" that stands for none. */
static bool has_part(CURLU *url, CURLUPart part) {
    char *text = NULL;
    bool has = curl_url_get(url, part, &text, 0) == CURLUE_OK && strcmp(text, "/") != 0;
    curl_free(text);
    return has;
}

static int set_proxy(char **field, struct slice value) {
    static const CURLUPart needed[] = {CURLUPART_HOST, CURLUPART_PORT};
    static const CURLUPart refused[] = {CURLUPART_PATH, CURLUPART_QUERY, CURLUPART_FRAGMENT};
    int r = set_text(field, value);
    if (r < 0)
        return r;
    CURLU *url = curl_url();
    if (!url)
        return -ENOMEM;
    bool good = slice_starts_with(value, SLICE_LIT("http://")) &&
                curl_url_set(url, CURLUPART_URL, *field, 0) == CURLUE_OK;
    for (size_t i = 0; good && i < COUNT(needed); i++)
        good = has_part(url, needed[i]);
    for (size_t i = 0; good && i < COUNT(refused); i++)
        good = !has_part(url, refused[i]);
    curl_url_cleanup(url);
    return good ? 0 : -EINVAL;
}

/* "192.0.2.1", "192.0.2.1:53", "2001:db8::1" or "[2001:db8::1]:53". */
static int check_name_server(void *arg, struct slice part) {
    int64_t port;
    (void)arg;
    if (is_address(part))
        return 0;
    const char *colon = part.n ? memrchr(part.p, ':', part.n) : NULL;
    if (!colon)
        return -EINVAL;
    struct slice host = {part.p, (size_t)(colon - part.p)};
    struct slice digits = {colon + 1, part.n - host.n - 1};
    bool bracketed = host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']';
    if (bracketed)
        host = (struct slice){host.p + 1, host.n - 2};
    if (!is_address(host) || bracketed != (memchr(host.p, ':', host.n) != NULL))
        return -EINVAL;
    return parse_digits(digits, UINT16_MAX, &port) && port > 0 ? 0 : -EINVAL;
}

static int set_servers(char **field, struct slice value) {
    /* c-ares reads the text as it is. */
    if (value.n == 0 || memchr(value.p, ' ', value.n) || each_part(value, check_name_server, NULL) < 0)
        return -EINVAL;
    return set_text(field, value);
}

static int set_format(bool *field, struct slice value) {
    bool json = slice_eq(value, SLICE_LIT("json"));
    if (!json && !slice_eq(value, SLICE_LIT("text")))
        return -EINVAL;
    *field = json;
    return 0;
}

static int add_line(char **field, const struct setting *s, struct slice value) {
    _cleanup_buf_ struct buf lines = {0};
    int64_t n = 1;
    for (const char *c = *field ? *field : ""; *c; c++)
        n += *c == '\n';
    if (value.n == 0)
        return -EINVAL;
    if (*field && n >= s->most)
        return -ENOSPC;
    if (*field)
        buf_addf(&lines, "%s\n", *field);
    buf_add_slice(&lines, value);
    return buf_ok(&lines) ? set_text(field, buf_slice(&lines)) : -ENOMEM;
}

static int set_by_kind(void *field, const struct setting *s, struct slice value) {
    switch (s->kind) {
    case SETTING_TEXT:
        return set_text(field, value);
    case SETTING_FLAG:
        return set_flag(field, value);
    case SETTING_NUMBER:
    case SETTING_BYTES:
        return set_number(field, s, value);
    case SETTING_LISTEN:
        return listen_address_parse(value, field);
    case SETTING_ROLES:
        return set_words(field, roles, value);
    case SETTING_TIERS:
        return set_words(field, tiers, value);
    case SETTING_LEVEL:
        return log_level_parse(value, field);
    case SETTING_FORMAT:
        return set_format(field, value);
    case SETTING_SERVERS:
        return set_servers(field, value);
    case SETTING_ADDRESS:
        return set_address(field, value);
    case SETTING_PROXY:
        return set_proxy(field, value);
    case SETTING_LINES:
        return add_line(field, s, value);
    case SETTING_CIDRS:
        return each_part(value, add_cidr, field);
    case SETTING_PORTS:
        return each_part(value, add_port, field);
    }
    UNREACHABLE();
}

int setting_set(struct config *c, const struct setting *s, struct slice value, struct buf *complaint) {
    return setting_set_field((char *)c + s->offset, s, value, complaint);
}

int setting_set_field(void *field, const struct setting *s, struct slice value, struct buf *complaint) {
    int r = set_by_kind(field, s, value);
    if (r == -ENOSPC) {
        buf_addf(complaint, "has more than %d entries", (int)s->most);
        return -EINVAL;
    }
    if (r == -EINVAL) {
        buf_add_str(complaint, "must be ");
        setting_allowed(s, complaint);
        if (s->kind == SETTING_NUMBER || s->kind == SETTING_BYTES)
            buf_addf(complaint, " (%s)", s->why);
    }
    return r;
}

void setting_clear(struct config *c, const struct setting *s) {
    CHECK(setting_repeats(s) && s->kind != SETTING_LINES); /* those are of sections, which one file holds */
    struct address_policy *p = (void *)((char *)c + s->offset);
    if (s->kind == SETTING_CIDRS)
        p->cidr_count = 0;
    else
        p->port_count = 0;
}

static void add_bytes(int64_t n, struct buf *out) {
    for (size_t i = COUNT(units); i-- > 0;) {
        if (n >= units[i].factor && n % units[i].factor == 0) {
            buf_addf(out, "%lld%s", (long long)(n / units[i].factor), units[i].suffix);
            return;
        }
    }
    buf_addf(out, "%lld", (long long)n);
}

void setting_allowed(const struct setting *s, struct buf *out) {
    switch (s->kind) {
    case SETTING_TEXT:
    case SETTING_LINES:
        buf_add_str(out, "a text that is not empty");
        return;
    case SETTING_FLAG:
        buf_add_str(out, "true or false");
        return;
    case SETTING_NUMBER:
        buf_addf(out, "a number from %lld to %lld", (long long)s->least, (long long)s->most);
        return;
    case SETTING_BYTES:
        buf_add_str(out, "bytes (KiB, MiB and GiB may follow the number) from ");
        add_bytes(s->least, out);
        buf_add_str(out, " to ");
        add_bytes(s->most, out);
        return;
    case SETTING_LISTEN:
        buf_add_str(out, "HOST:PORT, such as 127.0.0.1:8484 or [::1]:8484, the port from 0 to 65535");
        return;
    case SETTING_ROLES:
        buf_add_str(out, "a list of api, fanout, deliver");
        return;
    case SETTING_TIERS:
        buf_add_str(out, "a list of premium, standard, bulk");
        return;
    case SETTING_LEVEL:
        buf_add_str(out, "debug, info, warn or error");
        return;
    case SETTING_FORMAT:
        buf_add_str(out, "text or json");
        return;
    case SETTING_SERVERS:
        buf_add_str(out, "a list of addresses such as 192.0.2.1, 192.0.2.1:5353 or [2001:db8::1]:53");
        return;
    case SETTING_ADDRESS:
        buf_add_str(out, "an address such as 192.0.2.1 or 2001:db8::1");
        return;
    case SETTING_PROXY:
        buf_add_str(out, "the URL of a proxy such as http://proxy.example.com:3128");
        return;
    case SETTING_CIDRS:
        buf_add_str(out, "addresses or ranges such as 10.0.0.0/8 or fd00::/8");
        return;
    case SETTING_PORTS:
        buf_add_str(out, "ports N or ranges N-M from 1 to 65535");
        return;
    }
    UNREACHABLE();
}

void setting_variable(const struct setting *s, struct buf *out) {
    buf_add_str(out, "POSTHORN_");
    for (const char *c = s->name; *c; c++)
        buf_add_char(out, *c == '-' ? '_' : (char)(*c - 'a' + 'A'));
}
