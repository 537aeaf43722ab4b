/* A TLS stream as server. The first byte says which half: a handshake that begins with what is mostly a real
 * ClientHello; or a connection whose handshake is over, with a peer that has the keys and may send anything: what the
 * reader gets is then always what the peer sent, in order, and what the peer gets what we sent.
 *
 * The loop is this file's own: everything happens when it is told to, and an operation ends as the input says. */
#include "fuzz.h"

#include "net/stream.h"
#include "net/tls_internal.h"

#include <errno.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <unistd.h>

#define PIECES_MAX 64u
#define OUT_MAX    (1u << 20)

struct piece {
    char *p;
    size_t n, used;
};

struct io {
    struct flow_queue ready;
    struct timer_wheel *timers;
    uint64_t now_ns;
    struct piece pieces[PIECES_MAX]; /* received, not consumed; each ends where its memory does */
    unsigned head, n;
    int end;
    struct io_op *send, *recv_into, *poll;
    char *out; /* what was sent */
    size_t out_n;
    bool cancelled;
};

static struct io loop;

/* --- io.h --- */

struct flow_queue *io_ready(struct io *io)
{
    return &io->ready;
}

struct timer_wheel *io_timers(struct io *io)
{
    return io->timers;
}

uint64_t io_now_ns(const struct io *io)
{
    return io->now_ns;
}

static void begin(struct io_op *op, struct flow *f, int fd, const void *argument, size_t n)
{
    CHECK(!op->in_flight && fd == 7);
    *op = (struct io_op){.flow = f, .argument = argument, .n = (uint32_t)n, .in_flight = true};
}

static void complete(struct io_op **opp, int result)
{
    struct io_op *op = TAKE(opp);

    op->in_flight = false;
    op->done = true;
    op->result = result;
    io_wake(&loop, op->flow);
}

void io_cancel(struct io *io, struct io_op *op)
{
    struct io_op **all[] = {&io->send, &io->recv_into, &io->poll};

    for (unsigned i = 0; i < ARRAY_LEN(all); i++)
        if (*all[i] == op && op->in_flight)
            complete(all[i], -ECANCELED);
}

void io_send(struct io *io, struct io_op *op, struct flow *f, int fd, const void *bytes, size_t n)
{
    CHECK(io->send == NULL && n > 0);
    begin(op, f, fd, bytes, n);
    io->send = op;
}

void io_sendmsg(struct io *io, struct io_op *op, struct flow *f, int fd, const struct msghdr *message)
{
    (void)io, (void)op, (void)f, (void)fd, (void)message;
    abort(); /* a TLS stream has no use for it */
}

void io_recv_into(struct io *io, struct io_op *op, struct flow *f, int fd, void *to, size_t n)
{
    CHECK(io->recv_into == NULL && n > 0);
    begin(op, f, fd, to, n);
    io->recv_into = op;
}

void io_poll(struct io *io, struct io_op *op, struct flow *f, int fd, unsigned events)
{
    CHECK(io->poll == NULL);
    (void)events;
    begin(op, f, fd, NULL, 0);
    io->poll = op;
}

void io_shutdown_send(struct io *io, int fd)
{
    (void)io, (void)fd;
}

void io_recv_init(struct io_recv *r, int fd, struct flow *f, bool multishot)
{
    *r = (struct io_recv){.op = {.flow = f}, .fd = fd, .multishot = multishot};
}

void io_recv_arm(struct io *io, struct io_recv *r)
{
    (void)io, (void)r;
}

struct str io_recv_peek(struct io *io, const struct io_recv *r)
{
    const struct piece *piece = &io->pieces[io->head];

    (void)r;
    return io->head == io->n ? STR_NONE : str_of(piece->p + piece->used, piece->n - piece->used);
}

void io_recv_consume(struct io *io, struct io_recv *r, size_t n)
{
    struct piece *piece = &io->pieces[io->head];

    (void)r;
    if (n == 0)
        return;
    CHECK(io->head < io->n && n <= piece->n - piece->used);
    piece->used += n;
    if (piece->used == piece->n) {
        free(TAKE(&piece->p));
        io->head++;
    }
}

