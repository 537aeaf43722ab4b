#include "proxy/rules.h"
#include "util/buf.h"
#include "util/check.h"
#include "util/clock.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct arena arena;

static int teardown(void **state)
{
    (void)state;
    arena_free(&arena);
    return 0;
}

static void test_patterns(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *path;
        bool matches;
    } cases[] = {
        {"/", "/", true},
        {"/", "/a", false},
        {"/a", "/a", true},
        {"/a", "/a/", false},
        {"/a", "/ab", false},
        {"/a/", "/a/", true},
        {"/a/", "/a", false},
        {"/**", "/", true},
        {"/**", "/a", true},
        {"/**", "/a/b/c/", true},
        {"/a/**", "/a", true},
        {"/a/**", "/a/", true},
        {"/a/**", "/a/b", true},
        {"/a/**", "/a/b/c", true},
        {"/a/**", "/ab", false},
        {"/a/**", "/ab/c", false},
        {"/a/**", "/", false},
        {"/*", "/a", true},
        {"/*", "/", false},
        {"/*", "/a/b", false},
        {"/*", "/a/", false},
        {"/*/", "/a/", true},
        {"/a/*/c", "/a/b/c", true},
        {"/a/*/c", "/a/c", false},
        {"/a/*/c", "/a/b/b/c", false},
        {"/**/c", "/c", true},
        {"/**/c", "/a/b/c", true},
        {"/**/c", "/a/b/c/d", false},
        {"/**/c", "/a/c/b/c", true},
        {"/a/**/c", "/a/c", true},
        {"/a/**/c", "/a/x/y/c", true},
        {"/a/**/c", "/a/x/y/cc", false},
        {"/**/a/**/b", "/a/b", true},
        {"/**/a/**/b", "/x/a/y/b", true},
        {"/**/a/**/b", "/x/b/y/a", false},
        {"/**/a/b/**", "/a/a/b", true},
        {"/**/a/*/b", "/a/a/b/b", true},
        {"/**/*/c", "/c", false},
        {"/**/*/c", "/a/c", true},
        {"/**/**/c", "/c", true},
        {"/*/**", "/", false},
        {"/*/**", "/a", true},
        {"/*.m3u8", "/index.m3u8", true},
        {"/*.m3u8", "/.m3u8", true},
        {"/*.m3u8", "/a/index.m3u8", false},
        {"/t/**/*.m3u8", "/t/a/b/index.m3u8", true},
        {"/t/**/*.m3u8", "/t/index.m3u8", true},
        {"/t/**/*.m3u8", "/t/index.m3u8x", false},
        {"/a*b*c", "/aXbbYc", true},
        {"/a*b*c", "/abc", true},
        {"/a*b*c", "/acb", false},
        {"/a*", "/a", true},
        {"/a%2Cb/**", "/a%2Cb/c", true},
        {"/a%2cb", "/a%2Cb", true}, /* written as it may be, compiled as it is canonical */
        {"/%61", "/a", true},
        {"/a", "a", false},
        {"/**", "", true},
        {"/**", "*", false}, /* OPTIONS * never gets here */
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct pattern p;
        const char *why;
        assert_int_equal(pattern_compile(str_z(cases[i].pattern), &arena, &p, &why), 0);
        if (pattern_matches(&p, str_z(cases[i].path)) != cases[i].matches)
            fail_msg("%s on %s is not %d", cases[i].pattern, cases[i].path, cases[i].matches);
    }
}

