/* What the kernel says of this process, and the limits it gives. */
#pragma once

#include <stdint.h>

/* Raises RLIMIT_NOFILE to its hard maximum and logs what it is. Returns how many files may be open, or
 * -errno. */
int64_t process_raise_files(void);

/* For a process that holds keys: no core dump of it is written, and no other process of its user may look into its
 * memory. Stays so until its end. A failure is logged. */
void process_guard_memory(void);

struct process_usage {
    uint64_t resident_bytes;
    uint64_t virtual_bytes;
    uint64_t open_files;
    uint64_t files_max;
    uint64_t cpu_user_ns, cpu_system_ns;
    double start_unix_s;
    uint64_t threads;
};

/* What cannot be read stays 0. */
void process_usage(struct process_usage *out);
