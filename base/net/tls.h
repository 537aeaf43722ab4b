/* TLS contexts: what a listener or an upstream is configured with (OpenSSL), and what a worker has for its TLS
 * connections. The connections themselves are streams (stream.h).
 *
 * TLS 1.3 and 1.2; AEAD suites with forward secrecy only; no renegotiation, no compression, no early data.
 * Contexts are immutable once made, counted, and shared by all threads; a connection holds a reference, so that
 * a reload replaces certificates without touching connections. Keys are wiped by OpenSSL when the last
 * reference goes. */
#pragma once

#include "util/stats.h"
#include "util/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TLS_WHY_BYTES 256

struct tls_server;
struct tls_client;
struct tls_tickets;
struct tls_stream;
struct tls_local;
struct io;

/* --- session tickets: keys of the process, shared by all workers, rotated by time --- */

#define TLS_TICKET_ROTATE_S                                                                                  \
    3600u /* a new key so often; a ticket is good for as long as its key and the next */

/* NULL: no memory or no randomness. */
struct tls_tickets *tls_tickets_create(void);
/* Any thread, now and then (the control thread's tick): rotates when it is time. */
void tls_tickets_tick(struct tls_tickets *t, uint64_t now_unix_s);
/* Wipes the keys. No context that uses them may be alive. */
void tls_tickets_destroy(struct tls_tickets **t);

/* --- servers --- */

struct tls_certificate {
    const char *certificate_path; /* PEM: the leaf first, then its chain */
    const char *key_path;         /* PEM; refused when others than owner and group can read or write it */
};

struct tls_server_options {
    const struct tls_certificate *certificates; /* the first serves who sends no SNI, or an unknown name */
    unsigned certificates_n;
    const char *client_ca_path; /* NULL: no client certificates; else they are required and verified */
    bool http2;                 /* offer h2 by ALPN, before http/1.1 */
};

/* Reads the files. 0, or -errno and in `why` a sentence that names the file and what was expected. Certificates
 * are chosen by SNI against their subjectAltNames (a wildcard stands for one label, RFC 9525), and among those for
 * one name RSA or ECDSA by what the client can verify. An expired certificate is served, and warned of. */
int tls_server_create(const struct tls_server_options *options, struct tls_server **out,
                      char why[TLS_WHY_BYTES]);
/* Sessions can be resumed from here on; without it, as when a configuration is only checked, they cannot. Never
 * where clients are verified: each connection shows its certificate. Before the first connection; the keys outlive the
 * context. */
void tls_server_set_tickets(struct tls_server *s, struct tls_tickets *tickets);
struct tls_server *tls_server_ref(struct tls_server *s);
void tls_server_unref(struct tls_server **s);
int64_t tls_server_expiry_unix_s(const struct tls_server *s); /* the soonest notAfter of its certificates */

/* --- clients, of upstreams --- */

struct tls_client_options {
    bool verify;                  /* against the CA below or the system's, and for the name */
    const char *ca_path;          /* PEM; NULL: the system's */
    const char *certificate_path; /* of ours, with key_path; NULL: none */
    const char *key_path;
};

int tls_client_create(const struct tls_client_options *options, struct tls_client **out,
                      char why[TLS_WHY_BYTES]);
struct tls_client *tls_client_ref(struct tls_client *c);
void tls_client_unref(struct tls_client **c);

/* --- of a worker --- */

struct tls_stats {
    uint64_t handshakes_full, handshakes_resumed, handshakes_failed, handshakes_timeout;
    uint64_t handshakes_tls12, handshakes_tls13;
    uint64_t handshakes_delayed;       /* waited for their turn */
    uint64_t handshaking;              /* a gauge: under way now */
    uint64_t client_handshakes_failed; /* with upstreams */
};

struct tls_local_options {
    struct tls_stats *stats; /* not NULL */
    unsigned handshakes_max; /* of clients, under way at once; more wait without costing memory */
    uint64_t hello_ms;       /* from accept to a whole ClientHello */
    uint64_t handshake_ms;   /* from accept to the end of the handshake */
};

/* Buffers and the gate of handshakes. Everything on the worker's thread. */
int tls_local_create(struct tls_local **out, struct io *io, const struct tls_local_options *options);
void tls_local_reconfigure(struct tls_local *l, const struct tls_local_options *options);
void tls_local_destroy(struct tls_local **l); /* no stream uses it any more */
