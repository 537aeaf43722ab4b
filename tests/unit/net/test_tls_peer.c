/* A TLS stream as server against OpenSSL itself as client: versions, suites, names, tickets, and what a peer may send
 * that we never would. */
#include "tls_pair.h"

#define CHUNK 100000u

struct peer {
    SSL_CTX *ctx;
    SSL *ssl;
    bool shaken, failed;
    int error, reason;
    size_t got;
};

static void peer_open(struct peer *p, int version, int fd)
{
    memset(p, 0, sizeof *p);
    p->ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(p->ctx, version);
    SSL_CTX_set_max_proto_version(p->ctx, version);
    assert_int_equal(SSL_CTX_load_verify_locations(p->ctx, ca.path, NULL), 1);
    SSL_CTX_set_verify(p->ctx, SSL_VERIFY_PEER, NULL);
    p->ssl = SSL_new(p->ctx);
    SSL_set_fd(p->ssl, fd);
    SSL_set_connect_state(p->ssl);
    SSL_set_tlsext_host_name(p->ssl, "a.example");
    SSL_set_mode(p->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

static void peer_close(struct peer *p)
{
    SSL_free(p->ssl);
    SSL_CTX_free(p->ctx);
}

/* A server of ours, with this peer in the client's place. */
static void peer_pair_open(struct pair *p, struct peer *peer, int version)
{
    pair_open(p, NULL);
    p->client.stopped = true;
    peer_open(peer, version, p->client.fd);
}

static void peer_pair_close(struct pair *p, struct peer *peer)
{
    peer_close(peer);
    close(p->client.fd);
    pair_close(p);
}

/* One try of each: handshake, then reading the pattern. */
static bool peer_turn(struct peer *p)
{
    static char bytes[20000];
    int n;

    if (p->failed)
        return true;
    ERR_clear_error();
    n = p->shaken ? SSL_read(p->ssl, bytes, sizeof bytes) : SSL_do_handshake(p->ssl);
    if (n > 0 && p->shaken) {
        assert_pattern(bytes, (size_t)n, p->got);
        p->got += (size_t)n;
    } else if (n > 0) {
        p->shaken = true;
    } else {
        p->error = SSL_get_error(p->ssl, n);
        if (p->error != SSL_ERROR_WANT_READ && p->error != SSL_ERROR_WANT_WRITE)
            p->failed = true;
        p->reason = ERR_GET_REASON(ERR_peek_error());
    }
    return true;
}

#define RUN_PEER(pair, peer, condition)                                                                      \
    RUN_UNTIL((pair)->io, peer_turn(peer) && ((condition) || (peer)->failed))

static void peer_shake(struct pair *p, struct peer *peer, struct tls_server *s)
{
    assert_int_equal(stream_tls_accept(p->io, &p->server.stream, p->local, s), 0);
    assert_true(RUN_PEER(p, peer, peer->shaken && stream_handshake(&p->server.stream) != -EAGAIN));
}

static void peer_exchange(struct pair *p, struct peer *peer)
{
    const size_t n = CHUNK;
    char *bytes = pattern_bytes(n);
    size_t written = 0;

    p->server.reads = true;
    p->server.got = 0;
    peer->got = 0;
    io_wake(p->io, &p->server.actor.flow);
    begin_send(&p->server, bytes, &n, 1);
    assert_true(RUN_PEER(p, peer, peer->got == n && p->server.sent));
    if (peer->failed)
        fail_msg("%s", ERR_reason_error_string(ERR_PACK(ERR_LIB_SSL, 0, peer->reason)));
    assert_int_equal(p->server.send_error, 0);
    while (written < n) {
        int rc = SSL_write(peer->ssl, bytes + written, (int)(n - written < 7000 ? n - written : 7000));

        if (rc > 0)
            written += (size_t)rc;
        assert_int_equal(io_run_once(p->io, 0), 0);
    }
    assert_true(RUN_UNTIL(p->io, p->server.got == n));
    assert_int_equal(p->server.end, 0);
    free(bytes);
}

static void test_versions_and_suites(void **state)
{
    static const struct {
        int version;
        const char *suite, *server;
    } cases[] = {
        {TLS1_3_VERSION, "TLS_AES_128_GCM_SHA256", "ec"},
        {TLS1_3_VERSION, "TLS_AES_256_GCM_SHA384", "rsa"},
        {TLS1_3_VERSION, "TLS_CHACHA20_POLY1305_SHA256", "ed"},
        {TLS1_2_VERSION, "ECDHE-ECDSA-AES128-GCM-SHA256", "ec"},
        {TLS1_2_VERSION, "ECDHE-ECDSA-AES256-GCM-SHA384", "ec"},
        {TLS1_2_VERSION, "ECDHE-ECDSA-CHACHA20-POLY1305", "ec"},
        {TLS1_2_VERSION, "ECDHE-RSA-AES128-GCM-SHA256", "rsa"},
        {TLS1_2_VERSION, "ECDHE-RSA-AES256-GCM-SHA384", "rsa"},
        {TLS1_2_VERSION, "ECDHE-RSA-CHACHA20-POLY1305", "rsa"},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct tls_server *s = make_server(cases[i].server, NULL, false);
        struct peer peer;
        struct pair p;

        pair_open(&p, NULL);
        p.client.stopped = true; /* OpenSSL has the socket */
        peer_open(&peer, cases[i].version, p.client.fd);
        if (cases[i].version == TLS1_3_VERSION)
            assert_int_equal(SSL_set_ciphersuites(peer.ssl, cases[i].suite), 1);
        else
            assert_int_equal(SSL_set_cipher_list(peer.ssl, cases[i].suite), 1);
        peer_shake(&p, &peer, s);
        if (peer.failed || stream_handshake(&p.server.stream) != 0)
            fail_msg("%s: %s", cases[i].suite, stream_tls_why(&p.server.stream));
        assert_string_equal(SSL_get_cipher_name(peer.ssl), cases[i].suite);
        assert_int_equal(stream_alpn(&p.server.stream).n, 0);
        peer_exchange(&p, &peer);
        SSL_shutdown(peer.ssl);
        assert_true(RUN_UNTIL(p.io, p.server.end != 0));
        assert_int_equal(p.server.end, -ENODATA);
        stream_end_sending(p.io, &p.server.stream);
        assert_true(RUN_PEER(&p, &peer, false));
        assert_int_equal(peer.error, SSL_ERROR_ZERO_RETURN);
        peer_pair_close(&p, &peer);
        tls_server_unref(&s);
    }
}

/* Nothing weaker: versions, suites without forward secrecy or AEAD, curves. */
static void test_refused_offers(void **state)
{
    static const struct {
        int version;
        const char *suites, *groups;
    } cases[] = {
        {TLS1_1_VERSION, "ALL:@SECLEVEL=0", NULL},
        {TLS1_2_VERSION, "AES128-GCM-SHA256", NULL},
        {TLS1_2_VERSION, "ECDHE-RSA-AES128-SHA256", NULL},
        {TLS1_2_VERSION, "DHE-RSA-AES128-GCM-SHA256", NULL},
        {TLS1_3_VERSION, NULL, "X448"},
    };
    struct tls_server *s = make_server("rsa", NULL, false);

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct peer peer;
        struct pair p;

        peer_pair_open(&p, &peer, cases[i].version);
        if (cases[i].suites != NULL)
            assert_int_equal(SSL_set_cipher_list(peer.ssl, cases[i].suites), 1);
        if (cases[i].groups != NULL)
            assert_int_equal(SSL_set1_groups_list(peer.ssl, cases[i].groups), 1);
        peer_shake(&p, &peer, s);
        assert_true(peer.failed);
        assert_int_equal(peer.error, SSL_ERROR_SSL); /* it was told by an alert */
        assert_true(RUN_UNTIL(p.io, stream_handshake(&p.server.stream) != -EAGAIN));
        assert_int_equal(stream_handshake(&p.server.stream), -EPROTO);
        assert_int_equal(stat_get(&p.stats.handshakes_failed), 1);
        peer_pair_close(&p, &peer);
    }
    tls_server_unref(&s);
}

static void test_alpn(void **state)
{
    static const struct {
        const char *offer;
        bool http2;
        const char *chosen; /* NULL: refused */
    } cases[] = {
        {"\x02h2\x08http/1.1", true, "h2"},
        {"\x08http/1.1\x02h2", true, "h2"},
        {"\x02h2\x08http/1.1", false, "http/1.1"},
        {"\x08http/1.1", true, "http/1.1"},
        {"\x02h2", false, NULL},
        {"\x03"
         "ftp",
         true, NULL},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct tls_server *s = make_server("ec", NULL, cases[i].http2);
        struct peer peer;
        struct pair p;

        peer_pair_open(&p, &peer, TLS1_3_VERSION);
        SSL_set_alpn_protos(peer.ssl, (const unsigned char *)cases[i].offer,
                            (unsigned)strlen(cases[i].offer));
        peer_shake(&p, &peer, s);
        assert_int_equal(peer.failed, cases[i].chosen == NULL);
        if (cases[i].chosen != NULL)
            assert_true(str_eq(stream_alpn(&p.server.stream), str_z(cases[i].chosen)));
        else
            assert_int_equal(peer.reason, SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL);
        peer_pair_close(&p, &peer);
        tls_server_unref(&s);
    }
}

/* A handshake in two flights, since the client guesses a group that we do not like best; in crumbs, too. */
static void test_hello_retry_and_crumbs(void **state)
{
    struct tls_server *s = make_server("ec", NULL, false);
    struct peer peer;
    struct pair p;

    (void)state;
    peer_pair_open(&p, &peer, TLS1_3_VERSION);
    assert_int_equal(SSL_set1_groups_list(peer.ssl, "X448:P-384"), 1);
    peer_shake(&p, &peer, s);
    assert_false(peer.failed);
    peer_exchange(&p, &peer);
    peer_pair_close(&p, &peer);
    tls_server_unref(&s);
}

static void test_key_updates(void **state)
{
    struct tls_server *s = make_server("ec", NULL, false);
    struct peer peer;
    struct pair p;

    (void)state;
    peer_pair_open(&p, &peer, TLS1_3_VERSION);
    peer_shake(&p, &peer, s);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(
            SSL_key_update(peer.ssl, i % 2 ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED), 1);
        peer_exchange(&p, &peer);
    }
    p.server.stream.tls->records.update_after = 3; /* ours, in the midst of a send */
    peer_exchange(&p, &peer);
    assert_true(p.server.stream.tls->records.out.n < 4);
    peer_exchange(&p, &peer);
    peer_pair_close(&p, &peer);
    tls_server_unref(&s);
}