int io_recv_end(const struct io_recv *r)
{
    (void)r;
    return loop.head == loop.n ? loop.end : 0;
}

bool io_recv_stop(struct io *io, struct io_recv *r)
{
    (void)r;
    for (; io->head < io->n; io->head++)
        free(io->pieces[io->head].p);
    return true;
}

/* --- the connection --- */

struct end {
    struct flow flow;
    struct stream stream;
    struct tls_records peer; /* the client's side of the keys */
    struct stream_send send;
    struct iovec vecs[3];
    char *sending; /* what the vectors point to */
    struct io_op op;
    char *into;
    bool opened, stopped;
    uint64_t sent_n, got_n;        /* bytes of the pattern: by the peer, by the reader */
    uint64_t server_n, received_n; /* by us, by the peer */
    size_t parsed;                 /* of loop.out */
};

static struct end end;
static struct tls_server *server;
static struct tls_local *local;
static struct tls_stats stats;
static char hello[2048];
static size_t hello_n;

static char pattern(uint64_t at)
{
    return (char)(at % 251);
}

static void check_read(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        CHECK(p[i] == pattern(end.got_n + i));
    end.got_n += n;
    CHECK(end.got_n <= end.sent_n);
}

static void receive(const char *p, size_t n)
{
    if (n == 0 || loop.n == PIECES_MAX)
        return;
    if (loop.recv_into != NULL) {
        size_t room = loop.recv_into->n;

        memcpy((char *)(uintptr_t)loop.recv_into->argument, p, n < room ? n : room);
        complete(&loop.recv_into, (int)(n < room ? n : room));
        receive(p + room, n > room ? n - room : 0);
        return;
    }
    loop.pieces[loop.n++] = (struct piece){.p = exact_copy(p, n), .n = n};
    io_wake(&loop, end.stream.recv.op.flow);
}

/* What was sent, as the peer reads it. */
static void read_as_peer(void)
{
    while (end.opened) {
        size_t n = tls_record_bytes(loop.out + end.parsed, loop.out_n - end.parsed);
        struct tls_opened opened;

        if (n == 0 || n > loop.out_n - end.parsed)
            return;
        CHECK(tls_records_open(&end.peer, loop.out + end.parsed, n, NULL, &opened) == 0);
        end.parsed += n;
        if (opened.type == TLS_RECORD_MESSAGE) {
            CHECK(end.peer.tls13 && opened.n == 5 && opened.p[0] == 24 && opened.p[4] == 0);
            CHECK(tls_records_update(&end.peer, &end.peer.in) == 0);
        } else if (opened.type == TLS_RECORD_DATA) {
            for (size_t i = 0; i < opened.n; i++)
                CHECK(opened.p[i] == pattern(end.received_n + i));
            end.received_n += opened.n;
            CHECK(end.received_n <= end.server_n);
        } else {
            CHECK(opened.type == TLS_RECORD_ALERT && opened.n == 2);
        }
    }
}

static enum flow_result end_step(struct flow *flow)
{
    int result;

    (void)flow;
    if (end.stopped)
        return FLOW_WAIT;
    if (end.sending != NULL && stream_send_take(&loop, &end.stream, &end.send, &result))
        free(TAKE(&end.sending));
    if (end.into != NULL && io_op_take(&end.op, &result)) {
        if (result > 0)
            check_read(end.into, (size_t)result);
        free(TAKE(&end.into));
    }
    return FLOW_WAIT;
}

static const flow_step end_steps[] = {end_step};
static const struct flow_type end_type = {.name = "end", .steps = end_steps, .steps_n = 1};

static void run(void)
{
    for (unsigned i = 0; i < 100 && loop.ready.n > 0; i++) {
        loop.now_ns += 1000;
        flow_run_ready(&loop.ready);
    }
    read_as_peer();
}

