#include "node/access_log.h"

#include "util/check.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/stats.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define RING_BYTES_DEFAULT (1024u * 1024)
#define RING_BYTES_MIN     (64u * 1024)   /* more than twice the longest record */
#define BATCH_BYTES        (256u * 1024)  /* what one write has, about */
#define BATCH_BYTES_MAX    (1024u * 1024) /* and one line more, by the longest that formatting may make */
#define WAIT_MS_MIN        5
#define WAIT_MS_MAX        100 /* how late a line may be while nothing is going on */
#define RETRY_NS           NS_PER_S

/* --- the ring: byte offsets that only grow; a record never wraps --- */

#define STRINGS_N 10

struct packed {       /* what stands in the ring, the strings' bytes behind it, padded to 8 */
    uint32_t bytes;   /* all of it */
    uint16_t is_skip; /* nothing but the way to the ring's start */
    uint16_t lengths[STRINGS_N];
    struct address client;
    uint64_t unix_ns, ttfb_ns, total_ns, body_bytes, sent_bytes, upstream_ns;
    uint16_t status, upstream_status, worker;
    uint8_t cache, http_version, aborted, cut;
    char country[2];
};

struct access_ring {
    /* the worker's side */
    _Alignas(64) _Atomic uint64_t head; /* bytes ever put in */
    uint64_t tail_seen;                 /* what the worker last knew of tail */
    uint64_t dropped;
    struct access_log *log;
    char *bytes;
    uint64_t mask;
    /* the writer's side */
    _Alignas(64) _Atomic uint64_t tail; /* bytes ever taken out */
};

#define ACCESS_LOG_MAGIC 0x414c4f47u

struct access_log {
    uint32_t magic;
    enum access_log_format format;
    char *path;
    struct access_ring *rings;
    unsigned rings_n;
    pthread_t thread;
    int event_fd; /* wakes the writer before its time */
    _Atomic bool nudged, reopen, stop;

    /* the writer thread's */
    int fd;
    struct grow batch;
    size_t batch_done;     /* bytes of it in the file */
    uint64_t retry_at_ns;  /* writing, after a failure */
    uint64_t reopen_at_ns; /* opening anew, after a failure: the old file goes on being used */
    struct log_limiter limiter;
    uint64_t lines, bytes_written, errors, lost;
};

static void nudge(struct access_log *log)
{
    uint64_t one = 1;

    if (!atomic_exchange(&log->nudged, true)) {
        ssize_t n = write(log->event_fd, &one, sizeof one);
        (void)n; /* an eventfd that is full wakes as well */
    }
}

/* n contiguous bytes at head, after a skip record when the ring's end is too near; NULL: no room. */
static char *ring_room(struct access_ring *ring, uint64_t *head, size_t n)
{
    uint64_t size = ring->mask + 1, at = *head & ring->mask;
    size_t skip = at + n > size ? (size_t)(size - at) : 0;

    if (*head + skip + n - ring->tail_seen > size) {
        ring->tail_seen = atomic_load_explicit(&ring->tail, memory_order_acquire);
        if (*head + skip + n - ring->tail_seen > size)
            return NULL;
    }
    if (skip > 0) {
        /* What is left is a multiple of 8: the two first members fit. */
        struct packed *p = (struct packed *)(void *)(ring->bytes + at);

        p->bytes = (uint32_t)skip;
        p->is_skip = 1;
        *head += skip;
        at = 0;
    }
    return ring->bytes + at;
}

