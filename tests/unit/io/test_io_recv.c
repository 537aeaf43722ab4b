/* Receiving in provided buffers, over real sockets. */
#include "io/io_internal.h"
#include "io_fixture.h"

#include <sys/resource.h>

static void assert_all_buffers_back(struct io *io)
{
    const struct io_buffers *b = &io->buffers;
    unsigned n = b->in_ring;

    for (uint16_t id = b->spare; id != IO_RECV_NONE; id = b->info[id].next)
        n++;
    assert_int_equal(n, b->n);
    assert_int_equal(io->in_flight_n, 0);
}

/* --- echo: many connections, both sides on one loop --- */

#define CONNECTIONS_N 500
#define ROUNDS_N      4
#define BYTES_MAX     20000

struct echo;

struct peer { /* of either side */
    struct actor actor;
    struct echo *echo;
    struct io_op op;
    struct io_recv recv;
    int fd;
    bool connected, sending;
    unsigned round;
    size_t sent_n, got_n, bytes_n;
    char out[BYTES_MAX];
};

struct echo {
    struct io *io;
    bool multishot, leaving;
    struct actor acceptor;
    struct io_accept accept;
    struct peer *clients, *servers;
    struct sockaddr_in address;
    unsigned servers_n, servers_ended_n, clients_ended_n;
};

static void server_run(struct actor *a)
{
    struct peer *p = CONTAINER_OF(a, struct peer, actor);
    struct io *io = p->echo->io;
    struct str got;
    int result;

    if (p->fd < 0)
        return;
    if (p->sending) {
        if (!io_op_take(&p->op, &result))
            return;
        assert_int_equal(result, p->bytes_n);
        p->sending = false;
        io_recv_consume(io, &p->recv, p->bytes_n);
    }
    got = io_recv_peek(io, &p->recv);
    if (got.n > 0) { /* straight out of the buffer */
        p->bytes_n = got.n;
        p->sending = true;
        io_send(io, &p->op, &a->flow, p->fd, got.p, got.n);
    } else if (io_recv_end(&p->recv) != 0) {
        assert_int_equal(io_recv_end(&p->recv), -ENODATA);
        assert_true(io_recv_stop(io, &p->recv));
        io_close(io, p->fd);
        p->fd = -1;
        p->echo->servers_ended_n++;
        return;
    }
    io_recv_arm(io, &p->recv);
}

static void acceptor_run(struct actor *a)
{
    struct echo *e = CONTAINER_OF(a, struct echo, acceptor);
    int fd;

    while ((fd = io_accept_take(&e->accept)) >= 0) {
        struct peer *p = &e->servers[e->servers_n++];

        assert_true(e->servers_n <= CONNECTIONS_N);
        p->fd = fd;
        p->echo = e;
        actor_init(&p->actor, server_run);
        io_recv_init(&p->recv, fd, &p->actor.flow, e->multishot);
        io_wake(e->io, &p->actor.flow);
    }
    assert_true(fd == -EAGAIN || (e->leaving && fd == -ECANCELED));
}

static void client_send(struct peer *p)
{
    p->bytes_n = 1 + (size_t)(p - p->echo->clients) * 37 % BYTES_MAX;
    for (size_t i = 0; i < p->bytes_n; i++)
        p->out[i] = pattern(i + p->round);
    p->got_n = 0;
    io_send(p->echo->io, &p->op, &p->actor.flow, p->fd, p->out, p->bytes_n);
}

static void client_run(struct actor *a)
{
    struct peer *p = CONTAINER_OF(a, struct peer, actor);
    struct io *io = p->echo->io;
    struct str got;
    int result;

    if (p->fd < 0)
        return;
    if (io_op_take(&p->op, &result)) {
        assert_int_equal(result, p->connected ? p->bytes_n : 0);
        if (!p->connected) {
            p->connected = true;
            client_send(p);
        }
    }
    if (!p->connected)
        return;
    while ((got = io_recv_peek(io, &p->recv)).n > 0) {
        assert_pattern(got.p, got.n, p->got_n + p->round);
        p->got_n += got.n;
        assert_true(p->got_n <= p->bytes_n);
        io_recv_consume(io, &p->recv, got.n);
    }
    if (p->got_n == p->bytes_n && !p->op.in_flight && !p->op.done) {
        if (++p->round == ROUNDS_N) {
            if (!io_recv_stop(io, &p->recv)) {
                p->round--;
                return;
            }
            io_close(io, p->fd);
            p->fd = -1;
            p->echo->clients_ended_n++;
            return;
        }
        client_send(p);
    }
    io_recv_arm(io, &p->recv);
}

