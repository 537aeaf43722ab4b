/* The simulation itself: that it replays, that what is written on io.h works in it, that its checks fire. */
#include "sim.h"
#include "sim_http.h"
#include "util/check.h"
#include "util/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#define SEEDS 150u

static struct io *new_io(void)
{
    struct io *io = NULL;
    const char *error_text = NULL;
    struct io_options options = {.entries = 64, .receive_buffers = 64, .receive_buffer_bytes = 2048};

    assert_int_equal(io_create(&io, &options, &error_text), 0);
    return io;
}

/* --- a relay: what comes from either side goes to the other; without an address, back to the client --- */

struct relay;

struct half { /* one direction */
    struct flow flow;
    struct relay *relay;
    struct half *twin;
    struct io_recv recv;
    struct io_op send;
    int to_fd;
    size_t sending;
    bool ended, stopped;
};

struct relay {
    struct io *io;
    struct flow flow;
    struct io_op connect;
    struct half halves[2];
    unsigned halves_left;
    int fds[2];
    bool connecting;
    bool broken; /* both halves are to go */
    struct server *server;
    char held[4096];
};

struct server {
    struct flow flow;
    struct io *io;
    struct io_accept accept;
    int listen_fd;
    bool stopping;
    bool stopped;
    unsigned relays_n;
    unsigned accept_errors;
    bool echoes;
    bool multishot;
    struct sockaddr_storage origin;
    socklen_t origin_bytes;
    struct timer retry;
};

static void relay_break(struct relay *r)
{
    if (r->broken)
        return;
    r->broken = true;
    for (unsigned i = 0; i < 2; i++)
        if (r->halves[i].relay != NULL && !r->halves[i].stopped)
            io_wake(r->io, &r->halves[i].flow);
}

static void relay_free(struct relay *r)
{
    for (unsigned i = 0; i < 2; i++)
        if (r->fds[i] >= 0)
            io_close(r->io, r->fds[i]);
    r->server->relays_n--;
    io_wake(r->io, &r->server->flow);
    free(r);
}

static void half_done(struct flow *f)
{
    struct half *h = CONTAINER_OF(f, struct half, flow);

    h->stopped = true;
    if (--h->relay->halves_left == 0)
        relay_free(h->relay);
}

static enum flow_result half_go(struct half *h)
{
    struct io *io = h->relay->io;
    bool nothing = io_recv_stop(io, &h->recv);
    int result;

    io_cancel(io, &h->send);
    (void)io_op_take(&h->send, &result);
    return nothing && !h->send.in_flight && !h->flow.queued ? FLOW_DONE : FLOW_WAIT;
}

static enum flow_result half_step(struct flow *f)
{
    struct half *h = CONTAINER_OF(f, struct half, flow);
    struct io *io = h->relay->io;
    struct str run;
    int result;

    if (h->relay->broken || h->ended)
        return half_go(h);
    if (h->send.in_flight)
        return FLOW_WAIT;
    if (io_op_take(&h->send, &result)) {
        if (result <= 0) {
            relay_break(h->relay);
            return FLOW_NEXT;
        }
        io_recv_consume(io, &h->recv, (size_t)result);
    }
    run = io_recv_peek(io, &h->recv);
    if (run.n > 0) {
        io_send(io, &h->send, f, h->to_fd, run.p, run.n);
        return FLOW_WAIT;
    }
    result = io_recv_end(&h->recv);
    if (result == -ENODATA) {
        io_shutdown_send(io, h->to_fd);
        h->ended = true;
        return FLOW_NEXT;
    }
    if (result != 0) {
        relay_break(h->relay);
        return FLOW_NEXT;
    }
    io_recv_arm(io, &h->recv);
    return FLOW_WAIT;
}

static const flow_step half_steps[] = {half_step};
static const struct flow_type half_type = {"half", half_steps, NULL, 1, half_done};

static void half_begin(struct relay *r, struct half *h, int from_fd, int to_fd)
{
    h->relay = r;
    h->to_fd = to_fd;
    flow_init(&h->flow, &half_type, 0);
    io_recv_init(&h->recv, from_fd, &h->flow, r->server->multishot);
    r->halves_left++;
    io_wake(r->io, &h->flow);
}

static enum flow_result relay_connect(struct flow *f)
{
    struct relay *r = CONTAINER_OF(f, struct relay, flow);
    int result;

