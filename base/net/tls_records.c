#include "net/tls_records.h"

#include "util/check.h"
#include "util/hmac.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <pthread.h>
#include <string.h>

#define TAG_BYTES      16u
#define EXPLICIT_BYTES 8u
#define SALT_BYTES     4u

/* Records one key may protect in TLS 1.2, which cannot change it: RFC 8446, 5.5 gives 2^24.5 full ones as what keeps
 * an attacker's advantage below 2^-57; short ones count less. 256 GiB at least. */
#define TLS12_RECORDS_MAX (1ull << 24)
#define UPDATE_AFTER      (1ull << 23)

/* --- suites --- */

struct suite {
    int nid;
    const char *name;
    unsigned key_bytes;
    EVP_CIPHER *cipher;
};

static struct suite suites[] = {
    {NID_aes_128_gcm, "AES-128-GCM", 16, NULL},
    {NID_aes_256_gcm, "AES-256-GCM", 32, NULL},
    {NID_chacha20_poly1305, "ChaCha20-Poly1305", 32, NULL},
};

/* Looking an algorithm up takes locks; once is enough. */
static void fetch_suites(void)
{
    for (unsigned i = 0; i < ARRAY_LEN(suites); i++)
        suites[i].cipher = EVP_CIPHER_fetch(NULL, suites[i].name, NULL);
}

static const struct suite *suite_of(int nid)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, fetch_suites);
    for (unsigned i = 0; i < ARRAY_LEN(suites); i++)
        if (suites[i].nid == nid && suites[i].cipher != NULL)
            return &suites[i];
    return NULL;
}

/* --- keys --- */

static size_t hash_bytes(const struct tls_records *r)
{
    return (size_t)EVP_MD_get_size(r->hash);
}

/* HMAC by the suite's hash. `message` has HMAC_ROOM_BYTES after its n bytes. OpenSSL's HMAC() looks its algorithms up
 * each time; but for AES-256, that is SHA-256, for which there is a way without. */
static bool mac(const struct tls_records *r, const uint8_t *secret, uint8_t *message, size_t n,
                uint8_t out[static EVP_MAX_MD_SIZE])
{
    struct hmac_key key;

    if (EVP_MD_get_type(r->hash) != NID_sha256)
        return HMAC(r->hash, secret, (int)hash_bytes(r), message, n, out, NULL) != NULL;
    hmac_key_init(&key, str_of((const char *)secret, HMAC_BYTES));
    hmac_sha256(&key, message, n, out);
    OPENSSL_cleanse(&key, sizeof key);
    return true;
}

/* HKDF-Expand-Label with an empty context (RFC 8446, 7.1), for no more than one block of the hash. */
static bool expand(const struct tls_records *r, const uint8_t *secret, const char *label, uint8_t *out,
                   size_t n)
{
    uint8_t info[64 + HMAC_ROOM_BYTES], block[EVP_MAX_MD_SIZE];
    size_t label_bytes = strlen(label), info_n = 0;
    bool ok;

    CHECK(n <= hash_bytes(r) && label_bytes <= 32);
    info[info_n++] = 0;
    info[info_n++] = (uint8_t)n;
    info[info_n++] = (uint8_t)(6 + label_bytes);
    memcpy(info + info_n, "tls13 ", 6);
    memcpy(info + info_n + 6, label, label_bytes);
    info_n += 6 + label_bytes;
    info[info_n++] = 0; /* the context's length */
    info[info_n++] = 1; /* of HKDF-Expand: the first block */
    ok = mac(r, secret, info, info_n, block);
    memcpy(out, block, n);
    OPENSSL_cleanse(block, sizeof block);
    return ok;
}

static int set_key(struct tls_records *r, struct tls_direction *d, const uint8_t *key)
{
    bool seals = d == &r->out;
    const struct suite *s = suite_of(r->cipher_nid);
    bool first = d->cipher == NULL;

    if (first)
        d->cipher = EVP_CIPHER_CTX_new();
    if (d->cipher == NULL)
        return -ENOMEM;
    return EVP_CipherInit_ex(d->cipher, first ? s->cipher : NULL, NULL, key, NULL, seals) == 1 ? 0 : -ENOMEM;
}

static int use_secret(struct tls_records *r, struct tls_direction *d)
{
    uint8_t key[32];
    int error = -ENOMEM;

    if (expand(r, d->secret, "key", key, suite_of(r->cipher_nid)->key_bytes) &&
        expand(r, d->secret, "iv", d->iv, sizeof d->iv))
        error = set_key(r, d, key);
    OPENSSL_cleanse(key, sizeof key);
    return error;
}

