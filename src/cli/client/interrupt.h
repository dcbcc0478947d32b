/* Ctrl-C ends a client that waits, in its own words. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* From here on SIGINT and SIGTERM are noted instead of ending the program. What waits, such as a write, is
 * interrupted (EINTR), and again every second afterwards. */
void interrupt_catch(void);
bool interrupted(void);
/* Sleeps; false as soon as there was an interrupt. */
bool interrupt_sleep(int64_t ms);

enum { EXIT_INTERRUPTED = 130 }; /* as shells have it */
