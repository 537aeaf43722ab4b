/* What OpenSSL believes of chance and time while a world lives, and the keys of the tests. */
#define OPENSSL_SUPPRESS_DEPRECATED /* there is no shorter way to one's own randomness than RAND_METHOD */
#include "sim_internal.h"
#include "sim_tls.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <stdlib.h>
#include <time.h>

/* --- chance: of the world, or of the making of keys --- */

static uint64_t between_worlds = 1;

static uint64_t next_word(void)
{
    uint64_t *state = sim_current != NULL ? &sim_current->secrets : &between_worlds;
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static int random_bytes(unsigned char *to, int n)
{
    for (int i = 0; i < n; i += 8) {
        uint64_t word = next_word();
        memcpy(to + i, &word, n - i < 8 ? (size_t)(n - i) : 8);
    }
    return 1;
}

static int random_status(void)
{
    return 1;
}

static const RAND_METHOD method = {
    .bytes = random_bytes, .pseudorand = random_bytes, .status = random_status};

/* Before main: no key and no context is made without it. */
__attribute__((constructor)) static void take_randomness(void)
{
    CHECK(RAND_set_rand_method(&method) == 1);
}

/* --- time: certificates and sessions have one, and ask for it themselves --- */

time_t time(time_t *out)
{
    struct timespec now;
    time_t t;

    if (sim_current != NULL) {
        t = (time_t)sim_unix_s(sim_current);
    } else {
        clock_gettime(CLOCK_REALTIME, &now);
        t = now.tv_sec;
    }
    if (out != NULL)
        *out = t;
    return t;
}

/* --- keys --- */

static char *pems[SIM_PEM_KINDS];

static void extend(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509_EXTENSION *extension;

    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    CHECK(extension != NULL && X509_add_ext(certificate, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

static X509 *certify(EVP_PKEY *key, const char *name, X509 *issuer, EVP_PKEY *issuer_key)
{
    X509 *x = X509_new();
    static long serial;

    CHECK(x != NULL && X509_set_version(x, 2) == 1);
    CHECK(ASN1_INTEGER_set(X509_get_serialNumber(x), ++serial) == 1);
    /* The worlds' time is 1790000000 and what follows, unless a test says otherwise. */
    CHECK(ASN1_TIME_set(X509_getm_notBefore(x), 1700000000) != NULL);
    CHECK(ASN1_TIME_set(X509_getm_notAfter(x), 4000000000) != NULL);
    CHECK(X509_set_pubkey(x, key) == 1);
    CHECK(X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                                     (const unsigned char *)name, -1, -1, 0) == 1);
    CHECK(X509_set_issuer_name(x, X509_get_subject_name(issuer != NULL ? issuer : x)) == 1);
    if (issuer == NULL) {
        extend(x, x, NID_basic_constraints, "critical,CA:TRUE");
        extend(x, x, NID_key_usage, "critical,keyCertSign");
    } else {
        extend(x, issuer, NID_subject_alt_name, "DNS:localhost,DNS:*.example.net,IP:127.0.0.1");
    }
    CHECK(X509_sign(x, issuer_key, EVP_sha256()) > 0);
    return x;
}

static char *text_of(BIO *bio)
{
    char *p, *copy;
    long n = BIO_get_mem_data(bio, &p);

    copy = strndup(p, (size_t)n);
    CHECK(copy != NULL);
    BIO_free(bio);
    return copy;
}

static char *certificate_text(X509 *x)
{
    BIO *bio = BIO_new(BIO_s_mem());

    CHECK(bio != NULL && PEM_write_bio_X509(bio, x) == 1);
    return text_of(bio);
}

static char *key_text(EVP_PKEY *key)
{
    BIO *bio = BIO_new(BIO_s_mem());

    CHECK(bio != NULL && PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1);
    return text_of(bio);
}

static void make_pair(const char *name, enum sim_pem leaf, enum sim_pem key, enum sim_pem authority)
{
    EVP_PKEY *ca_key = EVP_EC_gen("P-256"), *leaf_key = EVP_EC_gen("P-256");
    X509 *ca, *x;

    CHECK(ca_key != NULL && leaf_key != NULL);
    ca = certify(ca_key, name, NULL, ca_key);
    x = certify(leaf_key, "localhost", ca, ca_key);
    pems[leaf] = certificate_text(x);
    pems[key] = key_text(leaf_key);
    if (authority != SIM_PEM_KINDS)
        pems[authority] = certificate_text(ca);
    X509_free(x);
    X509_free(ca);
    EVP_PKEY_free(leaf_key);
    EVP_PKEY_free(ca_key);
}

static void forget_keys(void)
{
    for (size_t i = 0; i < SIM_PEM_KINDS; i++)
        free(pems[i]);
}

const char *sim_pem(enum sim_pem which)
{
    struct sim_world *world = sim_current;

    if (pems[0] == NULL) {
        sim_current = NULL; /* the same keys whichever world asks first */
        make_pair("Simulated authority", SIM_PEM_CERTIFICATE, SIM_PEM_KEY, SIM_PEM_CA);
        make_pair("Stranger", SIM_PEM_STRANGER, SIM_PEM_STRANGER_KEY, SIM_PEM_KINDS);
        sim_current = world;
        atexit(forget_keys);
    }
    return pems[which];
}