static void echo(unsigned entries, unsigned buffers, unsigned buffer_bytes, unsigned rung, bool multishot)
{
    struct echo *e = calloc(1, sizeof(*e));
    int listener;

    assert_non_null(e);
    e->io = make_io(entries, buffers, buffer_bytes, rung);
    e->multishot = multishot;
    e->clients = calloc(CONNECTIONS_N, sizeof(*e->clients));
    e->servers = calloc(CONNECTIONS_N, sizeof(*e->servers));
    assert_true(e->clients != NULL && e->servers != NULL);
    listener = listen_any(e->io, &e->address);
    actor_init(&e->acceptor, acceptor_run);
    io_accept_start(e->io, &e->accept, &e->acceptor.flow, listener);
    for (struct peer *p = e->clients; p < e->clients + CONNECTIONS_N; p++) {
        p->echo = e;
        p->fd = io_socket(e->io, AF_INET);
        assert_true(p->fd >= 0);
        actor_init(&p->actor, client_run);
        io_recv_init(&p->recv, p->fd, &p->actor.flow, multishot);
        io_connect(e->io, &p->op, &p->actor.flow, p->fd, (struct sockaddr *)&e->address, sizeof(e->address));
    }
    assert_true(RUN_UNTIL(e->io, e->clients_ended_n == CONNECTIONS_N && e->servers_ended_n == CONNECTIONS_N));
    e->leaving = true;
    io_cancel(e->io, &e->accept.op);
    assert_true(RUN_UNTIL(e->io, !e->accept.op.in_flight));
    io_close(e->io, listener);
    assert_all_buffers_back(e->io);
    io_destroy(&e->io);
    assert_null(e->io);
    free(e->clients);
    free(e->servers);
    free(e);
}

static void test_echo_multishot(void **state)
{
    (void)state;
    echo(1024, 1024, 4096, 0, true);
}

static void test_echo_single_shot(void **state)
{
    (void)state;
    echo(1024, 1024, 4096, 0, false);
}

/* Few buffers: most of the connections starve most of the time. Few entries: both queues overflow. */
static void test_echo_starved(void **state)
{
    (void)state;
    echo(8, 16, 512, 0, true);
    echo(8, 16, 512, 0, false);
}

static void test_echo_lower_rungs(void **state)
{
    (void)state;
    echo(64, 128, 2048, 1, true);
    echo(64, 128, 2048, 2, true);
}

/* --- one slow reader --- */

/* The other end, which writes whatever the kernel takes. */
struct source {
    int fd;
    const char *bytes;
    size_t n, written_n;
};

static void source_write(struct source *s)
{
    ssize_t n = 0;

    while (s->written_n < s->n && n >= 0) {
        n = write(s->fd, s->bytes + s->written_n, s->n - s->written_n);
        if (n > 0)
            s->written_n += (size_t)n;
        else
            assert_int_equal(errno, EAGAIN);
    }
    if (s->written_n == s->n && s->fd >= 0) {
        close(s->fd);
        s->fd = -1;
    }
}

