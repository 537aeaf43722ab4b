/* The keys of edge.yaml that speak of countries, and the files behind them as they are replaced while they are in
 * use. */
#include "proxy/territory.h"

#include "../unit.h"

#include "proxy/proxy_conf.h"
#include "util/grow.h"
#include "util/log.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD "listen: [{address: \"127.0.0.1:80\"}]\nupstreams: [{url: \"http://a\"}]\n"

static char folder[] = "/tmp/segue-test-territory-XXXXXX";
static char *flat, *nested;
static size_t flat_n, nested_n;

static char *read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *bytes = malloc(1 << 16);

    assert_true(f != NULL && bytes != NULL);
    *n = fread(bytes, 1, 1 << 16, f);
    assert_int_equal(fclose(f), 0);
    return bytes;
}

static void write_bytes(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void write_text(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text));
}

static int setup(void **state)
{
    (void)state;
    flat = read_file("tests/geo/flat.mmdb", &flat_n);
    nested = read_file("tests/geo/nested.mmdb", &nested_n);
    log_set_level(LOG_LEVEL_ERROR);
    return mkdtemp(folder) == NULL || chdir(folder) < 0;
}

static int teardown(void **state)
{
    static const char *const made[] = {"x.yaml",      "good.mmdb", "half.mmdb", "rights",
                                       "rights-only", "wrong",     "new"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(made); i++)
        (void)unlink(made[i]);
    free(flat);
    free(nested);
    return chdir("/") < 0 || rmdir(folder) < 0;
}

/* --- the configuration --- */

static int load(const char *text, struct proxy_conf **conf, struct conf_error *error)
{
    struct grow all = grow_of(1 << 16);
    int code;

    grow_printf(&all, "%s%s\n", HEAD, text);
    write_bytes("x.yaml", all.p, all.n);
    grow_free(&all);
    code = proxy_conf_load("x.yaml", PROXY_ROLE_EDGE, conf, error);
    return code;
}

static void keys_of_the_configuration(void **state)
{
    struct conf_error error;
    struct proxy_conf *c;

    (void)state;
    write_bytes("good.mmdb", flat, flat_n);
    write_text("rights", "/a SE\n/b none\n");
    if (load("geo: {database: good.mmdb}\nrights: rights\n"
             "rules: [{match: /a, markets: \"SE,NO\"}, {match: /b, markets: -US}, {match: /c, markets: NO},\n"
             "        {match: /d, markets: [SE, NO]}, {match: /e}]",
             &c, &error) != 0)
        fail_msg("%s", error.text);
    assert_non_null(c->territory->geo);
    assert_int_equal(rights_entries(c->territory->rights), 2);
    assert_true(markets_allow(c->rules.items[0].markets, STR("NO")));
    assert_false(markets_allow(c->rules.items[0].markets, STR("DK")));
    assert_true(markets_allow(c->rules.items[1].markets, STR("DK")));
    assert_false(markets_allow(c->rules.items[1].markets, STR("US")));
    assert_true(
        markets_allow(c->rules.items[2].markets, STR("NO"))); /* which YAML 1.1 would take for false */
    assert_true(markets_allow(c->rules.items[3].markets, STR("NO")));
    assert_false(markets_allow(c->rules.items[3].markets, STR("DK")));
    assert_null(c->rules.items[4].markets);
    assert_null(c->rules.none.markets);
    proxy_conf_free(&c);

    write_text("rights-only", "# no database needed\n/b none\n/b/c all\n");
    assert_int_equal(load("rights: rights-only", &c, &error), 0);
    assert_null(c->territory->geo);
    proxy_conf_free(&c);
    assert_int_equal(load("", &c, &error), 0);
    assert_true(c->territory->geo == NULL && c->territory->rights == NULL);
    proxy_conf_free(&c);
}

#define MARKETS_WANTED                                                                                       \
    "expected markets such as SE,NO, or with a - first all but those, such as -US,CA, or a list such as "    \
    "[SE, NO]"

