/* Frames are nghttp2's; here is what is asked, when it is given back to the windows, and what came. */
#include "sim_h2.h"
#include "sim_internal.h"

#include <nghttp2/nghttp2.h>

#include <stdio.h>
#include <stdlib.h>

#define FIELDS_MAX 32u

struct stream {
    struct sim_h2 *client;
    struct sim_reply r;
    struct sim_bytes head, body;
    char *method, *target, *authority, *fields;
    char length[24];
    struct sim_h2_request request; /* its strings are those above */
    int32_t id;                    /* 0: not asked yet */
    uint64_t body_sent;
    size_t held; /* received, and not given back to the stream's window */
    int status;  /* of the head that is coming */
    bool final;  /* the final head is complete */
    bool we_reset, closed;
    struct sim_event ask, reset;
};

struct sim_h2 {
    struct sim_world *w;
    struct sim_h2_options options;
    struct sim_conn *conn;
    nghttp2_session *session;
    struct stream **streams;
    size_t asked_n, cap, settled_n; /* the first settled_n have ended */
    size_t held;
    struct sim_event give_back;
    uint64_t pongs;
    bool heard, said_goaway, gone, bye;
    uint32_t goaway_error;
    int error;
    char broken[128];
};

/* --- what is wrong --- */

static void malformed(struct stream *s, const char *why)
{
    if (!s->r.malformed)
        s->r.why = why;
    s->r.malformed = true;
}

static void broken(struct sim_h2 *c, const char *what, const char *why)
{
    if (c->broken[0] == '\0')
        snprintf(c->broken, sizeof c->broken, "%s: %s", what, why);
}

/* --- frames go --- */

static void pump(struct sim_h2 *c)
{
    const uint8_t *bytes;
    ssize_t n;

    if (c->gone)
        return;
    while ((n = nghttp2_session_mem_send(c->session, &bytes)) > 0)
        sim_conn_send(c->conn, str_of((const char *)bytes, (size_t)n));
    if (n < 0)
        sim_fail(c->w, "nghttp2 cannot send: %s", nghttp2_strerror((int)n));
    if (!nghttp2_session_want_read(c->session) && !nghttp2_session_want_write(c->session))
        sim_conn_close(c->conn);
}

static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *to, size_t cap, uint32_t *flags,
                         nghttp2_data_source *source, void *me)
{
    struct stream *s = source->ptr;
    uint64_t stop = s->request.body_stops_at > 0 ? s->request.body_stops_at : s->request.body_bytes;
    size_t n = s->request.body_bytes - s->body_sent;

    (void)session, (void)id, (void)me;
    if (n > cap)
        n = cap;
    if (n > stop - s->body_sent)
        n = stop - s->body_sent;
    if (n == 0 && s->body_sent < s->request.body_bytes)
        return NGHTTP2_ERR_DEFERRED; /* for ever */
    sim_body_fill(s->request.body_id, s->body_sent, to, n);
    s->body_sent += n;
    if (s->body_sent == s->request.body_bytes)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

static nghttp2_nv field(const char *name, size_t name_n, const char *value, size_t value_n)
{
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, name_n, value_n,
                        NGHTTP2_NV_FLAG_NONE};
}

static size_t request_fields(const struct sim_h2 *c, const struct stream *s, nghttp2_nv to[FIELDS_MAX])
{
    const char *scheme = c->options.tls != NULL ? "https" : "http";
    size_t n = 0;

    to[n++] = field(":method", 7, s->method, strlen(s->method));
    to[n++] = field(":scheme", 7, scheme, strlen(scheme));
    to[n++] = field(":authority", 10, s->authority, strlen(s->authority));
    to[n++] = field(":path", 5, s->target, strlen(s->target));
    for (const char *p = s->fields; *p != '\0' && n < FIELDS_MAX;) {
        const char *colon = strstr(p, ": "), *end = strstr(p, "\r\n");

        CHECK(colon != NULL && end != NULL && colon < end);
        to[n++] = field(p, (size_t)(colon - p), colon + 2, (size_t)(end - colon - 2));
        p = end + 2;
    }
    if (s->request.has_length && n < FIELDS_MAX)
        to[n++] = field("content-length", 14, s->length, strlen(s->length));
    return n;
}