static void pause_and_resume(bool multishot)
{
    enum { BYTES_N = 3000001, BUFFERS_N = 256 };
    struct io *io = make_io(64, BUFFERS_N, 1024, 0);
    struct source source = {.bytes = pattern_bytes(BYTES_N), .n = BYTES_N};
    struct io_recv recv;
    struct actor actor;
    size_t got_n = 0, queued_max = 0;
    uint64_t until_ns = clock_mono_ns() + PATIENCE_NS;
    int fd;

    tcp_pair(&fd, &source.fd);
    set_nonblocking(source.fd);
    actor_init(&actor, NULL);
    io_recv_init(&recv, fd, &actor.flow, multishot);
    io_recv_arm(io, &recv);
    for (unsigned turn = 0; io_recv_end(&recv) == 0 && clock_mono_ns() < until_ns; turn++) {
        struct str got;

        source_write(&source);
        assert_int_equal(io_run_once(io, io_recv_peek(io, &recv).n > 0 ? 0 : 10 * NS_PER_MS), 0);
        if (recv.queued_n > queued_max)
            queued_max = recv.queued_n;
        got = io_recv_peek(io, &recv);
        if (got.n > 3 && turn % 3 != 0)
            got.n -= 3; /* a part of it */
        assert_pattern(got.p, got.n, got_n);
        got_n += got.n;
        io_recv_consume(io, &recv, got.n);
        if (turn % 2 == 0 || io_recv_peek(io, &recv).n == 0)
            io_recv_arm(io, &recv);
    }
    assert_int_equal(got_n, BYTES_N);
    assert_int_equal(io_recv_end(&recv), -ENODATA);
    if (multishot) /* it went up to the pause, and not far beyond: never all of the buffers */
        assert_in_range(queued_max, IO_RECV_QUEUE_MAX, BUFFERS_N / 2);
    else
        assert_in_range(queued_max, 1, IO_RECV_QUEUE_MAX);
    assert_true(io_recv_stop(io, &recv));
    io_close(io, fd);
    assert_all_buffers_back(io);
    io_destroy(&io);
    free((void *)(uintptr_t)source.bytes);
}

static void test_pause_and_resume(void **state)
{
    (void)state;
    pause_and_resume(true);
}

static void test_slow_reader_single_shot(void **state)
{
    (void)state;
    pause_and_resume(false);
}

/* A reader that reads nothing takes no more than its share, and nothing of it is lost. */
static void test_pause_holds(void **state)
{
    enum { BYTES_N = 400000 };
    struct io *io = make_io(64, 256, 1024, 0);
    struct source source = {.bytes = pattern_bytes(BYTES_N), .n = BYTES_N};
    struct io_recv recv;
    struct actor actor;
    size_t got_n = 0;
    unsigned queued_n;
    int fd;

    (void)state;
    tcp_pair(&fd, &source.fd);
    set_nonblocking(source.fd);
    actor_init(&actor, NULL);
    io_recv_init(&recv, fd, &actor.flow, true);
    io_recv_arm(io, &recv);
    source_write(&source);
    assert_true(RUN_UNTIL(io, recv.queued_n >= IO_RECV_QUEUE_MAX && !recv.op.in_flight));
    queued_n = recv.queued_n;
    for (int i = 0; i < 20; i++) {
        io_recv_arm(io, &recv); /* data is at hand: there is nothing to do */
        source_write(&source);
        assert_int_equal(io_run_once(io, NS_PER_MS), 0);
    }
    assert_int_equal(recv.queued_n, queued_n);
    while (io_recv_end(&recv) == 0) {
        struct str got = io_recv_peek(io, &recv);

        assert_pattern(got.p, got.n, got_n);
        got_n += got.n;
        io_recv_consume(io, &recv, got.n);
        source_write(&source);
        io_recv_arm(io, &recv);
        if (got.n == 0)
            assert_true(RUN_UNTIL(io, io_recv_peek(io, &recv).n > 0 || io_recv_end(&recv) != 0));
    }
    assert_int_equal(got_n, BYTES_N);
    assert_true(io_recv_stop(io, &recv));
    io_close(io, fd);
    assert_all_buffers_back(io);
    io_destroy(&io);
    free((void *)(uintptr_t)source.bytes);
}

/* Armed again while the cancellation of the pause is on its way: the receive goes on by itself. */
static void test_armed_while_cancelling(void **state)
{
    enum { BYTES_N = IO_RECV_QUEUE_MAX * 100 };
    struct io *io = make_io(64, 256, 100, 0);
    struct io_recv recv;
    struct actor actor;
    char *bytes = pattern_bytes(BYTES_N + 10);
    int fd, theirs;

    (void)state;
    tcp_pair(&fd, &theirs);
    actor_init(&actor, NULL);
    io_recv_init(&recv, fd, &actor.flow, true);
    assert_int_equal(write(theirs, bytes, BYTES_N), BYTES_N);
    io_recv_arm(io, &recv);
    assert_true(RUN_UNTIL(io, recv.cancelling));
    while (recv.queued_n > 0)
        io_recv_consume(io, &recv, io_recv_peek(io, &recv).n);
    assert_true(recv.op.in_flight && recv.cancelling);
    io_recv_arm(io, &recv);
    run_for(io, 5 * NS_PER_MS);
    assert_int_equal(write(theirs, bytes, 10), 10);
    assert_true(RUN_UNTIL(io, io_recv_peek(io, &recv).n == 10));
    close(theirs);
    assert_int_equal(io_recv_end(&recv), 0); /* not before the data is taken */
    assert_true(RUN_UNTIL(io, recv.end != 0));
    assert_int_equal(io_recv_end(&recv), 0);
    io_recv_consume(io, &recv, 10);
    assert_int_equal(io_recv_end(&recv), -ENODATA);
    assert_true(io_recv_stop(io, &recv));
    io_close(io, fd);
    assert_all_buffers_back(io);
    io_destroy(&io);
    free(bytes);
}

