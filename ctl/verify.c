/* Runs an edge's own check and then says for a person what it found: the checks in their order, the first
 * that failed, and what the token says. */
#include "ctl.h"

#include "proxy/proxy_conf.h"
#include "util/clock.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

static const char usage_text[] =
    "usage: seguectl verify (--keys FILE | --config EDGE.YAML) [OPTION]... TARGET\n"
    "\n"
    "Says whether an edge would take TARGET, a path or a whole URL with a token, and if not, why. The "
    "checks\n"
    "are printed in the order in which an edge makes them. Exit status: 0 valid, 1 not.\n"
    "\n"
    "  -k, --keys FILE         keys.yaml of the edges\n"
    "  -c, --config FILE       edge.yaml, for its keys, clock_skew, lifetime_max and pfx_depth_min\n"
    "      --client ADDRESS    ask for a client with this address (for tokens with `ip`)\n"
    "      --country CC        ask for a client in this country (for tokens with `geo`)\n"
    "      --now TIME          ask for this time, Unix seconds or 2027-01-31T12:00:00Z, instead of now\n"
    "\n"
    "With --keys the other settings are an edge's defaults: clock_skew 5s, lifetime_max 1d, pfx_depth_min "
    "2.\n";

struct verify {
    const char *keys_path, *config_path, *client, *country, *now;
    struct signed_url_keys keys;
    struct signed_url_policy policy;
    int64_t now_s;
    struct ip address;
    struct ctl_target target;
    struct signed_url_parts parts;
    struct signed_url_scratch scratch;
    struct signed_url_claims claims;
    bool address_assumed, country_assumed; /* none was given: any that the token allows */
};

/* ---- The checks, in the order of signed_url_verify ---- */

enum check {
    CHECK_PATH,
    CHECK_TOKEN,
    CHECK_FORM,
    CHECK_KEY,
    CHECK_SIGNATURE,
    CHECK_LIFETIME,
    CHECK_PREFIX,
    CHECK_EXPIRY,
    CHECK_ADDRESS,
    CHECK_COUNTRY,
    CHECK_COUNT,
};

static const char *const check_names[CHECK_COUNT] = {
    [CHECK_PATH] = "path",       [CHECK_TOKEN] = "token",         [CHECK_FORM] = "form of sig",
    [CHECK_KEY] = "key",         [CHECK_SIGNATURE] = "signature", [CHECK_LIFETIME] = "lifetime",
    [CHECK_PREFIX] = "prefix",   [CHECK_EXPIRY] = "expiry",       [CHECK_ADDRESS] = "address",
    [CHECK_COUNTRY] = "country",
};

static enum check check_of(enum signed_url_result result)
{
    switch (result) {
    case SIGNED_URL_BAD_SIG_FORM:
        return CHECK_FORM;
    case SIGNED_URL_UNKNOWN_KEY:
    case SIGNED_URL_KEY_NOT_VALID:
        return CHECK_KEY;
    case SIGNED_URL_WRONG_SIG:
        return CHECK_SIGNATURE;
    case SIGNED_URL_LIFETIME:
        return CHECK_LIFETIME;
    case SIGNED_URL_OUTSIDE_PREFIX:
    case SIGNED_URL_PREFIX_TOO_SHORT:
        return CHECK_PREFIX;
    case SIGNED_URL_EXPIRED:
        return CHECK_EXPIRY;
    case SIGNED_URL_ADDRESS:
        return CHECK_ADDRESS;
    case SIGNED_URL_GEO:
        return CHECK_COUNTRY;
    case SIGNED_URL_OK:
        return CHECK_COUNT;
    default:
        return CHECK_TOKEN;
    }
}

/* ---- What the token says, as sent ---- */

/* The value of a parameter in the token segment or the query; p is NULL when it is not there. */
static struct str token_value(const struct signed_url_parts *parts, struct str name)
{
    struct str rest = parts->token.p != NULL ? parts->token : parts->query;
    while (rest.p != NULL && rest.n > 0) {
        const char *end = memchr(rest.p, parts->token.p != NULL ? ';' : '&', rest.n);
        size_t n = end != NULL ? (size_t)(end - rest.p) : rest.n;
        struct str pair = str_of(rest.p, n);
        rest = str_skip(rest, n + 1);
        if (str_starts(pair, name) && pair.n > name.n && pair.p[name.n] == '=')
            return str_skip(pair, name.n + 1);
    }
    return STR_NONE;
}

