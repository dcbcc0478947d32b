/* The key that seals signing secrets in the store: of the settings, or made in the data folder. */
#pragma once

#include "cli/config.h"
#include "store/store.h"

/* Finds the keys (secret-key-file or POSTHORN_SECRET_KEY, else secret.key in the data folder, which is made
 * for a store that has sealed nothing yet; and the previous ones) and unlocks the store, whose lock this
 * process holds. What went wrong is logged. */
int secret_key_unlock(const struct config *c, struct store *store) MUST_USE;

/* The keys that are there, without making one. 0, and none in *ret when there is none; negative errno
 * (logged) when one that the settings name cannot be used. The caller wipes *ret. */
int secret_key_at_hand(const struct config *c, struct seal_keyring *ret) MUST_USE;
