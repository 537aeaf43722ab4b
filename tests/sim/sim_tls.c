/* TLS of scripted peers: an SSL object between the connection and its peer, with bytes in memory on either side. */
#include "sim_tls.h"
#include "sim_internal.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include <stdio.h>
#include <stdlib.h>

struct sim_tls {
    struct sim_conn *conn;
    struct sim_tls_options options;
    SSL *ssl;
    BIO *in;              /* ciphertext that has come */
    BIO *made;            /* by the SSL object, and goes to `out` */
    struct sim_bytes out; /* ciphertext that is still to be sent */
    unsigned char alpn[64];
    unsigned alpn_n;
    bool done, ended, notified, failed;
    char why[200];
};

struct sim_tls_sessions {
    SSL_SESSION *last;
};

/* What a world has for all its peers. */
struct sim_tls_world {
    SSL_CTX *client, *server, *stranger;
};

struct sim_tls_sessions *sim_tls_sessions_new(void)
{
    struct sim_tls_sessions *s = calloc(1, sizeof *s);

    CHECK(s != NULL);
    return s;
}

void sim_tls_sessions_free(struct sim_tls_sessions **pp)
{
    struct sim_tls_sessions *s = TAKE(pp);

    SSL_SESSION_free(s->last);
    free(s);
}

/* --- contexts --- */

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    struct sim_tls *t = SSL_get_app_data(ssl);

    if (t->options.sessions == NULL)
        return 0;
    SSL_SESSION_free(t->options.sessions->last);
    t->options.sessions->last = session;
    return 1;
}

static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_n,
                       const unsigned char *offered, unsigned offered_n, void *context)
{
    const struct sim_tls *t = SSL_get_app_data(ssl);
    unsigned char *chosen = NULL;

    (void)context;
    if (t->alpn_n == 0 || SSL_select_next_proto(&chosen, out_n, t->alpn, t->alpn_n, offered, offered_n) !=
                              OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_NOACK;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static BIO *reading(enum sim_pem which)
{
    BIO *bio = BIO_new_mem_buf(sim_pem(which), -1);

    CHECK(bio != NULL);
    return bio;
}

static X509 *certificate(enum sim_pem which)
{
    BIO *bio = reading(which);
    X509 *x = PEM_read_bio_X509(bio, NULL, NULL, NULL);

    CHECK(x != NULL);
    BIO_free(bio);
    return x;
}

static SSL_CTX *new_client(void)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    X509 *ca = certificate(SIM_PEM_CA);

    CHECK(ctx != NULL && X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), ca) == 1);
    X509_free(ca);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, keep_session);
    return ctx;
}

static SSL_CTX *new_server(enum sim_pem leaf, enum sim_pem key)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    X509 *x = certificate(leaf);
    BIO *bio = reading(key);
    EVP_PKEY *pkey = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);

    CHECK(ctx != NULL && SSL_CTX_use_certificate(ctx, x) == 1 && SSL_CTX_use_PrivateKey(ctx, pkey) == 1);
    X509_free(x);
    EVP_PKEY_free(pkey);
    BIO_free(bio);
    SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"sim", 3);
    SSL_CTX_set_alpn_select_cb(ctx, choose_alpn, NULL);
    return ctx;
}

static struct sim_tls_world *of_world(struct sim_world *w)
{
    if (w->tls == NULL) {
        w->tls = calloc(1, sizeof *w->tls);
        CHECK(w->tls != NULL);
        w->tls->client = new_client();
        w->tls->server = new_server(SIM_PEM_CERTIFICATE, SIM_PEM_KEY);
        w->tls->stranger = new_server(SIM_PEM_STRANGER, SIM_PEM_STRANGER_KEY);
    }
    return w->tls;
}

void sim_tls_forget_world(struct sim_world *w)
{
    if (w->tls == NULL)
        return;
    SSL_CTX_free(w->tls->client);
    SSL_CTX_free(w->tls->server);
    SSL_CTX_free(w->tls->stranger);
    free(w->tls);
    w->tls = NULL;
}

/* --- an end --- */

struct sim_tls_options sim_tls_options_random(struct sim_world *w)
{
    static const uint32_t paddings[] = {0, 0, 0, 0, 64, 512, 4096};
    struct sim_tls_options o = {0};

    o.tls12 = sim_below(w, 4) == 0;
    o.suite = (unsigned)sim_below(w, 4);
    if (sim_below(w, 3) == 0)
        o.record_bytes = 64 + (uint32_t)sim_between(w, (struct sim_range){0, 16000});
    if (o.record_bytes == 0 || o.record_bytes > 2000) /* or it would be a flood */
        o.padding = paddings[sim_below(w, ARRAY_LEN(paddings))];
    o.key_update_ppm = sim_below(w, 3) == 0 ? 200000 : 0;
    o.key_update_asks = sim_below(w, 2);
    return o;
}

