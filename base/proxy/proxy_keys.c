/* keys.yaml into a key set. Secrets are held no longer than one key takes; errors never quote them. */
#include "proxy/proxy_conf.h"

#include "util/check.h"

#include <errno.h>

#define SECRET_BYTES_MIN 16
#define SECRET_BYTES_MAX 512
#define SECRET_TEXT_MAX  ((SECRET_BYTES_MAX + 2) / 3 * 4)

struct raw_key {
    char *kid, *secret, *not_before, *not_after;
};

struct raw_keys {
    char *default_kid;
    struct raw_key *keys;
    unsigned keys_count;
};

static const cyaml_schema_field_t key_fields[] = {
    CYAML_FIELD_STRING_PTR("kid", CYAML_FLAG_POINTER, struct raw_key, kid, 1, SIGNED_URL_KID_BYTES_MAX),
    CYAML_FIELD_STRING_PTR("secret", CYAML_FLAG_POINTER, struct raw_key, secret, 1, SECRET_TEXT_MAX),
    CYAML_FIELD_STRING_PTR("not_before", CYAML_FLAG_OPTIONAL, struct raw_key, not_before, 1, 32),
    CYAML_FIELD_STRING_PTR("not_after", CYAML_FLAG_OPTIONAL, struct raw_key, not_after, 1, 32),
    CYAML_FIELD_END};

static const cyaml_schema_value_t key_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct raw_key, key_fields)};

static const cyaml_schema_field_t keys_fields[] = {
    CYAML_FIELD_STRING_PTR("default_kid", CYAML_FLAG_OPTIONAL, struct raw_keys, default_kid, 1,
                           SIGNED_URL_KID_BYTES_MAX),
    CYAML_FIELD_SEQUENCE("keys", CYAML_FLAG_POINTER, struct raw_keys, keys, &key_entry, 1,
                         SIGNED_URL_KEYS_MAX),
    CYAML_FIELD_END};

static const cyaml_schema_value_t keys_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct raw_keys, keys_fields)};

static int base64_value(char c)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c != '\0' ? strchr(alphabet, c) : NULL;
    return at != NULL ? (int)(at - alphabet) : -1;
}

/* RFC 4648, 4: the standard alphabet with its padding, no white space, unused bits zero. */
static int base64_decode(struct str text, char *out, size_t *out_n)
{
    size_t padding = 0, n = 0;
    while (padding < 2 && padding < text.n && text.p[text.n - 1 - padding] == '=')
        padding++;
    if (text.n % 4 != 0)
        return -EINVAL;
    uint32_t bits = 0;
    for (size_t i = 0; i < text.n - padding; i++) {
        int value = base64_value(text.p[i]);
        if (value < 0)
            return -EINVAL;
        bits = bits << 6 | (uint32_t)value;
        if (i % 4 == 3) {
            out[n++] = (char)(bits >> 16);
            out[n++] = (char)(bits >> 8);
            out[n++] = (char)bits;
            bits = 0;
        }
    }
    if (padding == 1) {
        out[n++] = (char)(bits >> 10);
        out[n++] = (char)(bits >> 2);
        bits &= 3;
    } else if (padding == 2) {
        out[n++] = (char)(bits >> 4);
        bits &= 15;
    }
    *out_n = n;
    return bits != 0 && padding > 0 ? -EINVAL : 0;
}

static void load_key(struct conf *conf, unsigned i, const struct raw_key *raw, struct signed_url_keys *keys)
{
    char secret[SECRET_BYTES_MAX + 3];
    size_t n = 0;
    int64_t not_before = conf_time_s(conf, CONF_PATH("keys[%u].not_before", i), raw->not_before, INT64_MIN);
    int64_t not_after = conf_time_s(conf, CONF_PATH("keys[%u].not_after", i), raw->not_after, INT64_MAX);

    if (not_before > not_after)
        conf_fail(conf, CONF_PATH("keys[%u].not_after", i), "is earlier than not_before");
    if (base64_decode(str_z(raw->secret), secret, &n) < 0)
        conf_fail(conf, CONF_PATH("keys[%u].secret", i),
                  "expected base64 with its padding (openssl rand -base64 32 makes one)");
    else if (n < SECRET_BYTES_MIN || n > SECRET_BYTES_MAX)
        conf_fail(conf, CONF_PATH("keys[%u].secret", i),
                  "expected %d to %d bytes in base64, got %zu (openssl rand -base64 32 makes one)",
                  SECRET_BYTES_MIN, SECRET_BYTES_MAX, n);

    int rc = conf_status(conf);
    if (rc == 0)
        rc = signed_url_keys_add(keys, str_z(raw->kid), str_of(secret, n), not_before, not_after);
    if (rc == -EEXIST)
        conf_fail(conf, CONF_PATH("keys[%u].kid", i), "\"%s\" is there already; every key has its own",
                  raw->kid);
    else if (rc < 0)
        conf_fail(conf, CONF_PATH("keys[%u].kid", i),
                  "expected 1 to %u characters of A-Za-z0-9._~/,:-, got \"%s\"", SIGNED_URL_KID_BYTES_MAX,
                  raw->kid);
    explicit_bzero(secret, sizeof(secret));
}

static int load_keys(struct conf *conf, struct signed_url_keys *keys)
{
    void *data;
    int rc = conf_load(conf, &keys_schema, &data);
    if (rc < 0)
        return rc;
    struct raw_keys *raw = data;
    for (unsigned i = 0; i < raw->keys_count && conf_status(conf) == 0; i++)
        load_key(conf, i, &raw->keys[i], keys);
    if (conf_status(conf) == 0 && raw->default_kid != NULL &&
        signed_url_keys_set_default(keys, str_z(raw->default_kid)) < 0)
        conf_fail(conf, "default_kid", "\"%s\" is the kid of no key in the file", raw->default_kid);
    conf_unload(conf, &keys_schema, &data);
    return conf_status(conf);
}

int proxy_keys_load(const char *path, struct signed_url_keys *keys, struct conf_error *error)
{
    struct conf *conf = NULL;
    signed_url_keys_init(keys);
    int rc = conf_open(path, CONF_SECRET, &conf, error);
    if (rc == 0)
        rc = load_keys(conf, keys);
    conf_close(&conf);
    if (rc < 0) {
        signed_url_keys_clear(keys);
        signed_url_keys_init(keys);
    }
    return rc;
}
