/* Making and unmaking the ring: the ladder of setups, and what the kernel can do. */
#include "io/io_internal.h"

#include "util/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Completions for each submission entry: each connection can have a receive and a send complete at once. */
#define COMPLETIONS_PER_ENTRY 8u

/* How long io_destroy waits for what it has cancelled. */
#define DRAIN_TRIES_MAX 500u
#define DRAIN_TRY_NS    (10 * NS_PER_MS)

static const struct rung {
    const char *name;
    unsigned flags;
} rungs[] = {
    {"deferred task work",
     IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP},
    {"cooperative task work", IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP},
    {"plain", IORING_SETUP_CLAMP},
};

static const struct {
    int opcode;
    const char *missing;
} needed[] = {
    {IORING_OP_ACCEPT, "this kernel's io_uring lacks the operation accept; Linux 6.1 or later is needed"},
    {IORING_OP_RECV, "this kernel's io_uring lacks the operation recv; Linux 6.1 or later is needed"},
    {IORING_OP_SEND, "this kernel's io_uring lacks the operation send; Linux 6.1 or later is needed"},
    {IORING_OP_SENDMSG, "this kernel's io_uring lacks the operation sendmsg; Linux 6.1 or later is needed"},
    {IORING_OP_CONNECT, "this kernel's io_uring lacks the operation connect; Linux 6.1 or later is needed"},
    {IORING_OP_OPENAT2, "this kernel's io_uring lacks the operation openat2; Linux 6.1 or later is needed"},
    {IORING_OP_STATX, "this kernel's io_uring lacks the operation statx; Linux 6.1 or later is needed"},
    {IORING_OP_READ, "this kernel's io_uring lacks the operation read; Linux 6.1 or later is needed"},
    {IORING_OP_POLL_ADD, "this kernel's io_uring lacks the operation poll_add; Linux 6.1 or later is needed"},
    {IORING_OP_CLOSE, "this kernel's io_uring lacks the operation close; Linux 6.1 or later is needed"},
    {IORING_OP_ASYNC_CANCEL,
     "this kernel's io_uring lacks the operation cancel; Linux 6.1 or later is needed"},
};

static const char *setup_error(int rc)
{
    switch (-rc) {
    case EPERM:
    case EACCES:
        return "io_uring is not permitted: set the sysctl kernel.io_uring_disabled to 0 (or to 1 and this "
               "user's "
               "group as kernel.io_uring_group), or allow io_uring_setup, io_uring_enter and "
               "io_uring_register "
               "in the container's seccomp profile";
    case ENOSYS:
        return "there is no io_uring here: the kernel is built without it, or a seccomp profile hides it "
               "(allow "
               "io_uring_setup, io_uring_enter and io_uring_register, and see the sysctl "
               "kernel.io_uring_disabled)";
    case ENOMEM:
        return "no memory for an io_uring: raise the limit of locked memory (LimitMEMLOCK=)";
    case EMFILE:
    case ENFILE:
        return "no file descriptor left for an io_uring: raise the limit of open files (LimitNOFILE=)";
    default:
        return "io_uring_setup failed";
    }
}

/* The first rung that this kernel takes; what it does not know is EINVAL. */
static int open_ring(struct io *io, const struct io_options *options, const struct rung **used)
{
    int rc = -EINVAL;

    for (size_t i = options->first_rung; rc == -EINVAL && i < ARRAY_LEN(rungs); i++) {
        struct io_uring_params params = {
            .flags = rungs[i].flags | IORING_SETUP_CQSIZE,
            .cq_entries = options->entries * COMPLETIONS_PER_ENTRY,
        };

        rc = io_uring_queue_init_params(options->entries, &io->ring, &params);
        *used = &rungs[i];
    }
    return rc;
}

static const char *missing_operation(struct io *io)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(&io->ring);
    const char *missing = NULL;

    if (probe == NULL)
        return "io_uring cannot be asked what it can do; Linux 6.1 or later is needed";
    for (size_t i = 0; i < ARRAY_LEN(needed) && missing == NULL; i++)
        if (!io_uring_opcode_supported(probe, needed[i].opcode))
            missing = needed[i].missing;
    io_uring_free_probe(probe);
    if (missing == NULL && (~io->ring.features & (IORING_FEAT_EXT_ARG | IORING_FEAT_CQE_SKIP)) != 0)
        missing = "this kernel's io_uring is too old; Linux 6.1 or later is needed";
    return missing;
}

/* One submission and its one completion. */
static int ask(struct io *io)
{
    struct io_uring_cqe *cqe;
    int rc = io_uring_submit_and_wait(&io->ring, 1);

    if (rc < 0)
        return rc;
    rc = io_uring_wait_cqe(&io->ring, &cqe);
    if (rc < 0)
        return rc;
    rc = cqe->res;
    io_uring_cqe_seen(&io->ring, cqe);
    return rc;
}

