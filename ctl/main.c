#include "ctl.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
};

static const struct command commands[] = {
    {"sign", ctl_sign, "make a signed URL"},
    {"verify", ctl_verify, "say whether a signed URL is valid, and if not, why"},
    {"check", ctl_check, "check a configuration file or a file of keys"},
};

#define COMMANDS_N (sizeof(commands) / sizeof(commands[0]))

static void usage(FILE *out)
{
    fprintf(out, "usage: seguectl COMMAND [OPTION]... [ARGUMENT]...\n\n");
    for (size_t i = 0; i < COMMANDS_N; i++)
        fprintf(out, "  %-8s  %s\n", commands[i].name, commands[i].about);
    fprintf(out,
            "\n`seguectl COMMAND --help` says more. Exit status: 0 done, 1 refused or not valid, 2 wrong "
            "usage.\n");
}

static void print_error(const char *format, va_list args)
{
    fprintf(stderr, "seguectl: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
}

int ctl_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_error(format, args);
    va_end(args);
    return CTL_NO;
}

int ctl_usage_error(const char *command, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_error(format, args);
    va_end(args);
    fprintf(stderr, "`seguectl %s --help` says how it is used.\n", command);
    return CTL_USAGE;
}

bool ctl_target_of(struct str text, struct ctl_target *out)
{
    if (text.n > 0 && text.p[0] == '/') {
        *out = (struct ctl_target){.base = STR(""), .target = text};
        return true;
    }
    size_t scheme_n = str_starts(text, STR("http://")) ? 7 : str_starts(text, STR("https://")) ? 8 : 0;
    struct str rest = str_skip(text, scheme_n);
    const char *slash = scheme_n > 0 && rest.n > 0 ? memchr(rest.p, '/', rest.n) : NULL;
    if (slash == NULL || slash == rest.p)
        return false;
    *out = (struct ctl_target){.base = str_of(text.p, (size_t)(slash - text.p)),
                               .target = str_skip(text, (size_t)(slash - text.p))};
    return true;
}

struct ctl_text ctl_time(int64_t unix_s)
{
    struct ctl_text t;
    struct tm tm;
    time_t when = (time_t)unix_s;
    if (gmtime_r(&when, &tm) == NULL || strftime(t.text, sizeof(t.text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        snprintf(t.text, sizeof(t.text), "%" PRId64, unix_s);
    return t;
}

struct ctl_text ctl_span(uint64_t seconds)
{
    static const struct {
        uint64_t seconds;
        const char *name;
    } units[] = {{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}};
    struct ctl_text t;
    size_t i = 0;
    while (i < 3 && seconds < units[i].seconds)
        i++;
    int n = snprintf(t.text, sizeof(t.text), "%" PRIu64 " %s", seconds / units[i].seconds, units[i].name);
    seconds %= units[i].seconds;
    if (i < 3 && seconds >= units[i + 1].seconds)
        snprintf(t.text + n, sizeof(t.text) - (size_t)n, " %" PRIu64 " %s", seconds / units[i + 1].seconds,
                 units[i + 1].name);
    return t;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        usage(stderr);
        return CTL_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        usage(stdout);
        return CTL_OK;
    }
    for (size_t i = 0; i < COMMANDS_N; i++) {
        if (strcmp(argv[1], commands[i].name) != 0)
            continue;
        int status = commands[i].run(argc - 1, argv + 1);
        if (fflush(stdout) != 0 && status == CTL_OK)
            return ctl_error("cannot write to standard output");
        return status;
    }
    fprintf(stderr, "seguectl: there is no command \"%s\"\n\n", argv[1]);
    usage(stderr);
    return CTL_USAGE;
}
