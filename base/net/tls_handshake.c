/* Handshakes, which OpenSSL does: its connection object reads from the receive queue and writes into the output's
 * slab, and goes when it is over. What it leaves is the secrets of the records that follow (struct tls_secrets). */
#include "net/tls_internal.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>

/* What a peer may send before its handshake is over. A certificate chain with large keys is 10 KiB. */
#define HANDSHAKE_BYTES_MAX (64u << 10)

/* How long a failed handshake's alert may take. */
#define ALERT_MS 1000u

/* --- between OpenSSL and the stream --- */

static int bio_read(BIO *bio, char *to, int n)
{
    struct tls_stream *t = BIO_get_data(bio);
    struct tls_handshake *h = t->handshake;
    int taken = 0;

    BIO_clear_retry_flags(bio);
    while (taken < n) {
        struct str run = io_recv_peek(t->io, &t->stream->recv);
        size_t take = run.n < (size_t)(n - taken) ? run.n : (size_t)(n - taken);

        if (take == 0)
            break;
        memcpy(to + taken, run.p, take);
        io_recv_consume(t->io, &t->stream->recv, take);
        taken += (int)take;
    }
    h->taken_bytes += (size_t)taken;
    if (h->taken_bytes > HANDSHAKE_BYTES_MAX) {
        tls_stream_because(t, "its handshake is longer than %u bytes", HANDSHAKE_BYTES_MAX);
        return -1;
    }
    if (taken > 0)
        return taken;
    if (io_recv_end(&t->stream->recv) != 0)
        return 0;
    BIO_set_retry_read(bio);
    return -1;
}

static int bio_write(BIO *bio, const char *bytes, int n)
{
    struct tls_stream *t = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    if (!tls_output_room(t, (size_t)n)) {
        tls_stream_because(t, "our part of the handshake is longer than %u bytes", (unsigned)TLS_SLAB_BYTES);
        return -1;
    }
    memcpy(t->out.slab + t->out.n, bytes, (size_t)n);
    t->out.n += (uint32_t)n;
    return n;
}

static long bio_ctrl(BIO *bio, int command, long larg, void *parg)
{
    struct tls_stream *t = BIO_get_data(bio);

    (void)larg;
    (void)parg;
    if (command == BIO_CTRL_EOF) /* else OpenSSL does not know what to call it */
        return io_recv_end(&t->stream->recv) != 0;
    return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *bio_method;

static void make_bio_method(void)
{
    bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "segue stream");
    if (bio_method == NULL)
        return;
    BIO_meth_set_read(bio_method, bio_read);
    BIO_meth_set_write(bio_method, bio_write);
    BIO_meth_set_ctrl(bio_method, bio_ctrl);
}

static BIO *new_bio(struct tls_stream *t)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    BIO *bio;

    pthread_once(&once, make_bio_method);
    bio = bio_method != NULL ? BIO_new(bio_method) : NULL;
    if (bio != NULL) {
        BIO_set_data(bio, t);
        BIO_set_init(bio, 1);
    }
    return bio;
}

/* --- the secrets it leaves --- */

