/* What the files of TLS share. Only net/tls_*.c and their tests include it.
 *
 * A connection's life: while it waits for its first bytes or for a place it is a struct tls_stream and a struct
 * tls_handshake (tls_handshake.c, with the gate of tls_local.c); with a place it has OpenSSL's connection object; once
 * the handshake is over both are freed, and what remains is a struct tls_stream with its keys (tls_stream.c,
 * tls_input.c, tls_output.c, tls_records.c). */
#pragma once

#include "net/stream.h"
#include "net/tls_records.h"
#include "util/check.h"
#include "util/list.h"
#include "util/pool.h"

#include <openssl/ssl.h>
#include <stdatomic.h>

#define TLS_SERVER_MAGIC 0x544c5353u
#define TLS_CLIENT_MAGIC 0x544c5343u
#define TLS_LOCAL_MAGIC  0x544c534cu
#define TLS_STREAM_MAGIC 0x544c5354u

/* --- contexts --- */

#define TLS_ALPN_H2   "h2"
#define TLS_ALPN_HTTP "http/1.1"

struct tls_server {
    uint32_t magic;
    atomic_uint refs;
    SSL_CTX *ctx;
    struct tls_identity *identities; /* tls_server.c */
    unsigned identities_n;
    struct tls_tickets *tickets; /* NULL: sessions cannot be resumed */
    bool http2;
    int64_t expiry_unix_s;
};

struct tls_client {
    uint32_t magic;
    atomic_uint refs;
    SSL_CTX *ctx;
    bool verify;
};

/* What servers and clients have in common (tls_context.c): versions, suites, groups. 0 or -ENOMEM, -EINVAL. */
int tls_context_setup(SSL_CTX *ctx);
/* Lets tls_handshake.c see the secrets of the handshakes (tls_handshake.c). */
void tls_handshake_watch(SSL_CTX *ctx);

/* A PEM file, read whole into memory that must be wiped (tls_pem_free). Keys: refused when others than owner and group
 * can read or write the file. 0, or -errno and why. */
struct tls_pem {
    char *p;
    size_t n;
};
int tls_pem_read(const char *path, bool is_key, struct tls_pem *out, char why[TLS_WHY_BYTES]);
void tls_pem_free(struct tls_pem *pem);

/* Certificate chain and key out of their files, which must fit each other. 0, or -errno and why. */
int tls_load_identity(const char *certificate_path, const char *key_path, X509 **leaf,
                      STACK_OF(X509) * *chain, EVP_PKEY **key, char why[TLS_WHY_BYTES]);

/* Certificates of authorities into a store; at least one. `digest` (may be NULL) gets the file's SHA-256. */
int tls_load_authorities(const char *path, X509_STORE *store, STACK_OF(X509_NAME) * names, uint8_t *digest,
                         char why[TLS_WHY_BYTES]);

int64_t tls_not_after_unix_s(const X509 *certificate);

/* The first error of OpenSSL's queue in words, which is emptied. */
const char *tls_error_text(void);

/* For SSL_CTX_set_tlsext_ticket_key_evp_cb (tls_tickets.c). */
int tls_tickets_key(struct tls_tickets *t, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                    EVP_MAC_CTX *mac, int seals);

/* --- of a worker --- */

struct tls_local {
    uint32_t magic;
    struct io *io;
    struct tls_local_options options;
    struct pool streams, handshakes;
    struct pool slabs, small; /* TLS_SLAB_BYTES, TLS_SMALL_BYTES */

    /* The gate of handshakes. */
    struct flow flow;
    struct list asking;  /* want a place */
    struct list working; /* have a place, and something to compute */
    struct list peers;   /* have a place and wait for their peer, the longest waiting first */
    struct timer timer;
    unsigned places; /* taken */
    uint64_t turn_ns, spent_ns;
    unsigned steps; /* computed in this turn */
};

/* A window of ciphertext: it stays in the second level of cache from encryption to the kernel's copy. */
#define TLS_WINDOW_BYTES  (4u * TLS_RECORD_PLAIN_MAX)
#define TLS_CONTROL_BYTES 256u /* alerts and key updates that go with a window */
#define TLS_SLAB_BYTES    (TLS_WINDOW_BYTES + 5u * TLS_RECORD_EXTRA_MAX + TLS_CONTROL_BYTES)
#define TLS_SMALL_BYTES   (TLS_RECORD_BYTES_MAX + TLS_RECORD_EXTRA_MAX + TLS_CONTROL_BYTES)

/* --- a handshake --- */