/* Key updates without end and without data cost us more than the peer. */
static void test_flood_of_key_updates(void **state)
{
    struct tls_server *s = make_server("ec", NULL, false);
    struct peer peer;
    struct pair p;

    (void)state;
    peer_pair_open(&p, &peer, TLS1_3_VERSION);
    peer_shake(&p, &peer, s);
    p.server.reads = true;
    io_wake(p.io, &p.server.actor.flow);
    for (unsigned i = 0; i < 40; i++) {
        SSL_key_update(peer.ssl, SSL_KEY_UPDATE_REQUESTED);
        SSL_do_handshake(peer.ssl);
        assert_int_equal(io_run_once(p.io, 0), 0);
    }
    assert_true(RUN_PEER(&p, &peer, p.server.end != 0));
    assert_true(RUN_UNTIL(p.io, p.server.end != 0));
    assert_int_equal(p.server.end, -EPROTO);
    assert_non_null(strstr(stream_tls_why(&p.server.stream), "without data"));
    peer_pair_close(&p, &peer);
    tls_server_unref(&s);
}

static void test_no_renegotiation(void **state)
{
    struct tls_server *s = make_server("ec", NULL, false);
    struct peer peer;
    struct pair p;

    (void)state;
    peer_pair_open(&p, &peer, TLS1_2_VERSION);
    peer_shake(&p, &peer, s);
    peer_exchange(&p, &peer);
    assert_int_equal(SSL_renegotiate(peer.ssl), 1);
    SSL_do_handshake(peer.ssl);
    assert_true(RUN_UNTIL(p.io, p.server.end != 0));
    assert_int_equal(p.server.end, -EPROTO);
    assert_non_null(strstr(stream_tls_why(&p.server.stream), "negotiate anew"));
    assert_true(RUN_PEER(&p, &peer, false));
    assert_true(peer.failed);
    peer_pair_close(&p, &peer);
    tls_server_unref(&s);
}

