/* From a head to what is asked for: path, rule, method, loop, signature, markets, rate, cache key. The order is the
 * contract's (interfaces.md, "Signed URLs"); the first check that fails answers. */
#include "http/cmcd.h"
#include "proxy/conn.h"
#include "proxy/rate_limit.h"
#include "proxy/request.h"
#include "proxy/upward.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>

/* All hosts of a file are one site. */
static const struct str site_name = STR_INIT("site");

static bool host_is_served(const struct proxy_conf *conf, struct str host)
{
    for (unsigned i = 0; i < conf->hosts_n; i++)
        if (str_eq_nocase(conf->hosts[i], host))
            return true;
    return conf->hosts_n == 0;
}

/* The proxies that the operator trusts append the address they saw; the last one that is not one of them is
 * the client. */
static struct address client_of(const struct request *r)
{
    const struct proxy_conf *conf = r->site->site->conf;
    struct address client = r->carrier->conn->peer, said[16];
    struct field_members it;
    struct str member;
    unsigned n = 0;

    if (conf->trusted_proxies_n == 0 || !fields_has(&r->http.fields, FIELD_X_FORWARDED_FOR))
        return client;
    it = field_members_of(&r->http.fields, r->head, FIELD_X_FORWARDED_FOR);
    while (field_members_next(&it, &member)) {
        if (n == ARRAY_LEN(said))
            memmove(said, said + 1, --n * sizeof said[0]);
        if (address_parse(member, 1, &said[n]) == 0)
            address_set_port(&said[n++], 0); /* few say it, and nobody asks */
        else
            n = 0; /* what stands before a member that is no address is not to be believed */
    }
    for (;;) {
        struct ip ip = address_ip(&client);

        if (n == 0 || !proxy_conf_trusts(conf, &ip))
            return client;
        client = said[--n];
    }
}

static unsigned check_method(struct request *r)
{
    static const unsigned bits[] = {
        [HTTP_GET] = RULE_METHOD_GET,         [HTTP_HEAD] = RULE_METHOD_HEAD,
        [HTTP_POST] = RULE_METHOD_POST,       [HTTP_PUT] = RULE_METHOD_PUT,
        [HTTP_DELETE] = RULE_METHOD_DELETE,   [HTTP_PATCH] = RULE_METHOD_PATCH,
        [HTTP_OPTIONS] = RULE_METHOD_OPTIONS, [HTTP_METHOD_OTHER] = 0,
    };
    unsigned method = r->http.method;

    if (method == HTTP_CONNECT || method == HTTP_TRACE)
        return 405;
    if (r->rule->methods & RULE_METHOD_ALL)
        return 0;
    return r->rule->methods & bits[method] ? 0 : 405;
}

/* *uid: the signed one, in the worker's scratch, or empty. */
static unsigned check_signature(struct request *r, struct str *uid, const char **detail)
{
    static const enum stat_signature counts[SIGNED_URL_RESULT_COUNT] = {
        [SIGNED_URL_OK] = STAT_SIGNATURE_OK,
        [SIGNED_URL_EXPIRED] = STAT_SIGNATURE_EXPIRED,
        [SIGNED_URL_ADDRESS] = STAT_SIGNATURE_ADDRESS,
        [SIGNED_URL_GEO] = STAT_SIGNATURE_GEO,
    };
    struct worker *w = r->worker;
    const struct proxy_signing *signing = &r->site->site->conf->signing;
    struct ip address = address_ip(&r->client);
    struct signed_url_client client = {.address = &address, .country = str_of(r->country, sizeof r->country)};
    struct signed_url_claims claims;
    enum signed_url_result result;

    *uid = STR("");
    if (r->rule->signing == RULE_SIGNING_IGNORED)
        return 0;
    result = signed_url_verify(signing->keys, &signing->policy, &r->parts, (int64_t)io_now_unix_s(w->io),
                               &client, &w->scratch, &claims);
    if (result == SIGNED_URL_MISSING && r->rule->signing == RULE_SIGNING_OPTIONAL)
        return 0;
    if (result != SIGNED_URL_OK) {
        enum stat_signature count =
            counts[result] == STAT_SIGNATURE_OK ? STAT_SIGNATURE_WRONG : counts[result];

        stat_inc(&w->stats.signatures[count]);
        if (result == SIGNED_URL_GEO)
            stat_inc(&w->stats.geo_blocked[STAT_GEO_URL]);
        r->reason = signed_url_reason(result).p;
        *detail = result == SIGNED_URL_EXPIRED   ? "the link has expired"
                  : result == SIGNED_URL_ADDRESS ? "the link is for another address"
                  : result == SIGNED_URL_GEO     ? "not available in this market"
                                                 : "the link is not validly signed";
        return signed_url_status(result);
    }
    stat_inc(&w->stats.signatures[STAT_SIGNATURE_OK]);
    *uid = claims.uid;
    r->rate_bytes_per_s = claims.rate_bytes_per_s;
    /* The claims live in the worker's scratch; the log needs these at the end. */
    struct buf keep = buf_of(r->uid_kid, sizeof r->uid_kid);
    r->uid = str_of(r->uid_kid, claims.uid.n < 64 ? claims.uid.n : 64);
    buf_add(&keep, claims.uid.p, r->uid.n);
    r->kid = str_of(r->uid_kid + keep.n, claims.kid.n < 32 ? claims.kid.n : 32);
    buf_add(&keep, claims.kid.p, r->kid.n);
    return 0;
}

