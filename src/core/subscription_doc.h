/* Internal to subscription*.c and policy_doc.c: a policy as a document. */
#pragma once

#include "core/doc.h"
#include "core/policy.h"

/* Reads the member "policy" of a subscription's document into its normal form. */
void policy_doc_parse(struct doc *subscription, uint32_t window_seconds_default);

/* The policy of a normal form, with one reference; what is missing there gets its default. NULL when memory
 * is out. */
struct policy *policy_from_doc(const json_t *policy);
