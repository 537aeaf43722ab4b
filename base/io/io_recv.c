/* Receiving into provided buffers. */
#include "io/io_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Buffers in the ring to begin with: what one turn of a busy loop receives. It doubles whenever a receive
 * finds the ring empty. */
#define IN_RING_FIRST 64u

/* A paused receive is resumed at half the queue, so that it is not paused again by the next buffer. */
#define RESUME_AT (IO_RECV_QUEUE_MAX / 2)

/* An idle connection has one of these, and no buffer. */
_Static_assert(sizeof(struct io_recv) == 64, "a receive is one cache line");

/* --- buffers --- */

static char *buffer_bytes(const struct io_buffers *b, uint16_t id)
{
    return b->memory + (size_t)id * b->bytes;
}

static void ring_add(struct io_buffers *b, uint16_t id)
{
    io_uring_buf_ring_add(b->ring, buffer_bytes(b, id), b->bytes, id, io_uring_buf_ring_mask(b->n), 0);
    io_uring_buf_ring_advance(b->ring, 1);
    b->in_ring++;
}

static void ring_fill(struct io_buffers *b)
{
    while (b->in_ring < b->in_ring_target && b->spare != IO_RECV_NONE) {
        uint16_t id = b->spare;

        b->spare = b->info[id].next;
        ring_add(b, id);
    }
}

static void buffer_put(struct io_buffers *b, uint16_t id)
{
    if (b->in_ring < b->in_ring_target) {
        ring_add(b, id);
        return;
    }
    b->info[id].next = b->spare;
    b->spare = id;
}

