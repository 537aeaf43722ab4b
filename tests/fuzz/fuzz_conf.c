/* Any bytes as a configuration file: an error in one line, or a tree whose positions can be asked for. */
#include "util/check.h"
#include "util/conf.h"

struct item {
    char *match, *ttl;
    bool *flag;
};

struct top {
    char *name;
    struct item *rules;
    unsigned rules_count;
};

static const cyaml_schema_field_t item_fields[] = {
    CYAML_FIELD_STRING_PTR("m", CYAML_FLAG_POINTER, struct item, match, 1, 10),
    CYAML_FIELD_STRING_PTR("t", CYAML_FLAG_OPTIONAL, struct item, ttl, 0, 10),
    CYAML_FIELD_BOOL_PTR("b", CYAML_FLAG_OPTIONAL, struct item, flag), CYAML_FIELD_END};
static const cyaml_schema_value_t item_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct item, item_fields)};
static const cyaml_schema_field_t top_fields[] = {
    CYAML_FIELD_STRING_PTR("n", CYAML_FLAG_OPTIONAL, struct top, name, 1, 20),
    CYAML_FIELD_SEQUENCE("r", CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER, struct top, rules, &item_entry, 0,
                         30),
    CYAML_FIELD_END};
static const cyaml_schema_value_t schema = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct top, top_fields)};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct conf *conf;
    struct conf_error error;
    void *top = NULL;
    if (conf_open_text("f", str_of((const char *)data, n), n & CONF_SECRET, &conf, &error) < 0) {
        CHECK(error.text[0] != '\0' && strchr(error.text, '\n') == NULL);
        return 0;
    }
    if (conf_load(conf, &schema, &top) == 0) {
        const struct top *t = top;
        for (unsigned i = 0; i < t->rules_count; i++) {
            CHECK(conf_has(conf, CONF_PATH("r[%u].m", i)) && conf_line(conf, CONF_PATH("r[%u]", i)) > 0);
            conf_duration_s(conf, CONF_PATH("r[%u].t", i), t->rules[i].ttl, 1, 1, 5);
            conf_bytes(conf, CONF_PATH("r[%u].t", i), t->rules[i].ttl, 1, 1, 5);
            conf_time_s(conf, CONF_PATH("r[%u].t", i), t->rules[i].ttl, 1);
        }
    } else {
        CHECK(conf_status(conf) < 0 && strchr(error.text, '\n') == NULL);
    }
    conf_unload(conf, &schema, &top);
    conf_close(&conf);
    return 0;
}
