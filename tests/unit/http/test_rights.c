#include "http/rights.h"

#include "../unit.h"

#include "http/url.h"
#include "util/grow.h"

#include <errno.h>

static struct rights *parse(const char *text)
{
    struct rights_error error;
    struct rights *rights;
    char *exact = exact_copy(text, strlen(text));
    int code = rights_parse(str_of(exact, strlen(text)), &rights, &error);

    free(exact); /* nothing of it may be kept */
    if (code != 0)
        fail_msg("line %u: %s", error.line, error.text);
    return rights;
}

static enum rights_answer ask(const struct rights *rights, const char *path, const char *country)
{
    char *exact = exact_copy(path, strlen(path)), scratch[4096];
    enum rights_answer answer;
    struct str canonical;

    assert_int_equal(url_path_canonical(str_of(exact, strlen(path)), scratch, &canonical), 0);
    answer = rights_check(rights, canonical, str_z(country));
    free(exact);
    return answer;
}

static void longest_prefix_decides(void **state)
{
    struct rights *r = parse("# a comment\n"
                             "\n"
                             "/tracks/a          SE,NO   # and one here\n"
                             "  /tracks/a/preview\tall\r\n"
                             "/tracks/b/  none\n"
                             "/tracks/b/320 DK\n"
                             "/x -US,CA\n"
                             "   # the end\n");

    (void)state;
    assert_int_equal(rights_entries(r), 5);
    assert_int_equal(rights_market_line(r), 3);
    assert_int_equal(ask(r, "/tracks/a", "SE"), RIGHTS_ALLOWED);
    assert_int_equal(ask(r, "/tracks/a/320/7.ogg", "NO"), RIGHTS_ALLOWED);
    assert_int_equal(ask(r, "/tracks/a/320/7.ogg", "DK"), RIGHTS_NOT_HERE);
    assert_int_equal(ask(r, "/tracks/a/", "DK"), RIGHTS_NOT_HERE);
    assert_int_equal(ask(r, "/tracks/a/320/7.ogg", ""), RIGHTS_NOT_HERE);
    assert_int_equal(ask(r, "/tracks/a/preview", ""), RIGHTS_ALLOWED);
    assert_int_equal(ask(r, "/tracks/a/preview/1", "DK"), RIGHTS_ALLOWED);
    assert_int_equal(ask(r, "/tracks/a/previews", "DK"), RIGHTS_NOT_HERE);
    /* Whole segments only. */
    assert_int_equal(ask(r, "/tracks/ab", "DK"), RIGHTS_ALLOWED);
    assert_int_equal(ask(r, "/tracks", ""), RIGHTS_ALLOWED);
    assert_int_equal(ask(r, "/", ""), RIGHTS_ALLOWED);
    assert_int_equal(ask(r, "/tracks/b", "SE"), RIGHTS_TAKEN_DOWN);
    assert_int_equal(ask(r, "/tracks/b/", ""), RIGHTS_TAKEN_DOWN);
    assert_int_equal(ask(r, "/tracks/b/96/1", "SE"), RIGHTS_TAKEN_DOWN);
    assert_int_equal(ask(r, "/tracks/b/320/1", "DK"), RIGHTS_ALLOWED);
    assert_int_equal(ask(r, "/tracks/b/320/1", "SE"), RIGHTS_NOT_HERE);
    assert_int_equal(ask(r, "/x/y", "SE"), RIGHTS_ALLOWED);
    assert_int_equal(ask(r, "/x/y", "CA"), RIGHTS_NOT_HERE);
    assert_int_equal(ask(r, "/x/y", ""), RIGHTS_NOT_HERE);
    rights_unref(&r);
}

static void root_and_nothing(void **state)
{
    struct rights *r = parse("/ none\n/free all\n");

    (void)state;
    assert_int_equal(ask(r, "/", ""), RIGHTS_TAKEN_DOWN);
    assert_int_equal(ask(r, "/a/b", "SE"), RIGHTS_TAKEN_DOWN);
    assert_int_equal(ask(r, "/free", ""), RIGHTS_ALLOWED);
    assert_int_equal(rights_market_line(r), 0);
    rights_unref(&r);
    r = parse("# nothing\n");
    assert_int_equal(rights_entries(r), 0);
    assert_int_equal(ask(r, "/a/b", ""), RIGHTS_ALLOWED);
    rights_unref(&r);
    rights_unref(&r); /* NULL by now */
}

