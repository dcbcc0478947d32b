#include "ingest/cdc_rejects.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"

/* The same reason is not logged again sooner. */
enum { SAY_AGAIN_MS = 60000 };

struct cdc_rejects {
    struct source *source;
    struct buf waiting;
    unsigned waiting_n, uncounted_n;
    char first_reason[SOURCE_REASON_SIZE], first_key[SOURCE_KEY_MAX + 1], said[SOURCE_REASON_SIZE];
    int64_t said_at;
};

int cdc_rejects_new(struct source *s, struct cdc_rejects **ret) {
    struct cdc_rejects *r = calloc(1, sizeof *r);
    if (!r)
        return -ENOMEM;
    r->source = s;
    *ret = r;
    return 0;
}

void cdc_rejects_free(struct cdc_rejects *r) {
    if (!r)
        return;
    buf_free(&r->waiting);
    free(r);
}

static void add_text(struct buf *out, const char *name, struct slice text) {
    if (!text.p)
        return;
    buf_addf(out, ",\"%s\":", name);
    buf_add_json_string(out, text);
}

/* As JSON where it is, so that it can be read on as such. */
static void add_content(struct buf *out, struct slice content) {
    struct json_cursor c = json_open(content);
    struct slice value;
    enum json_type type;
    if (!content.p)
        return;
    if (content.n > CDC_REJECT_CONTENT_MAX) {
        buf_addf(out, ",\"content_bytes\":%zu", content.n);
    } else if (json_value(&c, &value, &type) == 0 && json_finish(&c) == 0 &&
               !memchr(content.p, '\n', content.n)) {
        buf_add_str(out, ",\"content\":");
        buf_add_slice(out, value);
    } else {
        add_text(out, "content_text", content);
    }
}

void cdc_rejects_add(struct cdc_rejects *r, const struct cdc_reject *reject, int64_t now) {
    char at[RFC3339_SIZE];
    struct buf *out = &r->waiting;
    rfc3339_format(now, at);
    buf_addf(out, "{\"rejected_at\":\"%s\",\"key\":\"%s\",\"what\":", at, reject->key);
    buf_add_json_string(out, slice_of(reject->what));
    add_text(out, "reason", reject->reason);
    if (reject->committed_at) {
        rfc3339_format(reject->committed_at, at);
        buf_addf(out, ",\"committed_at\":\"%s\"", at);
    }
    add_text(out, "tenant", reject->tenant);
    add_text(out, "type", reject->type);
    add_text(out, "ordering_key", reject->ordering_key);
    add_content(out, reject->content);
    buf_add_str(out, "}\n");
    r->uncounted_n += !reject->counted;
    if (r->waiting_n++ > 0)
        return;
    snprintf(r->first_reason, sizeof r->first_reason, "%.*s", SLICE_ARG(reject->reason));
    snprintf(r->first_key, sizeof r->first_key, "%s", reject->key);
}

bool cdc_rejects_wait(const struct cdc_rejects *r) {
    return r->waiting_n > 0;
}

bool cdc_rejects_full(const struct cdc_rejects *r) {
    return r->waiting.n > CDC_REJECTS_WAITING_MAX;
}

/* ---- the file ---- */

static int write_all(int fd, struct slice bytes) {
    while (bytes.n > 0) {
        ssize_t n = write(fd, bytes.p, bytes.n);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0)
            bytes = (struct slice){bytes.p + n, bytes.n - (size_t)n};
    }
    return fsync(fd) == 0 ? 0 : -errno;
}

/* The names are durable, too. */
static int sync_folder(const char *folder) {
    _cleanup_close_ int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 && fsync(fd) == 0 ? 0 : -errno;
}

static int append(const char *folder, const char *path, struct slice bytes) {
    struct stat st;
    _cleanup_buf_ struct buf before = {0};
    buf_addf(&before, "%s.1", path);
    if (!buf_ok(&before))
        return -ENOMEM;
    if (stat(path, &st) == 0 && st.st_size > CDC_REJECTS_FILE_MAX && rename(path, before.p) < 0)
        return -errno;
    _cleanup_close_ int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int r = fstat(fd, &st) == 0 ? write_all(fd, bytes) : -errno;
    if (r == 0)
        return sync_folder(folder);
    if (ftruncate(fd, st.st_size) < 0) /* or else a half line stays, before the whole one */
        log_warn("a file of rejected rows has a half line", log_str("file", path));
    return r;
}

/* Into `path`. */
static int write_waiting(const struct cdc_rejects *r, struct buf *path) {
    const char *folder = source_folder(r->source);
    buf_addf(path, "%s/%s.rejected.jsonl", folder, source_settings(r->source)->name);
    return buf_ok(path) && buf_ok(&r->waiting) ? append(folder, path->p, buf_slice(&r->waiting)) : -ENOMEM;
}

static void say(struct cdc_rejects *r, const char *path, int64_t now) {
    if (strcmp(r->said, r->first_reason) == 0 && now - r->said_at < SAY_AGAIN_MS)
        return;
    memcpy(r->said, r->first_reason, sizeof r->said);
    r->said_at = now;
    log_warn("what came out of a source's log cannot become an event, and was kept apart",
             log_str("source", source_settings(r->source)->name), log_int("rejected", r->waiting_n),
             log_str("first", r->first_key), log_str("reason", r->first_reason), log_str("file", path));
}

int cdc_rejects_keep(struct cdc_rejects *r, int64_t now) {
    _cleanup_buf_ struct buf path = {0};
    if (r->waiting_n == 0)
        return 0;
    int e = source_folder(r->source) ? write_waiting(r, &path) : 0;
    if (e < 0) {
        source_fault(r->source, "rejected rows cannot be kept", strerror(-e),
                     "see the disk of the data folder: nothing more is taken until they are");
        return e;
    }
    say(r, path.p, now);
    source_rejected(r->source, r->uncounted_n);
    r->waiting_n = r->uncounted_n = 0;
    buf_free(&r->waiting);
    return 0;
}
