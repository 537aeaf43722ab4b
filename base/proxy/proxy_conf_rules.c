/* The rules of a configuration. */
#include "http/signed_url.h"
#include "proxy/proxy_conf_raw.h"

#include <stdlib.h>

#define YEAR_S            (365ull * 24 * 3600)
#define TTL_S_MAX         (10 * YEAR_S)
#define NEGATIVE_TTL_S    5 /* stops a stampede on a dead object, and a new object is seen soon */
#define METHODS_BYTES_MAX 96
#define MARKETS_BYTES_MAX 4096 /* all there are, twice */
#define METHODS_KNOWN     "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

/* "rules[3].ttl" */
#define RULE_PATH(r, key) CONF_PATH("rules[%u]." key, (r)->index)

static bool flag(const bool *given, bool absent)
{
    return given != NULL ? *given : absent;
}

static void load_match(struct loader *l, const struct raw_rule *raw, struct rule *r)
{
    const char *why;
    if (pattern_compile(str_z(raw->match), l->a, &r->match, &why) < 0) {
        conf_fail(l->conf, RULE_PATH(r, "match"), "\"%.80s\": %s", raw->match, why);
        return;
    }
    for (const struct rule *earlier = l->out->rules.items; earlier < r; earlier++) {
        bool all = str_eq(earlier->match.text, STR("/**"));
        if (all || str_eq(earlier->match.text, r->match.text))
            conf_fail(l->conf, RULE_PATH(r, "match"),
                      "can never match, since rules[%u] comes first and matches %s", earlier->index,
                      all ? "every path" : "the same");
    }
}

static void load_freshness(struct loader *l, const struct raw_rule *raw, struct rule *r)
{
    r->cache = flag(raw->cache, true);
    r->override = flag(raw->override, false);
    r->immutable = flag(raw->immutable, false);
    r->ttl_given = raw->ttl != NULL;
    r->swr_given = raw->stale_while_revalidate != NULL;
    r->sie_given = raw->stale_if_error != NULL;
    r->ttl_s = conf_duration_s(l->conf, RULE_PATH(r, "ttl"), raw->ttl, 0, 0, TTL_S_MAX);
    r->negative_ttl_s = conf_duration_s(l->conf, RULE_PATH(r, "negative_ttl"), raw->negative_ttl,
                                        NEGATIVE_TTL_S, 0, TTL_S_MAX);
    r->stale_while_revalidate_s = conf_duration_s(l->conf, RULE_PATH(r, "stale_while_revalidate"),
                                                  raw->stale_while_revalidate, 0, 0, TTL_S_MAX);
    r->stale_if_error_s =
        conf_duration_s(l->conf, RULE_PATH(r, "stale_if_error"), raw->stale_if_error, 0, 0, TTL_S_MAX);
    r->client_cache_control = flag(raw->client_cache_control, false);
    r->store_set_cookie = flag(raw->store_set_cookie, false);
    r->store_authorization = flag(raw->store_authorization, false);

    if (r->override && !r->ttl_given)
        conf_fail(l->conf, RULE_PATH(r, "override"), "needs a `ttl` to put in place of the origin's");
    if (!r->cache && (r->ttl_given || r->immutable || r->swr_given || r->sie_given))
        conf_fail(l->conf, RULE_PATH(r, "cache"),
                  "is false, so the rule cannot have ttl, immutable or stale_*");
}

static void load_signing(struct loader *l, const struct raw_rule *raw, struct rule *r)
{
    const struct proxy_signing *signing = &l->out->signing;
    if (raw->is_signed != NULL && *raw->is_signed && l->out->role == PROXY_ROLE_SHIELD)
        conf_fail(l->conf, RULE_PATH(r, "signed"),
                  "is true, but a shield checks no signatures; the edge does");
    else if (raw->is_signed != NULL && *raw->is_signed && !signing->given)
        conf_fail(l->conf, RULE_PATH(r, "signed"), "is true, but the file has no `signing`");

    if (!signing->given || (raw->is_signed != NULL && !*raw->is_signed))
        r->signing = RULE_SIGNING_IGNORED;
    else
        r->signing = flag(raw->is_signed, signing->required) ? RULE_SIGNING_REQUIRED : RULE_SIGNING_OPTIONAL;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct str *)a)->p, ((const struct str *)b)->p);
}

static bool is_token_name(struct str name)
{
    for (size_t i = 0; i < signed_url_names_n; i++)
        if (str_eq(signed_url_names[i], name))
            return true;
    return false;
}

