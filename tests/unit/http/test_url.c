#include "http/url.h"

#include "../unit.h"

static int judge(struct str raw, char *scratch, struct str *canonical)
{
    return url_path_canonical(raw, scratch, canonical);
}

static void becomes(const char *raw, const char *expected)
{
    char scratch[256], again[256];
    struct str canonical, twice;

    assert_int_equal(judge(str_z(raw), scratch, &canonical), 0);
    assert_int_equal(canonical.n, strlen(expected));
    assert_memory_equal(canonical.p, expected, canonical.n);
    assert_int_equal(judge(canonical, again, &twice), 0);
    assert_true(str_eq(canonical, twice));
}

static void canonical_paths(void **state)
{
    (void)state;
    becomes("/", "/");
    becomes("/a/b.ogg", "/a/b.ogg");
    becomes("/artists/", "/artists/"); /* a directory's name */
    becomes("/%61/%2d%2E%5f%7ex", "/a/-._~x");
    becomes("/a%20b%c3%a9%3b", "/a%20b%C3%A9%3B");
    becomes("/%25%0a%7F", "/%25%0A%7F");
    becomes("/a;b=c,d@e:f!$&'()*+", "/a;b=c,d@e:f!$&'()*+");
    becomes("/...", "/...");
    becomes("/.a/..b/a../a.", "/.a/..b/a../a.");
    becomes("/%2e%2e%2e", "/...");
    becomes("/~u/x", "/~u/x");
    becomes("/%2561", "/%2561"); /* decoded once only */
    becomes("/\"<>[]^`{|}", "/\"<>[]^`{|}");
}

static void refused_paths(void **state)
{
    static const struct {
        struct str path;
        int error;
    } bad[] = {
        {STR_INIT(""), URL_NOT_ABSOLUTE},          {STR_INIT("a"), URL_NOT_ABSOLUTE},
        {STR_INIT("*"), URL_NOT_ABSOLUTE},         {STR_INIT("%2Fa"), URL_NOT_ABSOLUTE},
        {STR_INIT("//"), URL_EMPTY_SEGMENT},       {STR_INIT("//a"), URL_EMPTY_SEGMENT},
        {STR_INIT("/a//b"), URL_EMPTY_SEGMENT},    {STR_INIT("/a//"), URL_EMPTY_SEGMENT},
        {STR_INIT("/."), URL_DOT_SEGMENT},         {STR_INIT("/.."), URL_DOT_SEGMENT},
        {STR_INIT("/./a"), URL_DOT_SEGMENT},       {STR_INIT("/a/../b"), URL_DOT_SEGMENT},
        {STR_INIT("/a/.."), URL_DOT_SEGMENT},      {STR_INIT("/a/../"), URL_DOT_SEGMENT},
        {STR_INIT("/%2e"), URL_DOT_SEGMENT},       {STR_INIT("/.%2E/a"), URL_DOT_SEGMENT},
        {STR_INIT("/a/%2e%2e/"), URL_DOT_SEGMENT}, {STR_INIT("/a%2fb"), URL_ENCODED_SLASH},
        {STR_INIT("/a%2F"), URL_ENCODED_SLASH},    {STR_INIT("/a%5cb"), URL_ENCODED_SLASH},
        {STR_INIT("/a%5Cb"), URL_ENCODED_SLASH},   {STR_INIT("/a%00"), URL_ENCODED_NUL},
        {STR_INIT("/a\\b"), URL_BAD_BYTE},         {STR_INIT("/a b"), URL_BAD_BYTE},
        {STR_INIT("/a\tb"), URL_BAD_BYTE},         {STR_INIT("/a\0b"), URL_BAD_BYTE},
        {STR_INIT("/a\x7f"), URL_BAD_BYTE},        {STR_INIT("/\xc3\xa9"), URL_BAD_BYTE},
        {STR_INIT("/a#b"), URL_BAD_BYTE},          {STR_INIT("/a?b"), URL_BAD_BYTE},
        {STR_INIT("/%"), URL_BAD_ESCAPE},          {STR_INIT("/%4"), URL_BAD_ESCAPE},
        {STR_INIT("/%zz"), URL_BAD_ESCAPE},        {STR_INIT("/%4g"), URL_BAD_ESCAPE},
        {STR_INIT("/%%41"), URL_BAD_ESCAPE},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char *exact = exact_copy(bad[i].path.p, bad[i].path.n),
             *scratch = exact_copy(bad[i].path.p, bad[i].path.n);
        struct str canonical;

        assert_int_equal(judge(str_of(exact, bad[i].path.n), scratch, &canonical), -bad[i].error);
        free(exact);
        free(scratch);
    }
    for (int e = 1; e < URL_ERROR_COUNT; e++)
        assert_true(strlen(url_error_reason(-e)) > 3);
}

/* Every byte alone, raw and escaped, against the words of interfaces.md. */
static void every_byte(void **state)
{
    char scratch[8];
    struct str canonical;

    (void)state;
    for (int c = 0; c < 256; c++) {
        char raw[] = {'/', 'x', (char)c, 'y'}, escaped[8], upper[8];
        bool bad = c <= ' ' || c >= 0x7f || c == '\\' || c == '#' || c == '?' || c == '%';
        bool unreserved = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                          (c && strchr("-._~", c));

        assert_int_equal(judge(str_of(raw, 4), scratch, &canonical) < 0, bad);
        snprintf(escaped, sizeof escaped, "/x%%%02xy", (unsigned)c);
        snprintf(upper, sizeof upper, unreserved ? "/x%cy" : "/x%%%02Xy", (unsigned)c);
        if (c == 0 || c == '/' || c == '\\')
            assert_true(judge(str_z(escaped), scratch, &canonical) < 0);
        else
            becomes(escaped, upper);
    }
}

