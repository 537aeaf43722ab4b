/* The HTTP/2 client of simulations against a server on nghttp2's server session, without a program between them: what
 * it is to see, and to object to, it does. */
#include "sim_h2.h"
#include "sim_internal.h"

#include <nghttp2/nghttp2.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <setjmp.h>

#include <cmocka.h>

#define SEEDS 100u
#define PORT  443

/* --- a server: /N is answered with N bytes of that path's body; what else is wrong, the test says --- */

struct server {
    struct sim_world *w;
    const struct sim_tls_options *tls;
    struct list connections;
    uint64_t uploaded_bytes;
    bool lies;    /* the length is one more than there is */
    bool floods;  /* sends more than the window allows */
    bool garbage; /* sends what is no frame */
    bool shouts;  /* upper case in a field's name */
    bool resets;  /* in the middle of a body */
    bool leaves;  /* GOAWAY in place of an answer */
};

struct server_conn {
    struct list link;
    struct server *server;
    struct sim_conn *conn;
    nghttp2_session *session;
    struct list streams; /* of struct server_stream; they stay */
};

struct server_stream {
    struct list link;
    struct server *server;
    char path[64];
    uint64_t bytes, sent;
};

static void server_pump(struct server_conn *c)
{
    const uint8_t *bytes;
    ssize_t n;

    while ((n = nghttp2_session_mem_send(c->session, &bytes)) > 0)
        sim_conn_send(c->conn, str_of((const char *)bytes, (size_t)n));
    if (!nghttp2_session_want_read(c->session) && !nghttp2_session_want_write(c->session))
        sim_conn_close(c->conn);
}

static ssize_t server_read(nghttp2_session *session, int32_t id, uint8_t *to, size_t cap, uint32_t *flags,
                           nghttp2_data_source *source, void *me)
{
    struct server_stream *s = source->ptr;
    size_t n = s->bytes - s->sent < cap ? s->bytes - s->sent : cap;

    (void)me;
    if (s->server->resets && s->sent > 1000) {
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, NGHTTP2_INTERNAL_ERROR);
        return NGHTTP2_ERR_DEFERRED;
    }
    sim_body_fill(sim_body_id(str_z(s->path), 1), s->sent, to, n);
    s->sent += n;
    if (s->sent == s->bytes)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

static void flood(struct server_conn *c, int32_t id)
{
    char frame[9 + 16384] = {0, 0x40, 0, 0, 0, 0, 0, 0, (char)id};

    server_pump(c);
    for (unsigned i = 0; i < 8; i++)
        sim_conn_send(c->conn, str_of(frame, sizeof frame));
}

static void server_answer(struct server_conn *c, int32_t id, struct server_stream *s)
{
    nghttp2_data_provider body = {.source.ptr = s, .read_callback = server_read};
    char length[32];
    nghttp2_nv fields[3] = {{(uint8_t *)":status", (uint8_t *)"200", 7, 3, 0},
                            {(uint8_t *)"content-length", (uint8_t *)length, 14, 0, 0},
                            {(uint8_t *)(c->server->shouts ? "bad name" : "x-a"), (uint8_t *)"b", 3, 1, 0}};

    fields[2].namelen = strlen((char *)fields[2].name);
    s->bytes = strtoull(s->path + 1, NULL, 10);
    snprintf(length, sizeof length, "%llu", (unsigned long long)s->bytes + c->server->lies);
    fields[1].valuelen = strlen(length);
    if (c->server->garbage)
        sim_conn_send(c->conn, STR("HTTP/1.1 400 Bad Request\r\n\r\n"));
    if (c->server->leaves)
        CHECK(nghttp2_session_terminate_session2(c->session, 0, NGHTTP2_NO_ERROR) == 0);
    else
        CHECK(nghttp2_submit_response(c->session, id, fields, 3, &body) == 0);
    if (c->server->floods)
        flood(c, id);
}