static void load_query(struct loader *l, const struct raw_rule *raw, struct rule *r)
{
    if (!conf_has(l->conf, RULE_PATH(r, "keep_query"))) {
        r->query = r->signing == RULE_SIGNING_IGNORED ? RULE_QUERY_ALL : RULE_QUERY_NONE;
        return;
    }
    struct str *names = arena_new(l->a, struct str, raw->keep_query_count);
    for (unsigned i = 0; i < raw->keep_query_count; i++) {
        names[i] = arena_str(l->a, str_z(raw->keep_query[i]));
        if (r->signing != RULE_SIGNING_IGNORED && is_token_name(names[i]))
            conf_fail(l->conf, CONF_PATH("rules[%u].keep_query[%u]", r->index, i),
                      "\"%.40s\" is a parameter of signed URLs and never enters the cache key", names[i].p);
    }
    if (raw->keep_query_count > 0)
        qsort(names, raw->keep_query_count, sizeof(*names), compare_names);
    for (unsigned i = 0; i < raw->keep_query_count; i++)
        if (r->keep_query_n == 0 || !str_eq(names[i], names[r->keep_query_n - 1]))
            names[r->keep_query_n++] = names[i];
    r->query = r->keep_query_n > 0 ? RULE_QUERY_LISTED : RULE_QUERY_NONE;
    r->keep_query = names;
}

/* `all`, or a list of names; it may be one of them in a list, too. */
static void load_methods(struct loader *l, struct rule *r)
{
    struct conf_path path = conf_path_of("rules[%u].methods", r->index);
    r->methods = RULE_METHOD_GET | RULE_METHOD_HEAD;
    r->allow = STR("GET, HEAD");
    if (!conf_has(l->conf, path.text))
        return;

    const char *word = conf_scalar_at(l->conf, path.text);
    int n = conf_list_count(l->conf, path.text);
    if (word != NULL && strcmp(word, "all") == 0) {
        r->methods = RULE_METHOD_ALL | (RULE_METHOD_ALL - 1);
        r->allow = STR(METHODS_KNOWN);
        return;
    }
    if (n <= 0) {
        conf_fail(l->conf, path.text, "expected `all` or a list such as [GET, HEAD, POST]");
        return;
    }
    char allow[METHODS_BYTES_MAX];
    struct buf b = buf_of(allow, sizeof(allow));
    r->methods = 0;
    for (int i = 0; i < n; i++) {
        struct conf_path item = conf_path_of("%s[%d]", path.text, i);
        word = conf_scalar_at(l->conf, item.text);
        unsigned bit = rule_method_of(str_z(word));
        if (bit == 0) {
            conf_fail(l->conf, item.text, "expected one of " METHODS_KNOWN ", got \"%.40s\"",
                      word != NULL ? word : "");
            return;
        }
        if (!(r->methods & bit))
            buf_printf(&b, "%s%s", b.n > 0 ? ", " : "", word);
        r->methods |= bit;
    }
    r->allow = arena_str(l->a, buf_str(&b));
}

/* "SE,NO" or "-US,CA", or a list of those that are allowed. The text of a list is put together and judged as one. */
static void load_markets(struct loader *l, struct rule *r)
{
    struct conf_path path = conf_path_of("rules[%u].markets", r->index);
    if (!conf_has(l->conf, path.text))
        return;

    char joined[MARKETS_BYTES_MAX];
    struct buf b = buf_of(joined, sizeof(joined));
    const char *word = conf_scalar_at(l->conf, path.text);
    int n = conf_list_count(l->conf, path.text);
    bool minus = false; /* it would count for all that follows: no list says that */
    for (int i = 0; i < n; i++) {
        const char *item = conf_scalar_at(l->conf, CONF_PATH("%s[%d]", path.text, i));
        minus = minus || item == NULL || item[0] == '-';
        buf_printf(&b, "%s%s", i > 0 ? "," : "", item != NULL ? item : "");
    }
    if (word != NULL)
        buf_add_str(&b, str_z(word));

    struct markets *markets = arena_new(l->a, struct markets, 1);
    if (minus || b.overflow || markets_parse(buf_str(&b), markets) < 0) {
        conf_fail(l->conf, path.text, "expected " MARKETS_EXPECTED ", or a list such as [SE, NO]");
        return;
    }
    if (l->out->territory_paths[TERRITORY_GEO] == NULL)
        conf_fail(l->conf, path.text, "needs `geo: {database: FILE}` to tell countries by");
    r->markets = markets;
}

static void load_rule(struct loader *l, const struct raw_rule *raw, struct rule *r)
{
    const char *why;
    load_match(l, raw, r);
    load_freshness(l, raw, r);
    load_signing(l, raw, r);
    load_query(l, raw, r);
    load_methods(l, r);
    if (raw->track != NULL && track_compile(str_z(raw->track), l->a, &r->track, &why) < 0)
        conf_fail(l->conf, RULE_PATH(r, "track"), "\"%.80s\": %s", raw->track, why);
    load_markets(l, r);
}

void load_rules(struct loader *l)
{
    struct rules *rules = &l->out->rules;
    struct rule *items = arena_new(l->a, struct rule, l->raw->rules_count);
    rules->items = items;
    for (unsigned i = 0; i < l->raw->rules_count && conf_status(l->conf) == 0; i++) {
        items[i].index = i;
        load_rule(l, &l->raw->rules[i], &items[i]);
        rules->n++;
    }
    rules->none = (struct rule){
        .index = RULE_INDEX_NONE,
        .signing = l->out->signing.given ? RULE_SIGNING_REQUIRED : RULE_SIGNING_IGNORED,
        .query = RULE_QUERY_ALL,
        .methods = RULE_METHOD_GET | RULE_METHOD_HEAD,
        .allow = STR("GET, HEAD"),
    };
}