/* --- what a peer with the keys does --- */

static void seal_and_receive(struct str *in, enum tls_record_type type, const char *p, size_t n, unsigned how)
{
    static char record[TLS_RECORD_BYTES_MAX];
    struct iovec vec = {(void *)(uintptr_t)p, n};
    size_t sealed = (size_t)tls_records_seal(&end.peer, type, &vec, n, record), at = 0;

    if (how & 1) {
        unsigned bit = fuzz_byte(in);

        record[bit / 8 % sealed] = (char)(record[bit / 8 % sealed] ^ 1 << bit % 8);
    }
    while (at < sealed) {
        size_t take = how & 2 ? 1 + fuzz_byte(in) : sealed;

        if (loop.n >= PIECES_MAX - 2) /* the rest never comes */
            take = sealed;
        take = take < sealed - at ? take : sealed - at;
        receive(record + at, take);
        if (how & 4)
            run();
        at += take;
    }
}

static void peer_sends_data(struct str *in, unsigned how)
{
    static char plain[TLS_RECORD_PLAIN_MAX];
    size_t n = fuzz_byte(in) * (how & 8 ? 67u : 1u);

    n = n < sizeof plain ? n : sizeof plain;
    for (size_t i = 0; i < n; i++)
        plain[i] = pattern(end.sent_n + i);
    if (loop.n >= PIECES_MAX / 2) /* it would have to be cut short */
        return;
    end.sent_n += n;
    seal_and_receive(in, TLS_RECORD_DATA, plain, n, how & 7);
}

static void peer_updates_keys(struct str *in, unsigned how)
{
    const char message[5] = {24, 0, 0, 1, how & 1};

    if (!end.peer.tls13)
        return;
    seal_and_receive(in, TLS_RECORD_MESSAGE, message, sizeof message, how & 6);
    CHECK(tls_records_update(&end.peer, &end.peer.out) == 0);
}

static void send_something(struct str *in)
{
    size_t n = 1 + fuzz_byte(in) * 300u, cut = fuzz_byte(in) % n;
    struct stream_send *send = &end.send;

    if (end.sending != NULL || end.stream.tls->out.ending)
        return;
    end.sending = exact_copy("", 0);
    end.sending = realloc(end.sending, n);
    for (size_t i = 0; i < n; i++)
        end.sending[i] = pattern(end.server_n + i);
    end.server_n += n;
    end.vecs[0] = (struct iovec){end.sending, cut};
    end.vecs[1] = (struct iovec){end.sending + cut, n - cut};
    stream_send(&loop, &end.stream, send, &end.flow, end.vecs, 2);
}

static void read_some(struct str *in)
{
    struct str run = stream_peek(&loop, &end.stream);
    size_t n = fuzz_byte(in) * 100u + 1;

    if (end.into != NULL)
        return;
    n = n < run.n ? n : run.n;
    check_read(run.p, n);
    stream_consume(&loop, &end.stream, n);
    stream_arm(&loop, &end.stream);
}

static void read_into(struct str *in)
{
    size_t n = 1 + fuzz_byte(in) * (size_t)100;

    if (end.into != NULL || stream_handshake(&end.stream) != 0)
        return;
    end.into = malloc(n);
    stream_recv_into(&loop, &end.stream, &end.op, &end.flow, end.into, n);
}

static void complete_one(unsigned how)
{
    if (loop.send != NULL) {
        uint32_t n = loop.send->n;

        if (how == 255) {
            complete(&loop.send, -EPIPE);
            return;
        }
        if (how & 1 && n > 1)
            n = 1 + (how * 37u) % (n - 1);
        if (loop.out_n + n > OUT_MAX) {
            complete(&loop.send, -EPIPE);
            return;
        }
        memcpy(loop.out + loop.out_n, loop.send->argument, n);
        loop.out_n += n;
        complete(&loop.send, (int)n);
    } else if (loop.poll != NULL) {
        complete(&loop.poll, 1);
    }
}

