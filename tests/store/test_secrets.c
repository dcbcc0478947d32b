/* Secrets at rest: sealed, bound to their row, sealed anew with another key. */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "faulty_vfs.h"
#include "own_server.h"
#include "store/schema/schema.h"

enum {
    MANY = 2 * STORE_SEAL_STEP + 7,
    OWN_KEYS = 1, /* of the server, sealed in every store: for the headers of attempts */
};

static const char needle[] = "these 24 bytes are secret"; /* 24 of them are */

static struct seal_keyring ring_of(const char *fillings) {
    struct seal_keyring ring = {.n = strlen(fillings)};
    for (size_t i = 0; i < ring.n; i++) {
        uint8_t bytes[SEAL_KEY_SIZE];
        memset(bytes, fillings[i], sizeof bytes);
        assert_int_equal(seal_key_of_bytes(bytes, &ring.keys[i]), 0);
    }
    return ring;
}

/* Opens the file with keys, the first of which seals; *ret_resealed and the reader may be NULL. */
static int open_with(struct fixture *f, const char *keys, uint64_t *ret_resealed) {
    struct seal_keyring ring = ring_of(keys);
    const char *message = "";
    uint64_t resealed = 0;
    assert_int_equal(store_open(f->url, &f->store, &message), 0);
    int r = store_unlock(f->store, &ring, &resealed, &message);
    if (r < 0) {
        assert_true(strlen(message) > 20);
        store_close(f->store);
        f->store = NULL;
        return r;
    }
    assert_int_equal(store_reader_open(f->store, &f->reader), 0);
    if (ret_resealed)
        *ret_resealed = resealed;
    return 0;
}

/* Whether bytes are found in a file of the store: the database, or its log. Those of PostgreSQL are out of
 * reach: then not. */
static bool found_in_files(struct fixture *f, const void *bytes, size_t n) {
    if (!fixture_is_sqlite(f))
        return false;
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    char *db = fixture_path(f);
    bool found = false;
    for (size_t i = 0; i < COUNT(suffixes); i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s%s", db, suffixes[i]);
        int fd = open(path, O_RDONLY);
        struct stat st;
        if (fd < 0)
            continue;
        assert_int_equal(fstat(fd, &st), 0);
        char *content = malloc((size_t)st.st_size + 1);
        assert_int_equal(read(fd, content, (size_t)st.st_size), st.st_size);
        found |= memmem(content, (size_t)st.st_size, bytes, n) != NULL;
        free(content);
        close(fd);
    }
    free(db);
    return found;
}

static void run_on_file(const char *path, const char *sql) {
    sqlite3 *db = NULL;
    char *error = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &error) != SQLITE_OK)
        fail_msg("%s: %s", sql, error);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* Behind the store's back. */
static void alter(struct fixture *f, const char *sql) {
    if (!fixture_is_sqlite(f)) {
        run_sql(f->url, sql);
        return;
    }
    char *path = fixture_path(f);
    run_on_file(path, sql);
    free(path);
}

static void insert_secret(struct fixture *f, uint32_t tenant, uint32_t sub) {
    struct secret_record r = {.id = next_id(f, f->now),
                              .tenant_no = tenant,
                              .subscription_no = sub,
                              .created_at = f->now,
                              .key = {.size = 24}};
    memcpy(r.key.bytes, needle, 24);
    assert_int_equal(store_insert_secret(f->store, &r), 0);
}

static int count_needles(void *arg, const struct secret_record *row) {
    assert_int_equal(row->key.size, 24);
    assert_memory_equal(row->key.bytes, needle, 24);
    ++*(size_t *)arg;
    return 0;
}

static size_t readable(struct fixture *f, uint32_t sub) {
    size_t n = 0;
    assert_int_equal(store_list_secrets(f->reader, sub, f->now, count_needles, &n), 0);
    return n;
}

/* A fixture whose store is sealed with key 'A' and holds n secrets of one subscription. */
static uint32_t start_with(struct fixture *f, size_t n) {
    fixture_close(f);
    if (fixture_is_sqlite(f)) {
        char *path = fixture_path(f);
        assert_int_equal(unlink(path), 0);
        free(path);
    } else {
        alter(f, "DELETE FROM secrets; DELETE FROM subscription_tls; DELETE FROM server_keys;"
                 "DELETE FROM seal_keys");
    }
    assert_int_equal(open_with(f, "A", NULL), 0);
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    begin(f);
    for (size_t i = 0; i < n; i++)
        insert_secret(f, tenant, sub);
    commit(f);
    return sub;
}

