/* Receiving and accepting: what happens when it is tried, and what the worker takes. */
#include "sim_internal.h"

#include <errno.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(p, n)   ASAN_POISON_MEMORY_REGION(p, n)
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define POISON(p, n)   (void)0
#define UNPOISON(p, n) (void)0
#endif

#define STALE 0xDB

/* As the real one resumes. */
#define RESUME_AT (IO_RECV_QUEUE_MAX / 2)

/* --- provided buffers: only the program's own are readable --- */

static void buffer_put(struct io *io, uint16_t id)
{
    struct sim_buffer *b = &io->buffers[id];

    UNPOISON(b->p, io->buffer_bytes);
    memset(b->p, STALE, io->buffer_bytes);
    POISON(b->p, io->buffer_bytes);
    b->next = IO_RECV_NONE;
    if (io->free_n++ == 0)
        io->free_head = id;
    else
        io->buffers[io->free_tail].next = id;
    io->free_tail = id;
}

static int buffer_take(struct io *io, const void *bytes, size_t n)
{
    uint16_t id = io->free_head;
    struct sim_buffer *b;

    if (io->free_n == 0)
        return -ENOBUFS;
    b = &io->buffers[id];
    io->free_head = b->next;
    io->free_n--;
    b->n = n;
    UNPOISON(b->p, n);
    memcpy(b->p, bytes, n);
    return id;
}

void sim_buffers_init(struct io *io, const struct io_options *options)
{
    unsigned n_max = io->w->options.faults.receive_buffers_max;

    io->buffers_n = n_max > 0 && n_max < options->receive_buffers ? n_max : options->receive_buffers;
    io->buffer_bytes = options->receive_buffer_bytes;
    CHECK(io->buffers_n < IO_RECV_NONE && io->buffer_bytes > 0 && io->buffer_bytes <= UINT16_MAX);
    io->buffers = calloc(io->buffers_n + 1, sizeof *io->buffers);
    CHECK(io->buffers != NULL);
    for (unsigned i = 0; i < io->buffers_n; i++) {
        io->buffers[i].p = malloc(io->buffer_bytes);
        CHECK(io->buffers[i].p != NULL);
        buffer_put(io, (uint16_t)i);
    }
}

void sim_buffers_free(struct io *io)
{
    if (io->free_n != io->buffers_n)
        sim_fail(io->w, "a worker goes, and %u receive buffers were not consumed",
                 io->buffers_n - io->free_n);
    for (unsigned i = 0; i < io->buffers_n; i++)
        free(io->buffers[i].p);
    free(io->buffers);
}

/* --- receive into the caller's memory --- */

static struct sim_op *start_receive(struct io *io, struct io_op *op, struct flow *f, int fd,
                                    enum sim_op_kind kind)
{
    struct sim_conn *c = sim_fd_get(io->w, fd, SIM_FD_CONN, "received on")->conn;
    struct sim_op *s;

    if (c->op_recv != NULL)
        sim_fail(io->w, "descriptor %d: a receive begins while one is in flight", fd);
    if (c->state == SIM_CONN_NEW || c->state == SIM_CONN_CONNECTING)
        sim_fail(io->w, "descriptor %d: a receive begins before the connection", fd);
    s = sim_op_start(io, op, f, fd, kind);
    s->conn = c;
    c->op_recv = s;
    if (sim_conn_readable(c))
        sim_op_kick(s);
    return s;
}

void io_recv_into(struct io *io, struct io_op *op, struct flow *f, int fd, void *to, size_t n)
{
    struct sim_op *s = start_receive(io, op, f, fd, SIM_OP_RECV_INTO);

    s->to = to;
    s->n = n;
}

/* --- tries --- */

static void ends(struct sim_op *s, int result)
{
    s->conn->op_recv = NULL;
    sim_op_post(s, result, -1, false);
}