/* --- starvation --- */

/* Two buffers, held unread. Whoever else has something to read waits, also behind idle ones, and gets it as
 * soon as a buffer is back. */
static void test_starvation(void **state)
{
    enum { N = 12, HOLDERS_N = 2 };
    struct io *io = make_io(64, HOLDERS_N, 64, 0);
    struct io_recv recv[N];
    struct actor actors[N];
    int fd[N], theirs[N];
    unsigned starved_n = 0;

    (void)state;
    for (int i = 0; i < N; i++) {
        tcp_pair(&fd[i], &theirs[i]);
        actor_init(&actors[i], NULL);
        io_recv_init(&recv[i], fd[i], &actors[i].flow, i % 2 == 0);
        if (i < HOLDERS_N) {
            assert_int_equal(write(theirs[i], "x", 1), 1);
            io_recv_arm(io, &recv[i]);
            assert_true(RUN_UNTIL(io, io_recv_peek(io, &recv[i]).n == 1));
        }
    }
    for (int i = HOLDERS_N; i < N; i++) {
        assert_int_equal(write(theirs[i], "y", 1), 1);
        io_recv_arm(io, &recv[i]);
    }
    run_for(io, 10 * NS_PER_MS);
    for (int i = HOLDERS_N; i < N; i++) {
        assert_int_equal(io_recv_peek(io, &recv[i]).n, 0);
        assert_int_equal(io_recv_end(&recv[i]), 0);
        starved_n += recv[i].starved;
    }
    assert_int_equal(starved_n, N - HOLDERS_N);
    assert_true(io_recv_stop(io, &recv[N - 1])); /* one of the starved goes */
    /* With one buffer back, the others take their turns. */
    io_recv_consume(io, &recv[0], 1);
    for (int left = N - HOLDERS_N - 1; left > 0; left--) {
        int who = -1;

        for (uint64_t until = clock_mono_ns() + PATIENCE_NS; who < 0 && clock_mono_ns() < until;) {
            assert_int_equal(io_run_once(io, 10 * NS_PER_MS), 0);
            for (int i = HOLDERS_N; i < N - 1 && who < 0; i++)
                if (io_recv_peek(io, &recv[i]).n > 0)
                    who = i;
        }
        assert_true(who >= 0);
        assert_true(actors[who].runs_n > 0 || actors[who].flow.queued);
        io_recv_consume(io, &recv[who], 1);
    }
    for (int i = 0; i < N; i++) {
        while (!io_recv_stop(io, &recv[i]))
            assert_int_equal(io_run_once(io, 10 * NS_PER_MS), 0);
        io_close(io, fd[i]);
        close(theirs[i]);
    }
    assert_all_buffers_back(io);
    io_destroy(&io);
}

