/* Pieces of the settings' documentation that the sections' share. */
#pragma once

#include "cli/settings.h"

/* What follows the first cell of a setting's row: default, allowed, what and why. */
void config_help_cells(const struct setting *s, struct buf *out);