static void set_suite(struct sim_tls *t)
{
    static const char *const suites[] = {NULL, "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384",
                                         "TLS_CHACHA20_POLY1305_SHA256"};
    static const char *const suites12[] = {NULL, "ECDHE-ECDSA-AES128-GCM-SHA256",
                                           "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"};
    unsigned i = t->options.suite;

    CHECK(i < ARRAY_LEN(suites));
    if (i > 0)
        CHECK(SSL_set_ciphersuites(t->ssl, suites[i]) == 1 && SSL_set_cipher_list(t->ssl, suites12[i]) == 1);
}

static void set_alpn(struct sim_tls *t)
{
    const char *p = t->options.alpn != NULL ? t->options.alpn : "";

    while (*p != '\0') {
        size_t n = strcspn(p, ",");

        CHECK(t->alpn_n + 1 + n <= sizeof t->alpn);
        t->alpn[t->alpn_n++] = (unsigned char)n;
        memcpy(t->alpn + t->alpn_n, p, n);
        t->alpn_n += (unsigned)n;
        p += n + (p[n] == ',');
    }
}

static struct sim_tls *start(struct sim_conn *c, SSL_CTX *ctx, const struct sim_tls_options *options)
{
    struct sim_tls *t = calloc(1, sizeof *t);

    CHECK(t != NULL && c->tls == NULL && c->sent_total == 0);
    t->conn = c;
    if (options != NULL)
        t->options = *options;
    t->ssl = SSL_new(ctx);
    t->in = BIO_new(BIO_s_mem());
    t->made = BIO_new(BIO_s_mem());
    CHECK(t->ssl != NULL && t->in != NULL && t->made != NULL);
    BIO_set_mem_eof_return(t->in, -1);
    SSL_set_bio(t->ssl, t->in, t->made);
    SSL_set_app_data(t->ssl, t);
    SSL_set_mode(t->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (t->options.tls12)
        SSL_set_max_proto_version(t->ssl, TLS1_2_VERSION);
    if (t->options.padding > 0)
        SSL_set_block_padding(t->ssl, t->options.padding);
    set_suite(t);
    set_alpn(t);
    c->tls = t;
    return t;
}

/* What the SSL object has made is to be sent, as far as this end does not fall silent. */
static void collect(struct sim_tls *t)
{
    char *p;
    long n = BIO_get_mem_data(t->made, &p);
    uint64_t at = t->conn->sent_total + t->out.n, flip = t->options.flip_sent_at;
    size_t old = t->out.n;

    sim_bytes_add(&t->out, p, (size_t)n);
    if (flip > at && flip <= at + (uint64_t)n)
        *sim_bytes_at(&t->out, old + (size_t)(flip - at - 1)) ^= (char)(1u << (flip % 8));
    (void)BIO_reset(t->made);
}

static void fail(struct sim_tls *t, const char *what)
{
    char text[120] = "";

    ERR_error_string_n(ERR_get_error(), text, sizeof text);
    snprintf(t->why, sizeof t->why, "%s: %s", what, text);
    ERR_clear_error();
    t->failed = true;
    collect(t); /* the alert */
}

static void handshake(struct sim_tls *t)
{
    int result;

    ERR_clear_error();
    result = SSL_do_handshake(t->ssl);
    if (result == 1) {
        t->done = true;
        sim_trace(t->conn->w, "tls", t->conn->id, (uint64_t)SSL_version(t->ssl));
    } else if (SSL_get_error(t->ssl, result) != SSL_ERROR_WANT_READ) {
        fail(t, "handshake");
    }
    collect(t);
}

void sim_conn_tls_connect(struct sim_conn *c, const struct sim_tls_options *options)
{
    struct sim_tls *t = start(c, of_world(c->w)->client, options);
    const char *name = t->options.name != NULL ? t->options.name : "localhost";

    SSL_set_connect_state(t->ssl);
    if (name[strspn(name, "0123456789.")] == '\0') {
        CHECK(X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(t->ssl), name) == 1);
    } else {
        CHECK(SSL_set_tlsext_host_name(t->ssl, name) == 1 && SSL_set1_host(t->ssl, name) == 1);
    }
    if (t->alpn_n > 0)
        CHECK(SSL_set_alpn_protos(t->ssl, t->alpn, t->alpn_n) == 0);
    if (t->options.sessions != NULL && t->options.sessions->last != NULL)
        CHECK(SSL_set_session(t->ssl, t->options.sessions->last) == 1);
    handshake(t);
    if (c->state == SIM_CONN_OPEN)
        sim_peer_kick(c);
}

void sim_conn_tls_accept(struct sim_conn *c, const struct sim_tls_options *options)
{
    bool stranger = options != NULL && options->stranger;
    struct sim_tls_world *w = of_world(c->w);

    SSL_set_accept_state(start(c, stranger ? w->stranger : w->server, options)->ssl);
}

/* --- what comes --- */

