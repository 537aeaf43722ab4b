#include "util/hmac.h"

#include "../unit.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

static void hex_is(const uint8_t mac[HMAC_BYTES], const char *hex)
{
    char text[2 * HMAC_BYTES + 1];

    for (size_t i = 0; i < HMAC_BYTES; i++)
        snprintf(text + 2 * i, 3, "%02x", mac[i]);
    assert_string_equal(text, hex);
}

static void rfc4231(const char *secret, size_t secret_n, const char *data, size_t n, const char *hex)
{
    uint8_t message[256 + HMAC_ROOM_BYTES], mac[HMAC_BYTES];
    struct hmac_key key;

    memcpy(message, data, n);
    hmac_key_init(&key, str_of(secret, secret_n));
    hmac_sha256(&key, message, n, mac);
    hex_is(mac, hex);
}

static void vectors_of_rfc4231(void **state)
{
    char long_key[131];

    (void)state;
    memset(long_key, 0xaa, sizeof long_key);
    rfc4231("\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b", 20,
            "Hi There", 8, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    rfc4231("Jefe", 4, "what do ya want for nothing?", 28,
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    rfc4231(long_key, sizeof long_key, "Test Using Larger Than Block-Size Key - Hash Key First", 54,
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

/* Every length around the ends of blocks, against OpenSSL's own HMAC. */
static void any_length_as_openssl(void **state)
{
    static uint8_t message[600 + HMAC_ROOM_BYTES], copy[600];
    const struct str secret = STR("segue-test-key-one-0123456789abc");
    struct hmac_key key;

    (void)state;
    hmac_key_init(&key, secret);
    for (size_t n = 0; n < sizeof copy; n++) {
        uint8_t mac[HMAC_BYTES], expected[EVP_MAX_MD_SIZE];

        for (size_t i = 0; i < n; i++)
            copy[i] = (uint8_t)(i * 31 + n);
        memcpy(message, copy, n);
        memset(message + n, 0xee, HMAC_ROOM_BYTES);
        hmac_sha256(&key, message, n, mac);
        assert_non_null(HMAC(EVP_sha256(), secret.p, (int)secret.n, copy, n, expected, NULL));
        assert_true(hmac_eq(mac, expected));
        assert_memory_equal(message, copy, n);
        expected[n % HMAC_BYTES] ^= 1;
        assert_false(hmac_eq(mac, expected));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_of_rfc4231),
        cmocka_unit_test(any_length_as_openssl),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
