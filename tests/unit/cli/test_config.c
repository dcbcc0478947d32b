#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>

#include "cli/config.h"
#include "cli/nearest.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static char *const no_variables[] = {NULL};

/* What a load brought. */
struct loaded {
    int result;
    struct config config;
    struct buf problems;
};

static void loaded_free(struct loaded *l) {
    config_free(&l->config);
    buf_free(&l->problems);
}

#define _cleanup_loaded_ _cleanup_(loaded_free)

static struct loaded load_all(int argc, char *const *argv, char *const *environment) {
    struct loaded l = {0};
    l.result = config_load(argc, argv, environment, &l.config, &l.problems);
    if (l.result == 0 && l.problems.n > 0)
        fail_msg("loaded, with problems: %s", l.problems.p);
    return l;
}

#define FLAGS(...)                                                                                           \
    load_all((int)COUNT(((char *[]){__VA_ARGS__})), (char *[]){__VA_ARGS__}, (char *const *)no_variables)
#define VARIABLES(...) load_all(0, NULL, (char *[]){__VA_ARGS__, NULL})

static void assert_loaded(const struct loaded *l) {
    if (l->result != 0)
        fail_msg("refused: %s", l->problems.p);
}

static void assert_refused(const struct loaded *l, const char *word) {
    assert_int_equal(l->result, -EINVAL);
    if (!l->problems.p || !strstr(l->problems.p, word))
        fail_msg("\"%s\" is missing in: %s", word, l->problems.p ? l->problems.p : "(nothing)");
}

/* A config file of this text; the caller frees its path and removes it. */
static char *config_file(const char *text) {
    char path[] = "/tmp/test_config_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    return slice_dup(slice_of(path));
}

static void remove_file(char **path) {
    unlink(*path);
    free(*path);
}

#define _cleanup_file_ _cleanup_(remove_file)

static uint16_t port_of(const struct config *c) {
    struct in6_addr a;
    uint16_t port;
    assert_int_equal(address_of_sockaddr((const struct sockaddr *)&c->listen.address, &a, &port), 0);
    return port;
}

static bool allows(const struct config *c, const char *address, uint16_t port) {
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    const char *reason;
    assert_int_equal(inet_pton(AF_INET, address, &in.sin_addr), 1);
    return address_judge_endpoint(&c->addresses, (const struct sockaddr *)&in, &reason) == 0;
}

static void test_defaults(void **state) {
    (void)state;
    _cleanup_loaded_ struct loaded l = load_all(0, NULL, no_variables);
    assert_loaded(&l);
    const struct config *c = &l.config;
    assert_string_equal(c->data, "./posthorn-data");
    assert_string_equal(c->store, "sqlite:./posthorn-data/posthorn.db");
    assert_string_equal(c->listen.text, "127.0.0.1:8484");
    assert_int_equal(port_of(c), 8484);
    assert_null(c->config);
    assert_null(c->admin_key);
    assert_false(c->allow_http);
    assert_false(c->insecure_listen);
    assert_false(c->log_json);
    assert_int_equal(c->log_level, LOG_INFO);
    assert_int_equal(c->roles, ROLES_ALL);
    assert_in_range(c->loops, 1, 64);
    assert_int_equal(c->max_in_flight, 2000);
    assert_int_equal(c->lease_margin_ms, 10000);
    assert_int_equal(c->body_cache_bytes, 16 << 20);
    assert_int_equal(c->event_bytes_max, 1 << 20);
    assert_int_equal(c->batch_bytes_max, 16 << 20);
    assert_false(allows(c, "127.0.0.1", 443));
    assert_false(allows(c, "9.9.9.9", 8080));
    assert_false(config_is_given(c, "data"));
}

