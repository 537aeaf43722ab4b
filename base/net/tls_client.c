#include "net/tls_internal.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>

static int set_trust(SSL_CTX *ctx, const struct tls_client_options *options, char why[TLS_WHY_BYTES])
{
    SSL_CTX_set_verify(ctx, options->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    if (options->ca_path != NULL)
        return tls_load_authorities(options->ca_path, SSL_CTX_get_cert_store(ctx), NULL, NULL, why);
    if (!options->verify || SSL_CTX_set_default_verify_paths(ctx) == 1)
        return 0;
    snprintf(why, TLS_WHY_BYTES, "the system's authorities cannot be loaded (%s)", tls_error_text());
    return -EINVAL;
}

static int set_identity(SSL_CTX *ctx, const struct tls_client_options *options, char why[TLS_WHY_BYTES])
{
    X509 *leaf;
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
    int error;

    if (options->certificate_path == NULL)
        return 0;
    error = tls_load_identity(options->certificate_path, options->key_path, &leaf, &chain, &key, why);
    if (error != 0)
        return error;
    if (SSL_CTX_use_cert_and_key(ctx, leaf, key, chain, 1) != 1) {
        error = -EINVAL;
        snprintf(why, TLS_WHY_BYTES, "%s cannot be used: %s", options->certificate_path, tls_error_text());
    }
    X509_free(leaf);
    sk_X509_pop_free(chain, X509_free);
    EVP_PKEY_free(key);
    return error;
}

int tls_client_create(const struct tls_client_options *options, struct tls_client **out,
                      char why[TLS_WHY_BYTES])
{
    static const unsigned char alpn[] = "\x08" TLS_ALPN_HTTP;
    struct tls_client *c = calloc(1, sizeof *c);
    int error = -ENOMEM;

    why[0] = '\0';
    if (c == NULL)
        return -ENOMEM;
    c->magic = TLS_CLIENT_MAGIC;
    c->refs = 1;
    c->verify = options->verify;
    c->ctx = SSL_CTX_new(TLS_client_method());
    if (c->ctx == NULL)
        goto fail;
    error = tls_context_setup(c->ctx);
    if (error != 0)
        goto fail;
    SSL_CTX_set_options(c->ctx, SSL_OP_NO_TICKET); /* connections are kept, sessions are not */
    if (SSL_CTX_set_alpn_protos(c->ctx, alpn, sizeof alpn - 1) != 0) {
        error = -ENOMEM;
        goto fail;
    }
    error = set_trust(c->ctx, options, why);
    if (error == 0)
        error = set_identity(c->ctx, options, why);
    if (error != 0)
        goto fail;
    *out = c;
    return 0;
fail:
    if (why[0] == '\0')
        snprintf(why, TLS_WHY_BYTES, "TLS cannot be set up: %s", tls_error_text());
    ERR_clear_error();
    tls_client_unref(&c);
    return error;
}

struct tls_client *tls_client_ref(struct tls_client *c)
{
    CHECK_MAGIC(c, TLS_CLIENT_MAGIC);
    atomic_fetch_add(&c->refs, 1);
    return c;
}

void tls_client_unref(struct tls_client **cp)
{
    struct tls_client *c = TAKE(cp);

    CHECK_MAGIC(c, TLS_CLIENT_MAGIC);
    if (atomic_fetch_sub(&c->refs, 1) != 1)
        return;
    SSL_CTX_free(c->ctx);
    c->magic = 0;
    free(c);
}
