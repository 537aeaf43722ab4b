/* A document against a libcyaml schema: first checked here, where every error can name its line, its key and
 * what was expected, then loaded by libcyaml. What is checked here is what libcyaml would not say well
 * (unknown keys) or not at all (duplicate keys; a bool that is neither true nor false counts as true). */
#include "util/conf.h"

#include "util/buf.h"
#include "util/check.h"
#include "util/conf_node.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static int check_value(struct conf *conf, const cyaml_schema_value_t *schema, yaml_node_t *node,
                       unsigned line, const char *path);

/* ---- The nearest known word ---- */

#define WORD_BYTES_MAX 40

/* Edit distance with swaps of neighbours (optimal string alignment); SIZE_MAX when a word is too long. */
static size_t word_distance(struct str a, struct str b)
{
    size_t d[WORD_BYTES_MAX + 1][WORD_BYTES_MAX + 1];
    if (a.n > WORD_BYTES_MAX || b.n > WORD_BYTES_MAX)
        return SIZE_MAX;
    for (size_t i = 0; i <= a.n; i++)
        d[i][0] = i;
    for (size_t k = 0; k <= b.n; k++)
        d[0][k] = k;
    for (size_t i = 1; i <= a.n; i++) {
        for (size_t k = 1; k <= b.n; k++) {
            size_t best = d[i - 1][k - 1] + (a.p[i - 1] != b.p[k - 1]);
            if (d[i - 1][k] + 1 < best)
                best = d[i - 1][k] + 1;
            if (d[i][k - 1] + 1 < best)
                best = d[i][k - 1] + 1;
            if (i > 1 && k > 1 && a.p[i - 1] == b.p[k - 2] && a.p[i - 2] == b.p[k - 1] &&
                d[i - 2][k - 2] + 1 < best)
                best = d[i - 2][k - 2] + 1;
            d[i][k] = best;
        }
    }
    return d[a.n][b.n];
}

/* Near enough to be a slip of the finger: a third of the word, at least one. */
static bool word_nearer(struct str word, const char *known, size_t *best)
{
    size_t limit = word.n / 3 > 1 ? word.n / 3 : 1;
    size_t distance = word_distance(word, str_z(known));
    if (distance > limit || distance >= *best)
        return false;
    *best = distance;
    return true;
}

static const char *nearest_key(const cyaml_schema_field_t *fields, struct str word)
{
    const char *nearest = NULL;
    size_t best = SIZE_MAX;
    for (; fields->key != NULL; fields++)
        if (word_nearer(word, fields->key, &best))
            nearest = fields->key;
    return nearest;
}

/* ---- Checks ---- */

static const char *node_kind(const yaml_node_t *node)
{
    return node->type == YAML_MAPPING_NODE    ? "keys and values"
           : node->type == YAML_SEQUENCE_NODE ? "a list"
                                              : "a value";
}

static bool is_null(const yaml_node_t *node)
{
    static const struct str nulls[] = {STR_INIT(""), STR_INIT("~"), STR_INIT("null"), STR_INIT("Null"),
                                       STR_INIT("NULL")};
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(nulls); i++)
        if (str_eq(conf_scalar(node), nulls[i]))
            return true;
    return false;
}

static const cyaml_schema_field_t *field_of(const cyaml_schema_field_t *fields, struct str key)
{
    for (; fields->key != NULL; fields++)
        if (str_eq(str_z(fields->key), key))
            return fields;
    return NULL;
}

/* In a file of secrets a key that stands in the wrong place may be one, so it is not quoted there. */
static int fail_unknown(struct conf *conf, const cyaml_schema_field_t *fields, const yaml_node_t *key,
                        const char *path)
{
    unsigned line = (unsigned)key->start_mark.line + 1;
    const char *nearest = nearest_key(fields, conf_scalar(key));
    char quoted[100] = "";
    if (!(conf->flags & CONF_SECRET))
        snprintf(quoted, sizeof(quoted), " \"%.80s\"", (const char *)key->data.scalar.value);
    if (nearest != NULL)
        return conf_fail_at(conf, line, path, "unknown key%s, did you mean \"%s\"?", quoted, nearest);

    char known[512];
    struct buf b = buf_of(known, sizeof(known));
    for (; fields->key != NULL; fields++)
        buf_printf(&b, "%s%s", b.n > 0 ? ", " : "", fields->key);
    return conf_fail_at(conf, line, path, "unknown key%s; known here: " STR_FMT "%s", quoted,
                        STR_ARG(buf_str(&b)), b.overflow ? ", ..." : "");
}

