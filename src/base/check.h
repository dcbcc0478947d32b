/* Assertions that stay on in release builds. CHECK states an invariant: when it fails the program is wrong
 * and must not go on writing, so it aborts with the place and the condition. Never use it on input. */
#pragma once

#include <stdnoreturn.h>

#define CHECK(cond)   ((cond) ? (void)0 : check_failed(__FILE__, __LINE__, #cond))
#define UNREACHABLE() check_failed(__FILE__, __LINE__, "unreachable")

/* Every result that can be an error must be looked at. */
#define MUST_USE __attribute__((warn_unused_result))

noreturn void check_failed(const char *file, int line, const char *condition);
