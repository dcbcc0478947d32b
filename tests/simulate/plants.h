/* Bugs that are planted on purpose, to show that the judges find them. Those of the store ask `planted`;
 * those of the lanes replace a function of theirs at link time (plants.c). */
#pragma once

#include <stdbool.h>
#include <stdio.h>

enum plant {
    PLANT_NONE,
    PLANT_FENCING,
    PLANT_CAP,
    PLANT_FIFO,
    PLANT_PROBE,
    PLANT_WAKEUP,
    PLANT_BARRIER,
    PLANT_REST,
    PLANT_RUSH,
    PLANT_TENANT,
    PLANT_RATE,
    PLANT_WINDOW,
    PLANT_BACKOFF,
    PLANT_LEASE,
    PLANT_FANOUT,
    PLANT_HOARD,
    PLANT_EARLY,
    PLANTS,
};

void plant_set(enum plant p);
bool planted(enum plant p);
const char *plant_name(enum plant p);
/* PLANTS when there is none of that name. */
enum plant plant_parse(const char *name);
void plant_list(FILE *to);
