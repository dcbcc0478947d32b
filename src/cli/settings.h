/* Every setting of the server, one row each. The fields of struct config, flags, variables, config file
 * lines, help and docs/configuration.md all come from here.
 *   X(KIND, field, "name", "default", least, most, "VALUE", "what it is", "why one would change it")
 * KIND is the suffix of enum setting_kind; a default of NULL stands for none. */
#pragma once

#include "core/address.h"

#define SETTINGS(X)                                                                                          \
    X(TEXT, data, "data", "./posthorn-data", 0, 0, "DIR",                                                    \
      "folder of the store, the admin key and the lock; made when missing",                                  \
      "put it on a disk that survives the machine's restart")                                                \
    X(LISTEN, listen, "listen", "127.0.0.1:8484", 0, 0, "HOST:PORT",                                         \
      "where the API listens; port 0 lets the system choose",                                                \
      "another port; an address beyond loopback needs TLS, or insecure-listen")                              \
    X(LISTEN, admin_listen, "admin-listen", NULL, 0, 0, "HOST:PORT",                                         \
      "where the control plane is served apart: then listen serves publishing, receipts and health alone",   \
      "keep tenants, subscriptions, keys, metrics and the web UI off the network that publishes")            \
    X(TEXT, tls_certificate, "tls-certificate", NULL, 0, 0, "FILE",                                          \
      "PEM file of the API's certificate and its chain, leaf first; read again on SIGHUP",                   \
      "speak https (TLS 1.2 and 1.3) without a proxy in front")                                              \
    X(TEXT, tls_key, "tls-key", NULL, 0, 0, "FILE", "PEM file of the certificate's private key",             \
      "it goes with tls-certificate")                                                                        \
    X(FLAG, insecure_listen, "insecure-listen", "false", 0, 0, NULL,                                         \
      "listen on an address beyond loopback without TLS",                                                    \
      "plain HTTP shows keys and payloads: only where a TLS proxy stands in front or the network is "        \
      "trusted")                                                                                             \
    X(NUMBER, connections_max, "connections-max", "4096", 16, 100000, "N",                                   \
      "connections to the API at one time; more wait until one ends",                                        \
      "more producers that keep connections open; each takes a socket and 16 KiB")                           \
    X(NUMBER, connections_per_client_max, "connections-per-client-max", "1024", 1, 100000, "N",              \
      "connections of one address at one time; more are closed at once",                                     \
      "fewer, so that one client cannot take all; more behind a proxy, which is one client")                 \
    X(NUMBER, head_timeout_ms, "head-timeout-ms", "15000", 100, 600000, "MS",                                \
      "how long the head of a request may take to arrive, TLS handshake included",                           \
      "longer for clients on very slow lines")                                                               \
    X(NUMBER, body_timeout_ms, "body-timeout-ms", "60000", 100, 3600000, "MS",                               \
      "how long the body of a request may take to arrive", "longer for large batches on slow lines")         \
    X(TEXT, store, "store", NULL, 0, 0, "URL",                                                               \
      "where everything is kept: sqlite:FILE, or postgres://… shared by several nodes; by default "        \
      "posthorn.db "                                                                                         \
      "in the data folder",                                                                                  \
      "more than one machine; or a database file on another disk than the data folder")                      \
    X(TEXT, secret_key_file, "secret-key-file", NULL, 0, 0, "FILE",                                          \
      "file of the key that seals signing secrets in the store: 32 bytes as base64 or hex; by default "      \
      "secret.key in the data folder, made when missing",                                                    \
      "keep the key apart from the data folder, so that a copy of that holds no secrets")                    \
    X(TEXT, secret_key_previous_file, "secret-key-previous-file", NULL, 0, 0, "FILE",                        \
      "file of keys, one a line, that sealed secrets before; a start seals those anew",                      \
      "change the secret key; needed for one start")                                                         \
    X(TEXT, config, "config", NULL, 0, 0, "FILE",                                                            \
      "file of settings, one name = value a line; flags and variables win over it",                          \
      "keep the settings of a host in one place")                                                            \
    X(ROLES, roles, "roles", "api,fanout,deliver", 0, 0, "ROLES",                                            \
      "which parts this process runs: api, fanout, deliver",                                                 \
      "nodes of a shared store that publish, expand and send apart; an SQLite store belongs to one process " \
      "with all roles")                                                                                      \
    X(TIERS, tiers, "tiers", "premium,standard,bulk", 0, 0, "TIERS",                                         \
      "of which tiers' tenants this node sends deliveries: premium, standard, bulk",                         \
      "nodes of a shared store for some tiers alone, so that bulk is in nobody's way")                       \
    X(TEXT, node_name, "node-name", NULL, 0, 0, "NAME",                                                      \
      "what this node is called in logs and attempts; by default host:pid", "names that people know")        \
    X(NUMBER, node_lease_ms, "node-lease-ms", "10000", 1000, 600000, "MS",                                   \
      "how long a node of a shared store lives without reaching it: then others take its lanes",             \
      "shorter for quicker takeovers, longer where the database may be away for longer")                     \
    X(FLAG, allow_http, "allow-http", "false", 0, 0, NULL,                                                   \
      "let subscriptions of every tenant use plain http",                                                    \
      "receivers on a trusted network without TLS; one tenant's alone: its allow_http")                      \
    X(CIDRS, addresses, "allow-address", NULL, 0, ADDRESS_CIDRS_MAX, "CIDR",                                 \
      "addresses that may be sent to beyond public ones (repeatable)",                                       \
      "receivers on a private network; everything named here is open to every tenant")                       \
    X(PORTS, addresses, "allow-port", NULL, 0, ADDRESS_PORTS_MAX, "N|N-M",                                   \
      "ports that may be sent to beyond 80 and 443 (repeatable)", "receivers on other ports")                \
    X(SERVERS, name_servers, "name-servers", NULL, 0, 0, "IP[:PORT],…",                                      \
      "name servers that are asked for receivers' names, in place of those of /etc/resolv.conf",             \
      "a resolver of its own for deliveries, such as one that answers no private names")                     \
    X(ADDRESS, source_address, "source-address", NULL, 0, 0, "ADDRESS",                                      \
      "address deliveries are sent from; receivers with addresses of the other family alone are not "        \
      "reached",                                                                                             \
      "receivers that let in one address")                                                                   \
    X(PROXY, proxy, "proxy", NULL, 0, 0, "URL",                                                              \
      "http://[USER:PASSWORD@]HOST:PORT of a proxy that is asked to CONNECT to the judged address of every " \
      "receiver; variables such as https_proxy do not count",                                                \
      "a network from which only a proxy leads out")                                                         \
    X(TEXT, ca_file, "ca-file", NULL, 0, 0, "FILE",                                                          \
      "certificates (PEM) of the authorities that receivers' certificates are judged by, in place of the "   \
      "system's",                                                                                            \
      "receivers whose certificates come from an authority of your own")                                     \
    X(TEXT, operator_url, "operator-url", NULL, 0, 0, "URL",                                                 \
      "a webhook of the operator's own: gets the operational events of all tenants",                         \
      "learn of failing and disabled subscriptions without asking each tenant's")                            \
    X(TEXT, operator_secret, "operator-secret", NULL, 0, 0, "WHSEC",                                         \
      "what signs the requests to operator-url: whsec_ and base64 of 24 to 64 bytes",                        \
      "needed with operator-url; as a variable or in the file, for flags are seen by others of the machine") \
    X(LEVEL, log_level, "log-level", "info", 0, 0, "LEVEL",                                                  \
      "least level that is logged: debug, info, warn, error", "debug while looking for a fault")             \
    X(FORMAT, log_json, "log-format", "text", 0, 0, "FORMAT",                                                \
      "form of the log on stderr: text or json (a JSON object a line)",                                      \
      "json where a program collects the log")                                                               \
    X(TEXT, otlp_url, "otlp-url", NULL, 0, 0, "URL",                                                         \
      "a collector of traces (OTLP over HTTP, JSON), such as http://127.0.0.1:4318: gets spans of "          \
      "publishing, "                                                                                         \
      "fan-out and attempts",                                                                                \
      "see where an event's time goes, together with the producer's and the receiver's spans")               \
    X(TEXT, otlp_header, "otlp-header", NULL, 0, 0, "NAME: VALUE", "a header sent to the collector",         \
      "a collector that asks for a key; as a variable or in the file")                                       \
    X(NUMBER, otlp_sample_percent, "otlp-sample-percent", "100", 0, 100, "PERCENT",                          \
      "how many of the publish requests without a traceparent begin a trace",                                \
      "fewer at thousands of events a second; a traceparent is followed as its sampled flag says")           \
    X(NUMBER, metrics_per_subscription, "metrics-per-subscription", "0", 0, 100000, "N",                     \
      "subscriptions of which /metrics counts attempts apart, the first N that are seen; 0: none",           \
      "error rates by subscription in Prometheus; each makes two series there")                              \
    X(TEXT, user, "user", NULL, 0, 0, "NAME",                                                                \
      "the user to become once the listeners are open, when started as root",                                \
      "listen on a port below 1024 without a server that is root")                                           \
    X(FLAG, sandbox, "sandbox", "true", 0, 0, NULL,                                                          \
      "give up all files but the data folder and what is needed, and running programs (Landlock, seccomp)",  \
      "off while looking for a fault, or where certificates are links that move to other folders")           \
    X(FLAG, permit_core_dumps, "permit-core-dumps", "false", 0, 0, NULL,                                     \
      "let a crash leave a core dump, and debuggers attach",                                                 \
      "while looking for a fault: the memory, and so a dump, holds signing secrets")                         \
    X(NUMBER, loops, "loops", "0", 0, 64, "N", "delivery loops, a thread each; 0: one a core",               \
      "fewer where other programs need the cores")                                                           \
    X(NUMBER, api_threads, "api-threads", "2", 1, 64, "N", "threads that answer the API",                    \
      "more when publishing over TLS proxies with thousands of connections")                                 \
    X(NUMBER, max_in_flight, "max-in-flight", "2000", 1, 20000, "N",                                         \
      "attempts under way at one time, over all tenants",                                                    \
      "more for many slow receivers; each takes a socket")                                                   \
    X(NUMBER, replay_share, "replay-share", "50", 1, 100, "PERCENT",                                         \
      "how much of a subscription's max_in_flight bulk replays may take, at least one",                      \
      "less where live events must not notice a replay at all; more to get a backlog through sooner")        \
    X(NUMBER, lease_margin_ms, "lease-margin-ms", "10000", 2000, 600000, "MS",                               \
      "how much longer than the policy's timeout a task is leased",                                          \
      "a lease must outlast the whole attempt and its settling, or a slow attempt would be sent twice: "     \
      "at least 2,000")                                                                                      \
    X(NUMBER, queue_max, "queue-max", "20000", 100, 1000000, "N",                                            \
      "publish requests that wait for the disk at one time; more are answered 503",                          \
      "a larger burst to absorb, for more memory")                                                           \
    X(BYTES, body_cache_bytes, "body-cache-bytes", "16MiB", 0, INT64_C(1) << 40, "BYTES",                    \
      "memory for the bodies of recent events, so that they are not read back from the store",               \
      "large events and fast receivers")                                                                     \
    X(BYTES, event_bytes_max, "event-bytes-max", "1MiB", 1024, INT64_C(64) << 20, "BYTES",                   \
      "largest publish request; above it is answered 413", "larger payloads, for more memory")               \
    X(BYTES, batch_bytes_max, "batch-bytes-max", "16MiB", 1024, INT64_C(1) << 30, "BYTES",                   \
      "largest batch request; above it is answered 413", "larger batches, for more memory")                  \
    X(NUMBER, audit_retention_days, "audit-retention-days", "400", 0, 36500, "DAYS",                         \
      "how long the audit is kept; 0: for good", "what your auditors ask for")                               \
    X(NUMBER, key_retention_days, "key-retention-days", "90", 0, 36500, "DAYS",                              \
      "how long API keys are listed after they were revoked or have expired; 0: for good",                   \
      "many keys of a short life")                                                                           \
    X(NUMBER, stop_timeout_ms, "stop-timeout-ms", "70000", 1000, 600000, "MS",                               \
      "how long a stop waits for attempts under way; their leases then run out and they are sent again",     \
      "shorter where the service manager kills sooner")

