#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/access_log.h"
#include "util/clock.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static void assert_scrubs(const char *from, const char *to)
{
    struct grow out = grow_of(1000000);

    access_log_scrub(&out, str_z(from));
    if (out.n != strlen(to) || memcmp(out.p, to, out.n) != 0)
        fail_msg("%s became %.*s, not %s", from, (int)out.n, out.p, to);
    grow_free(&out);
}

static void takes_signatures_out(void **state)
{
    (void)state;
    /* the two places of the contract */
    assert_scrubs("/t/7.ogg?exp=1&kid=k&sig=SECRET", "/t/7.ogg?exp=1&kid=k&sig=-");
    assert_scrubs("/t/7.ogg?sig=SECRET&exp=1", "/t/7.ogg?sig=-&exp=1");
    assert_scrubs("/t?sig=SECRET&x=1&sig=SECRET2", "/t?sig=-&x=1&sig=-");
    assert_scrubs("/~depth=3;exp=1;sig=SECRET/t/7.ogg?v=1", "/~depth=3;exp=1;sig=-/t/7.ogg?v=1");
    assert_scrubs("/~sig=SECRET;exp=1/t", "/~sig=-;exp=1/t");
    assert_scrubs("/~exp=1;sig=SECRET", "/~exp=1;sig=-");
    assert_scrubs("/~exp=1;sig=SECRET?sig=SECRET", "/~exp=1;sig=-?sig=-");
    /* case and encoding, once, twice and mixed */
    assert_scrubs("/t?SIG=SECRET&Sig=SECRET", "/t?SIG=-&Sig=-");
    assert_scrubs("/t?%73ig=SECRET", "/t?%73ig=-");
    assert_scrubs("/t?%53%49%47=SECRET", "/t?%53%49%47=-");
    assert_scrubs("/t?s%69%67%3DSECRET", "/t?s%69%67%3D-");
    assert_scrubs("/t?%2573i%2567%253dSECRET", "/t?%2573i%2567%253d-");
    assert_scrubs("/%7eexp=1%3Bsig%3DSECRET/t", "/%7eexp=1%3Bsig%3D-/t");
    assert_scrubs("/~exp=1;sig%3dSECRET/t", "/~exp=1;sig%3d-/t");
    /* a URL inside a parameter */
    assert_scrubs("/p?u=http%3A%2F%2Fh%2Ft%3Fexp%3D1%26sig%3DSECRET%26kid%3Dk&z=1",
                  "/p?u=http%3A%2F%2Fh%2Ft%3Fexp%3D1%26sig%3D-&z=1");
    assert_scrubs("/p?u=/~exp=1;sig=SECRET/t&z=1", "/p?u=/~exp=1;sig=-&z=1");
    /* the value as a whole, whatever is in it */
    assert_scrubs("/t?sig=SEC;RET/SEC=RET?SECRET&z=1", "/t?sig=-&z=1");
    assert_scrubs("/t?sig=SEC%26RET%3BSECRET%00&z=1", "/t?sig=-&z=1");
    assert_scrubs("/~sig=SEC&RET=SECRET;exp=1/t", "/~sig=-;exp=1/t");
    assert_scrubs("/~sig=SEC%2FRET/t", "/~sig=-/t");
    assert_scrubs("https://h/t?sig=SECRET#frag", "https://h/t?sig=-#frag");
    assert_scrubs("sig=SECRET", "sig=-");
}

static void leaves_the_rest_as_it_is(void **state)
{
    static const char *const same[] = {
        "",
        "/",
        "/sig/t",
        "/t?design=1&sign=2&signature=3&xsig=4&x_sig=5&assig=6",
        "/t?sig",
        "/t?sig=",
        "/t?sig&x=1",
        "/t?%",
        "/t?%7",
        "/t?s%69",
        "/t?%zzsi%gg=1",
        "/t?a=%73%69%67",
        "/sigma?x=sig",
    };

    (void)state;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        assert_scrubs(same[i], same[i]);
}

enum { TARGET_MAX = 512 };

static void add(char *text, const char *more)
{
    size_t n = strlen(text);

    snprintf(text + n, TARGET_MAX - n, "%s", more);
}

