#include "net/tls_internal.h"

#include "util/clock.h"
#include "util/log.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>

/* A ticket is good for as long as its key and the next. */
#define SESSION_S (2 * TLS_TICKET_ROTATE_S)

/* Kinds of keys of which one name may have a certificate each; who connects gets the one that it can verify. */
static const int kinds[] = {EVP_PKEY_EC, EVP_PKEY_RSA, EVP_PKEY_ED25519};

#define KINDS ARRAY_LEN(kinds)

struct tls_identity {
    X509 *leaf;
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
    struct str *names; /* DNS names of its subjectAltName in small letters, each followed by a NUL */
    unsigned names_n;
};

/* --- names --- */

static bool add_name(struct tls_identity *id, const ASN1_STRING *name)
{
    size_t n = (size_t)ASN1_STRING_length(name);
    const unsigned char *bytes = ASN1_STRING_get0_data(name);
    char *copy = malloc(n + 1);

    if (copy == NULL)
        return false;
    for (size_t i = 0; i < n; i++)
        copy[i] = (char)tolower(bytes[i]);
    copy[n] = '\0';
    id->names[id->names_n++] = str_of(copy, n);
    return true;
}

static bool read_names(struct tls_identity *id)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(id->leaf, NID_subject_alt_name, NULL, NULL);
    int n = names != NULL ? sk_GENERAL_NAME_num(names) : 0;
    bool ok = true;

    id->names = calloc((size_t)n + 1, sizeof id->names[0]);
    if (id->names == NULL)
        ok = false;
    for (int i = 0; i < n && ok; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

        if (name->type == GEN_DNS && !add_name(id, name->d.dNSName))
            ok = false;
    }
    GENERAL_NAMES_free(names);
    return ok;
}

/* RFC 9525, 6.3: a wildcard is the whole first label, and stands for one. 2: exactly; 1: by wildcard; 0: not. */
static unsigned matches(const struct tls_identity *id, struct str name)
{
    const char *dot = memchr(name.p, '.', name.n);
    unsigned best = 0;

    for (unsigned i = 0; i < id->names_n; i++) {
        struct str mine = id->names[i];

        if (str_eq_nocase(mine, name))
            return 2;
        if (dot != NULL && dot > name.p && str_starts(mine, STR("*.")) &&
            str_eq_nocase(str_skip(mine, 1), str_skip(name, (size_t)(dot - name.p))))
            best = 1;
    }
    return best;
}

/* The best of each kind for a name. False: there is none. */
static bool choose(const struct tls_server *s, struct str name, const struct tls_identity *out[KINDS])
{
    bool any = false;

    for (unsigned k = 0; k < KINDS; k++) {
        unsigned best = 0;

        out[k] = NULL;
        for (unsigned i = 0; i < s->identities_n; i++) {
            const struct tls_identity *id = &s->identities[i];
            unsigned match = EVP_PKEY_get_base_id(id->key) == kinds[k] ? matches(id, name) : 0;

            if (match > best) {
                best = match;
                out[k] = id;
                any = true;
            }
        }
    }
    return any;
}

/* Once the client's name is known. */
static int choose_certificates(SSL *ssl, void *arg)
{
    const struct tls_server *s = arg;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    const struct tls_identity *chosen[KINDS];

    /* Without a name, or with one that is not ours: the first, and what stands beside it for its name. */
    if (name == NULL || !choose(s, str_z(name), chosen)) {
        if (s->identities[0].names_n == 0 || !choose(s, s->identities[0].names[0], chosen))
            memset(chosen, 0, sizeof chosen);
        for (unsigned k = 0; k < KINDS; k++)
            if (EVP_PKEY_get_base_id(s->identities[0].key) == kinds[k])
                chosen[k] = &s->identities[0];
    }
    SSL_certs_clear(ssl);
    for (unsigned k = 0; k < KINDS; k++)
        if (chosen[k] != NULL &&
            SSL_use_cert_and_key(ssl, chosen[k]->leaf, chosen[k]->key, chosen[k]->chain, 1) != 1)
            return 0;
    return 1;
}