static void act(struct str *in)
{
    unsigned what = fuzz_byte(in), how = what >> 4;
    struct str bytes;

    switch (what & 15) {
    case 0:
    case 1:
        peer_sends_data(in, how);
        break;
    case 2:
        bytes = fuzz_take(in, fuzz_byte(in)); /* anything but data */
        seal_and_receive(in,
                         how < 4    ? TLS_RECORD_ALERT
                         : how < 13 ? TLS_RECORD_MESSAGE
                                    : TLS_RECORD_CCS,
                         bytes.p != NULL ? bytes.p : "", bytes.n, how & 2);
        break;
    case 3:
        bytes = fuzz_take(in, fuzz_byte(in));
        receive(bytes.p, bytes.n);
        break;
    case 4:
        peer_updates_keys(in, how);
        break;
    case 5:
        read_some(in);
        break;
    case 6:
        read_into(in);
        break;
    case 7:
        send_something(in);
        break;
    case 8:
    case 9:
        complete_one(fuzz_byte(in));
        break;
    case 10:
        loop.end = how & 1 ? -ECONNRESET : -ENODATA;
        if (loop.recv_into != NULL)
            complete(&loop.recv_into, how & 1 ? -ECONNRESET : 0);
        io_wake(&loop, end.stream.recv.op.flow);
        break;
    case 11:
        if (end.into != NULL)
            stream_cancel(&loop, &end.stream, &end.op);
        break;
    case 12:
        if (how == 0 && end.sending != NULL)
            stream_send_cancel(&loop, &end.stream, &end.send);
        break;
    case 13:
        if (how == 0 && end.sending == NULL)
            stream_end_sending(&loop, &end.stream);
        break;
    default:
        run();
    }
}

/* --- both halves --- */

static void open_stream(bool multishot)
{
    memset(&end, 0, sizeof end);
    flow_init(&end.flow, &end_type, 0);
    loop.ready = (struct flow_queue){0};
    loop.head = loop.n = 0;
    loop.end = 0;
    loop.out_n = 0;
    stream_init(&end.stream, 7, &end.flow, multishot);
    CHECK(stream_tls_accept(&loop, &end.stream, local, server) == 0);
}

static void close_stream(void)
{
    for (unsigned i = 0; i < 50 && (end.sending != NULL || end.into != NULL); i++) {
        if (end.sending != NULL)
            stream_send_cancel(&loop, &end.stream, &end.send);
        if (end.into != NULL)
            stream_cancel(&loop, &end.stream, &end.op);
        run();
    }
    CHECK(end.sending == NULL && end.into == NULL);
    end.stopped = true;
    for (unsigned i = 0; i < 50 && !stream_stop(&loop, &end.stream); i++) {
        complete_one(0);
        run();
    }
    CHECK(end.stream.tls == NULL && loop.send == NULL && loop.recv_into == NULL && loop.poll == NULL);
    CHECK(local->streams.in_use + local->handshakes.in_use + local->slabs.in_use + local->small.in_use == 0);
    CHECK(local->places == 0);
    tls_records_wipe(&end.peer);
    run(); /* what is still in the queue */
}

static void establish(unsigned which)
{
    static const struct {
        bool tls13;
        int nid;
        const EVP_MD *(*hash)(void);
    } suites[] = {{true, NID_aes_128_gcm, EVP_sha256},        {true, NID_chacha20_poly1305, EVP_sha256},
                  {true, NID_aes_256_gcm, EVP_sha384},        {false, NID_aes_128_gcm, EVP_sha256},
                  {false, NID_chacha20_poly1305, EVP_sha256}, {false, NID_aes_256_gcm, EVP_sha384}};
    struct tls_secrets secrets = {.tls13 = suites[which % 6].tls13,
                                  .server = true,
                                  .cipher_nid = suites[which % 6].nid,
                                  .hash = suites[which % 6].hash(),
                                  .master_bytes = 48};
    struct tls_stream *t = end.stream.tls;

    secrets.in[0] = 1;
    CHECK(tls_records_init(&t->records, &secrets) == 0);
    secrets.server = false;
    secrets.in[0] = 0;
    secrets.out[0] = 1;
    CHECK(tls_records_init(&end.peer, &secrets) == 0);
    t->handshake_result = 0;
    tls_handshake_leave(t);
    end.opened = true;
    run();
}

