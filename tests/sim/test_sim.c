/* The simulation itself: that it replays, and that what is written on io.h works in it through all faults. */
#include "sim.h"
#include "sim_http.h"
#include "util/check.h"
#include "util/clock.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

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
    int result;

    io_cancel(io, &h->send); /* first, since it sends what was received */
    if (h->send.in_flight)
        return FLOW_WAIT;
    (void)io_op_take(&h->send, &result);
    return io_recv_stop(io, &h->recv) && !h->flow.queued ? FLOW_DONE : FLOW_WAIT;
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

/* What has gone wrong in all runs. */
static struct sim_counts seen;

static void add_counts(const struct sim_world *w)
{
    const struct sim_counts *c = sim_counts(w);

    seen.short_sends += c->short_sends;
    seen.short_recvs += c->short_recvs;
    seen.recv_ends += c->recv_ends;
    seen.recv_pauses += c->recv_pauses;
    seen.recv_starved += c->recv_starved;
    seen.resets += c->resets;
    seen.stalls += c->stalls;
    seen.accept_errors += c->accept_errors;
    seen.spurious_wakes += c->spurious_wakes;
    seen.late_cancels += c->late_cancels;
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
    add_counts(w);
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
    struct sim_range seeds = sim_seeds(SEEDS);

    (void)state;
    for (uint64_t seed = seeds.min; seed <= seeds.max; seed++) {
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
    if (seeds.max - seeds.min < SEEDS - 1)
        return;
    assert_true(seen.short_sends > 0 && seen.short_recvs > 0 && seen.recv_ends > 0 && seen.recv_pauses > 0);
    assert_true(seen.recv_starved > 0 && seen.resets > 0 && seen.stalls > 0 && seen.accept_errors > 0);
    assert_true(seen.spurious_wakes > 0 && seen.late_cancels > 0);
}

/* --- HTTP peers through the relay --- */

static void test_http_peers(void **state)
{
    static const struct sim_answer song = {.body_bytes = 50000, .version = 1, .etag = true};
    static const struct sim_answer chunked = {
        .body_bytes = 30000, .version = 2, .chunked = true, .interim_103 = 2};
    struct sim_range seeds = sim_seeds(SEEDS);

    (void)state;
    for (uint64_t seed = seeds.min; seed <= seeds.max; seed++) {
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
        if (!sim_run(w, sim_client_settled, c, 1000 * NS_PER_S) || sim_client_complete(c) != 6)
            sim_fail(w, "%zu of 6 replies have come", sim_client_complete(c));
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

/* Connections break on either side at any byte, clients abort, connects fail: what comes is right as far as
 * it comes, and nothing is left behind. */
static void test_relay_breaks(void **state)
{
    static const struct sim_answer song = {.body_bytes = 60000};
    struct sim_range seeds = sim_seeds(SEEDS);
    uint64_t resets = 0, refused = 0, whole = 0;

    (void)state;
    for (uint64_t seed = seeds.min; seed <= seeds.max; seed++) {
        struct sim_options options = sim_options_rough(seed);
        struct sim_world *w;
        struct sim_origin *origin;
        struct sim_client *clients[5];
        struct server server;

        options.faults.reset_ppm = 200000;
        options.faults.reset_at = (struct sim_range){1, 60000};
        options.faults.connect_refused_ppm = options.faults.connect_lost_ppm = 50000;
        w = sim_create(&options);
        origin = sim_origin_new(w, "10.0.0.1", 8080);
        sim_origin_set(origin, "/song", &song);
        server_begin(&server, new_io(), 80, "10.0.0.1", 8080);
        for (unsigned i = 0; i < 5; i++) {
            struct sim_client_options how = {.abort_at_bytes = i == 0   ? 20000
                                                               : i == 1 ? 30000
                                                                        : 0,
                                             .abort_by_close = i == 1};
            clients[i] = sim_client_new(w, "127.0.0.1", 80, &how);
            sim_client_get(clients[i], "/song", NULL);
        }
        for (unsigned i = 0; i < 5; i++) {
            const struct sim_reply *r;
            if (!sim_run(w, sim_client_settled, clients[i], 1000 * NS_PER_S))
                sim_fail(w, "client %u waits for ever", i);
            r = sim_client_reply(clients[i], 0);
            if (r->malformed ||
                sim_body_differs(sim_body_id(STR("/song"), 0), 0, r->body.p, r->body.n) != r->body.n)
                sim_fail(w, "client %u has a wrong byte", i);
            if (r->complete && r->body.n != song.body_bytes)
                sim_fail(w, "client %u has a short reply", i);
            whole += r->complete;
        }
        for (unsigned i = 0; i < 5; i++)
            sim_client_free(&clients[i]);
        sim_origin_free(&origin);
        server_end(w, &server);
        resets += sim_counts(w)->resets;
        refused += sim_counts(w)->refused;
        sim_destroy(&w);
    }
    assert_true(seeds.max == seeds.min || (resets > 0 && refused > 0 && whole > 0));
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replays),      cmocka_unit_test(test_echo_through_all_faults),
        cmocka_unit_test(test_http_peers),   cmocka_unit_test(test_relay_breaks),
        cmocka_unit_test(test_origin_plans),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
