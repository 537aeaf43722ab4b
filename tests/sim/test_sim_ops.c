/* The simulation itself: single operations, time, and that its checks fire. */
#include "sim.h"
#include "util/check.h"
#include "util/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

static struct io *new_io(void)
{
    struct io *io = NULL;
    const char *error_text = NULL;
    struct io_options options = {.entries = 64, .receive_buffers = 64, .receive_buffer_bytes = 2048};

    assert_int_equal(io_create(&io, &options, &error_text), 0);
    return io;
}

/* --- single operations: a flow that does what it is told --- */

struct probe {
    struct flow flow;
    struct io *io;
    struct io_op op;
    struct timer timer;
    int result;
    bool complete;
};

static enum flow_result probe_step(struct flow *f)
{
    struct probe *p = CONTAINER_OF(f, struct probe, flow);

    if (io_op_take(&p->op, &p->result) || p->timer.fired)
        p->complete = true;
    return FLOW_WAIT;
}

static const flow_step probe_steps[] = {probe_step};
static const struct flow_type probe_type = {"probe", probe_steps, NULL, 1, NULL};

static void probe_init(struct probe *p, struct io *io)
{
    *p = (struct probe){.io = io};
    flow_init(&p->flow, &probe_type, 0);
}

static bool probe_complete(void *context)
{
    return ((struct probe *)context)->complete;
}

static int probe_connect(struct sim_world *w, struct probe *p, uint16_t port, uint64_t cancel_after_ns,
                         int *fd)
{
    struct sockaddr_storage to;
    socklen_t n = sim_address(&to, "10.0.0.1", port);

    p->complete = false;
    *fd = io_socket(p->io, AF_INET);
    io_connect(p->io, &p->op, &p->flow, *fd, (struct sockaddr *)&to, n);
    if (cancel_after_ns > 0) {
        sim_run(w, probe_complete, p, cancel_after_ns);
        io_cancel(p->io, &p->op);
    }
    assert_true(sim_run(w, probe_complete, p, 300 * NS_PER_S));
    return p->result;
}

static void test_connect(void **state)
{
    struct sim_options options = sim_options_calm(1);
    struct sim_world *w = sim_create(&options);
    static const struct sim_peer nobody = {0};
    struct sockaddr_storage peer;
    struct probe p;
    uint64_t start;
    int fd;

    (void)state;
    probe_init(&p, new_io());
    sim_listen(w, "10.0.0.1", 1, &nobody, NULL, NULL);
    assert_int_equal(probe_connect(w, &p, 1, 0, &fd), 0);
    assert_int_equal(io_peer_address(p.io, fd, &peer), 0);
    assert_int_equal(ntohs(((struct sockaddr_in *)&peer)->sin_port), 1);
    io_close(p.io, fd);
    assert_int_equal(probe_connect(w, &p, 2, 0, &fd), -ECONNREFUSED);
    io_close(p.io, fd);
    sim_route(w, "10.0.0.1", 1, SIM_ROUTE_UNREACHABLE);
    assert_int_equal(probe_connect(w, &p, 1, 0, &fd), -EHOSTUNREACH);
    io_close(p.io, fd);
    sim_route(w, "10.0.0.1", 1, SIM_ROUTE_LOST);
    start = sim_now_ns(w);
    assert_int_equal(probe_connect(w, &p, 1, 0, &fd), -ETIMEDOUT);
    assert_true(sim_now_ns(w) - start >= SIM_CONNECT_TIMEOUT_NS);
    io_close(p.io, fd);
    start = sim_now_ns(w);
    assert_int_equal(probe_connect(w, &p, 1, NS_PER_S, &fd), -ECANCELED);
    assert_true(sim_now_ns(w) - start < 2 * NS_PER_S);
    io_close(p.io, fd);
    sim_faults(w)->socket_emfile_ppm = 1000000;
    assert_int_equal(io_socket(p.io, AF_INET), -EMFILE);
    io_destroy(&p.io);
    sim_destroy(&w);
}

