/* posthorn dev: the server, a tenant, a subscription and its receiver in one terminal, on a throw-away store.
 */
#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>

#include <curl/curl.h>

#include "cli/commands.h"
#include "cli/config.h"
#include "cli/housekeeper.h"
#include "cli/listener.h"
#include "cli/receiver.h"
#include "cli/serve.h"

enum { REMOVE_DESCRIPTORS = 16, FLAGS_MAX = 256, ANSWER_BYTES_MAX = 1 << 20, HTTP_SECONDS = 10 };

struct dev {
    struct receiver *receiver;
    char receiver_url[128];
    char secret[SECRET_TEXT_SIZE];
    char base_url[128], key[512];
    pthread_t thread;
    bool has_thread, scene_failed;
};

/* ---- the client that sets the scene ---- */

static size_t collect(char *data, size_t size, size_t n, void *arg) {
    buf_add(arg, data, size * n);
    return size * n;
}

static CURLcode perform(CURL *e, const char *url, const char *authorization, const char *body,
                        struct buf *answer) {
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    struct curl_slist *all = headers ? curl_slist_append(headers, authorization) : NULL;
    curl_easy_setopt(e, CURLOPT_URL, url);
    curl_easy_setopt(e, CURLOPT_PROXY, ""); /* a proxy of the environment does not know this host */
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, all);
    curl_easy_setopt(e, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(e, CURLOPT_TIMEOUT, (long)HTTP_SECONDS);
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, collect);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, answer);
    CURLcode code = all ? curl_easy_perform(e) : CURLE_OUT_OF_MEMORY;
    curl_slist_free_all(headers);
    return code;
}

/* POSTs JSON to the server; false when the answer was no 2xx (said on stderr). */
static bool post(struct dev *d, const char *path, const char *body) {
    _cleanup_buf_ struct buf url = {0}, authorization = {0}, answer = {.limit = ANSWER_BYTES_MAX};
    buf_addf(&url, "%s%s", d->base_url, path);
    buf_addf(&authorization, "Authorization: Bearer %s", d->key);
    CURL *e = curl_easy_init();
    CURLcode code = CURLE_OUT_OF_MEMORY;
    long status = 0;
    if (e && buf_ok(&url) && buf_ok(&authorization)) {
        code = perform(e, url.p, authorization.p, body, &answer);
        curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &status);
    }
    curl_easy_cleanup(e);
    if (code == CURLE_OK && status / 100 == 2)
        return true;
    fprintf(stderr, "posthorn dev: POST %s: %s\n", path,
            code == CURLE_OK && answer.p ? answer.p : curl_easy_strerror(code));
    return false;
}

static bool subscribe(struct dev *d) {
    _cleanup_buf_ struct buf body = {0};
    buf_addf(&body, "{\"url\":\"%s/\",\"secret\":\"%s\",\"description\":\"the receiver of posthorn dev\"}",
             d->receiver_url, d->secret);
    return buf_ok(&body) && post(d, "/v1/tenants/demo/subscriptions", body.p);
}

static void print_hints(const struct dev *d) {
    printf("\nTenant demo is subscribed to the receiver on %s/, which prints below what arrives.\n"
           "To publish another event:\n"
           "  curl -sS -H 'Authorization: Bearer %s' -H 'Content-Type: application/json' -d "
           "'{\"type\":\"invoice.paid\",\"data\":{\"amount\":4200}}' %s/v1/tenants/demo/events\n"
           "To see the deliveries:\n"
           "  curl -sS -H 'Authorization: Bearer %s' '%s/v1/tenants/demo/deliveries?limit=5'\n"
           "Ctrl-C ends everything and removes it.\n\n",
           d->receiver_url, d->key, d->base_url, d->key, d->base_url);
    fflush(stdout);
}

static void *set_scene(void *arg) {
    struct dev *d = arg;
    bool set =
        post(d, "/v1/tenants", "{\"id\":\"demo\",\"name\":\"A tenant to try things with\"}") && subscribe(d);
    if (set) {
        print_hints(d);
        set = post(d, "/v1/tenants/demo/events",
                   "{\"type\":\"demo.hello\",\"data\":{\"text\":\"the first event\"}}");
    }
    if (!set) {
        d->scene_failed = true;
        kill(getpid(), SIGTERM);
    }
    return NULL;
}

