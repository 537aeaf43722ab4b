/* Contexts: what files are taken, what is said of those that are not. */
#include "tls_fixture.h"

#include "util/log.h"

#include <errno.h>

static struct authority ca;

static int try_server(const char *certificate, const char *key, const char *client_ca,
                      char why[TLS_WHY_BYTES])
{
    struct tls_certificate files = {tls_path(certificate), tls_path(key)};
    struct tls_server_options options = {&files, 1, client_ca != NULL ? tls_path(client_ca) : NULL, true};
    struct tls_server *s = NULL;
    int error = tls_server_create(&options, &s, why);

    if (error == 0)
        tls_server_unref(&s);
    else
        assert_null(s);
    return error;
}

static void copy_file(const char *from, const char *to, mode_t mode, long drop_bytes)
{
    FILE *f = fopen(tls_path(from), "r");
    char bytes[8192];
    size_t n;

    assert_non_null(f);
    n = fread(bytes, 1, sizeof bytes - 1, f);
    fclose(f);
    bytes[n - (size_t)drop_bytes] = '\0';
    write_file(to, bytes, mode);
}

static void test_files(void **state)
{
    static const struct {
        const char *certificate, *key, *client_ca;
        int error;
        const char *why; /* what it ends with, past the folder */
    } cases[] = {
        {"ec.pem", "ec.key", NULL, 0, ""},
        {"rsa.pem", "rsa.key", "ca", 0, ""},
        {"ed.pem", "ed.key", NULL, 0, ""},
        {"none.pem", "ec.key", NULL, -ENOENT, "/none.pem: No such file or directory"},
        {"ec.pem", "none.key", NULL, -ENOENT, "/none.key: No such file or directory"},
        {"ec.key", "ec.key", NULL, -EINVAL, "/ec.key: certificates in PEM were expected"},
        {"ec.pem", "copy.pem", NULL, -EINVAL, "/copy.pem: no private key in PEM was found"},
        {"garbage", "ec.key", NULL, -EINVAL, "/garbage: certificates in PEM were expected"},
        {"empty", "ec.key", NULL, -EINVAL, "/empty: certificates in PEM were expected"},
        {"cut.pem", "ec.key", NULL, -EINVAL, "/cut.pem: certificates in PEM were expected"},
        {"ec.pem", "garbage", NULL, -EINVAL, "/garbage: no private key in PEM was found"},
        {"ec.pem", "locked.key", NULL, -EINVAL,
         "/locked.key: the private key is encrypted; one without a passphrase was expected"},
        {"ec.pem", "rsa.key", NULL, -EINVAL, "/ec.pem"},
        {"ec.pem", "other.key", NULL, -EINVAL, "/ec.pem"},
        {"small.pem", "small.key", NULL, -EINVAL, "/small.pem cannot be used: ee key too small"},
        {"p521.pem", "p521.key", NULL, 0, ""},
        {"ec.pem", "ec.key", "garbage", -EINVAL, "/garbage: certificates in PEM were expected"},
        {"ec.pem", "ec.key", "none", -ENOENT, "/none: No such file or directory"},
        {".", "ec.key", NULL, -EINVAL, ": a PEM file of at most 1048576 bytes was expected"},
    };
    char why[TLS_WHY_BYTES];

    (void)state;
    write_file("garbage", "this is no PEM\n", 0600);
    write_file("empty", "", 0600);
    copy_file("ec.pem", "copy.pem", 0600, 0);
    copy_file("ec.pem", "cut.pem", 0644, 100);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        int error = try_server(cases[i].certificate, cases[i].key, cases[i].client_ca, why);
        size_t n = strlen(why), end = strlen(cases[i].why);

        if (error != cases[i].error || end > n || strcmp(why + n - end, cases[i].why) != 0)
            fail_msg("%s and %s: %d, %s", cases[i].certificate, cases[i].key, error, why);
    }
    try_server("ec.pem", "rsa.key", NULL, why); /* names both */
    assert_non_null(strstr(why, "/rsa.key is not the key of the first certificate in "));
}