static int server_begin(nghttp2_session *session, const nghttp2_frame *frame, void *me)
{
    struct server_conn *c = me;
    struct server_stream *s = calloc(1, sizeof *s);

    CHECK(s != NULL);
    s->server = c->server;
    list_push_back(&c->streams, &s->link);
    return nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, s);
}

static int server_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                         size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *me)
{
    struct server_stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);

    (void)flags, (void)me;
    if (name_n == 5 && memcmp(name, ":path", 5) == 0)
        snprintf(s->path, sizeof s->path, "%.*s", (int)value_n, (const char *)value);
    return 0;
}

static int server_frame(nghttp2_session *session, const nghttp2_frame *frame, void *me)
{
    struct server_conn *c = me;
    struct server_stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);

    if ((frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) && s != NULL &&
        (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0)
        server_answer(c, frame->hd.stream_id, s);
    return 0;
}

static int server_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t n,
                        void *me)
{
    struct server_conn *c = me;

    (void)session, (void)flags, (void)id, (void)bytes;
    c->server->uploaded_bytes += n;
    return 0;
}

static void server_data(void *me, struct sim_conn *conn, struct str bytes)
{
    struct server_conn *c = me;

    if (nghttp2_session_mem_recv(c->session, (const uint8_t *)bytes.p, bytes.n) < 0)
        sim_conn_close_now(conn);
    else
        server_pump(c);
}

static void server_end(void *me, struct sim_conn *conn)
{
    (void)me;
    sim_conn_close(conn);
}

static const struct sim_peer server_peer = {.data = server_data, .end = server_end};

static void *server_accept(void *context, struct sim_conn *conn)
{
    struct server *server = context;
    struct server_conn *c = calloc(1, sizeof *c);
    nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 100},
                                         {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1}};
    nghttp2_session_callbacks *callbacks;

    CHECK(c != NULL && nghttp2_session_callbacks_new(&callbacks) == 0);
    c->server = server;
    c->conn = conn;
    list_init(&c->streams);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, server_begin);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, server_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, server_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, server_chunk);
    CHECK(nghttp2_session_server_new(&c->session, callbacks, c) == 0);
    nghttp2_session_callbacks_del(callbacks);
    CHECK(nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, 2) == 0);
    list_push_back(&server->connections, &c->link);
    if (server->tls != NULL)
        sim_conn_tls_accept(conn, server->tls);
    server_pump(c);
    return c;
}

/* --- a world --- */

static struct sim_world *open_world(const struct sim_options *options, struct server *server)
{
    struct sim_world *w = server->w = sim_create(options);

    list_init(&server->connections);
    sim_listen(w, "127.0.0.1", PORT, &server_peer, server_accept, server);
    return w;
}

static void close_world(struct server *server, struct sim_h2 **c)
{
    sim_h2_free(c);
    sim_listen_stop(server->w, "127.0.0.1", PORT);
    LIST_EACH (&server->connections, node) {
        struct server_conn *conn = LIST_ENTRY(node, struct server_conn, link);

        sim_conn_close_now(conn->conn);
        nghttp2_session_del(conn->session);
        LIST_EACH (&conn->streams, stream_node)
            free(LIST_ENTRY(stream_node, struct server_stream, link));
        free(conn);
    }
    sim_destroy(&server->w);
}

static void want_body(struct sim_h2 *c, size_t i, const char *path)
{
    const struct sim_reply *r = sim_h2_reply(c, i);
    uint64_t n = strtoull(path + 1, NULL, 10);

    assert_false(r->malformed);
    assert_true(r->complete && r->ended && r->h2_error == 0);
    assert_int_equal(r->status, 200);
    assert_int_equal(r->body.n, n);
    assert_int_equal(sim_body_differs(sim_body_id(str_z(path), 1), 0, r->body.p, r->body.n), n);
    assert_true(str_eq(sim_head_field(r->head, "x-a"), STR("b")));
}

static struct sim_h2_options random_options(struct sim_world *w)
{
    struct sim_h2_options o = {0};