/* One bit in the ciphertext: the peer is told, and nothing of the record is given to the reader. */
static void test_changed_ciphertext(void **state)
{
    struct tls_server *s = make_server("ec", NULL, false);
    struct peer peer;
    struct pair p;
    char record[64] = "\x17\x03\x03\x00\x30";

    (void)state;
    peer_pair_open(&p, &peer, TLS1_3_VERSION);
    peer_shake(&p, &peer, s);
    p.server.reads = true;
    io_wake(p.io, &p.server.actor.flow);
    assert_int_equal(send(p.client.fd, record, 5 + 0x30, 0), 5 + 0x30);
    assert_true(RUN_UNTIL(p.io, p.server.end != 0));
    assert_int_equal(p.server.end, -EPROTO);
    assert_int_equal(p.server.got, 0);
    peer.shaken = true;
    assert_true(RUN_PEER(&p, &peer, false));
    assert_int_equal(peer.reason, SSL_R_SSLV3_ALERT_BAD_RECORD_MAC);
    peer_pair_close(&p, &peer);
    tls_server_unref(&s);
}

static void test_padded_and_empty_records(void **state)
{
    struct tls_server *s = make_server("ec", NULL, false);
    struct peer peer;
    struct pair p;

    (void)state;
    peer_pair_open(&p, &peer, TLS1_3_VERSION);
    assert_int_equal(SSL_set_block_padding(peer.ssl, 1000), 1);
    peer_shake(&p, &peer, s);
    peer_exchange(&p, &peer);
    peer_pair_close(&p, &peer);
    tls_server_unref(&s);
}

