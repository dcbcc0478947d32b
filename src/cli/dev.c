#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>

#include <curl/curl.h>
#include <jansson.h>

#include "cli/admin_key.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/hardening.h"
#include "cli/hints.h"
#include "cli/housekeeper.h"
#include "cli/listener.h"
#include "cli/receiver.h"
#include "cli/serve.h"

enum {
    CALL_SECONDS = 20,
    ANSWER_BYTES_MAX = 1 << 20,
    FOLDERS_OPEN_MAX = 16, /* while the store is removed */
};

struct dev {
    char folder[256];
    struct config config;
    struct signing_key key;
    struct receiver *receiver;
    char receiver_url[128];
    char base_url[128];
    char admin_key[ADMIN_KEY_SIZE];
    pthread_t demo;
    bool demo_runs;
};

/* ---- the demonstration, on a thread of its own once the server answers ---- */

static size_t keep_answer(char *p, size_t size, size_t n, void *arg) {
    struct buf *answer = arg;
    buf_add(answer, p, size * n);
    return buf_ok(answer) ? size * n : 0;
}

static struct curl_slist *headers_of(const struct dev *d) {
    _cleanup_buf_ struct buf line = {0};
    buf_addf(&line, "Authorization: Bearer %s", d->admin_key);
    struct curl_slist *list = buf_ok(&line) ? curl_slist_append(NULL, line.p) : NULL;
    struct curl_slist *more = list ? curl_slist_append(list, "Content-Type: application/json") : NULL;
    if (!more)
        curl_slist_free_all(list);
    return more;
}

/* Sends body (NULL: a GET) and parses the answer, which the caller owns; NULL and a line on stderr otherwise.
 */
static json_t *call(const struct dev *d, const char *path, const char *body) {
    _cleanup_buf_ struct buf url = {0}, answer = {.limit = ANSWER_BYTES_MAX};
    long status = 0;
    CURLcode code = CURLE_OUT_OF_MEMORY;
    buf_addf(&url, "%s%s", d->base_url, path);
    struct curl_slist *headers = headers_of(d);
    CURL *curl = curl_easy_init();
    if (curl && headers && buf_ok(&url)) {
        curl_easy_setopt(curl, CURLOPT_URL, url.p);
        curl_easy_setopt(curl, CURLOPT_PROXY, "");
        curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
        curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)CALL_SECONDS);
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
        curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, keep_answer);
        curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer);
        if (body)
            curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
        code = curl_easy_perform(curl);
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    }
    curl_easy_cleanup(curl);
    curl_slist_free_all(headers);
    if (code == CURLE_OK && status / 100 == 2 && answer.n)
        return json_loadb(answer.p, answer.n, 0, NULL);
    fprintf(stderr, "posthorn dev: %s answered %ld: %s\n", path, status,
            code == CURLE_OK ? (answer.p ? answer.p : "") : curl_easy_strerror(code));
    return NULL;
}

static int make_tenant(const struct dev *d) {
    json_t *tenant = call(d, "/v1/tenants", "{\"id\":\"demo\",\"name\":\"Demonstration\"}");
    int r = tenant ? 0 : -EIO;
    json_decref(tenant);
    return r;
}

static int subscribe(const struct dev *d) {
    char secret[SECRET_TEXT_SIZE];
    struct buf body = {0};
    signing_key_text(&d->key, secret);
    buf_addf(&body, "{\"url\":\"%s/\",\"event_types\":[],\"secret\":\"%s\"}", d->receiver_url, secret);
    json_t *subscription = buf_ok(&body) ? call(d, "/v1/tenants/demo/subscriptions", body.p) : NULL;
    int r = subscription ? 0 : -EIO;
    json_decref(subscription);
    buf_wipe(&body);
    explicit_bzero(secret, sizeof secret);
    return r;
}

/* Publishes an event; writes the id of its delivery, which is there as soon as the event is. */
static int publish(const struct dev *d, struct buf *delivery_id) {
    json_t *event =
        call(d, "/v1/tenants/demo/events", "{\"type\":\"demo.hello\",\"data\":{\"hello\":\"world\"}}");
    const char *id = json_string_value(json_object_get(event, "id"));
    _cleanup_buf_ struct buf path = {0};
    buf_addf(&path, "/v1/tenants/demo/deliveries?event_id=%s", id ? id : "");
    json_t *list = id && buf_ok(&path) ? call(d, path.p, NULL) : NULL;
    const char *found =
        json_string_value(json_object_get(json_array_get(json_object_get(list, "data"), 0), "id"));
    if (found)
        buf_add_str(delivery_id, found);
    json_decref(event);
    json_decref(list);
    return found && buf_ok(delivery_id) ? 0 : -EIO;
}

static void *demonstrate(void *arg) {
    struct dev *d = arg;
    _cleanup_buf_ struct buf delivery_id = {0}, text = {0};
    if (make_tenant(d) < 0 || subscribe(d) < 0 || publish(d, &delivery_id) < 0) {
        fputs("posthorn dev: the demonstration failed; the server runs on\n", stderr);
        return NULL;
    }
    const char *key = d->config.admin_key ? "$POSTHORN_ADMIN_KEY" : d->admin_key;
    buf_addf(&text, "\ntenant demo sends every event to a receiver on %s/, which prints it here\n\n",
             d->receiver_url);
    hints_dev(&text, d->base_url, key, delivery_id.p);
    if (buf_ok(&text)) {
        fwrite(text.p, 1, text.n, stdout);
        fflush(stdout);
    }
    return NULL;
}