/* The server goes on starting while a thread speaks to it. */
static void on_ready(void *arg, const char *base_url, const char *admin_key) {
    struct dev *d = arg;
    snprintf(d->base_url, sizeof d->base_url, "%s", base_url);
    snprintf(d->key, sizeof d->key, "%s", admin_key);
    d->has_thread = pthread_create(&d->thread, NULL, set_scene, d) == 0;
    if (!d->has_thread) {
        d->scene_failed = true;
        kill(getpid(), SIGTERM);
    }
}

/* ---- the receiver and the throw-away store ---- */

static int start_receiver(struct dev *d) {
    struct listen_address loopback;
    struct signing_key key;
    int fd = -1;
    int r = listen_address_parse(SLICE_LIT("127.0.0.1:0"), &loopback);
    if (r == 0)
        r = signing_key_generate(SIGNING_HMAC, &key);
    if (r == 0)
        r = listener_open(&loopback, &fd, d->receiver_url, sizeof d->receiver_url);
    if (r < 0)
        return r;
    signing_key_text(&key, d->secret);
    r = receiver_start(fd, &key, &d->receiver);
    explicit_bzero(&key, sizeof key);
    return r;
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *at) {
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

/* The settings: dev's own before the user's, so that these win and lists add up. */
static int load(struct config *c, const char *folder, int argc, char **argv, struct buf *problems) {
    char *flags[FLAGS_MAX] = {
        "--data", (char *)(uintptr_t)folder, "--allow-http", "--allow-address", "127.0.0.0/8", "--allow-port",
        "1-65535"};
    int n = 7;
    if (argc > FLAGS_MAX - n) {
        buf_addf(problems, "there are more than %d arguments\n", FLAGS_MAX - n);
        return -EINVAL;
    }
    for (int i = 0; i < argc; i++)
        flags[n++] = argv[i];
    int r = config_load(n, flags, environ, c, problems);
    if (r == 0 && (strcmp(c->data, folder) != 0 || config_is_given(c, "store"))) {
        buf_add_str(problems, "data and store are not taken: dev keeps nothing; posthorn serve does\n");
        return -EINVAL;
    }
    return r;
}

static int serve(struct dev *d, const struct config *c) {
    struct serve_hooks hooks = {.ready = on_ready, .arg = d};
    int r = start_receiver(d);
    if (r < 0) {
        fprintf(stderr, "posthorn dev: the receiver cannot listen on loopback: %s\n", strerror(-r));
        return EXIT_REFUSED;
    }
    curl_global_init(CURL_GLOBAL_DEFAULT);
    int status = serve_run(c, &hooks);
    if (d->has_thread)
        pthread_join(d->thread, NULL);
    curl_global_cleanup();
    receiver_stop(d->receiver);
    return d->scene_failed ? EXIT_REFUSED : status;
}

int command_dev(int argc, char **argv) {
    _cleanup_config_ struct config c = {0};
    _cleanup_buf_ struct buf folder = {0}, problems = {0};
    struct dev d = {0};
    const char *temporary = getenv("TMPDIR");
    buf_addf(&folder, "%s/posthorn-dev-XXXXXX", temporary && temporary[0] ? temporary : "/tmp");
    if (!buf_ok(&folder) || !mkdtemp(folder.p)) {
        fprintf(stderr, "posthorn dev: no temporary folder can be made: %s\n", strerror(errno));
        return EXIT_REFUSED;
    }
    housekeeper_block_signals();
    int status = EXIT_USAGE;
    if (load(&c, folder.p, argc, argv, &problems) < 0)
        usage_problems("dev", &problems);
    else
        status = serve(&d, &c);
    nftw(folder.p, remove_entry, REMOVE_DESCRIPTORS, FTW_DEPTH | FTW_PHYS);
    explicit_bzero(&d, sizeof d);
    return status;
}
