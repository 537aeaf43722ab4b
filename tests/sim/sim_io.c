/* The loop of a worker, descriptors, and what all operations have in common. */
#include "sim_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* --- descriptors: a number is never given out twice, so that a stale one shows --- */

int sim_fd_new(struct sim_world *w, enum sim_fd_kind kind, void *object, int file)
{
    struct sim_fd *fd;

    if (w->fds_n == w->fds_cap) {
        w->fds_cap = w->fds_cap ? 2 * w->fds_cap : 64;
        w->fds = realloc(w->fds, w->fds_cap * sizeof *w->fds);
        CHECK(w->fds != NULL);
    }
    fd = &w->fds[w->fds_n++];
    *fd = (struct sim_fd){.kind = kind};
    if (kind == SIM_FD_CONN)
        fd->conn = object;
    else if (kind == SIM_FD_LISTENER)
        fd->listener = object;
    else
        fd->file = file;
    w->fds_open++;
    return (int)(w->fds_n - 1) + SIM_FD_BASE;
}

struct sim_fd *sim_fd_get(struct sim_world *w, int fd, enum sim_fd_kind kind, const char *what)
{
    size_t i = (size_t)fd - SIM_FD_BASE;

    if (fd < SIM_FD_BASE || i >= w->fds_n)
        sim_fail(w, "descriptor %d is %s, but was never given out", fd, what);
    if (w->fds[i].kind == SIM_FD_CLOSED)
        sim_fail(w, "descriptor %d is %s after its close", fd, what);
    if (w->fds[i].kind != kind)
        sim_fail(w, "descriptor %d is %s, but is of another kind", fd, what);
    return &w->fds[i];
}

static void close_listener(struct sim_listener *l)
{
    LIST_EACH (&l->backlog, node) {
        struct sim_conn *c = LIST_ENTRY(node, struct sim_conn, backlog_link);
        list_remove(node);
        sim_conn_do_reset(c);
    }
    list_remove(&l->link);
    free(l);
}

void io_close(struct io *io, int fd)
{
    struct sim_world *w = io->w;
    size_t i = (size_t)fd - SIM_FD_BASE;

    if (fd >= 0 && fd < SIM_FD_BASE) { /* opened without us */
        close(fd);
        return;
    }
    if (fd < 0 || i >= w->fds_n || w->fds[i].kind == SIM_FD_CLOSED)
        sim_fail(w, "descriptor %d is closed, but is not open", fd);
    if (w->fds[i].ops_n > 0)
        sim_fail(w, "descriptor %d is closed with %u operations in flight", fd, w->fds[i].ops_n);
    sim_trace(w, "close fd", (uint64_t)fd, 0);
    if (w->fds[i].kind == SIM_FD_CONN)
        sim_conn_do_close(w->fds[i].conn);
    else if (w->fds[i].kind == SIM_FD_LISTENER)
        close_listener(w->fds[i].listener);
    else
        close(w->fds[i].file);
    w->fds[i].kind = SIM_FD_CLOSED;
    w->fds_open--;
}

/* --- operations --- */

static void (*const tries[SIM_OP_KINDS])(void *) = {
    [SIM_OP_CONNECT] = sim_try_connect, [SIM_OP_RECV_INTO] = sim_try_recv, [SIM_OP_RECV] = sim_try_recv,
    [SIM_OP_SEND] = sim_try_send,       [SIM_OP_POLL] = sim_try_poll,      [SIM_OP_ACCEPT] = sim_try_accept,
    [SIM_OP_OPEN] = sim_try_file,       [SIM_OP_STATX] = sim_try_file,     [SIM_OP_READ] = sim_try_file,
};

static const char *const kind_names[SIM_OP_KINDS] = {
    [SIM_OP_CONNECT] = "connect", [SIM_OP_RECV_INTO] = "receive", [SIM_OP_RECV] = "receive",
    [SIM_OP_SEND] = "send",       [SIM_OP_POLL] = "poll",         [SIM_OP_ACCEPT] = "accept",
    [SIM_OP_OPEN] = "open",       [SIM_OP_STATX] = "statx",       [SIM_OP_READ] = "read",
};

static void try_op(void *context)
{
    struct sim_op *s = context;
    struct sim_world *w = s->io->w;
    bool of_conn = s->conn != NULL || s->listener != NULL;

    if (of_conn && ++w->counts.tries == w->options.faults.break_at_try) {
        s->breaks = true;
        if (s->conn != NULL && s->conn->state == SIM_CONN_OPEN)
            sim_conn_break(s->conn);
    }
    tries[s->kind](s);
}

