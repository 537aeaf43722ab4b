/* TLS streams in the simulation: a client and an echo, both ours, through every size of segment, short sends, stalls and
 * resets. Whatever happens, what arrives is what was sent, and nothing is left behind. */
#include "../unit/net/tls_fixture.h"
#include "net/stream.h"
#include "sim.h"

#include <errno.h>

#define SEEDS     60u
#define PORT      4433
#define CHUNK_MAX 100000u

struct side {
    struct flow flow;
    struct world *world;
    struct stream stream;
    int fd;
    bool open, over, is_client, ending;
    struct stream_send send;
    struct iovec vecs[2];
    char *sending; /* what the vectors point to */
    size_t sending_n;
    uint64_t got_n, sent_n, total_n;
    /* the client receives into its own memory now and then, which is legal while nothing is unread */
    struct io_op op;
    char into[5000];
    int error;
};

struct world {
    struct sim_world *sim;
    struct io *io;
    struct tls_local *local;
    struct tls_stats stats;
    struct tls_server *server;
    struct tls_client *client;
    struct flow flow; /* accepts, and sees them off */
    struct io_accept accept;
    struct io_op connect;
    int listen_fd;
    bool accepting, over;
    struct side sides[2]; /* echo, client */
    struct sockaddr_storage address;
};

static struct authority ca;
static struct sim_counts seen; /* over all seeds of a test */

static char pattern(uint64_t at)
{
    return (char)(at % 251 ^ at / 251 % 241);
}

static void check(struct side *s, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != pattern(s->got_n + i))
            sim_fail(s->world->sim, "byte %llu is wrong", (unsigned long long)s->got_n + i);
    s->got_n += n;
}

/* The next piece: the client's own, or what the echo has read. */
static void send_more(struct side *s)
{
    struct sim_world *sim = s->world->sim;
    uint64_t left = (s->is_client ? s->total_n : s->got_n) - s->sent_n, cut;

    if (s->sending != NULL || s->ending)
        return;
    if (left == 0) {
        /* The client ends once it has everything back, the echo once the client has ended. */
        s->ending = s->is_client ? s->got_n == s->total_n : stream_end(&s->stream) == -ENODATA;
        if (s->ending)
            stream_end_sending(s->world->io, &s->stream);
        return;
    }
    s->sending_n = sim_between(sim, (struct sim_range){1, left < CHUNK_MAX ? left : CHUNK_MAX});
    s->sending = malloc(s->sending_n);
    for (size_t i = 0; i < s->sending_n; i++)
        s->sending[i] = pattern(s->sent_n + i);
    cut = sim_below(sim, s->sending_n);
    s->vecs[0] = (struct iovec){s->sending, cut};
    s->vecs[1] = (struct iovec){s->sending + cut, s->sending_n - cut};
    stream_send(s->world->io, &s->stream, &s->send, &s->flow, s->vecs, 2);
}

static void read_more(struct side *s)
{
    struct io *io = s->world->io;
    struct str run;
    int result;

    if (io_op_take(&s->op, &result)) {
        if (result > 0)
            check(s, s->into, (size_t)result);
        else if (result < 0)
            s->error = result;
    }
    if (s->op.in_flight)
        return;
    while ((run = stream_peek(io, &s->stream)).n > 0) {
        size_t n = 1 + sim_below(s->world->sim, run.n);

        check(s, run.p, n);
        stream_consume(io, &s->stream, n);
    }
    if (stream_end(&s->stream) != 0)
        return;
    if (s->is_client)
        stream_recv_into(io, &s->stream, &s->op, &s->flow, s->into,
                         1 + sim_below(s->world->sim, sizeof s->into));
    else
        stream_arm(io, &s->stream);
}

static enum flow_result go_away(struct side *s)
{
    struct io *io = s->world->io;
    int result;

