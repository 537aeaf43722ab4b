#include "util/log.h"

#include "util/clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOG_LINE_BYTES_MAX 1024

static enum log_level level_max = LOG_LEVEL_INFO;

void log_set_level(enum log_level max)
{
    level_max = max;
}

static void write_line(enum log_level level, uint64_t held_back, const char *format, va_list args)
{
    char line[LOG_LINE_BYTES_MAX];
    const size_t room = sizeof line - 1; /* for the newline */
    size_t n = (size_t)snprintf(line, room, "<%d>", (int)level);
    int more = vsnprintf(line + n, room - n, format, args);

    n = more < 0 ? n : n + (size_t)more < room ? n + (size_t)more : room - 1;
    if (held_back > 0 && n + 1 < room) {
        more = snprintf(line + n, room - n, " (%llu more like it held back)", (unsigned long long)held_back);
        n = n + (size_t)more < room ? n + (size_t)more : room - 1;
    }
    for (size_t i = 0; i < n; i++) /* what a peer sent cannot forge a second line */
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    line[n++] = '\n';
    /* One write a line, so that lines of several threads do not mix. Nobody to tell when it fails. */
    ssize_t written = write(STDERR_FILENO, line, n);
    (void)written;
}

void log_write(enum log_level level, const char *format, ...)
{
    va_list args;

    if (level > level_max)
        return;
    va_start(args, format);
    write_line(level, 0, format, args);
    va_end(args);
}

void log_limited(struct log_limiter *limiter, enum log_level level, const char *format, ...)
{
    uint64_t now_ns = clock_mono_ns();
    va_list args;

    if (level > level_max)
        return;
    if (now_ns < limiter->next_ns) {
        limiter->held_back++;
        return;
    }
    limiter->next_ns = now_ns + NS_PER_S;
    va_start(args, format);
    write_line(level, limiter->held_back, format, args);
    va_end(args);
    limiter->held_back = 0;
}
