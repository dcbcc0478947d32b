#pragma once

#include "cli/commands.h"

extern const struct command completion_command;