/* Its Finished cut into two records, as RFC 5246, 6.2.1 lets it: what is sealed afterwards counts from two. The peer's
 * bytes pass through memory, where its records are opened and sealed anew. */
static void test_tls12_finished_in_two_records(void **state)
{
    struct tls_server *s = make_server("ec", NULL, false);
    struct tls_records opener, sealer;
    struct tls_secrets secrets = {.in_n = 0};
    struct tls_opened finished;
    struct iovec part;
    char bytes[4096], out[4096], *record = bytes;
    struct peer peer;
    struct pair p;
    BIO *in = BIO_new(BIO_s_mem()), *from = BIO_new(BIO_s_mem());
    int n, out_n;
    ssize_t got;

    (void)state;
    pair_open(&p, NULL);
    p.client.stopped = true;
    peer_open(&peer, TLS1_2_VERSION, -1);
    SSL_set_bio(peer.ssl, in, from);
    assert_int_equal(stream_tls_accept(p.io, &p.server.stream, p.local, s), 0);
    SSL_do_handshake(peer.ssl);
    n = BIO_read(from, bytes, sizeof bytes);
    assert_int_equal(send(p.client.fd, bytes, (size_t)n, 0), n);
    assert_true(RUN_UNTIL(p.io, recv(p.client.fd, bytes, sizeof bytes, MSG_DONTWAIT | MSG_PEEK) > 0));
    got = recv(p.client.fd, bytes, sizeof bytes, 0);
    BIO_write(in, bytes, (int)got);
    SSL_do_handshake(peer.ssl);
    n = BIO_read(from, bytes, sizeof bytes);

    secrets.server = true; /* to open what the client has sealed */
    secrets.cipher_nid = SSL_CIPHER_get_cipher_nid(SSL_get_current_cipher(peer.ssl));
    secrets.hash = SSL_CIPHER_get_handshake_digest(SSL_get_current_cipher(peer.ssl));
    secrets.master_bytes =
        SSL_SESSION_get_master_key(SSL_get_session(peer.ssl), secrets.master, sizeof secrets.master);
    SSL_get_client_random(peer.ssl, secrets.client_random, TLS_RANDOM_BYTES);
    SSL_get_server_random(peer.ssl, secrets.server_random, TLS_RANDOM_BYTES);
    assert_int_equal(tls_records_init(&opener, &secrets), 0);
    secrets.server = false;
    assert_int_equal(tls_records_init(&sealer, &secrets), 0);
    while (record[0] != TLS_RECORD_CCS)
        record += tls_record_bytes(record, 5);
    record += tls_record_bytes(record, 5);
    out_n = (int)(record - bytes);
    memcpy(out, bytes, (size_t)out_n);
    assert_int_equal(tls_record_bytes(record, 5), n - out_n);
    assert_int_equal(tls_records_open(&opener, record, (size_t)(n - out_n), NULL, &finished), 0);
    assert_int_equal(finished.n, 16);
    for (unsigned i = 0; i < 2; i++) {
        part = (struct iovec){finished.p + 8 * i, 8};
        out_n += tls_records_seal(&sealer, TLS_RECORD_MESSAGE, &part, 8, out + out_n);
    }
    part = (struct iovec){(char[]){0, 1, 2, 3}, 4};
    assert_int_equal(send(p.client.fd, out, (size_t)out_n, 0), out_n);
    assert_true(RUN_UNTIL(p.io, stream_handshake(&p.server.stream) != -EAGAIN));
    assert_int_equal(stream_handshake(&p.server.stream), 0);
    out_n = tls_records_seal(&sealer, TLS_RECORD_DATA, &part, 4, out);
    assert_int_equal(send(p.client.fd, out, (size_t)out_n, 0), out_n);
    stream_arm(p.io, &p.server.stream);
    assert_true(
        RUN_UNTIL(p.io, stream_peek(p.io, &p.server.stream).n > 0 || stream_end(&p.server.stream) != 0));
    assert_int_equal(stream_end(&p.server.stream), 0);
    assert_true(str_eq(stream_peek(p.io, &p.server.stream), str_of(part.iov_base, 4)));
    tls_records_wipe(&opener);
    tls_records_wipe(&sealer);
    peer_pair_close(&p, &peer);
    tls_server_unref(&s);
}