    if (sim_below(w, 2))
        o.stream_window = 1 + (uint32_t)sim_between(w, (struct sim_range){0, 1000000});
    if (sim_below(w, 2))
        o.connection_window = 65535 + (uint32_t)sim_below(w, 1000000);
    if (sim_below(w, 2))
        o.hold_ns = (struct sim_range){0, sim_below(w, 50 * NS_PER_MS)};
    o.frame_bytes_max = 16384 + (uint32_t)sim_below(w, 3) * 20000;
    o.has_table = sim_below(w, 2);
    o.table_bytes = (uint32_t)sim_below(w, 8192);
    return o;
}

static uint64_t rough_world(uint64_t seed)
{
    static const char *const paths[] = {"/0", "/1", "/300", "/5000", "/16385", "/9999", "/2", "/700"};
    struct sim_options options = sim_options_rough(seed);
    struct server server = {0};
    struct sim_world *w = open_world(&options, &server);
    struct sim_tls_options client_tls = sim_tls_options_random(w), server_tls = sim_tls_options_random(w);
    struct sim_h2_options o = random_options(w);
    struct sim_h2 *c;
    uint64_t uploaded = 0, hash;

    client_tls.suite = server_tls.suite;
    server_tls.alpn = "h2,http/1.1";
    if (seed % 2) {
        server.tls = &server_tls;
        o.tls = &client_tls;
    }
    c = sim_h2_new(w, "127.0.0.1", PORT, &o);
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        struct sim_h2_request r = {.target = paths[i], .after_ns = sim_below(w, NS_PER_S)};

        if (sim_below(w, 3) == 0) {
            r.method = "POST";
            r.body_id = 7;
            r.body_bytes = sim_below(w, 5000);
            uploaded += r.body_bytes;
        }
        sim_h2_ask(c, &r);
    }
    if (!sim_run(w, sim_h2_settled, c, 10000 * NS_PER_S)) /* 16,385 bytes may go byte by byte, 200 ms each */
        sim_fail(w, "not settled");
    if (sim_h2_gone(c) || sim_h2_broken(c) != NULL)
        sim_fail(w, "gone %d %s", sim_h2_error(c), sim_h2_broken(c));
    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        want_body(c, i, paths[i]);
    assert_int_equal(server.uploaded_bytes, uploaded);
    hash = sim_trace_hash(w);
    close_world(&server, &c);
    return hash;
}

static void test_goes_through_faults_and_replays(void **state)
{
    struct sim_range seeds = sim_seeds(SEEDS);

    (void)state;
    for (uint64_t seed = seeds.min; seed <= seeds.max; seed++)
        assert_int_equal(rough_world(seed), rough_world(seed));
}

/* --- what is seen --- */

static struct sim_h2 *one_request(struct server *server, const struct sim_h2_options *o, const char *path)
{
    struct sim_options options = sim_options_calm(1);
    struct sim_h2 *c;

    open_world(&options, server);
    c = sim_h2_new(server->w, "127.0.0.1", PORT, o);
    sim_h2_get(c, path, "priority: u=1, i\r\n");
    sim_run(server->w, sim_h2_settled, c, 60 * NS_PER_S);
    return c;
}

static void test_windows_that_stay_shut(void **state)
{
    struct server server = {0};
    struct sim_h2 *c = one_request(&server, &(struct sim_h2_options){.no_window = true}, "/1000");

    (void)state;
    assert_int_equal(sim_h2_reply(c, 0)->status, 200);
    assert_int_equal(sim_h2_reply(c, 0)->body.n, 0);
    assert_false(sim_h2_settled(c));
    close_world(&server, &c);

    c = one_request(&server, &(struct sim_h2_options){.stream_window = 5000, .never_opens = true}, "/9000");
    assert_int_equal(sim_h2_reply(c, 0)->body.n, 5000);
    sim_h2_open_windows(c);
    assert_true(sim_run(server.w, sim_h2_settled, c, NS_PER_S));
    want_body(c, 0, "/9000");
    close_world(&server, &c);
}

