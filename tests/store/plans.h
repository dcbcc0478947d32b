/* Whether the statements a test has run reach the large tables by their indexes. */
#pragma once

#include "fixture.h"

/* Fails when one of them steps through all of a table that grows with the traffic, or (of SQLite) sorts what
 * may be a backlog. */
void assert_indexed(struct fixture *f);
