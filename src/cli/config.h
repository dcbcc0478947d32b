/* The settings of a process: flags over POSTHORN_ variables over the config file over defaults. */
#pragma once

#include "base/log.h"
#include "cli/settings.h"
#include "cli/source_settings.h"
#include "store/cluster.h"

struct listen_address {
    struct sockaddr_storage address;
    socklen_t size;
    char text[300]; /* as given */
};

/* "HOST:PORT", an IPv6 host in brackets. -EINVAL; *ret may be changed then. */
int listen_address_parse(struct slice text, struct listen_address *ret) MUST_USE;

enum config_source { FROM_PRESET, FROM_FILE, FROM_VARIABLE, FROM_FLAG };

struct config {
#define CONFIG_FIELD(KIND, field, ...) SETTING_FIELD_##KIND(field)
    SETTINGS(CONFIG_FIELD)
#undef CONFIG_FIELD
    struct address_policy addresses; /* allow-address and allow-port; listeners are the server's to add */
    char *admin_key;                 /* POSTHORN_ADMIN_KEY; NULL when it is not set */
    char *secret_key;                /* POSTHORN_SECRET_KEY; likewise */
    char *secret_key_previous;       /* POSTHORN_SECRET_KEY_PREVIOUS; likewise */
    enum config_source sources[SETTINGS_N];
    struct source_sections from; /* the databases that events come from; of the file alone */
};

/* Reads all settings: argv holds flags alone (no program or command name), environment is that of main. Every
 * mistake adds a line to `problems`, which says what to do. 0 and *ret, whose texts are owned by it (release
 * with config_free): store is a URL and loops a count by then. -EINVAL; -ENOMEM. A repeatable setting of a
 * stronger source replaces the whole list of a weaker one. */
int config_load(int argc, char *const *argv, char *const *environment, struct config *ret,
                struct buf *problems) MUST_USE;
void config_free(struct config *c); /* frees and zeroes */
/* Whether the store is one that several processes may share. */
bool config_is_shared(const struct config *c);

#define _cleanup_config_ _cleanup_(config_free)

/* Whether a setting was given, by whatever source. The name must be one. */
bool config_is_given(const struct config *c, const char *name);

/* The list of settings, for a terminal; and as docs/configuration.md has it. */
void config_help(struct buf *out);
void config_help_markdown(struct buf *out);
/* A config file of all settings, with every line a comment: deploy/posthorn.conf. */
void config_help_file(struct buf *out);
