/* The certificate of the API, from the settings. */
#pragma once

#include "api/tls.h"
#include "cli/config.h"

/* *ret is NULL when the settings name none. What is wrong with it is logged. */
int certificate_load(const struct config *c, struct tls **ret) MUST_USE;
/* Reads it again and says what came of it; a bad one leaves the old one in force. */
void certificate_reload(struct tls *t);
