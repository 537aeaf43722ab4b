/* keys.yaml: which keys it makes, and the line that is said of what is wrong, which never holds a secret. */
#include "proxy/proxy_conf.h"
#include "util/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define S16 "MDEyMzQ1Njc4OWFiY2RlZg==" /* 0123456789abcdef */

static char folder[] = "/tmp/segue-test-keys-XXXXXX";

static int setup(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL || chdir(folder) < 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink("k.yaml");
    return chdir("/") < 0 || rmdir(folder) < 0;
}

static int load(const char *text, mode_t mode, struct signed_url_keys *keys, struct conf_error *error)
{
    FILE *f = fopen("k.yaml", "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod("k.yaml", mode), 0);
    return proxy_keys_load("k.yaml", keys, error);
}

static void test_keys(void **state)
{
    (void)state;
    struct signed_url_keys keys;
    struct conf_error error;
    int rc = load("default_kid: k2\n"
                  "keys:\n"
                  "  - {kid: k1, secret: " S16 ", not_before: 2026-09-21T14:13:20Z, not_after: 1790000001}\n"
                  "  - {kid: k2, secret: MDEyMzQ1Njc4OWFiY2RlZmc=}\n"
                  "  - {kid: a/b, secret: MDEyMzQ1Njc4OWFiY2RlZmdo}\n",
                  0640, &keys, &error);
    if (rc < 0)
        fail_msg("%s", error.text);
    assert_int_equal(keys.n, 3);
    assert_int_equal(keys.default_index, 1);
    assert_int_equal(keys.at[0].not_before_s, 1790000000);
    assert_int_equal(keys.at[0].not_after_s, 1790000001);
    assert_int_equal(keys.at[1].not_before_s, INT64_MIN);
    assert_int_equal(keys.at[1].not_after_s, INT64_MAX);
    assert_memory_equal(keys.at[2].kid, "a/b", 3);
    signed_url_keys_clear(&keys);
}

/* The secret that is used is the decoded one: the first vector's signature comes out. */
static void test_secret_is_decoded(void **state)
{
    (void)state;
    struct signed_url_keys keys;
    struct conf_error error;
    char text[256];
    struct buf out = buf_of(text, sizeof(text));
    struct signed_url_grant grant = {.kid = STR("k1"), .exp_s = 1790003600, .uid = STR("u42")};
    assert_int_equal(load("keys: [{kid: k1, secret: c2VndWUtdGVzdC1rZXktb25lLTAxMjM0NTY3ODlhYmM=}]\n", 0600,
                          &keys, &error),
                     0);
    assert_int_equal(keys.default_index, -1);
    assert_int_equal(
        signed_url_sign_query(&keys, &grant, STR("/tracks/3n3Ppam7vgaVa1iaRUc9Lp/320/7.ogg"), STR(""), &out),
        0);
    assert_true(
        str_eq(buf_str(&out), STR("/tracks/3n3Ppam7vgaVa1iaRUc9Lp/320/7.ogg?exp=1790003600&kid=k1&uid=u42"
                                  "&sig=DUEPQfVNBhclx6mAThjOKMNqpHM_lABUokxLh7eTeIw")));
    signed_url_keys_clear(&keys);
}

static void test_refused(void **state)
{
    (void)state;
#define NO_BASE64 "expected base64 with its padding (openssl rand -base64 32 makes one)"
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"keys: []\n", "k.yaml:1: keys: expected at least 1 entry, got 0"},
        {"default_kid: k1\n", "k.yaml:1: the key \"keys\" is missing"},
        {"keys: [{kid: k1}]\n", "k.yaml:1: keys[0]: the key \"secret\" is missing"},
        {"keys: [{secret: " S16 "}]\n", "k.yaml:1: keys[0]: the key \"kid\" is missing"},
        {"keys:\n - {kid: k1, secret: " S16 "}\n - {kid: k1, secret: " S16 "}\n",
         "k.yaml:3: keys[1].kid: \"k1\" is there already; every key has its own"},
        {"keys: [{kid: k=1, secret: " S16 "}]\n",
         "k.yaml:1: keys[0].kid: expected 1 to 32 characters of A-Za-z0-9._~/,:-, got \"k=1\""},
        {"keys: [{kid: \"\", secret: " S16 "}]\n",
         "k.yaml:1: keys[0].kid: expected at least 1 character, got 0"},
        {"keys: [{kid: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, secret: " S16 "}]\n",
         "k.yaml:1: keys[0].kid: expected at most 32 characters, got 33"},
        {"keys: [{kid: k1, secret: MDEyMzQ1Njc4OWFiY2Rl}]\n",
         "k.yaml:1: keys[0].secret: expected 16 to 512 bytes in base64, got 15 (openssl rand -base64 32 "
         "makes one)"},
        {"keys: [{kid: k1, secret: MDEyMzQ1Njc4OWFiY2RlZg}]\n", "k.yaml:1: keys[0].secret: " NO_BASE64},
        {"keys: [{kid: k1, secret: MDEyMzQ1Njc4OWFiY2RlZh==}]\n", "k.yaml:1: keys[0].secret: " NO_BASE64},
        {"keys: [{kid: k1, secret: MDEyMzQ1Njc4OWFiY2RlZmd=}]\n", "k.yaml:1: keys[0].secret: " NO_BASE64},
        {"keys: [{kid: k1, secret: MDEyMzQ1Njc4OWFiY2Rl_m==}]\n", "k.yaml:1: keys[0].secret: " NO_BASE64},
        {"keys: [{kid: k1, secret: \"MDEyMzQ1Njc4O FiY2RlZg==\"}]\n", "k.yaml:1: keys[0].secret: " NO_BASE64},
        {"keys: [{kid: k1, secret: \"====\"}]\n", "k.yaml:1: keys[0].secret: " NO_BASE64},
        {"keys: [{kid: k1, secret: MDEyMzQ1Njc4OWFiY2RlZg==MDEyMzQ1Njc4OWFiY2RlZg==}]\n",
         "k.yaml:1: keys[0].secret: " NO_BASE64},
        {"keys: [{kid: k1, secret: " S16 ", not_before: 5, not_after: 4}]\n",
         "k.yaml:1: keys[0].not_after: is earlier than not_before"},
        {"keys: [{kid: k1, secret: " S16 ", not_before: soon}]\n",
         "k.yaml:1: keys[0].not_before: expected a time such as 2027-01-31T12:00:00Z, or Unix seconds, got "
         "\"soon\""},
        {"default_kid: k2\nkeys: [{kid: k1, secret: " S16 "}]\n",
         "k.yaml:1: default_kid: \"k2\" is the kid of no key in the file"},
        {"keys: [{kid: k1, secret: " S16 "}]\n" S16 ": x\n",
         "k.yaml:2: unknown key; known here: default_kid, keys"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct signed_url_keys keys;
        struct conf_error error;
        if (load(cases[i].text, 0640, &keys, &error) >= 0)
            fail_msg("was not refused: %s", cases[i].text);
        assert_string_equal(error.text, cases[i].error);
        assert_int_equal(keys.n, 0);
    }
}

