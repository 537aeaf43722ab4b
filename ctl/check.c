/* The programs' own loaders, so that a file that passes here starts there. */
#include "ctl.h"

#include "proxy/proxy_conf.h"

#include <getopt.h>
#include <stdio.h>

enum file_type { TYPE_UNKNOWN, TYPE_EDGE, TYPE_SHIELD, TYPE_KEYS, TYPE_ROUTER };

static const char usage_text[] =
    "usage: seguectl check [--type edge|shield|keys] FILE...\n"
    "\n"
    "Reads each file as the program that it is for would at its start, with the secret files that it names,\n"
    "and says what is wrong with file, line, key and what was expected. Nothing is opened or changed.\n"
    "\n"
    "  -t, --type TYPE   what the file is for. Not given: a file with `upstreams` is an edge's, with\n"
    "                    `origins` a shield's, with `keys` a file of signing keys\n";

static enum file_type type_of_word(const char *word)
{
    return strcmp(word, "edge") == 0     ? TYPE_EDGE
           : strcmp(word, "shield") == 0 ? TYPE_SHIELD
           : strcmp(word, "keys") == 0   ? TYPE_KEYS
                                         : TYPE_UNKNOWN;
}

/* By the keys that only one kind of file has. */
static int type_of_content(const char *path, enum file_type *out)
{
    static const struct {
        const char *key;
        enum file_type type;
    } signs[] = {{"upstreams", TYPE_EDGE}, {"origins", TYPE_SHIELD}, {"pathways", TYPE_ROUTER},
                 {"keys", TYPE_KEYS},      {"signing", TYPE_EDGE},   {"peers", TYPE_SHIELD}};
    struct conf *conf;
    struct conf_error error;
    if (conf_open(path, 0, &conf, &error) < 0)
        return ctl_error("%s", error.text);
    *out = TYPE_UNKNOWN;
    for (size_t i = 0; i < sizeof(signs) / sizeof(signs[0]) && *out == TYPE_UNKNOWN; i++)
        if (conf_has(conf, signs[i].key))
            *out = signs[i].type;
    conf_close(&conf);
    return CTL_OK;
}

static int check_keys(const char *path)
{
    struct signed_url_keys keys;
    struct conf_error error;
    if (proxy_keys_load(path, &keys, &error) < 0)
        return ctl_error("%s", error.text);
    printf("%s: good: %u signing key%s\n", path, keys.n, keys.n == 1 ? "" : "s");
    signed_url_keys_clear(&keys);
    return CTL_OK;
}

static int check_conf(const char *path, enum proxy_role role)
{
    struct proxy_conf *conf;
    struct conf_error error;
    if (proxy_conf_load(path, role, &conf, &error) < 0)
        return ctl_error("%s", error.text);
    printf("%s: good: %s \"%s\", %u listener%s, %u %s%s, %u rule%s\n", path,
           role == PROXY_ROLE_EDGE ? "edge" : "shield", conf->name.p, conf->listen_n,
           conf->listen_n == 1 ? "" : "s", conf->upstreams_n, role == PROXY_ROLE_EDGE ? "upstream" : "origin",
           conf->upstreams_n == 1 ? "" : "s", conf->rules.n, conf->rules.n == 1 ? "" : "s");
    proxy_conf_free(&conf);
    return CTL_OK;
}

static int check_file(const char *path, enum file_type type)
{
    int status = type == TYPE_UNKNOWN ? type_of_content(path, &type) : CTL_OK;
    if (status != CTL_OK)
        return status;
    switch (type) {
    case TYPE_EDGE:
        return check_conf(path, PROXY_ROLE_EDGE);
    case TYPE_SHIELD:
        return check_conf(path, PROXY_ROLE_SHIELD);
    case TYPE_KEYS:
        return check_keys(path);
    case TYPE_ROUTER:
        return ctl_error("%s: is for a router, which this version does not have", path);
    case TYPE_UNKNOWN:
        break;
    }
    return ctl_error(
        "%s: has neither `upstreams` (edge), `origins` (shield) nor `keys`; --type says what it is", path);
}

int ctl_check(int argc, char **argv)
{
    static const struct option options[] = {
        {"type", required_argument, NULL, 't'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    enum file_type type = TYPE_UNKNOWN;
    int c;
    while ((c = getopt_long(argc, argv, "t:h", options, NULL)) != -1) {
        if (c == 'h') {
            fputs(usage_text, stdout);
            return CTL_OK;
        }
        if (c != 't')
            return CTL_USAGE;
        type = type_of_word(optarg);
        if (type == TYPE_UNKNOWN)
            return ctl_usage_error("check", "--type is edge, shield or keys, not \"%s\"", optarg);
    }
    if (optind == argc)
        return ctl_usage_error("check", "which file?");
    int status = CTL_OK;
    for (int i = optind; i < argc; i++)
        if (check_file(argv[i], type) != CTL_OK)
            status = CTL_NO;
    return status;
}