/* PRF of RFC 5246, section 5, with the label of 6.3. */
static bool key_block(const struct tls_secrets *s, uint8_t *out, size_t n)
{
    uint8_t seed[13 + 2 * TLS_RANDOM_BYTES], a[EVP_MAX_MD_SIZE + sizeof seed], block[EVP_MAX_MD_SIZE];
    size_t hash = (size_t)EVP_MD_get_size(s->hash);
    bool ok;

    memcpy(seed, "key expansion", 13);
    memcpy(seed + 13, s->server_random, TLS_RANDOM_BYTES);
    memcpy(seed + 13 + TLS_RANDOM_BYTES, s->client_random, TLS_RANDOM_BYTES);
    ok = HMAC(s->hash, s->master, (int)s->master_bytes, seed, sizeof seed, block, NULL) != NULL;
    while (ok && n > 0) { /* block is A(i) here */
        size_t take = n < hash ? n : hash;
        uint8_t p[EVP_MAX_MD_SIZE];

        memcpy(a, block, hash);
        memcpy(a + hash, seed, sizeof seed);
        ok = HMAC(s->hash, s->master, (int)s->master_bytes, a, hash + sizeof seed, p, NULL) != NULL &&
             HMAC(s->hash, s->master, (int)s->master_bytes, a, hash, block, NULL) != NULL;
        memcpy(out, p, take);
        OPENSSL_cleanse(p, sizeof p);
        out += take;
        n -= take;
    }
    OPENSSL_cleanse(a, sizeof a);
    OPENSSL_cleanse(block, sizeof block);
    return ok;
}

static int init_tls12(struct tls_records *r, const struct tls_secrets *s)
{
    size_t key = suite_of(r->cipher_nid)->key_bytes, iv = r->explicit_nonce ? SALT_BYTES : TLS_NONCE_BYTES;
    uint8_t block[2 * (32 + TLS_NONCE_BYTES)];
    const uint8_t *client_key = block, *server_key = block + key;
    const uint8_t *client_iv = block + 2 * key, *server_iv = client_iv + iv;
    int error = -ENOMEM;

    if (key_block(s, block, 2 * (key + iv))) {
        memcpy(r->in.iv, s->server ? client_iv : server_iv, iv);
        memcpy(r->out.iv, s->server ? server_iv : client_iv, iv);
        error = set_key(r, &r->in, s->server ? client_key : server_key);
        if (error == 0)
            error = set_key(r, &r->out, s->server ? server_key : client_key);
    }
    OPENSSL_cleanse(block, sizeof block);
    return error;
}

int tls_records_init(struct tls_records *r, const struct tls_secrets *s)
{
    int error;

    *r = (struct tls_records){.tls13 = s->tls13, .cipher_nid = s->cipher_nid, .hash = s->hash};
    if (s->hash == NULL || (size_t)EVP_MD_get_size(s->hash) > TLS_SECRET_BYTES_MAX ||
        suite_of(s->cipher_nid) == NULL)
        return -EPROTO;
    r->explicit_nonce = !r->tls13 && r->cipher_nid != NID_chacha20_poly1305;
    r->update_after = UPDATE_AFTER;
    r->in.n = s->in_n;
    r->out.n = s->out_n;
    if (r->tls13) {
        memcpy(r->in.secret, s->in, sizeof r->in.secret);
        memcpy(r->out.secret, s->out, sizeof r->out.secret);
        error = use_secret(r, &r->in);
        if (error == 0)
            error = use_secret(r, &r->out);
    } else {
        error = init_tls12(r, s);
    }
    if (error != 0)
        tls_records_wipe(r);
    return error;
}

void tls_records_wipe(struct tls_records *r)
{
    EVP_CIPHER_CTX_free(r->in.cipher); /* which wipes its keys */
    EVP_CIPHER_CTX_free(r->out.cipher);
    OPENSSL_cleanse(r, sizeof *r);
}

int tls_records_update(struct tls_records *r, struct tls_direction *d)
{
    uint8_t next[TLS_SECRET_BYTES_MAX];

    CHECK(r->tls13);
    if (!expand(r, d->secret, "traffic upd", next, hash_bytes(r)))
        return -ENOMEM;
    memcpy(d->secret, next, hash_bytes(r));
    OPENSSL_cleanse(next, sizeof next);
    d->n = 0;
    return use_secret(r, d);
}

/* --- records --- */

static void put_be64(uint8_t *p, uint64_t v)
{
    v = __builtin_bswap64(v);
    memcpy(p, &v, sizeof v);
}