    s->flow.step = 1;
    if (s->sending != NULL) {
        stream_send_cancel(io, &s->stream, &s->send);
        if (!stream_send_take(io, &s->stream, &s->send, &result))
            return FLOW_WAIT;
        free(TAKE(&s->sending));
    }
    if (s->op.in_flight)
        stream_cancel(io, &s->stream, &s->op);
    if (s->op.in_flight || !stream_stop(io, &s->stream))
        return FLOW_WAIT;
    io_close(io, s->fd);
    s->over = true;
    io_wake(io, &s->world->flow);
    s->flow.step = 2;
    return FLOW_WAIT;
}

static enum flow_result step_talk(struct flow *f)
{
    struct side *s = CONTAINER_OF(f, struct side, flow);
    int result;

    result = stream_handshake(&s->stream);
    if (result == -EAGAIN)
        return FLOW_WAIT;
    if (result == 0 && s->sending != NULL && stream_send_take(s->world->io, &s->stream, &s->send, &result)) {
        s->sent_n += s->sending_n;
        free(TAKE(&s->sending));
    }
    if (result == 0) {
        read_more(s);
        send_more(s);
    } else {
        s->error = result;
    }
    if (s->error == 0 && stream_end(&s->stream) != 0 && stream_end(&s->stream) != -ENODATA)
        s->error = stream_end(&s->stream);
    if (s->error != 0 || (s->ending && stream_end(&s->stream) != 0))
        return go_away(s);
    return FLOW_WAIT;
}

static enum flow_result step_stop(struct flow *f)
{
    return go_away(CONTAINER_OF(f, struct side, flow));
}

static enum flow_result step_gone(struct flow *f)
{
    (void)f;
    return FLOW_WAIT;
}

static const flow_step side_steps[] = {step_talk, step_stop, step_gone};
static const struct flow_type side_type = {.name = "side", .steps = side_steps, .steps_n = 3};

static void open_side(struct world *w, struct side *s, int fd, bool is_client)
{
    s->world = w;
    s->fd = fd;
    s->is_client = is_client;
    s->open = true;
    flow_init(&s->flow, &side_type, 0);
    stream_init(&s->stream, fd, &s->flow, !is_client);
}

static enum flow_result step_world(struct flow *f)
{
    struct world *w = CONTAINER_OF(f, struct world, flow);
    int fd = io_accept_take(&w->accept), result;

    if (fd >= 0) {
        open_side(w, &w->sides[0], fd, false);
        CHECK(stream_tls_accept(w->io, &w->sides[0].stream, w->local, w->server) == 0);
    }
    if (io_op_take(&w->connect, &result)) {
        CHECK(result == 0);
        CHECK(stream_tls_connect(w->io, &w->sides[1].stream, w->local, w->client, STR("a.example")) == 0);
    }
    /* A connection may be gone before it was accepted. */
    if (!w->sides[1].over || (w->sides[0].open && !w->sides[0].over))
        return FLOW_WAIT;
    io_cancel(w->io, &w->accept.op);
    if (w->accept.op.in_flight)
        return FLOW_WAIT;
    if (w->listen_fd >= 0)
        io_close(w->io, w->listen_fd);
    w->listen_fd = -1;
    w->over = true;
    return FLOW_WAIT;
}

static const flow_step world_steps[] = {step_world};
static const struct flow_type world_type = {.name = "world", .steps = world_steps, .steps_n = 1};

static bool is_over(void *context)
{
    return ((struct world *)context)->over;
}