    if (!r->connecting) {
        r->fds[1] = io_socket(r->io, r->server->origin.ss_family);
        if (r->fds[1] < 0)
            return FLOW_DONE;
        r->connecting = true;
        io_connect(r->io, &r->connect, f, r->fds[1], (struct sockaddr *)&r->server->origin,
                   r->server->origin_bytes);
    }
    if (!io_op_take(&r->connect, &result))
        return FLOW_WAIT;
    r->broken = result < 0;
    return FLOW_DONE;
}

static void relay_connected(struct flow *f)
{
    struct relay *r = CONTAINER_OF(f, struct relay, flow);

    if (r->broken || r->fds[1] < 0) {
        relay_free(r);
        return;
    }
    half_begin(r, &r->halves[0], r->fds[0], r->fds[1]);
    half_begin(r, &r->halves[1], r->fds[1], r->fds[0]);
}

static const flow_step relay_steps[] = {relay_connect};
static const struct flow_type relay_type = {"relay", relay_steps, NULL, 1, relay_connected};

static void relay_begin(struct server *s, int fd)
{
    struct relay *r = calloc(1, sizeof *r);

    assert_non_null(r);
    r->io = s->io;
    r->server = s;
    r->fds[0] = fd;
    r->fds[1] = -1;
    s->relays_n++;
    if (s->echoes) {
        half_begin(r, &r->halves[0], fd, fd);
        return;
    }
    flow_init(&r->flow, &relay_type, 0);
    io_wake(s->io, &r->flow);
}

static enum flow_result server_step(struct flow *f)
{
    struct server *s = CONTAINER_OF(f, struct server, flow);
    int fd;

    while ((fd = io_accept_take(&s->accept)) >= 0) {
        if (s->stopping)
            io_close(s->io, fd);
        else
            relay_begin(s, fd);
    }
    if (s->stopping) {
        io_cancel(s->io, &s->accept.op);
        if (s->accept.op.in_flight || s->relays_n > 0 || f->queued)
            return FLOW_WAIT;
        io_timer_cancel(s->io, &s->retry);
        io_close(s->io, s->listen_fd);
        return FLOW_DONE;
    }
    if (fd != -EAGAIN && !timer_is_set(&s->retry)) {
        s->accept_errors++;
        if (s->retry.fired) {
            s->retry.fired = false;
            io_accept_start(s->io, &s->accept, f, s->listen_fd);
        } else {
            io_timer_set(s->io, &s->retry, f, 10);
        }
    }
    return FLOW_WAIT;
}

static void server_done(struct flow *f)
{
    CONTAINER_OF(f, struct server, flow)->stopped = true;
}

static const flow_step server_steps[] = {server_step};
static const struct flow_type server_type = {"server", server_steps, NULL, 1, server_done};

static void server_begin(struct server *s, struct io *io, uint16_t port, const char *origin_ip,
                         uint16_t origin_port)
{
    struct sockaddr_storage at;
    socklen_t n = sim_address(&at, "0.0.0.0", port);

    *s = (struct server){.io = io, .echoes = origin_ip == NULL, .multishot = true};
    if (origin_ip != NULL)
        s->origin_bytes = sim_address(&s->origin, origin_ip, origin_port);
    flow_init(&s->flow, &server_type, 0);
    s->listen_fd = io_listen(io, (struct sockaddr *)&at, n, 1024);
    assert_true(s->listen_fd >= 0);
    io_accept_start(io, &s->accept, &s->flow, s->listen_fd);
}

static bool server_stopped(void *context)
{
    return ((struct server *)context)->stopped;
}

static void server_end(struct sim_world *w, struct server *s)
{
    s->stopping = true;
    io_wake(s->io, &s->flow);
    if (!sim_run(w, server_stopped, s, 1000 * NS_PER_S))
        sim_fail(w, "the server does not stop, %u relays are left", s->relays_n);
    io_destroy(&s->io);
}

/* --- echo with scripted peers --- */

struct echo_client {
    struct sim_conn *conn;
    uint64_t body_id, n, got;
    bool gone;
    int error;
};

static void echo_data(void *me, struct sim_conn *c, struct str bytes)
{
    struct echo_client *e = me;

    if (sim_body_differs(e->body_id, e->got, bytes.p, bytes.n) != bytes.n)
        sim_fail(sim_conn_world(c), "a wrong byte came back");
    e->got += bytes.n;
}

static void echo_gone(void *me, struct sim_conn *c, int error)
{
    struct echo_client *e = me;

    (void)c;
    e->gone = true;
    e->error = error;
}

static const struct sim_peer echo_peer = {.data = echo_data, .gone = echo_gone};

#define ECHOES 6u

static bool all_gone(void *context)
{
    struct echo_client *e = context;

    for (unsigned i = 0; i < ECHOES; i++)
        if (!e[i].gone)
            return false;
    return true;
}

