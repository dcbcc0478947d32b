/* SQLite: the producer's file, opened beside the producer. */
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/file.h>

#include "base/clock.h"
#include "ingest/source_sql.h"

enum { BUSY_MS = 10000, PROGRESS_STEPS = 100000 };

struct sqlite {
    struct sql base;
    sqlite3 *db;
    struct buf kept; /* the bytes of the last rows */
    int lock_fd;
    bool locked;
    int64_t deadline_ms; /* of the statement under way */
};

static const char *path_of(const struct source_settings *s) {
    return s->url + strlen("sqlite:");
}

static int check(const struct source_settings *s, struct buf *complaint) {
    if (path_of(s)[0] != '\0' && path_of(s)[0] != ':' && s->password_file == NULL)
        return 0;
    buf_add_str(complaint, s->password_file ? "a file of SQLite has no password"
                                            : "url must name a file: sqlite:/var/lib/shop/shop.db");
    return -EINVAL;
}

static void note(struct sqlite *q) {
    snprintf(q->base.problem, SQL_PROBLEM_SIZE, "%s", sqlite3_errmsg(q->db));
}

static int is_late(void *arg) {
    struct sqlite *q = arg;
    return clock_mono_us() / 1000 > q->deadline_ms;
}

static void sqlite_close(struct sql *c) {
    struct sqlite *q = (struct sqlite *)c;
    (void)sqlite3_close_v2(q->db);
    if (q->lock_fd >= 0)
        close(q->lock_fd);
    buf_free(&q->kept);
    free(q);
}