static void test_no_secret_lies_in_the_files(void **state) {
    struct fixture *f = *state;
    uint32_t sub = start_with(f, 5);
    assert_int_equal(readable(f, sub), 5);
    assert_false(found_in_files(f, needle, 16));
    fixture_close(f);
    assert_false(found_in_files(f, needle, 16));
    assert_int_equal(open_with(f, "A", NULL), 0);
    assert_int_equal(readable(f, sub), 5);
}

static void test_two_seals_of_one_secret_differ(void **state) {
    struct fixture *f = *state;
    start_with(f, 50);
    fixture_close(f);
    assert_int_equal(fixture_number(f, "SELECT count(DISTINCT substr(sealed, 2, 12)) FROM secrets"), 50);
    assert_int_equal(open_with(f, "A", NULL), 0);
}

static void test_another_key_is_refused(void **state) {
    struct fixture *f = *state;
    uint32_t sub = start_with(f, 3);
    bool sealed = false;
    assert_int_equal(store_is_sealed(f->store, &sealed), 0);
    assert_true(sealed);
    fixture_close(f);
    assert_int_equal(open_with(f, "B", NULL), -EKEYREJECTED);
    assert_int_equal(open_with(f, "BC", NULL), -EKEYREJECTED);
    assert_int_equal(open_with(f, "A", NULL), 0);
    assert_int_equal(readable(f, sub), 3);
}

/* The check does not wait for the first secret: a store remembers its key from its first start. */
static void test_an_empty_store_remembers_its_key(void **state) {
    struct fixture *f = *state;
    start_with(f, 0);
    fixture_close(f);
    assert_int_equal(open_with(f, "B", NULL), -EKEYREJECTED);
    assert_int_equal(open_with(f, "BA", NULL), 0);
}

static void test_change_of_key(void **state) {
    struct fixture *f = *state;
    uint64_t resealed = 0;
    uint32_t sub = start_with(f, MANY);
    fixture_close(f);
    assert_int_equal(open_with(f, "BA", &resealed), 0);
    assert_int_equal(resealed, MANY + OWN_KEYS);
    assert_int_equal(readable(f, sub), MANY);
    fixture_close(f);
    assert_int_equal(open_with(f, "A", NULL), -EKEYREJECTED);
    assert_int_equal(open_with(f, "B", &resealed), 0);
    assert_int_equal(resealed, 0);
    assert_int_equal(readable(f, sub), MANY);
    fixture_close(f);
    /* And back. */
    assert_int_equal(open_with(f, "AB", &resealed), 0);
    assert_int_equal(resealed, MANY + OWN_KEYS);
}

/* Killed at any write while secrets are sealed anew: both keys bring every one back. */
static void test_kill_while_the_key_is_changed(void **state) {
    struct fixture *f = *state;
    if (!fixture_is_sqlite(f))
        skip();
    uint32_t sub = start_with(f, STORE_SEAL_STEP + 3);
    fixture_close(f);
    enum { STEPS_MAX = 400 };
    bool died = true;
    unsigned n, deaths = 0;
    for (n = 1; died && n < STEPS_MAX; n += 3) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            faulty_vfs_arm((struct fault){.what = FAULT_DIE, .at = n});
            _exit(open_with(f, "BA", NULL) == 0 ? 0 : 1);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        died = WIFSIGNALED(status);
        assert_true(died ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
        deaths += died;
        assert_int_equal(open_with(f, "AB", NULL), 0);
        assert_int_equal(readable(f, sub), STORE_SEAL_STEP + 3);
        fixture_close(f);
    }
    assert_true(deaths > 5 && n < STEPS_MAX);
    assert_int_equal(open_with(f, "AB", NULL), 0);
}

static int refuse_row(void *arg, const struct secret_record *row) {
    (void)row;
    ++*(size_t *)arg;
    return 0;
}

