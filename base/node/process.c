#include "node/process.h"

#include "util/clock.h"
#include "util/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

int64_t process_raise_files(void)
{
    struct rlimit limit;
    rlim_t before;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return -errno;
    before = limit.rlim_cur;
    if (limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
            int error = errno;

            log_warn("the limit of open files stays at %llu (raising it to %llu: %s)",
                     (unsigned long long)before, (unsigned long long)limit.rlim_max, strerror(error));
            return -error;
        }
    }
    log_info("up to %llu files may be open (LimitNOFILE)", (unsigned long long)limit.rlim_cur);
    return limit.rlim_cur > INT64_MAX ? INT64_MAX : (int64_t)limit.rlim_cur;
}

#ifndef __has_feature
#define __has_feature(x) 0
#endif

void process_guard_memory(void)
{
    struct rlimit none = {0};
    /* The limit does not hold for dumps that are piped to a program (core(5)), the flag does for all. */
    bool limited = setrlimit(RLIMIT_CORE, &none) == 0;
    bool guarded = true;

    if (!__has_feature(address_sanitizer)) /* whose search for leaks looks in from another process */
        guarded = prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0;
    if (!limited || !guarded)
        log_warn("keys may end up in a core dump: %s", strerror(errno));
}

/* Reads a small file of /proc, terminated. False when it cannot be read. */
static bool read_proc(const char *path, char *to, size_t cap)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return false;
    n = read(fd, to, cap - 1);
    close(fd);
    to[n > 0 ? n : 0] = 0;
    return n > 0;
}

static uint64_t open_files(void)
{
    struct stat st;
    uint64_t n = 0;
    DIR *dir;

    /* Since Linux 6.2 the directory's size is the number of descriptors. */
    if (stat("/proc/self/fd", &st) == 0 && st.st_size > 0)
        return (uint64_t)st.st_size;
    dir = opendir("/proc/self/fd");
    if (dir == NULL)
        return 0;
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir))
        if (e->d_name[0] != '.')
            n++;
    closedir(dir);
    return n > 0 ? n - 1 : 0; /* the directory itself was open */
}

/* Unix seconds at which the machine booted; changes with the wall clock. */
static double boot_unix_s(void)
{
    char text[64 * 1024];
    const char *line;

    if (!read_proc("/proc/stat", text, sizeof text))
        return 0;
    line = strstr(text, "\nbtime ");
    return line ? strtod(line + strlen("\nbtime "), NULL) : 0;
}

static void read_stat(struct process_usage *out)
{
    char text[2048];
    unsigned long long threads, start_ticks;
    const char *after_name; /* the name may hold anything, also ')' */

    if (!read_proc("/proc/self/stat", text, sizeof text))
        return;
    after_name = strrchr(text, ')');
    /* state is field 3, num_threads 20, starttime 22 (proc(5)) */
    if (after_name == NULL || sscanf(after_name + 1,
                                     " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
                                     "%llu %*s %llu",
                                     &threads, &start_ticks) != 2)
        return;
    out->threads = threads;
    out->start_unix_s = boot_unix_s() + (double)start_ticks / (double)sysconf(_SC_CLK_TCK);
}

static uint64_t timeval_ns(struct timeval t)
{
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_usec * NS_PER_US;
}

void process_usage(struct process_usage *out)
{
    struct rusage usage;
    struct rlimit limit;
    char text[256];
    unsigned long long all_pages, resident_pages;
    uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);

    *out = (struct process_usage){.open_files = open_files()};
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        out->cpu_user_ns = timeval_ns(usage.ru_utime);
        out->cpu_system_ns = timeval_ns(usage.ru_stime);
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        out->files_max = limit.rlim_cur;
    if (read_proc("/proc/self/statm", text, sizeof text) &&
        sscanf(text, "%llu %llu", &all_pages, &resident_pages) == 2) {
        out->virtual_bytes = all_pages * page_bytes;
        out->resident_bytes = resident_pages * page_bytes;
    }
    read_stat(out);
}