void access_log_add(struct access_ring *ring, const struct access_record *r)
{
    const struct str strings[STRINGS_N] = {r->target, r->method, r->host,       r->reason,  r->uid,
                                           r->kid,    r->range,  r->user_agent, r->referer, r->upstream};
    uint64_t start = atomic_load_explicit(&ring->head, memory_order_relaxed), head = start;
    uint16_t lengths[STRINGS_N];
    size_t n = sizeof(struct packed);
    bool cut = false;
    struct packed *p;
    char *to;

    for (unsigned i = 0; i < STRINGS_N; i++) {
        size_t max = i == 0 ? ACCESS_TARGET_BYTES_MAX : ACCESS_FIELD_BYTES_MAX;

        cut |= strings[i].n > max;
        lengths[i] = (uint16_t)(strings[i].n > max ? max : strings[i].n);
        n += lengths[i];
    }
    n = (n + 7) & ~(size_t)7;
    to = ring_room(ring, &head, n);
    if (to == NULL) {
        stat_inc(&ring->dropped);
        return;
    }
    p = (struct packed *)(void *)to;
    *p = (struct packed){.bytes = (uint32_t)n,
                         .client = r->client,
                         .unix_ns = r->unix_ns,
                         .ttfb_ns = r->ttfb_ns,
                         .total_ns = r->total_ns,
                         .body_bytes = r->body_bytes,
                         .sent_bytes = r->sent_bytes,
                         .upstream_ns = r->upstream_ns,
                         .status = r->status,
                         .upstream_status = r->upstream_status,
                         .worker = r->worker,
                         .cache = r->cache,
                         .http_version = r->http_version,
                         .aborted = r->aborted,
                         .cut = cut,
                         .country = {r->country[0], r->country[1]}};
    memcpy(p->lengths, lengths, sizeof lengths);
    to += sizeof *p;
    for (unsigned i = 0; i < STRINGS_N; i++) {
        if (lengths[i] > 0)
            memcpy(to, strings[i].p, lengths[i]);
        to += lengths[i];
    }
    atomic_store_explicit(&ring->head, head + n, memory_order_release);
    /* Past half, the writer is told once, not for every record that follows. */
    if (UNLIKELY(head + n - ring->tail_seen > (ring->mask + 1) / 2)) {
        ring->tail_seen = atomic_load_explicit(&ring->tail, memory_order_acquire);
        if (head + n - ring->tail_seen > (ring->mask + 1) / 2 &&
            !atomic_load_explicit(&ring->log->nudged, memory_order_relaxed))
            nudge(ring->log);
    }
}

/* --- the writer --- */

static void unpack(const struct packed *p, struct access_record *r)
{
    const char *at = (const char *)(p + 1);
    struct str strings[STRINGS_N];

    for (unsigned i = 0; i < STRINGS_N; i++) {
        strings[i] = str_of(at, p->lengths[i]);
        at += p->lengths[i];
    }
    *r = (struct access_record){.unix_ns = p->unix_ns,
                                .ttfb_ns = p->ttfb_ns,
                                .total_ns = p->total_ns,
                                .body_bytes = p->body_bytes,
                                .sent_bytes = p->sent_bytes,
                                .upstream_ns = p->upstream_ns,
                                .client = p->client,
                                .status = p->status,
                                .upstream_status = p->upstream_status,
                                .worker = p->worker,
                                .cache = p->cache,
                                .http_version = p->http_version,
                                .aborted = p->aborted,
                                .cut = p->cut,
                                .country = {p->country[0], p->country[1]},
                                .target = strings[0],
                                .method = strings[1],
                                .host = strings[2],
                                .reason = strings[3],
                                .uid = strings[4],
                                .kid = strings[5],
                                .range = strings[6],
                                .user_agent = strings[7],
                                .referer = strings[8],
                                .upstream = strings[9]};
}

/* Formats what the ring has, as far as the batch may grow. True when something is left. */
static bool take_ring(struct access_log *log, struct access_ring *ring)
{
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);

    while (tail != head && log->batch.n < BATCH_BYTES) {
        const struct packed *p = (const struct packed *)(const void *)(ring->bytes + (tail & ring->mask));

        if (!p->is_skip) {
            struct access_record r;
            size_t before = log->batch.n;

            unpack(p, &r);
            access_log_format(&log->batch, log->format, &r);
            if (log->batch.failed) { /* no memory */
                log->batch.n = before;
                log->batch.failed = false;
                stat_inc(&log->lost);
            } else {
                stat_inc(&log->lines);
            }
        }
        tail += p->bytes;
        atomic_store_explicit(&ring->tail, tail, memory_order_release);
    }
    return tail != head;
}

/* O_NONBLOCK keeps a FIFO without a reader from holding the thread; a file does not care. */
static int open_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);

    return fd < 0 ? -errno : fd;
}

static void write_failed(struct access_log *log, int error)
{
    stat_inc(&log->errors);
    log->retry_at_ns = clock_mono_ns() + RETRY_NS;
    log_limited(&log->limiter, LOG_LEVEL_ERROR,
                "cannot write the access log %s: %s; lines are dropped while the workers' rings are full, "
                "and it is tried again every second",
                log->path, strerror(error));
}