static void test_modes(void **state)
{
    static const struct {
        mode_t mode;
        int error;
    } cases[] = {{0600, 0},       {0400, 0},       {0640, 0},      {0660, 0},
                 {0644, -EACCES}, {0602, -EACCES}, {0604, -EACCES}};
    char why[TLS_WHY_BYTES];

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        copy_file("ec.key", "mode.key", cases[i].mode, 0);
        assert_int_equal(try_server("ec.pem", "mode.key", NULL, why), cases[i].error);
        if (cases[i].error != 0)
            assert_non_null(
                strstr(why, "mode.key: a private key that everybody can read or write; chmod o-rw"));
    }
}

static void test_expiry(void **state)
{
    char paths[4][160], why[TLS_WHY_BYTES];
    struct tls_certificate files[2] = {{paths[0], paths[1]}, {paths[2], paths[3]}};
    struct tls_server_options options = {files, 2, NULL, false};
    struct tls_server *s;
    int64_t now_s = (int64_t)clock_unix_s();

    (void)state;
    snprintf(paths[0], sizeof paths[0], "%s", tls_path("ec.pem"));
    snprintf(paths[1], sizeof paths[0], "%s", tls_path("ec.key"));
    snprintf(paths[2], sizeof paths[0], "%s", tls_path("soon.pem"));
    snprintf(paths[3], sizeof paths[0], "%s", tls_path("soon.key"));
    assert_int_equal(tls_server_create(&options, &s, why), 0);
    assert_in_range(tls_server_expiry_unix_s(s), now_s + 3600 - 60, now_s + 3600 + 60);
    tls_server_unref(&s);
    /* an expired one is served all the same: an operator in trouble should not have more of it */
    assert_int_equal(try_server("expired.pem", "expired.key", NULL, why), 0);
}

static void test_clients(void **state)
{
    char why[TLS_WHY_BYTES];
    struct tls_client_options options = {.verify = true};
    struct tls_client *c, *again;

    (void)state;
    assert_int_equal(tls_client_create(&options, &c, why), 0);
    again = tls_client_ref(c);
    assert_ptr_equal(again, c);
    tls_client_unref(&again);
    tls_client_unref(&c);
    assert_null(c);
    options.ca_path = tls_path("garbage");
    assert_int_equal(tls_client_create(&options, &c, why), -EINVAL);
    assert_non_null(strstr(why, "/garbage: certificates in PEM were expected"));
    options.ca_path = ca.path;
    options.certificate_path = tls_path("ec.pem");
    options.key_path = tls_path("rsa.key");
    assert_int_equal(tls_client_create(&options, &c, why), -EINVAL);
    assert_non_null(strstr(why, "is not the key of"));
    options.key_path = tls_path("ec.key");
    assert_int_equal(tls_client_create(&options, &c, why), 0);
    tls_client_unref(&c);
}

static void lock_key(void)
{
    EVP_PKEY *key = make_key(KEY_EC);
    FILE *f = fopen(tls_path("locked.key"), "w");

    CHECK(f != NULL && PEM_write_PKCS8PrivateKey(f, key, EVP_aes_128_cbc(), "secret", 6, NULL, NULL) == 1);
    fclose(f);
    CHECK(chmod(tls_path("locked.key"), 0600) == 0);
    EVP_PKEY_free(key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_modes),
        cmocka_unit_test(test_expiry),
        cmocka_unit_test(test_clients),
    };
    int failures;

    tls_fixture_open();
    ca = make_authority("ca");
    issue(&ca, "ec", KEY_EC, "DNS:a.example", -3600, 86400);
    issue(&ca, "other", KEY_EC, "DNS:a.example", -3600, 86400);
    issue(&ca, "rsa", KEY_RSA, "DNS:a.example", -3600, 86400);
    issue(&ca, "small", KEY_RSA_1024, "DNS:a.example", -3600, 86400);
    issue(&ca, "p521", KEY_P521, "DNS:a.example", -3600, 86400);
    issue(&ca, "ed", KEY_ED25519, "DNS:a.example", -3600, 86400);
    issue(&ca, "soon", KEY_EC, "DNS:a.example", -3600, 3600);
    issue(&ca, "expired", KEY_EC, "DNS:a.example", -7200, -3600);
    lock_key();
    log_set_level(LOG_LEVEL_ERROR);
    failures = cmocka_run_group_tests_name("tls", tests, NULL, NULL);
    free_authority(&ca);
    tls_fixture_close();
    return failures;
}
