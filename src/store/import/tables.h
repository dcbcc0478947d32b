/* Which columns move, from where to where. */
#pragma once

#include <stddef.h>

enum { IMPORT_COLUMNS_MAX = 32 };

struct import_table {
    const char *name;   /* at the destination */
    const char *types;  /* a letter a column: b(ool), i(nt), l(ong), t(ext), y(tes) */
    const char *select; /* at the source; "" : it begins empty */
    const char *count;  /* of the rows that this must give */
    const char *insert; /* $1 … are arrays, a column each */
    const char *is_used, *declare, *fetch, *close;
};
extern const struct import_table import_tables[];
extern const size_t import_tables_n;
