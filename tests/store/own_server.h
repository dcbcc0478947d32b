/* A PostgreSQL for one test program alone, by tests/tools/postgres; it goes when the program does. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { OWN_SERVER_MAX = 128 };

/* Its folder. */
void own_server_start(char ret[OWN_SERVER_MAX]);
/* The first line of what the tool prints goes to output, unless that is NULL. */
void own_server_tool(const char *verb, const char *more, char *output, size_t size);
char *own_server_url(const char *folder, const char *database); /* the caller frees it */

/* On a connection of their own. A single statement, or several. */
void run_sql(const char *url, const char *sql);
int64_t number_of(const char *url, const char *sql);