static const char *join_path(struct conf_path *out, const char *parent, const char *key)
{
    snprintf(out->text, sizeof(out->text), "%s%s%s", parent, parent[0] != '\0' ? "." : "", key);
    return out->text;
}

/* The line where the key stands a first time, or 0. Known keys only, so this ends after a few. */
static unsigned first_line_of(struct conf *conf, yaml_node_t *node, const yaml_node_pair_t *at)
{
    const yaml_node_t *key = conf_node(conf, at->key);
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < at; pair++) {
        const yaml_node_t *earlier = conf_node(conf, pair->key);
        if (str_eq(conf_scalar(earlier), conf_scalar(key)))
            return (unsigned)earlier->start_mark.line + 1;
    }
    return 0;
}

static int check_mapping(struct conf *conf, const cyaml_schema_field_t *fields, yaml_node_t *node,
                         unsigned line, const char *path)
{
    struct conf_path child;
    yaml_node_pair_t *pair = node->data.mapping.pairs.start;
    for (; pair < node->data.mapping.pairs.top; pair++) {
        yaml_node_t *key = conf_node(conf, pair->key);
        unsigned key_line = (unsigned)key->start_mark.line + 1;
        if (key->type != YAML_SCALAR_NODE)
            return conf_fail_at(conf, key_line, path, "expected a key, got %s", node_kind(key));
        const cyaml_schema_field_t *field = field_of(fields, conf_scalar(key));
        if (field == NULL)
            return fail_unknown(conf, fields, key, path);
        unsigned first = first_line_of(conf, node, pair);
        if (first > 0)
            return conf_fail_at(conf, key_line, join_path(&child, path, field->key),
                                "stands here a second time, the first is in line %u", first);
        int rc = check_value(conf, &field->value, conf_node(conf, pair->value), key_line,
                             join_path(&child, path, field->key));
        if (rc < 0)
            return rc;
    }
    for (; fields->key != NULL; fields++) {
        bool found = false;
        for (pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top && !found; pair++)
            found = str_eq(conf_scalar(conf_node(conf, pair->key)), str_z(fields->key));
        if (!found && !(fields->value.flags & CYAML_FLAG_OPTIONAL))
            return conf_fail_at(conf, line, path, "the key \"%s\" is missing", fields->key);
    }
    return 0;
}