/* Writes the batch. False when it cannot be written at this time; what is not written stays, so that no line
 * is torn. */
static bool flush_batch(struct access_log *log)
{
    while (log->batch_done < log->batch.n) {
        ssize_t n;

        if (log->fd < 0) {
            int fd = open_file(log->path);

            if (fd < 0) {
                write_failed(log, -fd);
                return false;
            }
            log->fd = fd;
        }
        n = write(log->fd, log->batch.p + log->batch_done, log->batch.n - log->batch_done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            write_failed(log, n < 0 ? errno : EIO);
            return false;
        }
        log->batch_done += (size_t)n;
        stat_add(&log->bytes_written, (uint64_t)n);
    }
    log->batch.n = log->batch_done = 0;
    return true;
}

static bool same_file(int a, int b)
{
    struct stat x, y;

    return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Leaves the old file with whole lines where it can, and never begins the new one in the middle of one. */
static void reopen_file(struct access_log *log)
{
    int fd = open_file(log->path);

    if (fd < 0) {
        stat_inc(&log->errors);
        log->reopen_at_ns = clock_mono_ns() + RETRY_NS;
        atomic_store(&log->reopen, true);
        log_limited(&log->limiter, LOG_LEVEL_ERROR,
                    "cannot open the access log %s anew: %s; the old file goes on being used", log->path,
                    strerror(-fd));
        return;
    }
    if (log->fd >= 0) {
        flush_batch(log);
        if (log->batch_done > 0 && log->batch.p[log->batch_done - 1] != '\n' && !same_file(log->fd, fd)) {
            const char *from = log->batch.p + log->batch_done;
            const char *end = memchr(from, '\n', log->batch.n - log->batch_done);

            log->batch_done += (size_t)(end + 1 - from);
            stat_inc(&log->lost);
        }
        log->retry_at_ns = 0; /* the failure was the old file's */
        close(log->fd);
    }
    log->fd = fd;
}

/* Takes out and writes all there is. True when there was something. */
static bool write_all(struct access_log *log)
{
    bool any = false, more = true;

    while (more) {
        if (!flush_batch(log))
            return any;
        more = false;
        for (unsigned i = 0; i < log->rings_n; i++)
            more |= take_ring(log, &log->rings[i]);
        any |= log->batch.n > 0;
        more |= log->batch.n > 0;
    }
    return any;
}

static void wait_for_work(struct access_log *log, int wait_ms)
{
    struct pollfd p = {.fd = log->event_fd, .events = POLLIN};
    uint64_t drained;

    if (poll(&p, 1, wait_ms) > 0) {
        ssize_t n = read(log->event_fd, &drained, sizeof drained);
        (void)n;
    }
    atomic_store(&log->nudged, false);
}

static void *writer_main(void *arg)
{
    struct access_log *log = arg;
    int wait_ms = WAIT_MS_MIN;

    pthread_setname_np(pthread_self(), "access-log");
    for (;;) {
        bool stop = atomic_load(&log->stop), any = false;
        uint64_t now_ns = clock_mono_ns();

        if (now_ns >= log->reopen_at_ns && atomic_exchange(&log->reopen, false))
            reopen_file(log);
        if (now_ns >= log->retry_at_ns || stop)
            any = write_all(log);
        if (stop)
            return NULL;
        wait_ms = any ? WAIT_MS_MIN : wait_ms * 2 > WAIT_MS_MAX ? WAIT_MS_MAX : wait_ms * 2;
        wait_for_work(log, wait_ms);
    }
}

/* --- opening and closing --- */

static void free_log(struct access_log *log)
{
    for (unsigned i = 0; log->rings != NULL && i < log->rings_n; i++)
        free(log->rings[i].bytes);
    free(log->rings);
    free(log->path);
    grow_free(&log->batch);
    if (log->fd >= 0)
        close(log->fd);
    if (log->event_fd >= 0)
        close(log->event_fd);
    log->magic = 0;
    free(log);
}

static int make_rings(struct access_log *log, unsigned workers, size_t ring_bytes)
{
    CHECK(workers > 0 && ring_bytes >= RING_BYTES_MIN && (ring_bytes & (ring_bytes - 1)) == 0);
    log->rings = aligned_alloc(64, workers * sizeof *log->rings);
    if (log->rings == NULL)
        return -ENOMEM;
    memset(log->rings, 0, workers * sizeof *log->rings);
    log->rings_n = workers;
    for (unsigned i = 0; i < workers; i++) {
        log->rings[i].log = log;
        log->rings[i].mask = ring_bytes - 1;
        log->rings[i].bytes = malloc(ring_bytes);
        if (log->rings[i].bytes == NULL)
            return -ENOMEM;
    }
    return 0;
}

int access_log_open(struct access_log **out, const struct access_log_options *options)
{
    struct access_log *log = calloc(1, sizeof *log);
    int error;

    if (log == NULL)
        return -ENOMEM;
    *log = (struct access_log){.magic = ACCESS_LOG_MAGIC,
                               .format = options->format,
                               .fd = -1,
                               .event_fd = -1,
                               .batch = grow_of(BATCH_BYTES_MAX)};
    log->path = strdup(options->path);
    error = log->path == NULL ? -ENOMEM
                              : make_rings(log, options->workers,
                                           options->ring_bytes ? options->ring_bytes : RING_BYTES_DEFAULT);
    if (error != 0)
        goto fail;
    log->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (log->event_fd < 0) {
        error = -errno;
        goto fail;
    }
    log->fd = open_file(log->path);
    if (log->fd < 0) {
        error = log->fd;
        goto fail;
    }
    error = -pthread_create(&log->thread, NULL, writer_main, log);
    if (error != 0)
        goto fail;
    *out = log;
    return 0;

fail:
    free_log(log);
    return error;
}

void access_log_close(struct access_log **log, uint64_t wait_ms)
{
    struct access_log *gone = TAKE(log);
    uint64_t until_ns = clock_unix_ns() + wait_ms * NS_PER_MS;
    struct timespec until = {.tv_sec = (time_t)(until_ns / NS_PER_S), .tv_nsec = (long)(until_ns % NS_PER_S)};

    CHECK_MAGIC(gone, ACCESS_LOG_MAGIC);
    atomic_store(&gone->stop, true);
    atomic_store(&gone->nudged, false);
    nudge(gone);
    if (pthread_timedjoin_np(gone->thread, NULL, &until) != 0) {
        log_warn("the access log %s takes too long to write; its last lines are lost", gone->path);
        pthread_detach(gone->thread); /* it may still be in write(2), with all of this in its hands */
        return;
    }
    free_log(gone);
}

void access_log_reopen(struct access_log *log)
{
    CHECK_MAGIC(log, ACCESS_LOG_MAGIC);
    atomic_store(&log->reopen, true);
    nudge(log);
}

struct access_ring *access_log_ring(struct access_log *log, unsigned worker)
{
    CHECK_MAGIC(log, ACCESS_LOG_MAGIC);
    CHECK(worker < log->rings_n);
    return &log->rings[worker];
}

void access_log_metrics(struct metrics_writer *w, void *context)
{
    const struct access_log *log = context;
    uint64_t dropped = stat_get(&log->lost), waiting = 0;

    CHECK_MAGIC(log, ACCESS_LOG_MAGIC);
    for (unsigned i = 0; i < log->rings_n; i++) {
        const struct access_ring *ring = &log->rings[i];

        dropped += stat_get(&ring->dropped);
        waiting += atomic_load(&ring->head) - atomic_load(&ring->tail);
    }
    metrics_family(w, "access_log_lines_total", METRIC_COUNTER, "Lines of the access log formatted.");
    metrics_u64(w, NULL, stat_get(&log->lines));
    metrics_family(w, "access_log_dropped_total", METRIC_COUNTER,
                   "Lines dropped because the writer did not keep up, or was not able to write.");
    metrics_u64(w, NULL, dropped);
    metrics_family(w, "access_log_written_bytes_total", METRIC_COUNTER, "Bytes written to the access log.");
    metrics_u64(w, NULL, stat_get(&log->bytes_written));
    metrics_family(w, "access_log_errors_total", METRIC_COUNTER, "Failures to open or write the access log.");
    metrics_u64(w, NULL, stat_get(&log->errors));
    metrics_family(w, "access_log_waiting_bytes", METRIC_GAUGE, "Bytes of records in the workers' rings.");
    metrics_u64(w, NULL, waiting);
}