/* On a file that is not there: EBADF says that the kernel knows the flag, EINVAL that it does not. */
static void probe_multishot(struct io *io)
{
    struct io_uring_sqe *sqe = io_sqe(io);

    CHECK(sqe != NULL);
    io_uring_prep_multishot_accept(sqe, -1, NULL, NULL, SOCK_CLOEXEC);
    sqe->user_data = 0;
    io->can_accept_multishot = ask(io) == -EBADF;
    sqe = io_sqe(io);
    CHECK(sqe != NULL);
    io_uring_prep_recv_multishot(sqe, -1, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = IO_BUFFER_GROUP;
    sqe->user_data = 0;
    io->can_recv_multishot = ask(io) == -EBADF;
}

static void limit_kernel_workers(struct io *io)
{
    unsigned workers[2] = {IO_KERNEL_WORKERS_MAX, IO_KERNEL_WORKERS_MAX};

    (void)io_uring_register_iowq_max_workers(&io->ring, workers);
}

static void describe(struct io *io, const struct rung *rung, bool fd_registered)
{
    snprintf(io->description, sizeof(io->description),
             "io_uring with %s, %u/%u entries, ring fd %s, multishot accept %s, multishot recv %s, "
             "%u receive buffers of %u bytes",
             rung->name, io->ring.sq.ring_entries, io->ring.cq.ring_entries,
             fd_registered ? "registered" : "not registered", io->can_accept_multishot ? "yes" : "no",
             io->can_recv_multishot ? "yes" : "no", io->buffers.n, io->buffers.bytes);
}

int io_create(struct io **out, const struct io_options *options, const char **error_text)
{
    const struct rung *rung = NULL;
    struct io *io = calloc(1, sizeof(*io));
    bool fd_registered;
    int rc;

    *out = NULL;
    *error_text = "no memory";
    if (io == NULL)
        return -ENOMEM;
    rc = open_ring(io, options, &rung);
    if (rc < 0) {
        *error_text = setup_error(rc);
        goto fail_memory;
    }
    rc = -EOPNOTSUPP;
    *error_text = missing_operation(io);
    if (*error_text != NULL)
        goto fail_ring;
    fd_registered = io_uring_register_ring_fd(&io->ring) == 1;
    limit_kernel_workers(io);

    rc = io_buffers_open(io, options->receive_buffers, options->receive_buffer_bytes);
    *error_text = rc == -EINVAL ? "this kernel's io_uring has no buffer rings; Linux 6.1 or later is needed"
                                : "no memory for receive buffers";
    if (rc < 0)
        goto fail_ring;
    probe_multishot(io);
    io->now_ns = io->unix_read_ns = clock_mono_ns();
    io->unix_ahead_ns = clock_unix_ns() - io->now_ns;
    io->now_unix_s = (io->now_ns + io->unix_ahead_ns) / NS_PER_S;
    io->timers = timer_wheel_create(io->now_ns);
    rc = -ENOMEM;
    *error_text = "no memory";
    if (io->timers == NULL)
        goto fail_buffers;
    describe(io, rung, fd_registered);
    io->magic = IO_MAGIC;
    *error_text = NULL;
    *out = io;
    return 0;

fail_buffers:
    io_buffers_close(io);
fail_ring:
    io_uring_queue_exit(&io->ring);
fail_memory:
    free(io);
    return rc;
}

/* The kernel writes into memory of the operations' owners, so they end before the ring does. */
static void drain(struct io *io)
{
    for (unsigned tries_n = 0; tries_n < DRAIN_TRIES_MAX; tries_n++) {
        struct __kernel_timespec wait = {.tv_nsec = (long long)DRAIN_TRY_NS};
        struct io_uring_sqe *sqe = io->in_flight_n > 0 ? io_sqe(io) : NULL;
        struct io_uring_cqe *cqe;

        if (sqe != NULL) {
            io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ANY);
            sqe->user_data = 0;
        }
        /* Once at least, for the sockets that are to be closed. */
        (void)io_uring_submit_and_wait_timeout(&io->ring, &cqe, io->in_flight_n > 0 ? 1 : 0, &wait, NULL);
        while (io_reap(io, IO_ACCEPT_QUEUE) > 0)
            ;
        if (io->in_flight_n == 0)
            return;
    }
}

void io_destroy(struct io **pp)
{
    struct io *io = TAKE(pp);

    if (io == NULL)
        return;
    CHECK_MAGIC(io, IO_MAGIC);
    io->closing = true;
    drain(io);
    io->magic = 0;
    io_uring_unregister_buf_ring(&io->ring, IO_BUFFER_GROUP);
    io_uring_queue_exit(&io->ring);
    io_buffers_close(io);
    timer_wheel_destroy(io->timers);
    free(io);
}
