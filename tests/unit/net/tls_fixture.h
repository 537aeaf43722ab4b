/* What the tests of TLS share: authorities and certificates, made at the beginning and written to a folder that goes
 * at the end. */
#pragma once

#include "net/tls.h"
#include "util/check.h"
#include "util/clock.h"

#include <ftw.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

struct authority {
    EVP_PKEY *key;
    X509 *certificate;
    char path[128];
};

static char tls_folder[64];

static inline const char *tls_path(const char *name)
{
    static char paths[8][128];
    static unsigned next;
    char *path = paths[next++ % 8];

    snprintf(path, sizeof paths[0], "%s/%s", tls_folder, name);
    return path;
}

static inline void tls_fixture_open(void)
{
    snprintf(tls_folder, sizeof tls_folder, "/tmp/segue-tls-XXXXXX");
    CHECK(mkdtemp(tls_folder) != NULL);
}

static inline int tls_remove(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static inline void tls_fixture_close(void)
{
    CHECK(nftw(tls_folder, tls_remove, 8, FTW_DEPTH | FTW_PHYS) == 0);
}

static inline void write_file(const char *name, const char *bytes, mode_t mode)
{
    FILE *f = fopen(tls_path(name), "w");

    CHECK(f != NULL && fputs(bytes, f) >= 0);
    fclose(f);
    CHECK(chmod(tls_path(name), mode) == 0);
}

enum key_kind { KEY_EC, KEY_P521, KEY_RSA, KEY_RSA_1024, KEY_ED25519 };

static inline EVP_PKEY *make_key(enum key_kind kind)
{
    EVP_PKEY *key = NULL;

    if (kind == KEY_RSA || kind == KEY_RSA_1024)
        key = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)(kind == KEY_RSA ? 2048 : 1024));
    else if (kind == KEY_ED25519)
        key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    else
        key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", kind == KEY_EC ? "P-256" : "P-521");
    CHECK(key != NULL);
    return key;
}

/* names: as subjectAltName has it, "DNS:a.example,DNS:*.b.example"; NULL: an authority. */
static inline X509 *make_certificate(const char *common_name, EVP_PKEY *key, const char *names, long from_s,
                                     long to_s, X509 *issuer, EVP_PKEY *issuer_key)
{
    static long serial = 1;
    X509 *x = X509_new();
    X509_NAME *name = X509_get_subject_name(x);
    X509V3_CTX context;
    X509_EXTENSION *extension;

    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), serial++);
    X509_gmtime_adj(X509_getm_notBefore(x), from_s);
    X509_gmtime_adj(X509_getm_notAfter(x), to_s);
    X509_set_pubkey(x, key);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)common_name, -1, -1, 0);
    X509_set_issuer_name(x, issuer != NULL ? X509_get_subject_name(issuer) : name);
    X509V3_set_ctx(&context, issuer != NULL ? issuer : x, x, NULL, NULL, 0);
    extension = names != NULL
                    ? X509V3_EXT_conf_nid(NULL, &context, NID_subject_alt_name, names)
                    : X509V3_EXT_conf_nid(NULL, &context, NID_basic_constraints, "critical,CA:TRUE");
    CHECK(extension != NULL);
    X509_add_ext(x, extension, -1);
    X509_EXTENSION_free(extension);
    CHECK(X509_sign(x, issuer_key,
                    EVP_PKEY_get_base_id(issuer_key) == EVP_PKEY_ED25519 ? NULL : EVP_sha256()) > 0);
    return x;
}

static inline struct authority make_authority(const char *file)
{
    struct authority a;
    FILE *f;

    a.key = make_key(KEY_EC);
    a.certificate = make_certificate(file, a.key, NULL, -3600, 86400, NULL, a.key);
    snprintf(a.path, sizeof a.path, "%s", tls_path(file));
    f = fopen(a.path, "w");
    CHECK(f != NULL && PEM_write_X509(f, a.certificate) == 1);
    fclose(f);
    return a;
}

static inline void free_authority(struct authority *a)
{
    EVP_PKEY_free(a->key);
    X509_free(a->certificate);
}

/* NAME.pem and NAME.key in the folder. */
static inline void issue(const struct authority *a, const char *name, enum key_kind kind, const char *names,
                         long from_s, long to_s)
{
    EVP_PKEY *key = make_key(kind);
    X509 *x = make_certificate(name, key, names, from_s, to_s, a->certificate, a->key);
    char path[160];
    FILE *f;

    snprintf(path, sizeof path, "%s.pem", tls_path(name));
    f = fopen(path, "w");
    CHECK(f != NULL && PEM_write_X509(f, x) == 1 && PEM_write_X509(f, a->certificate) == 1);
    fclose(f);
    snprintf(path, sizeof path, "%s.key", tls_path(name));
    f = fopen(path, "w");
    CHECK(f != NULL && PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) == 1);
    fclose(f);
    CHECK(chmod(path, 0600) == 0);
    X509_free(x);
    EVP_PKEY_free(key);
}

static inline struct tls_server *make_server(const char *name, const char *client_ca, bool http2)
{
    char certificate_path[160], key_path[160], why[TLS_WHY_BYTES];
    struct tls_certificate certificate = {certificate_path, key_path};
    struct tls_server_options options = {&certificate, 1, client_ca, http2};
    struct tls_server *s = NULL;

    snprintf(certificate_path, sizeof certificate_path, "%s.pem", tls_path(name));
    snprintf(key_path, sizeof key_path, "%s.key", tls_path(name));
    if (tls_server_create(&options, &s, why) != 0)
        fail_msg("%s", why);
    return s;
}

static inline struct tls_client *make_client(const char *ca_path, const char *identity)
{
    char certificate_path[160], key_path[160], why[TLS_WHY_BYTES];
    struct tls_client_options options = {.verify = ca_path != NULL, .ca_path = ca_path};
    struct tls_client *c = NULL;

    if (identity != NULL) {
        snprintf(certificate_path, sizeof certificate_path, "%s.pem", tls_path(identity));
        snprintf(key_path, sizeof key_path, "%s.key", tls_path(identity));
        options.certificate_path = certificate_path;
        options.key_path = key_path;
    }
    if (tls_client_create(&options, &c, why) != 0)
        fail_msg("%s", why);
    return c;
}
