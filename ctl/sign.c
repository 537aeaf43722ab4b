#include "ctl.h"

#include "proxy/proxy_conf.h"
#include "util/clock.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

#define OUTPUT_BYTES_MAX (4 * HTTP_TARGET_BYTES_MAX)

static const char usage_text[] =
    "usage: seguectl sign --keys FILE (--ttl DURATION | --exp TIME) [OPTION]... TARGET...\n"
    "\n"
    "Prints each TARGET, a path or a whole URL, with a token that lets it be fetched. A TARGET of - stands "
    "for\n"
    "the lines of standard input.\n"
    "\n"
    "  -k, --keys FILE     keys.yaml of the edges\n"
    "      --kid ID        sign with this key; not given: default_kid, or the only key\n"
    "      --ttl DURATION  valid from now for so long: 90s, 1h, 7d\n"
    "      --exp TIME      valid up to this time: Unix seconds, or 2027-01-31T12:00:00Z\n"
    "\n"
    "What the token is good for; not given: this path, for everyone:\n"
    "      --pfx PREFIX    all paths that begin so; PREFIX begins and ends in / (--prefix is the same)\n"
    "      --depth N       all paths that have the first N segments of TARGET\n"
    "      --uid ID        the listener, for rate limits and logs\n"
    "      --geo MARKETS   SE,NO: only these countries; -US,CA: all but these\n"
    "      --ip ADDRESS    only this address or block (192.0.2.7, 2001:db8::/32)\n"
    "      --rate SPEED    bytes a second at which bodies are sent: 65536 or 64KiB/s\n"
    "\n"
    "Its form:\n"
    "  -p, --path          the token is the first path segment, which relative URLs keep: for playlists\n"
    "  -b, --base URL      print whole URLs that begin so: https://audio.example.net\n"
    "\n"
    "A path that no edge would serve (400) is not signed.\n";

struct sign {
    const char *keys_path, *kid, *ttl, *exp, *pfx, *depth, *uid, *geo, *ip, *rate, *base;
    bool path_form;
    uint64_t depth_n;
    struct signed_url_keys keys;
    struct signed_url_grant grant;
};

static struct str optional(const char *text)
{
    return text != NULL ? str_z(text) : STR("");
}

/* ---- Options ---- */

enum { OPT_KID = 256, OPT_TTL, OPT_EXP, OPT_PFX, OPT_DEPTH, OPT_UID, OPT_GEO, OPT_IP, OPT_RATE };

static const char **option_place(struct sign *s, int c)
{
    switch (c) {
    case 'k':
        return &s->keys_path;
    case 'b':
        return &s->base;
    case OPT_KID:
        return &s->kid;
    case OPT_TTL:
        return &s->ttl;
    case OPT_EXP:
        return &s->exp;
    case OPT_PFX:
        return &s->pfx;
    case OPT_DEPTH:
        return &s->depth;
    case OPT_UID:
        return &s->uid;
    case OPT_GEO:
        return &s->geo;
    case OPT_IP:
        return &s->ip;
    case OPT_RATE:
        return &s->rate;
    default:
        return NULL;
    }
}

/* Returns -1 to go on, or the exit status. */
static int parse_options(int argc, char **argv, struct sign *s)
{
    static const struct option options[] = {{"keys", required_argument, NULL, 'k'},
                                            {"kid", required_argument, NULL, OPT_KID},
                                            {"ttl", required_argument, NULL, OPT_TTL},
                                            {"exp", required_argument, NULL, OPT_EXP},
                                            {"pfx", required_argument, NULL, OPT_PFX},
                                            {"prefix", required_argument, NULL, OPT_PFX},
                                            {"depth", required_argument, NULL, OPT_DEPTH},
                                            {"uid", required_argument, NULL, OPT_UID},
                                            {"geo", required_argument, NULL, OPT_GEO},
                                            {"ip", required_argument, NULL, OPT_IP},
                                            {"rate", required_argument, NULL, OPT_RATE},
                                            {"path", no_argument, NULL, 'p'},
                                            {"base", required_argument, NULL, 'b'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "k:pb:h", options, NULL)) != -1) {
        if (c == 'h') {
            fputs(usage_text, stdout);
            return CTL_OK;
        }
        const char **place = option_place(s, c);
        if (c == 'p')
            s->path_form = true;
        else if (place != NULL)
            *place = optarg;
        else
            return CTL_USAGE;
    }
    return -1;
}