static void live(const struct sim_options *chosen, uint64_t total_n, bool resets)
{
    struct sim_options options = *chosen;
    const struct io_options io_options = {.entries = 64, .receive_buffers = 64, .receive_buffer_bytes = 2048};
    struct world *w = calloc(1, sizeof *w);
    struct tls_local_options local = {
        .stats = &w->stats, .handshakes_max = 4, .hello_ms = 3600000, .handshake_ms = 3600000};
    const char *why = NULL;
    socklen_t bytes;

    options.unix_s = (uint64_t)time(NULL); /* the certificates are made today */
    w->sim = sim_create(&options);
    CHECK(io_create(&w->io, &io_options, &why) == 0);
    CHECK(tls_local_create(&w->local, w->io, &local) == 0);
    w->server = make_server("ec", NULL, false);
    w->client = make_client(ca.path, NULL);
    flow_init(&w->flow, &world_type, 0);
    bytes = sim_address(&w->address, "127.0.0.1", PORT);
    w->listen_fd = io_listen(w->io, (struct sockaddr *)&w->address, bytes, 16);
    CHECK(w->listen_fd >= 0);
    io_accept_start(w->io, &w->accept, &w->flow, w->listen_fd);
    open_side(w, &w->sides[1], io_socket(w->io, AF_INET), true);
    w->sides[1].total_n = total_n;
    io_connect(w->io, &w->connect, &w->flow, w->sides[1].fd, (struct sockaddr *)&w->address, bytes);
    if (!sim_run(w->sim, is_over, w, 20000ull * NS_PER_S))
        sim_fail(w->sim, "it never ends: echo %llu, client %llu of %llu",
                 (unsigned long long)w->sides[0].got_n, (unsigned long long)w->sides[1].got_n,
                 (unsigned long long)total_n);
    if (!resets) {
        assert_int_equal(w->sides[0].error, 0);
        assert_int_equal(w->sides[1].error, 0);
        assert_int_equal(w->sides[1].got_n, total_n);
    }
    (void)sim_run_idle(w->sim, NS_PER_S);
    seen.resets += sim_counts(w->sim)->resets;
    seen.short_sends += sim_counts(w->sim)->short_sends;
    seen.recv_ends += sim_counts(w->sim)->recv_ends;
    seen.late_cancels += sim_counts(w->sim)->late_cancels;
    seen.spurious_wakes += sim_counts(w->sim)->spurious_wakes;
    tls_local_destroy(&w->local);
    io_destroy(&w->io);
    sim_check_clean(w->sim);
    sim_destroy(&w->sim);
    tls_server_unref(&w->server);
    tls_client_unref(&w->client);
    free(w);
}

static void test_echo(void **state)
{
    struct sim_range seeds = sim_seeds(SEEDS);

    (void)state;
    for (uint64_t seed = seeds.min; seed <= seeds.max; seed++) {
        struct sim_options options = seed % 2 ? sim_options_rough(seed) : sim_options_calm(seed);

        options.faults.accept_emfile_ppm = options.faults.socket_emfile_ppm = 0; /* not what this is about */
        live(&options, seed % 5 == 0 ? 300000 : 1 + seed * 379 % 40000, false);
    }
    if (seeds.max - seeds.min >= SEEDS - 1) /* the faults were there */
        assert_true(seen.short_sends > 0 && seen.recv_ends > 0 && seen.spurious_wakes > 0);
}

static void test_resets(void **state)
{
    struct sim_range seeds = sim_seeds(SEEDS);

    (void)state;
    for (uint64_t seed = seeds.min; seed <= seeds.max; seed++) {
        struct sim_options options = seed % 2 ? sim_options_rough(seed) : sim_options_calm(seed);

        options.faults.accept_emfile_ppm = options.faults.socket_emfile_ppm = 0;
        options.faults.reset_ppm = 500000;
        options.faults.reset_at = (struct sim_range){0, 30000};
        live(&options, 20000, true);
    }
    if (seeds.max - seeds.min >= SEEDS - 1)
        assert_true(seen.resets > SEEDS / 2 && seen.late_cancels > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo),
        cmocka_unit_test(test_resets),
    };
    int failures;

    tls_fixture_open();
    ca = make_authority("ca");
    issue(&ca, "ec", KEY_EC, "DNS:a.example", -3600, 86400);
    failures = cmocka_run_group_tests_name("tls", tests, NULL, NULL);
    free_authority(&ca);
    tls_fixture_close();
    return failures;
}
