/* What the client asks of a transport, and what the transports share. A transport gets requests that have
 * been judged and whose name has been looked up; it judges each address once more where it opens the socket.
 */
#pragma once

#include "deliver/client.h"

struct transport_options {
    struct loop *loop;
    const struct egress *egress;
    unsigned connections_kept;
    /* The request's outcome stands in it; called from the loop, never from within a send. */
    void (*ended)(void *arg, struct client_request *r);
    void *arg;
};