/* What was changed in the file is told, and is never used to sign. */
static void test_tampering_is_noticed(void **state) {
    struct fixture *f = *state;
    const char *const changes[] = {
        fixture_is_sqlite(f) ? "UPDATE secrets SET sealed = substr(sealed,1,20) || x'00' || substr(sealed,22)"
                             : "UPDATE secrets SET sealed = set_byte(sealed, 20, 0)",
        "UPDATE secrets SET sealed = substr(sealed,1,length(sealed)-1)",
        "UPDATE secrets SET sealed = ''",
        "UPDATE secrets SET tail = tail + 1",
        "UPDATE secrets SET scheme = 1",
        "UPDATE secrets SET tenant = tenant + 1",
        "UPDATE secrets SET seal_key = seal_key + 1",
    };
    for (size_t i = 0; i < COUNT(changes); i++) {
        uint32_t sub = start_with(f, 1);
        fixture_close(f);
        alter(f, changes[i]);
        assert_int_equal(open_with(f, "A", NULL), 0);
        size_t seen = 0, n = 7;
        struct signing_key keys[SUBSCRIPTION_SECRETS_MAX];
        assert_int_equal(store_list_secrets(f->reader, sub, f->now, refuse_row, &seen), -EIO);
        assert_int_equal(seen, 0);
        begin(f);
        assert_int_equal(store_get_signing_keys(f->store, sub, f->now, keys, &n), -EIO);
        assert_int_equal(n, 7);
        rollback(f);
    }
}

static void test_a_secret_of_another_subscription_does_not_open(void **state) {
    struct fixture *f = *state;
    start_with(f, 1);
    uint32_t other = make_subscription(f, make_tenant(f));
    fixture_close(f);
    char sql[128];
    snprintf(sql, sizeof sql, "UPDATE secrets SET subscription=%u", other);
    alter(f, sql);
    assert_int_equal(open_with(f, "A", NULL), 0);
    size_t seen = 0;
    assert_int_equal(store_list_secrets(f->reader, other, f->now, refuse_row, &seen), -EIO);
}

/* ---- TLS material ---- */

static void put_tls(struct fixture *f, uint32_t sub, const char *text) {
    begin(f);
    assert_int_equal(store_put_tls(f->store, sub, 1, slice_of(text)), 0);
    commit(f);
}

static void assert_tls(struct fixture *f, uint32_t sub, const char *text) {
    _cleanup_buf_ struct buf found = {0};
    assert_int_equal(store_read_tls(f->reader, sub, &found), text ? 0 : -ENOENT);
    if (text)
        assert_true(slice_eq(buf_slice(&found), slice_of(text)));
}

static void test_tls_material_is_sealed_and_changes_key_with_the_secrets(void **state) {
    struct fixture *f = *state;
    uint64_t resealed = 0;
    start_with(f, 2);
    put_tls(f, 7, needle);
    put_tls(f, 8, needle);
    put_tls(f, 8, NULL);
    put_tls(f, 9, "a");
    put_tls(f, 9, "b");
    assert_false(found_in_files(f, needle, 16));
    fixture_close(f);
    assert_int_equal(open_with(f, "BA", &resealed), 0);
    assert_int_equal(resealed, 4 + OWN_KEYS);
    fixture_close(f);
    assert_int_equal(open_with(f, "B", &resealed), 0);
    assert_tls(f, 7, needle);
    assert_tls(f, 8, NULL);
    assert_tls(f, 9, "b");
}

static void test_tls_material_of_another_subscription_does_not_open(void **state) {
    struct fixture *f = *state;
    _cleanup_buf_ struct buf found = {0};
    start_with(f, 0);
    put_tls(f, 7, needle);
    fixture_close(f);
    alter(f, "UPDATE subscription_tls SET subscription=8");
    assert_int_equal(open_with(f, "A", NULL), 0);
    assert_int_equal(store_read_tls(f->reader, 8, &found), -EIO);
    assert_int_equal(found.n, 0);
}

static void test_tls_material_leaves_with_its_subscription(void **state) {
    struct fixture *f = *state;
    uint32_t sub = start_with(f, 1);
    put_tls(f, sub, needle);
    begin(f);
    assert_int_equal(store_delete_subscription(f->store, sub, f->now), 0);
    commit(f);
    assert_tls(f, sub, NULL);
}

