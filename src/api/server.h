/* The HTTP API on libmicrohttpd: a few epoll threads parse requests; reading routes answer at once from a
 * reader of their thread, writing routes suspend their connection, hand a job to the writer, and are resumed
 * after its commit. */
#pragma once

#include "cluster/node.h"
#include "core/address.h"
#include "fanout/apply.h"
#include "fanout/replayer.h"
#include "ingest/ingest.h"
#include "ingest/source.h"
#include "store/directory.h"

struct api;

enum {
    API_ADMIN_CONNECTIONS_MAX = 256,
    API_CONNECTION_BYTES = 16384,     /* for a request's head; cleared at each request */
    API_IDLE_SECONDS = 75,            /* a connection without a byte is closed */
    API_ANSWER_SECONDS = 300,         /* for an answer to be taken */
    API_BODY_BYTES_MAX = 1024 * 1024, /* of control-plane requests */
    API_RECEIPT_BYTES_MAX = 16384,    /* of requests that come without a key */
};

struct api_options {
    /* Bound and listening; the API takes descriptors of its own. With the second one (-1: none) the first
     * serves what producers and subscribers need, and the control plane answers at the second alone. */
    int listen_fd, admin_listen_fd;
    bool tls; /* with the certificate that tls.h has loaded */
    unsigned threads;
    unsigned connections_max, connections_per_client_max;
    int64_t head_timeout_ms, body_timeout_ms; /* for a whole head, and a whole body, to arrive */
    struct store *store;
    struct writer *writer;
    struct ingest *ingest;
    struct sources *sources; /* NULL: none */
    struct fanout *fanout;
    struct replayer *replayer;
    struct dispatch *dispatch;
    struct node *node; /* NULL: the store is this process's alone */
    bool health_only;  /* of a node without the role: health and metrics alone */
    struct id_source *ids;
    struct metrics *metrics;
    const struct address_policy *addresses;
    const char *name_servers; /* "IP:PORT,…"; NULL: resolv.conf's */
    struct directory *directory;
    const struct apply_context *apply;
    bool allow_http;
    const char *admin_key;      /* copied as its hash */
    const uint8_t *receipt_key; /* of RECEIPT_KEY_SIZE; outlives the API */
    size_t event_bytes_max, batch_bytes_max;
};

/* Answers requests from here on. */
int api_start(const struct api_options *o, struct api **ret) MUST_USE;
/* No new connections; requests that come on open ones are answered 503 with Retry-After. Those under way go
 * on. */
void api_stop_accepting(struct api *a);
/* Waits for the requests under way (the writer must still run), then ends the threads and frees. */
void api_stop(struct api *a);