static void test_largest(void **state)
{
    (void)state;
    static char text[4096];
    struct signed_url_keys keys;
    struct conf_error error;
    struct buf b = buf_of(text, sizeof(text) - 1);
    buf_add_lit(&b, "keys:\n");
    for (unsigned i = 0; i < SIGNED_URL_KEYS_MAX; i++)
        buf_printf(&b, "  - {kid: k%u, secret: " S16 "}\n", i);
    assert_int_equal(load(text, 0640, &keys, &error), 0);
    assert_int_equal(keys.n, SIGNED_URL_KEYS_MAX);
    signed_url_keys_clear(&keys);
    buf_add_lit(&b, "  - {kid: more, secret: " S16 "}\n");
    assert_true(load(text, 0640, &keys, &error) < 0);
    assert_string_equal(error.text, "k.yaml:1: keys: expected at most 16 entries, got 17");

    b.n = 0;
    buf_add_lit(&b, "keys: [{kid: k, secret: ");
    for (unsigned i = 0; i < 170; i++)
        buf_add_lit(&b, "AAAA");
    buf_add_lit(&b, "AAA=}]\n"); /* 512 bytes */
    memset(text + b.n, 0, sizeof(text) - b.n);
    assert_int_equal(load(text, 0640, &keys, &error), 0);
    signed_url_keys_clear(&keys);
}

static void test_modes(void **state)
{
    (void)state;
    struct signed_url_keys keys;
    struct conf_error error;
    assert_true(load("keys: [{kid: k1, secret: " S16 "}]\n", 0644, &keys, &error) < 0);
    assert_true(load("keys: [{kid: k1, secret: " S16 "}]\n", 0440, &keys, &error) == 0);
    signed_url_keys_clear(&keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),    cmocka_unit_test(test_secret_is_decoded),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_largest),
        cmocka_unit_test(test_modes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