/* Whatever stands around it and however the name is spelt: the value never comes out. */
static void random_targets_never_show_one(void **state)
{
    static const char secret[] = "Zx9QzSECRETvalue-_0123456789abcdefghijklmno";
    static const char *const noise[] = {"/",   "?",   "&",   ";", "~",  "%",  "=",  "a",
                                        "sig", "%26", "%3f", "1", "%2", "#",  " ",  "exp=1",
                                        "s",   "%25", "%73", "i", "g",  "\"", "\\", "\xff"};
    static const char *const leads[] = {"?", "&", ";", "/~", "~", "%26", "%3F", "%253B", "%7E"};
    static const char *const s[] = {"s", "S", "%73", "%53", "%2573", "%252573"};
    static const char *const i_[] = {"i", "I", "%69", "%49", "%2569"};
    static const char *const g[] = {"g", "G", "%67", "%47", "%2547"};
    static const char *const eq[] = {"=", "%3D", "%3d", "%253D"};

#define PICK(a) a[(unsigned)rand() % (sizeof(a) / sizeof *(a))]
    (void)state;
    srand(1);
    for (int round = 0; round < 200000; round++) {
        char text[TARGET_MAX] = "/";
        struct grow out = grow_of(1024);

        for (int n = rand() % 8; n > 0; n--)
            add(text, PICK(noise));
        add(text, PICK(leads));
        add(text, PICK(s));
        add(text, PICK(i_));
        add(text, PICK(g));
        add(text, PICK(eq));
        add(text, secret);
        for (int n = rand() % 6; n > 0; n--)
            add(text, PICK(noise));
        access_log_scrub(&out, str_z(text));
        assert_true(out.n <= strlen(text));
        if (memmem(out.p, out.n, secret, sizeof secret - 1) != NULL)
            fail_msg("%s became %.*s", text, (int)out.n, out.p);
        grow_free(&out);
    }
}

static struct access_record sample(void)
{
    struct access_record r = {
        .unix_ns = 1790000000ull * NS_PER_S + 7 * NS_PER_MS,
        .ttfb_ns = 123456,
        .total_ns = 2 * NS_PER_S + 5,
        .body_bytes = 409600,
        .sent_bytes = 410000,
        .status = 206,
        .worker = 3,
        .cache = ACCESS_CACHE_HIT,
        .http_version = 11,
        .method = STR("GET"),
        .target = STR("/tracks/a/320/7.ogg?exp=1&uid=u42&sig=SECRET"),
        .host = STR("audio.example.net"),
        .uid = STR("u42"),
        .kid = STR("k1"),
        .range = STR("bytes=0-1"),
        .user_agent = STR("Player/1 \"x\\\" \xc3\xa9 \xff\n"),
        .referer = STR("https://p.example/?sig=SECRET&a=1"),
    };

    assert_int_equal(address_parse(STR("192.0.2.9:5555"), 0, &r.client), 0);
    return r;
}

static void assert_string_member(json_t *object, const char *name, const char *want)
{
    const char *got = json_string_value(json_object_get(object, name));

    assert_non_null(got);
    assert_string_equal(got, want);
}

static void json_is_one_object_a_line(void **state)
{
    struct access_record r = sample();
    struct grow out = grow_of(1000000);
    json_error_t error;
    json_t *o;

    (void)state;
    access_log_format(&out, ACCESS_LOG_JSON, &r);
    assert_int_equal(out.p[out.n - 1], '\n');
    assert_ptr_equal(memchr(out.p, '\n', out.n), out.p + out.n - 1);
    assert_null(memmem(out.p, out.n, "SECRET", 6));
    o = json_loadb(out.p, out.n, JSON_REJECT_DUPLICATES, &error);
    assert_non_null(o);
    assert_string_member(o, "time", "2026-09-21T14:13:20.007Z");
    assert_string_member(o, "client", "192.0.2.9");
    assert_string_member(o, "target", "/tracks/a/320/7.ogg?exp=1&uid=u42&sig=-");
    assert_string_member(o, "referer", "https://p.example/?sig=-&a=1");
    assert_string_member(o, "user_agent", "Player/1 \"x\\\" \xc3\xa9 \xef\xbf\xbd\n");
    assert_string_member(o, "cache", "hit");
    assert_string_member(o, "protocol", "HTTP/1.1");
    assert_string_member(o, "range", "bytes=0-1");
    assert_int_equal(json_integer_value(json_object_get(o, "client_port")), 5555);
    assert_int_equal(json_integer_value(json_object_get(o, "status")), 206);
    assert_int_equal(json_integer_value(json_object_get(o, "body_bytes")), 409600);
    assert_int_equal(json_integer_value(json_object_get(o, "sent_bytes")), 410000);
    assert_int_equal(json_integer_value(json_object_get(o, "worker")), 3);
    assert_true(json_real_value(json_object_get(o, "ttfb")) == 0.000123);
    assert_true(json_real_value(json_object_get(o, "duration")) == 2.0);
    assert_null(json_object_get(o, "reason")); /* what is empty is left out */
    assert_null(json_object_get(o, "country"));
    assert_null(json_object_get(o, "upstream"));
    assert_null(json_object_get(o, "aborted"));
    json_decref(o);

    r.upstream = STR("http://o.example/?sig=SECRET");
    r.upstream_status = 200;
    r.upstream_ns = 1500000;
    r.aborted = r.cut = true;
    memcpy(r.country, "SE", 2);
    out.n = 0;
    access_log_format(&out, ACCESS_LOG_JSON, &r);
    o = json_loadb(out.p, out.n, JSON_REJECT_DUPLICATES, &error);
    assert_non_null(o);
    assert_string_member(o, "upstream", "http://o.example/?sig=-");
    assert_string_member(o, "country", "SE");
    assert_true(json_is_true(json_object_get(o, "aborted")) && json_is_true(json_object_get(o, "cut")));
    assert_true(json_real_value(json_object_get(o, "upstream_ttfb")) == 0.0015);
    json_decref(o);
    grow_free(&out);
}

