/* What server.c, request.c and auth.c share. */
#pragma once

#include "api/request.h"
#include "api/routes.h"

/* Judges the Authorization header: fills who asks into r. false after having answered 401. */
bool auth_identify(struct request *r, const uint8_t admin_hash[32]);
/* Whether that key may use the route on this tenant: fills r->tenant. false after having answered 404 or 403.
 */
bool auth_permit(struct request *r, struct slice tenant_id);

/* What is ambiguous in a request's head, as a sentence; NULL: nothing is. No byte behind such a head can be
 * trusted. */
const char *head_fault(struct MHD_Connection *connection, const char *version);

void auth_hash(struct slice key, uint8_t ret[32]);

/* The server's thread for look-ups. */
struct side *api_side(struct api *a);