static void test_cancelled_by_the_client(void **state)
{
    struct server server = {0};
    struct sim_options options = sim_options_calm(1);
    struct sim_world *w = open_world(&options, &server);
    struct sim_h2 *c = sim_h2_new(w, "127.0.0.1", PORT, NULL);

    (void)state;
    sim_h2_ask(c, &(struct sim_h2_request){.target = "/500000", .reset_at_bytes = 20000});
    sim_h2_ask(c, &(struct sim_h2_request){.target = "/60000000", .reset_after_ns = 20 * NS_PER_MS});
    sim_h2_get(c, "/70000", NULL);
    sim_h2_prioritize(c, 2, "u=0");
    assert_true(sim_run(w, sim_h2_settled, c, NS_PER_S));
    for (size_t i = 0; i < 2; i++) {
        assert_true(sim_h2_was_reset_by_us(c, i));
        assert_false(sim_h2_reply(c, i)->complete);
        assert_false(sim_h2_reply(c, i)->malformed);
        assert_int_equal(sim_h2_reply(c, i)->h2_error, NGHTTP2_CANCEL);
    }
    want_body(c, 2, "/70000");
    assert_null(sim_h2_broken(c));
    sim_h2_ping(c);
    sim_run(w, NULL, NULL, NS_PER_S);
    assert_int_equal(sim_h2_pongs(c), 1);
    close_world(&server, &c);
}

static void test_what_is_wrong_shows(void **state)
{
    struct server lies = {.lies = true}, floods = {.floods = true}, garbage = {.garbage = true};
    struct server shouts = {.shouts = true}, resets = {.resets = true}, leaves = {.leaves = true};
    struct sim_h2 *c;

    (void)state;
    c = one_request(&lies, NULL, "/1000");
    assert_true(sim_h2_reply(c, 0)->malformed);
    close_world(&lies, &c);
    c = one_request(&floods, &(struct sim_h2_options){.never_opens = true}, "/1000000");
    assert_non_null(sim_h2_broken(c));
    close_world(&floods, &c);
    c = one_request(&garbage, NULL, "/1000");
    assert_true(sim_h2_broken(c) != NULL);
    close_world(&garbage, &c);
    c = one_request(&shouts, NULL, "/1000");
    assert_true(sim_h2_reply(c, 0)->malformed);
    close_world(&shouts, &c);
    c = one_request(&resets, NULL, "/100000");
    assert_true(sim_h2_reply(c, 0)->ended && !sim_h2_reply(c, 0)->complete);
    assert_int_equal(sim_h2_reply(c, 0)->h2_error, NGHTTP2_INTERNAL_ERROR);
    assert_false(sim_h2_reply(c, 0)->malformed || sim_h2_gone(c));
    close_world(&resets, &c);
    c = one_request(&leaves, NULL, "/1000");
    assert_true(sim_h2_said_goaway(c) && sim_h2_reply(c, 0)->ended && sim_h2_reply(c, 0)->status == 0);
    assert_int_equal(sim_h2_reply(c, 0)->h2_error, NGHTTP2_REFUSED_STREAM);
    close_world(&leaves, &c);
}

static void test_alpn_is_asked_for(void **state)
{
    struct sim_tls_options client = {0}, accepts = {.alpn = "http/1.1"};
    struct server server = {.tls = &accepts};
    struct sim_h2 *c = one_request(&server, &(struct sim_h2_options){.tls = &client}, "/1000");

    (void)state;
    assert_non_null(sim_h2_broken(c));
    close_world(&server, &c);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goes_through_faults_and_replays),
        cmocka_unit_test(test_windows_that_stay_shut),
        cmocka_unit_test(test_cancelled_by_the_client),
        cmocka_unit_test(test_what_is_wrong_shows),
        cmocka_unit_test(test_alpn_is_asked_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