/* --- tickets --- */

static SSL_SESSION *kept;

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    SSL_SESSION_free(kept);
    kept = session;
    return 1;
}

static const char *identity; /* what peers of connect_with show; NULL: nothing */

static void show_identity(SSL *ssl)
{
    char path[160];

    snprintf(path, sizeof path, "%s.pem", tls_path(identity));
    assert_int_equal(SSL_use_certificate_file(ssl, path, SSL_FILETYPE_PEM), 1);
    snprintf(path, sizeof path, "%s.key", tls_path(identity));
    assert_int_equal(SSL_use_PrivateKey_file(ssl, path, SSL_FILETYPE_PEM), 1);
}

/* True: it was resumed. */
static bool connect_with(struct tls_server *s, int version, SSL_SESSION *session)
{
    struct peer peer;
    struct pair p;
    bool resumed;

    peer_pair_open(&p, &peer, version);
    SSL_CTX_set_session_cache_mode(peer.ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(peer.ctx, keep_session);
    if (identity != NULL)
        show_identity(peer.ssl);
    if (session != NULL) { /* a copy: OpenSSL uses one once */
        SSL_SESSION *copy = SSL_SESSION_dup(session);

        assert_int_equal(SSL_set_session(peer.ssl, copy), 1);
        SSL_SESSION_free(copy);
    }
    peer_shake(&p, &peer, s);
    if (stream_handshake(&p.server.stream) == 0 && !peer.failed)
        peer_exchange(&p, &peer);
    resumed = SSL_session_reused(peer.ssl);
    if (kept == NULL && resumed) /* as after a resumption in TLS 1.2 */
        kept = SSL_get1_session(peer.ssl);
    assert_int_equal(stat_get(&p.stats.handshakes_resumed), resumed);
    SSL_set_shutdown(peer.ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    peer_pair_close(&p, &peer);
    return resumed;
}

static bool by_same_key(SSL_SESSION *a, SSL_SESSION *b)
{
    const unsigned char *ticket[2];
    size_t n[2];

    SSL_SESSION_get0_ticket(a, &ticket[0], &n[0]);
    SSL_SESSION_get0_ticket(b, &ticket[1], &n[1]);
    assert_true(n[0] > 16 && n[1] > 16);
    return memcmp(ticket[0], ticket[1], 16) == 0; /* the key's name stands first */
}

static void test_tickets(void **state)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    struct tls_tickets *tickets = tls_tickets_create();

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct tls_server *none = make_server("ec", NULL, false);
        struct tls_server *a = make_server("ec", NULL, false), *b = make_server("ec", NULL, false);
        struct tls_server *guarded = make_server("ec", ca.path, false);
        uint64_t now_s = (i + 1) * 100000;
        SSL_SESSION *first;

        kept = NULL;
        assert_false(connect_with(none, versions[i], NULL));
        assert_true(kept == NULL || !SSL_SESSION_has_ticket(kept));
        SSL_SESSION_free(kept);
        kept = NULL;

        tls_server_set_tickets(a, tickets);
        tls_server_set_tickets(b, tickets); /* as after a reload, or of another listener */
        tls_server_set_tickets(guarded, tickets);
        tls_tickets_tick(tickets, now_s);
        assert_false(connect_with(a, versions[i], NULL));
        assert_non_null(kept);
        first = kept;
        kept = NULL;
        assert_true(connect_with(b, versions[i], first));
        assert_true(by_same_key(kept, first));
        SSL_SESSION_free(kept);
        kept = NULL;
        tls_tickets_tick(tickets, now_s + TLS_TICKET_ROTATE_S);
        assert_true(connect_with(a, versions[i], first)); /* by the key before, and renewed */
        assert_false(by_same_key(kept, first));
        SSL_SESSION_free(kept);
        kept = NULL;
        /* a session of a listener for everybody lets nobody in where clients are verified */
        assert_false(connect_with(guarded, versions[i], first));
        SSL_SESSION_free(kept);
        kept = NULL;
        tls_tickets_tick(tickets, now_s + 2 * TLS_TICKET_ROTATE_S);
        assert_false(connect_with(a, versions[i], first));
        SSL_SESSION_free(kept);
        kept = NULL;
        SSL_SESSION_free(first);
        tls_server_unref(&none);
        tls_server_unref(&a);
        tls_server_unref(&b);
        tls_server_unref(&guarded);
    }
    tls_tickets_destroy(&tickets);
}