/* The C type of each kind's field. CIDRS and PORTS share config.addresses. */
#define SETTING_FIELD_TEXT(field)    char *field;
#define SETTING_FIELD_FLAG(field)    bool field;
#define SETTING_FIELD_NUMBER(field)  int64_t field;
#define SETTING_FIELD_BYTES(field)   int64_t field;
#define SETTING_FIELD_LISTEN(field)  struct listen_address field;
#define SETTING_FIELD_ROLES(field)   unsigned field; /* set of enum node_role */
#define SETTING_FIELD_TIERS(field)   unsigned field; /* set of 1 << enum tenant_tier */
#define SETTING_FIELD_LEVEL(field)   enum log_level field;
#define SETTING_FIELD_FORMAT(field)  bool field;
#define SETTING_FIELD_SERVERS(field) char *field;
#define SETTING_FIELD_ADDRESS(field) struct sockaddr_storage field; /* AF_UNSPEC: none */
#define SETTING_FIELD_PROXY(field)   char *field;
#define SETTING_FIELD_LINES(field)   char *field;
#define SETTING_FIELD_CIDRS(field)
#define SETTING_FIELD_PORTS(field)

#define SETTING_COUNT(...) +1
enum { SETTINGS_N = 0 SETTINGS(SETTING_COUNT) };