static unsigned check_rate(struct request *r, struct str uid, const char **detail)
{
    const struct proxy_rate_limit *limit = &r->site->site->conf->rate_limit;

    if (limit->per_uid.interval_ns == 0 && limit->per_address.interval_ns == 0)
        return 0;
    r->retry_after_s = rate_limit_request(r->worker, limit, uid, r->client);
    if (r->retry_after_s == 0)
        return 0;
    r->reason = "rate";
    *detail = "too many requests; come again after the seconds that Retry-After says";
    return 429;
}

static bool peer_is_known(const struct request *r, struct str token)
{
    unsigned i = fields_find(&r->http.fields, r->head, STR(UPWARD_PEER_FIELD), 0);
    struct str given;

    if (i == FIELD_END)
        return false;
    given = field_value(&r->http.fields, r->head, i);
    return given.n == token.n && CRYPTO_memcmp(given.p, token.p, token.n) == 0;
}

/* Parameters of a token never enter key or upstream, and neither does what a player tells of itself, which differs
 * from request to request; unless the operator names it. What is passed keeps the rest of the query. */
static void keep_query(const struct rule *rule, struct str query, struct buf *out)
{
    struct str left_out[16];
    size_t n = 0;

    if (query.n == 0)
        return;
    if (!rule->cache || rule->query == RULE_QUERY_ALL) {
        CHECK(signed_url_names_n < ARRAY_LEN(left_out));
        if (rule->signing != RULE_SIGNING_IGNORED)
            for (; n < signed_url_names_n; n++)
                left_out[n] = signed_url_names[n];
        if (rule->cache)
            left_out[n++] = cmcd_parameter;
        url_query_keep_all_but(query, left_out, n, out);
    } else if (rule->query == RULE_QUERY_LISTED)
        url_query_keep(query, rule->keep_query, rule->keep_query_n, out);
}

int request_key(const struct rule *rule, struct str path, struct str query, struct buf *kept,
                struct buf *text, struct cache_key *key)
{
    keep_query(rule, query, kept);
    return kept->overflow ? -E2BIG : cache_key_make(text, site_name, path, buf_str(kept), key);
}

static unsigned make_key(struct request *r)
{
    size_t query_max = 3 * r->parts.query.n;
    size_t cap = r->path.n + 2 * query_max + site_name.n + 8;
    struct buf kept, text;

    r->text = r->text_inline;
    if (cap > sizeof r->text_inline) {
        r->text = malloc(cap);
        if (r->text == NULL)
            return 503;
    }
    kept = buf_of(r->text, query_max);
    text = buf_of(r->text + query_max, cap - query_max);
    if (request_key(r->rule, r->path, r->parts.query, &kept, &text, &r->key) != 0)
        return 414;
    r->query = buf_str(&kept);
    return 0;
}

