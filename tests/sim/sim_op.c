/* Connect, send, poll and files: what happens when an operation is tried. Receiving: sim_recv.c. */
#include "sim_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- connect --- */

void io_connect(struct io *io, struct io_op *op, struct flow *f, int fd, const struct sockaddr *address,
                socklen_t address_bytes)
{
    struct sim_conn *c = sim_fd_get(io->w, fd, SIM_FD_CONN, "connected")->conn;
    struct sim_op *s;

    CHECK(address_bytes <= sizeof c->remote);
    if (c->state != SIM_CONN_NEW)
        sim_fail(io->w, "descriptor %d is connected twice", fd);
    s = sim_op_start(io, op, f, fd, SIM_OP_CONNECT);
    s->conn = c;
    c->op_connect = s;
    c->state = SIM_CONN_CONNECTING;
    memcpy(&c->remote, address, address_bytes);
    sim_event_set(io->w, &s->event, 2 * sim_between(io->w, io->w->options.net.latency_ns));
}

static void connect_ends(struct sim_op *s, int result)
{
    s->conn->op_connect = NULL;
    if (result < 0 && s->conn->state == SIM_CONN_CONNECTING)
        s->conn->state = SIM_CONN_NEW;
    sim_op_post(s, result, -1, false);
}

void sim_try_connect(void *context)
{
    struct sim_op *s = context;
    struct sockaddr_storage to = s->conn->remote;
    int error;

    if (s->cancelled && (s->lost || !sim_fault(s->io->w, s->io->w->options.faults.cancel_late_ppm,
                                               &s->io->w->counts.late_cancels))) {
        connect_ends(s, -ECANCELED);
        return;
    }
    error = s->breaks                         ? -ECONNREFUSED
            : s->lost                         ? -ETIMEDOUT
            : to.ss_family == s->conn->family ? sim_net_connect(s->conn, &to)
                                              : -EINVAL;
    if (error == -EINPROGRESS) {
        s->lost = true;
        sim_event_set(s->io->w, &s->event, SIM_CONNECT_TIMEOUT_NS);
        if (s->cancelled)
            connect_ends(s, -ECANCELED);
        return;
    }
    connect_ends(s, error);
}

/* --- send --- */

static struct sim_op *start_send(struct io *io, struct io_op *op, struct flow *f, int fd)
{
    struct sim_conn *c = sim_fd_get(io->w, fd, SIM_FD_CONN, "sent on")->conn;
    struct sim_op *s;

    if (c->op_send != NULL)
        sim_fail(io->w, "descriptor %d: a send begins while one is in flight", fd);
    s = sim_op_start(io, op, f, fd, SIM_OP_SEND);
    s->conn = c;
    c->op_send = s;
    return s;
}

static void begin_send(struct sim_op *s)
{
    size_t at = 0;

    for (unsigned i = 0; i < s->vecs_n; i++)
        s->n += s->vecs[i].iov_len;
    s->shadow = malloc(s->n + 1);
    CHECK(s->shadow != NULL);
    for (unsigned i = 0; i < s->vecs_n; i++) {
        if (s->vecs[i].iov_len > 0)
            memcpy(s->shadow + at, s->vecs[i].iov_base, s->vecs[i].iov_len);
        at += s->vecs[i].iov_len;
    }
    sim_trace(s->io->w, "send bytes", s->conn->id, s->n);
    if (s->n > IO_SEND_BYTES_MAX)
        s->n = IO_SEND_BYTES_MAX;
    sim_op_kick(s);
}

void io_send(struct io *io, struct io_op *op, struct flow *f, int fd, const void *bytes, size_t n)
{
    struct sim_op *s = start_send(io, op, f, fd);

    s->vecs[0] = (struct iovec){(void *)(uintptr_t)bytes, n};
    s->vecs_n = 1;
    begin_send(s);
}

