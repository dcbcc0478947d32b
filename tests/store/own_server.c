#include "own_server.h"

#include "fixture.h"
#include "store/postgres/connection.h"

void own_server_tool(const char *verb, const char *more, char *output, size_t size) {
    char command[512];
    snprintf(command, sizeof command, "%s %s %s", getenv("POSTHORN_TEST_POSTGRES"), verb, more);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = output ? fread(output, 1, size - 1, f) : 0;
    assert_int_equal(pclose(f), 0);
    if (output) {
        output[n] = '\0';
        output[strcspn(output, "\n")] = '\0';
    }
}

void own_server_start(char ret[OWN_SERVER_MAX]) {
    char until[32];
    snprintf(until, sizeof until, "--until %d", (int)getpid());
    own_server_tool("start", until, ret, OWN_SERVER_MAX);
}

char *own_server_url(const char *folder, const char *database) {
    char *url = NULL;
    assert_true(asprintf(&url, "postgres://postgres@/%s?host=%s&connect_timeout=60", database, folder) > 0);
    return url;
}

static void connect_to(const char *url, struct pg *c, struct pg_source **ret) {
    const char *message = "";
    if (pg_source_parse(url, ret, &message) < 0)
        fail_msg("%s", message);
    pg_init(c, *ret, &pg_usual_limits);
    if (pg_connect(c, &message) < 0)
        fail_msg("%s", message);
}

void run_sql(const char *url, const char *sql) {
    _cleanup_pg_source_ struct pg_source *source = NULL;
    struct pg c;
    connect_to(url, &c, &source);
    assert_int_equal(pg_script(&c, sql), 0);
    pg_close(&c);
}

int64_t number_of(const char *url, const char *sql) {
    _cleanup_pg_source_ struct pg_source *source = NULL;
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    struct pg c;
    connect_to(url, &c, &source);
    assert_int_equal(pg_query(&c, sql, &rows), 0);
    int64_t n = pg_next(&rows) ? pg_column_int(&rows, 0) : 0;
    pg_close(&c);
    return n;
}