static void test_flags(void **state) {
    (void)state;
    _cleanup_loaded_ struct loaded l =
        FLAGS("--data", "/d", "--listen=[::1]:0", "--allow-http", "--allow-address", "127.0.0.0/8",
              "--allow-address", "10.0.0.0/8", "--allow-port", "8000-8999", "--allow-port=9000",
              "--log-level", "debug", "--log-format", "json", "--loops", "3", "--event-bytes-max", "2MiB");
    assert_loaded(&l);
    const struct config *c = &l.config;
    assert_string_equal(c->data, "/d");
    assert_string_equal(c->store, "sqlite:/d/posthorn.db");
    assert_int_equal(c->listen.address.ss_family, AF_INET6);
    assert_int_equal(port_of(c), 0);
    assert_true(c->allow_http);
    assert_true(c->log_json);
    assert_int_equal(c->log_level, LOG_DEBUG);
    assert_int_equal(c->loops, 3);
    assert_int_equal(c->event_bytes_max, 2 << 20);
    assert_true(allows(c, "127.0.0.1", 8500) && allows(c, "10.1.2.3", 9000));
    assert_false(allows(c, "192.168.0.1", 8500) || allows(c, "127.0.0.1", 9001));
    assert_true(config_is_given(c, "data"));
}

static void test_the_last_of_equal_flags_wins(void **state) {
    (void)state;
    _cleanup_loaded_ struct loaded l =
        FLAGS("--allow-http", "--data", "a", "--data", "b", "--allow-http=false");
    assert_loaded(&l);
    assert_string_equal(l.config.data, "b");
    assert_false(l.config.allow_http);
}

static void test_variables(void **state) {
    (void)state;
    _cleanup_loaded_ struct loaded l =
        VARIABLES("PATH=/bin", "POSTHORN_MAX_IN_FLIGHT=7", "POSTHORN_ALLOW_HTTP=1",
                  "POSTHORN_ALLOW_PORT=8000-8999, 9000", "POSTHORN_ALLOW_ADDRESS=127.0.0.0/8,10.0.0.0/8",
                  "POSTHORN_ADMIN_KEY=secret", "POSTHORN_URL=x", "POSTHORN_KEY=y");
    assert_loaded(&l);
    assert_int_equal(l.config.max_in_flight, 7);
    assert_true(l.config.allow_http);
    assert_true(allows(&l.config, "10.0.0.1", 9000) && allows(&l.config, "127.0.0.1", 8001));
    assert_string_equal(l.config.admin_key, "secret");
}

static void test_file(void **state) {
    (void)state;
    _cleanup_file_ char *path =
        config_file("# a comment\n; another\n\n  data = /from file  \nallow-http = true\n"
                    "allow-port = 8000\nallow-port=9000-9001\nlog-level: warn\n");
    _cleanup_loaded_ struct loaded l = FLAGS("--config", path);
    assert_loaded(&l);
    assert_string_equal(l.config.config, path);
    assert_string_equal(l.config.data, "/from file");
    assert_int_equal(l.config.log_level, LOG_WARN);
    assert_true(allows(&l.config, "9.9.9.9", 8000) && allows(&l.config, "9.9.9.9", 9001));
}

static void test_flag_over_variable_over_file(void **state) {
    (void)state;
    _cleanup_file_ char *path = config_file(
        "data = file\napi-threads = 3\nloops = 3\nallow-port = 8000\nallow-address = 10.0.0.0/8\n");
    char variable[100];
    snprintf(variable, sizeof variable, "POSTHORN_CONFIG=%s", path);
    char *const environment[] = {"POSTHORN_DATA=variable", "POSTHORN_LOOPS=2", "POSTHORN_ALLOW_PORT=8001",
                                 variable, NULL};
    char *const flags[] = {"--data", "flag"};
    _cleanup_loaded_ struct loaded l = load_all(2, flags, environment);
    assert_loaded(&l);
    const struct config *c = &l.config;
    assert_string_equal(c->data, "flag");
    assert_int_equal(c->loops, 2);
    assert_int_equal(c->api_threads, 3);
    /* A list of a stronger source replaces the whole list of a weaker one. */
    assert_true(allows(c, "10.0.0.1", 8001));
    assert_false(allows(c, "10.0.0.1", 8000));
}