static void test_time(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct sim_options options = sim_options_calm(seed);
        struct sim_world *w = sim_create(&options);
        uint64_t mono = clock_mono_ns(), unix_s = clock_unix_s(), late_ns;
        struct probe p;

        probe_init(&p, new_io());
        io_timer_set(p.io, &p.timer, &p.flow, 3600 * 1000);
        assert_true(sim_run(w, probe_complete, &p, 4000 * NS_PER_S));
        late_ns = clock_mono_ns() - mono - 3600 * NS_PER_S;
        assert_true(late_ns < 5 * NS_PER_MS);
        assert_int_equal(clock_unix_s() - unix_s, 3600);
        assert_int_equal(io_now_unix_s(p.io) - unix_s, 3600);
        assert_false(sim_run(w, NULL, NULL, NS_PER_S)); /* nothing left: the clock goes on all the same */
        assert_int_equal(clock_unix_s() - unix_s, 3601);
        io_destroy(&p.io);
        sim_destroy(&w);
    }
}

static int probe_wait(struct sim_world *w, struct probe *p)
{
    p->complete = false;
    assert_true(sim_run(w, probe_complete, p, 10 * NS_PER_S));
    return p->result;
}

static void test_files(void **state)
{
    struct sim_options options = sim_options_calm(3);
    struct sim_world *w = sim_create(&options);
    char path[] = "/tmp/test_sim_XXXXXX", text[10] = {0};
    struct open_how how = {.flags = O_RDONLY};
    int made = mkstemp(path), fd;
    struct probe p;

    (void)state;
    assert_int_equal(write(made, "0123456789", 10), 10);
    close(made);
    probe_init(&p, new_io());
    io_openat2(p.io, &p.op, &p.flow, AT_FDCWD, path, &how);
    fd = probe_wait(w, &p);
    assert_true(fd >= 0);
    io_read(p.io, &p.op, &p.flow, fd, text, 10, 3);
    assert_int_equal(probe_wait(w, &p), 7);
    assert_memory_equal(text, "3456789", 7);
    sim_faults(w)->short_read_ppm = 1000000;
    io_read(p.io, &p.op, &p.flow, fd, text, 10, 0);
    assert_in_range(probe_wait(w, &p), 1, 9);
    sim_faults(w)->read_error_ppm = 1000000;
    io_read(p.io, &p.op, &p.flow, fd, text, 10, 0);
    assert_int_equal(probe_wait(w, &p), -EIO);
    assert_int_equal(sim_open_fds(w), 1);
    io_close(p.io, fd);
    unlink(path);
    io_openat2(p.io, &p.op, &p.flow, AT_FDCWD, path, &how);
    assert_int_equal(probe_wait(w, &p), -ENOENT);
    io_destroy(&p.io);
    sim_destroy(&w);
}

/* A slow reader: bytes are acknowledged bit by bit, while one send is in flight. */
static void test_acked_bytes_and_poll(void **state)
{
    struct sim_options options = sim_options_calm(5);
    struct sim_world *w = sim_create(&options);
    static const struct sim_peer slow = {0};
    static char bytes[300000];
    struct probe p, poller;
    uint64_t acked, before = 0;
    struct sockaddr_storage at;
    struct io_accept accept = {0};
    struct sim_conn *conn;
    int fd, listen_fd;

    (void)state;
    sim_net(w)->receive_buffer_bytes = sim_net(w)->send_buffer_bytes = (struct sim_range){20000, 20000};
    probe_init(&p, new_io());
    probe_init(&poller, p.io);
    listen_fd = io_listen(p.io, (struct sockaddr *)&at, sim_address(&at, "::", 90), 10);
    io_accept_start(p.io, &accept, &p.flow, listen_fd);
    conn = sim_connect(w, NULL, "::1", 90, &slow, NULL);
    sim_conn_read_rate(conn, 10000);
    sim_run(w, NULL, NULL, NS_PER_S);
    fd = io_accept_take(&accept);
    assert_true(fd >= 0);
    io_send(p.io, &p.op, &p.flow, fd, bytes, sizeof bytes);
    for (unsigned second = 0; second < 20; second++) {
        sim_run(w, NULL, NULL, NS_PER_S);
        assert_int_equal(io_acked_bytes(p.io, fd, &acked), 0);
        assert_true(acked > before);
        before = acked;
        assert_false(p.complete);
    }
    assert_in_range(acked, 200000, 240000);
    io_poll(p.io, &poller.op, &poller.flow, fd, POLLIN);
    sim_run(w, NULL, NULL, NS_PER_MS);
    assert_false(poller.complete);
    sim_conn_send(conn, STR("x"));
    assert_int_equal(probe_wait(w, &poller), POLLIN);
    assert_int_equal(probe_wait(w, &p), sizeof bytes);
    sim_conn_reset_now(conn);
    io_close(p.io, fd);
    io_cancel(p.io, &accept.op);
    sim_run(w, NULL, NULL, NS_PER_S);
    assert_int_equal(io_accept_take(&accept), -ECANCELED);
    io_close(p.io, listen_fd);
    io_destroy(&p.io);
    sim_destroy(&w);
}

