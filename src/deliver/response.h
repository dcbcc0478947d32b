/* What is kept of a response, whichever transport reads it: status, headers, the first bytes of the body and
 * a hash of what was read. Fills the "out" part of a client_request. */
#pragma once

#include "deliver/client.h"

/* A status line; an interim one (below 200) only forgets the headers before it. */
void response_status(struct client_request *r, int status);
/* A header of the final response, "Name: value" without the line's end. */
void response_header(struct client_request *r, struct slice line);
/* Bytes of the body. False when enough was read (CLIENT_BODY_READ_MAX). */
bool response_body(struct client_request *r, struct slice bytes) MUST_USE;
/* Completes what was gathered, when the request has ended for whatever reason. */
void response_finish(struct client_request *r);
/* Forgets what was gathered: the request is sent again. */
void response_forget(struct client_request *r);