static uint64_t run_echo(const struct sim_options *options, bool multishot)
{
    struct sim_world *w = sim_create(options);
    struct echo_client clients[ECHOES];
    struct server servers[2];
    uint64_t hash;

    for (unsigned i = 0; i < 2; i++) { /* two workers on one port */
        server_begin(&servers[i], new_io(), 80, NULL, 0);
        servers[i].multishot = multishot;
    }
    for (unsigned i = 0; i < ECHOES; i++) {
        struct echo_client *e = &clients[i];
        *e =
            (struct echo_client){.body_id = sim_random(w), .n = sim_between(w, (struct sim_range){0, 30000})};
        e->conn = sim_connect(w, NULL, "127.0.0.1", 80, &echo_peer, e);
        if (i == 0)
            sim_conn_read_rate(e->conn, 20000);
        sim_conn_send_body(e->conn, e->body_id, 0, e->n / 2);
        sim_conn_pause(e->conn, 50 * NS_PER_MS);
        sim_conn_send_body(e->conn, e->body_id, e->n / 2, e->n - e->n / 2);
        sim_conn_end(e->conn);
    }
    if (!sim_run(w, all_gone, clients, 3000 * NS_PER_S))
        sim_fail(w, "an echo does not end");
    for (unsigned i = 0; i < ECHOES; i++)
        if (clients[i].error == 0 && clients[i].got != clients[i].n)
            sim_fail(w, "echo %u has %llu of %llu bytes", i, (unsigned long long)clients[i].got,
                     (unsigned long long)clients[i].n);
        else if (clients[i].error != 0 && options->faults.reset_ppm == 0)
            sim_fail(w, "echo %u is gone: %d", i, clients[i].error);
    for (unsigned i = 0; i < 2; i++)
        server_end(w, &servers[i]);
    assert_int_equal(sim_open_fds(w), 0);
    hash = sim_trace_hash(w);
    sim_destroy(&w);
    return hash;
}

static void test_replays(void **state)
{
    uint64_t before = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct sim_options options = sim_options_rough(seed);
        uint64_t hash = run_echo(&options, true);

        assert_int_equal(hash, run_echo(&options, true));
        assert_int_not_equal(hash, before);
        before = hash;
    }
}

static void test_echo_through_all_faults(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct sim_options options = sim_options_rough(seed);

        if (seed % 3 == 0) {
            options.faults.reset_ppm = 300000;
            options.faults.reset_at = (struct sim_range){1, 40000};
        }
        if (seed % 4 == 0)
            options.faults.receive_buffers_max = 2;
        if (seed % 5 == 0)
            options.faults.accept_emfile_ppm = 300000;
        run_echo(&options, seed % 7 != 0);
    }
}

/* --- HTTP peers through the relay --- */

static void test_http_peers(void **state)
{
    static const struct sim_answer song = {.body_bytes = 50000, .version = 1, .etag = true};
    static const struct sim_answer chunked = {
        .body_bytes = 30000, .version = 2, .chunked = true, .interim_103 = 2};

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct sim_options options = sim_options_rough(seed);
        struct sim_world *w = sim_create(&options);
        struct sim_origin *origin = sim_origin_new(w, "10.0.0.1", 8080);
        const struct sim_reply *r;
        struct sim_client *c;
        struct server server;

        server_begin(&server, new_io(), 80, "10.0.0.1", 8080);
        sim_origin_set(origin, "/song", &song);
        sim_origin_set(origin, "/chunked", &chunked);
        c = sim_client_new(w, "127.0.0.1", 80, NULL);
        sim_client_get(c, "/song", NULL);
        sim_client_get(c, "/chunked?x", NULL);
        sim_client_get(c, "/song", "Range: bytes=100-199\r\n");
        sim_client_get(c, "/song", "If-None-Match: \"v1\"\r\n");
        sim_client_request(c, STR("HEAD /song HTTP/1.1\r\nHost: x\r\n\r\n"), true);
        sim_client_get(c, "/nothing", NULL);
        assert_true(sim_run(w, sim_client_settled, c, 1000 * NS_PER_S));
        assert_int_equal(sim_client_complete(c), 6);
        r = sim_client_reply(c, 0);
        assert_false(r->malformed);
        assert_int_equal(r->status, 200);
        assert_int_equal(r->body.n, 50000);
        assert_int_equal(sim_body_differs(sim_body_id(STR("/song"), 1), 0, r->body.p, r->body.n), 50000);
        r = sim_client_reply(c, 1);
        assert_int_equal(r->framing, SIM_FRAMING_CHUNKED);
        assert_int_equal(r->interim_n, 2);
        assert_int_equal(r->body.n, 30000);
        assert_int_equal(sim_body_differs(sim_body_id(STR("/chunked"), 2), 0, r->body.p, r->body.n), 30000);
        r = sim_client_reply(c, 2);
        assert_int_equal(r->status, 206);
        assert_true(str_eq(sim_head_field(r->head, "content-range"), STR("bytes 100-199/50000")));
        assert_int_equal(sim_body_differs(sim_body_id(STR("/song"), 1), 100, r->body.p, r->body.n), 100);
        assert_int_equal(sim_client_reply(c, 3)->status, 304);
        assert_int_equal(sim_client_reply(c, 4)->status, 200);
        assert_int_equal(sim_client_reply(c, 4)->body.n, 0);
        assert_int_equal(sim_client_reply(c, 5)->status, 404);
        assert_int_equal(sim_client_surplus(c), 0);
        assert_int_equal(sim_origin_requests(origin, "/song"), 4);
        assert_int_equal(sim_origin_requests(origin, NULL), 6);
        assert_int_equal(sim_origin_connections(origin), 1);
        sim_client_free(&c);
        server_end(w, &server);
        sim_origin_free(&origin);
        sim_destroy(&w);
    }
}