static void segments(void **state)
{
    static const struct {
        const char *path, *joined;
    } cases[] = {{"/", "[]"}, {"/a", "[a]"}, {"/a/b", "[a][b]"}, {"/a/", "[a][]"}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct str rest = str_z(cases[i].path), segment;
        char text[64];
        struct buf b = buf_of(text, sizeof text);

        while (url_segment_next(&rest, &segment))
            buf_printf(&b, "[" STR_FMT "]", STR_ARG(segment));
        assert_true(str_eq(buf_str(&b), str_z(cases[i].joined)));
    }
}

static void targets(void **state)
{
    struct url_target t = url_target_split(STR("/a?b?c"));

    (void)state;
    assert_str(t.path, "/a");
    assert_str(t.query, "b?c");
    t = url_target_split(STR("/a?"));
    assert_str(t.query, "");
    assert_non_null(t.query.p);
    t = url_target_split(STR("/a"));
    assert_null(t.query.p);
    t = url_target_split(STR("?"));
    assert_str(t.path, "");
}

static void kept(const char *query, const char *only, const char *all_but)
{
    const struct str names[] = {STR_INIT("v"), STR_INIT("a b")};
    char text[128], again[128];
    struct buf b = buf_of(text, sizeof text), c = buf_of(again, sizeof again);

    url_query_keep(str_z(query), names, 2, &b);
    assert_true(str_eq(buf_str(&b), str_z(only)));
    b.n = 0;
    url_query_keep_all_but(str_z(query), names, 2, &b);
    assert_true(str_eq(buf_str(&b), str_z(all_but)));
    url_query_keep_all_but(buf_str(&b), names, 2, &c);
    assert_true(str_eq(buf_str(&b), buf_str(&c)));
}

static void queries(void **state)
{
    char text[8];
    struct buf b = buf_of(text, sizeof text);

    (void)state;
    kept("", "", "");
    kept("v=1", "v=1", "");
    kept("w=2&v=1&x", "v=1", "w=2&x");
    kept("a%20b=2&v=1&v=0", "v=1&v=0&a%20b=2", "");
    kept("%76=1&V=2", "v=1", "V=2");
    kept("&&x=%7e%2f&=y&v&", "v", "x=~%2F&=y");
    kept("x=%zz%4&y=%%41\xff", "", "x=%25zz%254&y=%25A%FF");
    kept("x==&y=a=b", "", "x==&y=a=b");
    url_query_keep_all_but(STR("x=123456789"), NULL, 0, &b);
    assert_true(b.overflow);
    assert_true(url_name_is(STR("%"), STR("%")));
    assert_false(url_name_is(STR("ab"), STR("abc")));
    assert_false(url_name_is(STR("abc"), STR("ab")));
}

static void hosts(void **state)
{
    static const char *const bad[] = {
        "",    ":80", "a b", "a/b",       "a@b",    "a:x", "a:0",  "a:65536", "a:-1",  "a:80:80", "[::1",
        "::1", "[]",  "[a]", "[1.2.3.4]", "[::1]x", "a,b", "a%20", "[::1]:",  "a\xc3", "a:+80",   "a:000080"};
    struct url_host h, g;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(url_host_parse(str_z(bad[i]), &h), strcmp(bad[i], "[::1]:") == 0 ? 0 : -22);
    assert_int_equal(url_host_parse(STR("Audio.Example.net:8080"), &h), 0);
    assert_str(h.name, "Audio.Example.net");
    assert_int_equal(h.port, 8080);
    assert_int_equal(url_host_parse(STR("[2001:DB8::1]:443"), &h), 0);
    assert_str(h.name, "2001:DB8::1");
    assert_true(h.is_ipv6);
    assert_int_equal(url_host_parse(STR("[2001:db8::1]"), &g), 0);
    assert_true(url_host_eq(&h, &g, 443));
    assert_false(url_host_eq(&h, &g, 80));
    assert_int_equal(url_host_parse(STR("a:"), &g), 0);
    assert_int_equal(g.port, 0);
    assert_false(url_host_eq(&h, &g, 443));
}

static void configured_urls(void **state)
{
    static const char *const bad[] = {
        "",           "http:",       "http://",     "http:///a",     "ftp://a/",
        "a.example",  "http://a:0/", "file://a",    "file:relative", "http://u:p@a/",
        "http://a?q", "http://a/?q", "http://a/#f", "http://a /",    "s3://b"};
    struct url u;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(url_parse(str_z(bad[i]), &u), -22);
    assert_int_equal(url_parse(STR("http://127.0.0.1:8081"), &u), 0);
    assert_int_equal(u.scheme, URL_HTTP);
    assert_str(u.host, "127.0.0.1");
    assert_int_equal(u.port, 8081);
    assert_str(u.path, "");
    assert_int_equal(url_parse(STR("HTTPS://[::1]/x/y"), &u), 0);
    assert_int_equal(u.port, 443);
    assert_str(u.host, "::1");
    assert_true(u.host_is_ipv6);
    assert_str(u.path, "/x/y");
    assert_int_equal(url_parse(STR("file:///srv/audio"), &u), 0);
    assert_int_equal(u.scheme, URL_FILE);
    assert_str(u.path, "/srv/audio");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(canonical_paths), cmocka_unit_test(refused_paths),   cmocka_unit_test(every_byte),
        cmocka_unit_test(segments),        cmocka_unit_test(targets),         cmocka_unit_test(queries),
        cmocka_unit_test(hosts),           cmocka_unit_test(configured_urls),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
