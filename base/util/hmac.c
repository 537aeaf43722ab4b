/* The low-level SHA-256 calls are deprecated in OpenSSL 3, but they are the only public ones that can start
 * from a state. Measured for the 81 bytes of a typical token, the same machine and run: 131 ns this way, 138
 * ns with copied SHA256_CTX, 189 ns with HMAC_Init_ex(NULL) on one context, 251 ns with EVP_MAC on one
 * context. */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "util/hmac.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#define BLOCK SHA256_CBLOCK

static void put_be32(uint8_t *p, uint32_t v)
{
    v = __builtin_bswap32(v);
    memcpy(p, &v, 4);
}

static void put_be64(uint8_t *p, uint64_t v)
{
    v = __builtin_bswap64(v);
    memcpy(p, &v, 8);
}

/* Runs whole blocks from a state. With nothing buffered, SHA256_Update hands them straight to the block
 * function. */
static void run_blocks(SHA256_CTX *c, const uint32_t state[8], const uint8_t *blocks, size_t n)
{
    for (size_t i = 0; i < 8; i++)
        c->h[i] = state[i];
    c->num = 0;
    SHA256_Update(c, blocks, n);
}

static void key_state(SHA256_CTX *c, const uint8_t key[BLOCK], uint8_t pad, uint32_t state[8])
{
    uint8_t block[BLOCK];

    for (size_t i = 0; i < BLOCK; i++)
        block[i] = key[i] ^ pad;
    SHA256_Init(c);
    SHA256_Update(c, block, BLOCK);
    for (size_t i = 0; i < 8; i++)
        state[i] = c->h[i];
    OPENSSL_cleanse(block, sizeof block);
}

void hmac_key_init(struct hmac_key *key, struct str secret)
{
    uint8_t k[BLOCK] = {0};
    SHA256_CTX c;

    if (secret.n > BLOCK)
        SHA256((const uint8_t *)secret.p, secret.n, k);
    else if (secret.n > 0)
        memcpy(k, secret.p, secret.n);
    key_state(&c, k, 0x36, key->inner);
    key_state(&c, k, 0x5c, key->outer);
    OPENSSL_cleanse(k, sizeof k);
    OPENSSL_cleanse(&c, sizeof c);
}

void hmac_sha256(const struct hmac_key *key, uint8_t *message, size_t n, uint8_t mac[static HMAC_BYTES])
{
    size_t padded = (n + 9 + BLOCK - 1) / BLOCK * BLOCK; /* 0x80 and the length in bits: FIPS 180-4, 5.1.1 */
    uint8_t outer[BLOCK] = {[SHA256_DIGEST_LENGTH] = 0x80};
    SHA256_CTX c;

    memset(&c, 0, sizeof c);
    memset(message + n, 0, padded - n);
    message[n] = 0x80;
    put_be64(message + padded - 8, (BLOCK + n) * 8);
    run_blocks(&c, key->inner, message, padded);

    for (size_t i = 0; i < 8; i++)
        put_be32(outer + 4 * i, c.h[i]);
    put_be64(outer + BLOCK - 8, (BLOCK + SHA256_DIGEST_LENGTH) * 8);
    run_blocks(&c, key->outer, outer, BLOCK);
    for (size_t i = 0; i < 8; i++)
        put_be32(mac + 4 * i, c.h[i]);

    OPENSSL_cleanse(outer, sizeof outer);
    OPENSSL_cleanse(c.h, sizeof c.h);
}

bool hmac_eq(const uint8_t a[static HMAC_BYTES], const uint8_t b[static HMAC_BYTES])
{
    return CRYPTO_memcmp(a, b, HMAC_BYTES) == 0;
}
