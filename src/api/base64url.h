/* Base64 with the URL alphabet and without padding (RFC 4648 §5). */
#pragma once

#include "base/bytes.h"

#define BASE64URL_SIZE(n) (((n)*4 + 2) / 3 + 1) /* characters of n bytes, and NUL */

void base64url_encode(const void *p, size_t n, char *out);

/* Decodes exactly n bytes; -EINVAL for another length, a character outside the alphabet, or stray bits. */
int base64url_decode(struct slice text, void *out, size_t n) MUST_USE;
