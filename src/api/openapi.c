/* The OpenAPI document: openapi.json as it stands in the source, a part of the program. */
#include "api/routes.h"
#include "base/embed.h"

/* Only so that the build sees that the document has changed. */
#if __has_include("api/openapi_stamp.h")
#include "api/openapi_stamp.h"
#endif

/* OPENAPI_FILE is its path, given by the build as a string literal. */
EMBED_FILE(openapi_document, OPENAPI_FILE);

void route_openapi(struct request *r) {
    buf_add_str(request_write(r, 200), openapi_document);
}
