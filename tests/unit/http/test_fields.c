#include "http/fields.h"
#include "util/buf.h"

#include "../unit.h"

/* A head's fields from "Name: value" lines, and the bytes they lie in. */
struct head {
    struct fields fields;
    char bytes[4096];
    size_t n;
};

static void add(struct head *h, const char *name, const char *value)
{
    size_t name_n = strlen(name), value_n = strlen(value);

    memcpy(h->bytes + h->n, name, name_n);
    memcpy(h->bytes + h->n + name_n, value, value_n);
    assert_int_equal(fields_add(&h->fields, h->bytes, h->n, name_n, h->n + name_n, value_n), 0);
    h->n += name_n + value_n;
}

static void every_known_name(void **state)
{
    (void)state;
    for (unsigned id = 1; id < FIELD_ID_COUNT; id++) {
        struct str name = field_id_name((enum field_id)id);
        char text[64];

        memcpy(text, name.p, name.n);
        assert_int_equal(field_id_of(name), id);
        for (size_t i = 0; i < name.n; i++) { /* in any case, and with any letter changed */
            text[i] ^= name.p[i] == '-' ? 0 : 0x20;
            assert_int_equal(field_id_of(str_of(text, name.n)), id);
        }
        for (size_t i = 0; i < name.n; i++) {
            char keep = text[i];

            text[i] = keep == '_' ? 'z' : '_';
            assert_int_equal(field_id_of(str_of(text, name.n)), FIELD_OTHER);
            text[i] = keep;
        }
        assert_int_not_equal(field_id_of(str_of(text, name.n - 1)), id);
    }
    assert_int_equal(field_id_of(STR("")), FIELD_OTHER);
    assert_int_equal(field_id_of(STR("X-A-Name-That-Is-Longer-Than-All-Of-Them")), FIELD_OTHER);
    assert_int_equal(field_id_name(FIELD_OTHER).n, 0);
}

static void looks_up_and_iterates(void **state)
{
    struct head h = {.n = 0}, moved;
    unsigned seen = 0;

    (void)state;
    fields_init(&h.fields);
    add(&h, "Accept", "a");
    add(&h, "X-One", "1");
    add(&h, "accept", "b");
    add(&h, "x-one", "2");
    add(&h, "ACCEPT", "c");
    moved = h; /* the bytes lie elsewhere, the offsets hold */
    memset(h.bytes, 0, sizeof h.bytes);
    for (unsigned i = fields_first(&moved.fields, FIELD_ACCEPT); i != FIELD_END; i = moved.fields.at[i].next)
        assert_true(str_eq(field_value(&moved.fields, moved.bytes, i), str_of(&"abc"[seen++], 1)));
    assert_int_equal(seen, 3);
    assert_int_equal(fields_count(&moved.fields, FIELD_ACCEPT), 3);
    assert_int_equal(fields_count(&moved.fields, FIELD_HOST), 0);
    assert_str(fields_get(&moved.fields, moved.bytes, FIELD_ACCEPT), "a");
    assert_null(fields_get(&moved.fields, moved.bytes, FIELD_HOST).p);
    assert_int_equal(fields_find(&moved.fields, moved.bytes, STR("X-ONE"), 0), 1);
    assert_int_equal(fields_find(&moved.fields, moved.bytes, STR("X-ONE"), 2), 3);
    assert_int_equal(fields_find(&moved.fields, moved.bytes, STR("X-ONE"), 4), FIELD_END);
    assert_int_equal(fields_find(&moved.fields, moved.bytes, STR("Accept"), 3), 4);
    assert_int_equal(fields_find(&moved.fields, moved.bytes, STR("X-Two"), 0), FIELD_END);
}

static void is_full_at_its_limit(void **state)
{
    struct head h = {.n = 0};

    (void)state;
    fields_init(&h.fields);
    for (unsigned i = 0; i < HTTP_FIELDS_MAX; i++)
        add(&h, i % 2 ? "Via" : "X", "v");
    assert_int_equal(fields_add(&h.fields, h.bytes, 0, 1, 1, 1), -28);
    assert_int_equal(h.fields.n, HTTP_FIELDS_MAX);
    assert_int_equal(fields_count(&h.fields, FIELD_VIA), HTTP_FIELDS_MAX / 2);
}

static void members(void **state)
{
    struct head h = {.n = 0};
    struct field_members it;
    struct str m;
    char text[128];
    struct buf b = buf_of(text, sizeof text);

    (void)state;
    fields_init(&h.fields);
    add(&h, "Via", " a , \"b,\\\" c\" ;d,,");
    add(&h, "Host", "x,y");
    add(&h, "Via", "");
    add(&h, "Via", ",\t,e,\"f,g");
    it = field_members_of(&h.fields, h.bytes, FIELD_VIA);
    while (field_members_next(&it, &m))
        buf_printf(&b, "[" STR_FMT "]", STR_ARG(m));
    assert_str(buf_str(&b), "[a][\"b,\\\" c\" ;d][e][\"f,g]");
    assert_true(fields_have_member(&h.fields, h.bytes, FIELD_VIA, STR("E")));
    assert_false(fields_have_member(&h.fields, h.bytes, FIELD_VIA, STR("x")));
    it = field_members_of(&h.fields, h.bytes, FIELD_AGE);
    assert_false(field_members_next(&it, &m));
}

static void hop_by_hop(void **state)
{
    static const char *const names[] = {"Connection", "X-Drop",  "X-Keep", "Te",   "Keep-Alive",
                                        "Via",        "Upgrade", "x-drop", "Host", "Proxy-Connection"};
    struct head h = {.n = 0};
    struct field_set set;

    (void)state;
    fields_init(&h.fields);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        add(&h, names[i], i ? "x" : "close, X-DROP, via, absent");
    set = fields_hop_by_hop(&h.fields, h.bytes);
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        assert_int_equal(field_set_has(&set, i), i != 2 && i != 8);
}

static void unquotes(void **state)
{
    char out[32];

    (void)state;
    assert_int_equal(field_unquote(STR("\"a\\\"b\\\\c\""), out), 5);
    assert_memory_equal(out, "a\"b\\c", 5);
    assert_int_equal(field_unquote(STR("\"\""), out), 0);
    assert_int_equal(field_unquote(STR("\""), out), -22);
    assert_int_equal(field_unquote(STR("a\""), out), -22);
    assert_int_equal(field_unquote(STR("\"a\"b\""), out), -22);
    assert_int_equal(field_unquote(STR("\"a\\\""), out), -22);
    assert_int_equal(field_unquote(STR(""), out), -22);
}

static void tokens(void **state)
{
    (void)state;
    for (int c = 0; c < 256; c++) {
        char byte = (char)c;
        bool expected =
            c && (strchr("!#$%&'*+-.^_`|~0123456789", c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'));

        assert_int_equal(http_is_token(str_of(&byte, 1)), expected);
    }
    assert_false(http_is_token(STR("")));
    assert_false(http_is_token(STR("a b")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_known_name),
        cmocka_unit_test(looks_up_and_iterates),
        cmocka_unit_test(is_full_at_its_limit),
        cmocka_unit_test(members),
        cmocka_unit_test(hop_by_hop),
        cmocka_unit_test(unquotes),
        cmocka_unit_test(tokens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