static void refused_with_line_and_key(void **state)
{
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"geo: {}", "x.yaml:3: geo: the key \"database\" is missing"},
        {"geo: {database: none}", "x.yaml:3: geo.database: none: No such file or directory"},
        {"geo: {database: wrong}", "x.yaml:3: geo.database: wrong is no MaxMind DB, or not all of one"},
        {"geo: {database: half.mmdb}",
         "x.yaml:3: geo.database: half.mmdb is no MaxMind DB, or not all of one"},
        {"geo: {database: .}", "x.yaml:3: geo.database: . is no regular file"},
        {"rights: wrong", "x.yaml:3: rights: wrong:2: expected markets, `all` or `none` behind the prefix"},
        {"rights: none", "x.yaml:3: rights: none: No such file or directory"},
        {"rights: rights",
         "x.yaml:3: rights: rights:2: names markets, but there is no `geo` to tell countries "
         "by; without it only `all` and `none` can be"},
        {"rules: [{match: /a, markets: SE}]",
         "x.yaml:3: rules[0].markets: needs `geo: {database: FILE}` to tell countries by"},
        {"rules: [{match: /a, markets: se}]", "x.yaml:3: rules[0].markets: " MARKETS_WANTED},
        {"rules: [{match: /a, markets: \"\"}]", "x.yaml:3: rules[0].markets: " MARKETS_WANTED},
        {"rules: [{match: /a, markets: []}]", "x.yaml:3: rules[0].markets: " MARKETS_WANTED},
        {"rules: [{match: /a, markets: [-SE, NO]}]", "x.yaml:3: rules[0].markets: " MARKETS_WANTED},
        {"rules: [{match: /a, markets: [[SE]]}]", "x.yaml:3: rules[0].markets: " MARKETS_WANTED},
        {"rules: [{match: /a, markets: {SE: NO}}]", "x.yaml:3: rules[0].markets: " MARKETS_WANTED},
    };

    (void)state;
    write_bytes("half.mmdb", flat, flat_n / 2);
    write_text("wrong", "# a\n/a\n");
    write_text("rights", "/b none\n/a SE\n");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct conf_error error = {""};
        struct proxy_conf *c;

        assert_true(load(cases[i].text, &c, &error) < 0);
        assert_null(c);
        assert_string_equal(error.text, cases[i].error);
    }
}

/* --- files that are replaced --- */

struct watched {
    struct territory_watch watch;
    struct territory *current;
    const char *paths[TERRITORY_PARTS];
};

static void begin(struct watched *w)
{
    enum territory_part part;
    char error[TERRITORY_ERROR_BYTES];

    write_bytes("good.mmdb", flat, flat_n);
    write_text("rights", "/a none\n");
    *w = (struct watched){.paths = {"good.mmdb", "rights"}};
    assert_int_equal(territory_load(w->paths, &w->current, &part, error), 0);
}

/* True: something was replaced. */
static bool look(struct watched *w)
{
    struct territory *next = territory_look(&w->watch, w->current, w->paths);

    if (next == NULL)
        return false;
    territory_unref(&w->current);
    w->current = next;
    return true;
}

static void end(struct watched *w)
{
    territory_unref(&w->current);
}

static enum rights_answer ask(const struct watched *w, struct str path)
{
    return rights_check(w->current->rights, path, STR("SE"));
}

