#include "http/vary.h"

#include "head.h"

static int names(const char *lines, char text[HTTP_VARY_BYTES_MAX], struct str *out)
{
    struct test_head h;
    struct buf b = buf_of(text, HTTP_VARY_BYTES_MAX);
    int n = vary_names(test_fields(&h, lines), h.text, &b);

    *out = buf_str(&b);
    return n;
}

static void collects_names(void **state)
{
    char text[HTTP_VARY_BYTES_MAX];
    struct str s;

    (void)state;
    assert_int_equal(names("", text, &s), 0);
    assert_int_equal(names("Vary:\r\n", text, &s), 0);
    assert_int_equal(names("Vary: Origin, accept\r\nVary: ORIGIN,,Accept-Encoding\r\n", text, &s), 3);
    assert_str(s, "accept,accept-encoding,origin");
    assert_int_equal(names("Vary: *\r\n", text, &s), -22);
    assert_int_equal(names("Vary: a\r\nVary: b, *\r\n", text, &s), -22);
    assert_int_equal(names("Vary: a b\r\n", text, &s), -22);
    assert_int_equal(names("Vary: a,b,c,d,e,f,g,h\r\n", text, &s), 8);
    assert_int_equal(names("Vary: a,b,c,d,e,f,g,h,A\r\n", text, &s), 8);
    assert_int_equal(names("Vary: a,b,c,d,e,f,g,h,i\r\n", text, &s), -28);
}

static void limit_of_bytes(void **state)
{
    char line[400], text[HTTP_VARY_BYTES_MAX];
    struct str s;

    (void)state;
    for (int extra = 0; extra < 2; extra++) {
        int n = (int)HTTP_VARY_BYTES_MAX - 2 + extra;

        snprintf(line, sizeof line, "Vary: b,%0*d\r\n", n, 1);
        assert_int_equal(names(line, text, &s), extra ? -28 : 2);
    }
}

static struct hash128 key(const char *vary, const char *request)
{
    struct test_head h;

    return vary_key(str_z(vary), test_fields(&h, request), h.text);
}

static bool same(const char *vary, const char *a, const char *b)
{
    return hash_eq(key(vary, a), key(vary, b));
}

static void keys(void **state)
{
    (void)state;
    assert_true(same("", "Accept: a\r\n", "Accept: b\r\n"));
    assert_true(same("accept", "Accept: a\r\nOrigin: x\r\n", "Origin: y\r\naccept: a\r\n"));
    assert_false(same("accept", "Accept: a\r\n", "Accept: b\r\n"));
    assert_false(same("accept", "Accept: a\r\n", "Accept: A\r\n"));
    assert_true(same("accept", "Accept: a,b\r\n", "Accept: a\r\nAccept:  b ,\r\n"));
    assert_false(same("accept", "Accept: a,b\r\n", "Accept: b,a\r\n"));
    assert_false(same("accept", "Accept: a\r\n", "Accept: a,a\r\n"));
    assert_false(same("accept", "", "Accept:\r\n"));
    assert_true(same("accept-encoding", "Accept-Encoding: GZIP\r\n", "Accept-Encoding: gzip\r\n"));
    assert_true(same("x-one", "X-One: 1\r\n", "x-one: 1\r\n"));
    assert_false(same("x-one", "X-One: 1\r\n", "X-One: 2\r\n"));
    /* A value does not slip from one field into the other. */
    assert_false(same("a,b", "A: x\r\n", "B: x\r\n"));
    assert_false(same("a,b", "A: x\r\nB: y\r\n", "A: y\r\nB: x\r\n"));
    assert_false(same("a,b", "A: x,b,y\r\n", "A: x\r\nB: y\r\n"));
    assert_false(same("a,b", "A: \"x,y\"\r\n", "A: \"x\",\"y\"\r\n"));
}

static void long_values(void **state)
{
    char a[1800], b[1800];

    (void)state;
    for (int n = 900; n < 1100; n += 7) { /* around the size at which bytes are folded */
        snprintf(a, sizeof a, "A: %0*d\r\nB: 1\r\n", n, 1);
        snprintf(b, sizeof b, "A: %0*d\r\nB: 2\r\n", n, 1);
        assert_true(same("a,b", a, a));
        assert_false(same("a,b", a, b));
        snprintf(b, sizeof b, "A: %0*d\r\nB: 1\r\n", n, 2);
        assert_false(same("a,b", a, b));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(collects_names),
        cmocka_unit_test(limit_of_bytes),
        cmocka_unit_test(keys),
        cmocka_unit_test(long_values),
    };

    hash_init_fixed(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