static int read_expiry(struct sign *s)
{
    uint64_t ms;
    int64_t at;
    if ((s->ttl != NULL) == (s->exp != NULL))
        return ctl_usage_error("sign", "give one of --ttl and --exp");
    if (s->ttl != NULL) {
        if (conf_parse_duration_ms(str_z(s->ttl), &ms) < 0 || ms < 1000)
            return ctl_usage_error("sign", "--ttl: expected " CONF_DURATION_EXPECTED ", got \"%s\"", s->ttl);
        s->grant.exp_s = clock_unix_s() + ms / 1000;
        return CTL_OK;
    }
    if (conf_parse_time_s(str_z(s->exp), &at) < 0)
        return ctl_usage_error("sign", "--exp: expected " CONF_TIME_EXPECTED ", got \"%s\"", s->exp);
    s->grant.exp_s = (uint64_t)at;
    if (s->grant.exp_s < clock_unix_s())
        fprintf(stderr, "seguectl: warning: --exp %s is in the past\n", s->exp);
    return CTL_OK;
}

static int read_grant(struct sign *s)
{
    struct signed_url_grant *g = &s->grant;
    int status = read_expiry(s);
    if (status != CTL_OK)
        return status;
    if (s->pfx != NULL && s->depth != NULL)
        return ctl_usage_error("sign", "give one of --pfx and --depth");
    if (s->depth != NULL && (str_to_u64(str_z(s->depth), &s->depth_n) < 0 || s->depth_n == 0))
        return ctl_usage_error("sign", "--depth: expected a number of segments, got \"%s\"", s->depth);
    if (s->rate != NULL && ((str_to_u64(str_z(s->rate), &g->rate_bytes_per_s) < 0 &&
                             conf_parse_bytes_per_s(str_z(s->rate), &g->rate_bytes_per_s) < 0) ||
                            g->rate_bytes_per_s == 0))
        return ctl_usage_error("sign", "--rate: expected bytes a second such as 65536 or 64KiB/s, got \"%s\"",
                               s->rate);
    if (s->base != NULL && strncmp(s->base, "http://", 7) != 0 && strncmp(s->base, "https://", 8) != 0)
        return ctl_usage_error("sign", "--base: expected http://host or https://host, got \"%s\"", s->base);
    g->kid = optional(s->kid);
    g->uid = optional(s->uid);
    g->geo = optional(s->geo);
    g->ip = optional(s->ip);
    g->pfx = optional(s->pfx);
    return CTL_OK;
}

/* ---- Keys ---- */

static const struct signed_url_key *chosen_key(const struct sign *s)
{
    const struct signed_url_keys *keys = &s->keys;
    if (s->kid == NULL)
        return keys->default_index >= 0 ? &keys->at[keys->default_index] : keys->n == 1 ? &keys->at[0] : NULL;
    for (uint32_t i = 0; i < keys->n; i++)
        if (str_eq(str_of(keys->at[i].kid, keys->at[i].kid_n), str_z(s->kid)))
            return &keys->at[i];
    return NULL;
}