/* --- what else is chosen --- */

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_n,
                           const unsigned char *offered, unsigned offered_n, void *arg)
{
    static const unsigned char ours[] = "\x02" TLS_ALPN_H2 "\x08" TLS_ALPN_HTTP;
    const struct tls_server *s = arg;
    unsigned skip = s->http2 ? 0 : 3;
    unsigned char *chosen;

    (void)ssl;
    if (SSL_select_next_proto(&chosen, out_n, ours + skip, sizeof ours - 1 - skip, offered, offered_n) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL; /* no_application_protocol (RFC 7301, 3.2) */
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static int ticket_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                      EVP_MAC_CTX *mac, int seals)
{
    const struct tls_server *s = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    int result = tls_tickets_key(s->tickets, name, iv, cipher, mac, seals);

    /* A client of TLS 1.3 uses a ticket once (RFC 8446, C.4), and so needs another for the next time. */
    return result == 1 && !seals && SSL_version(ssl) == TLS1_3_VERSION ? 2 : result;
}

void tls_server_set_tickets(struct tls_server *s, struct tls_tickets *tickets)
{
    CHECK_MAGIC(s, TLS_SERVER_MAGIC);
    if (SSL_CTX_get_verify_mode(s->ctx) != SSL_VERIFY_NONE)
        return; /* a session would outlive its client's certificate, and be renewed for ever */
    s->tickets = tickets;
    SSL_CTX_clear_options(s->ctx, SSL_OP_NO_TICKET);
    /* A resumption brings a new one. A second would cost each handshake 20 us, for clients that open two at once. */
    SSL_CTX_set_num_tickets(s->ctx, 1);
}

/* --- making one --- */

static int load_identity(struct tls_server *s, const struct tls_certificate *files, char why[TLS_WHY_BYTES])
{
    struct tls_identity *id = &s->identities[s->identities_n];
    int error =
        tls_load_identity(files->certificate_path, files->key_path, &id->leaf, &id->chain, &id->key, why);
    int64_t expiry;
    bool known = false;

    if (error != 0)
        return error;
    s->identities_n++;
    if (!read_names(id))
        return -ENOMEM;
    for (unsigned k = 0; k < KINDS; k++)
        known = known || EVP_PKEY_get_base_id(id->key) == kinds[k];
    if (!known) {
        snprintf(why, TLS_WHY_BYTES, "%s: a key of kind RSA, EC or Ed25519 was expected", files->key_path);
        return -EINVAL;
    }
    expiry = tls_not_after_unix_s(id->leaf);
    if (s->expiry_unix_s == 0 || expiry < s->expiry_unix_s)
        s->expiry_unix_s = expiry;
    if (expiry <= (int64_t)clock_unix_s())
        log_warn("%s: the certificate has expired; clients will refuse it", files->certificate_path);
    return 0;
}

/* Each is put into the context, so that one that OpenSSL refuses is found now. With more than one, the choice is made
 * for each connection. */
static int use_identities(struct tls_server *s, const struct tls_server_options *options,
                          char why[TLS_WHY_BYTES])
{
    for (unsigned i = 0; i < s->identities_n; i++) {
        const struct tls_identity *id = &s->identities[i];

        if (SSL_CTX_use_cert_and_key(s->ctx, id->leaf, id->key, id->chain, 1) == 1)
            continue;
        snprintf(why, TLS_WHY_BYTES, "%s cannot be used: %s", options->certificates[i].certificate_path,
                 tls_error_text());
        return -EINVAL;
    }
    if (s->identities_n > 1)
        SSL_CTX_set_cert_cb(s->ctx, choose_certificates, s);
    return 0;
}

static int require_clients(struct tls_server *s, const char *path, uint8_t *digest, char why[TLS_WHY_BYTES])
{
    STACK_OF(X509_NAME) *names = sk_X509_NAME_new_null();
    int error;

    if (names == NULL)
        return -ENOMEM;
    error = tls_load_authorities(path, SSL_CTX_get_cert_store(s->ctx), names, digest, why);
    if (error != 0) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        return error;
    }
    SSL_CTX_set_client_CA_list(s->ctx, names);
    SSL_CTX_set_verify(s->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return 0;
}

static int setup(struct tls_server *s, const struct tls_server_options *options, char why[TLS_WHY_BYTES])
{
    /* A session is good where the same clients are let in: one of a listener for everybody is none for peers. */
    uint8_t session_context[32] = "segue";
    int error = tls_context_setup(s->ctx);

    if (error != 0)
        return error;
    SSL_CTX_set_app_data(s->ctx, s);
    SSL_CTX_set_options(s->ctx, SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(s->ctx, 0);
    SSL_CTX_set_timeout(s->ctx, SESSION_S);
    SSL_CTX_set_tlsext_ticket_key_evp_cb(s->ctx, ticket_key);
    SSL_CTX_set_alpn_select_cb(s->ctx, choose_protocol, s);
    s->http2 = options->http2;
    s->identities = calloc(options->certificates_n, sizeof s->identities[0]);
    if (s->identities == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < options->certificates_n; i++) {
        error = load_identity(s, &options->certificates[i], why);
        if (error != 0)
            return error;
    }
    error = use_identities(s, options, why);
    if (error == 0 && options->client_ca_path != NULL)
        error = require_clients(s, options->client_ca_path, session_context, why);
    if (error == 0 && SSL_CTX_set_session_id_context(s->ctx, session_context, sizeof session_context) != 1)
        error = -EINVAL;
    return error;
}

int tls_server_create(const struct tls_server_options *options, struct tls_server **out,
                      char why[TLS_WHY_BYTES])
{
    struct tls_server *s = calloc(1, sizeof *s);
    int error = -ENOMEM;

    CHECK(options->certificates_n > 0);
    why[0] = '\0';
    if (s == NULL)
        return -ENOMEM;
    s->magic = TLS_SERVER_MAGIC;
    s->refs = 1;
    s->ctx = SSL_CTX_new(TLS_server_method());
    if (s->ctx != NULL)
        error = setup(s, options, why);
    if (error == 0) {
        *out = s;
        return 0;
    }
    if (why[0] == '\0')
        snprintf(why, TLS_WHY_BYTES, "TLS cannot be set up: %s", tls_error_text());
    ERR_clear_error();
    tls_server_unref(&s);
    return error;
}

struct tls_server *tls_server_ref(struct tls_server *s)
{
    CHECK_MAGIC(s, TLS_SERVER_MAGIC);
    atomic_fetch_add(&s->refs, 1);
    return s;
}

void tls_server_unref(struct tls_server **sp)
{
    struct tls_server *s = TAKE(sp);

    CHECK_MAGIC(s, TLS_SERVER_MAGIC);
    if (atomic_fetch_sub(&s->refs, 1) != 1)
        return;
    SSL_CTX_free(s->ctx);
    for (unsigned i = 0; i < s->identities_n; i++) {
        struct tls_identity *id = &s->identities[i];

        X509_free(id->leaf);
        sk_X509_pop_free(id->chain, X509_free);
        EVP_PKEY_free(id->key);
        for (unsigned k = 0; k < id->names_n; k++)
            free((void *)(uintptr_t)id->names[k].p);
        free(id->names);
    }
    free(s->identities);
    s->magic = 0;
    free(s);
}

int64_t tls_server_expiry_unix_s(const struct tls_server *s)
{
    CHECK_MAGIC(s, TLS_SERVER_MAGIC);
    return s->expiry_unix_s;
}