static void submit(void *context)
{
    struct stream *s = context;
    struct sim_h2 *c = s->client;
    nghttp2_data_provider body = {.source.ptr = s, .read_callback = read_body};
    nghttp2_nv fields[FIELDS_MAX];
    size_t n = request_fields(c, s, fields);

    s->r.asked_ns = sim_now_ns(c->w);
    if (c->gone)
        return;
    s->id = nghttp2_submit_request(c->session, NULL, fields, n, s->request.body_bytes > 0 ? &body : NULL, s);
    if (s->id < 0) { /* after a GOAWAY */
        s->r.ended = true;
        s->r.h2_error = NGHTTP2_REFUSED_STREAM;
    } else if (s->request.reset_after_ns > 0) {
        sim_event_set(c->w, &s->reset, s->request.reset_after_ns);
    }
    pump(c);
}

static void reset_stream(struct stream *s)
{
    if (s->we_reset || s->r.ended || s->id <= 0 || s->client->gone)
        return;
    s->we_reset = true;
    CHECK(nghttp2_submit_rst_stream(s->client->session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_CANCEL) == 0);
}

static void on_reset_event(void *context)
{
    struct stream *s = context;

    reset_stream(s);
    pump(s->client);
}

static void give_back(struct sim_h2 *c)
{
    if (c->gone)
        return;
    for (size_t i = 0; i < c->asked_n; i++) {
        struct stream *s = c->streams[i];

        if (s->held > 0 && !s->closed)
            CHECK(nghttp2_session_consume_stream(c->session, s->id, s->held) == 0);
        s->held = 0;
    }
    CHECK(nghttp2_session_consume_connection(c->session, c->held) == 0);
    c->held = 0;
    pump(c);
}

static void on_give_back(void *context)
{
    give_back(context);
}

/* --- frames come --- */

static struct stream *stream_of(nghttp2_session *session, int32_t id)
{
    return id > 0 ? nghttp2_session_get_stream_user_data(session, id) : NULL;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                     const uint8_t *value, size_t value_n, uint8_t flags, void *me)
{
    struct stream *s = stream_of(session, frame->hd.stream_id);
    struct sim_h2 *c = me;

    (void)flags;
    if (s == NULL || s->final)
        return 0;
    if (s->head.n == 0)
        s->r.first_byte_ns = s->r.first_byte_ns != 0 ? s->r.first_byte_ns : sim_now_ns(c->w);
    if (name_n == 7 && memcmp(name, ":status", 7) == 0) {
        for (size_t i = 0; i < value_n; i++)
            s->status = s->status * 10 + value[i] - '0';
        sim_bytes_add(&s->head, "HTTP/2 ", 7);
    } else {
        sim_bytes_add(&s->head, name, name_n);
        sim_bytes_add(&s->head, ": ", 2);
    }
    sim_bytes_add(&s->head, value, value_n);
    sim_bytes_add(&s->head, "\r\n", 2);
    return 0;
}

