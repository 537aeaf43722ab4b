/* The life of segue-edge and segue-shield: command line, configuration, shared state, worker threads, control
 * loop, reload and drain. What is particular to one of them is in struct program. */
#pragma once

#include "node/options.h"
#include "proxy/worker.h"

struct program {
    struct options_program options;
    enum proxy_role role;
};

/* Returns the exit status. */
int program_run(const struct program *program, int argc, char **argv);
