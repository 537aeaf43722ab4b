#include "http/signed_url.h"
#include "http/url.h"

#include "../unit.h"

#include <jansson.h>
#include <openssl/evp.h>

#define NOW 1790000000

static const struct signed_url_policy policy = {
    .clock_skew_s = 5, .lifetime_max_s = 86400, .pfx_depth_min = 2};

struct answer {
    unsigned status;
    struct str reason;
};

/* What the edge does with a target before it looks for an object, in its order. */
static struct answer answer_of(const struct signed_url_keys *keys, struct str target, int64_t now_s,
                               const char *client, struct str country, struct signed_url_claims *claims)
{
    static struct signed_url_scratch scratch;
    char canonical[HTTP_TARGET_BYTES_MAX];
    struct signed_url_parts parts = signed_url_split(target);
    struct ip address;
    struct signed_url_client who = {.address = &address, .country = country};
    enum signed_url_result r;
    struct str path;

    assert_int_equal(ip_parse(str_z(client), &address), 0);
    if (url_path_canonical(parts.path, canonical, &path) < 0)
        return (struct answer){400, STR("")};
    r = signed_url_verify(keys, &policy, &parts, now_s, &who, &scratch, claims);
    assert_true(strlen(signed_url_explain(r)) > 3);
    return (struct answer){signed_url_status(r), signed_url_reason(r)};
}

static void add_key(struct signed_url_keys *keys, const char *kid, const char *base64)
{
    unsigned char secret[64];
    size_t n = strlen(base64);
    int decoded = EVP_DecodeBlock(secret, (const unsigned char *)base64, (int)n);

    while (n > 0 && base64[n - 1] == '=') {
        decoded--;
        n--;
    }
    assert_int_equal(
        signed_url_keys_add(keys, str_z(kid), str_of((char *)secret, (size_t)decoded), INT64_MIN, INT64_MAX),
        0);
}

static json_t *vectors(struct signed_url_keys *keys)
{
    json_t *all = json_load_file("tests/vectors/signed-urls.json", 0, NULL), *secret;
    const char *kid;

    assert_non_null(all);
    signed_url_keys_init(keys);
    json_object_foreach(json_object_get(all, "keys"), kid, secret)
        add_key(keys, kid, json_string_value(secret));
    return all;
}

static void every_vector(void **state)
{
    struct signed_url_keys keys;
    json_t *all = vectors(&keys), *c;
    size_t i, failed = 0;

    (void)state;
    json_array_foreach(json_object_get(all, "cases"), i, c)
    {
        const char *url = json_string_value(json_object_get(c, "url"));
        const char *reason = json_string_value(json_object_get(c, "reason"));
        char *exact = exact_copy(url, strlen(url));
        struct signed_url_claims claims;
        struct answer a =
            answer_of(&keys, str_of(exact, strlen(url)), json_integer_value(json_object_get(c, "now")),
                      json_string_value(json_object_get(c, "client")),
                      str_z(json_string_value(json_object_get(c, "country"))), &claims);

        if (a.status != json_integer_value(json_object_get(c, "status")) ||
            !str_eq(a.reason, str_z(reason ? reason : ""))) {
            print_error("%s: %u " STR_FMT "\n", json_string_value(json_object_get(c, "name")), a.status,
                        STR_ARG(a.reason));
            failed++;
        }
        free(exact);
    }
    assert_int_equal(i, 106);
    assert_int_equal(failed, 0);
    json_decref(all);
}

static void signs_the_first_vector(void **state)
{
    struct signed_url_keys keys;
    json_t *all = vectors(&keys);
    const char *url =
        json_string_value(json_object_get(json_array_get(json_object_get(all, "cases"), 0), "url"));
    struct signed_url_grant grant = {.kid = STR("k1"), .exp_s = 1790003600, .uid = STR("u42")};
    char text[512];
    struct buf b = buf_of(text, sizeof text);

    (void)state;
    assert_int_equal(
        signed_url_sign_query(&keys, &grant, STR("/tracks/3n3Ppam7vgaVa1iaRUc9Lp/320/7.ogg"), STR_NONE, &b),
        0);
    assert_int_equal(b.n, strlen(url));
    assert_memory_equal(b.p, url, b.n);
    json_decref(all);
}

static struct signed_url_keys two_keys(void)
{
    struct signed_url_keys keys;