static void test_unknown_names_the_nearest(void **state) {
    (void)state;
    {
        _cleanup_loaded_ struct loaded l = FLAGS("--allow-htp");
        assert_refused(&l, "--allow-htp: did you mean --allow-http?");
    }
    {
        _cleanup_loaded_ struct loaded l = VARIABLES("POSTHORN_LISEN=127.0.0.1:0");
        assert_refused(&l, "POSTHORN_LISEN: did you mean POSTHORN_LISTEN?");
    }
    {
        _cleanup_loaded_ struct loaded l = VARIABLES("POSTHORN_ADMINKEY=x");
        assert_refused(&l, "did you mean POSTHORN_ADMIN_KEY?");
    }
    {
        _cleanup_file_ char *path = config_file("\nlisen = 127.0.0.1:0\n");
        _cleanup_loaded_ struct loaded l = FLAGS("--config", path);
        assert_refused(&l, ":2: unknown setting lisen: did you mean listen?");
    }
}

static void test_every_problem_is_told(void **state) {
    (void)state;
    _cleanup_loaded_ struct loaded l =
        FLAGS("--lop", "--allow-port", "9-1", "surplus", "--listen", "nowhere");
    assert_refused(&l, "--lop");
    assert_refused(&l, "--allow-port 9-1: must be");
    assert_refused(&l, "surplus");
    assert_refused(&l, "--listen nowhere: must be");
}

static void test_bad_values(void **state) {
    (void)state;
    static char *const bad[][2] = {
        {"--listen", "nowhere"},
        {"--listen", "127.0.0.1:99999"},
        {"--listen", "127.0.0.1:"},
        {"--listen", ":8484"},
        {"--listen", "::1:8484"},
        {"--listen", "127.0.0.1:8x"},
        {"--allow-address", "1.2.3.4/99"},
        {"--allow-address", "x"},
        {"--allow-port", "9-1"},
        {"--allow-port", "x"},
        {"--allow-port", "0"},
        {"--allow-port", "80,,81"},
        {"--log-level", "loud"},
        {"--log-format", "xml"},
        {"--loops", "65"},
        {"--loops", "-1"},
        {"--loops", "1.5"},
        {"--loops", ""},
        {"--api-threads", "0"},
        {"--max-in-flight", "0"},
        {"--event-bytes-max", "1MB"},
        {"--event-bytes-max", "65MiB"},
        {"--event-bytes-max", "MiB"},
        {"--body-cache-bytes", "99999999999999999999"},
        {"--data", ""},
        {"--roles", "api,web"},
        {"--roles", ""},
        {"--lease-margin-ms", "1999"},
        {"--stop-timeout-ms", "1"},
        {"--store", "mysql://localhost/x"},
        {"--roles", "api"},
        {"--tiers", "premium"},
        {"--tiers", "gold"},
        {"--node-lease-ms", "999"},
        {"--allow-http=maybe", "--allow-http=maybe"},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        _cleanup_loaded_ struct loaded l = load_all(2, bad[i], no_variables);
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(bad[i][0] + 2, "="), bad[i][0] + 2);
        if (l.result != -EINVAL)
            fail_msg("%s %s is let through", bad[i][0], bad[i][1]);
        assert_refused(&l, name);
        assert_refused(&l, "must be");
    }
}

static void test_values_at_their_bounds(void **state) {
    (void)state;
    _cleanup_loaded_ struct loaded l =
        FLAGS("--loops", "64", "--lease-margin-ms", "2000", "--event-bytes-max", "64MiB", "--batch-bytes-max",
              "1GiB", "--body-cache-bytes", "0", "--allow-port", "1-65535", "--listen", "localhost:65535");
    assert_loaded(&l);
    assert_int_equal(l.config.lease_margin_ms, 2000);
    assert_int_equal(l.config.batch_bytes_max, 1 << 30);
    assert_int_equal(port_of(&l.config), 65535);
}

