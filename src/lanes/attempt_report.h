/* What is told of attempts outside the store: metrics, spans and log lines. */
#pragma once

#include "deliver/attempt.h"
#include "lanes/dispatch.h"

/* Of an attempt that was sent and has ended; its settlement is prepared. */
void report_attempt(const struct dispatch_options *o, const struct attempt *a, enum outcome_class class);

/* Of an endpoint whose health has changed by it. */
void report_health(const struct attempt *a, const struct lane_news *news);
