/* The loop: submit, wait, record what is complete. */
#include "io/io_internal.h"

#include "util/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

/* The wall clock is read this often: it can be stepped, so it does not follow from the monotonic one. */
#define UNIX_READ_EVERY_NS (10 * NS_PER_MS)

/* The longest wait: any bound would do, and with one there is always a timespec. */
#define WAIT_MAX_NS (3600 * NS_PER_S)

uint64_t io_now_ns(const struct io *io)
{
    return io->now_ns;
}

uint64_t io_now_unix_s(const struct io *io)
{
    return io->now_unix_s;
}

struct flow_queue *io_ready(struct io *io)
{
    return &io->ready;
}

struct timer_wheel *io_timers(struct io *io)
{
    return io->timers;
}

const char *io_describe(const struct io *io)
{
    return io->description;
}

/* What a busy or an exhausted kernel says; the next try may do. */
static bool passes(int error)
{
    return error == -EINTR || error == -ETIME || error == -EAGAIN || error == -EBUSY;
}

struct io_uring_sqe *io_sqe(struct io *io)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&io->ring);

    for (unsigned tries_n = 0; UNLIKELY(sqe == NULL) && tries_n < IO_SUBMIT_TRIES_MAX; tries_n++) {
        int rc = io_uring_submit(&io->ring);

        /* A completion only records, so what blocks the kernel can be taken from here, too. */
        if (rc == -EBUSY || rc == -EAGAIN) {
            (void)io_uring_get_events(&io->ring);
            (void)io_reap(io, IO_ACCEPT_QUEUE);
        }
        sqe = io_uring_get_sqe(&io->ring);
    }
    return sqe;
}

void io_op_begin(struct io *io, struct io_op *op, struct flow *f, enum io_kind kind, struct io_uring_sqe *sqe)
{
    CHECK(!op->in_flight);
    op->flow = f;
    op->kind = (uint8_t)kind;
    op->done = false;
    op->in_flight = true;
    io->in_flight_n++;
    sqe->user_data = (uint64_t)(uintptr_t)op;
}

void io_op_finish(struct io *io, struct io_op *op, int result)
{
    op->result = result;
    op->done = true;
    if (op->flow != NULL)
        flow_wake(&io->ready, op->flow);
}

unsigned io_reap(struct io *io, unsigned n_max)
{
    unsigned n = 0;

    for (; n < n_max; n++) {
        unsigned head = *io->ring.cq.khead;
        const struct io_uring_cqe *cqe;
        struct io_op *op;
        uint32_t flags;
        int result;

        if (head == io_uring_smp_load_acquire(io->ring.cq.ktail))
            break;
        cqe = &io->ring.cq.cqes[head & io->ring.cq.ring_mask];
        op = (struct io_op *)(uintptr_t)cqe->user_data;
        result = cqe->res;
        flags = cqe->flags;
        /* Given back before it is looked at, since looking may submit and so come here again. */
        io_uring_cq_advance(&io->ring, 1);
        if (op != NULL)
            io_op_complete(io, op, result, flags);
    }
    return n;
}

static void read_clocks(struct io *io)
{
    io->now_ns = clock_mono_ns();
    if (io->now_ns - io->unix_read_ns >= UNIX_READ_EVERY_NS) {
        io->unix_read_ns = io->now_ns;
        io->unix_ahead_ns = clock_unix_ns() - io->now_ns;
    }
    io->now_unix_s = (io->now_ns + io->unix_ahead_ns) / NS_PER_S;
}

static int submit_and_wait(struct io *io, uint64_t wait_max_ns)
{
    struct io_uring_cqe *cqe;
    struct __kernel_timespec wait;
    bool hungry = io_recv_feed(io);
    uint64_t wait_ns = 0;

    if (io->ready.n == 0 && !hungry) {
        wait_ns = timer_wheel_wait_ns(io->timers, io->now_ns);
        wait_ns = wait_ns < wait_max_ns ? wait_ns : wait_max_ns;
    }
    if (wait_ns == 0)
        return io_uring_submit_and_get_events(&io->ring);
    wait_ns = wait_ns < WAIT_MAX_NS ? wait_ns : WAIT_MAX_NS;
    wait.tv_sec = (long long)(wait_ns / NS_PER_S);
    wait.tv_nsec = (long long)(wait_ns % NS_PER_S);
    return io_uring_submit_and_wait_timeout(&io->ring, &cqe, 1, &wait, NULL);
}

static void run_flows(struct io *io)
{
    for (unsigned rounds_n = 0; io->ready.n > 0 && rounds_n < IO_FLOW_ROUNDS_MAX; rounds_n++)
        flow_run_ready(&io->ready);
}

int io_run_once(struct io *io, uint64_t wait_max_ns)
{
    unsigned batch_n = IO_ACCEPT_QUEUE;
    int rc;

    CHECK_MAGIC(io, IO_MAGIC);
    run_flows(io); /* woken since the last turn, from outside */
    rc = submit_and_wait(io, wait_max_ns);
    read_clocks(io);
    if (UNLIKELY(rc < 0 && !passes(rc)))
        return rc;
    /* In batches, so that no queue of accepted sockets overflows; and no more than the queue holds. */
    for (unsigned n = 0; batch_n == IO_ACCEPT_QUEUE && n < io->ring.cq.ring_entries; n += batch_n) {
        batch_n = io_reap(io, IO_ACCEPT_QUEUE);
        if (batch_n == IO_ACCEPT_QUEUE)
            flow_run_ready(&io->ready);
    }
    timer_wheel_advance(io->timers, io->now_ns, &io->ready);
    run_flows(io); /* what they ask is submitted together, when the next turn begins */
    return 0;
}

static enum flow_result step_deliver(struct flow *f)
{
    struct io_mail *mail = CONTAINER_OF(f, struct io_mail, flow);
    int events;

    if (mail->poll.in_flight)
        return FLOW_WAIT;
    if (io_op_take(&mail->poll, &events) && events == -ECANCELED)
        return FLOW_WAIT;
    mailbox_deliver(mail->box, mail->context);
    io_poll(mail->io, &mail->poll, f, mail->box->event_fd, POLLIN);
    return FLOW_WAIT;
}

int io_attach_mailbox(struct io *io, struct mailbox *m, void *context)
{
    static const flow_step steps[] = {step_deliver};
    static const char *const names[] = {"deliver"};
    static const struct flow_type type = {"mail", steps, names, ARRAY_LEN(steps), NULL};

    CHECK_MAGIC(io, IO_MAGIC);
    if (io->mail.box != NULL)
        return -EBUSY;
    io->mail = (struct io_mail){.io = io, .box = m, .context = context};
    flow_init(&io->mail.flow, &type, 0);
    io_wake(io, &io->mail.flow);
    return 0;
}