static const struct signed_url_key *key_of(const struct verify *v)
{
    struct str kid = token_value(&v->parts, STR("kid"));
    const struct signed_url_keys *keys = &v->keys;
    if (kid.p == NULL)
        return keys->default_index >= 0 ? &keys->at[keys->default_index] : keys->n == 1 ? &keys->at[0] : NULL;
    for (uint32_t i = 0; i < keys->n; i++)
        if (url_name_is(kid, str_of(keys->at[i].kid, keys->at[i].kid_n))) /* decodes escapes */
            return &keys->at[i];
    return NULL;
}

/* ---- What is said of each check ---- */

static void tell_token(const struct verify *v, enum signed_url_result result, struct buf *b)
{
    if (check_of(result) == CHECK_TOKEN)
        buf_printf(b, "%s", signed_url_explain(result));
    else
        buf_printf(b, "%s", v->parts.token.p != NULL ? "in the path" : "in the query");
}

static void tell_key(const struct verify *v, enum signed_url_result result, struct buf *b)
{
    const struct signed_url_key *key = key_of(v);
    struct str kid = token_value(&v->parts, STR("kid"));
    const char *file = v->keys_path != NULL ? v->keys_path : v->config_path;
    if (key == NULL && kid.p == NULL)
        buf_printf(b, "the URL has no kid, and %s has several keys and no default_kid", file);
    else if (key == NULL)
        buf_printf(b, "%s has no key \"" STR_FMT "\"", file, STR_ARG(kid));
    else if (result == SIGNED_URL_KEY_NOT_VALID && v->now_s < key->not_before_s)
        buf_printf(b, "%.*s is not valid before %s, in %s", key->kid_n, key->kid,
                   ctl_time(key->not_before_s).text, ctl_span((uint64_t)(key->not_before_s - v->now_s)).text);
    else if (result == SIGNED_URL_KEY_NOT_VALID)
        buf_printf(b, "%.*s ended at %s, %s ago", key->kid_n, key->kid, ctl_time(key->not_after_s).text,
                   ctl_span((uint64_t)(v->now_s - key->not_after_s)).text);
    else
        buf_printf(b, "%.*s%s", key->kid_n, key->kid, kid.p == NULL ? ", since the URL has no kid" : "");
}

static void tell_expiry(const struct verify *v, struct buf *b)
{
    int64_t exp = (int64_t)v->claims.exp_s; /* 11 digits at most */
    if (exp >= v->now_s)
        buf_printf(b, "%s, in %s", ctl_time(exp).text, ctl_span((uint64_t)(exp - v->now_s)).text);
    else
        buf_printf(b, "%s, %s ago, with a clock skew of %s allowed", ctl_time(exp).text,
                   ctl_span((uint64_t)(v->now_s - exp)).text, ctl_span(v->policy.clock_skew_s).text);
}

static void tell_prefix(const struct verify *v, enum signed_url_result result, struct buf *b)
{
    struct str pfx = v->claims.pfx;
    if (result == SIGNED_URL_PREFIX_TOO_SHORT)
        buf_printf(b, "\"" STR_FMT "\" has fewer segments than pfx_depth_min, %u", STR_ARG(pfx),
                   v->policy.pfx_depth_min);
    else if (result == SIGNED_URL_OUTSIDE_PREFIX)
        buf_printf(b, "the path is not below \"" STR_FMT "\"", STR_ARG(pfx));
    else if (pfx.n > 0)
        buf_printf(b, "below \"" STR_FMT "\"", STR_ARG(pfx));
    else
        buf_add_lit(b, "none, good for this path only");
}

static void tell_client(const struct verify *v, enum check check, struct buf *b)
{
    struct str claim = check == CHECK_ADDRESS ? v->claims.ip : v->claims.geo;
    const char *given = check == CHECK_ADDRESS ? v->client : v->country;
    bool assumed = check == CHECK_ADDRESS ? v->address_assumed : v->country_assumed;
    if (claim.n == 0)
        buf_add_lit(b, "any");
    else if (assumed)
        buf_printf(b, "only " STR_FMT "; %s asks for a client", STR_ARG(claim),
                   check == CHECK_ADDRESS ? "--client" : "--country");
    else
        buf_printf(b, "only " STR_FMT ", asked for %s", STR_ARG(claim), given);
}