static void combined_is_what_tools_read(void **state)
{
    static const char want[] =
        "192.0.2.9 - u42 [21/Sep/2026:14:13:20 +0000] "
        "\"GET /tracks/a/320/7.ogg?exp=1&uid=u42&sig=- HTTP/1.1\" 206 409600 "
        "\"https://p.example/?sig=-&a=1\" \"Player/1 \\x22x\\x5C\\x22 \\xC3\\xA9 \\xFF\\x0A\"\n";
    static const char bare[] =
        "2001:db8::1 - a\\x20b [01/Jan/1970:00:00:00 +0000] \" /? HTTP/1.1\" 000 0 \"-\" \"-\"\n";
    struct access_record r = sample();
    struct grow out = grow_of(1000000);

    (void)state;
    access_log_format(&out, ACCESS_LOG_COMBINED, &r);
    grow_add_char(&out, 0);
    assert_string_equal(out.p, want);
    r = (struct access_record){.uid = STR("a b"), .target = STR("/?")};
    assert_int_equal(address_parse_ip(STR("2001:db8::1"), &r.client), 0);
    out.n = 0;
    access_log_format(&out, ACCESS_LOG_COMBINED, &r);
    grow_add_char(&out, 0);
    assert_string_equal(out.p, bare);
    grow_free(&out);
}

static void any_bytes_make_one_valid_line(void **state)
{
    (void)state;
    srand(2);
    for (int round = 0; round < 3000; round++) {
        char noise[300];
        struct access_record r = sample();
        struct grow out = grow_of(1000000);
        json_error_t error;
        json_t *o;

        for (size_t i = 0; i < sizeof noise; i++)
            noise[i] = (char)rand();
        r.target = r.user_agent = r.uid = r.host = r.method = str_of(noise, (size_t)rand() % sizeof noise);
        access_log_format(&out, ACCESS_LOG_JSON, &r);
        assert_ptr_equal(memchr(out.p, '\n', out.n), out.p + out.n - 1);
        o = json_loadb(out.p, out.n, JSON_ALLOW_NUL, &error);
        assert_non_null(o);
        json_decref(o);
        out.n = 0;
        access_log_format(&out, ACCESS_LOG_COMBINED, &r);
        assert_ptr_equal(memchr(out.p, '\n', out.n), out.p + out.n - 1);
        for (size_t i = 0; i + 1 < out.n; i++)
            assert_true(out.p[i] >= 0x20 && out.p[i] < 0x7f);
        grow_free(&out);
    }
}

static void say_what_it_costs(void **state)
{
    struct access_record r = sample();
    struct grow out = grow_of(1000000);

    (void)state;
    r.user_agent = STR("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/120.0 Safari/537.36");
    for (int format = ACCESS_LOG_JSON; format <= ACCESS_LOG_COMBINED; format++) {
        uint64_t start_ns = clock_mono_ns();

        for (int i = 0; i < 20000; i++) {
            out.n = 0;
            access_log_format(&out, (enum access_log_format)format, &r);
        }
        printf("format %d: %.0f ns a line of %zu bytes\n", format,
               (double)(clock_mono_ns() - start_ns) / 20000, out.n);
        assert_false(out.failed);
    }
    grow_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_signatures_out),
        cmocka_unit_test(leaves_the_rest_as_it_is),
        cmocka_unit_test(random_targets_never_show_one),
        cmocka_unit_test(json_is_one_object_a_line),
        cmocka_unit_test(combined_is_what_tools_read),
        cmocka_unit_test(any_bytes_make_one_valid_line),
        cmocka_unit_test(say_what_it_costs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