static void receive_run(struct sim_op *s, size_t n)
{
    struct sim_conn *c = s->conn;
    struct sim_world *w = c->w;
    const char *bytes = sim_bytes_at(&c->in.bytes, 0);
    int buffer;
    bool more;

    if (n > 1 && sim_fault(w, w->options.faults.short_recv_ppm, &w->counts.short_recvs))
        n = 1 + sim_below(w, n - 1);
    if (s->kind == SIM_OP_RECV_INTO) {
        memcpy(s->to, bytes, n);
        sim_conn_took(c, n);
        ends(s, (int)n);
        return;
    }
    buffer = buffer_take(s->io, bytes, n);
    if (buffer < 0) {
        ends(s, buffer);
        return;
    }
    sim_conn_took(c, n);
    /* The kernel ends a multishot receive when it likes. */
    more = s->recv->multishot && !sim_fault(w, w->options.faults.recv_ends_ppm, &w->counts.recv_ends);
    if (!more)
        c->op_recv = NULL;
    sim_op_post(s, (int)n, buffer, more);
    if (more && (s->cancelled || sim_conn_readable(c)))
        sim_op_kick(s);
}

void sim_try_recv(void *context)
{
    struct sim_op *s = context;
    struct sim_conn *c = s->conn;
    size_t n_max = s->kind == SIM_OP_RECV ? s->io->buffer_bytes : s->n;

    if (sim_op_ends_cancelled(s, sim_conn_readable(c)))
        c->op_recv = NULL;
    else if (c->in.unread > 0)
        receive_run(s, c->in.unread < n_max ? c->in.unread : n_max);
    else if (c->state == SIM_CONN_DEAD)
        ends(s, sim_conn_take_error(c)); /* once told, Linux goes on with the end of the stream */
    else if (c->in.fin_arrived)
        ends(s, 0);
}

/* --- io_recv --- */

void io_recv_init(struct io_recv *r, int fd, struct flow *f, bool multishot)
{
    *r = (struct io_recv){
        .op = {.flow = f}, .fd = fd, .head = IO_RECV_NONE, .tail = IO_RECV_NONE, .multishot = multishot};
    list_init(&r->starving);
}

