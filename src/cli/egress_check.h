/* What can be known at start of the settings that say how deliveries leave this machine. */
#pragma once

#include "deliver/egress.h"

/* Whether ca-file holds certificates and the source address is one of this machine; logs what is to be done.
 */
int egress_check(const struct egress *e) MUST_USE;
