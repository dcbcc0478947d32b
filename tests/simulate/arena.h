/* The memory of the process under test. Its malloc and free, and their kin, are bound to this arena by the
 * linker (--wrap), so a crash takes all of it at once, as kill -9 does, and what it uses is known to the
 * byte. The world's own memory comes from host_grow. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* The process has died: everything it held is gone. */
void arena_reset(void);
/* Bytes held now. */
size_t arena_in_use(void);
/* Allocations of exactly `size` bytes fail with this probability where failing is allowed; 0 turns it off. */
void arena_fail(size_t size, double probability);
void arena_allow_failing(bool allowed);