static void replaced_alone(void **state)
{
    struct watched w;
    struct geo *geo;
    struct rights *rights;

    (void)state;
    begin(&w);
    for (unsigned i = 0; i < 3; i++)
        assert_false(look(&w));
    geo = w.current->geo;
    rights = w.current->rights;

    write_text("new", "/b none\n/c SE\n");
    assert_int_equal(rename("new", "rights"), 0);
    assert_false(look(&w)); /* it may still be written */
    assert_true(look(&w));
    assert_false(look(&w));
    assert_ptr_equal(w.current->geo, geo);
    assert_ptr_not_equal(w.current->rights, rights);
    assert_int_equal(ask(&w, STR("/a")), RIGHTS_ALLOWED);
    assert_int_equal(ask(&w, STR("/b")), RIGHTS_TAKEN_DOWN);

    rights = w.current->rights;
    write_bytes("new", nested, nested_n);
    assert_int_equal(rename("new", "good.mmdb"), 0);
    assert_false(look(&w));
    assert_true(look(&w));
    assert_ptr_equal(w.current->rights, rights);
    assert_string_equal(geo_type(w.current->geo).p, "Test-nested");
    assert_int_equal(w.watch.replaced[TERRITORY_GEO], 1);
    assert_int_equal(w.watch.replaced[TERRITORY_RIGHTS], 1);

    /* Both at once. */
    write_bytes("good.mmdb", flat, flat_n);
    write_text("rights", "/d none\n");
    assert_false(look(&w));
    assert_true(look(&w));
    assert_false(look(&w));
    assert_string_equal(geo_type(w.current->geo).p, "Test-flat");
    assert_int_equal(ask(&w, STR("/d")), RIGHTS_TAKEN_DOWN);
    end(&w);
}

static void what_is_no_good_keeps_the_old(void **state)
{
    struct watched w;

    (void)state;
    begin(&w);
    assert_false(look(&w));
    write_bytes("good.mmdb", nested, nested_n - 9);
    write_text("rights", "/a none\n/a all\n");
    for (unsigned i = 0; i < 5; i++)
        assert_false(look(&w));
    assert_int_equal(w.watch.failed[TERRITORY_GEO], 1); /* and logged as often */
    assert_int_equal(w.watch.failed[TERRITORY_RIGHTS], 1);
    assert_string_equal(geo_type(w.current->geo).p, "Test-flat");
    assert_int_equal(ask(&w, STR("/a")), RIGHTS_TAKEN_DOWN);

    assert_int_equal(unlink("rights"), 0);
    for (unsigned i = 0; i < 5; i++)
        assert_false(look(&w));
    assert_int_equal(w.watch.failed[TERRITORY_RIGHTS], 2);
    assert_int_equal(ask(&w, STR("/a")), RIGHTS_TAKEN_DOWN);

    write_bytes("good.mmdb", nested, nested_n);
    write_text("rights", "/a all\n");
    assert_false(look(&w));
    assert_true(look(&w));
    assert_string_equal(geo_type(w.current->geo).p, "Test-nested");
    assert_int_equal(ask(&w, STR("/a")), RIGHTS_ALLOWED);
    end(&w);
}

/* A file that grows is let grow. */
static void half_written(void **state)
{
    struct watched w;

    (void)state;
    begin(&w);
    assert_false(look(&w));
    for (size_t n = 1; n < nested_n; n += nested_n / 7) {
        write_bytes("good.mmdb", nested, n);
        assert_false(look(&w));
    }
    write_bytes("good.mmdb", nested, nested_n);
    assert_false(look(&w));
    assert_true(look(&w));
    assert_int_equal(w.watch.failed[TERRITORY_GEO], 0);
    end(&w);
}

static void markets_need_the_database(void **state)
{
    struct watched w;
    enum territory_part part;
    char error[TERRITORY_ERROR_BYTES];

    (void)state;
    write_text("rights", "/a none\n");
    w = (struct watched){.paths = {NULL, "rights"}};
    assert_int_equal(territory_load(w.paths, &w.current, &part, error), 0);
    assert_false(look(&w));
    write_text("rights", "/a SE\n");
    assert_false(look(&w));
    assert_false(look(&w));
    assert_int_equal(w.watch.failed[TERRITORY_RIGHTS], 1);
    assert_int_equal(ask(&w, STR("/a")), RIGHTS_TAKEN_DOWN);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_of_the_configuration),
        cmocka_unit_test(refused_with_line_and_key),
        cmocka_unit_test(replaced_alone),
        cmocka_unit_test(what_is_no_good_keeps_the_old),
        cmocka_unit_test(half_written),
        cmocka_unit_test(markets_need_the_database),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
