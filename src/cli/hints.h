/* What a newcomer pastes next. */
#pragma once

#include "base/bytes.h"

/* How a shell gets the admin key: $POSTHORN_ADMIN_KEY when the server has it from there, else "$(cat …)" of
 * its file, with the path whole and quoted. Goes between double quotes. */
void hints_key(struct buf *out, const char *data, bool from_environment);

/* Three commands for bash: create a subscription, publish an event, see its delivery. `key` is as hints_key
 * writes it. `receiver_port` is of 127.0.0.1; 0: the server may not send there, and a name that stands for a
 * receiver elsewhere takes its place. */
void hints_first_steps(struct buf *out, const char *base_url, const char *key, uint16_t receiver_port);

/* The same once tenant demo is subscribed: publish another event, list the deliveries, look at one. */
void hints_dev(struct buf *out, const char *base_url, const char *key, const char *delivery_id);