    signed_url_keys_init(&keys);
    assert_int_equal(signed_url_keys_add(&keys, STR("k1"), STR("secret one"), NOW - 100, NOW + 100), 0);
    assert_int_equal(signed_url_keys_add(&keys, STR("k2"), STR("secret two"), INT64_MIN, INT64_MAX), 0);
    return keys;
}

static void signs_what_verifies(void **state)
{
    struct signed_url_keys keys = two_keys();
    struct signed_url_grant grant = {
        .kid = STR("k2"),
        .exp_s = NOW + 60,
        .uid = STR("u~1"),
        .pfx = STR("/a/b/"),
        .geo = STR("-US,CA"),
        .ip = STR("192.0.2.0/24"),
        .rate_bytes_per_s = 80000,
    };
    struct signed_url_claims claims = {0};
    char text[512];
    struct buf b = buf_of(text, sizeof text);

    (void)state;
    for (int in_path = 0; in_path < 2; in_path++) {
        b.n = 0;
        assert_int_equal((in_path ? signed_url_sign_path
                                  : signed_url_sign_query)(&keys, &grant, STR("/a/b/c.ogg"), STR("v=1"), &b),
                         0);
        if (in_path)
            assert_true(str_starts(buf_str(&b),
                                   STR("/~depth=2;exp=1790000060;geo=-US,CA;ip=192.0.2.0%2F24;kid=k2;")));
        assert_int_equal(answer_of(&keys, buf_str(&b), NOW, "192.0.2.7", STR("SE"), &claims).status, 200);
        assert_true(claims.exp_s == NOW + 60);
        assert_true(claims.rate_bytes_per_s == 80000);
        assert_str(claims.uid, "u~1");
        assert_str(claims.pfx, "/a/b/");
        assert_str(claims.geo, "-US,CA");
        assert_str(claims.ip, "192.0.2.0/24");
        assert_str(claims.kid, "k2");
        assert_int_equal(claims.key_index, 1);
        assert_str(answer_of(&keys, buf_str(&b), NOW, "192.0.3.7", STR("US"), &claims).reason, "address");
        assert_str(answer_of(&keys, buf_str(&b), NOW, "192.0.2.7", STR("US"), &claims).reason, "geo");
        assert_str(answer_of(&keys, buf_str(&b), NOW, "192.0.2.7", STR_NONE, &claims).reason, "geo");
        assert_int_equal(answer_of(&keys, buf_str(&b), NOW + 65, "192.0.2.7", STR("SE"), &claims).status,
                         200);
        assert_str(answer_of(&keys, buf_str(&b), NOW + 66, "192.0.2.7", STR("SE"), &claims).reason,
                   "expired");
    }
}

/* No bit of a signed URL may change, but where bits mean the same. */
static void no_byte_may_change(void **state)
{
    struct signed_url_keys keys = two_keys();
    struct signed_url_grant grant = {.kid = STR("k2"), .exp_s = NOW + 60, .uid = STR("u1"), .geo = STR("SE")};
    struct signed_url_claims claims;
    char text[256];
    struct buf b = buf_of(text, sizeof text);

    (void)state;
    for (int in_path = 0; in_path < 2; in_path++) {
        b.n = 0;
        assert_int_equal((in_path ? signed_url_sign_path
                                  : signed_url_sign_query)(&keys, &grant, STR("/a/b/c.ogg"), STR_NONE, &b),
                         0);
        for (size_t i = 0; i < b.n; i++)
            for (unsigned bit = 0; bit < 8; bit++) {
                text[i] ^= (char)(1u << bit);
                assert_int_not_equal(
                    answer_of(&keys, buf_str(&b), NOW, "192.0.2.7", STR("SE"), &claims).status, 200);
                text[i] ^= (char)(1u << bit);
            }
        for (size_t n = 0; n < b.n; n++) /* nor may the end be missing */
            if (!in_path || n < b.n - strlen("/a/b/c.ogg"))
                assert_int_not_equal(
                    answer_of(&keys, str_of(text, n), NOW, "192.0.2.7", STR("SE"), &claims).status, 200);
    }
}