/* Its headers may hold what a receiver asks for. */
static void test_the_document_leaves_with_its_subscription(void **state) {
    struct fixture *f = *state;
    uint32_t sub = start_with(f, 1);
    struct subscription_record change = {.no = sub, .doc = SLICE_LIT("{\"headers\":{\"x-key\":\"k\"}}")};
    begin(f);
    assert_int_equal(store_update_subscription(f->store, &change), 0);
    assert_int_equal(store_delete_subscription(f->store, sub, f->now), 0);
    commit(f);
    fixture_close(f);
    assert_int_equal(fixture_number(f, "SELECT count(*) FROM subscriptions WHERE doc<>'{}'"), 0);
    assert_int_equal(open_with(f, "A", NULL), 0);
}

/* ---- the server's own keys ---- */

/* The key of this name; `fresh` (32 of this letter) is what it becomes when there is none. */
static int server_key(struct fixture *f, const char *name, char fresh, uint8_t ret[32]) {
    uint8_t bytes[32];
    memset(bytes, fresh, sizeof bytes);
    begin(f);
    int r = store_server_key(f->store, name, bytes, ret);
    if (r == 0)
        commit(f);
    else
        rollback(f);
    return r;
}

static void assert_server_key(struct fixture *f, const char *name, char is) {
    uint8_t found[32], want[32];
    memset(want, is, sizeof want);
    assert_int_equal(server_key(f, name, '?', found), 0);
    assert_memory_equal(found, want, sizeof want);
}

static void test_the_servers_keys_are_sealed_and_change_key_with_the_secrets(void **state) {
    struct fixture *f = *state;
    uint8_t found[32];
    uint64_t resealed = 0;
    start_with(f, 1);
    assert_int_equal(server_key(f, "receipts", 'r', found), 0);
    assert_int_equal(server_key(f, "other", 'o', found), 0);
    assert_server_key(f, "receipts", 'r');
    assert_false(found_in_files(f, "rrrrrrrrrrrrrrrr", 16));
    fixture_close(f);
    assert_int_equal(open_with(f, "BA", &resealed), 0);
    assert_int_equal(resealed, 3 + OWN_KEYS);
    fixture_close(f);
    assert_int_equal(open_with(f, "B", &resealed), 0);
    assert_int_equal(resealed, 0);
    assert_server_key(f, "receipts", 'r');
    assert_server_key(f, "other", 'o');
    assert_false(found_in_files(f, "rrrrrrrrrrrrrrrr", 16));
}

/* It is bound to its name, and never made anew when it does not open: what it signed would be worth nothing.
 */
static void test_a_servers_key_that_was_tampered_with_does_not_open(void **state) {
    struct fixture *f = *state;
    const char *const changes[] = {
        "UPDATE server_keys SET name='other' WHERE name='receipts'",
        "UPDATE server_keys SET bytes=substr(bytes, 1, length(bytes)-1), name='other' WHERE name='receipts'",
        "UPDATE server_keys SET seal_key=seal_key+1, name='other' WHERE name='receipts'",
    };
    for (size_t i = 0; i < COUNT(changes); i++) {
        uint8_t found[32];
        start_with(f, 0);
        assert_int_equal(server_key(f, "receipts", 'r', found), 0);
        fixture_close(f);
        alter(f, changes[i]);
        assert_int_equal(open_with(f, "A", NULL), 0);
        assert_int_equal(server_key(f, "other", 'o', found), -EIO);
    }
}

/* From before they were sealed. */
static void test_plain_server_keys_are_sealed_and_erased(void **state) {
    struct fixture *f = *state;
    const char *letters = "cccccccccccccccccccccccccccccccc";
    char sql[256];
    uint64_t resealed = 0;
    start_with(f, 2);
    fixture_close(f);
    snprintf(sql, sizeof sql, "INSERT INTO server_keys (name, bytes) VALUES ('receipts', CAST('%s' AS %s))",
             letters, fixture_is_sqlite(f) ? "BLOB" : "bytea");
    alter(f, sql);
    assert_int_equal(found_in_files(f, letters, 32), fixture_is_sqlite(f));
    assert_int_equal(open_with(f, "A", &resealed), 0);
    assert_int_equal(resealed, 1);
    assert_server_key(f, "receipts", 'c');
    assert_false(found_in_files(f, letters, 16));
    assert_int_equal(fixture_number(f, "SELECT count(*) FROM server_keys WHERE seal_key IS NULL"), 0);
}