/* All buffers are in use, and the one who starves is first behind one that has nothing to read. */
static void test_starved_behind_idle(void **state)
{
    struct io *io = make_io(64, 1, 64, 0);
    struct io_recv holder, idle, hungry;
    struct actor actor;
    int fd[3], theirs[3];
    uint64_t begin_ns;
    char byte;

    (void)state;
    actor_init(&actor, NULL);
    for (int i = 0; i < 3; i++)
        tcp_pair(&fd[i], &theirs[i]);
    io_recv_init(&holder, fd[0], &actor.flow, false);
    io_recv_init(&idle, fd[1], &actor.flow, true);
    io_recv_init(&hungry, fd[2], &actor.flow, true);
    assert_int_equal(write(theirs[0], "x", 1), 1);
    io_recv_arm(io, &holder);
    assert_true(RUN_UNTIL(io, io_recv_peek(io, &holder).n == 1));
    assert_int_equal(write(theirs[1], "x", 1), 1);
    io_recv_arm(io, &idle);
    assert_true(RUN_UNTIL(io, idle.starved));
    assert_int_equal(write(theirs[2], "y", 1), 1);
    io_recv_arm(io, &hungry);
    assert_true(RUN_UNTIL(io, hungry.starved));
    assert_int_equal(read(fd[1], &byte, 1), 1); /* now it has nothing to read */
    io_recv_consume(io, &holder, 1);
    begin_ns = clock_mono_ns();
    for (int turns = 0; turns < 10 && io_recv_peek(io, &hungry).n == 0; turns++)
        assert_int_equal(io_run_once(io, PATIENCE_NS), 0);
    assert_int_equal(io_recv_peek(io, &hungry).n, 1);
    assert_true(clock_mono_ns() - begin_ns <
                PATIENCE_NS / 2); /* the loop did not sleep with a buffer at hand */
    io_recv_consume(io, &hungry, 1);
    assert_int_equal(write(theirs[1], "z", 1), 1);
    assert_true(RUN_UNTIL(io, io_recv_peek(io, &idle).n == 1));
    io_destroy(&io);
    for (int i = 0; i < 3; i++) {
        close(fd[i]);
        close(theirs[i]);
    }
}

/* --- ends --- */

static void test_reset_and_stop(void **state)
{
    struct io *io = make_io(64, 64, 1024, 0);
    struct linger linger = {.l_onoff = 1};
    struct io_recv recv;
    struct actor actor;
    unsigned runs_n;
    int fd, theirs;
    char byte;

    (void)state;
    tcp_pair(&fd, &theirs);
    actor_init(&actor, NULL);
    io_recv_init(&recv, fd, &actor.flow, true);
    io_recv_arm(io, &recv);
    run_for(io, 2 * NS_PER_MS);
    assert_int_equal(setsockopt(theirs, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
    close(theirs);
    assert_true(RUN_UNTIL(io, io_recv_end(&recv) != 0));
    assert_int_equal(io_recv_end(&recv), -ECONNRESET);
    io_recv_arm(io, &recv); /* after the end it does nothing */
    assert_false(recv.op.in_flight);
    assert_true(io_recv_stop(io, &recv));
    io_close(io, fd);

    /* Stopped with a receive in flight and data queued: woken when nothing is in flight any more. */
    tcp_pair(&fd, &theirs);
    io_recv_init(&recv, fd, &actor.flow, true);
    io_recv_arm(io, &recv);
    assert_int_equal(write(theirs, "abc", 3), 3);
    assert_true(RUN_UNTIL(io, io_recv_peek(io, &recv).n == 3));
    run_for(io, NS_PER_MS);
    assert_false(io_recv_stop(io, &recv));
    assert_int_equal(write(theirs, "def", 3), 3); /* dropped */
    runs_n = actor.runs_n;
    assert_true(RUN_UNTIL(io, actor.runs_n > runs_n && !recv.op.in_flight));
    assert_true(io_recv_stop(io, &recv));
    assert_int_equal(io_recv_peek(io, &recv).n, 0);
    io_close(io, fd);
    assert_int_equal(io_run_once(io, 0), 0);
    assert_true(read(theirs, &byte, 1) <= 0); /* it is closed indeed */
    close(theirs);
    assert_all_buffers_back(io);
    io_destroy(&io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo_multishot),   cmocka_unit_test(test_echo_single_shot),
        cmocka_unit_test(test_echo_starved),     cmocka_unit_test(test_echo_lower_rungs),
        cmocka_unit_test(test_pause_and_resume), cmocka_unit_test(test_slow_reader_single_shot),
        cmocka_unit_test(test_pause_holds),      cmocka_unit_test(test_armed_while_cancelling),
        cmocka_unit_test(test_starvation),       cmocka_unit_test(test_starved_behind_idle),
        cmocka_unit_test(test_reset_and_stop),
    };
    struct rlimit files = {4096, 4096};

    (void)setrlimit(RLIMIT_NOFILE, &files);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
