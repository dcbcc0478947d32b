/* Fills a store with subscriptions, through the store's own calls, so that bench/rows/index can start
 * posthorn on it; and measures what needs no server: index fill FOLDER N KEY (that seals the secrets;
 * POSTHORN_SECRET_KEY) | index filters. */
#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "core/filter.h"
#include "store/store.h"

enum { A_TRANSACTION = 10000, A_TENANT = 100, ROUNDS = 200000 };

#define MUST(call)                                                                                           \
    do {                                                                                                     \
        int r_ = (call);                                                                                     \
        if (r_ < 0) {                                                                                        \
            fprintf(stderr, "%s: %s\n", #call, strerror(-r_));                                               \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

/* ---- fill ---- */

static struct id next_id(void) {
    static uint64_t n;
    return (struct id){.key = ((uint64_t)clock_now_ms() << 12) + n++, .tail = 1};
}

static uint32_t add_tenant(struct store *s, unsigned i) {
    char id[32];
    uint32_t no;
    snprintf(id, sizeof id, "t%u", i);
    int64_t now = clock_now_ms();
    struct tenant_record t = {.id = slice_of(id),
                              .doc = SLICE_LIT("{\"name\":\"\",\"tier\":\"standard\"}"),
                              .created_at = now,
                              .updated_at = now};
    MUST(store_insert_tenant(s, &t, &no));
    return no;
}

/* The document that the API would store. */
static char *make_doc(void) {
    struct field_errors errors;
    field_errors_init(&errors);
    json_t *given = json_pack("{s:s, s:[s,s], s:s}", "url", "https://hooks.example.com/tenants/receive",
                              "event_types", "invoice.paid", "customer.*", "description", "Billing");
    json_t *doc = subscription_parse(given, &errors);
    char *text = json_dumps(doc, JSON_COMPACT);
    json_decref(given);
    json_decref(doc);
    return text;
}

static void add_subscription(struct store *s, uint32_t tenant_no, const char *doc) {
    int64_t now = clock_now_ms();
    struct subscription_record r = {.tenant_no = tenant_no,
                                    .id = next_id(),
                                    .status = SUBSCRIPTION_ACTIVE,
                                    .doc = slice_of(doc),
                                    .created_at = now,
                                    .updated_at = now};
    struct secret_record secret = {.id = next_id(), .tenant_no = tenant_no, .created_at = now};
    MUST(store_insert_subscription(s, &r, &secret.subscription_no));
    MUST(signing_key_generate(SIGNING_HMAC, &secret.key));
    MUST(store_insert_secret(s, &secret));
}

static void fill(const char *folder, unsigned n, const char *key) {
    char url[4096];
    struct store *s;
    const char *message = "";
    uint32_t tenant = 0;
    char *doc = make_doc();
    snprintf(url, sizeof url, "sqlite:%s/posthorn.db", folder);
    MUST(store_open(url, &s, &message));
    struct seal_keyring ring = {.n = 1};
    uint64_t resealed;
    MUST(seal_key_parse(slice_of(key), &ring.keys[0]));
    MUST(store_unlock(s, &ring, &resealed, &message));
    for (unsigned i = 0; i < n; i++) {
        if (i % A_TRANSACTION == 0)
            MUST(store_begin(s));
        if (i % A_TENANT == 0)
            tenant = add_tenant(s, i / A_TENANT);
        add_subscription(s, tenant, doc);
        if (i % A_TRANSACTION == A_TRANSACTION - 1 || i == n - 1)
            MUST(store_commit(s));
    }
    store_close(s);
    free(doc);
}

/* ---- filters ---- */

static const char PAYLOAD[] = "{\"id\":\"in_1OyHkP2eZvKYlo2C\",\"object\":\"invoice\",\"amount\":42000,"
                              "\"currency\":\"eur\",\"status\":\"paid\","
                              "\"customer\":{\"id\":\"cus_9s6XKzkNRiz8i3\",\"name\":\"Jos\\u00e9 "
                              "M\\u00fcller\",\"country\":\"DE\",\"tags\":[\"vip\",\"eu\"]},"
                              "\"lines\":[{\"sku\":\"A-1\",\"quantity\":1,\"price\":12000},{\"sku\":\"B-2\","
                              "\"quantity\":3,\"price\":10000}],"
                              "\"metadata\":{\"order\":\"6735\",\"channel\":\"web\",\"campaign\":null},"
                              "\"livemode\":true,\"created\":1795553340}";

static const char *const filters[] = {
    "{\"data\":{\"status\":[\"paid\"]}}",
    "{\"data\":{\"customer\":{\"country\":[\"FR\",\"IT\",\"ES\"]}}}",
    "{\"data\":{\"status\":[\"paid\",{\"prefix\":\"par\"}],\"amount\":[{\"numeric\":[\">\",100,\"<=\",50000]}"
    "],"
    "\"test\":[{\"exists\":false}],\"customer\":{\"country\":[{\"anything-but\":[\"XX\"]}]}}}",
    "{\"data\":{\"lines\":{\"sku\":[\"B-2\"],\"quantity\":[{\"numeric\":[\">\",2]}]}}}",
};

static double ns_since(int64_t from_us, int n) {
    return (double)(clock_mono_us() - from_us) * 1000 / n;
}

static void measure_filters(void) {
    struct json_tape tape = {0};
    struct filter_subject e = {.type = SLICE_LIT("invoice.paid"), .data = SLICE_LIT(PAYLOAD), .tape = &tape};
    int64_t from = clock_mono_us();
    for (int i = 0; i < ROUNDS; i++)
        MUST(json_tape_read(&tape, e.data));
    printf("%.0f ns to read a payload of %zu bytes\n", ns_since(from, ROUNDS), e.data.n);
    for (size_t k = 0; k < sizeof filters / sizeof filters[0]; k++) {
        struct field_errors errors;
        field_errors_init(&errors);
        json_t *doc = json_loads(filters[k], 0, NULL);
        struct filter *f = filter_compile(doc, &errors);
        uint64_t steps = 0;
        bool matches = false;
        from = clock_mono_us();
        for (int i = 0; i < ROUNDS; i++)
            matches = filter_matches(f, &e, &steps);
        printf("%.0f ns for %s (%s)\n", ns_since(from, ROUNDS), filters[k],
               matches ? "matches" : "does not match");
        filter_unref(f);
        json_decref(doc);
    }
    json_tape_free(&tape);
}

int main(int argc, char **argv) {
    if (argc == 5 && strcmp(argv[1], "fill") == 0)
        fill(argv[2], (unsigned)strtoul(argv[3], NULL, 10), argv[4]);
    else if (argc == 2 && strcmp(argv[1], "filters") == 0)
        measure_filters();
    else
        return fprintf(stderr, "usage: index fill FOLDER N KEY | index filters\n"), 2;
    return 0;
}
