/* Files, YAML and schema: what is loaded, and for each thing that can be wrong the whole error line. */
#include "util/check.h"
#include "util/conf.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct item {
    char *match, *ttl;
    bool *on;
};

struct top {
    char *name;
    int format;
    struct item *rules;
    unsigned rules_count;
    struct {
        char *size;
    } * memory;
};

static const cyaml_schema_field_t item_fields[] = {
    CYAML_FIELD_STRING_PTR("match", CYAML_FLAG_POINTER, struct item, match, 1, 10),
    CYAML_FIELD_STRING_PTR("ttl", CYAML_FLAG_OPTIONAL, struct item, ttl, 0, 10),
    CYAML_FIELD_BOOL_PTR("immutable", CYAML_FLAG_OPTIONAL, struct item, on),
    CYAML_FIELD_IGNORE("methods", CYAML_FLAG_OPTIONAL), CYAML_FIELD_END};
static const cyaml_schema_value_t item_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct item, item_fields)};
static const cyaml_schema_field_t memory_fields[] = {
    CYAML_FIELD_STRING_PTR("size", CYAML_FLAG_OPTIONAL, __typeof__(*((struct top *)0)->memory), size, 1, 10),
    CYAML_FIELD_END};
static const cyaml_strval_t formats[] = {{"json", 0}, {"combined", 1}};
static const cyaml_schema_field_t top_fields[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, struct top, name, 1, 20),
    CYAML_FIELD_ENUM("format", CYAML_FLAG_OPTIONAL | CYAML_FLAG_STRICT, struct top, format, formats, 2),
    CYAML_FIELD_SEQUENCE("rules", CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER, struct top, rules, &item_entry, 1,
                         3),
    CYAML_FIELD_MAPPING_PTR("memory", CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER, struct top, memory,
                            memory_fields),
    CYAML_FIELD_END};
static const cyaml_schema_value_t schema = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct top, top_fields)};

/* Opens and loads; the error is in *error. */
static int try_text(struct str text, unsigned flags, struct conf_error *error)
{
    struct conf *conf;
    void *data;
    int rc = conf_open_text("x.yaml", text, flags, &conf, error);
    if (rc < 0) {
        assert_null(conf);
        return rc;
    }
    rc = conf_load(conf, &schema, &data);
    conf_unload(conf, &schema, &data);
    conf_close(&conf);
    return rc;
}

static void test_loads(void **state)
{
    (void)state;
    static const char text[] = "# a comment\n"
                               "name: \"sj\xc3\xb6\"\n"
                               "format: combined\n"
                               "rules:\n"
                               "  - {match: \"/a\", ttl: 5m, immutable: true}\n"
                               "  - match: /b\n"
                               "    methods: [GET, POST]\n"
                               "memory: {size: 1GiB}\n";
    struct conf *conf;
    struct conf_error error;
    void *data;
    assert_int_equal(conf_open_text("x.yaml", str_z(text), 0, &conf, &error), 0);
    assert_int_equal(conf_load(conf, &schema, &data), 0);
    struct top *top = data;
    assert_string_equal(top->name, "sj\xc3\xb6");
    assert_int_equal(top->format, 1);
    assert_int_equal(top->rules_count, 2);
    assert_string_equal(top->rules[0].ttl, "5m");
    assert_true(*top->rules[0].on);
    assert_null(top->rules[1].ttl);
    assert_null(top->rules[1].on);
    assert_string_equal(top->memory->size, "1GiB");

    assert_true(conf_has(conf, "rules[1].methods[1]"));
    assert_false(conf_has(conf, "rules[1].methods[2]"));
    assert_false(conf_has(conf, "rules[2]"));
    assert_false(conf_has(conf, "name.first"));
    assert_false(conf_has(conf, "format[0]"));
    assert_int_equal(conf_line(conf, "memory.size"), 8);
    assert_int_equal(conf_line(conf, "rules[1].methods"), 7);
    assert_int_equal(conf_line(conf, "rules[1].ttl"), 6); /* not there: its parent */
    assert_string_equal(conf_scalar_at(conf, "rules[1].methods[1]"), "POST");
    assert_null(conf_scalar_at(conf, "rules[1].methods"));
    assert_null(conf_scalar_at(conf, "rules[7].methods"));
    assert_int_equal(conf_list_count(conf, "rules[1].methods"), 2);
    assert_int_equal(conf_list_count(conf, "name"), -1);

    assert_int_equal(conf_status(conf), 0);
    assert_int_equal(conf_fail(conf, CONF_PATH("rules[%u].ttl", 0), "is %s", "odd"), -EINVAL);
    assert_int_equal(conf_fail(conf, NULL, "comes later and is dropped"), -EINVAL);
    assert_string_equal(error.text, "x.yaml:5: rules[0].ttl: is odd");
    assert_int_equal(conf_status(conf), -EINVAL);
    conf_unload(conf, &schema, &data);
    assert_null(data);
    conf_close(&conf);
    assert_null(conf);
}

struct error_case {
    const char *text, *error;
};

