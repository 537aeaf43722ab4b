#include "cache/freshness.h"

#include <stddef.h>

/* 4.2.3 */
uint64_t freshness_initial_age_s(const struct freshness_response *r)
{
    uint64_t apparent = 0, delay = 0;

    if (r->has_date && r->response_s > r->date_s)
        apparent = (uint64_t)r->response_s - (uint64_t)r->date_s;
    if (r->response_s > r->request_s)
        delay = (uint64_t)r->response_s - (uint64_t)r->request_s;
    uint64_t corrected = r->has_age ? r->age_s : 0;
    corrected = corrected > UINT64_MAX - delay ? UINT64_MAX : corrected + delay;
    return apparent > corrected ? apparent : corrected;
}

/* What the origin itself says (4.2.1), or false. */
static bool origin_lifetime(const struct freshness_response *r, uint32_t *lifetime_s)
{
    const struct cache_control *cc = r->cc;

    *lifetime_s = 0;
    if (cc->flags & CC_HAS_S_MAXAGE) {
        *lifetime_s = cc->s_maxage_s;
    } else if (cc->flags & CC_HAS_MAX_AGE) {
        *lifetime_s = cc->max_age_s;
    } else if (cc->flags & CC_FRESHNESS_INVALID) {
        return true;
    } else if (r->has_expires && !r->targeted) {
        int64_t from = r->has_date ? r->date_s : r->response_s;
        if (r->expires_s > from) {
            uint64_t lifetime = (uint64_t)r->expires_s - (uint64_t)from;
            *lifetime_s = lifetime > CACHE_CONTROL_DELTA_MAX ? CACHE_CONTROL_DELTA_MAX : (uint32_t)lifetime;
        }
    } else {
        return false;
    }
    return true;
}

/* An error that may be kept for a while without the origin's word (RFC 9110, 15.1, without the gateway's
 * own). */
static bool is_negative(unsigned status)
{
    return status == 404 || status == 405 || status == 410 || status == 414 || status == 501;
}

/* What a rule's ttl is meant for. */
static bool is_positive(unsigned status)
{
    return status == 200 || status == 203 || status == 206 || status == 300 || status == 301 || status == 308;
}

/* Does the rule say, where the origin says nothing or is overridden? */
static bool rule_lifetime(unsigned status, const struct freshness_rule *rule, uint32_t *lifetime_s)
{
    if (is_positive(status) && rule->has_ttl)
        *lifetime_s = rule->ttl_s;
    else if (is_negative(status) && rule->negative_ttl_s > 0)
        *lifetime_s = rule->negative_ttl_s;
    else
        return false;
    return true;
}

static bool overridden(const struct freshness_response *r, const struct freshness_rule *rule)
{
    return rule->override && rule->has_ttl && is_positive(r->status);
}

uint32_t freshness_lifetime_s(const struct freshness_response *r, const struct freshness_rule *rule)
{
    uint32_t lifetime = 0;

    if (overridden(r, rule))
        return rule->ttl_s;
    if (!origin_lifetime(r, &lifetime) && !rule_lifetime(r->status, rule, &lifetime))
        return 0;
    return lifetime > CACHE_CONTROL_DELTA_MAX ? CACHE_CONTROL_DELTA_MAX : lifetime;
}

/* Statuses of which we know what caching them means (3, must-understand). */
static bool understood(unsigned status)
{
    switch (status) {
    case 200:
    case 203:
    case 204:
    case 206:
    case 300:
    case 301:
    case 302:
    case 303:
    case 307:
    case 308:
    case 404:
    case 405:
    case 410:
    case 414:
    case 501:
        return true;
    default:
        return false;
    }
}

/* Is there a chance of reuse: fresh for a while, or validated, or served stale? */
static bool worth_keeping(const struct freshness_response *r, const struct freshness_rule *rule)
{
    uint32_t unused;
    bool may = overridden(r, rule) || origin_lifetime(r, &unused) ||
               rule_lifetime(r->status, rule, &unused) || (r->cc->flags & CC_PUBLIC) ||
               is_positive(r->status) || is_negative(r->status) || r->status == 204;
    if (!may) /* 3, last item */
        return false;
    return r->has_validator || freshness_lifetime_s(r, rule) > freshness_initial_age_s(r) ||
           (r->cc->flags & (CC_HAS_SWR | CC_HAS_SIE));
}

enum freshness_store freshness_storable(const struct freshness_request *q, const struct freshness_response *r,
                                        const struct freshness_rule *rule)
{
    uint32_t flags = r->cc->flags;
    bool understands = (flags & CC_MUST_UNDERSTAND) && understood(r->status);

    if (r->status < 200 || r->status > 599 || r->status == 304 ||
        ((flags & CC_MUST_UNDERSTAND) && !understands))
        return FRESHNESS_STATUS;
    if ((flags & CC_NO_STORE) && !understands) /* 5.2.2.3: it stands there for those who do not understand */
        return FRESHNESS_NO_STORE;
    if (rule->honour_request && q->cc && (q->cc->flags & CC_NO_STORE))
        return FRESHNESS_NO_STORE;
    if (flags & (CC_PRIVATE | CC_PRIVATE_FIELDS))
        return FRESHNESS_PRIVATE;
    if (q->authorization &&
        !(rule->store_authorization && (flags & (CC_PUBLIC | CC_MUST_REVALIDATE | CC_HAS_S_MAXAGE))))
        return FRESHNESS_AUTHORIZATION;
    if (r->has_set_cookie && !rule->store_set_cookie)
        return FRESHNESS_SET_COOKIE;
    if (r->vary_fails)
        return FRESHNESS_VARY;
    return worth_keeping(r, rule) ? FRESHNESS_STORE : FRESHNESS_NOT_FRESH;
}