static bool from_hex(const char *hex, size_t bytes, uint8_t *out)
{
    for (size_t i = 0; i < 2 * bytes; i++) {
        char c = hex[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;

        if (digit < 0)
            return false;
        out[i / 2] = (uint8_t)(i % 2 == 0 ? digit << 4 : out[i / 2] | digit);
    }
    return hex[2 * bytes] == '\0';
}

/* The traffic secrets of TLS 1.3 at the moment at which they come into use: a line of the NSS key log format, the one
 * way in which OpenSSL tells them. */
static void take_secret(const SSL *ssl, const char *line)
{
    struct tls_stream *t = SSL_get_app_data(ssl);
    struct tls_secrets *s = &t->handshake->secrets;
    static const struct str labels[2] = {STR_INIT("CLIENT_TRAFFIC_SECRET_0 "),
                                         STR_INIT("SERVER_TRAFFIC_SECRET_0 ")};

    for (unsigned i = 0; i < ARRAY_LEN(labels); i++) {
        bool out = (i == 1) == t->server;
        const char *hex;
        size_t bytes;

        if (!str_starts(str_z(line), labels[i]))
            continue;
        hex = strchr(line + labels[i].n, ' '); /* past the client's random */
        if (hex == NULL)
            return;
        hex++;
        bytes = strlen(hex) / 2;
        if (bytes > TLS_SECRET_BYTES_MAX || !from_hex(hex, bytes, out ? s->out : s->in))
            return;
        if (out) {
            t->handshake->have_out = true;
            s->out_n = 0;
        } else {
            t->handshake->have_in = true;
            s->in_n = 0;
        }
    }
}

/* Sees each record's head and each message: counts the records under the new keys, and hears the first message. */
static void watch(int write, int version, int type, const void *bytes, size_t n, SSL *ssl, void *arg)
{
    struct tls_stream *t = SSL_get_app_data(ssl);
    struct tls_handshake *h = t->handshake;

    (void)version;
    (void)arg;
    if (type == SSL3_RT_HEADER && n > 0) {
        bool have = write ? h->have_out : h->have_in;
        uint64_t *records_n = write ? &h->secrets.out_n : &h->secrets.in_n;

        if (!have && *(const uint8_t *)bytes == TLS_RECORD_CCS)
            *records_n = 0; /* TLS 1.2: the keys come into use with it */
        else
            ++*records_n;
    }
    if (type == SSL3_RT_HANDSHAKE && !write && n > 0 &&
        *(const uint8_t *)bytes == (t->server ? SSL3_MT_CLIENT_HELLO : SSL3_MT_SERVER_HELLO))
        h->heard = true;
}

/* True: the secrets are whole. */
static bool take_secrets(struct tls_stream *t)
{
    struct tls_handshake *h = t->handshake;
    struct tls_secrets *s = &h->secrets;
    const SSL_CIPHER *cipher = SSL_get_current_cipher(h->ssl);

    if (cipher == NULL || SSL_has_pending(h->ssl))
        return false;
    s->server = t->server;
    s->tls13 = SSL_version(h->ssl) == TLS1_3_VERSION;
    s->cipher_nid = SSL_CIPHER_get_cipher_nid(cipher);
    s->hash = SSL_CIPHER_get_handshake_digest(cipher);
    if (s->tls13)
        return h->have_in && h->have_out;
    s->master_bytes = SSL_SESSION_get_master_key(SSL_get_session(h->ssl), s->master, sizeof s->master);
    return s->master_bytes > 0 &&
           SSL_get_client_random(h->ssl, s->client_random, TLS_RANDOM_BYTES) == TLS_RANDOM_BYTES &&
           SSL_get_server_random(h->ssl, s->server_random, TLS_RANDOM_BYTES) == TLS_RANDOM_BYTES;
}

void tls_handshake_watch(SSL_CTX *ctx)
{
    SSL_CTX_set_msg_callback(ctx, watch);
    SSL_CTX_set_keylog_callback(ctx, take_secret);
}

/* --- one handshake --- */

static bool set_name(struct tls_handshake *h)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(h->ssl);

    if (h->name[0] == '\0')
        return !h->client->verify; /* nothing to verify it for */
    if (X509_VERIFY_PARAM_set1_ip_asc(param, h->name) == 1)
        return true;
    ERR_clear_error(); /* it is no address */
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS |
                                               X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    return SSL_set_tlsext_host_name(h->ssl, h->name) == 1 && SSL_set1_host(h->ssl, h->name) == 1;
}

static bool new_connection(struct tls_stream *t)
{
    struct tls_handshake *h = t->handshake;
    BIO *bio = new_bio(t);

    h->ssl = SSL_new(t->server ? h->server->ctx : h->client->ctx);
    if (h->ssl == NULL || bio == NULL) {
        BIO_free(bio);
        return false;
    }
    SSL_set_bio(h->ssl, bio, bio);
    SSL_set_app_data(h->ssl, t);
    if (t->server)
        SSL_set_accept_state(h->ssl);
    else
        SSL_set_connect_state(h->ssl);
    return t->server || set_name(h);
}

static void free_connection(struct tls_handshake *h)
{
    SSL_free(h->ssl);
    h->ssl = NULL;
    OPENSSL_cleanse(&h->secrets, sizeof h->secrets);
}

static void free_handshake(struct tls_stream *t)
{
    struct tls_handshake *h = TAKE(&t->handshake);

    CHECK(!h->poll.in_flight && list_empty(&h->node));
    free_connection(h);
    io_timer_cancel(t->io, &h->timer);
    if (h->server != NULL)
        tls_server_unref(&h->server);
    if (h->client != NULL)
        tls_client_unref(&h->client);
    pool_put(&t->local->handshakes, h);
}

void tls_handshake_leave(struct tls_stream *t)
{
    tls_gate_leave(t);
    free_handshake(t);
}

static void count(struct tls_stream *t, int error)
{
    struct tls_stats *stats = t->local->options.stats;
    const SSL *ssl = t->handshake->ssl;

    if (!t->server) {
        if (error != 0)
            stat_inc(&stats->client_handshakes_failed);
        return;
    }
    if (error != 0) {
        if (error != -ETIMEDOUT)
            stat_inc(&stats->handshakes_failed);
        return;
    }
    stat_inc(SSL_session_reused(ssl) ? &stats->handshakes_resumed : &stats->handshakes_full);
    stat_inc(SSL_version(ssl) == TLS1_3_VERSION ? &stats->handshakes_tls13 : &stats->handshakes_tls12);
}

void tls_handshake_fail(struct tls_stream *t, int error)
{
    struct tls_handshake *h = t->handshake;

    CHECK(error < 0);
    count(t, error);
    tls_gate_leave(t);
    free_connection(h);
    h->state = TLS_OVER;
    t->handshake_result = (int16_t)error;
    io_cancel(t->io, &h->poll);
    io_timer_set(t->io, &h->timer, &t->flow, ALERT_MS);
    io_wake(t->io, &t->flow);
}