static int sqlite_open(struct source *s, struct sql **ret, char problem[SQL_PROBLEM_SIZE]) {
    struct sqlite *q = calloc(1, sizeof *q);
    if (!q)
        return -ENOMEM;
    q->base.driver = &sql_sqlite;
    q->base.source = s;
    q->lock_fd = -1;
    int code = sqlite3_open_v2(path_of(source_settings(s)), &q->db,
                               SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (code == SQLITE_OK) {
        sqlite3_busy_timeout(q->db, BUSY_MS);
        sqlite3_progress_handler(q->db, PROGRESS_STEPS, is_late, q);
        /* As durable as the producer's commits, whatever its own connections ask for. */
        code = sql_run_text(&q->base, "pragma synchronous = full") < 0 ? SQLITE_ERROR : SQLITE_OK;
    }
    if (code != SQLITE_OK) {
        snprintf(problem, SQL_PROBLEM_SIZE, "%s", q->db ? sqlite3_errmsg(q->db) : sqlite3_errstr(code));
        sqlite_close(&q->base);
        return -EIO;
    }
    *ret = &q->base;
    return 0;
}

/* Of the relays of one file one works; it holds a lock of a file beside it. */
static int sqlite_lock(struct sql *c) {
    struct sqlite *q = (struct sqlite *)c;
    _cleanup_buf_ struct buf path = {0};
    if (q->locked)
        return 1;
    buf_addf(&path, "%s-posthorn", path_of(source_settings(c->source)));
    if (!buf_ok(&path))
        return -ENOMEM;
    if (q->lock_fd < 0)
        q->lock_fd = open(path.p, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (q->lock_fd < 0) {
        snprintf(c->problem, SQL_PROBLEM_SIZE, "%s: %s", path.p, strerror(errno));
        return -EPROTO;
    }
    q->locked = flock(q->lock_fd, LOCK_EX | LOCK_NB) == 0;
    return q->locked;
}

/* ---- statements ---- */

/* Copies the row's texts, and tells where they stand. The buffer may move: places are made of offsets later.
 */
static int keep_row(struct sqlite *q, sqlite3_stmt *st, int columns, struct buf *places) {
    for (int i = 0; i < columns; i++) {
        bool null = sqlite3_column_type(st, i) == SQLITE_NULL;
        const void *text = null ? NULL : sqlite3_column_text(st, i);
        struct slice at = {NULL, null ? 0 : (size_t)sqlite3_column_bytes(st, i)};
        if (!null && !text)
            return -ENOMEM;
        size_t offset = q->kept.n;
        if (!null)
            buf_add(&q->kept, text, at.n + 1); /* SQLite ends it with a NUL */
        at.p = null ? NULL : (const char *)(uintptr_t)(offset + 1);
        buf_add(places, &at, sizeof at);
    }
    return buf_ok(&q->kept) && buf_ok(places) ? 0 : -ENOMEM;
}

static int hand_on(struct sqlite *q, const struct buf *places, size_t columns, sql_row_fn *each, void *arg) {
    int r = 0;
    for (size_t at = 0; r >= 0 && at < places->n; at += columns * sizeof(struct slice)) {
        struct slice cells[SQL_COLUMNS_MAX];
        memcpy(cells, places->p + at, columns * sizeof cells[0]);
        for (size_t i = 0; i < columns; i++)
            if (cells[i].p)
                cells[i].p = (q->kept.p ? q->kept.p : "") + (uintptr_t)cells[i].p - 1;
        r = each(arg, cells, columns);
    }
    return r < 0 ? r : 0;
}

static int fail(struct sqlite *q, int code) {
    note(q);
    if (code == SQLITE_BUSY)
        snprintf(q->base.problem, SQL_PROBLEM_SIZE,
                 "somebody has held the file's lock for %d s: keep transactions that write shorter",
                 BUSY_MS / 1000);
    if (code == SQLITE_NOMEM)
        return -ENOMEM;
    /* A statement in a transaction may have ended it; a new connection knows where it stands. */
    q->base.lost = code != SQLITE_ERROR && code != SQLITE_CONSTRAINT;
    return q->base.lost ? -EPIPE : -EPROTO;
}

static int sqlite_run(struct sql *c, struct slice text, sql_row_fn *each, void *arg) {
    struct sqlite *q = (struct sqlite *)c;
    sqlite3_stmt *st = NULL;
    _cleanup_buf_ struct buf places = {0};
    q->deadline_ms = clock_mono_us() / 1000 + SQL_STATEMENT_MS;
    buf_reset(&q->kept);
    if (sqlite3_prepare_v2(q->db, text.p, (int)text.n, &st, NULL) != SQLITE_OK)
        return fail(q, sqlite3_errcode(q->db) & 0xff);
    int columns = sqlite3_column_count(st), code, r = 0;
    CHECK(columns <= SQL_COLUMNS_MAX);
    while (r == 0 && (code = sqlite3_step(st)) == SQLITE_ROW)
        r = keep_row(q, st, columns, &places);
    if (r == 0 && code != SQLITE_DONE)
        r = fail(q, code & 0xff);
    (void)sqlite3_finalize(st);
    return r == 0 && each && places.n > 0 ? hand_on(q, &places, (size_t)columns, each, arg) : r;
}

static void sqlite_literal(struct sql *c, struct slice text, struct buf *out) {
    (void)c;
    if (!text.p) {
        buf_add_str(out, "null");
        return;
    }
    buf_add_char(out, '\'');
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '\'')
            buf_add_char(out, '\'');
        buf_add_char(out, text.p[i] ? text.p[i] : ' ');
    }
    buf_add_char(out, '\'');
}

static int sqlite_notice_fd(const struct sql *c) {
    (void)c;
    return -1;
}

static int sqlite_take_notices(struct sql *c) {
    (void)c;
    return 0;
}

const struct sql_driver sql_sqlite = {
    .name = "sqlite",
    .schemes = {"sqlite:", NULL},
    .check = check,
    .open = sqlite_open,
    .run = sqlite_run,
    .literal = sqlite_literal,
    .notice_fd = sqlite_notice_fd,
    .take_notices = sqlite_take_notices,
    .lock = sqlite_lock,
    .close = sqlite_close,
};
