/* seguectl: one function a subcommand. They print results to standard output and errors to standard error,
 * and return the exit status: 0 done, 1 no (refused, not valid), 2 wrong usage. */
#pragma once

#include "util/str.h"

#define CTL_OK    0
#define CTL_NO    1
#define CTL_USAGE 2

int ctl_sign(int argc, char **argv);
int ctl_verify(int argc, char **argv);
int ctl_check(int argc, char **argv);

/* "seguectl: ..." and a newline to standard error. Returns CTL_NO. */
int ctl_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same with a hint at --help. Returns CTL_USAGE. */
int ctl_usage_error(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What a user gives as a target: a path, or a URL with scheme and host before it. */
struct ctl_target {
    struct str base;   /* "https://audio.example.net", or empty */
    struct str target; /* from the path's "/" on, with its query */
};

/* Returns false for what is neither. */
bool ctl_target_of(struct str text, struct ctl_target *out);

/* "2026-09-21T14:13:20Z" */
struct ctl_text {
    char text[64];
};
struct ctl_text ctl_time(int64_t unix_s);
struct ctl_text ctl_span(uint64_t seconds); /* "3 h 12 min" */