static void head_complete(struct stream *s)
{
    struct str head, length;

    if (s->final)
        return; /* trailers */
    if (s->status < 200) {
        s->r.interim_n++;
        s->status = 0;
        sim_bytes_drop(&s->head, s->head.n);
        return;
    }
    s->final = true;
    s->r.status = s->status;
    sim_bytes_add(&s->head, "\r\n", 2);
    head = str_of(sim_bytes_at(&s->head, 0), s->head.n);
    length = sim_head_field(head, "content-length");
    s->r.framing = SIM_FRAMING_CLOSE;
    if (length.p != NULL) {
        s->r.framing = SIM_FRAMING_LENGTH;
        for (size_t i = 0; i < length.n; i++)
            s->r.content_length = s->r.content_length * 10 + (uint64_t)(length.p[i] - '0');
    }
    if (sim_head_field_count(head, "content-length") > 1)
        malformed(s, "content-length is repeated");
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *me)
{
    struct sim_h2 *c = me;
    struct stream *s = stream_of(session, frame->hd.stream_id);

    sim_trace(c->w, "h2 frame", frame->hd.type, (uint64_t)frame->hd.stream_id);
    if (frame->hd.type == NGHTTP2_GOAWAY) {
        c->said_goaway = true;
        c->goaway_error = frame->goaway.error_code;
    } else if (frame->hd.type == NGHTTP2_PING && (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0) {
        c->pongs++;
    }
    if (s != NULL && frame->hd.type == NGHTTP2_HEADERS)
        head_complete(s);
    if (s != NULL && (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
        (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
        s->r.complete = s->final;
        s->r.done_ns = sim_now_ns(c->w);
    }
    return 0;
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t n,
                         void *me)
{
    struct sim_h2 *c = me;
    struct stream *s = stream_of(session, id);

    (void)flags;
    c->held += n;
    if (!c->options.never_opens && !sim_event_is_set(&c->give_back))
        sim_event_set(c->w, &c->give_back, sim_between(c->w, c->options.hold_ns));
    if (s == NULL)
        return 0;
    s->held += n;
    sim_bytes_add(&s->body, bytes, n);
    if (s->request.reset_at_bytes > 0 && s->body.n >= s->request.reset_at_bytes)
        reset_stream(s);
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error_code, void *me)
{
    struct stream *s = stream_of(session, id);

    (void)me;
    if (s == NULL)
        return 0;
    if (!s->r.ended)
        s->r.h2_error = error_code;
    s->closed = s->r.ended = true;
    sim_event_cancel(s->client->w, &s->reset);
    if (error_code == NGHTTP2_NO_ERROR && !s->r.complete)
        malformed(s, "a stream closed without an end");
    return 0;
}

/* What nghttp2 objects to, it says to the program. */
static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *me)
{
    struct sim_h2 *c = me;
    struct stream *s = stream_of(session, frame->hd.stream_id);

    if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR)
        broken(c, "connection", nghttp2_http2_strerror(frame->goaway.error_code));
    if (frame->hd.type == NGHTTP2_RST_STREAM && s != NULL && !s->we_reset)
        malformed(s, nghttp2_http2_strerror(frame->rst_stream.error_code));
    return 0;
}

static int on_not_sent(nghttp2_session *session, const nghttp2_frame *frame, int error, void *me)
{
    struct stream *s = stream_of(session, frame->hd.stream_id);

    (void)me;
    (void)error;
    if (s != NULL && frame->hd.type == NGHTTP2_HEADERS) {
        s->r.ended = true;
        s->r.h2_error = NGHTTP2_REFUSED_STREAM;
    }
    return 0;
}

static int on_invalid_field(nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name,
                            nghttp2_rcbuf *value, uint8_t flags, void *me)
{
    struct stream *s = stream_of(session, frame->hd.stream_id);

    (void)name, (void)value, (void)flags, (void)me;
    if (s != NULL)
        malformed(s, "an invalid field");
    return 0;
}

static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int error, void *me)
{
    struct stream *s = stream_of(session, frame->hd.stream_id);

    if (s != NULL)
        malformed(s, nghttp2_strerror(error));
    else
        broken(me, "frame", nghttp2_strerror(error));
    return 0;
}

/* --- the connection --- */

static void on_data(void *me, struct sim_conn *conn, struct str bytes)
{
    struct sim_h2 *c = me;
    ssize_t n;

    if (!c->heard && sim_conn_is_tls(conn) && strcmp(sim_conn_tls_alpn(conn), "h2") != 0)
        broken(c, "ALPN", sim_conn_tls_alpn(conn));
    c->heard = true;
    n = nghttp2_session_mem_recv(c->session, (const uint8_t *)bytes.p, bytes.n);
    if (n < 0) {
        broken(c, "bytes", nghttp2_strerror((int)n));
        sim_conn_close_now(conn);
        c->gone = true;
        return;
    }
    pump(c);
}

static void on_end(void *me, struct sim_conn *conn)
{
    struct sim_h2 *c = me;

    c->gone = true;
    sim_conn_close_now(conn);
}

