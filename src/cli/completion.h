/* posthorn completion SHELL: a script for bash, zsh or fish, made of the tables of commands. */
#pragma once

#include "cli/commands.h"

extern const struct command completion_command;