/* ---- headers ---- */

static const char doc_with_headers[] =
    "{\"url\":\"https://a.example/\",\"headers\":{\"authorization\":\"Bearer these 24 bytes are secret\"},"
    "\"metadata\":{\"headers\":\"n\"}}";
static const char doc_without[] =
    "{\"url\":\"https://a.example/\",\"headers\":{},\"metadata\":{\"headers\":\"n\"}}";

static int compare_doc(void *arg, const struct subscription_record *row) {
    const char *want = arg;
    assert_true(slice_eq(row->doc, slice_of(want)));
    return 0;
}

/* As every reading call sees it. */
static void assert_doc(struct fixture *f, uint32_t sub, const char *want) {
    struct subscription_record r;
    begin(f);
    assert_int_equal(store_get_subscription(f->store, sub, &r), 0);
    assert_true(slice_eq(r.doc, slice_of(want)));
    struct id id = r.id;
    uint32_t tenant = r.tenant_no;
    rollback(f);
    char *arg = (char *)(uintptr_t)want;
    assert_int_equal(store_read_subscription(f->reader, tenant, id, compare_doc, arg), 0);
    assert_int_equal(store_list_subscriptions(f->reader, tenant, -1, 0, 9, compare_doc, arg), 0);
    assert_int_equal(store_each_subscription(f->reader, compare_doc, arg), 0);
}

static void set_doc(struct fixture *f, uint32_t sub, const char *doc) {
    struct subscription_record change = {.no = sub, .doc = slice_of(doc)};
    begin(f);
    assert_int_equal(store_update_subscription(f->store, &change), 0);
    commit(f);
}

static uint32_t insert_with_headers(struct fixture *f, uint32_t tenant) {
    struct subscription_record r = {.tenant_no = tenant,
                                    .id = next_id(f, f->now),
                                    .doc = slice_of(doc_with_headers),
                                    .created_at = f->now};
    uint32_t no = 0;
    begin(f);
    assert_int_equal(store_insert_subscription(f->store, &r, &no), 0);
    commit(f);
    return no;
}

/* An attempt that has sent them. */
static struct id attempt_with_headers(struct fixture *f, uint32_t sub) {
    uint32_t tenant = tenant_of(f, sub);
    struct id event = publish(f, tenant, sub);
    struct task t = claim_one(f, tenant, sub);
    struct settlement s = outcome_of(f, &t, DELIVERY_DELIVERED, 200);
    s.attempt.request_headers = SLICE_LIT("authorization: Bearer these 24 bytes are secret\r\n");
    settle(f, s);
    return event;
}

static int compare_sent(void *arg, const struct attempt_row *row) {
    (void)arg;
    assert_true(slice_eq(row->attempt.request_headers,
                         SLICE_LIT("authorization: Bearer these 24 bytes are secret\r\n")));
    return 7;
}

static int read_sent(struct fixture *f, struct id event, uint32_t sub) {
    return store_list_attempts(f->reader, tenant_of(f, sub), event.key, sub, compare_sent, NULL);
}

static void test_headers_are_sealed(void **state) {
    struct fixture *f = *state;
    start_with(f, 0);
    uint32_t tenant = make_tenant(f), sub = insert_with_headers(f, tenant);
    struct id event = attempt_with_headers(f, sub);
    assert_int_equal(read_sent(f, event, sub), 7);
    assert_false(found_in_files(f, needle, 16));
    fixture_close(f);
    assert_false(found_in_files(f, needle, 16));
    assert_int_equal(fixture_number(f, "SELECT count(*) FROM subscriptions WHERE headers IS NOT NULL"
                                       " AND doc LIKE '%\"headers\":{},%'"),
                     1);
    assert_int_equal(open_with(f, "A", NULL), 0);
    assert_int_equal(read_sent(f, event, sub), 7);
}