/* A token made with a key that is not valid is refused everywhere, so it is not made. */
static int check_key(const struct sign *s)
{
    const struct signed_url_key *key = chosen_key(s);
    int64_t now = (int64_t)clock_unix_s();
    if (key == NULL && s->kid == NULL)
        return ctl_error("%s has several keys and no default_kid: give --kid", s->keys_path);
    if (key == NULL)
        return ctl_error("%s has no key \"%s\"", s->keys_path, s->kid);
    if (now > key->not_after_s)
        return ctl_error("key %.*s is not valid since %s", key->kid_n, key->kid,
                         ctl_time(key->not_after_s).text);
    if (s->grant.exp_s < INT64_MAX && (int64_t)s->grant.exp_s < key->not_before_s)
        return ctl_error("key %.*s is not valid before %s, when the token has expired", key->kid_n, key->kid,
                         ctl_time(key->not_before_s).text);
    if (now < key->not_before_s)
        fprintf(stderr, "seguectl: warning: key %.*s is not valid before %s\n", key->kid_n, key->kid,
                ctl_time(key->not_before_s).text);
    if ((int64_t)s->grant.exp_s > key->not_after_s)
        fprintf(stderr, "seguectl: warning: key %.*s ends at %s, before the token does\n", key->kid_n,
                key->kid, ctl_time(key->not_after_s).text);
    return CTL_OK;
}

/* ---- One target ---- */

/* "/a/b/" of "/a/b/c" for 2; the token covers what is below. NULL string when the path has too few. */
static struct str prefix_of(struct str path, uint64_t depth)
{
    struct str rest = path, segment;
    size_t end = 0;
    for (uint64_t i = 0; i < depth; i++) {
        if (!url_segment_next(&rest, &segment))
            return STR_NONE;
        end = (size_t)(segment.p + segment.n - path.p);
    }
    return end < path.n ? str_of(path.p, end + 1) : STR_NONE;
}

static uint64_t depth_of(struct str prefix)
{
    uint64_t n = 0;
    for (size_t i = 1; i < prefix.n; i++)
        n += prefix.p[i] == '/';
    return n;
}

static bool has_token_name(struct str query, struct str *name)
{
    struct str rest = query;
    struct url_param param;
    while (url_query_next(&rest, &param)) {
        for (size_t i = 0; i < signed_url_names_n; i++) {
            if (url_name_is(param.name, signed_url_names[i])) {
                *name = signed_url_names[i];
                return true;
            }
        }
    }
    return false;
}

static int sign_with(const struct sign *s, const struct signed_url_grant *grant, struct str path,
                     struct str query, struct buf *out)
{
    return s->path_form ? signed_url_sign_path(&s->keys, grant, path, query, out)
                        : signed_url_sign_query(&s->keys, grant, path, query, out);
}

/* Which of the claims it was: each is tried alone. */
static int explain_refusal(const struct sign *s, const struct signed_url_grant *grant, struct str path)
{
    const struct {
        const char *name, *expected;
        struct signed_url_grant alone;
    } claims[] = {
        {"--exp", "a time of at most 11 digits", {.exp_s = grant->exp_s}},
        {"--uid", "characters of A-Za-z0-9._~/,:-", {.exp_s = 1, .uid = grant->uid}},
        {"--geo", "countries such as SE,NO or -US,CA", {.exp_s = 1, .geo = grant->geo}},
        {"--ip", "an address or a block such as 192.0.2.0/24", {.exp_s = 1, .ip = grant->ip}},
        {"--pfx", "a prefix of the path, with / at both ends", {.exp_s = 1, .pfx = grant->pfx}},
    };
    for (size_t i = 0; i < sizeof(claims) / sizeof(claims[0]); i++) {
        char scratch[OUTPUT_BYTES_MAX];
        struct buf out = buf_of(scratch, sizeof(scratch));
        struct signed_url_grant alone = claims[i].alone;
        alone.kid = grant->kid;
        if (sign_with(s, &alone, path, STR(""), &out) == -EINVAL)
            return ctl_error("%.*s: %s: expected %s", (int)path.n, path.p, claims[i].name,
                             claims[i].expected);
    }
    return ctl_error("%.*s: cannot be signed", (int)path.n, path.p);
}