static int free_slot(struct sim_world *w)
{
    size_t i = w->free_slot_hint; /* none below it is free */

    while (i < w->ops_n && w->ops[i] != NULL)
        i++;
    w->free_slot_hint = i + 1;
    if (i < w->ops_n)
        return (int)i;
    if (w->ops_n == w->ops_cap) {
        w->ops_cap = w->ops_cap ? 2 * w->ops_cap : 64;
        w->ops = realloc(w->ops, w->ops_cap * sizeof(struct sim_op *));
        CHECK(w->ops != NULL);
    }
    return (int)w->ops_n++;
}

static struct sim_op *find_op(struct sim_world *w, const struct io_op *op)
{
    int slot = op->result;

    if (!op->in_flight || slot < 0 || (size_t)slot >= w->ops_n || w->ops[slot] == NULL ||
        w->ops[slot]->op != op)
        sim_fail(w, "an operation says that it is in flight, and is not");
    return w->ops[slot];
}

struct sim_op *sim_op_start(struct io *io, struct io_op *op, struct flow *f, int fd, enum sim_op_kind kind)
{
    struct sim_world *w = io->w;
    struct sim_op *s;

    CHECK_MAGIC(io, SIM_IO_MAGIC);
    CHECK(f == NULL || f->magic == FLOW_MAGIC);
    if (op->in_flight)
        sim_fail(w, "descriptor %d: a %s uses an operation that is in flight", fd, kind_names[kind]);
    if (op->done)
        sim_fail(w, "descriptor %d: a %s uses an operation whose result was not taken", fd, kind_names[kind]);
    s = calloc(1, sizeof *s);
    CHECK(s != NULL);
    *s = (struct sim_op){.magic = SIM_OP_MAGIC, .kind = kind, .io = io, .op = op, .fd = fd};
    s->event = (struct sim_event){.call = try_op, .context = s};
    list_init(&s->io_link);
    s->slot = free_slot(w);
    w->ops[s->slot] = s;
    w->ops_in_flight++;
    *op = (struct io_op){.flow = f, .result = s->slot, .kind = (uint8_t)kind, .in_flight = true};
    if (fd >= SIM_FD_BASE)
        w->fds[fd - SIM_FD_BASE].ops_n++;
    sim_trace(w, kind_names[kind], (uint64_t)(int64_t)fd, (uint64_t)s->slot);
    return s;
}

void sim_op_free(struct sim_op *s)
{
    struct sim_world *w = s->io->w;

    CHECK_MAGIC(s, SIM_OP_MAGIC);
    sim_event_cancel(w, &s->event);
    list_remove(&s->io_link);
    w->ops[s->slot] = NULL;
    if ((size_t)s->slot < w->free_slot_hint)
        w->free_slot_hint = (size_t)s->slot;
    w->ops_in_flight--;
    if (s->fd >= SIM_FD_BASE)
        w->fds[s->fd - SIM_FD_BASE].ops_n--;
    free(s->shadow);
    s->magic = 0;
    free(s);
}

void sim_op_kick(struct sim_op *s)
{
    if (!s->ended && !sim_event_is_set(&s->event))
        sim_event_set(s->io->w, &s->event, sim_between(s->io->w, s->io->w->options.net.operation_ns));
}

void sim_op_post(struct sim_op *s, int result, int buffer, bool more)
{
    struct io *io = s->io;

    CHECK(!s->ended);
    if (io->done_head > 0 && io->done_head + io->done_n == io->done_cap) {
        memmove(io->done, io->done + io->done_head, io->done_n * sizeof *io->done);
        io->done_head = 0;
    }
    if (io->done_n == io->done_cap) {
        io->done_cap = io->done_cap ? 2 * io->done_cap : 64;
        io->done = realloc(io->done, io->done_cap * sizeof *io->done);
        CHECK(io->done != NULL);
    }
    io->done[io->done_head + io->done_n++] =
        (struct sim_completion){.op = s, .result = result, .buffer = buffer, .more = more};
    s->pending_n++;
    s->ended = !more;
    if (s->ended)
        sim_event_cancel(io->w, &s->event);
    sim_trace(io->w, kind_names[s->kind], (uint64_t)(int64_t)s->fd, (uint64_t)(int64_t)result);
}

