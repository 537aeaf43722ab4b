/* The record protocol of a connection whose handshake is over: RFC 8446, section 5 (TLS 1.3) and RFC 5246, section
 * 6.2.3.3 with the nonces of RFC 5288 and RFC 7905 (TLS 1.2, AEAD only). From keys and bytes to bytes; no I/O.
 *
 * OpenSSL does the handshake and all cryptography; once the handshake is over its connection object, of tens of
 * kilobytes, is freed, and what is left to do is here: a record is sealed from where its bytes lie straight into what
 * is sent, and opened in the buffer in which it came. */
#pragma once

#include <openssl/evp.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define TLS_RECORD_HEAD      5u
#define TLS_RECORD_PLAIN_MAX 16384u
#define TLS_RECORD_EXTRA_MAX 29u /* what sealing adds, the head included */
#define TLS_RECORD_BYTES_MAX (TLS_RECORD_HEAD + TLS_RECORD_PLAIN_MAX + 256u)
#define TLS_SECRET_BYTES_MAX 48u
#define TLS_RANDOM_BYTES     32u
#define TLS_NONCE_BYTES      12u
#define TLS_MASTER_BYTES_MAX 48u

enum tls_record_type {
    TLS_RECORD_CCS = 20,
    TLS_RECORD_ALERT = 21,
    TLS_RECORD_MESSAGE = 22,
    TLS_RECORD_DATA = 23
};

enum tls_alert {
    TLS_ALERT_CLOSE_NOTIFY = 0,
    TLS_ALERT_UNEXPECTED_MESSAGE = 10,
    TLS_ALERT_BAD_RECORD_MAC = 20,
    TLS_ALERT_RECORD_OVERFLOW = 22,
    TLS_ALERT_DECODE_ERROR = 50,
    TLS_ALERT_INTERNAL_ERROR = 80,
    TLS_ALERT_USER_CANCELED = 90,
};

/* What a handshake has agreed on. */
struct tls_secrets {
    bool tls13, server;   /* server: we are it */
    int cipher_nid;       /* NID_aes_128_gcm, NID_aes_256_gcm, NID_chacha20_poly1305 */
    const EVP_MD *hash;   /* of the suite */
    uint64_t in_n, out_n; /* records that these keys have protected already */
    uint8_t in[TLS_SECRET_BYTES_MAX], out[TLS_SECRET_BYTES_MAX]; /* TLS 1.3: traffic secrets */
    size_t master_bytes;                                         /* TLS 1.2 */
    uint8_t master[TLS_MASTER_BYTES_MAX], client_random[TLS_RANDOM_BYTES], server_random[TLS_RANDOM_BYTES];
};

struct tls_direction {
    EVP_CIPHER_CTX *cipher;
    uint64_t n; /* sequence number of the next record */
    uint8_t iv[TLS_NONCE_BYTES];
    uint8_t secret[TLS_SECRET_BYTES_MAX];
};

struct tls_records {
    bool tls13;
    bool explicit_nonce; /* TLS 1.2 with AES-GCM */
    int cipher_nid;
    const EVP_MD *hash;
    uint64_t update_after; /* records that one key seals */
    struct tls_direction in, out;
};

/* 0, -ENOMEM, or -EPROTO when the suite is none of ours. */
int tls_records_init(struct tls_records *r, const struct tls_secrets *secrets);
/* Frees and wipes; also of zeroes. */
void tls_records_wipe(struct tls_records *r);

/* Bytes of the record that begins there, its head included; 0 while less than a head is there. */
size_t tls_record_bytes(const char *p, size_t n);

/* Seals n bytes (at most TLS_RECORD_PLAIN_MAX) from the front of the vectors into one record at `to`, which has room
 * for TLS_RECORD_EXTRA_MAX more. Returns its length, or -EOVERFLOW when the keys are used up, or -EIO. */
int tls_records_seal(struct tls_records *r, enum tls_record_type type, const struct iovec *vecs, size_t n,
                     char *to);

struct tls_opened {
    enum tls_record_type type;
    char *p; /* the plaintext */
    size_t n;
};

/* What the plaintext of a whole record of n bytes needs as room at most. */
size_t tls_records_open_room(const struct tls_records *r, size_t n);

/* Opens a whole record. The plaintext goes to `to`, or, when that is NULL, into the record itself. 0, or -alert
 * (enum tls_alert): then the connection has to end with it. */
int tls_records_open(struct tls_records *r, char *record, size_t n, char *to, struct tls_opened *out);

/* TLS 1.3, the next key of a direction (RFC 8446, 7.2). 0 or -errno. */
int tls_records_update(struct tls_records *r, struct tls_direction *d);

/* TLS 1.3: the key that seals has done its share, and should be updated (RFC 8446, 5.5). */
static inline bool tls_records_want_update(const struct tls_records *r)
{
    return r->tls13 && r->out.n >= r->update_after;
}
