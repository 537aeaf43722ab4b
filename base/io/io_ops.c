/* The operations with one completion, and accept. */
#include "io/io_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

/* Room to prepare an operation in, which leaves user_data alone; without any the operation fails at once. */
static struct io_uring_sqe *begin(struct io *io, struct io_op *op, struct flow *f, enum io_kind kind)
{
    struct io_uring_sqe *sqe = io_sqe(io);

    CHECK(!op->in_flight);
    if (UNLIKELY(sqe == NULL)) {
        op->flow = f;
        io_op_finish(io, op, -EBUSY);
        return NULL;
    }
    io_op_begin(io, op, f, kind, sqe);
    return sqe;
}

void io_cancel(struct io *io, struct io_op *op)
{
    struct io_uring_sqe *sqe;

    if (!op->in_flight)
        return;
    sqe = io_sqe(io);
    if (sqe == NULL)
        return;
    io_uring_prep_cancel(sqe, op, 0);
    sqe->user_data = 0;
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
}

void io_connect(struct io *io, struct io_op *op, struct flow *f, int fd, const struct sockaddr *address,
                socklen_t address_bytes)
{
    struct io_uring_sqe *sqe = begin(io, op, f, IO_KIND_PLAIN);

    if (sqe != NULL)
        io_uring_prep_connect(sqe, fd, address, address_bytes);
}

/* Those that may have to be asked again, with what is kept in the operation. */
static void begin_kept(struct io *io, struct io_op *op, struct flow *f, enum io_kind kind)
{
    struct io_uring_sqe *sqe = begin(io, op, f, kind);

    if (sqe == NULL)
        return;
    if (kind == IO_KIND_SEND)
        io_uring_prep_send(sqe, op->fd, op->argument, op->n, MSG_WAITALL | MSG_NOSIGNAL);
    else if (kind == IO_KIND_SENDMSG)
        io_uring_prep_sendmsg(sqe, op->fd, op->argument, MSG_WAITALL | MSG_NOSIGNAL);
    else
        io_uring_prep_recv(sqe, op->fd, (void *)(uintptr_t)op->argument, op->n, 0);
}

void io_recv_into(struct io *io, struct io_op *op, struct flow *f, int fd, void *to, size_t n)
{
    op->fd = fd;
    op->argument = to;
    op->n = (uint32_t)(n < INT32_MAX ? n : INT32_MAX);
    begin_kept(io, op, f, IO_KIND_RECV_INTO);
}

void io_send(struct io *io, struct io_op *op, struct flow *f, int fd, const void *bytes, size_t n)
{
    op->fd = fd;
    op->argument = bytes;
    op->n = (uint32_t)(n < IO_SEND_BYTES_MAX ? n : IO_SEND_BYTES_MAX);
    begin_kept(io, op, f, IO_KIND_SEND);
}

void io_sendmsg(struct io *io, struct io_op *op, struct flow *f, int fd, const struct msghdr *message)
{
    CHECK(message->msg_iovlen <= IO_VECS_MAX);
    op->fd = fd;
    op->argument = message;
    op->n = 0;
    begin_kept(io, op, f, IO_KIND_SENDMSG);
}

void io_openat2(struct io *io, struct io_op *op, struct flow *f, int dir_fd, const char *path,
                struct open_how *how)
{
    struct io_uring_sqe *sqe = begin(io, op, f, IO_KIND_PLAIN);

    if (sqe != NULL)
        io_uring_prep_openat2(sqe, dir_fd, path, how);
}

void io_statx(struct io *io, struct io_op *op, struct flow *f, int fd, struct statx *out)
{
    struct io_uring_sqe *sqe = begin(io, op, f, IO_KIND_PLAIN);

    if (sqe != NULL)
        io_uring_prep_statx(sqe, fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, out);
}

void io_read(struct io *io, struct io_op *op, struct flow *f, int fd, void *to, size_t n, uint64_t offset)
{
    struct io_uring_sqe *sqe = begin(io, op, f, IO_KIND_PLAIN);

    if (sqe != NULL)
        io_uring_prep_read(sqe, fd, to, (unsigned)(n < INT32_MAX ? n : INT32_MAX), offset);
}

