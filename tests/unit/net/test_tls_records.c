/* Records of TLS 1.3 and 1.2: a vector of RFC 8448, and that nothing opens that was not sealed so. */
#include "net/tls_records.h"
#include "util/check.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/obj_mac.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct suite {
    bool tls13;
    int nid;
    const EVP_MD *(*hash)(void);
};

static const struct suite suites[] = {
    {true, NID_aes_128_gcm, EVP_sha256},       {true, NID_aes_256_gcm, EVP_sha384},
    {true, NID_chacha20_poly1305, EVP_sha256}, {false, NID_aes_128_gcm, EVP_sha256},
    {false, NID_aes_256_gcm, EVP_sha384},      {false, NID_chacha20_poly1305, EVP_sha256},
};

static void pair_init(const struct suite *s, struct tls_records *server, struct tls_records *client)
{
    struct tls_secrets secrets = {.tls13 = s->tls13, .server = true, .cipher_nid = s->nid, .hash = s->hash()};

    secrets.in_n = secrets.out_n = s->tls13 ? 0 : 1;
    memset(secrets.in, 1, sizeof secrets.in);
    memset(secrets.out, 2, sizeof secrets.out);
    memset(secrets.master, 3, sizeof secrets.master);
    secrets.master_bytes = sizeof secrets.master;
    memset(secrets.client_random, 4, TLS_RANDOM_BYTES);
    memset(secrets.server_random, 5, TLS_RANDOM_BYTES);
    assert_int_equal(tls_records_init(server, &secrets), 0);
    secrets.server = false;
    memset(secrets.in, 2, sizeof secrets.in);
    memset(secrets.out, 1, sizeof secrets.out);
    assert_int_equal(tls_records_init(client, &secrets), 0);
}

static int seal(struct tls_records *r, enum tls_record_type type, const void *bytes, size_t n, char *to)
{
    struct iovec vec = {(void *)(uintptr_t)bytes, n};

    return tls_records_seal(r, type, &vec, n, to);
}

static void test_rfc8448(void **state)
{
    /* Section 3: the client's application traffic secret, and the record it makes of the bytes 0 to 49. */
    static const uint8_t secret[32] = {0x9e, 0x40, 0x64, 0x6c, 0xe7, 0x9a, 0x7f, 0x9d, 0xc0, 0x5a, 0xf8,
                                       0x88, 0x9b, 0xce, 0x65, 0x52, 0x87, 0x5a, 0xfa, 0x0b, 0x06, 0xdf,
                                       0x00, 0x87, 0xf7, 0x92, 0xeb, 0xb7, 0xc1, 0x75, 0x04, 0xa5};
    static const uint8_t expected[72] = {
        0x17, 0x03, 0x03, 0x00, 0x43, 0xa2, 0x3f, 0x70, 0x54, 0xb6, 0x2c, 0x94, 0xd0, 0xaf, 0xfa,
        0xfe, 0x82, 0x28, 0xba, 0x55, 0xcb, 0xef, 0xac, 0xea, 0x42, 0xf9, 0x14, 0xaa, 0x66, 0xbc,
        0xab, 0x3f, 0x2b, 0x98, 0x19, 0xa8, 0xa5, 0xb4, 0x6b, 0x39, 0x5b, 0xd5, 0x4a, 0x9a, 0x20,
        0x44, 0x1e, 0x2b, 0x62, 0x97, 0x4e, 0x1f, 0x5a, 0x62, 0x92, 0xa2, 0x97, 0x70, 0x14, 0xbd,
        0x1e, 0x3d, 0xea, 0xe6, 0x3a, 0xee, 0xbb, 0x21, 0x69, 0x49, 0x15, 0xe4};
    struct tls_secrets secrets = {.tls13 = true, .cipher_nid = NID_aes_128_gcm, .hash = EVP_sha256()};
    struct tls_records r;
    uint8_t plain[50];
    char record[100];

    (void)state;
    for (unsigned i = 0; i < sizeof plain; i++)
        plain[i] = (uint8_t)i;
    memcpy(secrets.out, secret, sizeof secret);
    assert_int_equal(tls_records_init(&r, &secrets), 0);
    assert_int_equal(seal(&r, TLS_RECORD_DATA, plain, sizeof plain, record), sizeof expected);
    assert_memory_equal(record, expected, sizeof expected);
    tls_records_wipe(&r);
}