static int check_target(const char *text, struct ctl_target *target, struct signed_url_parts *parts)
{
    char scratch[HTTP_TARGET_BYTES_MAX];
    struct str canonical, name;
    if (!ctl_target_of(str_z(text), target))
        return ctl_error("\"%s\" is neither a path that begins in / nor a URL of http or https", text);
    if (target->target.n > HTTP_TARGET_BYTES_MAX)
        return ctl_error("%.60s... is longer than the %u bytes that an edge takes", text,
                         HTTP_TARGET_BYTES_MAX);
    *parts = signed_url_split(target->target);
    if (parts->token.p != NULL || (parts->query.p != NULL && has_token_name(parts->query, &name)))
        return ctl_error("%s has a token already%s%.*s", text, parts->token.p != NULL ? "" : ": ",
                         parts->token.p != NULL ? 0 : (int)name.n, parts->token.p != NULL ? "" : name.p);
    int rc = url_path_canonical(parts->path, scratch, &canonical);
    if (rc < 0)
        return ctl_error("%s would be answered with 400: %s", text, url_error_reason(rc));
    return CTL_OK;
}

static int sign_target(const struct sign *s, const char *text)
{
    struct ctl_target target;
    struct signed_url_parts parts = {0};
    int status = check_target(text, &target, &parts);
    if (status != CTL_OK)
        return status;

    struct signed_url_grant grant = s->grant;
    if (s->depth != NULL) {
        grant.pfx = prefix_of(parts.path, s->depth_n);
        if (grant.pfx.p == NULL)
            return ctl_error("%s has fewer than %s segments above its last", text, s->depth);
    }
    if (grant.pfx.n > 0 && depth_of(grant.pfx) < PROXY_PFX_DEPTH_MIN)
        fprintf(stderr,
                "seguectl: warning: edges refuse prefixes of fewer than %d segments unless "
                "pfx_depth_min says otherwise\n",
                PROXY_PFX_DEPTH_MIN);

    char bytes[OUTPUT_BYTES_MAX];
    struct buf out = buf_of(bytes, sizeof(bytes));
    int rc = sign_with(s, &grant, parts.path, parts.query, &out);
    if (rc == -EINVAL)
        return explain_refusal(s, &grant, parts.path);
    if (rc < 0)
        return ctl_error("%s: cannot be signed: %s", text, rc == -ENOSPC ? "it is too long" : "no such key");
    struct str base = s->base != NULL ? str_z(s->base) : target.base;
    while (base.n > 0 && base.p[base.n - 1] == '/')
        base.n--;
    printf(STR_FMT STR_FMT "\n", STR_ARG(base), STR_ARG(buf_str(&out)));
    return CTL_OK;
}

static int sign_lines(const struct sign *s)
{
    char line[2 * HTTP_TARGET_BYTES_MAX];
    int status = CTL_OK;
    while (fgets(line, sizeof(line), stdin) != NULL) {
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] != '\0' && sign_target(s, line) != CTL_OK)
            status = CTL_NO;
    }
    return ferror(stdin) ? ctl_error("cannot read standard input") : status;
}

static int sign_all(struct sign *s, int argc, char **argv)
{
    int status = check_key(s);
    if (status != CTL_OK)
        return status;
    for (int i = optind; i < argc; i++)
        if ((strcmp(argv[i], "-") == 0 ? sign_lines(s) : sign_target(s, argv[i])) != CTL_OK)
            status = CTL_NO;
    return status;
}

int ctl_sign(int argc, char **argv)
{
    struct sign s = {0};
    struct conf_error error;
    int status = parse_options(argc, argv, &s);
    if (status >= 0)
        return status;
    if (s.keys_path == NULL)
        return ctl_usage_error("sign", "--keys is missing");
    if (optind == argc)
        return ctl_usage_error("sign", "which path or URL?");
    status = read_grant(&s);
    if (status != CTL_OK)
        return status;
    if (proxy_keys_load(s.keys_path, &s.keys, &error) < 0)
        return ctl_error("%s", error.text);
    status = sign_all(&s, argc, argv);
    signed_url_keys_clear(&s.keys);
    return status;
}
