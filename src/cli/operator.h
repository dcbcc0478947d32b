/* The operator's own webhook (the settings operator-url and operator-secret): a subscription of
 * TENANT_OPERATOR that goes through the same pipeline as any other and shows in no tenant's lists. */
#pragma once

#include "core/address.h"
#include "store/store.h"

/* Judges the URL as one of a subscription's is. -EINVAL, -EPERM or -ENOMEM with *ret_reason, a static text.
 */
int operator_judge(const char *url, const struct address_policy *addresses, bool allow_http,
                   const char **ret_reason) MUST_USE;

struct operator_options {
    struct store *store;
    struct store_reader *reader;
    struct id_source *ids;
    const char *url, *secret; /* both or none: then the subscription of an earlier start is deleted */
};
/* At start, before anything else uses the store: makes its subscription what the settings say, enabled again
 * when it was disabled. */
int operator_prepare(const struct operator_options *o, int64_t now) MUST_USE;