/* --- a worker's own loop, with a wait of a tenth of a second --- */

struct worker {
    struct io *io;
    unsigned turns_n;
};

static void worker_turn(void *context)
{
    struct worker *worker = context;

    worker->turns_n++;
    io_run_once(worker->io, 100 * NS_PER_MS);
}

static void test_worker_turns(void **state)
{
    struct sim_options options = sim_options_calm(2);
    struct sim_world *w = sim_create(&options);
    struct worker worker = {.io = new_io()};

    (void)state;
    sim_worker(w, worker.io, worker_turn, &worker);
    sim_run(w, NULL, NULL, 10 * NS_PER_S);
    assert_in_range(worker.turns_n, 99, 102);
    io_destroy(&worker.io);
    sim_destroy(&w);
}

/* --- what is consumed does not stay as it was --- */

static void test_stale_bytes(void **state)
{
    struct sim_options options = sim_options_calm(4);
    struct sim_world *w = sim_create(&options);
    static const struct sim_peer nobody = {0};
    struct sockaddr_storage at;
    struct io_accept accept = {0};
    struct io_recv recv;
    struct probe p;
    struct str run;
    int listen_fd, fd;

    (void)state;
    sim_net(w)->segment_bytes = (struct sim_range){100, 100};
    probe_init(&p, new_io());
    listen_fd = io_listen(p.io, (struct sockaddr *)&at, sim_address(&at, "127.0.0.1", 90), 10);
    io_accept_start(p.io, &accept, &p.flow, listen_fd);
    sim_conn_send(sim_connect(w, NULL, "127.0.0.1", 90, &nobody, NULL), STR("hello world"));
    sim_run(w, NULL, NULL, NS_PER_S);
    fd = io_accept_take(&accept);
    io_recv_init(&recv, fd, &p.flow, true);
    io_recv_arm(p.io, &recv);
    sim_run(w, NULL, NULL, NS_PER_S);
    run = io_recv_peek(p.io, &recv);
    assert_true(str_eq(run, STR("hello world")));
    io_recv_consume(p.io, &recv, 6);
    assert_true(str_eq(io_recv_peek(p.io, &recv), STR("world")));
    assert_memory_equal(run.p,
                        "\xDB\xDB\xDB\xDB\xDB\xDB"
                        "world",
                        11);
    io_recv_consume(p.io, &recv, 5);
    assert_false(io_recv_stop(p.io, &recv));
    io_cancel(p.io, &accept.op);
    assert_true(sim_run_idle(w, NS_PER_S));
    assert_true(io_recv_stop(p.io, &recv));
    io_close(p.io, fd);
    io_close(p.io, listen_fd);
    io_destroy(&p.io);
    sim_destroy(&w);
}

struct note {
    struct mail mail;
    struct probe *to;
};

static void note_received(struct mail *m, void *context)
{
    struct note *n = CONTAINER_OF(m, struct note, mail);

    assert_ptr_equal(context, n->to);
    n->to->result++;
    n->to->complete = n->to->result == 3;
}

static void test_mail(void **state)
{
    struct sim_options options = sim_options_calm(6);
    struct sim_world *w = sim_create(&options);
    struct mailbox box;
    struct note notes[3];
    struct probe p;

    (void)state;
    assert_int_equal(mailbox_open(&box), 0);
    probe_init(&p, new_io());
    assert_int_equal(io_attach_mailbox(p.io, &box, &p), 0);
    for (unsigned i = 0; i < 3; i++) {
        notes[i] = (struct note){.mail = {.receive = note_received}, .to = &p};
        mailbox_post(&box, &notes[i].mail);
    }
    assert_true(sim_run(w, probe_complete, &p, NS_PER_MS));
    io_destroy(&p.io);
    mailbox_close(&box);
    sim_destroy(&w);
}