static void shake(struct str in)
{
    static char bytes[sizeof hello];
    unsigned edits = fuzz_byte(&in), piece = 1 + fuzz_byte(&in) * 4;
    size_t at = 0;

    memcpy(bytes, hello, hello_n);
    for (unsigned i = 0; i < edits % 16; i++) {
        unsigned place = fuzz_byte(&in) << 8 | fuzz_byte(&in);

        bytes[place % hello_n] = (char)fuzz_byte(&in);
    }
    run();
    while (at < hello_n && !(edits & 128)) {
        size_t n = hello_n - at < piece ? hello_n - at : piece;

        if (loop.n >= PIECES_MAX - 2)
            n = hello_n - at;
        receive(bytes + at, n);
        complete_one(0);
        run();
        at += n;
    }
    while (in.n > 0) {
        struct str more = fuzz_take(&in, 1 + fuzz_byte(&in));

        receive(more.p, more.n);
        complete_one(0);
        run();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str in = str_of((const char *)data, size);
    unsigned first = fuzz_byte(&in);

    open_stream(first & 64);
    if (first & 128) {
        shake(in);
    } else {
        establish(first);
        while (in.n > 0)
            act(&in);
        run();
    }
    close_stream();
    return 0;
}

/* --- once --- */

static void make_server(void)
{
    char certificate_path[] = "/tmp/segue-fuzz-XXXXXX", key_path[] = "/tmp/segue-fuzz-XXXXXX",
         why[TLS_WHY_BYTES];
    struct tls_certificate files = {certificate_path, key_path};
    struct tls_server_options options = {.certificates = &files, .certificates_n = 1, .http2 = true};
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    X509 *x = X509_new();
    FILE *certificate_file = fdopen(mkstemp(certificate_path), "w"),
         *key_file = fdopen(mkstemp(key_path), "w");

    X509_gmtime_adj(X509_getm_notBefore(x), 0);
    X509_gmtime_adj(X509_getm_notAfter(x), 86400);
    X509_set_pubkey(x, key);
    CHECK(X509_sign(x, key, EVP_sha256()) > 0);
    CHECK(PEM_write_X509(certificate_file, x) == 1);
    CHECK(PEM_write_PrivateKey(key_file, key, NULL, NULL, 0, NULL, NULL) == 1);
    fclose(certificate_file);
    fclose(key_file);
    CHECK(tls_server_create(&options, &server, why) == 0);
    unlink(certificate_path);
    unlink(key_path);
    X509_free(x);
    EVP_PKEY_free(key);
}

static void make_hello(void)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(ctx);
    BIO *out = BIO_new(BIO_s_mem());

    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), out);
    SSL_set_connect_state(ssl);
    SSL_set_tlsext_host_name(ssl, "a.example");
    SSL_set_alpn_protos(ssl, (const unsigned char *)"\x02h2\x08http/1.1", 12);
    SSL_do_handshake(ssl);
    hello_n = (size_t)BIO_read(out, hello, sizeof hello);
    CHECK(hello_n > 100 && hello_n < sizeof hello);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const struct tls_local_options options = {
        .stats = &stats, .handshakes_max = 4, .hello_ms = 5000, .handshake_ms = 10000};

    (void)argc;
    (void)argv;
    loop.timers = timer_wheel_create(0);
    loop.out = malloc(OUT_MAX);
    CHECK(loop.timers != NULL && loop.out != NULL);
    make_server();
    make_hello();
    CHECK(tls_local_create(&local, &loop, &options) == 0);
    return 0;
}