static void test_a_document_is_what_it_was_with_its_headers(void **state) {
    struct fixture *f = *state;
    uint32_t sub = start_with(f, 0);
    set_doc(f, sub, doc_with_headers);
    assert_doc(f, sub, doc_with_headers);
    set_doc(f, sub, doc_without);
    assert_doc(f, sub, doc_without);
    set_doc(f, sub, "{\"headers\" : {\"a\" : \"b\"} , \"url\":1}");
    assert_doc(f, sub, "{\"headers\" : {\"a\" : \"b\"} , \"url\":1}");
    set_doc(f, sub, "{}");
    assert_doc(f, sub, "{}");
    fixture_close(f);
    assert_int_equal(fixture_number(f, "SELECT count(*) FROM subscriptions WHERE headers IS NOT NULL"), 0);
    assert_int_equal(open_with(f, "A", NULL), 0);
    struct subscription_record change = {.no = sub + 100, .doc = slice_of(doc_with_headers)};
    begin(f);
    assert_int_equal(store_update_subscription(f->store, &change), -ENOENT);
    rollback(f);
}

static void test_headers_change_key_with_the_secrets(void **state) {
    struct fixture *f = *state;
    uint64_t resealed = 0;
    uint32_t sub = start_with(f, 1);
    set_doc(f, sub, doc_with_headers);
    struct id event = attempt_with_headers(f, sub);
    fixture_close(f);
    assert_int_equal(open_with(f, "BA", &resealed), 0);
    assert_int_equal(resealed, 2 + OWN_KEYS);
    fixture_close(f);
    assert_int_equal(open_with(f, "B", &resealed), 0);
    assert_int_equal(resealed, 0);
    assert_doc(f, sub, doc_with_headers);
    assert_int_equal(read_sent(f, event, sub), 7);
}

static void test_headers_that_were_tampered_with_do_not_open(void **state) {
    struct fixture *f = *state;
    const char *const changes[] = {
        "UPDATE subscriptions SET headers=substr(headers, 1, length(headers)-1)",
        "UPDATE subscriptions SET headers_key=headers_key+1",
        "UPDATE subscriptions SET tail=tail+1",
        "UPDATE subscriptions SET doc='{}'",
    };
    for (size_t i = 0; i < COUNT(changes); i++) {
        struct subscription_record r;
        uint32_t sub = start_with(f, 0);
        set_doc(f, sub, doc_with_headers);
        fixture_close(f);
        alter(f, changes[i]);
        assert_int_equal(open_with(f, "A", NULL), 0);
        begin(f);
        assert_int_equal(store_get_subscription(f->store, sub, &r), -EIO);
        rollback(f);
        begin(f);
        assert_int_equal(store_delete_subscription(f->store, sub, f->now), 0);
        commit(f);
    }
    uint32_t sub = start_with(f, 0);
    struct id event = attempt_with_headers(f, sub);
    fixture_close(f);
    alter(f, "UPDATE attempts SET number=number+1");
    assert_int_equal(open_with(f, "A", NULL), 0);
    assert_int_equal(read_sent(f, event, sub), -EIO);
}

/* From before they were sealed: as many as take several steps. */
static void test_plain_headers_are_sealed_and_erased(void **state) {
    struct fixture *f = *state;
    char sql[1024];
    bool file = fixture_is_sqlite(f);
    uint64_t resealed = 0;
    uint32_t sub = start_with(f, 0);
    struct id event = publish(f, tenant_of(f, sub), sub);
    fixture_close(f);
    snprintf(sql, sizeof sql, "UPDATE subscriptions SET doc='%s' WHERE no=%u", doc_with_headers, sub);
    alter(f, sql);
    snprintf(sql, sizeof sql,
             "INSERT INTO attempts (%sevent, subscription, number, started_at, settled_at, to_state,"
             " latency_ms, dns_ms, connect_ms, tls_ms, wait_ms, error, trigger, worker, url, content_type,"
             " %s) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d)"
             " SELECT %s %llu, %u, i, 1, 1, 2, 1, 1, 1, 1, 1, 0, 0, 1, '', '',"
             " CASE WHEN i%%2=0 THEN 'authorization: Bearer these 24 bytes are secret' END FROM n",
             file ? "" : "tenant, ", file ? "request_headers" : "request_headers_clear", MANY,
             file ? "" : "1,", (unsigned long long)event.key, sub);
    alter(f, sql);
    alter(f, "INSERT INTO marks VALUES ('headers_in_clear', 1)");
    assert_int_equal(found_in_files(f, needle, 16), file);
    assert_int_equal(open_with(f, "A", &resealed), 0);
    assert_int_equal(resealed, MANY / 2 + 1);
    assert_doc(f, sub, doc_with_headers);
    assert_false(found_in_files(f, needle, 16));
    fixture_close(f);
    snprintf(sql, sizeof sql, "SELECT count(*) FROM attempts WHERE %s",
             file ? "typeof(request_headers)='text'" : "request_headers_clear IS NOT NULL");
    assert_int_equal(fixture_number(f, sql), 0);
    assert_int_equal(fixture_number(f, "SELECT count(*) FROM attempts WHERE request_headers IS NOT NULL"),
                     MANY / 2);
    assert_int_equal(open_with(f, "A", &resealed), 0);
    assert_int_equal(resealed, 0);
}