static void tell(const struct verify *v, enum check check, enum signed_url_result result, struct buf *b)
{
    switch (check) {
    case CHECK_PATH:
        buf_add_str(b, v->parts.path);
        break;
    case CHECK_TOKEN:
        tell_token(v, result, b);
        break;
    case CHECK_KEY:
        tell_key(v, result, b);
        break;
    case CHECK_LIFETIME:
        if (check_of(result) == CHECK_LIFETIME)
            buf_printf(b, "exp is %s, more than %s from now", ctl_time((int64_t)v->claims.exp_s).text,
                       ctl_span(v->policy.lifetime_max_s).text);
        break;
    case CHECK_PREFIX:
        tell_prefix(v, result, b);
        break;
    case CHECK_EXPIRY:
        tell_expiry(v, b);
        break;
    case CHECK_ADDRESS:
    case CHECK_COUNTRY:
        tell_client(v, check, b);
        break;
    default: /* the form of sig, the signature: the verdict says it all */
        if (check_of(result) == check)
            buf_printf(b, "%s", signed_url_explain(result));
        break;
    }
}

static const char *verdict(const struct verify *v, enum check check, enum check failed)
{
    if (check > failed)
        return "not reached";
    if (check == failed)
        return "WRONG";
    bool assumed =
        (check == CHECK_ADDRESS && v->address_assumed) || (check == CHECK_COUNTRY && v->country_assumed);
    return assumed ? "not checked" : "ok";
}

static void print_checks(const struct verify *v, enum signed_url_result result)
{
    enum check failed = check_of(result);
    for (enum check check = CHECK_PATH; check < CHECK_COUNT; check++) {
        char detail[2 * HTTP_TARGET_BYTES_MAX];
        struct buf b = buf_of(detail, sizeof(detail));
        if (check <= failed)
            tell(v, check, result, &b);
        printf("  %-12s %s%s" STR_FMT "\n", check_names[check], verdict(v, check, failed),
               b.n > 0 ? ": " : "", STR_ARG(buf_str(&b)));
    }
}

/* ---- Asking ---- */

/* Who verifies without a client asks about the token, so it is asked for a client that the token allows. */
static enum signed_url_result ask(struct verify *v)
{
    char country[2] = "";
    struct ip_block block;
    struct signed_url_client client = {.address = &v->address, .country = STR("")};
    if (v->country != NULL)
        client.country = str_z(v->country);
    enum signed_url_result result;
    for (;;) {
        result =
            signed_url_verify(&v->keys, &v->policy, &v->parts, v->now_s, &client, &v->scratch, &v->claims);
        if (result == SIGNED_URL_ADDRESS && v->client == NULL && !v->address_assumed &&
            ip_block_parse(v->claims.ip, &block) == 0) {
            v->address_assumed = true;
            v->address = block.address;
        } else if (result == SIGNED_URL_GEO && v->country == NULL && !v->country_assumed) {
            v->country_assumed = true;
            memcpy(country, v->claims.geo.p[0] == '-' ? "ZZ" : v->claims.geo.p, 2);
            client.country = str_of(country, 2);
        } else {
            return result;
        }
    }
}

static int verify_target(struct verify *v, const char *text)
{
    char scratch[HTTP_TARGET_BYTES_MAX];
    struct str canonical;
    if (!ctl_target_of(str_z(text), &v->target))
        return ctl_usage_error("verify",
                               "\"%s\" is neither a path that begins in / nor a URL of http or https", text);
    if (v->target.target.n > HTTP_TARGET_BYTES_MAX) {
        printf("not valid: 414, the target is longer than %u bytes\n", HTTP_TARGET_BYTES_MAX);
        return CTL_NO;
    }
    v->parts = signed_url_split(v->target.target);
    int rc = url_path_canonical(v->parts.path, scratch, &canonical);
    if (rc < 0) {
        printf("not valid: 400, %s\n", url_error_reason(rc));
        return CTL_NO;
    }
    enum signed_url_result result = ask(v);
    if (result == SIGNED_URL_OK)
        printf("valid\n");
    else
        printf("not valid: %u, Segue-Reason: " STR_FMT ": %s\n", signed_url_status(result),
               STR_ARG(signed_url_reason(result)), signed_url_explain(result));
    print_checks(v, result);
    return result == SIGNED_URL_OK ? CTL_OK : CTL_NO;
}