static void test_round_trip(void **state)
{
    static const size_t sizes[] = {0, 1, 15, 16, 17, 300, 16383, 16384};
    static char plain[TLS_RECORD_PLAIN_MAX], record[TLS_RECORD_BYTES_MAX], aside[TLS_RECORD_BYTES_MAX];

    (void)state;
    for (unsigned i = 0; i < sizeof plain; i++)
        plain[i] = (char)(i * 7 + i / 256);
    for (unsigned k = 0; k < ARRAY_LEN(suites); k++) {
        struct tls_records server, client;
        struct tls_opened opened;

        pair_init(&suites[k], &server, &client);
        for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
            struct iovec vecs[3] = {{plain, sizes[i] / 3},
                                    {plain + sizes[i] / 3, 0},
                                    {plain + sizes[i] / 3, sizes[i] - sizes[i] / 3 + 10}};
            enum tls_record_type type = i % 2 == 0 ? TLS_RECORD_DATA : TLS_RECORD_MESSAGE;
            int n = tls_records_seal(&server, type, vecs, sizes[i], record);

            assert_true(n > 0 && (size_t)n <= sizes[i] + TLS_RECORD_EXTRA_MAX);
            assert_int_equal(tls_record_bytes(record, (size_t)n), n);
            assert_int_equal(tls_records_open(&client, record, (size_t)n, i % 3 == 0 ? aside : NULL, &opened),
                             0);
            assert_int_equal(opened.type, type);
            assert_int_equal(opened.n, sizes[i]);
            assert_memory_equal(opened.p, plain, sizes[i]);
            if (i % 3 == 0)
                assert_ptr_equal(opened.p, aside);
            /* and the other way */
            n = seal(&client, TLS_RECORD_DATA, plain, sizes[i], record);
            assert_int_equal(tls_records_open(&server, record, (size_t)n, NULL, &opened), 0);
            assert_memory_equal(opened.p, plain, sizes[i]);
        }
        tls_records_wipe(&server);
        tls_records_wipe(&client);
    }
}

static void test_any_changed_bit_is_seen(void **state)
{
    char record[64], changed[64];

    (void)state;
    for (unsigned k = 0; k < ARRAY_LEN(suites); k++) {
        struct tls_records server, client;
        struct tls_opened opened;
        int n;

        pair_init(&suites[k], &server, &client);
        n = seal(&server, TLS_RECORD_DATA, "hello", 5, record);
        for (int bit = 0; bit < 8 * n; bit++) {
            if (bit / 8 == 3 || bit / 8 == 4) /* another length is another record */
                continue;
            memcpy(changed, record, (size_t)n);
            changed[bit / 8] = (char)(changed[bit / 8] ^ 1 << bit % 8);
            assert_true(tls_records_open(&client, changed, (size_t)n, NULL, &opened) < 0);
        }
        assert_int_equal(tls_records_open(&client, record, (size_t)n, NULL, &opened), 0);
        assert_true(seal(&server, TLS_RECORD_DATA, "a", 1, record) > 0); /* lost */
        n = seal(&server, TLS_RECORD_DATA, "b", 1, record);
        assert_int_equal(tls_records_open(&client, record, (size_t)n, NULL, &opened),
                         -TLS_ALERT_BAD_RECORD_MAC);
        tls_records_wipe(&server);
        tls_records_wipe(&client);
    }
}

static void test_short_and_long_ones(void **state)
{
    static char record[TLS_RECORD_BYTES_MAX + 1];

    (void)state;
    for (unsigned k = 0; k < ARRAY_LEN(suites); k++) {
        struct tls_records server, client;
        struct tls_opened opened;

        pair_init(&suites[k], &server, &client);
        for (unsigned n = 0; n < 40; n++) {
            memset(record, 0, sizeof record);
            memcpy(record, "\x17\x03\x03\x00", 4);
            record[4] = (char)n;
            assert_true(tls_records_open(&client, record, 5 + n, NULL, &opened) < 0);
        }
        record[3] = 0x41;
        record[4] = 1; /* 16640 + 1 */
        assert_int_equal(tls_records_open(&client, record, TLS_RECORD_BYTES_MAX + 1, NULL, &opened),
                         -TLS_ALERT_RECORD_OVERFLOW);
        assert_int_equal(tls_record_bytes(record, 4), 0);
        tls_records_wipe(&server);
        tls_records_wipe(&client);
    }
}