void io_cancel(struct io *io, struct io_op *op)
{
    struct sim_op *s;

    if (!op->in_flight)
        return;
    s = find_op(io->w, op);
    if (s->io != io)
        sim_fail(io->w, "a %s is cancelled on another worker", kind_names[s->kind]);
    if (s->ended)
        return;
    sim_trace(io->w, "cancel", (uint64_t)(int64_t)s->fd, (uint64_t)s->slot);
    s->cancelled = true;
    /* Also what waits long, as a connect that is never answered, hears of it soon. */
    if (s->event.at > io->w->now + io->w->options.net.operation_ns.max)
        sim_event_cancel(io->w, &s->event);
    sim_op_kick(s);
}

bool sim_op_ends_cancelled(struct sim_op *s, bool possible)
{
    if (!s->cancelled || (possible && sim_fault(s->io->w, s->io->w->options.faults.cancel_late_ppm,
                                                &s->io->w->counts.late_cancels)))
        return false;
    sim_op_post(s, s->sent > 0 ? (int)s->sent : -ECANCELED, -1, false);
    return true;
}

static void take(struct io *io, struct sim_completion c)
{
    struct sim_op *s = c.op;

    CHECK_MAGIC(s, SIM_OP_MAGIC);
    s->pending_n--;
    sim_trace(io->w, "taken", (uint64_t)(int64_t)s->fd, (uint64_t)(int64_t)c.result);
    if (s->kind == SIM_OP_RECV) {
        sim_recv_taken(s, c.result, c.buffer, c.more);
    } else if (s->kind == SIM_OP_ACCEPT) {
        sim_accept_taken(s, c.result, c.more);
    } else {
        if (s->kind == SIM_OP_SEND)
            sim_send_check(s);
        s->op->in_flight = false;
        s->op->done = true;
        s->op->result = c.result;
        if (s->op->flow != NULL)
            flow_wake(&io->ready, s->op->flow);
        sim_op_free(s);
    }
}

/* Those of one operation in their order; those of different ones in any. */
static void take_one(struct io *io)
{
    struct sim_completion *done = io->done + io->done_head, chosen;
    size_t window = io->done_n < 16 ? io->done_n : 16;
    size_t i = sim_below(io->w, window), first = 0;

    while (done[first].op != done[i].op)
        first++;
    chosen = done[first];
    memmove(done + 1, done, first * sizeof *done);
    io->done_head++;
    if (--io->done_n == 0)
        io->done_head = 0;
    take(io, chosen);
}

static void wake_somebody(struct io *io)
{
    struct sim_world *w = io->w;

    if (w->ops_in_flight == 0 ||
        !sim_fault(w, w->options.faults.spurious_wake_ppm, &w->counts.spurious_wakes))
        return;
    size_t i = sim_below(w, w->ops_n);
    if (w->ops[i] != NULL && w->ops[i]->io == io && w->ops[i]->op->flow != NULL) {
        sim_trace(w, "spurious", i, 0);
        flow_wake(&io->ready, w->ops[i]->op->flow);
    }
}

/* --- mail --- */

static enum flow_result deliver_mail(struct flow *f)
{
    struct sim_mail *m = CONTAINER_OF(f, struct sim_mail, flow);

    size_t n = mailbox_deliver(m->mailbox, m->context);
    sim_trace(m->io->w, "mail", n, 0);
    return FLOW_WAIT;
}

static const flow_step mail_steps[] = {deliver_mail};
static const char *const mail_step_names[] = {"deliver"};
static const struct flow_type mail_type = {
    .name = "mail", .steps = mail_steps, .step_names = mail_step_names, .steps_n = 1};

int io_attach_mailbox(struct io *io, struct mailbox *mailbox, void *context)
{
    struct sim_mail *m = calloc(1, sizeof *m);

    CHECK(m != NULL);
    flow_init(&m->flow, &mail_type, 0);
    m->io = io;
    m->mailbox = mailbox;
    m->context = context;
    list_push_back(&io->mails, &m->link);
    return 0;
}

static bool has_mail(struct sim_mail *m)
{
    return atomic_load_explicit(&m->mailbox->head, memory_order_relaxed) != NULL;
}

/* --- the loop --- */

static void default_turn(void *context)
{
    io_run_once(context, 0);
}