/* What a client sees of an answer through the relay. */
static struct sim_reply ask(const struct sim_answer *answer, size_t *body_n)
{
    struct sim_options options = sim_options_calm(7);
    struct sim_world *w = sim_create(&options);
    struct sim_origin *origin = sim_origin_new(w, "10.0.0.1", 8080);
    struct sim_client *c;
    struct sim_reply reply;
    struct server server;

    server_begin(&server, new_io(), 80, "10.0.0.1", 8080);
    sim_origin_next(origin, "/p", answer, 1);
    c = sim_client_new(w, "127.0.0.1", 80, NULL);
    sim_client_get(c, "/p", NULL);
    sim_run(w, sim_client_settled, c, 100 * NS_PER_S);
    reply = *sim_client_reply(c, 0);
    *body_n = reply.body.n;
    assert_int_equal(sim_body_differs(sim_body_id(STR("/p"), 0), 0, reply.body.p, reply.body.n),
                     reply.body.n);
    sim_client_free(&c);
    sim_origin_free(&origin);
    server_end(w, &server);
    sim_destroy(&w);
    return reply;
}

static void test_origin_plans(void **state)
{
    struct sim_answer a = {.body_bytes = 1000};
    struct sim_reply r;
    size_t n;

    (void)state;
    r = ask(&a, &n);
    assert_true(r.complete && n == 1000);
    a.cut = SIM_CUT_BEFORE_HEAD;
    r = ask(&a, &n);
    assert_true(!r.complete && r.status == 0);
    a.cut = SIM_CUT_IN_HEAD;
    a.cut_at = 10;
    a.cut_by_close = true;
    r = ask(&a, &n);
    assert_true(!r.complete && r.status == 0);
    a.cut = SIM_CUT_IN_BODY;
    a.cut_at = 300;
    r = ask(&a, &n);
    assert_true(!r.complete && r.status == 200 && n == 300);
    a.chunked = true;
    r = ask(&a, &n);
    assert_true(!r.complete && r.framing == SIM_FRAMING_CHUNKED && n == 300);
    a = (struct sim_answer){.body_bytes = 1000, .length_lie = 5};
    r = ask(&a, &n);
    assert_true(!r.complete && n == 1000 && r.content_length == 1005);
    a = (struct sim_answer){.body_bytes = 1000, .by_close = true};
    r = ask(&a, &n);
    assert_true(r.complete && r.framing == SIM_FRAMING_CLOSE && n == 1000);
    a = (struct sim_answer){.never = true};
    r = ask(&a, &n);
    assert_true(!r.complete && r.status == 0);
    a = (struct sim_answer){.raw = STR_INIT("what is this?\r\n\r\n")};
    r = ask(&a, &n);
    assert_true(r.malformed);
    a = (struct sim_answer){.status = 503, .body_bytes = 10, .head_pad_bytes = 100000};
    r = ask(&a, &n);
    assert_true(r.complete && r.status == 503 && n == 10);
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
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_connect),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_mail),
        cmocka_unit_test(test_acked_bytes_and_poll),
        cmocka_unit_test(test_replays),
        cmocka_unit_test(test_echo_through_all_faults),
        cmocka_unit_test(test_http_peers),
        cmocka_unit_test(test_origin_plans),
        cmocka_unit_test(test_checks_fire),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
