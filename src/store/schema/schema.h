/* The schema of each kind of store, as numbered migrations embedded in the binary. A migration that was
 * released is never changed: what follows is a new one. */
#pragma once

#include <stddef.h>

/* migrations[i] brings a store from version i to version i + 1. */
extern const char *const sqlite_migrations[];
extern const size_t sqlite_migrations_n;

extern const char *const postgres_migrations[];
extern const size_t postgres_migrations_n;
/* The oldest schema a program may know and still run on that of postgres_migrations[i]: nodes of two
 * neighbouring versions run side by side while a cluster is brought up to date. */
extern const size_t postgres_runs_from[];