/* What a peer may do and we never do: padding, and plaintext that is too long because of it. */
static void test_padding(void **state)
{
    static char plain[TLS_RECORD_PLAIN_MAX + 300], record[TLS_RECORD_BYTES_MAX + 300];
    struct tls_records server, client;
    struct tls_opened opened;
    int n;

    (void)state;
    pair_init(&suites[0], &server, &client);
    /* The last byte that is not zero is the type: here our own type byte is turned into padding by a type of 0. */
    memcpy(plain, "data\x17\0\0\0", 8);
    n = seal(&server, (enum tls_record_type)0, plain, 8, record);
    assert_int_equal(tls_records_open(&client, record, (size_t)n, NULL, &opened), 0);
    assert_int_equal(opened.type, TLS_RECORD_DATA);
    assert_int_equal(opened.n, 4);
    n = seal(&server, (enum tls_record_type)0, "\0\0\0", 3, record);
    assert_int_equal(tls_records_open(&client, record, (size_t)n, NULL, &opened),
                     -TLS_ALERT_UNEXPECTED_MESSAGE);
    record[0] = TLS_RECORD_ALERT; /* in the clear */
    assert_int_equal(tls_records_open(&client, record, (size_t)n, NULL, &opened),
                     -TLS_ALERT_UNEXPECTED_MESSAGE);
    tls_records_wipe(&server);
    tls_records_wipe(&client);
}

static void test_key_updates(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 3; k++) {
        struct tls_records server, client;
        struct tls_opened opened;
        char record[64], old[64];
        int n, old_n;

        pair_init(&suites[k], &server, &client);
        old_n = seal(&server, TLS_RECORD_DATA, "old", 3, old);
        assert_int_equal(tls_records_update(&server, &server.out), 0);
        n = seal(&server, TLS_RECORD_DATA, "new", 3, record);
        assert_int_equal(tls_records_open(&client, old, (size_t)old_n, NULL, &opened), 0);
        assert_int_equal(tls_records_update(&client, &client.in), 0);
        assert_int_equal(tls_records_open(&client, record, (size_t)n, NULL, &opened), 0);
        assert_memory_equal(opened.p, "new", 3);
        assert_false(tls_records_want_update(&server));
        server.out.n = 1 << 23;
        assert_true(tls_records_want_update(&server));
        tls_records_wipe(&server);
        tls_records_wipe(&client);
    }
}

static void test_tls12_keys_are_used_up(void **state)
{
    struct tls_records server, client;
    char record[64];

    (void)state;
    pair_init(&suites[3], &server, &client);
    server.out.n = 1 << 24;
    assert_int_equal(seal(&server, TLS_RECORD_DATA, "x", 1, record), -EOVERFLOW);
    assert_false(tls_records_want_update(&server));
    tls_records_wipe(&server);
    tls_records_wipe(&client);
}

static void test_unknown_suite(void **state)
{
    struct tls_secrets secrets = {.tls13 = true, .cipher_nid = NID_aes_128_cbc, .hash = EVP_sha256()};
    struct tls_records r;

    (void)state;
    assert_int_equal(tls_records_init(&r, &secrets), -EPROTO);
    secrets.cipher_nid = NID_aes_128_gcm;
    secrets.hash = EVP_sha512();
    assert_int_equal(tls_records_init(&r, &secrets), -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rfc8448),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_any_changed_bit_is_seen),
        cmocka_unit_test(test_short_and_long_ones),
        cmocka_unit_test(test_padding),
        cmocka_unit_test(test_key_updates),
        cmocka_unit_test(test_tls12_keys_are_used_up),
        cmocka_unit_test(test_unknown_suite),
    };

    return cmocka_run_group_tests_name("tls_records", tests, NULL, NULL);
}