static void agreed(struct tls_stream *t)
{
    struct tls_handshake *h = t->handshake;
    const unsigned char *alpn = NULL;
    unsigned alpn_n = 0;
    int error = -EPROTO;

    if (!take_secrets(t))
        tls_stream_because(t, "the handshake left no secrets");
    else
        error = tls_records_init(&t->records, &h->secrets);
    if (error != 0) {
        tls_handshake_fail(t, error);
        return;
    }
    SSL_get0_alpn_selected(h->ssl, &alpn, &alpn_n);
    t->http2 = str_eq(str_of((const char *)alpn, alpn_n), STR(TLS_ALPN_H2));
    t->http1 = str_eq(str_of((const char *)alpn, alpn_n), STR(TLS_ALPN_HTTP));
    count(t, 0);
    t->handshake_result = 0;
    tls_handshake_leave(t);
    io_wake(t->io, &t->flow);
}

static void failed(struct tls_stream *t)
{
    const SSL *ssl = t->handshake->ssl;
    int end = io_recv_end(&t->stream->recv);
    long verified = SSL_get_verify_result(ssl);

    if (end != 0 && ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
        tls_stream_because(t, "the peer went during the handshake");
        tls_handshake_fail(t, end);
        return;
    }
    if (verified == X509_V_ERR_HOSTNAME_MISMATCH || verified == X509_V_ERR_IP_ADDRESS_MISMATCH)
        tls_stream_because(t, "the certificate is for another name than %s", t->handshake->name);
    else if (verified != X509_V_OK)
        tls_stream_because(t, "the certificate cannot be trusted: %s",
                           X509_verify_cert_error_string(verified));
    else
        tls_stream_because(t, "%s", tls_error_text());
    tls_handshake_fail(t, -EPROTO);
}

/* Called by the gate: computes as far as what has come allows. */
void tls_handshake_work(struct tls_stream *t)
{
    struct tls_handshake *h = t->handshake;
    bool heard = h->heard;
    int rc;

    ERR_clear_error();
    if (h->ssl == NULL && !new_connection(t)) {
        tls_stream_because(t, "%s", tls_error_text());
        tls_handshake_fail(t, -ENOMEM);
        return;
    }
    rc = SSL_do_handshake(h->ssl);
    if (rc == 1) {
        agreed(t);
    } else if (SSL_get_error(h->ssl, rc) != SSL_ERROR_WANT_READ) {
        failed(t);
    } else {
        tls_gate_peer(t, t->out.n > 0);
        if (t->server && h->heard && !heard) {
            uint64_t ms = t->local->options.handshake_ms,
                     passed_ms = (io_now_ns(t->io) - h->begun_ns) / 1000000;

            io_timer_set(t->io, &h->timer, &t->flow, passed_ms < ms ? ms - passed_ms : 1);
        }
        io_wake(t->io, &t->flow);
    }
    ERR_clear_error();
    tls_output_pump(t);
}

static bool something_came(struct tls_stream *t)
{
    return io_recv_peek(t->io, &t->stream->recv).n > 0 || io_recv_end(&t->stream->recv) != 0;
}

/* Until its client says something, a connection has no place, and what it says stays in the kernel until then. */
static void listen_for_first(struct tls_stream *t)
{
    struct tls_handshake *h = t->handshake;
    int result;

    if (h->poll.in_flight &&
        something_came(t)) /* to a receive that a PROXY header had left; one of them is enough */
        io_cancel(t->io, &h->poll);
    else if (!t->server || something_came(t) || io_op_take(&h->poll, &result))
        tls_gate_ask(t);
    else if (!t->stream->recv.op.in_flight && !h->poll.in_flight)
        io_poll(t->io, &h->poll, &t->flow, stream_fd(t->stream), POLLIN);
}

bool tls_handshake_run(struct tls_stream *t)
{
    struct tls_handshake *h = t->handshake;

    if (h == NULL)
        return true;
    if (h->timer.fired && h->state != TLS_OVER) {
        if (t->server)
            stat_inc(&t->local->options.stats->handshakes_timeout);
        tls_stream_because(t, h->heard ? "the handshake took too long" : "the first message took too long");
        tls_handshake_fail(t, -ETIMEDOUT);
    }
    switch (h->state) {
    case TLS_QUIET:
        listen_for_first(t);
        return false;
    case TLS_ASKING:
    case TLS_WORKING:
        return false;
    case TLS_PEER:
        if (tls_output_is_busy(t))
            return false;
        if (something_came(t))
            tls_gate_work(t);
        else
            io_recv_arm(t->io, &t->stream->recv);
        return false;
    case TLS_OVER:
        break;
    }
    if (tls_output_is_busy(t) && !t->out.dead && !h->timer.fired)
        return false;
    t->out.dead = true;
    io_cancel(t->io, &t->out.op);
    if (h->poll.in_flight)
        return false;
    free_handshake(t);
    return true;
}
