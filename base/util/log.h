/* Log lines to standard error, with the priority prefix journald reads (sd-daemon(3)).
 * A line says what happened, to whom, and what to do. Secrets never enter it. Thread-safe; not for the
 * path of a request that succeeds. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR = 3, LOG_LEVEL_WARN = 4, LOG_LEVEL_INFO = 6, LOG_LEVEL_DEBUG = 7 };

void log_set_level(enum log_level max);
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* For what a peer can cause again and again: at most one line a second for each limiter; the next one that
 * passes says how many were held back. */
struct log_limiter {
    uint64_t next_ns;
    uint64_t held_back;
};

void log_limited(struct log_limiter *limiter, enum log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
