/* Events, deliveries and attempts as the JSON of api.md §2.1. Written piece by piece, because an event's data
 * keep their bytes. */
#pragma once

#include "api/request.h"

void render_event(struct buf *out, const char *tenant_id, const struct event_row *row);

/* A delivery without its closing brace, so that attempts and timeline can follow. */
void render_delivery_open(struct buf *out, const char *tenant_id, const struct delivery_row *row,
                          enum lane_wait waiting_on);

void render_attempt(struct buf *out, const struct delivery_row *delivery, const struct attempt_row *row);

/* One transition: {"at","from","to","reason"}, without braces. `from` < 0: null. */
void render_transition(struct buf *out, int64_t at, int from, enum delivery_state to, const char *reason);

/* ,"name":"text" or ,"name":null for an absent slice; and for times, 0 being null. The comma is left out when
 * first. */
void render_text(struct buf *out, const char *name, struct slice text);
void render_time(struct buf *out, const char *name, int64_t ms);