void io_poll(struct io *io, struct io_op *op, struct flow *f, int fd, unsigned events)
{
    struct io_uring_sqe *sqe = begin(io, op, f, IO_KIND_PLAIN);

    if (sqe != NULL)
        io_uring_prep_poll_add(sqe, fd, events);
}

void io_close(struct io *io, int fd)
{
    struct io_uring_sqe *sqe = io_sqe(io);

    if (sqe == NULL) {
        close(fd);
        return;
    }
    io_uring_prep_close(sqe, fd);
    sqe->user_data = 0;
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
}

/* The kernel can say EAGAIN of what it has tried too often without waiting; it means nothing. */
static bool ask_again(struct io *io, struct io_op *op, int result)
{
    if (result != -EAGAIN || io->closing)
        return false;
    switch (op->kind) {
    case IO_KIND_SEND:
    case IO_KIND_SENDMSG:
    case IO_KIND_RECV_INTO:
        begin_kept(io, op, op->flow, (enum io_kind)op->kind);
        return true;
    default:
        return false;
    }
}

void io_op_complete(struct io *io, struct io_op *op, int result, uint32_t flags)
{
    bool more = (flags & IORING_CQE_F_MORE) != 0;

    CHECK(op->in_flight);
    if (!more) {
        op->in_flight = false;
        io->in_flight_n--;
    }
    switch (op->kind) {
    case IO_KIND_RECV:
        io_recv_complete(io, CONTAINER_OF(op, struct io_recv, op), result, flags);
        return;
    case IO_KIND_ACCEPT:
    case IO_KIND_ACCEPT_POLL:
        io_accept_complete(io, CONTAINER_OF(op, struct io_accept, op), result, more);
        return;
    default:
        if (LIKELY(!ask_again(io, op, result)))
            io_op_finish(io, op, result);
    }
}

/* --- accept --- */

static void accept_begin(struct io *io, struct io_accept *a, enum io_kind kind)
{
    struct io_uring_sqe *sqe = begin(io, &a->op, a->op.flow, kind);

    if (sqe == NULL)
        a->error = -EBUSY;
    else if (kind == IO_KIND_ACCEPT_POLL)
        io_uring_prep_poll_add(sqe, a->listen_fd, POLLIN);
    else if (io->can_accept_multishot)
        io_uring_prep_multishot_accept(sqe, a->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    else
        io_uring_prep_accept(sqe, a->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

void io_accept_start(struct io *io, struct io_accept *a, struct flow *f, int listen_fd)
{
    a->op.flow = f;
    a->listen_fd = listen_fd;
    a->error = 0;
    if (!a->op.in_flight)
        accept_begin(io, a, IO_KIND_ACCEPT);
}

/* Errors of the one connection, not of the listener: accept(2) says to take them like EAGAIN. */
static bool error_is_of_peer(int error)
{
    switch (-error) {
    case ECONNABORTED:
    case EINTR:
    case ENETDOWN:
    case EPROTO:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case ENETUNREACH:
        return true;
    default:
        return false;
    }
}

void io_accept_complete(struct io *io, struct io_accept *a, int result, bool more)
{
    bool polled = a->op.kind == IO_KIND_ACCEPT_POLL;

    if (result >= 0 && !polled) {
        if (io->closing || a->n == IO_ACCEPT_QUEUE)
            close(result);
        else
            a->fds[(a->head + a->n++) % IO_ACCEPT_QUEUE] = result;
    }
    if (!more && !io->closing) {
        if (result >= 0 || error_is_of_peer(result))
            accept_begin(io, a, IO_KIND_ACCEPT);
        else if (result == -EAGAIN)
            accept_begin(io, a, IO_KIND_ACCEPT_POLL);
        else
            a->error = result;
    }
    if (!polled || a->error != 0)
        flow_wake(&io->ready, a->op.flow);
}

int io_accept_take(struct io_accept *a)
{
    int fd;

    if (a->n == 0)
        return a->error != 0 ? a->error : -EAGAIN;
    fd = a->fds[a->head];
    a->head = (a->head + 1) % IO_ACCEPT_QUEUE;
    a->n--;
    return fd;
}
