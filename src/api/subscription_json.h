/* What the control plane's routes share: the subscription of a path, its secrets, and how they are rendered.
 * Functions that return bool return false after having answered. */
#pragma once

#include "api/page.h"

DEFINE_CLEANUP(cleanup_json, json_t, json_decref)
#define _cleanup_json_ _cleanup_(cleanup_json)

/* ---- what came ---- */

/* No query parameters, and a body of JSON (for a PATCH also application/merge-patch+json). */
bool control_takes_json(struct request *r, bool patch);

/* ---- rendering; NULL when memory is out ---- */

/* A time, or null for 0. */
json_t *control_time(int64_t at);
/* A subscription as the API answers it: `doc` is what subscription_parse returned. */
json_t *subscription_json(const struct subscription_record *row, const json_t *doc, const char *tenant_id);
/* "whpk_…", or null for HMAC. */
json_t *secret_public_json(const struct signing_key *key);
const char *secret_scheme_name(enum signing_scheme scheme); /* "hmac", "ed25519" */

/* Answers doc; -ENOMEM when it is NULL: for the end of a change. */
int control_answer(struct request *r, int status, json_t *doc) MUST_USE;

/* ---- subscriptions and secrets ---- */

/* The subscription of the path, as it was when it was read. */
struct found_subscription {
    uint32_t no;
    char id[ID_TEXT_SIZE];
    json_t *json; /* the caller owns it */
};
bool control_subscription(struct request *r, struct found_subscription *ret);
void control_no_subscription(struct request *r); /* answers 404 */

/* The signing scheme that a document asks for; -1 when its word is unknown. */
int subscription_scheme(const json_t *doc);

/* The member "secret" of a body. 1 with the key; 0 when absent, or bad (told in errors); -EIO. It must be of
 * `scheme`, unless that is -1. */
int secret_given(const json_t *body, int scheme, struct signing_key *ret,
                 struct field_errors *errors) MUST_USE;
/* Within a change: a new secret, and its record. */
int secret_insert(struct request *r, struct store *s, uint32_t subscription_no, const struct signing_key *key,
                  struct secret_record *ret) MUST_USE;
/* Adds "secret" to an answer: the one time it is shown. */
int secret_show(json_t *answer, const struct signing_key *key) MUST_USE;

/* A fresh id, whose tail cannot be guessed. */
struct id control_new_id(struct request *r);