static void keys_rotate(void **state)
{
    struct signed_url_keys keys = two_keys(), one;
    struct signed_url_grant grant = {.exp_s = NOW + 500, .kid = STR("k1")};
    struct signed_url_claims claims;
    char text[256];
    struct buf b = buf_of(text, sizeof text);
    const char *kid;

    (void)state;
    assert_int_equal(signed_url_sign_query(&keys, &grant, STR("/a"), STR_NONE, &b), 0);
    assert_int_equal(answer_of(&keys, buf_str(&b), NOW - 101, "::1", STR_NONE, &claims).status, 403);
    assert_int_equal(answer_of(&keys, buf_str(&b), NOW - 100, "::1", STR_NONE, &claims).status, 200);
    assert_int_equal(answer_of(&keys, buf_str(&b), NOW + 100, "::1", STR_NONE, &claims).status, 200);
    assert_str(answer_of(&keys, buf_str(&b), NOW + 101, "::1", STR_NONE, &claims).reason, "signature");

    assert_int_equal(signed_url_keys_set_default(&keys, STR("k3")), -2);
    grant.kid = STR_NONE;
    b.n = 0;
    assert_int_equal(signed_url_sign_query(&keys, &grant, STR("/a"), STR_NONE, &b),
                     -2); /* two keys, none named */
    assert_int_equal(signed_url_keys_set_default(&keys, STR("k2")), 0);
    assert_int_equal(signed_url_sign_query(&keys, &grant, STR("/a"), STR_NONE, &b), 0);
    kid = memmem(b.p, b.n, "kid=k2", 6);
    assert_non_null(kid); /* signers always send it */

    /* A URL without kid, by the string to sign as interfaces.md writes it. */
    signed_url_keys_init(&one);
    add_key(&one, "k1", "c2VndWUtdGVzdC1rZXktb25lLTAxMjM0NTY3ODlhYmM=");
    assert_int_equal(answer_of(&one,
                               STR("/tracks/3n3Ppam7vgaVa1iaRUc9Lp/320/7.ogg?exp=1790003600&sig="
                                   "FOb0ASDd85-uUvNVLmNRTvT5HI1m1n3pbohxY_gyUZ4"),
                               NOW, "::1", STR_NONE, &claims)
                         .status,
                     200);

    assert_int_equal(signed_url_keys_add(&keys, STR("k2"), STR("x"), 0, 0), -17);
    assert_int_equal(signed_url_keys_add(&keys, STR("a b"), STR("x"), 0, 0), -22);
    assert_int_equal(signed_url_keys_add(&keys, STR(""), STR("x"), 0, 0), -22);
    assert_int_equal(signed_url_keys_add(&keys, STR("k9"), STR(""), 0, 0), -22);
    for (unsigned i = 2; i < SIGNED_URL_KEYS_MAX; i++)
        assert_int_equal(signed_url_keys_add(&keys, str_of(&"ABCDEFGHIJKLMNOP"[i], 1), STR("x"), 0, 0), 0);
    assert_int_equal(signed_url_keys_add(&keys, STR("k9"), STR("x"), 0, 0), -28);
    signed_url_keys_clear(&keys);
    assert_int_equal(keys.n, 0);
    assert_int_equal(keys.at[0].hmac.inner[0], 0);
}

static void refuses_to_sign(void **state)
{
    static const struct {
        struct signed_url_grant grant;
        struct str path, query;
    } bad[] = {
        {{.uid = STR_INIT("a b")}, STR_INIT("/a/b"), STR_INIT("")},
        {{.uid = STR_INIT("a&exp=1")}, STR_INIT("/a/b"), STR_INIT("")},
        {{.uid = STR_INIT("a;b")}, STR_INIT("/a/b"), STR_INIT("")},
        {{.uid = STR_INIT("a%41")}, STR_INIT("/a/b"), STR_INIT("")},
        {{.geo = STR_INIT("se")}, STR_INIT("/a/b"), STR_INIT("")},
        {{.geo = STR_INIT("SE,")}, STR_INIT("/a/b"), STR_INIT("")},
        {{.geo = STR_INIT("-")}, STR_INIT("/a/b"), STR_INIT("")},
        {{.ip = STR_INIT("10.0.0.0/33")}, STR_INIT("/a/b"), STR_INIT("")},
        {{.pfx = STR_INIT("/x/")}, STR_INIT("/a/b"), STR_INIT("")},
        {{.pfx = STR_INIT("/a")}, STR_INIT("/a/b"), STR_INIT("")},
        {{.uid = STR_INIT("u")}, STR_INIT("/a/../b"), STR_INIT("")},
        {{.uid = STR_INIT("u")}, STR_INIT("a"), STR_INIT("")},
        {{.uid = STR_INIT("u")}, STR_INIT("/a?b"), STR_INIT("")},
        {{.uid = STR_INIT("u")}, STR_INIT("/~x/b"), STR_INIT("")},
        {{.uid = STR_INIT("u")}, STR_INIT("/a"), STR_INIT("sig=x")},
        {{.exp_s = 100000000000}, STR_INIT("/a"), STR_INIT("")},
    };
    struct signed_url_keys keys = two_keys();
    char text[512];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        for (int in_path = 0; in_path < 2; in_path++) {
            struct signed_url_grant grant = bad[i].grant;
            struct buf b = buf_of(text, sizeof text);

            grant.kid = STR("k2");
            grant.exp_s = grant.exp_s ? grant.exp_s : NOW;
            assert_int_equal((in_path ? signed_url_sign_path
                                      : signed_url_sign_query)(&keys, &grant, bad[i].path, bad[i].query, &b),
                             -22);
            assert_int_equal(b.n, 0);
        }
}

