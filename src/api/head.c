/* What libmicrohttpd lets pass in a head, and two readers could take for different things: a proxy in front
 * that reads it otherwise would take a part of one client's body for the next one's request (RFC 9112 §3.2,
 * §5.1, §6.3). */
#include "api/internal.h"

struct head {
    unsigned lengths, codings, hosts, keys;
    const char *fault;
};

static bool is(const char *name, size_t n, struct slice wanted) {
    return slice_eq_nocase((struct slice){name, n}, wanted);
}

static enum MHD_Result look(void *arg, enum MHD_ValueKind kind, const char *name, size_t name_n,
                            const char *value, size_t value_n) {
    struct head *h = arg;
    (void)kind;
    if (memchr(name, ' ', name_n) || memchr(name, '\t', name_n))
        h->fault = "A header's name holds a space.";
    else if (is(name, name_n, SLICE_LIT("content-length")))
        h->lengths++;
    else if (is(name, name_n, SLICE_LIT("host")))
        h->hosts++;
    else if (is(name, name_n, SLICE_LIT("authorization")))
        h->keys++;
    else if (is(name, name_n, SLICE_LIT("transfer-encoding"))) {
        h->codings++;
        if (!value || !is(value, value_n, SLICE_LIT("chunked")))
            h->fault = "The only Transfer-Encoding is chunked.";
    }
    return h->fault ? MHD_NO : MHD_YES;
}

const char *head_fault(struct MHD_Connection *connection, const char *version) {
    struct head h = {0};
    (void)MHD_get_connection_values_n(connection, MHD_HEADER_KIND, look, &h);
    if (h.fault)
        return h.fault;
    if (h.lengths > 1 || h.codings > 1 || (h.lengths && h.codings))
        return "The length of the body is given more than once.";
    if (h.hosts > 1 || (!h.hosts && strcmp(version, MHD_HTTP_VERSION_1_1) == 0))
        return "One Host header is needed.";
    return h.keys > 1 ? "There is more than one Authorization header." : NULL;
}