/* ---- Options ---- */

enum { OPT_CLIENT = 256, OPT_COUNTRY, OPT_NOW };

static const char **option_place(struct verify *v, int c)
{
    switch (c) {
    case 'k':
        return &v->keys_path;
    case 'c':
        return &v->config_path;
    case OPT_CLIENT:
        return &v->client;
    case OPT_COUNTRY:
        return &v->country;
    case OPT_NOW:
        return &v->now;
    default:
        return NULL;
    }
}

/* Returns -1 to go on, or the exit status. */
static int parse_options(int argc, char **argv, struct verify *v)
{
    static const struct option options[] = {{"keys", required_argument, NULL, 'k'},
                                            {"config", required_argument, NULL, 'c'},
                                            {"client", required_argument, NULL, OPT_CLIENT},
                                            {"country", required_argument, NULL, OPT_COUNTRY},
                                            {"now", required_argument, NULL, OPT_NOW},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "k:c:h", options, NULL)) != -1) {
        if (c == 'h') {
            fputs(usage_text, stdout);
            return CTL_OK;
        }
        const char **place = option_place(v, c);
        if (place == NULL)
            return CTL_USAGE;
        *place = optarg;
    }
    if ((v->keys_path != NULL) == (v->config_path != NULL))
        return ctl_usage_error("verify", "give one of --keys and --config");
    if (optind + 1 != argc)
        return ctl_usage_error("verify", "which path or URL? One at a time");
    return -1;
}

static int read_question(struct verify *v)
{
    v->now_s = (int64_t)clock_unix_s();
    if (v->now != NULL && conf_parse_time_s(str_z(v->now), &v->now_s) < 0)
        return ctl_usage_error("verify", "--now: expected " CONF_TIME_EXPECTED ", got \"%s\"", v->now);
    if (v->client != NULL && ip_parse(str_z(v->client), &v->address) < 0)
        return ctl_usage_error("verify", "--client: expected an address, got \"%s\"", v->client);
    if (v->country != NULL &&
        (strlen(v->country) != 2 || strspn(v->country, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != 2))
        return ctl_usage_error("verify", "--country: expected two upper-case letters, got \"%s\"",
                               v->country);
    return CTL_OK;
}

static int read_keys(struct verify *v)
{
    struct conf_error error;
    struct proxy_conf *conf;
    if (v->keys_path != NULL) {
        v->policy = (struct signed_url_policy){.clock_skew_s = PROXY_CLOCK_SKEW_S,
                                               .lifetime_max_s = PROXY_LIFETIME_MAX_S,
                                               .pfx_depth_min = PROXY_PFX_DEPTH_MIN};
        return proxy_keys_load(v->keys_path, &v->keys, &error) < 0 ? ctl_error("%s", error.text) : CTL_OK;
    }
    if (proxy_conf_load(v->config_path, PROXY_ROLE_EDGE, &conf, &error) < 0)
        return ctl_error("%s", error.text);
    int status = CTL_OK;
    if (conf->signing.given) {
        v->keys = *conf->signing.keys;
        v->policy = conf->signing.policy;
    } else {
        status = ctl_error("%s: has no `signing`, so its edge takes any URL", v->config_path);
    }
    proxy_conf_free(&conf);
    return status;
}

int ctl_verify(int argc, char **argv)
{
    struct verify v = {0};
    int status = parse_options(argc, argv, &v);
    if (status >= 0)
        return status;
    signed_url_keys_init(&v.keys);
    status = read_question(&v);
    if (status == CTL_OK)
        status = read_keys(&v);
    if (status == CTL_OK)
        status = verify_target(&v, argv[optind]);
    signed_url_keys_clear(&v.keys);
    return status;
}