static void test_errors(void **state)
{
    (void)state;
    static const struct error_case cases[] = {
        {"name: a\nnaem: b\n", "x.yaml:2: unknown key \"naem\", did you mean \"name\"?"},
        {"name: a\nrules:\n  - match: /a\n    imutable: true\n",
         "x.yaml:4: rules[0]: unknown key \"imutable\", did you mean \"immutable\"?"},
        {"name: a\nzzzzzz: b\n", "x.yaml:2: unknown key \"zzzzzz\"; known here: name, format, rules, memory"},
        {"format: json\n", "x.yaml:1: the key \"name\" is missing"},
        {"name: a\nrules:\n  - ttl: 5m\n", "x.yaml:3: rules[0]: the key \"match\" is missing"},
        {"name: a\nname: b\n", "x.yaml:2: name: stands here a second time, the first is in line 1"},
        {"name: a\nmemory: {size: 1B, size: 2B}\n",
         "x.yaml:2: memory.size: stands here a second time, the first is in line 2"},
        {"name: a\nmemory:\n", "x.yaml:2: memory: expected keys and values, got nothing"},
        {"name: a\nmemory: 1GiB\n", "x.yaml:2: memory: expected keys and values, got a value"},
        {"name: a\nmemory: [1GiB]\n", "x.yaml:2: memory: expected keys and values, got a list"},
        {"name: a\nrules: {match: /a}\n", "x.yaml:2: rules: expected a list, got keys and values"},
        {"name: a\nrules: []\n", "x.yaml:2: rules: expected at least 1 entry, got 0"},
        {"name: a\nrules: [{match: a}, {match: a}, {match: a}, {match: a}]\n",
         "x.yaml:2: rules: expected at most 3 entries, got 4"},
        {"name: a\nrules:\n  - {match: a}\n  -\n",
         "x.yaml:4: rules[1]: expected keys and values, got nothing"},
        {"name: [a]\n", "x.yaml:1: name: expected a value, got a list"},
        {"name:\n", "x.yaml:1: name: expected a value, got nothing"},
        {"name: ~\n", "x.yaml:1: name: expected a value, got nothing"},
        {"name: \"\"\n", "x.yaml:1: name: expected at least 1 character, got 0"},
        {"name: aaaaaaaaaaaaaaaaaaaaa\n", "x.yaml:1: name: expected at most 20 characters, got 21"},
        {"name: \"a\\0b\"\n", "x.yaml:1: name: holds a NUL byte"},
        {"name: a\nformat: xml\n", "x.yaml:2: format: expected json or combined, got \"xml\""},
        {"name: a\nrules: [{match: a, immutable: flase}]\n",
         "x.yaml:2: rules[0].immutable: expected true or false, got \"flase\""},
        {"name: a\n? [b]\n: c\n", "x.yaml:2: expected a key, got a list"},
        {"name: a\nformat: \"\\u009b\\e[31m\\n\"\n",
         "x.yaml:2: format: expected json or combined, got \"\xc2\x9b?[31m?\""},
        {"", "x.yaml: is empty, expected keys and values"},
        {"# only a comment\n", "x.yaml: is empty, expected keys and values"},
        {"- a\n", "x.yaml:1: expected keys and values at the top"},
        {"just text\n", "x.yaml:1: expected keys and values at the top"},
        {"name: a\n---\nname: b\n", "x.yaml:2: a second YAML document begins here, expected only one"},
        {"name: &x a\n", "x.yaml:1: YAML anchors (&name) are not supported"},
        {"name: a\nformat: *x\n", "x.yaml:2: YAML aliases (*name) are not supported"},
        {"name: !!binary a\n", "x.yaml:1: YAML tags (!name) are not supported"},
        {"name: a\n\tformat: b\n", NULL}, /* what libyaml says of it, with the line: see below */
        {"name: [[[[[[[[[[[[[[[[a]]]]]]]]]]]]]]]]\n", "x.yaml:1: is nested deeper than 16"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct conf_error error;
        assert_int_equal(try_text(str_z(cases[i].text), 0, &error), -EINVAL);
        if (cases[i].error != NULL)
            assert_string_equal(error.text, cases[i].error);
        else
            assert_memory_equal(error.text, "x.yaml:2: is not valid YAML: ", 29);
    }
}

static void test_bytes_that_are_no_text(void **state)
{
    (void)state;
    struct conf_error error;
    assert_int_equal(try_text(STR("name: a\n# caf\xe9\n"), 0, &error), -EILSEQ);
    assert_string_equal(error.text, "x.yaml:2: is not UTF-8 text (byte 0xe9)");
    assert_int_equal(try_text(STR("\xff\xfen\0a\0"), 0, &error), -EILSEQ);
    assert_int_equal(try_text(STR("name: \xed\xa0\x80\n"), 0, &error), -EILSEQ);
    assert_int_equal(try_text(STR("name: \xc0\xaf\n"), 0, &error), -EILSEQ);
    assert_int_equal(try_text(STR("name: \xf0\x9f\x8e"), 0, &error), -EILSEQ);
    assert_int_equal(try_text(STR("name: a\nformat\0: b\n"), 0, &error), -EINVAL);
    assert_string_equal(error.text, "x.yaml:2: is not valid YAML: control characters are not allowed");
    assert_int_equal(try_text(STR("\xef\xbb\xbfname: a\n"), 0, &error), 0);
}

/* A key in a file of secrets may be a secret that slipped; it is not repeated to a log. */
static void test_secrets_are_not_quoted(void **state)
{
    (void)state;
    struct conf_error error;
    assert_int_equal(try_text(STR("name: a\nc2VjcmV0c2VjcmV0: b\n"), CONF_SECRET, &error), -EINVAL);
    assert_string_equal(error.text, "x.yaml:2: unknown key; known here: name, format, rules, memory");
}

static void test_deep_flow_ends_early(void **state)
{
    (void)state;
    static char text[CONF_FILE_BYTES_MAX];
    struct conf_error error;
    memset(text, '[', sizeof(text));
    assert_int_equal(try_text(str_of(text, sizeof(text)), 0, &error), -EINVAL);
    assert_string_equal(error.text, "x.yaml:1: is nested deeper than 16");
}

/* ---- Files ---- */

static char folder[] = "/tmp/segue-test-conf-XXXXXX";

static int setup(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL || chdir(folder) < 0;
}

static int teardown(void **state)
{
    (void)state;
    return chdir("/") < 0 || rmdir(folder) < 0;
}

static void write_file(const char *path, const char *text, mode_t mode)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static int open_file(const char *path, unsigned flags, struct conf_error *error)
{
    struct conf *conf;
    int rc = conf_open(path, flags, &conf, error);
    conf_close(&conf);
    return rc;
}

static void test_files(void **state)
{
    (void)state;
    struct conf_error error;
    assert_int_equal(open_file("none.yaml", 0, &error), -ENOENT);
    assert_string_equal(error.text, "none.yaml: cannot be opened: No such file or directory");
    assert_int_equal(open_file(".", 0, &error), -EISDIR);
    assert_string_equal(error.text, ".: is a directory, expected a file");
    assert_int_equal(open_file("/dev/zero", 0, &error), -EINVAL);
    assert_string_equal(error.text, "/dev/zero: is not a regular file");
    assert_int_equal(mkfifo("fifo", 0600), 0);
    assert_int_equal(open_file("fifo", 0, &error), -EINVAL); /* and does not wait for a writer */
    unlink("fifo");

    write_file("x.yaml", "name: a\n", 0644);
    assert_int_equal(open_file("x.yaml", 0, &error), 0);
    assert_string_equal(error.text, "");
    assert_int_equal(truncate("x.yaml", 1 << 30), 0); /* sparse: a GiB of nothing */
    assert_int_equal(open_file("x.yaml", 0, &error), -EFBIG);
    assert_string_equal(error.text, "x.yaml: is 1073741824 bytes large, at most 1048576 are read");
    unlink("x.yaml");
}

static void test_secret_files(void **state)
{
    (void)state;
    static const struct {
        mode_t mode;
        int rc;
    } cases[] = {{0600, 0}, {0640, 0}, {0660, 0}, {0644, -EPERM}, {0604, -EPERM}, {0602, -EPERM}};
    struct conf_error error;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        write_file("k.yaml", "name: a\n", cases[i].mode);
        assert_int_equal(open_file("k.yaml", CONF_SECRET, &error), cases[i].rc);
        assert_int_equal(open_file("k.yaml", 0, &error), 0);
        unlink("k.yaml");
    }
}