/* However a path is written, it is the same path. */
static void spellings(void **state)
{
    struct rights *r = parse("/t/a(b) none\n/t/c%2Bd none\n/t/%7Ee none\n/t/100%25 none\n/t/%C3%A9 none\n");

    (void)state;
    assert_int_equal(ask(r, "/t/a(b)", ""), RIGHTS_TAKEN_DOWN);
    assert_int_equal(ask(r, "/t/a%28b%29/1", ""), RIGHTS_TAKEN_DOWN);
    assert_int_equal(ask(r, "/%74/a%28b)/1", ""), RIGHTS_TAKEN_DOWN);
    assert_int_equal(ask(r, "/t/c+d", ""), RIGHTS_TAKEN_DOWN);
    assert_int_equal(ask(r, "/t/c%2bd/1", ""), RIGHTS_TAKEN_DOWN);
    assert_int_equal(ask(r, "/t/~e/1", ""), RIGHTS_TAKEN_DOWN);
    assert_int_equal(ask(r, "/t/100%25/1", ""), RIGHTS_TAKEN_DOWN);
    assert_int_equal(ask(r, "/t/100%2525/1", ""), RIGHTS_ALLOWED); /* decoded once */
    assert_int_equal(ask(r, "/t/%c3%a9/1", ""), RIGHTS_TAKEN_DOWN);
    assert_int_equal(ask(r, "/t/a%28c)", ""), RIGHTS_ALLOWED);
    rights_unref(&r);
}

static void long_paths(void **state)
{
    static char line[RIGHTS_PREFIX_BYTES_MAX + 16], path[3 * RIGHTS_PREFIX_BYTES_MAX];
    struct rights_error error;
    struct rights *r;
    size_t n;

    (void)state;
    memset(line, 'a', sizeof line);
    line[0] = '/';
    memcpy(line + RIGHTS_PREFIX_BYTES_MAX, " none\n", 7);
    r = parse(line);
    memcpy(path, line, RIGHTS_PREFIX_BYTES_MAX);
    assert_int_equal(ask(r, path, ""), RIGHTS_TAKEN_DOWN);
    memcpy(path + RIGHTS_PREFIX_BYTES_MAX, "/%28", 5);
    assert_int_equal(ask(r, path, ""), RIGHTS_TAKEN_DOWN);
    path[RIGHTS_PREFIX_BYTES_MAX] = 'a';
    assert_int_equal(ask(r, path, ""), RIGHTS_ALLOWED);
    rights_unref(&r);

    /* More segments than any entry has. */
    r = parse("/a/a/a none\n/a all\n");
    for (n = 0; n + 2 < sizeof path; n += 2)
        memcpy(path + n, "/a", 3);
    assert_int_equal(ask(r, path, ""), RIGHTS_TAKEN_DOWN);
    path[5] = 'b';
    assert_int_equal(ask(r, path, ""), RIGHTS_ALLOWED);
    rights_unref(&r);

    memset(line, 'a', sizeof line);
    line[0] = '/';
    memcpy(line + RIGHTS_PREFIX_BYTES_MAX + 1, " none\n", 7);
    assert_int_equal(rights_parse(str_z(line), &r, &error), -EINVAL);
    assert_non_null(strstr(error.text, "longer than 1024"));
}

static void refused(const char *text, unsigned line, const char *expected)
{
    struct rights_error error;
    struct rights *rights = (struct rights *)(uintptr_t)1;
    char *exact = exact_copy(text, strlen(text));

    assert_int_equal(rights_parse(str_of(exact, strlen(text)), &rights, &error), -EINVAL);
    assert_null(rights);
    free(exact);
    if (error.line != line || strstr(error.text, expected) == NULL)
        fail_msg("got line %u, \"%s\"; expected line %u, \"%s\"", error.line, error.text, line, expected);
}