/* The system's clock is set back: keys are rotated all the same. */
static void test_ticket_keys_when_the_clock_is_set_back(void **state)
{
    struct tls_tickets *tickets = tls_tickets_create();
    struct tls_server *s = make_server("ec", NULL, false);
    SSL_SESSION *first;

    (void)state;
    kept = NULL;
    tls_server_set_tickets(s, tickets);
    tls_tickets_tick(tickets, 1000000);
    assert_false(connect_with(s, TLS1_3_VERSION, NULL));
    first = kept;
    kept = NULL;
    tls_tickets_tick(tickets, 500000);
    tls_tickets_tick(tickets, 500000 + TLS_TICKET_ROTATE_S);
    assert_true(connect_with(s, TLS1_3_VERSION, first));
    assert_false(by_same_key(kept, first));
    SSL_SESSION_free(first);
    SSL_SESSION_free(kept);
    kept = NULL;
    tls_server_unref(&s);
    tls_tickets_destroy(&tickets);
}

/* A resumed session skips the certificate, and its tickets are renewed for ever: who was let in once would stay so when
 * the certificate has expired. */
static void test_no_tickets_where_clients_are_verified(void **state)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    struct tls_tickets *tickets = tls_tickets_create();

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct tls_server *guarded = make_server("ec", ca.path, false);

        tls_server_set_tickets(guarded, tickets);
        kept = NULL;
        identity = "ec";
        assert_false(connect_with(guarded, versions[i], NULL));
        assert_true(kept == NULL || !SSL_SESSION_has_ticket(kept));
        identity = NULL;
        SSL_SESSION_free(kept);
        kept = NULL;
        tls_server_unref(&guarded);
    }
    tls_tickets_destroy(&tickets);
}

