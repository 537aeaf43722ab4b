/* TLS on the ends of scripted peers, with OpenSSL's own engine: what the program under test speaks with is not what
 * it is made of. Records go through every fault of the network as other bytes do.
 *
 * All of it replays: OpenSSL's randomness, the program's too, comes from the world's seed, and its time is the
 * world's (sim_secrets.c), so that the same seed gives the same ciphertext. */
#pragma once

#include "sim.h"

/* --- keys of the tests, the same in every run; PEM --- */

enum sim_pem {
    SIM_PEM_CA,          /* of those below */
    SIM_PEM_CERTIFICATE, /* for localhost, *.example.net and 127.0.0.1 */
    SIM_PEM_KEY,
    SIM_PEM_STRANGER,     /* the same names by nobody's authority, */
    SIM_PEM_STRANGER_KEY, /* and its key */
    SIM_PEM_KINDS
};
const char *sim_pem(enum sim_pem which);

/* --- sessions of a client, to be resumed --- */

struct sim_tls_sessions;
struct sim_tls_sessions *sim_tls_sessions_new(void);
void sim_tls_sessions_free(struct sim_tls_sessions **s);

/* --- an end --- */

struct sim_tls_options {
    const char *name;        /* client: SNI, and what the certificate must be for; NULL: localhost */
    const char *alpn;        /* "h2,http/1.1": offered, or chosen from in this order; NULL: none */
    bool tls12;              /* no more than that */
    unsigned suite;          /* 0: what is chosen; 1: AES-128-GCM, 2: AES-256-GCM, 3: ChaCha20-Poly1305 */
    bool stranger;           /* server: has the stranger's certificate */
    bool no_close_notify;    /* ends like one that is cut off */
    uint32_t record_bytes;   /* what is sent is at most so much a record; 0: 16384 */
    uint32_t padding;        /* records are padded to a multiple of it (TLS 1.3); 0: not */
    unsigned key_update_ppm; /* a record that is sent is followed by a new key (TLS 1.3), */
    bool key_update_asks;    /* and the program is asked for one */
    uint64_t flip_read_at;   /* a bit is wrong in that byte of what comes, from 1; 0: none */
    uint64_t flip_sent_at;   /* ... of what is sent */
    uint64_t silent_at;      /* nothing more is sent after so many bytes, handshake and all; 0: never */
    struct sim_tls_sessions
        *sessions; /* client: resumes what is there, and keeps what comes; NULL: does not */
};

/* What the seed says: version, suite, records, keys. No faults, no ALPN, no sessions. */
struct sim_tls_options sim_tls_options_random(struct sim_world *w);

/* Before anything is sent; a client may not be connected yet. From here on the connection sends and gives its peer
 * plaintext, once the handshake is done; what is counted and limited at a connection is ciphertext all the same. What
 * cannot be opened, or ends without close_notify, is `gone` with -EPROTO and -ECONNABORTED. */
void sim_conn_tls_connect(struct sim_conn *c, const struct sim_tls_options *options);
void sim_conn_tls_accept(struct sim_conn *c, const struct sim_tls_options *options);

bool sim_conn_is_tls(const struct sim_conn *c);
bool sim_conn_tls_is_done(const struct sim_conn *c); /* the handshake */
bool sim_conn_tls_was_resumed(const struct sim_conn *c);
const char *sim_conn_tls_alpn(const struct sim_conn *c); /* "": none */
const char *sim_conn_tls_why(const struct sim_conn *c);  /* it failed; "": it did not */