void io_sendmsg(struct io *io, struct io_op *op, struct flow *f, int fd, const struct msghdr *message)
{
    struct sim_op *s = start_send(io, op, f, fd);

    CHECK(message->msg_iovlen <= IO_VECS_MAX && message->msg_name == NULL && message->msg_control == NULL);
    s->message = message;
    s->vecs_n = (unsigned)message->msg_iovlen;
    memcpy(s->vecs, message->msg_iov, s->vecs_n * sizeof *s->vecs);
    begin_send(s);
}

/* The caller's memory must be as it was: all of it, and the vectors. */
void sim_send_check(struct sim_op *s)
{
    size_t at = 0;

    if (s->message != NULL && (s->message->msg_iovlen != s->vecs_n ||
                               memcmp(s->message->msg_iov, s->vecs, s->vecs_n * sizeof *s->vecs) != 0))
        sim_fail(s->io->w, "descriptor %d: the vectors of a send changed in flight", s->fd);
    for (unsigned i = 0; i < s->vecs_n; i++) {
        if (s->vecs[i].iov_len > 0 && memcmp(s->shadow + at, s->vecs[i].iov_base, s->vecs[i].iov_len) != 0)
            sim_fail(s->io->w, "descriptor %d: memory changed while it was sent (run %u of %u)", s->fd, i + 1,
                     s->vecs_n);
        at += s->vecs[i].iov_len;
    }
}

/* The same for what is taken now. */
static void check_run(struct sim_op *s, size_t from, size_t n)
{
    size_t at = 0;

    for (unsigned i = 0; i < s->vecs_n && n > 0; at += s->vecs[i++].iov_len) {
        size_t skip, run;
        if (from >= at + s->vecs[i].iov_len)
            continue;
        skip = from - at;
        run = s->vecs[i].iov_len - skip < n ? s->vecs[i].iov_len - skip : n;
        if (memcmp((char *)s->vecs[i].iov_base + skip, s->shadow + from, run) != 0)
            sim_fail(s->io->w, "descriptor %d: memory changed while it was sent", s->fd);
        from += run;
        n -= run;
    }
}

static void send_ends(struct sim_op *s, int result)
{
    s->conn->op_send = NULL;
    sim_op_post(s, result, -1, false);
}

void sim_try_send(void *context)
{
    struct sim_op *s = context;
    struct sim_conn *c = s->conn;
    struct sim_world *w = s->io->w;
    size_t n;

    if (sim_op_ends_cancelled(s, sim_conn_writable(c))) {
        c->op_send = NULL;
        return;
    }
    if (c->state == SIM_CONN_DEAD || c->shut || c->state != SIM_CONN_OPEN) {
        int error = s->sent > 0 ? 0 : sim_conn_take_error(c);
        send_ends(s, s->sent > 0 ? (int)s->sent : error != 0 ? error : -EPIPE);
        return;
    }
    n = sim_conn_room(c);
    n = n < s->n - s->sent ? n : s->n - s->sent;
    if (n > 1 && sim_fault(w, w->options.faults.short_send_ppm, &w->counts.short_sends)) {
        n = 1 + sim_below(w, n - 1);
        s->last_part = true;
    }
    if (n > 0) {
        check_run(s, s->sent, n);
        sim_conn_put(c, s->shadow + s->sent, n);
        s->sent += n;
    }
    if (s->sent == s->n || s->last_part || (s->cancelled && s->sent > 0))
        send_ends(s, (int)s->sent);
    else if (sim_conn_room(c) > 0)
        sim_op_kick(s);
}

/* --- poll --- */

void io_poll(struct io *io, struct io_op *op, struct flow *f, int fd, unsigned events)
{
    struct sim_conn *c = sim_fd_get(io->w, fd, SIM_FD_CONN, "polled")->conn;
    struct sim_op *s = sim_op_start(io, op, f, fd, SIM_OP_POLL);

    if (c->op_poll != NULL)
        sim_fail(io->w, "descriptor %d is polled twice at a time", fd);
    s->conn = c;
    s->events = events;
    c->op_poll = s;
    sim_op_kick(s);
}