/* --- names --- */

/* Common name of the certificate that is served. */
static const char *served(struct tls_server *s, const char *name, const char *sigalgs)
{
    static char common_name[64];
    struct peer peer;
    struct pair p;
    X509 *x;

    peer_pair_open(&p, &peer, TLS1_3_VERSION);
    SSL_set_tlsext_host_name(peer.ssl, name);
    if (sigalgs != NULL)
        assert_int_equal(SSL_set1_sigalgs_list(peer.ssl, sigalgs), 1);
    peer_shake(&p, &peer, s);
    assert_false(peer.failed);
    x = SSL_get1_peer_certificate(peer.ssl);
    X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, common_name, sizeof common_name);
    X509_free(x);
    peer_pair_close(&p, &peer);
    return common_name;
}

static void test_names(void **state)
{
    static const char *const names[] = {"rsa", "wild", "exact", "ec"};
    static const char rsa[] = "rsa_pss_rsae_sha256", ec[] = "ecdsa_secp256r1_sha256";
    char paths[8][160], why[TLS_WHY_BYTES];
    struct tls_certificate certificates[4];
    struct tls_server_options options = {certificates, 4, NULL, false};
    struct tls_server *s;

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        snprintf(paths[2 * i], sizeof paths[0], "%s.pem", tls_path(names[i]));
        snprintf(paths[2 * i + 1], sizeof paths[0], "%s.key", tls_path(names[i]));
        certificates[i] = (struct tls_certificate){paths[2 * i], paths[2 * i + 1]};
    }
    assert_int_equal(tls_server_create(&options, &s, why), 0);
    /* RSA and ECDSA of one name side by side */
    assert_string_equal(served(s, "a.example", rsa), "rsa");
    assert_string_equal(served(s, "A.Example", ec), "ec");
    assert_string_equal(served(s, "x.b.example", ec), "wild");
    assert_string_equal(served(s, "exact.b.example", ec), "exact");
    /* a wildcard stands for one label; who has no name of ours gets the first one, or what stands beside it */
    assert_string_equal(served(s, "x.y.b.example", rsa), "rsa");
    assert_string_equal(served(s, "b.example", ec), "ec");
    assert_string_equal(served(s, NULL, rsa), "rsa");
    assert_string_equal(served(s, NULL, ec), "ec");
    tls_server_unref(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions_and_suites),
        cmocka_unit_test(test_refused_offers),
        cmocka_unit_test(test_alpn),
        cmocka_unit_test(test_hello_retry_and_crumbs),
        cmocka_unit_test(test_key_updates),
        cmocka_unit_test(test_flood_of_key_updates),
        cmocka_unit_test(test_no_renegotiation),
        cmocka_unit_test(test_changed_ciphertext),
        cmocka_unit_test(test_padded_and_empty_records),
        cmocka_unit_test(test_tls12_finished_in_two_records),
        cmocka_unit_test(test_tickets),
        cmocka_unit_test(test_ticket_keys_when_the_clock_is_set_back),
        cmocka_unit_test(test_no_tickets_where_clients_are_verified),
        cmocka_unit_test(test_names),
    };
    int failures;

    tls_fixture_open();
    ca = make_authority("ca");
    issue(&ca, "ec", KEY_EC, "DNS:a.example", -3600, 86400);
    issue(&ca, "rsa", KEY_RSA, "DNS:a.example", -3600, 86400);
    issue(&ca, "ed", KEY_ED25519, "DNS:a.example", -3600, 86400);
    issue(&ca, "wild", KEY_EC, "DNS:*.b.example", -3600, 86400);
    issue(&ca, "exact", KEY_EC, "DNS:exact.b.example", -3600, 86400);
    failures = cmocka_run_group_tests_name("tls_peer", tests, NULL, NULL);
    free_authority(&ca);
    tls_fixture_close();
    return failures;
}
