/* What a newcomer pastes next. */
#pragma once

#include "base/bytes.h"

/* Three commands for bash: create a subscription, publish an event, see its delivery. `key` is how the shell
 * gets the key, such as "$(cat DIR/admin.key)"; receiver is a URL. */
void hints_first_steps(struct buf *out, const char *base_url, const char *key, const char *receiver);

/* The same once tenant demo is subscribed: publish another event, list the deliveries, look at one. */
void hints_dev(struct buf *out, const char *base_url, const char *key, const char *delivery_id);