/* Killed at any write while they are sealed: the next start goes on. */
static void test_kill_while_headers_are_sealed(void **state) {
    struct fixture *f = *state;
    if (!fixture_is_sqlite(f))
        skip();
    enum { STEPS_MAX = 300, ATTEMPTS = STORE_SEAL_STEP + 3 };
    char sql[1024];
    uint32_t sub = start_with(f, 0);
    struct id event = publish(f, tenant_of(f, sub), sub);
    fixture_close(f);
    snprintf(sql, sizeof sql,
             "DELETE FROM attempts; UPDATE subscriptions SET doc='%s', headers=NULL, headers_key=NULL;"
             " INSERT INTO attempts (event, subscription, number, started_at, settled_at, to_state,"
             " latency_ms, dns_ms, connect_ms, tls_ms, wait_ms, error, trigger, worker, url, content_type,"
             " request_headers) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d)"
             " SELECT %llu, %u, i, 1, 1, 2, 1, 1, 1, 1, 1, 0, 0, 1, '', '',"
             " 'authorization: Bearer these 24 bytes are secret' || char(13, 10) FROM n;"
             " INSERT OR IGNORE INTO marks VALUES ('headers_in_clear', 1)",
             doc_with_headers, ATTEMPTS, (unsigned long long)event.key, sub);
    bool died = true;
    unsigned n, deaths = 0;
    for (n = 1; died && n < STEPS_MAX; n += 3) {
        alter(f, sql);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            faulty_vfs_arm((struct fault){.what = FAULT_DIE, .at = n});
            _exit(open_with(f, "A", NULL) == 0 ? 0 : 1);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        died = WIFSIGNALED(status);
        assert_true(died ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
        deaths += died;
        assert_int_equal(open_with(f, "A", NULL), 0);
        assert_doc(f, sub, doc_with_headers);
        assert_int_equal(read_sent(f, event, sub), 7);
        fixture_close(f);
        assert_int_equal(
            fixture_number(f, "SELECT count(*) FROM attempts WHERE typeof(request_headers)='blob'"),
            ATTEMPTS);
    }
    assert_true(deaths > 5 && n < STEPS_MAX);
    assert_int_equal(open_with(f, "A", NULL), 0);
}

/* ---- several processes ---- */

/* A node that runs would neither read what is sealed with the new key, nor stop sealing with its own. */
static void test_the_key_is_not_changed_under_a_node(void **state) {
    struct fixture *f = *state;
    if (fixture_is_sqlite(f))
        skip();
    uint32_t sub = start_with(f, 3), worker = 0;
    begin(f);
    assert_int_equal(store_register_worker(f->store, "host:1", "posthorn/1", f->now, &worker), 0);
    commit(f);
    struct fixture other = {.url = f->url};
    assert_int_equal(open_with(&other, "BA", NULL), -EBUSY);
    assert_int_equal(open_with(&other, "A", NULL), 0);
    fixture_close(&other);
    assert_int_equal(readable(f, sub), 3);
    fixture_close(f);
    assert_int_equal(open_with(f, "BA", NULL), 0);
    assert_int_equal(readable(f, sub), 3);
}

/* ---- a store from before secrets were sealed ---- */

static void make_plain_store(struct fixture *f, const char *path) {
    fixture_close(f);
    assert_int_equal(unlink(path), 0);
    run_on_file(path, "PRAGMA secure_delete=OFF; PRAGMA journal_mode=WAL");
    run_on_file(path, sqlite_migrations[0]);
    run_on_file(path, "PRAGMA user_version=1; PRAGMA application_id=0x706f7374");
    run_on_file(path,
                "INSERT INTO tenants (no, id, doc, created_at, updated_at) VALUES (3, 'acme', '{}', 1, 1);"
                "INSERT INTO subscriptions (no, key, tail, tenant, status, doc, created_at, updated_at)"
                " VALUES (5, 50, 51, 3, 0, '{}', 1, 1)");
    char sql[512];
    snprintf(sql, sizeof sql, "UPDATE subscriptions SET doc='%s'", doc_with_headers);
    run_on_file(path, sql);
    run_on_file(path, "INSERT INTO attempts (event, subscription, number, started_at, settled_at, to_state,"
                      " latency_ms, dns_ms, connect_ms, tls_ms, wait_ms, error, trigger, worker, url,"
                      " content_type, request_headers) VALUES (70, 5, 1, 1, 1, 2, 1, 1, 1, 1, 1, 0, 0, 1, '',"
                      " '', 'authorization: Bearer these 24 bytes are secret' || char(13, 10))");
    snprintf(sql, sizeof sql,
             "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d)"
             " INSERT INTO secrets (key, tail, subscription, scheme, bytes, created_at)"
             " SELECT i, i, 5, 0, CAST('%.24s' AS BLOB), i FROM n",
             MANY, needle);
    run_on_file(path, sql);
}

static void test_plain_secrets_are_sealed_and_erased(void **state) {
    struct fixture *f = *state;
    if (!fixture_is_sqlite(f))
        skip();
    char *path = fixture_path(f);
    uint64_t resealed = 0;
    make_plain_store(f, path);
    assert_true(found_in_files(f, needle, 16));
    assert_int_equal(open_with(f, "A", &resealed), 0);
    assert_int_equal(resealed, MANY + 2); /* the headers of the subscription and of its attempt */
    assert_int_equal(readable(f, 5), MANY);
    assert_doc(f, 5, doc_with_headers);
    assert_int_equal(store_list_attempts(f->reader, 3, 70, 5, compare_sent, NULL), 7);
    assert_false(found_in_files(f, needle, 16));
    fixture_close(f);
    assert_int_equal(number_in_file(path, "SELECT count(*) FROM sqlite_schema WHERE name='secrets_plain'"),
                     0);
    assert_int_equal(open_with(f, "A", &resealed), 0);
    assert_int_equal(resealed, 0);
    free(path);
}

int main(void) {
    faulty_vfs_install();
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_no_secret_lies_in_the_files),
        STORE_TEST(test_two_seals_of_one_secret_differ),
        STORE_TEST(test_another_key_is_refused),
        STORE_TEST(test_an_empty_store_remembers_its_key),
        STORE_TEST(test_change_of_key),
        STORE_TEST(test_kill_while_the_key_is_changed),
        STORE_TEST(test_tampering_is_noticed),
        STORE_TEST(test_a_secret_of_another_subscription_does_not_open),
        STORE_TEST(test_tls_material_is_sealed_and_changes_key_with_the_secrets),
        STORE_TEST(test_tls_material_of_another_subscription_does_not_open),
        STORE_TEST(test_tls_material_leaves_with_its_subscription),
        STORE_TEST(test_the_document_leaves_with_its_subscription),
        STORE_TEST(test_the_servers_keys_are_sealed_and_change_key_with_the_secrets),
        STORE_TEST(test_a_servers_key_that_was_tampered_with_does_not_open),
        STORE_TEST(test_plain_server_keys_are_sealed_and_erased),
        STORE_TEST(test_headers_are_sealed),
        STORE_TEST(test_a_document_is_what_it_was_with_its_headers),
        STORE_TEST(test_headers_change_key_with_the_secrets),
        STORE_TEST(test_headers_that_were_tampered_with_do_not_open),
        STORE_TEST(test_plain_headers_are_sealed_and_erased),
        STORE_TEST(test_kill_while_headers_are_sealed),
        STORE_TEST(test_the_key_is_not_changed_under_a_node),
        STORE_TEST(test_plain_secrets_are_sealed_and_erased),
    };
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