static void on_gone(void *me, struct sim_conn *conn, int error)
{
    struct sim_h2 *c = me;

    (void)conn;
    c->gone = true;
    if (c->error == 0)
        c->error = error;
}

static const struct sim_peer client_peer = {.data = on_data, .end = on_end, .gone = on_gone};

static void start_session(struct sim_h2 *c)
{
    const struct sim_h2_options *o = &c->options;
    nghttp2_settings_entry settings[5] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0}};
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    size_t n = 1;

    CHECK(nghttp2_session_callbacks_new(&callbacks) == 0 && nghttp2_option_new(&option) == 0);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, on_not_sent);
    nghttp2_session_callbacks_set_on_invalid_header_callback2(callbacks, on_invalid_field);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
    nghttp2_option_set_no_auto_window_update(option, 1);
    CHECK(nghttp2_session_client_new2(&c->session, callbacks, c, option) == 0);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    settings[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1};
    if (o->no_window || o->stream_window > 0)
        settings[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE,
                                                 o->no_window ? 0 : o->stream_window};
    if (o->frame_bytes_max > 0)
        settings[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_FRAME_SIZE, o->frame_bytes_max};
    if (o->has_table)
        settings[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, o->table_bytes};
    CHECK(nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, n) == 0);
    if (o->connection_window > 65535)
        CHECK(nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0,
                                                    (int32_t)o->connection_window) == 0);
}

struct sim_h2 *sim_h2_new(struct sim_world *w, const char *ip, uint16_t port,
                          const struct sim_h2_options *options)
{
    struct sim_h2 *c = calloc(1, sizeof *c);

    CHECK(c != NULL);
    c->w = w;
    if (options != NULL)
        c->options = *options;
    c->give_back = (struct sim_event){.call = on_give_back, .context = c};
    c->conn = sim_connect(w, c->options.from_ip, ip, port, &client_peer, c);
    if (c->options.tls != NULL) {
        struct sim_tls_options tls = *c->options.tls;

        tls.alpn = tls.alpn != NULL ? tls.alpn : "h2";
        sim_conn_tls_connect(c->conn, &tls);
    }
    if (c->options.read_rate > 0)
        sim_conn_read_rate(c->conn, c->options.read_rate);
    if (c->options.write_rate > 0)
        sim_conn_write_rate(c->conn, c->options.write_rate);
    c->conn->closes_at_limit = c->options.abort_by_close;
    if (c->options.abort_at_bytes > 0)
        sim_conn_reset_at(c->conn, c->options.abort_at_bytes, UINT64_MAX);
    start_session(c);
    pump(c);
    return c;
}

static void stream_free(struct stream *s)
{
    sim_event_cancel(s->client->w, &s->ask);
    sim_event_cancel(s->client->w, &s->reset);
    sim_bytes_free(&s->head);
    sim_bytes_free(&s->body);
    free(s->method);
    free(s->target);
    free(s->authority);
    free(s->fields);
    free(s);
}

void sim_h2_free(struct sim_h2 **pp)
{
    struct sim_h2 *c = TAKE(pp);

    sim_conn_close_now(c->conn);
    sim_event_cancel(c->w, &c->give_back);
    nghttp2_session_del(c->session);
    for (size_t i = 0; i < c->asked_n; i++)
        stream_free(c->streams[i]);
    free(c->streams);
    free(c);
}

/* --- what a test does --- */

static char *copy(const char *s, const char *otherwise)
{
    char *p = strdup(s != NULL ? s : otherwise);

    CHECK(p != NULL);
    return p;
}

static void lower_names(char *p)
{
    while (*p != '\0') {
        for (; *p != ':' && *p != '\0'; p++)
            if (*p >= 'A' && *p <= 'Z')
                *p = (char)(*p - 'A' + 'a');
        p = strstr(p, "\r\n");
        CHECK(p != NULL);
        p += 2;
    }
}

