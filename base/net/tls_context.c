/* What servers' and clients' contexts have in common: files, suites, words for errors. */
#include "net/tls_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#define PEM_BYTES_MAX (1u << 20)

static bool cpu_has_aes(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#elif defined(__aarch64__)
    return (getauxval(AT_HWCAP) & (1ul << 3)) != 0; /* HWCAP_AES */
#else
    return false;
#endif
}

/* AES-128 before 256: it is as good for what a connection lives, and faster. Where the CPU has no AES, and for clients
 * that put it first because theirs has none, ChaCha20. */
int tls_context_setup(SSL_CTX *ctx)
{
    bool aes = cpu_has_aes();

    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    tls_handshake_watch(ctx);
    if (SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(
            ctx, aes ? "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384"
                     : "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384") != 1 ||
        SSL_CTX_set_cipher_list(ctx, aes ? "ECDHE+AES128+AESGCM:ECDHE+CHACHA20:ECDHE+AES256+AESGCM"
                                         : "ECDHE+CHACHA20:ECDHE+AES128+AESGCM:ECDHE+AES256+AESGCM") != 1 ||
        SSL_CTX_set1_groups_list(ctx, "X25519:P-256:P-384") != 1)
        return -EINVAL;
    return 0;
}

const char *tls_error_text(void)
{
    const char *text = ERR_reason_error_string(ERR_peek_last_error());

    ERR_clear_error();
    return text != NULL ? text : "an error that OpenSSL has no word for";
}

/* --- files --- */

static int say(int error, char why[TLS_WHY_BYTES], const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static int say(int error, char why[TLS_WHY_BYTES], const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(why, TLS_WHY_BYTES, format, args);
    va_end(args);
    ERR_clear_error();
    return error;
}

static int read_all(int fd, struct tls_pem *out)
{
    size_t n = 0;

    while (n < out->n) {
        ssize_t rc = read(fd, out->p + n, out->n - n);

        if (rc < 0)
            return -errno;
        if (rc == 0)
            break;
        n += (size_t)rc;
    }
    out->n = n;
    return 0;
}

int tls_pem_read(const char *path, bool is_key, struct tls_pem *out, char why[TLS_WHY_BYTES])
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), error;

    *out = (struct tls_pem){0};
    if (fd < 0)
        return say(-errno, why, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st) != 0)
        error = say(-errno, why, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode) || st.st_size > PEM_BYTES_MAX)
        error = say(-EINVAL, why, "%s: a PEM file of at most %u bytes was expected", path, PEM_BYTES_MAX);
    else if (is_key && (st.st_mode & (S_IROTH | S_IWOTH)) != 0)
        error = say(
            -EACCES, why,
            "%s: a private key that everybody can read or write; chmod o-rw it, and consider it known", path);
    else {
        out->n = (size_t)st.st_size;
        out->p = malloc(out->n + 1);
        error = out->p == NULL ? -ENOMEM : read_all(fd, out);
        if (error != 0)
            (void)say(error, why, "%s: %s", path, strerror(-error));
    }
    close(fd);
    if (error != 0)
        tls_pem_free(out);
    return error;
}

void tls_pem_free(struct tls_pem *pem)
{
    if (pem->p != NULL) {
        OPENSSL_cleanse(pem->p, pem->n);
        free(pem->p);
    }
    *pem = (struct tls_pem){0};
}

/* Nobody is there to type one. */
static int no_passphrase(char *to, int n, int writes, void *asked)
{
    (void)to;
    (void)n;
    (void)writes;
    *(bool *)asked = true;
    return -1;
}

static int load_key(const char *path, EVP_PKEY **out, char why[TLS_WHY_BYTES])
{
    struct tls_pem pem;
    bool encrypted = false;
    int error = tls_pem_read(path, true, &pem, why);
    BIO *bio;

    if (error != 0)
        return error;
    bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    *out = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, &encrypted) : NULL;
    BIO_free(bio);
    tls_pem_free(&pem);
    if (*out != NULL)
        return 0;
    if (encrypted)
        return say(-EINVAL, why, "%s: the private key is encrypted; one without a passphrase was expected",
                   path);
    return say(-EINVAL, why, "%s: no private key in PEM was found", path);
}

/* The certificates of a file, at least one. */
static int load_certificates(const char *path, STACK_OF(X509) * *out, uint8_t *digest,
                             char why[TLS_WHY_BYTES])
{
    struct tls_pem pem;
    int error = tls_pem_read(path, false, &pem, why);
    BIO *bio;
    X509 *x = NULL;

    if (error != 0)
        return error;
    if (digest != NULL)
        (void)EVP_Digest(pem.p, pem.n, digest, NULL, EVP_sha256(), NULL);
    bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    *out = sk_X509_new_null();
    while (bio != NULL && *out != NULL && (x = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL)
        if (sk_X509_push(*out, x) == 0)
            X509_free(x);
    BIO_free(bio);
    tls_pem_free(&pem);
    /* The one good end is that no further one begins. */
    if (*out == NULL || sk_X509_num(*out) == 0 ||
        ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
        sk_X509_pop_free(*out, X509_free);
        return say(-EINVAL, why, "%s: certificates in PEM were expected", path);
    }
    ERR_clear_error();
    return 0;
}

int tls_load_identity(const char *certificate_path, const char *key_path, X509 **leaf,
                      STACK_OF(X509) * *chain, EVP_PKEY **key, char why[TLS_WHY_BYTES])
{
    STACK_OF(X509) * certificates;
    int error = load_certificates(certificate_path, &certificates, NULL, why);

    if (error != 0)
        return error;
    error = load_key(key_path, key, why);
    if (error == 0 && X509_check_private_key(sk_X509_value(certificates, 0), *key) != 1) {
        error =
            say(-EINVAL, why, "%s is not the key of the first certificate in %s", key_path, certificate_path);
        EVP_PKEY_free(*key);
    }
    if (error != 0) {
        sk_X509_pop_free(certificates, X509_free);
        return error;
    }
    *leaf = sk_X509_shift(certificates);
    *chain = certificates;
    return 0;
}

int tls_load_authorities(const char *path, X509_STORE *store, STACK_OF(X509_NAME) * names, uint8_t *digest,
                         char why[TLS_WHY_BYTES])
{
    STACK_OF(X509) * certificates;
    int error = load_certificates(path, &certificates, digest, why);

    if (error != 0)
        return error;
    for (int i = 0; i < sk_X509_num(certificates) && error == 0; i++) {
        X509 *x = sk_X509_value(certificates, i);
        X509_NAME *name = names != NULL ? X509_NAME_dup(X509_get_subject_name(x)) : NULL;

        if (X509_STORE_add_cert(store, x) != 1 ||
            (names != NULL && (name == NULL || sk_X509_NAME_push(names, name) == 0)))
            error = say(-EINVAL, why, "%s: certificate %d cannot be used as an authority's", path, i + 1);
    }
    sk_X509_pop_free(certificates, X509_free);
    return error;
}

int64_t tls_not_after_unix_s(const X509 *certificate)
{
    static const int seconds_of_day = 24 * 3600;
    ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
    int days = 0, seconds = 0, ok;

    ok = epoch != NULL && ASN1_TIME_diff(&days, &seconds, epoch, X509_get0_notAfter(certificate)) == 1;
    ASN1_TIME_free(epoch);
    return ok ? (int64_t)days * seconds_of_day + seconds : 0;
}