static void when_ready(void *arg, const char *base_url, const char *admin_key) {
    struct dev *d = arg;
    snprintf(d->base_url, sizeof d->base_url, "%s", base_url);
    snprintf(d->admin_key, sizeof d->admin_key, "%s", admin_key);
    d->demo_runs = pthread_create(&d->demo, NULL, demonstrate, d) == 0;
    if (!d->demo_runs)
        fputs("posthorn dev: no thread for the demonstration\n", stderr);
}

/* ---- the throw-away folder ---- */

static int make_folder(struct dev *d) {
    const char *parent = getenv("TMPDIR");
    int n = snprintf(d->folder, sizeof d->folder, "%s/posthorn-dev-XXXXXX",
                     parent && parent[0] ? parent : "/tmp");
    if (n >= (int)sizeof d->folder)
        return -ENAMETOOLONG;
    return mkdtemp(d->folder) ? 0 : -errno;
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *at) {
    (void)status;
    (void)kind;
    (void)at;
    return remove(path);
}

/* ---- the command ---- */

/* What would keep something is refused, as nothing is kept here. */
static void refuse_keeping(int argc, char **argv, struct buf *problems) {
    struct flags flags = {.argc = argc, .argv = argv};
    struct flag flag;
    while (flags_next(&flags, &flag))
        if (slice_eq(flag.name, SLICE_LIT("data")) || slice_eq(flag.name, SLICE_LIT("store")))
            buf_addf(problems, "--%.*s: dev keeps nothing; posthorn serve does\n", SLICE_ARG(flag.name));
}

/* The user's flags, and what dev adds to them; ours come last, so that the store is the throw-away one. */
static int load(struct dev *d, int argc, char **argv, struct buf *problems) {
    _cleanup_buf_ struct buf data = {0}, store = {0};
    buf_addf(&data, "--data=%s", d->folder);
    buf_addf(&store, "--store=sqlite:%s/posthorn.db", d->folder);
    char http[] = "--allow-http", address[] = "--allow-address=127.0.0.0/8", port[] = "--allow-port=1-65535";
    char sandbox[] = "--sandbox=false"; /* the folder above is removed in the end */
    if (!buf_ok(&data) || !buf_ok(&store))
        return -ENOMEM;
    char *const added[] = {data.p, store.p, http, address, port, sandbox};
    enum { ADDED = sizeof added / sizeof added[0] };
    _cleanup_free_ char **all = calloc((size_t)argc + ADDED, sizeof *all);
    if (!all)
        return -ENOMEM;
    memcpy(all, argv, (size_t)argc * sizeof *all);
    memcpy(all + argc, added, sizeof added);
    return config_load(argc + ADDED, all, environ, &d->config, problems);
}

static int start_receiver(struct dev *d) {
    struct listen_address any = {.size = sizeof(struct sockaddr_in)};
    struct sockaddr_in *a = (struct sockaddr_in *)&any.address;
    a->sin_family = AF_INET;
    a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = -1;
    int r = signing_key_generate(SIGNING_HMAC, &d->key);
    if (r == 0)
        r = listener_open(&any, "http", &fd, d->receiver_url, sizeof d->receiver_url);
    return r == 0 ? receiver_start(fd, &d->key, &d->receiver) : r;
}

static int run(struct dev *d) {
    hardening_keep_secrets(&d->config); /* the receiver's key is one */
    housekeeper_block_signals();
    int r = start_receiver(d);
    if (r < 0) {
        fprintf(stderr, "posthorn dev: the receiver cannot start: %s\n", strerror(-r));
        return EXIT_REFUSED;
    }
    /* Counted, so that the server's own end of libcurl leaves the demonstration's standing. */
    curl_global_init(CURL_GLOBAL_DEFAULT);
    struct serve_hooks hooks = {when_ready, d};
    int status = serve_run(&d->config, &hooks);
    if (d->demo_runs)
        pthread_join(d->demo, NULL);
    curl_global_cleanup();
    receiver_stop(d->receiver);
    return status;
}

int command_dev(int argc, char **argv) {
    _cleanup_buf_ struct buf problems = {0};
    struct dev d = {0};
    refuse_keeping(argc, argv, &problems);
    if (problems.n)
        return usage_problems("dev", &problems);
    int r = make_folder(&d);
    if (r < 0) {
        fprintf(stderr, "posthorn dev: no folder for the store (TMPDIR): %s\n", strerror(-r));
        return EXIT_REFUSED;
    }
    int status = load(&d, argc, argv, &problems) < 0 ? usage_problems("dev", &problems) : run(&d);
    if (nftw(d.folder, remove_entry, FOLDERS_OPEN_MAX, FTW_DEPTH | FTW_PHYS) != 0)
        fprintf(stderr, "posthorn dev: %s could not be removed\n", d.folder);
    config_free(&d.config);
    explicit_bzero(&d, sizeof d);
    return status;
}