static void test_flags_without_their_value(void **state) {
    (void)state;
    {
        _cleanup_loaded_ struct loaded l = FLAGS("--data");
        assert_refused(&l, "--data needs a value");
    }
    {
        _cleanup_loaded_ struct loaded l = FLAGS("--data", "--allow-http");
        assert_refused(&l, "--data needs a value");
    }
}

static void test_a_short_lease_tells_why(void **state) {
    (void)state;
    _cleanup_loaded_ struct loaded l = FLAGS("--lease-margin-ms", "500");
    assert_refused(&l, "--lease-margin-ms 500: must be a number from 2000");
    assert_refused(&l, "sent twice");
}

static void test_a_batch_holds_an_event(void **state) {
    (void)state;
    _cleanup_loaded_ struct loaded l = FLAGS("--event-bytes-max", "2MiB", "--batch-bytes-max", "1MiB");
    assert_refused(&l, "batch-bytes-max must be at least event-bytes-max");
}

static void test_listening_beyond_loopback(void **state) {
    (void)state;
    static char *const hosts[] = {"0.0.0.0:0", "[::]:0", "192.0.2.1:8484"};
    for (size_t i = 0; i < COUNT(hosts); i++) {
        _cleanup_loaded_ struct loaded refused = FLAGS("--listen", hosts[i]);
        assert_refused(&refused, "insecure-listen");
        _cleanup_loaded_ struct loaded allowed = FLAGS("--listen", hosts[i], "--insecure-listen");
        assert_loaded(&allowed);
    }
    _cleanup_loaded_ struct loaded loopback = FLAGS("--listen", "127.9.9.9:1");
    assert_loaded(&loopback);
}

static void test_admin_keys_that_are_none(void **state) {
    (void)state;
    static char *const keys[] = {"POSTHORN_ADMIN_KEY=", "POSTHORN_ADMIN_KEY= ", "POSTHORN_ADMIN_KEY=a b",
                                 "POSTHORN_ADMIN_KEY=a\n"};
    for (size_t i = 0; i < COUNT(keys); i++) {
        _cleanup_loaded_ struct loaded l = VARIABLES(keys[i]);
        assert_refused(&l, "POSTHORN_ADMIN_KEY");
    }
}

static void test_files_that_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *word;
    } bad[] = {
        {"data = a\ndata = b\n", ":2: data: is set twice"},
        {"data = a\nnonsense\n", ":2: must be a line name = value"},
        {"[server]\ndata = a\n", "is in a section other than [source NAME]"},
        {"[source a b]\nurl = x\n", "the section must be [source NAME]"},
        {"[source shop]\nurl = x\nurl = x\n", ":3: url: is set twice"},
        {"[source shop]\nurll = x\n", ":2: urll: unknown setting of a source: did you mean url?"},
        {"[source shop]\nbatch = 0\n", ":2: batch: must be a number from 1 to 1000"},
        {"config = other\n", "names no other"},
        {"loops = 99\n", ":1: loops = 99: must be a number from 0 to 64"},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        _cleanup_file_ char *path = config_file(bad[i].text);
        _cleanup_loaded_ struct loaded l = FLAGS("--config", path);
        assert_refused(&l, bad[i].word);
    }
    _cleanup_loaded_ struct loaded missing = FLAGS("--config", "/nowhere/none");
    assert_refused(&missing, "/nowhere/none: No such file");
    _cleanup_loaded_ struct loaded folder = FLAGS("--config", "/tmp");
    assert_refused(&folder, "/tmp");
}

static void test_sources(void **state) {
    (void)state;
    _cleanup_file_ char *path =
        config_file("loops = 2\n[source shop]\nurl = postgres://u:p@h/d\ntenant = acme\n"
                    "batch = 7\n[source b]\nurl = sqlite:/a/b.db\nkind = outbox\n");
    _cleanup_loaded_ struct loaded l = FLAGS("--config", path);
    assert_loaded(&l);
    assert_int_equal(l.config.from.n, 2);
    const struct source_settings *shop = &l.config.from.at[0], *b = &l.config.from.at[1];
    assert_string_equal(shop->name, "shop");
    assert_string_equal(shop->kind, "outbox");
    assert_string_equal(shop->table, "posthorn_outbox");
    assert_string_equal(shop->tenant, "acme");
    assert_int_equal(shop->batch, 7);
    assert_int_equal(shop->poll_ms, 1000);
    assert_string_equal(b->name, "b");
    assert_string_equal(b->url, "sqlite:/a/b.db");
    assert_null(b->tenant);
}