/* --- the checks fire --- */

/* Runs it in a child; it must abort with the message. */
static void expect_failure(void (*wrong)(struct sim_world *, struct probe *, int fd), const char *message)
{
    char said[4096] = {0};
    int fds[2], status;
    ssize_t n;
    pid_t child;

    assert_int_equal(pipe(fds), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct sim_options options = sim_options_calm(9);
        struct sim_world *w;
        static const struct sim_peer nobody = {0};
        struct probe p;
        int fd;

        signal(SIGABRT, SIG_DFL);
        dup2(fds[1], 2);
        options.net.send_buffer_bytes = options.net.receive_buffer_bytes = (struct sim_range){1000, 1000};
        w = sim_create(&options);
        probe_init(&p, new_io());
        sim_listen(w, "10.0.0.1", 1, &nobody, NULL, NULL);
        probe_connect(w, &p, 1, 0, &fd);
        wrong(w, &p, fd);
        _exit(0);
    }
    close(fds[1]);
    for (size_t at = 0; (n = read(fds[0], said + at, sizeof said - 1 - at)) > 0;)
        at += (size_t)n;
    close(fds[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFSIGNALED(status) || strstr(said, message) == NULL)
        fail_msg("expected an abort with '%s', got status %d and '%s'", message, status, said);
}

static char outgoing[100000];

static void change_while_sent(struct sim_world *w, struct probe *p, int fd)
{
    io_send(p->io, &p->op, &p->flow, fd, outgoing, sizeof outgoing);
    sim_run(w, NULL, NULL, NS_PER_MS);
    outgoing[99999] = 1;
    sim_run(w, NULL, NULL, 100 * NS_PER_S);
}

static void close_in_flight(struct sim_world *w, struct probe *p, int fd)
{
    (void)w;
    io_recv_into(p->io, &p->op, &p->flow, fd, outgoing, 10);
    io_close(p->io, fd);
}

static void use_again(struct sim_world *w, struct probe *p, int fd)
{
    (void)w;
    io_recv_into(p->io, &p->op, &p->flow, fd, outgoing, 10);
    io_send(p->io, &p->op, &p->flow, fd, outgoing, 10);
}

static void send_twice(struct sim_world *w, struct probe *p, int fd)
{
    struct probe other;

    (void)w;
    probe_init(&other, p->io);
    io_send(p->io, &p->op, &p->flow, fd, outgoing, 10);
    io_send(p->io, &other.op, &other.flow, fd, outgoing, 10);
}

static void forget_fd(struct sim_world *w, struct probe *p, int fd)
{
    (void)fd;
    io_destroy(&p->io);
    sim_destroy(&w);
}

static void forget_operation(struct sim_world *w, struct probe *p, int fd)
{
    (void)w;
    io_recv_into(p->io, &p->op, &p->flow, fd, outgoing, 10);
    io_destroy(&p->io);
}

static void use_closed(struct sim_world *w, struct probe *p, int fd)
{
    (void)w;
    io_close(p->io, fd);
    io_send(p->io, &p->op, &p->flow, fd, outgoing, 10);
}

static void test_checks_fire(void **state)
{
    (void)state;
    expect_failure(change_while_sent, "seed 9");
    expect_failure(change_while_sent, "memory changed while it was sent");
    expect_failure(close_in_flight, "closed with 1 operations in flight");
    expect_failure(use_again, "uses an operation that is in flight");
    expect_failure(send_twice, "a send begins while one is in flight");
    expect_failure(forget_fd, "1 descriptors are left open");
    expect_failure(forget_operation, "a receive on descriptor");
    expect_failure(use_closed, "after its close");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_time),        cmocka_unit_test(test_worker_turns),
        cmocka_unit_test(test_connect),     cmocka_unit_test(test_files),
        cmocka_unit_test(test_mail),        cmocka_unit_test(test_acked_bytes_and_poll),
        cmocka_unit_test(test_stale_bytes), cmocka_unit_test(test_checks_fire),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