/* Another spelling of the same bytes, which most origins take for the same file, leads around no rule. */
static void test_escapes(void **state)
{
    static const struct {
        const char *pattern, *path;
        bool matches;
    } cases[] = {
        {"/a+b/**", "/a%2Bb/c", true},    {"/a%2Bb/**", "/a+b/c", true},
        {"/a+b/**", "/a%252Bb/c", false}, {"/(a)/*.ogg", "/%28a%29/%28.ogg", true},
        {"/a*(b)", "/a%2A%28b%29", true}, {"/a%2A", "/a*", true},
        {"/a%2A", "/a%2A", true},         {"/a%2A", "/ab", false},
        {"/a%2A*", "/a*b", true},         {"/a%2A*", "/abb", false},
        {"/%2A%2A/x", "/a/x", false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct rule item = {.index = 0};
        const struct rules rules = {.items = &item, .n = 1, .none = {.index = RULE_INDEX_NONE}};
        const struct str path = str_z(cases[i].path);
        const char *why;

        assert_int_equal(pattern_compile(str_z(cases[i].pattern), &arena, &item.match, &why), 0);
        if (pattern_matches(&item.match, path) != cases[i].matches ||
            (rules_find(&rules, path) == &item) != cases[i].matches)
            fail_msg("%s on %s is not %d", cases[i].pattern, cases[i].path, cases[i].matches);
    }
}

static void test_patterns_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",     "a",     "*",      "/a//b", "/a/../b",
                                      "/a**", "/**.x", "/a/***", "/a b",  "/a%zz",
                                      "/a?b", "/%2F",  "/a\\b",  "/a#b",  "/\xc3\xa9"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct pattern p;
        const char *why = NULL;
        if (pattern_compile(str_z(bad[i]), &arena, &p, &why) != -EINVAL || why == NULL)
            fail_msg("\"%s\" was not refused", bad[i]);
    }
    char longest[PATTERN_BYTES_MAX + 1];
    struct pattern p;
    const char *why;
    memset(longest, 'a', sizeof(longest));
    longest[0] = '/';
    assert_int_equal(pattern_compile(str_of(longest, PATTERN_BYTES_MAX), &arena, &p, &why), 0);
    assert_int_equal(pattern_compile(str_of(longest, PATTERN_BYTES_MAX + 1), &arena, &p, &why), -EINVAL);
}

/* What makes a backtracking matcher take ages. Here it is bounded by path x pattern, some milliseconds. */
static void test_no_blowup(void **state)
{
    (void)state;
    char pattern[PATTERN_BYTES_MAX], path[8192];
    struct buf b = buf_of(pattern, sizeof(pattern));
    while (b.cap - b.n > 8)
        buf_add_lit(&b, "/**/a");
    buf_add_lit(&b, "/b");
    for (size_t i = 0; i < sizeof(path); i++)
        path[i] = i % 2 ? 'a' : '/';
    struct pattern p;
    const char *why;
    assert_int_equal(pattern_compile(buf_str(&b), &arena, &p, &why), 0);
    uint64_t start = clock_mono_ns();
    assert_false(pattern_matches(&p, str_of(path, sizeof(path))));

    b.n = 0;
    buf_add_char(&b, '/');
    while (b.cap - b.n > 8)
        buf_add_lit(&b, "*a");
    buf_add_lit(&b, "*b");
    memset(path + 1, 'a', sizeof(path) - 1);
    assert_int_equal(pattern_compile(buf_str(&b), &arena, &p, &why), 0);
    assert_false(pattern_matches(&p, str_of(path, sizeof(path))));
    assert_true(clock_mono_ns() - start < NS_PER_S);
}