static void splits(void **state)
{
    struct signed_url_parts p;

    (void)state;
    p = signed_url_split(STR("/~a=b;c=%2Fd/e/f?g/h"));
    assert_str(p.token, "a=b;c=%2Fd");
    assert_str(p.path, "/e/f");
    assert_str(p.query, "g/h");
    p = signed_url_split(STR("/e?/~x/"));
    assert_null(p.token.p);
    assert_str(p.path, "/e");
    assert_str(p.query, "/~x/");
    p = signed_url_split(STR("/~a"));
    assert_str(p.token, "a");
    assert_str(p.path, "");
    p = signed_url_split(STR("/~"));
    assert_non_null(p.token.p);
    assert_str(p.path, "");
    p = signed_url_split(STR("/~/x"));
    assert_non_null(p.token.p);
    assert_str(p.path, "/x");
    p = signed_url_split(STR("/a/~b/c"));
    assert_null(p.token.p);
    assert_null(p.query.p);
    p = signed_url_split(STR("/%7Ea/c"));
    assert_null(p.token.p);
}

/* The longest target that the parser lets pass, and what is longer: an answer, never a byte out of bounds. */
static void any_length(void **state)
{
    struct signed_url_keys keys = two_keys();
    struct signed_url_claims claims;
    struct signed_url_grant grant = {.kid = STR("k2"), .exp_s = NOW + 5};
    static char path[2 * HTTP_TARGET_BYTES_MAX], text[2 * HTTP_TARGET_BYTES_MAX];
    struct buf b = buf_of(text, sizeof text);
    size_t sig_n;

    (void)state;
    memset(path, 'a', sizeof path);
    path[0] = '/';
    assert_int_equal(signed_url_sign_query(&keys, &grant, STR("/"), STR_NONE, &b), 0);
    sig_n = b.n - 1;
    for (int extra = 0; extra < 2; extra++) {
        b.n = 0;
        assert_int_equal(signed_url_sign_query(&keys, &grant,
                                               str_of(path, HTTP_TARGET_BYTES_MAX - sig_n + (unsigned)extra),
                                               STR_NONE, &b),
                         extra ? -22 : 0);
    }
    b.n = 0;
    signed_url_sign_query(&keys, &grant, str_of(path, HTTP_TARGET_BYTES_MAX - sig_n), STR_NONE, &b);
    assert_int_equal(b.n, HTTP_TARGET_BYTES_MAX);
    assert_int_equal(answer_of(&keys, buf_str(&b), NOW, "::1", STR_NONE, &claims).status, 200);

    struct signed_url_parts parts = {.path = str_of(path, sizeof path),
                                     .token = STR_NONE,
                                     .query = str_skip(buf_str(&b), HTTP_TARGET_BYTES_MAX - sig_n + 1)};
    static struct signed_url_scratch scratch;
    struct ip address = {{0}};
    struct signed_url_client client = {.address = &address};
    assert_int_equal(signed_url_verify(&keys, &policy, &parts, NOW, &client, &scratch, &claims),
                     SIGNED_URL_MALFORMED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_vector),
        cmocka_unit_test(signs_the_first_vector),
        cmocka_unit_test(signs_what_verifies),
        cmocka_unit_test(no_byte_may_change),
        cmocka_unit_test(keys_rotate),
        cmocka_unit_test(refuses_to_sign),
        cmocka_unit_test(splits),
        cmocka_unit_test(any_length),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