static void begin(struct io *io, struct io_recv *r)
{
    start_receive(io, &r->op, r->op.flow, r->fd, SIM_OP_RECV)->recv = r;
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

static void unstarve(struct io_recv *r)
{
    r->starved = false;
    list_remove(&r->starving);
}

void sim_recv_feed(struct io *io)
{
    for (unsigned left = io->free_n; left > 0 && !list_empty(&io->starved); left--) {
        struct io_recv *r = LIST_ENTRY(io->starved.next, struct io_recv, starving);

        unstarve(r);
        begin(io, r);
    }
}

static void enqueue(struct io *io, struct io_recv *r, uint16_t id)
{
    io->buffers[id].next = IO_RECV_NONE;
    if (r->head == IO_RECV_NONE)
        r->head = id;
    else
        io->buffers[r->tail].next = id;
    r->tail = id;
    r->queued_n++;
}

static void dequeue(struct io *io, struct io_recv *r)
{
    uint16_t id = r->head;

    r->head = io->buffers[id].next;
    r->head_used = 0;
    if (r->head == IO_RECV_NONE)
        r->tail = IO_RECV_NONE;
    r->queued_n--;
    buffer_put(io, id);
}

static void cancel(struct io *io, struct io_recv *r)
{
    if (r->cancelling)
        return;
    r->cancelling = true;
    r->wanted = false;
    io_cancel(io, &r->op);
}

static void ended(struct io *io, struct io_recv *r, int result)
{
    bool cancelled = r->cancelling, wanted = r->wanted;

    r->cancelling = r->wanted = false;
    if (r->stopping || r->end != 0)
        return;
    if (result == -ENOBUFS && (!cancelled || wanted)) {
        r->starved = true;
        io->w->counts.recv_starved++;
        list_push_back(&io->starved, &r->starving);
    } else if (result < 0 && result != -ENOBUFS && !(result == -ECANCELED && cancelled)) {
        r->end = (int16_t)result;
    } else if (wanted) {
        io_recv_arm(io, r);
    }
}

void sim_recv_taken(struct sim_op *s, int result, int buffer, bool more)
{
    struct io *io = s->io;
    struct io_recv *r = s->recv;
    bool drop = r->stopping;

    if (!more) {
        r->op.in_flight = false;
        sim_op_free(s);
    }
    if (buffer >= 0 && drop)
        buffer_put(io, (uint16_t)buffer);
    else if (buffer >= 0)
        enqueue(io, r, (uint16_t)buffer);
    if (result == 0 && !drop)
        r->end = -ENODATA;
    if (!more)
        ended(io, r, result);
    else if (r->queued_n >= IO_RECV_QUEUE_MAX && !r->cancelling) {
        io->w->counts.recv_pauses++;
        cancel(io, r);
    }
    if (result > 0 || r->end != 0 || (drop && !more))
        flow_wake(&io->ready, r->op.flow);
}

struct str io_recv_peek(struct io *io, const struct io_recv *r)
{
    const struct sim_buffer *b;

    if (r->head == IO_RECV_NONE)
        return STR_NONE;
    b = &io->buffers[r->head];
    return str_of(b->p + r->head_used, b->n - r->head_used);
}

int io_recv_end(const struct io_recv *r)
{
    return r->head == IO_RECV_NONE ? r->end : 0;
}

void io_recv_consume(struct io *io, struct io_recv *r, size_t n)
{
    struct sim_buffer *b;

    if (n == 0)
        return;
    if (r->head == IO_RECV_NONE || n > io->buffers[r->head].n - r->head_used)
        sim_fail(io->w, "descriptor %d: %zu bytes are consumed, more than were received", r->fd, n);
    b = &io->buffers[r->head];
    memset(b->p + r->head_used, STALE, n);
    r->head_used = (uint16_t)(r->head_used + n);
    if (r->head_used == b->n)
        dequeue(io, r);
}

bool io_recv_scarce(const struct io *io)
{
    return io->free_n <= io->buffers_n / 4;
}

bool io_recv_nearly_out(const struct io *io)
{
    return io->free_n <= io->buffers_n / 8;
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

/* --- accept --- */

void io_accept_start(struct io *io, struct io_accept *a, struct flow *f, int listen_fd)
{
    struct sim_listener *l = sim_fd_get(io->w, listen_fd, SIM_FD_LISTENER, "accepted on")->listener;
    struct sim_op *s;

    a->op.flow = f;
    a->listen_fd = listen_fd;
    a->error = 0;
    if (a->op.in_flight)
        return;
    if (l->op != NULL)
        sim_fail(io->w, "listener %d: accepting begins twice", listen_fd);
    s = sim_op_start(io, &a->op, f, listen_fd, SIM_OP_ACCEPT);
    s->listener = l;
    s->accept = a;
    l->op = s;
    list_push_back(&io->accepts, &s->io_link);
    if (!list_empty(&l->backlog))
        sim_op_kick(s);
}

static void accept_ends(struct sim_op *s, int error)
{
    s->listener->op = NULL;
    list_remove(&s->io_link);
    if (!s->ended)
        sim_op_post(s, error, -1, false);
}

void sim_try_accept(void *context)
{
    struct sim_op *s = context;
    struct sim_listener *l = s->listener;
    struct sim_world *w = l->w;
    struct sim_conn *c;

    if (sim_op_ends_cancelled(s, !list_empty(&l->backlog))) {
        accept_ends(s, 0);
        return;
    }
    if (list_empty(&l->backlog) || s->accept->n + s->pending_n >= IO_ACCEPT_QUEUE) {
        if (s->cancelled)
            accept_ends(s, -ECANCELED);
        return;
    }
    if (s->breaks || sim_fault(w, w->options.faults.accept_emfile_ppm, &w->counts.accept_errors)) {
        accept_ends(s, -EMFILE);
        return;
    }
    c = LIST_ENTRY(l->backlog.next, struct sim_conn, backlog_link);
    list_remove(&c->backlog_link);
    c->fd = sim_fd_new(w, SIM_FD_CONN, c, -1);
    sim_op_post(s, c->fd, -1, true);
    if (s->cancelled || !list_empty(&l->backlog))
        sim_op_kick(s);
}

/* Those whose queue was full may have room again. */
void sim_accept_resume(struct io *io)
{
    LIST_EACH (&io->accepts, node) {
        struct sim_op *s = LIST_ENTRY(node, struct sim_op, io_link);
        if (!list_empty(&s->listener->backlog))
            sim_op_kick(s);
    }
}

void sim_accept_taken(struct sim_op *s, int result, bool more)
{
    struct io_accept *a = s->accept;

    if (result >= 0) {
        CHECK(a->n < IO_ACCEPT_QUEUE);
        a->fds[(a->head + a->n++) % IO_ACCEPT_QUEUE] = result;
    }
    flow_wake(&s->io->ready, a->op.flow);
    if (!more) {
        a->op.in_flight = false;
        a->error = result;
        sim_op_free(s);
    }
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