/* A password may stand in a URL: no complaint shows any of it. */
static void test_sources_that_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *word;
    } bad[] = {
        {"tenant = a\n", "source s: url must be given"},
        {"url = oracle://u:s3cret@h/d\n", "url must begin with"},
        {"url = postgres://u:s3cret%zz@h/d\n", "url is not one that libpq reads"},
        {"url = mysql://u:s3cret@h\n", "url names no database"},
        {"url = sqlite:\n", "must name a file"},
        {"url = sqlite:a\nkind = csv\n", "kind must be outbox"},
        {"url = sqlite:a\ntenant = a b\n", "tenant must be"},
        {"url = sqlite:a\ntable = a;b\n", "table must be"},
        {"url = sqlite:a\nbatch = 1001\n", "batch: must be a number from 1 to 1000"},
        {"url = mysql://u@h/d\npassword-file = /nowhere/none\n", "/nowhere/none: No such file"},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        _cleanup_buf_ struct buf text = {0};
        buf_addf(&text, "[source s]\n%s", bad[i].text);
        _cleanup_file_ char *path = config_file(text.p);
        _cleanup_loaded_ struct loaded l = FLAGS("--config", path);
        assert_refused(&l, bad[i].word);
        assert_null(strstr(l.problems.p, "s3cret"));
    }
}

static void test_a_line_that_is_too_long(void **state) {
    (void)state;
    _cleanup_buf_ struct buf text = {0};
    buf_add_str(&text, "data = ");
    for (int i = 0; i < 9000; i++)
        buf_add_char(&text, 'x');
    buf_add_char(&text, '\n');
    _cleanup_file_ char *path = config_file(text.p);
    _cleanup_loaded_ struct loaded l = FLAGS("--config", path);
    assert_refused(&l, ":1: the line is longer than");
}

static void test_name_servers(void **state) {
    (void)state;
    static const char *const good[] = {"192.0.2.1",        "192.0.2.1:5353",
                                       "2001:db8::1",      "[2001:db8::1]:53",
                                       "127.0.0.1:53,::1", "1.1.1.1,[::1]:65535,8.8.8.8:1"};
    static const char *const bad[] = {
        "",        "localhost",   "1.1.1.1:",         "1.1.1.1:0",        "1.1.1.1:65536", "[::1]",
        "[::1]:",  "[1.1.1.1]:1", "1.1.1.1,,8.8.8.8", "1.1.1.1, 8.8.8.8", "1.1.1.1:x",     "01.1.1.1",
        "[::1:53", "::1%lo"};
    for (size_t i = 0; i < COUNT(good); i++) {
        _cleanup_loaded_ struct loaded l = FLAGS("--name-servers", (char *)good[i]);
        assert_loaded(&l);
        assert_string_equal(l.config.name_servers, good[i]);
    }
    for (size_t i = 0; i < COUNT(bad); i++) {
        _cleanup_loaded_ struct loaded l = FLAGS("--name-servers", (char *)bad[i]);
        assert_refused(&l, "--name-servers");
    }
}

static void test_lists_have_a_limit(void **state) {
    (void)state;
    _cleanup_buf_ struct buf list = {0};
    for (int i = 0; i <= ADDRESS_PORTS_MAX; i++)
        buf_addf(&list, "%s%d", i ? "," : "", 1000 + i);
    _cleanup_loaded_ struct loaded l = FLAGS("--allow-port", list.p);
    assert_refused(&l, "more than 64");
}

