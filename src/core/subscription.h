/* A subscription: where a tenant's events of some types go, and how. `struct subscription` is the part that
 * delivering needs, an immutable snapshot shared by reference between the stages; a change makes a new one.
 * The user's whole document lives in the store. */
#pragma once

#include <jansson.h>

#include "core/field_errors.h"
#include "core/filter.h"
#include "core/id.h"
#include "core/policy.h"
#include "core/signature.h"
#include "core/tenant.h"
#include "core/tls_material.h"

enum subscription_status {
    SUBSCRIPTION_ACTIVE,
    SUBSCRIPTION_PAUSED,
    SUBSCRIPTION_DISABLED,
    SUBSCRIPTION_DELETED
};
enum subscription_ordering { ORDERING_NONE, ORDERING_KEY, ORDERING_STRICT };
enum subscription_format { FORMAT_ENVELOPE, FORMAT_RAW, FORMAT_CLOUDEVENTS };

enum {
    SUBSCRIPTION_URL_MAX = 2048,
    SUBSCRIPTION_EVENT_TYPES_MAX = 100,
    SUBSCRIPTION_HEADERS_MAX = 32,
    SUBSCRIPTION_HEADER_BYTES_MAX = 4096, /* name and value of one */
    SUBSCRIPTION_DESCRIPTION_MAX = 1024,
    SUBSCRIPTION_METADATA_BYTES_MAX = 16384,
    SUBSCRIPTION_SECRETS_MAX = 8, /* in force at one time */
};

struct subscription {
    atomic_uint refs;
    uint32_t no; /* the store's number, the lane's name */
    uint32_t tenant_no;
    struct id id;
    enum subscription_status status;
    enum subscription_ordering ordering;
    enum subscription_format format;
    bool receipts;
    bool has_tls;    /* its document says so: tls is to be loaded */
    bool allow_http; /* the tenant's or the server's leave, judged at every send */
    enum tenant_tier tier;
    uint64_t tier_change; /* as of its tenant */
    uint16_t event_types_n, keys_n;
    const char *tenant_id;
    const char *url;         /* canonical */
    const char *event_types; /* exact names or "prefix.*", each ended by NUL; none: all */
    const char *headers;     /* "Name: value\r\n…" ready to send, or NULL */
    char *texts;             /* the one block that these four are in */
    struct filter *filter;   /* NULL: none */
    struct policy *policy;
    int64_t resumed_at;    /* Unix ms of the last end of a pause, 0 when never paused */
    int64_t failing_since; /* its health as the store knew it: a new lane takes it up from there */
    int64_t raised_since;
    uint64_t relane;          /* not 0: open deliveries have yet to follow this change of ordering */
    uint64_t jobs_settled;    /* fan-out jobs up to this number are none of its any more */
    struct tls_material *tls; /* or NULL */
    struct signing_key *keys; /* newest first */
};

/* The entry of event_types that follows this one; past the last there is none. */
static inline const char *event_type_after(const char *type) {
    return type + strlen(type) + 1;
}

struct subscription *subscription_ref(struct subscription *s);
void subscription_unref(struct subscription *s); /* NULL-safe */

DEFINE_CLEANUP(cleanup_subscription, struct subscription, subscription_unref)
#define _cleanup_subscription_ _cleanup_(cleanup_subscription)

/* Validates a subscription document as the API takes and keeps it: the members of api.md §2 "Subscription"
 * that a user may set (url, event_types, filter, description, metadata, status, ordering, format, signature,
 * headers, receipts, policy, tls). Absent or null members get their defaults; every bad or unknown one adds
 * an entry to `errors` and NULL is returned (without an entry: memory is out). On success returns the full
 * document with all defaults filled in (the caller owns it), ready to be stored and answered, but for `tls`:
 * its place is taken by true or null (subscription_take_tls) before. The address of `url` is not judged here.
 * Load documents with JSON_ALLOW_NUL, so that U+0000 is told as a bad field. */
json_t *subscription_parse(const json_t *doc, struct field_errors *errors);
/* The same with the defaults of a tenant's tier; subscription_parse takes those of TIER_STANDARD. */
json_t *subscription_parse_for(const json_t *doc, enum tenant_tier tier, struct field_errors *errors);

/* A PATCH: what `patch` (RFC 7396) makes of a stored document, to be parsed again, so that null restores the
 * default. A patch with the other form of policy.retry replaces the stored one whole. What the patch
 * sets to null stands in the result as null, so that unknown names are refused. The caller owns the result;
 * NULL when memory is out. A filter is merged into as any other member. */
json_t *subscription_merge(const json_t *doc, const json_t *patch);

/* Takes `tls` out of such a document, leaving true in its place when there was one: what it holds is stored
 * sealed, apart from the document. The caller owns the result, which is null when there was none; NULL when
 * memory is out. */
json_t *subscription_take_tls(json_t *doc);

/* The snapshot of a document that subscription_parse returned, from its JSON as the store keeps it: one
 * reference, all fields but no, tenant_no, id, tier, allow_http, resumed_at, health, tls and keys filled in.
 * Documents that are read one after another share a memo. -EINVAL: it is no such document; -ENOMEM. */
int subscription_from_text(struct slice doc, struct slice tenant_id, struct policy_memo *memo,
                           struct subscription **ret) MUST_USE;
/* The same of one that was parsed just now. NULL when memory is out. */
struct subscription *subscription_from_doc(const json_t *doc, struct slice tenant_id);

/* Whether a pattern means an event type: the same name, or "x.*" for what begins with "x.". */
bool event_type_covered(struct slice pattern, struct slice event_type);

/* Whether an event type matches the subscription's list. "x.*" matches "x.a" and "x.a.b", not "x"; an empty
 * list matches every type but those that begin with "posthorn.". */
bool subscription_matches(const struct subscription *s, struct slice event_type);
/* Whether the event is one that the subscription asks for: by its type and its filter, whatever its status.
 */
bool subscription_wants(const struct subscription *s, const struct filter_subject *event, uint64_t *steps);

/* What orders the deliveries of an event within its subscription: 0 for unordered; those with the same value
 * go one at a time, in publish order. Keys that share a hash are serialised together, which is harmless.
 * Stored. */
static inline uint64_t subscription_lane_key(enum subscription_ordering ordering, struct slice ordering_key) {
    if (ordering == ORDERING_STRICT)
        return 1;
    if (ordering == ORDERING_NONE || !ordering_key.p)
        return 0;
    return hash64(ordering_key.p, ordering_key.n) >> 2 | UINT64_C(2);
}

const char *subscription_status_name(enum subscription_status s);
const char *subscription_ordering_name(enum subscription_ordering o);
const char *subscription_format_name(enum subscription_format f);
/* "deleted" too; a user may not set that. */
int subscription_status_parse(struct slice s, enum subscription_status *ret) MUST_USE;