static void errors_name_the_line(void **state)
{
    (void)state;
    refused("", 0, "empty");
    refused("/a none", 1, "does not end");
    refused("/a none\n/b no", 2, "does not end");
    refused("# one\n/a\n", 2, "expected markets");
    refused("/a # none\n", 1, "expected markets");
    refused("/a none now\n", 1, "nothing behind");
    refused("/a SE, NO\n", 1, "nothing behind");
    refused("/a none\n\n/a/ all\n", 3, "in line 1");
    refused("/b%28 none\n/a all\n/b( all\n", 3, "in line 1");
    refused("tracks/a none\n", 1, "begins with /");
    refused("http://h/a none\n", 1, "begins with /");
    refused("/a//b none\n", 1, "got \"/a//b\"");
    refused("/a/../b none\n", 1, "expected a path");
    refused("/a/** none\n", 1, "no *");
    refused("/a?b none\n", 1, "expected a path");
    refused("/a None\n", 1, "`none`");
    refused("/a se\n", 1, "SE,NO");
    refused("/a SE,\n", 1, "got \"SE,\"");
    refused("/a -\n", 1, "SE,NO");
    refused("/a S\xc3\xa9\x1b[m\n", 1, "got \"S???[m\""); /* it goes into a log */
    refused("\xef\xbb\xbf/a none\n", 1, "begins with /");
}

/* --- against a naive model --- */

static uint64_t random_state;

static unsigned random_below(unsigned n)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15ull; /* splitmix64 */

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (unsigned)((z ^ (z >> 31)) % n);
}

struct model_entry {
    char prefix[64];
    const char *markets;
};

static enum rights_answer model(const struct model_entry *entries, size_t n, const char *path,
                                const char *country)
{
    const char *markets = "all";
    size_t best = 0;
    struct markets m;
    bool any = false;

    for (size_t i = 0; i < n; i++) {
        size_t k = strlen(entries[i].prefix);

        if (strncmp(path, entries[i].prefix, k) == 0 && (path[k] == '/' || path[k] == '\0') &&
            (!any || k >= best)) {
            best = k;
            any = true;
            markets = entries[i].markets;
        }
    }
    if (strcmp(markets, "all") == 0)
        return RIGHTS_ALLOWED;
    if (strcmp(markets, "none") == 0)
        return RIGHTS_TAKEN_DOWN;
    assert_int_equal(markets_parse(str_z(markets), &m), 0);
    return markets_allow(&m, str_z(country)) ? RIGHTS_ALLOWED : RIGHTS_NOT_HERE;
}

/* Paths of few segments from few letters, so that prefixes nest and nearly match. */
static void random_path(char *out, unsigned segments_max)
{
    static const char *const parts[] = {"a", "b", "aa", "ab", "a.b", "0"};
    unsigned n = 1 + random_below(segments_max);

    for (unsigned i = 0; i < n; i++) {
        const char *part = parts[random_below(ARRAY_LEN(parts))];

        *out++ = '/';
        memcpy(out, part, strlen(part) + 1);
        out += strlen(part);
    }
}

static void as_a_naive_model(void **state)
{
    static const char *const markets[] = {"all", "none", "SE", "SE,NO", "-SE", "NO,SE", "DE,FR,ES"};
    static const char *const countries[] = {"SE", "NO", "DE", "", "ZZ"};
    unsigned seen[3] = {0};

    (void)state;
    for (random_state = 0; random_state < 300; random_state++) {
        uint64_t seed = random_state;
        struct model_entry entries[64];
        size_t n = 0, want = random_below(ARRAY_LEN(entries));
        struct grow text = grow_of(1 << 16);
        struct rights *r;

        grow_add_lit(&text, "# seed\n");
        while (n < want) {
            bool again = false;

            random_path(entries[n].prefix, 5);
            for (size_t i = 0; i < n; i++)
                again = again || strcmp(entries[i].prefix, entries[n].prefix) == 0;
            if (again) {
                want--;
                continue;
            }
            entries[n].markets = markets[random_below(ARRAY_LEN(markets))];
            grow_printf(&text, "%s %s\n", entries[n].prefix, entries[n].markets);
            n++;
        }
        grow_add_char(&text, '\0');
        r = parse(text.p);
        grow_free(&text);
        assert_int_equal(rights_entries(r), n);
        for (unsigned i = 0; i < 200; i++) {
            const char *country = countries[random_below(ARRAY_LEN(countries))];
            enum rights_answer expected;
            char path[64];

            random_path(path, 7);
            if (random_below(8) == 0)
                memcpy(path + strlen(path), "/", 2);
            expected = model(entries, n, path, country);
            if (ask(r, path, country) != expected)
                fail_msg("seed %llu: %s in \"%s\"", (unsigned long long)seed, path, country);
            seen[expected]++;
        }
        rights_unref(&r);
        random_state = seed;
    }
    assert_true(seen[RIGHTS_ALLOWED] > 1000 && seen[RIGHTS_NOT_HERE] > 1000 &&
                seen[RIGHTS_TAKEN_DOWN] > 1000);
}