void freshness_of(const struct freshness_request *q, const struct freshness_response *r,
                  const struct freshness_rule *rule, struct freshness *out)
{
    uint32_t flags = r->cc->flags;
    bool own_stale = flags & (CC_HAS_SWR | CC_HAS_SIE);
    bool no_stale = flags & (CC_MUST_REVALIDATE | CC_PROXY_REVALIDATE);
    uint64_t age = freshness_initial_age_s(r), now = r->response_s > 0 ? (uint64_t)r->response_s : 0;

    *out = (struct freshness){
        .store = freshness_storable(q, r, rule),
        .lifetime_s = freshness_lifetime_s(r, rule),
        .birth_unix_s = now > age ? now - age : 0,
    };
    if ((flags & CC_HAS_S_MAXAGE) && !own_stale && !overridden(r, rule))
        no_stale = true;
    if ((flags & (CC_NO_CACHE | CC_NO_CACHE_FIELDS)) && !overridden(r, rule))
        out->flags |= OBJECT_NO_CACHE;
    if (flags & CC_IMMUTABLE)
        out->flags |= OBJECT_IMMUTABLE;
    if (r->status >= 400)
        out->flags |= OBJECT_NEGATIVE;
    if (no_stale) {
        out->flags |= OBJECT_MUST_REVALIDATE;
    } else {
        out->swr_s = flags & CC_HAS_SWR ? r->cc->stale_while_revalidate_s : rule->swr_s;
        out->sie_s = flags & CC_HAS_SIE ? r->cc->stale_if_error_s : rule->sie_s;
    }
}

const char *freshness_store_name(enum freshness_store why)
{
    static const char *const names[] = {
        [FRESHNESS_STORE] = "stored",
        [FRESHNESS_STATUS] = "status",
        [FRESHNESS_NO_STORE] = "no-store",
        [FRESHNESS_PRIVATE] = "private",
        [FRESHNESS_AUTHORIZATION] = "authorization",
        [FRESHNESS_SET_COOKIE] = "set-cookie",
        [FRESHNESS_VARY] = "vary",
        [FRESHNESS_NOT_FRESH] = "not-fresh",
    };
    return (size_t)why < ARRAY_LEN(names) ? names[why] : "unknown";
}

/* Does the request ask for something fresher than this? Only asked where requests are honoured. */
static bool wants_fresher(const struct cache_control *cc, uint64_t age, int64_t ttl)
{
    return (cc->flags & CC_NO_CACHE) || ((cc->flags & CC_HAS_MAX_AGE) && age > cc->max_age_s) ||
           ((cc->flags & CC_HAS_MIN_FRESH) && ttl < (int64_t)cc->min_fresh_s);
}

static bool takes_stale(const struct cache_control *cc, int64_t staleness)
{
    return (cc->flags & CC_MAX_STALE_ANY) ||
           ((cc->flags & CC_HAS_MAX_STALE) && staleness <= (int64_t)cc->max_stale_s);
}

struct freshness_use freshness_usable(const struct object *o, const struct freshness_request *q,
                                      bool honour_request, uint64_t now_unix_s)
{
    static const struct cache_control none;
    const struct cache_control *cc = q->cc ? q->cc : &none, *asked = honour_request ? cc : &none;
    struct freshness_use use = {.verdict = FRESHNESS_VALIDATE};

    if (o) {
        uint64_t age = object_age_s(o, now_unix_s);
        int64_t staleness = age > INT64_MAX ? INT64_MAX : (int64_t)age - (int64_t)o->lifetime_s;
        bool must = o->flags & (OBJECT_MUST_REVALIDATE | OBJECT_NO_CACHE);
        bool fresher = wants_fresher(asked, age, -staleness);

        use.ttl_s = -staleness;
        use.stale_if_error = !must && staleness >= 0 && staleness < (int64_t)object_sie_s(o);
        if (!(o->flags & OBJECT_NO_CACHE) && !fresher) {
            if (staleness < 0)
                use.verdict = FRESHNESS_FRESH;
            else if (!must && staleness < (int64_t)object_swr_s(o))
                use.verdict = FRESHNESS_STALE_SWR;
            else if (!must && takes_stale(asked, staleness))
                use.verdict = FRESHNESS_STALE;
        }
        /* Fresh for everybody else, so better than an error. */
        if (fresher && staleness < 0 && !(o->flags & OBJECT_NO_CACHE))
            use.stale_if_error = true;
    }
    if (use.verdict == FRESHNESS_VALIDATE && (cc->flags & CC_ONLY_IF_CACHED))
        use.verdict = FRESHNESS_GATEWAY_TIMEOUT;
    return use;
}