enum sim_tls_event sim_tls_read(struct sim_conn *c, char *bytes, size_t n)
{
    struct sim_tls *t = c->tls;
    uint64_t at = c->in.read_total - n, flip = t->options.flip_read_at;

    if (flip > at && flip <= at + n)
        bytes[flip - at - 1] ^= (char)(1u << (flip % 8));
    if (t->failed)
        return SIM_TLS_FAILED;
    CHECK(BIO_write(t->in, bytes, (int)n) == (int)n);
    if (!t->done)
        handshake(t);
    return t->failed ? SIM_TLS_FAILED : SIM_TLS_OPEN;
}

enum sim_tls_event sim_tls_take(struct sim_conn *c, char *to, size_t cap, size_t *n)
{
    struct sim_tls *t = c->tls;
    int result, why;

    *n = 0;
    if (!t->done || t->ended)
        return t->ended ? SIM_TLS_ENDED : SIM_TLS_OPEN;
    ERR_clear_error();
    result = SSL_read(t->ssl, to, (int)cap);
    if (result > 0) {
        *n = (size_t)result;
        collect(t); /* a new key that was asked for */
        return SIM_TLS_OPEN;
    }
    why = SSL_get_error(t->ssl, result);
    if (why == SSL_ERROR_ZERO_RETURN) {
        t->ended = true;
        if (BIO_pending(t->in) > 0)
            sim_fail(c->w, "%d bytes follow close_notify", (int)BIO_pending(t->in));
    } else if (why != SSL_ERROR_WANT_READ) {
        fail(t, "reading");
    }
    collect(t);
    return t->failed ? SIM_TLS_FAILED : t->ended ? SIM_TLS_ENDED : SIM_TLS_OPEN;
}

/* --- what goes --- */

size_t sim_tls_unsent(const struct sim_conn *c)
{
    const struct sim_tls *t = c->tls;

    if (t == NULL)
        return 0;
    if (t->options.silent_at > 0 && c->sent_total + t->out.n > t->options.silent_at)
        return t->options.silent_at > c->sent_total ? (size_t)(t->options.silent_at - c->sent_total) : 0;
    return t->out.n;
}

void sim_tls_put(struct sim_conn *c, size_t n)
{
    sim_conn_put(c, sim_bytes_at(&c->tls->out, 0), n);
    sim_bytes_drop(&c->tls->out, n);
}

bool sim_tls_may_write(const struct sim_conn *c)
{
    return c->tls->done && !c->tls->failed && c->tls->out.n == 0;
}

size_t sim_tls_record_bytes(struct sim_conn *c)
{
    uint32_t most = c->tls->options.record_bytes;

    return most > 0 ? sim_between(c->w, (struct sim_range){most / 8 + 1, most}) : 16384;
}

void sim_tls_write(struct sim_conn *c, const char *bytes, size_t n)
{
    struct sim_tls *t = c->tls;
    int result;

    ERR_clear_error();
    result = SSL_write(t->ssl, bytes, (int)n);
    CHECK(result == (int)n);
    if (SSL_version(t->ssl) == TLS1_3_VERSION && sim_chance(c->w, t->options.key_update_ppm)) {
        CHECK(SSL_key_update(t->ssl, t->options.key_update_asks ? SSL_KEY_UPDATE_REQUESTED
                                                                : SSL_KEY_UPDATE_NOT_REQUESTED) == 1);
        CHECK(SSL_do_handshake(t->ssl) == 1);
    }
    collect(t);
}

bool sim_tls_notify(struct sim_conn *c)
{
    struct sim_tls *t = c->tls;

    if (t->notified || t->options.no_close_notify || !t->done || t->failed)
        return false;
    t->notified = true;
    ERR_clear_error();
    (void)SSL_shutdown(t->ssl);
    ERR_clear_error();
    collect(t);
    return true;
}

bool sim_tls_has_failed(const struct sim_conn *c)
{
    return c->tls != NULL && c->tls->failed;
}

void sim_tls_forget(struct sim_conn *c)
{
    struct sim_tls *t = c->tls;

    if (t == NULL)
        return;
    c->tls = NULL;
    SSL_free(t->ssl);
    sim_bytes_free(&t->out);
    free(t);
}

/* --- what a test asks --- */

bool sim_conn_is_tls(const struct sim_conn *c)
{
    return c->tls != NULL;
}

bool sim_conn_tls_is_done(const struct sim_conn *c)
{
    return c->tls->done;
}

bool sim_conn_tls_was_resumed(const struct sim_conn *c)
{
    return c->tls->done && SSL_session_reused(c->tls->ssl) == 1;
}

const char *sim_conn_tls_alpn(const struct sim_conn *c)
{
    static char text[64];
    const unsigned char *p;
    unsigned n;

    SSL_get0_alpn_selected(c->tls->ssl, &p, &n);
    memcpy(text, n > 0 ? (const void *)p : "", n);
    text[n] = '\0';
    return text;
}

const char *sim_conn_tls_why(const struct sim_conn *c)
{
    return c->tls->why;
}