static void test_tokens(void **state)
{
    (void)state;
    static const struct {
        const char *text, *token; /* NULL: refused */
    } cases[] = {
        {"0123456789abcdef", "0123456789abcdef"},
        {"0123456789abcdef\n", "0123456789abcdef"},
        {"  0123456789abcdef \r\nwhat follows is not read", "0123456789abcdef"},
        {"0123456789abcde\n", NULL},
        {"", NULL},
        {"\n0123456789abcdef\n", NULL},
        {"0123456789 abcdef\n", NULL},
        {"0123456789abcd\xc3\xa9\n", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char token[64];
        size_t n = 0;
        struct conf_error error;
        write_file("t", cases[i].text, 0600);
        int rc = conf_read_token("t", token, sizeof(token), &n, &error);
        assert_int_equal(rc, cases[i].token != NULL ? 0 : -EINVAL);
        if (cases[i].token != NULL) {
            assert_int_equal(n, strlen(cases[i].token));
            assert_memory_equal(token, cases[i].token, n);
        }
        assert_int_equal(chmod("t", 0644), 0);
        assert_int_equal(conf_read_token("t", token, sizeof(token), &n, &error), -EPERM);
        unlink("t");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loads),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_bytes_that_are_no_text),
        cmocka_unit_test(test_secrets_are_not_quoted),
        cmocka_unit_test(test_deep_flow_ends_early),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_secret_files),
        cmocka_unit_test(test_tokens),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