int io_buffers_open(struct io *io, unsigned n, unsigned bytes)
{
    struct io_buffers *b = &io->buffers;
    struct io_uring_buf_reg registration = {.ring_entries = n, .bgid = IO_BUFFER_GROUP};
    int rc;

    CHECK(n >= 1 && n <= 32768 && (n & (n - 1)) == 0);
    CHECK(bytes >= 1 && bytes <= UINT16_MAX);
    *b = (struct io_buffers){.n = n, .bytes = bytes, .spare = IO_RECV_NONE};
    list_init(&b->starving);
    b->ring_bytes = n * sizeof(struct io_uring_buf);
    b->info = calloc(n, sizeof(*b->info));
    b->ring = mmap(NULL, b->ring_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    b->memory = mmap(NULL, (size_t)n * bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    rc = -ENOMEM;
    if (b->info == NULL || b->ring == MAP_FAILED || b->memory == MAP_FAILED)
        goto fail;
    io_uring_buf_ring_init(b->ring);
    registration.ring_addr = (uint64_t)(uintptr_t)b->ring;
    rc = io_uring_register_buf_ring(&io->ring, &registration, 0);
    if (rc < 0)
        goto fail;
    for (unsigned id = n; id-- > 0;)
        buffer_put(b, (uint16_t)id); /* the target is 0: all are spare, the first on top */
    b->in_ring_target = n < IN_RING_FIRST ? n : IN_RING_FIRST;
    ring_fill(b);
    return 0;

fail:
    io_buffers_close(io);
    return rc;
}

void io_buffers_close(struct io *io)
{
    struct io_buffers *b = &io->buffers;

    if (b->memory != NULL && b->memory != MAP_FAILED)
        munmap(b->memory, (size_t)b->n * b->bytes);
    if (b->ring != NULL && (void *)b->ring != MAP_FAILED)
        munmap(b->ring, b->ring_bytes);
    free(b->info);
    *b = (struct io_buffers){.spare = IO_RECV_NONE};
}

/* A receive found the ring empty. If that is because it was kept small, it grows; once a turn, since one
 * empty ring can end many receives. */
static void grow_target(struct io *io)
{
    struct io_buffers *b = &io->buffers;

    if (b->in_ring_target < b->n && b->target_grown_ns != io->now_ns) {
        b->target_grown_ns = io->now_ns;
        b->in_ring_target *= 2;
    }
    ring_fill(b);
}

/* --- one receive --- */

void io_recv_init(struct io_recv *r, int fd, struct flow *f, bool multishot)
{
    *r = (struct io_recv){
        .op = {.flow = f}, .fd = fd, .head = IO_RECV_NONE, .tail = IO_RECV_NONE, .multishot = multishot};
    list_init(&r->starving);
}

static void begin(struct io *io, struct io_recv *r)
{
    struct io_uring_sqe *sqe = io_sqe(io);

    if (UNLIKELY(sqe == NULL)) {
        r->end = -EBUSY;
        flow_wake(&io->ready, r->op.flow);
        return;
    }
    if (r->multishot && io->can_recv_multishot)
        io_uring_prep_recv_multishot(sqe, r->fd, NULL, 0, 0);
    else
        io_uring_prep_recv(sqe, r->fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = IO_BUFFER_GROUP;
    /* Most often nothing is there yet, and then it costs less to wait first than to try in vain. */
    if (!r->nonempty)
        sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
    io_op_begin(io, &r->op, r->op.flow, IO_KIND_RECV, sqe);
}

void io_recv_arm(struct io *io, struct io_recv *r)
{
    if (r->op.in_flight) {
        r->wanted = r->cancelling && !r->stopping;
        return;
    }
    if (r->end != 0 || r->starved || r->queued_n >= (r->multishot ? RESUME_AT : IO_RECV_QUEUE_MAX))
        return;
    begin(io, r);
}

static void starve(struct io *io, struct io_recv *r)
{
    grow_target(io);
    r->starved = true;
    list_push_back(&io->buffers.starving, &r->starving);
}

static void unstarve(struct io_recv *r)
{
    r->starved = false;
    list_remove(&r->starving);
}

bool io_recv_feed(struct io *io)
{
    struct list *starving = &io->buffers.starving;

    if (LIKELY(list_empty(starving)))
        return false;
    /* One for each buffer. What it is armed on may have nothing to read, so the others get their turn as long
     * as there is a buffer left. */
    for (unsigned left = io->buffers.in_ring; left > 0 && !list_empty(starving); left--) {
        struct io_recv *r = LIST_ENTRY(starving->next, struct io_recv, starving);

        unstarve(r);
        begin(io, r);
    }
    return io->buffers.in_ring > 0 && !list_empty(starving);
}

static void enqueue(struct io *io, struct io_recv *r, uint16_t id, uint32_t n)
{
    struct io_buffer *info = io->buffers.info;

    info[id] = (struct io_buffer){.n = n, .next = IO_RECV_NONE};
    if (r->head == IO_RECV_NONE)
        r->head = id;
    else
        info[r->tail].next = id;
    r->tail = id;
    r->queued_n++;
    io->buffers.unread_n++;
}

static void dequeue(struct io *io, struct io_recv *r)
{
    uint16_t id = r->head;

    r->head = io->buffers.info[id].next;
    r->head_used = 0;
    if (r->head == IO_RECV_NONE)
        r->tail = IO_RECV_NONE;
    r->queued_n--;
    io->buffers.unread_n--;
    buffer_put(&io->buffers, id);
}

static void cancel(struct io *io, struct io_recv *r)
{
    if (r->cancelling)
        return;
    r->cancelling = true;
    r->wanted = false;
    io_cancel(io, &r->op);
}

/* What ended the receive, when it was not the end of the stream that did. */
static void ended(struct io *io, struct io_recv *r, int result)
{
    bool cancelled = r->cancelling;
    bool wanted = r->wanted;

    r->cancelling = r->wanted = false;
    if (r->stopping || io->closing || r->end != 0)
        return;
    if (result == -ENOBUFS && (!cancelled || wanted)) {
        starve(io, r);
    } else if (result == -EINVAL && r->multishot && io->can_recv_multishot) {
        io->can_recv_multishot = false; /* the probe was wrong */
        begin(io, r);
    } else if (result == -EAGAIN || result == -EINTR) {
        r->nonempty = false;
        begin(io, r);
    } else if (result < 0 && result != -ENOBUFS && !(result == -ECANCELED && cancelled)) {
        r->end = (int16_t)result;
    } else if (wanted) {
        io_recv_arm(io, r);
    }
}

void io_recv_complete(struct io *io, struct io_recv *r, int result, uint32_t flags)
{
    bool drop = r->stopping || io->closing;

    r->nonempty = (flags & IORING_CQE_F_SOCK_NONEMPTY) != 0;
    if (flags & IORING_CQE_F_BUFFER) {
        uint16_t id = (uint16_t)(flags >> IORING_CQE_BUFFER_SHIFT);

        io->buffers.in_ring--;
        ring_fill(&io->buffers);
        if (result > 0 && !drop)
            enqueue(io, r, id, (uint32_t)result);
        else
            buffer_put(&io->buffers, id);
    }
    if (result == 0 && !drop)
        r->end = -ENODATA;
    if (!r->op.in_flight)
        ended(io, r, result);
    else if (r->queued_n >= IO_RECV_QUEUE_MAX)
        cancel(io, r);
    if (result > 0 || r->end != 0 || (drop && !r->op.in_flight))
        flow_wake(&io->ready, r->op.flow);
}

struct str io_recv_peek(struct io *io, const struct io_recv *r)
{
    const struct io_buffers *b = &io->buffers;

    if (r->head == IO_RECV_NONE)
        return STR_NONE;
    return str_of(buffer_bytes(b, r->head) + r->head_used, b->info[r->head].n - r->head_used);
}

int io_recv_end(const struct io_recv *r)
{
    return r->head == IO_RECV_NONE ? r->end : 0;
}

void io_recv_consume(struct io *io, struct io_recv *r, size_t n)
{
    if (n == 0)
        return;
    CHECK(r->head != IO_RECV_NONE && n <= io->buffers.info[r->head].n - r->head_used);
    r->head_used = (uint16_t)(r->head_used + n);
    if (r->head_used == io->buffers.info[r->head].n)
        dequeue(io, r);
}

bool io_recv_scarce(const struct io *io)
{
    return io->buffers.unread_n >= io->buffers.n - io->buffers.n / 4;
}

bool io_recv_nearly_out(const struct io *io)
{
    return io->buffers.unread_n >= io->buffers.n - io->buffers.n / 8;
}

bool io_recv_stop(struct io *io, struct io_recv *r)
{
    while (r->head != IO_RECV_NONE)
        dequeue(io, r);
    if (r->starved)
        unstarve(r);
    if (!r->op.in_flight) {
        r->stopping = false;
        return true;
    }
    r->stopping = true;
    cancel(io, r);
    return false;
}
