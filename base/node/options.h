/* The command line that all the programs share: -c FILE, -t, -V, -h. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

struct options_program {
    const char *name;         /* "segue-edge" */
    const char *purpose;      /* one line, for -h */
    const char *default_path; /* of the configuration */
};

struct options {
    const char *config_path;
    bool check_only; /* -t */
};

/* Returns -1 to go on; else the exit status, all that was to be said having been printed (0 for -h and -V,
 * 2 for a wrong command line). */
int options_parse(int argc, char **argv, const struct options_program *program, struct options *out);

/* Name and version, the TLS library, and what io_uring offers on this machine. */
void options_print_version(FILE *to, const char *name);