static void test_help_names_every_setting(void **state) {
    (void)state;
    _cleanup_buf_ struct buf help = {0}, markdown = {0};
    config_help(&help);
    config_help_markdown(&markdown);
    assert_true(buf_ok(&help) && buf_ok(&markdown));
    for (size_t i = 0; i < SETTINGS_N; i++) {
        _cleanup_buf_ struct buf flag = {0}, variable = {0};
        buf_addf(&flag, "--%s", settings[i].name);
        setting_variable(&settings[i], &variable);
        assert_non_null(strstr(help.p, flag.p));
        assert_non_null(strstr(markdown.p, flag.p));
        assert_non_null(strstr(markdown.p, variable.p));
    }
}

static void test_the_operators_webhook_is_signed(void **state) {
    (void)state;
    static const char secret[] = "whsec_b3BlcmF0b3Itc2VjcmV0LW9mLXRoZS10ZXN0cw==";
    static const char url[] = "https://alerts.example.com/";
    _cleanup_loaded_ struct loaded both =
        FLAGS("--operator-url", (char *)url, "--operator-secret", (char *)secret);
    assert_loaded(&both);
    assert_string_equal(both.config.operator_url, url);
    assert_string_equal(both.config.operator_secret, secret);
    _cleanup_loaded_ struct loaded no_secret = FLAGS("--operator-url", (char *)url);
    assert_refused(&no_secret, "operator-url needs operator-secret");
    _cleanup_loaded_ struct loaded no_url = FLAGS("--operator-secret", (char *)secret);
    assert_refused(&no_url, "without operator-url");
    static const char *const bad[] = {"whsec_", "whsec_c2hvcnQ=", "secret", "whpk_",
                                      "b3BlcmF0b3Itc2VjcmV0LW9mLXRoZS10ZXN0cw=="};
    for (size_t i = 0; i < COUNT(bad); i++) {
        _cleanup_loaded_ struct loaded l =
            FLAGS("--operator-url", (char *)url, "--operator-secret", (char *)bad[i]);
        assert_refused(&l, "operator-secret must be whsec_");
    }
}

static void test_edit_distance(void **state) {
    (void)state;
    static const struct {
        const char *a, *b;
        size_t distance;
    } cases[] = {{"", "", 0},           {"abc", "abc", 0},        {"abc", "", 3},      {"", "abc", 3},
                 {"abc", "abd", 1},     {"abc", "ab", 1},         {"abc", "xabc", 1},  {"listen", "lisen", 1},
                 {"serve", "sevre", 1}, {"kitten", "sitting", 3}, {"data", "store", 5}};
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_int_equal(edit_distance(slice_of(cases[i].a), slice_of(cases[i].b)), cases[i].distance);
    char longer[400];
    memset(longer, 'x', sizeof longer);
    assert_int_equal(edit_distance((struct slice){longer, sizeof longer}, SLICE_LIT("")), NEAREST_LENGTH_MAX);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_the_last_of_equal_flags_wins),
        cmocka_unit_test(test_variables),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_flag_over_variable_over_file),
        cmocka_unit_test(test_unknown_names_the_nearest),
        cmocka_unit_test(test_every_problem_is_told),
        cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_values_at_their_bounds),
        cmocka_unit_test(test_flags_without_their_value),
        cmocka_unit_test(test_a_short_lease_tells_why),
        cmocka_unit_test(test_a_batch_holds_an_event),
        cmocka_unit_test(test_listening_beyond_loopback),
        cmocka_unit_test(test_admin_keys_that_are_none),
        cmocka_unit_test(test_files_that_are_refused),
        cmocka_unit_test(test_sources),
        cmocka_unit_test(test_sources_that_are_refused),
        cmocka_unit_test(test_a_line_that_is_too_long),
        cmocka_unit_test(test_name_servers),
        cmocka_unit_test(test_lists_have_a_limit),
        cmocka_unit_test(test_help_names_every_setting),
        cmocka_unit_test(test_the_operators_webhook_is_signed),
        cmocka_unit_test(test_edit_distance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