/* A player knows what is of use to it; the token's rate is the operator's, and wins where it is lower. */
static void pace_by_cmcd(struct request *r)
{
    const struct proxy_pacing *pacing = &r->site->site->conf->pacing;
    struct worker *w = r->worker;
    struct buf scratch = buf_of(w->scratch.bytes, sizeof w->scratch.bytes);
    struct cmcd cmcd;
    uint64_t rate;

    cmcd_of_request(&r->http.fields, r->head, r->parts.query, &scratch, &cmcd);
    if (!cmcd_has(&cmcd, CMCD_RTP) || cmcd.number[CMCD_RTP] == 0)
        return;
    rate = cmcd.number[CMCD_RTP] * (uint64_t)(1000 / 8);
    if (rate < pacing->cmcd_rtp_min_bytes_per_s)
        rate = pacing->cmcd_rtp_min_bytes_per_s;
    if (r->rate_bytes_per_s != 0 && r->rate_bytes_per_s <= rate)
        return;
    r->rate_bytes_per_s = rate;
    r->paced_by_cmcd = true;
}

/* Where the first range begins, so that a seek into a long object fetches that slice and not the first. */
static uint32_t first_slice(const struct request *r)
{
    const uint64_t any_length = (uint64_t)CACHE_SLICES_MAX * CACHE_SLICE_BYTES;
    struct ranges ranges;
    struct str range = fields_get(&r->http.fields, r->head, FIELD_RANGE);

    if (range.p == NULL || ranges_parse(range, any_length, &ranges) != RANGE_PARTIAL)
        return 0;
    /* A suffix range counts from an end that is not known yet. */
    if (ranges.at[0].last == any_length - 1 && str_starts(range, STR("bytes=-")))
        return 0;
    return cache_slice_of(ranges.at[0].first);
}

unsigned request_admit(struct request *r, const char **detail)
{
    const struct proxy_conf *conf = r->site->site->conf;
    struct url_host host;
    struct str uid;
    unsigned status;
    int error;

    r->parts = signed_url_split(http1_target(&r->http, r->head));
    if (r->http.target_form == HTTP_TARGET_ASTERISK || r->http.target_form == HTTP_TARGET_AUTHORITY) {
        *detail = "this form of target is not served here";
        return r->http.method == HTTP_CONNECT ? 405 : 400;
    }
    error = url_path_canonical(r->parts.path, r->worker->path_scratch, &r->path);
    if (error != 0) {
        *detail = url_error_reason(error);
        return 400;
    }
    /* The next tier would take it for a token, cut it off and serve another path than is judged here. */
    if (str_starts(r->path, STR("/~"))) {
        *detail = "a path that begins with ~ after its token";
        return 400;
    }
    if (url_host_parse(http1_host(&r->http, r->head), &host) == 0)
        r->host = host.name;
    if (str_eq(r->path, STR("/.segue/health")))
        return 0;
    if (!host_is_served(conf, r->host)) {
        *detail = "this host is not served here";
        return 421;
    }
    r->rule = rules_find(&conf->rules, r->path);
    status = check_method(r);
    if (status != 0) {
        *detail = "this method is not allowed here";
        return status;
    }
    if (upward_is_loop(&r->http.fields, r->head, conf->name, r->worker->proxy->instance)) {
        *detail = "the request has been here before";
        return 508;
    }
    if (conf->peers_token.n > 0 && !peer_is_known(r, conf->peers_token)) {
        *detail = "this shield answers only its edges";
        return 403;
    }
    r->client = client_of(r);
    request_find_country(r);
    status = check_signature(r, &uid, detail);
    if (status == 0)
        status = request_check_territory(r, detail);
    if (status == 0)
        status = check_rate(r, uid, detail);
    if (status != 0)
        return status;
    if (r->http.framing == HTTP_BODY_LENGTH && r->http.content_length > conf->limits.request_body_bytes_max) {
        *detail = "the body is too long";
        return 413;
    }
    if (conf->pacing.cmcd_rtp)
        pace_by_cmcd(r);
    if (r->rate_bytes_per_s != 0)
        stat_inc(&r->worker->stats.paced_requests[r->paced_by_cmcd]);
    r->authorization = fields_has(&r->http.fields, FIELD_AUTHORIZATION);
    r->cacheable = r->rule->cache && (r->http.method == HTTP_GET || r->http.method == HTTP_HEAD);
    status = make_key(r);
    if (status != 0) {
        *detail = status == 414 ? "the path is too long" : "out of memory";
        return status;
    }
    /* It may lie in the worker's scratch; the key holds the same bytes. */
    r->path = str_of(r->key.text.p + site_name.n + 1, r->path.n);
    if (r->cacheable)
        r->slice = first_slice(r);
    return 0;
}