static void a_million_entries(void **state)
{
    enum { N = 1000000 };
    static const char *const markets[] = {"SE,NO,DK,FI,IS", "none", "-US,CA", "DE,AT,CH"};
    struct grow text = grow_of(100u << 20);
    struct rights_error error;
    struct rights *r;

    (void)state;
    for (unsigned i = 0; i < N; i++)
        grow_printf(&text, "/tracks/%08xPpam7vgaVa1iaR%c %s\n", i * 2654435761u, "ab"[i % 2], markets[i % 4]);
    assert_false(text.failed);
    assert_int_equal(rights_parse(grow_str(&text), &r, &error), 0);
    grow_free(&text);
    assert_int_equal(rights_entries(r), N);
    /* 31 bytes of text an entry, and no more than 16 beside it. */
    assert_true(rights_bytes(r) < (31 + 16) * (size_t)N);
    for (unsigned i = 0; i < N; i += 7) {
        char path[64];
        unsigned m = i % 4;

        (void)snprintf(path, sizeof path, "/tracks/%08xPpam7vgaVa1iaR%c/320/%u.ogg", i * 2654435761u,
                       "ab"[i % 2], i % 30);
        assert_int_equal(rights_check(r, str_z(path), STR("SE")), m == 1   ? RIGHTS_TAKEN_DOWN
                                                                  : m == 3 ? RIGHTS_NOT_HERE
                                                                           : RIGHTS_ALLOWED);
        assert_int_equal(rights_check(r, str_z(path), STR("US")),
                         m == 1 ? RIGHTS_TAKEN_DOWN : RIGHTS_NOT_HERE);
        path[30] ^= 'a' ^ 'b'; /* its neighbour is not in the file */
        assert_int_equal(rights_check(r, str_z(path), STR("SE")), RIGHTS_ALLOWED);
    }
    rights_unref(&r);
}

/* All sets that there are room for, and one more. */
static void many_sets(void **state)
{
    struct grow text = grow_of(16u << 20);
    struct rights_error error;
    struct rights *r;

    (void)state;
    for (unsigned i = 0; i <= RIGHTS_SETS_MAX; i++) {
        if (i == RIGHTS_SETS_MAX) {
            assert_int_equal(rights_parse(grow_str(&text), &r, &error), 0);
            /* The set of entry 5: A0 = 5. */
            assert_int_equal(rights_check(r, STR("/5"), STR("AF")), RIGHTS_ALLOWED);
            assert_int_equal(rights_check(r, STR("/5"), STR("AG")), RIGHTS_NOT_HERE);
            rights_unref(&r);
        }
        grow_printf(&text, "/%u A%c,B%c,C%c,D%c\n", i, 'A' + i % 26, 'A' + i / 26 % 26, 'A' + i / 676 % 26,
                    'A' + i / 17576 % 26);
    }
    assert_int_equal(rights_parse(grow_str(&text), &r, &error), -EINVAL);
    assert_int_equal(error.line, RIGHTS_SETS_MAX + 1);
    assert_non_null(strstr(error.text, "different sets"));
    grow_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(longest_prefix_decides),
        cmocka_unit_test(root_and_nothing),
        cmocka_unit_test(spellings),
        cmocka_unit_test(long_paths),
        cmocka_unit_test(errors_name_the_line),
        cmocka_unit_test(as_a_naive_model),
        cmocka_unit_test(a_million_entries),
        cmocka_unit_test(many_sets),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