enum setting_kind {
    SETTING_TEXT,
    SETTING_FLAG,
    SETTING_NUMBER,
    SETTING_BYTES, /* a number, or one with KiB, MiB or GiB */
    SETTING_LISTEN,
    SETTING_ROLES,
    SETTING_TIERS,
    SETTING_LEVEL,
    SETTING_FORMAT,
    SETTING_SERVERS, /* a comma-separated list of addresses, kept as text */
    SETTING_ADDRESS, /* IPv4 or IPv6, without a port */
    SETTING_PROXY,   /* the URL of an HTTP proxy, kept as text */
    SETTING_LINES,   /* repeatable; kept as text, a line each */
    SETTING_CIDRS,   /* repeatable */
    SETTING_PORTS,   /* repeatable */
};

struct config;

struct setting {
    enum setting_kind kind;
    size_t offset; /* of the field in struct config */
    const char *name, *preset;
    int64_t least, most;
    const char *placeholder; /* NULL: takes no value */
    const char *what, *why;
};

extern const struct setting settings[SETTINGS_N];

/* Whether its field is a char *, owned by the config. */
static inline bool setting_is_text(const struct setting *s) {
    return s->kind == SETTING_TEXT || s->kind == SETTING_SERVERS || s->kind == SETTING_PROXY ||
           s->kind == SETTING_LINES;
}

static inline bool setting_repeats(const struct setting *s) {
    return s->kind == SETTING_CIDRS || s->kind == SETTING_PORTS || s->kind == SETTING_LINES;
}

/* Parses a value into its field of c; a repeatable one is a comma-separated list and adds to what is there.
 * -EINVAL: complaint says what is allowed ("must be …"); -ENOMEM. */
int setting_set(struct config *c, const struct setting *s, struct slice value,
                struct buf *complaint) MUST_USE;
/* The same into a field of the setting's kind, wherever that is. */
int setting_set_field(void *field, const struct setting *s, struct slice value,
                      struct buf *complaint) MUST_USE;
/* Empties a repeatable setting. */
void setting_clear(struct config *c, const struct setting *s);
/* What a value may be, in a few words, for the help. */
void setting_allowed(const struct setting *s, struct buf *out);
/* POSTHORN_NAME of a setting. */
void setting_variable(const struct setting *s, struct buf *out);