enum tls_handshake_state {
    TLS_QUIET,   /* nothing has come */
    TLS_ASKING,  /* wants a place */
    TLS_WORKING, /* is in the gate's queue */
    TLS_PEER,    /* the peer's turn */
    TLS_OVER,    /* has failed; what it still says is being sent */
};

struct tls_handshake {
    struct tls_stream *stream;
    struct list node; /* in one of the gate's lists, by state */
    enum tls_handshake_state state;
    bool place;   /* counts among the gate's */
    bool delayed; /* counted as one that had to wait for its turn */
    bool heard;   /* the ClientHello, or the ServerHello, is whole */
    struct timer timer;
    struct io_op poll;
    uint64_t begun_ns, peer_since_ns;
    SSL *ssl; /* NULL until it has a place */
    struct tls_server *server;
    struct tls_client *client;
    size_t taken_bytes;
    struct tls_secrets secrets;
    bool have_in, have_out; /* the secrets of TLS 1.3 */
    char name[256];         /* of an upstream */
};

/* --- a stream --- */

struct tls_input {
    char *buf; /* a record that did not come in one piece is gathered here: [head, n); NULL: none */
    uint32_t head, n, cap;
    uint32_t
        in_recv; /* `plain` lies in a record of so many bytes at the front of the receive queue; 0: in buf */
    struct str plain; /* unread */
    struct io_op op;  /* a receive into buf */
    struct io_op
        *into; /* the caller's receive into its own memory: what is left of it, and the bytes so far */
    bool into_cancelled;
    int16_t raw_end; /* of the socket, when a receive into buf has met it */
    int16_t end;     /* of the stream, as stream_end tells */
    uint8_t empty_n; /* records in a row that brought no data */
    uint8_t message_head_n;
    uint8_t message_head[4];
    uint32_t message_left; /* bytes of a post-handshake message that are skipped */
};

struct tls_output {
    char *slab; /* sealed records: [sent, n) are still to be sent; NULL: none */
    uint32_t sent, n, cap;
    struct io_op op;
    struct stream_send *send; /* the caller's */
    uint64_t begun_ns;        /* of the window under way */
    int16_t error;            /* no more of the caller's is sent */
    uint8_t alert;            /* to be sent: 1 + its description; 0: none */
    bool alert_is_last;       /* a fatal one: nothing follows */
    bool key_update;          /* to be sent */
    bool dead;                /* nothing can be sent */
    bool slow;                /* the peer takes its time: small windows */
    bool ending;              /* close_notify is to be sent, and then the end of the TCP stream */
    bool ended;
    bool goodbye; /* close_notify is sealed: nothing may follow it */
};

struct tls_stream {
    uint32_t magic;
    bool server; /* we are it */
    bool stopping;
    bool http2, http1; /* ALPN */
    int16_t handshake_result;
    struct flow flow;
    struct stream *stream;
    struct io *io;
    struct tls_local *local;
    struct flow *reader;
    struct tls_handshake *handshake; /* NULL once it is over */
    struct timer timer;              /* bounds what is still sent when it stops */
    bool lingers;
    struct tls_records records;
    struct tls_input in;
    struct tls_output out;
    bool reader_waits;
    char *why; /* NULL: nothing to say beyond the error */
};

/* tls_stream.c */
void tls_stream_because(struct tls_stream *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Ends both directions with an error; alert: 0 or the fatal alert that the peer is told. */
void tls_stream_break(struct tls_stream *t, int error, int alert);

/* tls_handshake.c. Returns true when the handshake is over: handshake_result tells. */
bool tls_handshake_run(struct tls_stream *t);
void tls_handshake_work(struct tls_stream *t); /* called by the gate */
void tls_handshake_fail(struct tls_stream *t, int error);
void tls_handshake_leave(struct tls_stream *t); /* leaves the gate and frees it; nothing of it is in flight */

/* tls_local.c: the gate. */
void tls_gate_ask(struct tls_stream *t);  /* for a place; it will be working once it has one */
void tls_gate_work(struct tls_stream *t); /* queues it to compute */
/* It waits for its peer; answered: for what follows on a message of ours, else still for the rest of what was awaited. */
void tls_gate_peer(struct tls_stream *t, bool answered);
void tls_gate_leave(struct tls_stream *t);

/* tls_input.c */
void tls_input_process(struct tls_stream *t); /* opens what has come, as far as somebody can take it */
void tls_input_drop(struct tls_stream *t);    /* frees what it holds */

/* tls_output.c */
bool tls_output_room(struct tls_stream *t,
                     size_t n);             /* of the handshake's bytes, a big slab when there is none */
void tls_output_pump(struct tls_stream *t); /* goes on with whatever is to be sent */
bool tls_output_is_busy(const struct tls_stream *t);
void tls_output_drop(struct tls_stream *t);
