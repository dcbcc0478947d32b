#include "cli/hardening.h"

#include <errno.h>
#include <jansson.h>
#include <libgen.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "cli/privileges.h"
#include "cli/sandbox.h"
#include "ingest/source_sql.h"

static int refuse(int error, const char *what, const char *object, const char *advice) {
    log_error(what, log_str("of", object), log_str("error", strerror(-error)), log_str("advice", advice));
    return error;
}

/* ---- secrets ---- */

static void forbid_core_dumps(void) {
    /* The limit alone does not hold where cores are piped to a program. */
    struct rlimit none = {0, 0};
    bool limited = setrlimit(RLIMIT_CORE, &none) == 0;
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || !limited)
        log_warn("core dumps cannot be forbidden: one would hold signing secrets",
                 log_str("error", strerror(errno)));
}

static void wipe_free_of_openssl(void *p, const char *file, int line) {
    (void)file;
    (void)line;
    wipe_free(p);
}

void hardening_keep_secrets(const struct config *c) {
    static bool kept; /* OpenSSL's can be set once */
    json_set_alloc_funcs(malloc, wipe_free);
    /* It reads client keys by way of buffers that it does not wipe itself. */
    if (!kept && !CRYPTO_set_mem_functions(NULL, NULL, wipe_free_of_openssl))
        log_warn("OpenSSL was in use before: what it frees of client keys is not wiped");
    kept = true;
    if (!c->permit_core_dumps)
        forbid_core_dumps();
}

/* ---- the user ---- */

static int become(const struct config *c, const struct account *a) {
    int r = privileges_drop(a);
    if (r < 0)
        return refuse(r, "this process cannot become that user", c->user,
                      "start it as root, or as that user");
    /* Changing users has set it to the system's default. */
    if (prctl(PR_SET_DUMPABLE, c->permit_core_dumps ? 1 : 0, 0, 0, 0) < 0)
        log_warn("core dumps cannot be forbidden: one would hold signing secrets");
    if (access(c->data, R_OK | W_OK | X_OK) < 0)
        return refuse(-errno, "the data folder cannot be used by that user", c->data,
                      "chown -R it to the user, or name another folder");
    log_info("privileges dropped", log_str("user", c->user));
    return 0;
}

int hardening_take_data(const struct config *c) {
    struct account account;
    int r = c->user ? account_find(c->user, &account) : 0;
    if (r < 0)
        return refuse(r, "there is no such user without privileges", c->user, "make one: adduser --system");
    bool made = mkdir(c->data, 0700) == 0;
    if (!made && errno != EEXIST)
        return refuse(-errno, "the data folder cannot be made", c->data,
                      "its parent must be there and writable");
    if (made && c->user && geteuid() == 0 && chown(c->data, account.uid, account.gid) < 0)
        return refuse(-errno, "the data folder cannot be given to the user", c->data,
                      "choose another folder");
    return c->user ? become(c, &account) : 0;
}

/* ---- the sandbox ---- */

enum { FOLDERS_MAX = 8 };

/* Folders that are named by the files in them. */
struct folders {
    char *at[FOLDERS_MAX];
    size_t n;
};

static void folders_free(struct folders *f) {
    for (size_t i = 0; i < f->n; i++)
        free(f->at[i]);
}

/* The folder of a file, into which another may be renamed any time; and that of what it points to. */
static int add_folder_of(struct folders *f, const char *file) {
    char resolved[PATH_MAX];
    const char *const paths[] = {file, file && realpath(file, resolved) ? resolved : NULL};
    for (size_t i = 0; i < 2; i++) {
        if (!paths[i])
            continue;
        CHECK(f->n < FOLDERS_MAX);
        char *copy = slice_dup(slice_of(paths[i]));
        if (!copy)
            return -ENOMEM;
        f->at[f->n] = slice_dup(slice_of(dirname(copy)));
        free(copy);
        if (!f->at[f->n++])
            return -ENOMEM;
    }
    return 0;
}

/* What the databases of sources, and a shared store, are reached by. */
struct source_files {
    struct sql_files of[SOURCES_MAX + 1];
    size_t n;
};

static void source_files_free(struct source_files *f) {
    for (size_t i = 0; i < f->n; i++)
        sql_files_free(&f->of[i]);
}

static int add_source_files(struct source_files *f, const struct config *c) {
    int r = 0;
    for (size_t i = 0; r == 0 && i < c->from.n; i++) {
        r = sql_files(c->from.at[i].url, &f->of[f->n]);
        f->n += r == 0;
    }
    if (r == 0 && config_is_shared(c)) {
        r = sql_files(c->store, &f->of[f->n]);
        f->n += r == 0;
    }
    return r;
}

static void let_sources(struct sandbox *s, const struct source_files *f) {
    for (size_t i = 0; i < f->n; i++) {
        if (f->of[i].writable)
            s->writable[s->writable_n++] = f->of[i].writable;
        for (size_t k = 0; k < f->of[i].readable_n; k++)
            s->readable[s->readable_n++] = f->of[i].readable[k];
    }
}

static int enter(const struct config *c, const struct folders *stores, const struct folders *certificates,
                 const struct source_files *sources, unsigned *ret_confined) {
    /* Where OpenSSL is told to find the certificates that receivers are judged by. */
    const char *const given[] = {getenv("SSL_CERT_FILE"), getenv("SSL_CERT_DIR")};
    struct sandbox s = {.writable = {c->data}, .writable_n = 1};
    for (size_t i = 0; i < stores->n; i++)
        s.writable[s.writable_n++] = stores->at[i];
    for (size_t i = 0; i < certificates->n; i++)
        s.readable[s.readable_n++] = certificates->at[i];
    for (size_t i = 0; i < 2; i++)
        if (given[i])
            s.readable[s.readable_n++] = given[i];
    let_sources(&s, sources);
    return sandbox_enter(&s, ret_confined);
}

int hardening_confine(const struct config *c) {
    if (!c->sandbox)
        return 0;
    __attribute__((cleanup(folders_free))) struct folders stores = {0}, certificates = {0};
    __attribute__((cleanup(source_files_free))) struct source_files sources = {0};
    unsigned confined = 0;
    int r = config_is_shared(c) ? 0 : add_folder_of(&stores, c->store + strlen("sqlite:"));
    if (r == 0)
        r = add_folder_of(&certificates, c->tls_certificate);
    if (r == 0)
        r = add_folder_of(&certificates, c->tls_key);
    if (r == 0)
        r = add_folder_of(&certificates, c->ca_file);
    if (r == 0)
        r = add_source_files(&sources, c);
    if (r == 0)
        r = enter(c, &stores, &certificates, &sources, &confined);
    if (r < 0)
        return refuse(r, "the sandbox cannot be entered", c->data, "sandbox=false does without it");
    if (!(confined & SANDBOX_FILES))
        log_warn("the kernel has no Landlock: which files this process may open is not confined");
    if (!(confined & SANDBOX_CALLS))
        log_warn("the kernel filters no system calls (seccomp): what this process may call is not confined");
    return 0;
}
