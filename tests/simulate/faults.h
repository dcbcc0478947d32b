/* What goes wrong and what operators do, each kind in some seeds only. */
#pragma once

#include <stdint.h>

/* Sets it in motion for subscriptions 1…lanes, until `until_ms` of true time. */
void faults_begin(uint32_t lanes, int64_t until_ms);
/* An attempt has just been sent. */
void faults_after_send(void);