void sim_try_poll(void *context)
{
    struct sim_op *s = context;
    unsigned ready = (sim_conn_readable(s->conn) ? POLLIN : 0u) | (sim_conn_writable(s->conn) ? POLLOUT : 0u);

    ready &= s->events;
    if (sim_op_ends_cancelled(s, ready != 0)) {
        s->conn->op_poll = NULL;
    } else if (ready != 0) {
        s->conn->op_poll = NULL;
        sim_op_post(s, (int)ready, -1, false);
    }
}

/* --- files: the real ones --- */

static int real_fd(struct sim_world *w, int fd, const char *what)
{
    return fd < SIM_FD_BASE ? fd : sim_fd_get(w, fd, SIM_FD_FILE, what)->file;
}

static struct sim_op *start_file(struct io *io, struct io_op *op, struct flow *f, int fd,
                                 enum sim_op_kind kind)
{
    struct sim_op *s;

    (void)real_fd(io->w, fd, "read");
    s = sim_op_start(io, op, f, fd, kind);
    sim_event_set(io->w, &s->event, sim_between(io->w, io->w->options.net.disk_ns));
    return s;
}

void io_openat2(struct io *io, struct io_op *op, struct flow *f, int dir_fd, const char *path,
                struct open_how *how)
{
    struct sim_op *s = start_file(io, op, f, dir_fd, SIM_OP_OPEN);

    s->path = path;
    s->how = how;
}

void io_statx(struct io *io, struct io_op *op, struct flow *f, int fd, struct statx *out)
{
    start_file(io, op, f, fd, SIM_OP_STATX)->to = out;
}

void io_read(struct io *io, struct io_op *op, struct flow *f, int fd, void *to, size_t n, uint64_t offset)
{
    struct sim_op *s = start_file(io, op, f, fd, SIM_OP_READ);

    s->to = to;
    s->n = n;
    s->offset = offset;
}

static int do_open(struct sim_op *s)
{
    struct sim_world *w = s->io->w;
    long fd;

    if (sim_fault(w, w->options.faults.socket_emfile_ppm, &w->counts.socket_errors))
        return -EMFILE;
    if (sim_fault(w, w->options.faults.open_error_ppm, &w->counts.file_faults))
        return -EIO;
    fd = syscall(SYS_openat2, real_fd(w, s->fd, "opened in"), s->path, s->how, sizeof *s->how);
    if (fd < 0)
        return -errno;
    return sim_fd_new(w, SIM_FD_FILE, NULL, (int)fd);
}

static int do_read(struct sim_op *s)
{
    struct sim_world *w = s->io->w;
    size_t n = s->n;
    ssize_t got;

    if (sim_fault(w, w->options.faults.read_error_ppm, &w->counts.file_faults))
        return -EIO;
    if (n > 1 && sim_fault(w, w->options.faults.short_read_ppm, &w->counts.file_faults))
        n = 1 + sim_below(w, n - 1);
    got = pread(real_fd(w, s->fd, "read"), s->to, n, (off_t)s->offset);
    if (got > 0)
        sim_trace_bytes(w, s->to, (size_t)got);
    return got < 0 ? -errno : (int)got;
}

void sim_try_file(void *context)
{
    struct sim_op *s = context;
    int result;

    if (sim_op_ends_cancelled(s, true))
        return;
    if (s->kind == SIM_OP_OPEN)
        result = do_open(s);
    else if (s->kind == SIM_OP_READ)
        result = do_read(s);
    else
        result =
            statx(real_fd(s->io->w, s->fd, "looked at"), "", AT_EMPTY_PATH, STATX_BASIC_STATS, s->to) == 0
                ? 0
                : -errno;
    sim_op_post(s, result, -1, false);
}