static void put_be16(uint8_t *p, size_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

size_t tls_record_bytes(const char *p, size_t n)
{
    const uint8_t *head = (const uint8_t *)p;

    return n < TLS_RECORD_HEAD ? 0 : TLS_RECORD_HEAD + ((size_t)head[3] << 8 | head[4]);
}

/* Begins a record: nonce and associated data. TLS 1.2 with explicit nonces has its own eight bytes at `explicit`. */
static bool begin(struct tls_records *r, struct tls_direction *d, const uint8_t *head,
                  const uint8_t *explicit, size_t plain_n)
{
    uint8_t nonce[TLS_NONCE_BYTES], aad[13];
    int n;

    memcpy(nonce, d->iv, sizeof nonce);
    if (explicit != NULL) {
        memcpy(nonce + SALT_BYTES, explicit, EXPLICIT_BYTES);
    } else {
        uint64_t low;

        memcpy(&low, nonce + 4, sizeof low);
        low ^= __builtin_bswap64(d->n);
        memcpy(nonce + 4, &low, sizeof low);
    }
    if (EVP_CipherInit_ex(d->cipher, NULL, NULL, NULL, nonce, -1) != 1)
        return false;
    if (r->tls13)
        return EVP_CipherUpdate(d->cipher, NULL, &n, head, TLS_RECORD_HEAD) == 1;
    put_be64(aad, d->n);
    memcpy(aad + 8, head, 3);
    put_be16(aad + 11, plain_n);
    return EVP_CipherUpdate(d->cipher, NULL, &n, aad, sizeof aad) == 1;
}

int tls_records_seal(struct tls_records *r, enum tls_record_type type, const struct iovec *vecs, size_t n,
                     char *to)
{
    struct tls_direction *d = &r->out;
    uint8_t *head = (uint8_t *)to, *p = head + TLS_RECORD_HEAD, *explicit = NULL;
    size_t extra = TAG_BYTES + (r->tls13 ? 1 : 0) + (r->explicit_nonce ? EXPLICIT_BYTES : 0);
    uint8_t inner_type = (uint8_t)type;
    int out_n;

    CHECK(n <= TLS_RECORD_PLAIN_MAX);
    if (!r->tls13 && d->n >= TLS12_RECORDS_MAX)
        return -EOVERFLOW;
    head[0] = r->tls13 ? TLS_RECORD_DATA : inner_type;
    head[1] = head[2] = 3;
    put_be16(head + 3, n + extra);
    if (r->explicit_nonce) {
        explicit = p;
        put_be64(explicit, d->n);
        p += EXPLICIT_BYTES;
    }
    if (!begin(r, d, head, explicit, n))
        return -EIO;
    for (size_t left = n; left > 0; vecs++) {
        size_t take = vecs->iov_len < left ? vecs->iov_len : left;

        if (take > 0 && EVP_CipherUpdate(d->cipher, p, &out_n, vecs->iov_base, (int)take) != 1)
            return -EIO;
        p += take;
        left -= take;
    }
    if (r->tls13) {
        if (EVP_CipherUpdate(d->cipher, p, &out_n, &inner_type, 1) != 1)
            return -EIO;
        p++;
    }
    if (EVP_CipherFinal_ex(d->cipher, p, &out_n) != 1 ||
        EVP_CIPHER_CTX_ctrl(d->cipher, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, p) != 1)
        return -EIO;
    d->n++;
    return (int)(TLS_RECORD_HEAD + n + extra);
}

size_t tls_records_open_room(const struct tls_records *r, size_t n)
{
    size_t extra = TLS_RECORD_HEAD + TAG_BYTES + (r->explicit_nonce ? EXPLICIT_BYTES : 0);

    return n > extra ? n - extra : 0;
}

/* RFC 8446, 5.4: the type is the last byte that is not zero. */
static int strip_padding(struct tls_opened *out)
{
    while (out->n > 0 && out->p[out->n - 1] == 0)
        out->n--;
    if (out->n == 0)
        return -TLS_ALERT_UNEXPECTED_MESSAGE;
    out->type = (uint8_t)out->p[--out->n];
    return 0;
}

int tls_records_open(struct tls_records *r, char *record, size_t n, char *to, struct tls_opened *out)
{
    struct tls_direction *d = &r->in;
    uint8_t *head = (uint8_t *)record, *p = head + TLS_RECORD_HEAD, *explicit = NULL;
    size_t extra = TLS_RECORD_HEAD + TAG_BYTES + (r->explicit_nonce ? EXPLICIT_BYTES : 0);
    int out_n, error = 0;

    CHECK(n == tls_record_bytes(record, n));
    if (n > TLS_RECORD_BYTES_MAX)
        return -TLS_ALERT_RECORD_OVERFLOW;
    if (r->tls13 && head[0] != TLS_RECORD_DATA) /* nothing is in the clear any more */
        return -TLS_ALERT_UNEXPECTED_MESSAGE;
    if (n < extra)
        return -TLS_ALERT_BAD_RECORD_MAC;
    if (r->explicit_nonce) {
        explicit = p;
        p += EXPLICIT_BYTES;
    }
    *out = (struct tls_opened){.type = head[0], .p = to != NULL ? to : (char *)p, .n = n - extra};
    if (!begin(r, d, head, explicit, out->n) ||
        (out->n > 0 && EVP_CipherUpdate(d->cipher, (uint8_t *)out->p, &out_n, p, (int)out->n) != 1) ||
        EVP_CIPHER_CTX_ctrl(d->cipher, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, p + out->n) != 1 ||
        EVP_CipherFinal_ex(d->cipher, (uint8_t *)out->p + out->n, &out_n) != 1)
        return -TLS_ALERT_BAD_RECORD_MAC;
    d->n++;
    if (r->tls13)
        error = strip_padding(out);
    if (error == 0 && out->n > TLS_RECORD_PLAIN_MAX)
        return -TLS_ALERT_RECORD_OVERFLOW;
    return error;
}
