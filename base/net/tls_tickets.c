/* Keys of session tickets (RFC 5077, section 4, for TLS 1.2; RFC 8446, 4.6.1 for 1.3): one that seals, and the one
 * before, which still opens. */
#include "net/tls_internal.h"

#include <openssl/core_names.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdlib.h>

#define NAME_BYTES 16u
#define KEY_BYTES  32u

struct ticket_key {
    unsigned char name[NAME_BYTES], cipher[KEY_BYTES], mac[KEY_BYTES];
};

struct tls_tickets {
    pthread_rwlock_t
        lock; /* taken for reading by each full handshake, which costs a thousand times as much */
    uint64_t rotated_unix_s;
    bool have_previous;
    struct ticket_key current, previous;
};

static bool make_key(struct ticket_key *k)
{
    return RAND_bytes(k->name, sizeof k->name) == 1 && RAND_priv_bytes(k->cipher, sizeof k->cipher) == 1 &&
           RAND_priv_bytes(k->mac, sizeof k->mac) == 1;
}

struct tls_tickets *tls_tickets_create(void)
{
    struct tls_tickets *t = calloc(1, sizeof *t);

    if (t == NULL)
        return NULL;
    if (!make_key(&t->current)) {
        free(t);
        return NULL;
    }
    pthread_rwlock_init(&t->lock, NULL);
    return t;
}

void tls_tickets_tick(struct tls_tickets *t, uint64_t now_unix_s)
{
    struct ticket_key next;

    if (t->rotated_unix_s == 0 || now_unix_s < t->rotated_unix_s) /* or the clock was set back */
        t->rotated_unix_s = now_unix_s;
    if (now_unix_s < t->rotated_unix_s + TLS_TICKET_ROTATE_S || !make_key(&next))
        return;
    pthread_rwlock_wrlock(&t->lock);
    t->previous = t->current;
    t->current = next;
    t->have_previous =
        now_unix_s < t->rotated_unix_s + 2 * (uint64_t)TLS_TICKET_ROTATE_S; /* else it is too old */
    t->rotated_unix_s = now_unix_s;
    pthread_rwlock_unlock(&t->lock);
    OPENSSL_cleanse(&next, sizeof next);
}

void tls_tickets_destroy(struct tls_tickets **tp)
{
    struct tls_tickets *t = TAKE(tp);

    pthread_rwlock_destroy(&t->lock);
    OPENSSL_cleanse(t, sizeof *t);
    free(t);
}

static EVP_CIPHER *ticket_cipher;

static void fetch_cipher(void)
{
    ticket_cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
}

static bool use_key(const struct ticket_key *k, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                    int seals)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)(uintptr_t)k->mac, sizeof k->mac),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };

    pthread_once(&once, fetch_cipher);
    return ticket_cipher != NULL &&
           EVP_CipherInit_ex(cipher, ticket_cipher, NULL, k->cipher, iv, seals) == 1 &&
           EVP_MAC_CTX_set_params(mac, params) == 1;
}

/* 1: done; 2: done, and the ticket should be replaced; 0: not one of ours; -1: an error. */
int tls_tickets_key(struct tls_tickets *t, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                    EVP_MAC_CTX *mac, int seals)
{
    int result = 0;

    if (seals && RAND_bytes(iv, EVP_MAX_IV_LENGTH) != 1)
        return -1;
    pthread_rwlock_rdlock(&t->lock);
    if (seals) {
        memcpy(name, t->current.name, NAME_BYTES);
        result = use_key(&t->current, iv, cipher, mac, 1) ? 1 : -1;
    } else if (memcmp(name, t->current.name, NAME_BYTES) == 0) {
        result = use_key(&t->current, iv, cipher, mac, 0) ? 1 : -1;
    } else if (t->have_previous && memcmp(name, t->previous.name, NAME_BYTES) == 0) {
        result = use_key(&t->previous, iv, cipher, mac, 0) ? 2 : -1;
    }
    pthread_rwlock_unlock(&t->lock);
    return result;
}
