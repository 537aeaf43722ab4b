/* The access log: each worker copies a compact record into a ring of its own (one writer, one reader, no
 * lock); one writer thread formats them and writes in batches. What the writer cannot keep up with is dropped
 * and counted, never waited for. The file is opened for appending, opened anew on demand (rotation), and
 * when it fails.
 *
 * No `sig` is ever written: formatting replaces its value by '-' in the target and the referer, wherever a
 * parameter of that name may stand, however it is encoded. Formats: docs/access-log.md. */
#pragma once

#include "net/address.h"
#include "node/metrics.h"
#include "util/grow.h"
#include "util/str.h"

enum access_log_format { ACCESS_LOG_JSON, ACCESS_LOG_COMBINED };

enum access_cache {                    /* what the cache did with it */
                    ACCESS_CACHE_NONE, /* answered without it: errors, refusals, health */
                    ACCESS_CACHE_HIT,
                    ACCESS_CACHE_MISS,
                    ACCESS_CACHE_JOINED, /* a miss that read along with another's fill */
                    ACCESS_CACHE_STALE,
                    ACCESS_CACHE_REVALIDATED,
                    ACCESS_CACHE_PASS, /* not cacheable */
                    ACCESS_CACHE_VALUES,
};
const char *access_cache_name(enum access_cache c); /* "hit", ... */

/* Strings are borrowed for the call. Longer ones than these are cut, and the line says so. */
#define ACCESS_TARGET_BYTES_MAX 8192
#define ACCESS_FIELD_BYTES_MAX  1024

struct access_record {
    uint64_t unix_ns;                /* when the head was complete */
    uint64_t ttfb_ns;                /* from there to the first byte of the answer given to the kernel */
    uint64_t total_ns;               /* from there to the last one, or to the end of it all */
    uint64_t body_bytes, sent_bytes; /* given to the kernel: of the body; of everything */
    uint64_t upstream_ns; /* to the upstream's first byte; 0 with upstream_status 0: none was asked */
    struct address client;
    uint16_t status; /* 0: none was sent */
    uint16_t upstream_status;
    uint16_t worker;
    uint8_t cache;        /* enum access_cache */
    uint8_t http_version; /* 10, 11, 20 */
    bool aborted;         /* the client went, or was cut off, before the end */
    char country[2];      /* of the client; NULs: not known */
    bool cut;             /* a string was longer than what a record holds; set by access_log_add */
    struct str method;
    struct str target; /* as sent */
    struct str host;
    struct str reason; /* as in Segue-Reason */
    struct str uid;
    struct str kid;
    struct str range;
    struct str user_agent;
    struct str referer;
    struct str upstream; /* its name or address */
};

struct access_log;
struct access_ring;

struct access_log_options {
    const char *path; /* copied */
    enum access_log_format format;
    unsigned workers;
    size_t ring_bytes; /* for each worker, a power of two; 0: 1 MiB, 50 ms at 50,000 lines a second */
};

/* Opens the file (mode 0640) and starts the writer thread. 0 or -errno. */
int access_log_open(struct access_log **out, const struct access_log_options *options);

/* The writer writes what is in the rings, and ends; waits for it at most wait_ms (a disk may hang; then the
 * thread and its memory are left behind). No worker may add any more. */
void access_log_close(struct access_log **log, uint64_t wait_ms);

/* Any thread: open the file anew, after rotation. */
void access_log_reopen(struct access_log *log);

/* The worker's ring, for its thread alone. */
struct access_ring *access_log_ring(struct access_log *log, unsigned worker);

/* Copies the record or drops it. Never waits, never allocates. */
void access_log_add(struct access_ring *ring, const struct access_record *record);

/* A metrics_source; the context is the log. */
void access_log_metrics(struct metrics_writer *w, void *log);

/* --- pure, for tests and for the other logs --- */

/* s with the value of every parameter `sig` replaced by '-'. The result is never longer. */
void access_log_scrub(struct grow *out, struct str s);

/* One line with its newline. */
void access_log_format(struct grow *out, enum access_log_format format, const struct access_record *record);