static void test_tracks(void **state)
{
    (void)state;
    static const struct {
        const char *template, *path, *track, *quality, *ext;
        bool matches, has_number;
        uint64_t number;
    } cases[] = {
#define SEGMENTS "/tracks/{track}/{quality}/{n}.{ext}"
        {SEGMENTS, "/tracks/3n3P/320/7.ogg", "3n3P", "320", "ogg", true, true, 7},
        {SEGMENTS, "/tracks/3n3P/320/007.ogg", "3n3P", "320", "ogg", true, true, 7},
        {SEGMENTS, "/tracks/a/b/18446744073709551615.o", "a", "b", "o", true, true, UINT64_MAX},
        {SEGMENTS, "/tracks/a/b/18446744073709551616.o", .matches = false},
        {SEGMENTS, "/tracks/3n3P/320/index.m3u8", .matches = false},
        {SEGMENTS, "/tracks/3n3P/320/7.", .matches = false},
        {SEGMENTS, "/tracks/3n3P/320/.ogg", .matches = false},
        {SEGMENTS, "/tracks/3n3P/320/7.tar.gz", .matches = false},
        {SEGMENTS, "/tracks/3n3P/320/7.ogg/", .matches = false},
        {SEGMENTS, "/tracks/3n3P/7.ogg", .matches = false},
        {SEGMENTS, "/tracks//320/7.ogg", .matches = false},
        {SEGMENTS, "/tracks/a/b/c/7.ogg", .matches = false},
        {SEGMENTS, "/images/a/b/7.ogg", .matches = false},
        {SEGMENTS, "/tracks/", .matches = false},
        {SEGMENTS, "", .matches = false},
        {"/{track}.{ext}", "/a.b.ogg", "a.b", "", "ogg", true, false, 0},
        {"/{track}-{n}.{ext}", "/a-b-7.ogg", .matches = false}, /* the shortest run: track is "a" */
        {"/{track}-{n}.{ext}", "/ab-7.ogg", "ab", "", "ogg", true, true, 7},
        {"/{track}", "/ab", "ab", "", "", true, false, 0},
        {"/{track}", "/", .matches = false},
        {"/{track}/", "/ab/", "ab", "", "", true, false, 0},
        {"/p/{track}_{quality}/seg{n}", "/p/x_hi/seg12", "x", "hi", "", true, true, 12},
        {"/{quality}/{track}.{ext}/{n}", "/hi/x.y/3", "x", "hi", "y", true, true, 3},
        {"/{track}--{quality}", "/a---b", "a", "-b", "", true, false, 0},
        {"/{track}.v1.{ext}", "/a.v1.ogg", "a", "", "ogg", true, false, 0},
        {"/{track}.v1.{ext}", "/a.v2.ogg", .matches = false},
        {"/{track}.v1.{ext}", "/.v1.ogg", .matches = false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct track_template *t;
        struct track_name name;
        const char *why;
        assert_int_equal(track_compile(str_z(cases[i].template), &arena, &t, &why), 0);
        bool matches = track_extract(t, str_z(cases[i].path), &name);
        if (matches != cases[i].matches)
            fail_msg("%s on %s is not %d", cases[i].template, cases[i].path, cases[i].matches);
        if (!matches)
            continue;
        assert_true(str_eq(name.track, str_z(cases[i].track)));
        assert_true(str_eq(name.quality, str_z(cases[i].quality)));
        assert_true(str_eq(name.ext, str_z(cases[i].ext)));
        assert_int_equal(name.has_number, cases[i].has_number);
        assert_int_equal(name.number, cases[i].number);
    }
}

static void test_tracks_refused(void **state)
{
    (void)state;
    static const struct {
        const char *template, *why;
    } cases[] = {
        {"/tracks/7.ogg", "does not name the {track}"},
        {"/{quality}/{n}", "does not name the {track}"},
        {"/{track}/{track}", "has the same name twice"},
        {"/{track}/{n}.{ext}/{quality}/{n}", "has the same name twice"},
        {"/{track}{n}", "has two names with nothing between them"},
        {"/{title}", "has a name other than {track}, {quality}, {n} and {ext}"},
        {"/{track", "has a name other than {track}, {quality}, {n} and {ext}"},
        {"/{track}}", "has a '*' or a '}' outside a name"},
        {"/{track}/*", "has a '*' or a '}' outside a name"},
        {"/*/{track}", "has a '*' outside a name"},
        {"/{track}/{ext}", "has {ext} without a '.' before it"},
        {"/{track}.{ext}x", "has text after {ext} in the same segment"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct track_template *t;
        const char *why;
        assert_int_equal(track_compile(str_z(cases[i].template), &arena, &t, &why), -EINVAL);
        assert_string_equal(why, cases[i].why);
    }
    const struct track_template *t;
    const char *why = NULL;
    assert_int_equal(track_compile(STR("tracks/{track}"), &arena, &t, &why), -EINVAL);
    assert_non_null(why);
}

static void test_first_match_wins(void **state)
{
    (void)state;
    struct rule items[3] = {{.index = 0}, {.index = 1}, {.index = 2}};
    struct rules rules = {.items = items, .n = 3, .none = {.index = RULE_INDEX_NONE}};
    const char *why;
    assert_int_equal(pattern_compile(STR("/a/b"), &arena, &items[0].match, &why), 0);
    assert_int_equal(pattern_compile(STR("/a/**"), &arena, &items[1].match, &why), 0);
    assert_int_equal(pattern_compile(STR("/*/b"), &arena, &items[2].match, &why), 0);
    assert_int_equal(rules_find(&rules, STR("/a/b"))->index, 0);
    assert_int_equal(rules_find(&rules, STR("/a/c"))->index, 1);
    assert_int_equal(rules_find(&rules, STR("/x/b"))->index, 2);
    assert_int_equal(rules_find(&rules, STR("/x/c"))->index, RULE_INDEX_NONE);
}

static void test_methods(void **state)
{
    (void)state;
    assert_int_equal(rule_method_of(STR("GET")), RULE_METHOD_GET);
    assert_int_equal(rule_method_of(STR("OPTIONS")), RULE_METHOD_OPTIONS);
    assert_int_equal(rule_method_of(STR("get")), 0);
    assert_int_equal(rule_method_of(STR("CONNECT")), 0);
    assert_int_equal(rule_method_of(STR_NONE), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patterns),         cmocka_unit_test(test_patterns_refused),
        cmocka_unit_test(test_escapes),          cmocka_unit_test(test_no_blowup),
        cmocka_unit_test(test_tracks),           cmocka_unit_test(test_tracks_refused),
        cmocka_unit_test(test_first_match_wins), cmocka_unit_test(test_methods),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