int io_create(struct io **out, const struct io_options *options, const char **error_text)
{
    struct io *io = calloc(1, sizeof *io);

    CHECK(io != NULL && sim_current != NULL);
    (void)error_text;
    io->magic = SIM_IO_MAGIC;
    io->w = sim_current;
    io->now_ns = clock_mono_ns();
    io->timers = timer_wheel_create(io->now_ns);
    CHECK(io->timers != NULL);
    io->wake_at = SIM_NEVER;
    io->turn = default_turn;
    io->turn_context = io;
    list_init(&io->mails);
    list_init(&io->accepts);
    list_init(&io->starved);
    sim_buffers_init(io, options);
    list_push_back(&io->w->ios, &io->link);
    snprintf(io->description, sizeof io->description, "simulated, seed %llu",
             (unsigned long long)io->w->options.seed);
    *out = io;
    return 0;
}

void io_destroy(struct io **pp)
{
    struct io *io = TAKE(pp);

    CHECK_MAGIC(io, SIM_IO_MAGIC);
    for (size_t i = 0; i < io->w->ops_n; i++)
        if (io->w->ops[i] != NULL && io->w->ops[i]->io == io)
            sim_fail(io->w, "a worker goes, and a %s on descriptor %d is in flight",
                     kind_names[io->w->ops[i]->kind], io->w->ops[i]->fd);
    LIST_EACH (&io->mails, node)
        free(LIST_ENTRY(node, struct sim_mail, link));
    sim_buffers_free(io);
    timer_wheel_destroy(io->timers);
    list_remove(&io->link);
    free(io->done);
    io->magic = 0;
    free(io);
}

const char *io_describe(const struct io *io)
{
    return io->description;
}

int io_run_once(struct io *io, uint64_t wait_max_ns)
{
    struct sim_world *w = io->w;

    CHECK_MAGIC(io, SIM_IO_MAGIC);
    flow_run_ready(&io->ready);
    io->now_ns = clock_mono_ns();
    timer_wheel_advance(io->timers, io->now_ns, &io->ready);
    /* Now and then not all of them, so that flows run between. */
    for (size_t left = sim_random(w) % 4 == 0 ? io->done_n / 2 + 1 : io->done_n; left > 0 && io->done_n > 0;
         left--)
        take_one(io);
    LIST_EACH (&io->mails, mail_node) {
        struct sim_mail *m = LIST_ENTRY(mail_node, struct sim_mail, link);
        if (has_mail(m))
            flow_wake(&io->ready, &m->flow);
    }
    wake_somebody(io);
    flow_run_ready(&io->ready);
    sim_accept_resume(io);
    sim_recv_feed(io);
    io->wake_at = SIM_NEVER;
    if (io->ready.n == 0 && wait_max_ns > 0 && wait_max_ns < SIM_NEVER - w->now)
        io->wake_at = w->now + wait_max_ns;
    return 0;
}

bool sim_io_wants_turn(const struct io *io)
{
    if (io->ready.n > 0 || io->done_n > 0 || (io->free_n > 0 && !list_empty(&io->starved)) ||
        io->wake_at <= io->w->now || timer_wheel_wait_ns(io->timers, clock_mono_ns()) == 0)
        return true;
    LIST_EACH (&io->mails, node)
        if (has_mail(LIST_ENTRY(node, struct sim_mail, link)))
            return true;
    return false;
}

uint64_t sim_io_next_ns(const struct io *io)
{
    uint64_t wait = timer_wheel_wait_ns(io->timers, clock_mono_ns());
    uint64_t at = wait == UINT64_MAX ? SIM_NEVER : io->w->now + wait;

    return at < io->wake_at ? at : io->wake_at;
}

void sim_worker(struct sim_world *w, struct io *io, void (*turn)(void *), void *context)
{
    CHECK(io->w == w);
    io->turn = turn;
    io->turn_context = context;
    io->wake_at = w->now; /* so that it begins */
}

uint64_t io_now_ns(const struct io *io)
{
    return io->now_ns;
}

uint64_t io_now_unix_s(const struct io *io)
{
    return io->w->options.unix_s + (io->now_ns - io->w->mono_base) / NS_PER_S;
}

struct flow_queue *io_ready(struct io *io)
{
    return &io->ready;
}

struct timer_wheel *io_timers(struct io *io)
{
    return io->timers;
}