size_t sim_h2_ask(struct sim_h2 *c, const struct sim_h2_request *request)
{
    struct stream *s = calloc(1, sizeof *s);

    if (c->asked_n == c->cap) {
        c->cap = c->cap ? 2 * c->cap : 16;
        c->streams = realloc(c->streams, c->cap * sizeof(struct stream *));
    }
    CHECK(s != NULL && c->streams != NULL);
    s->client = c;
    s->request = *request;
    s->method = copy(request->method, "GET");
    s->target = copy(request->target, "/");
    s->authority = copy(request->authority, "localhost");
    s->fields = copy(request->fields, "");
    lower_names(s->fields);
    snprintf(s->length, sizeof s->length, "%llu", (unsigned long long)request->body_bytes);
    s->ask = (struct sim_event){.call = submit, .context = s};
    s->reset = (struct sim_event){.call = on_reset_event, .context = s};
    c->streams[c->asked_n++] = s;
    if (request->after_ns > 0)
        sim_event_set(c->w, &s->ask, request->after_ns);
    else
        submit(s);
    return c->asked_n - 1;
}

size_t sim_h2_get(struct sim_h2 *c, const char *target, const char *fields)
{
    return sim_h2_ask(c, &(struct sim_h2_request){.target = target, .fields = fields});
}

void sim_h2_reset(struct sim_h2 *c, size_t i)
{
    reset_stream(c->streams[i]);
    pump(c);
}

void sim_h2_prioritize(struct sim_h2 *c, size_t i, const char *priority)
{
    if (c->gone || c->streams[i]->id <= 0)
        return;
    CHECK(nghttp2_submit_priority_update(c->session, NGHTTP2_FLAG_NONE, c->streams[i]->id,
                                         (const uint8_t *)priority, strlen(priority)) == 0);
    pump(c);
}

void sim_h2_open_windows(struct sim_h2 *c)
{
    static const nghttp2_settings_entry wide = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1048576};

    if (c->gone)
        return;
    c->options.never_opens = false;
    c->options.hold_ns = (struct sim_range){0, 0};
    CHECK(nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, &wide, 1) == 0);
    give_back(c);
}

void sim_h2_ping(struct sim_h2 *c)
{
    CHECK(nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL) == 0);
    pump(c);
}

void sim_h2_bye(struct sim_h2 *c)
{
    if (c->gone)
        return;
    c->bye = true;
    CHECK(nghttp2_submit_goaway(c->session, NGHTTP2_FLAG_NONE, 0, NGHTTP2_NO_ERROR, NULL, 0) == 0);
    pump(c);
}

struct sim_conn *sim_h2_conn(struct sim_h2 *c)
{
    return c->conn;
}

size_t sim_h2_asked(const struct sim_h2 *c)
{
    return c->asked_n;
}

const struct sim_reply *sim_h2_reply(const struct sim_h2 *c, size_t i)
{
    struct stream *s = c->streams[i];

    CHECK(i < c->asked_n);
    s->r.head = s->final ? str_of(sim_bytes_at(&s->head, 0), s->head.n) : STR("");
    s->r.body = str_of(s->body.p != NULL ? sim_bytes_at(&s->body, 0) : "", s->body.n);
    return &s->r;
}

bool sim_h2_was_reset_by_us(const struct sim_h2 *c, size_t i)
{
    return c->streams[i]->we_reset;
}

uint64_t sim_h2_pongs(const struct sim_h2 *c)
{
    return c->pongs;
}

bool sim_h2_said_goaway(const struct sim_h2 *c)
{
    return c->said_goaway;
}

uint32_t sim_h2_goaway_error(const struct sim_h2 *c)
{
    return c->goaway_error;
}

bool sim_h2_gone(const struct sim_h2 *c)
{
    return c->gone || sim_conn_is_finished(c->conn);
}

int sim_h2_error(const struct sim_h2 *c)
{
    return c->error;
}

const char *sim_h2_broken(const struct sim_h2 *c)
{
    return c->broken[0] != '\0' ? c->broken : NULL;
}

bool sim_h2_settled(void *client)
{
    struct sim_h2 *c = client;

    if (c->gone || sim_conn_is_finished(c->conn))
        return true;
    while (c->settled_n < c->asked_n && c->streams[c->settled_n]->r.ended)
        c->settled_n++;
    return c->settled_n == c->asked_n;
}