static int check_sequence(struct conf *conf, const cyaml_schema_value_t *schema, yaml_node_t *node,
                          unsigned line, const char *path)
{
    const yaml_node_item_t *items = node->data.sequence.items.start;
    size_t n = (size_t)(node->data.sequence.items.top - items);
    if (n < schema->sequence.min)
        return conf_fail_at(conf, line, path, "expected at least %u entr%s, got %zu", schema->sequence.min,
                            schema->sequence.min == 1 ? "y" : "ies", n);
    if (n > schema->sequence.max)
        return conf_fail_at(conf, line, path, "expected at most %u entries, got %zu", schema->sequence.max,
                            n);
    for (size_t i = 0; i < n; i++) {
        struct conf_path child;
        yaml_node_t *item = conf_node(conf, items[i]);
        snprintf(child.text, sizeof(child.text), "%s[%zu]", path, i);
        int rc =
            check_value(conf, schema->sequence.entry, item, (unsigned)item->start_mark.line + 1, child.text);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int check_enum(struct conf *conf, const cyaml_schema_value_t *schema, struct str text, unsigned line,
                      const char *path)
{
    char known[256];
    struct buf b = buf_of(known, sizeof(known));
    for (uint32_t i = 0; i < schema->enumeration.count; i++) {
        const char *word = schema->enumeration.strings[i].str;
        if (str_eq(text, str_z(word)))
            return 0;
        buf_printf(&b, "%s%s", i == 0 ? "" : i + 1 == schema->enumeration.count ? " or " : ", ", word);
    }
    return conf_fail_at(conf, line, path, "expected " STR_FMT ", got \"%.80s\"", STR_ARG(buf_str(&b)),
                        text.p);
}

static int check_scalar(struct conf *conf, const cyaml_schema_value_t *schema, const yaml_node_t *node,
                        unsigned line, const char *path)
{
    struct str text = conf_scalar(node);
    if (memchr(text.p, '\0', text.n) != NULL)
        return conf_fail_at(conf, line, path, "holds a NUL byte");
    switch (schema->type) {
    case CYAML_BOOL:
        if (!str_eq(text, STR("true")) && !str_eq(text, STR("false")))
            return conf_fail_at(conf, line, path, "expected true or false, got \"%.80s\"", text.p);
        return 0;
    case CYAML_ENUM:
        return check_enum(conf, schema, text, line, path);
    case CYAML_STRING:
        if (text.n < schema->string.min)
            return conf_fail_at(conf, line, path, "expected at least %u character%s, got %zu",
                                schema->string.min, schema->string.min == 1 ? "" : "s", text.n);
        if (text.n > schema->string.max)
            return conf_fail_at(conf, line, path, "expected at most %u characters, got %zu",
                                schema->string.max, text.n);
        return 0;
    default:
        return 0; /* numbers: libcyaml checks them; our schemas have none */
    }
}

static int check_value(struct conf *conf, const cyaml_schema_value_t *schema, yaml_node_t *node,
                       unsigned line, const char *path)
{
    yaml_node_type_t wanted = schema->type == CYAML_MAPPING    ? YAML_MAPPING_NODE
                              : schema->type == CYAML_SEQUENCE ? YAML_SEQUENCE_NODE
                                                               : YAML_SCALAR_NODE;
    const char *expected = schema->type == CYAML_MAPPING    ? "keys and values"
                           : schema->type == CYAML_SEQUENCE ? "a list"
                                                            : "a value";
    if (schema->type == CYAML_IGNORE)
        return 0;
    if (is_null(node))
        return conf_fail_at(conf, line, path, "expected %s, got nothing", expected);
    if (node->type != wanted)
        return conf_fail_at(conf, line, path, "expected %s, got %s", expected, node_kind(node));
    if (schema->type == CYAML_MAPPING)
        return check_mapping(conf, schema->mapping.fields, node, line, path);
    if (schema->type == CYAML_SEQUENCE)
        return check_sequence(conf, schema, node, line, path);
    return check_scalar(conf, schema, node, line, path);
}

/* ---- Loading ---- */

static void keep_log(cyaml_log_t level, void *ctx, const char *format, va_list args)
{
    char line[256];
    struct conf *conf = ctx;
    vsnprintf(line, sizeof(line), format, args);
    line[strcspn(line, "\n")] = '\0';
    if (level >= CYAML_LOG_ERROR)
        conf_fail_at(conf, 0, "", "%s", line);
}

static cyaml_config_t config_of(struct conf *conf)
{
    return (cyaml_config_t){.log_fn = keep_log,
                            .log_ctx = conf,
                            .log_level = CYAML_LOG_ERROR,
                            .mem_fn = conf_wiping_memory,
                            .flags = CYAML_CFG_NO_ALIAS};
}

int conf_load(struct conf *conf, const struct cyaml_schema_value *top, void **out)
{
    CHECK_MAGIC(conf, CONF_MAGIC);
    CHECK(top->type == CYAML_MAPPING && (top->flags & CYAML_FLAG_POINTER));
    *out = NULL;
    yaml_node_t *root = yaml_document_get_root_node(&conf->document);
    int rc = check_value(conf, top, root, 1, "");
    if (rc < 0)
        return rc;
    cyaml_config_t config = config_of(conf);
    cyaml_data_t *data = NULL;
    cyaml_err_t err = cyaml_load_data((const uint8_t *)conf->text, conf->text_n, &config, top, &data, NULL);
    if (err != CYAML_OK)
        return conf_fail(conf, NULL, "cannot be loaded: %s", cyaml_strerror(err));
    *out = data;
    return 0;
}

void conf_unload(struct conf *conf, const struct cyaml_schema_value *top, void **data)
{
    cyaml_config_t config = config_of(conf);
    cyaml_free(&config, top, TAKE(data), 0);
}
