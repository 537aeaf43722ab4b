/* What RFC 9111 lets a shared cache do: store a response (section 3), for how long it is fresh (4.2), and
 * whether a stored one may answer a request (4, 4.2.4, RFC 5861). Pure functions of what was parsed; no
 * clock, no I/O.
 *
 * Where the RFC leaves a choice, this is ours:
 * - No heuristic freshness (4.2.2): without freshness from the origin, the rule's ttl holds, and only for
 * statuses 200, 203, 206, 300, 301 and 308; without a rule's ttl too, the lifetime is 0.
 * - `override` replaces the origin's freshness and its no-cache; no-store, private and must-revalidate still
 * hold.
 * - CDN-Cache-Control stands in place of Cache-Control and Expires (RFC 9213, 2.1).
 * - no-cache and private with field names count as without.
 * - s-maxage forbids stale answers (5.2.2.10), unless the same response itself grants stale-while-revalidate
 * or stale-if-error, which only makes sense as an exception to it.
 * - Request directives are advice (5.2.1), and a CDN that took it would let anyone reach the origin at will:
 * all but only-if-cached are ignored unless the rule says `honour_request`. */
#pragma once

#include "cache/object.h"
#include "http/cache_control.h"

#include <stdbool.h>
#include <stdint.h>

struct freshness_rule {
    bool has_ttl, override;
    uint32_t ttl_s;
    uint32_t negative_ttl_s; /* for 404, 405, 410, 414 and 501 without freshness of their own; 0: none */
    uint32_t swr_s, sie_s;   /* where the origin says nothing of stale-while-revalidate, stale-if-error */
    bool store_set_cookie, store_authorization;
    bool honour_request;
};

struct freshness_request {
    const struct cache_control *cc; /* Pragma: no-cache without Cache-Control may be given as CC_NO_CACHE */
    bool authorization;             /* has the field */
};

struct freshness_response {
    unsigned status;
    const struct cache_control *cc; /* the targeted one if there is one */
    bool targeted;
    bool has_expires, has_date, has_age, has_validator, has_set_cookie;
    bool vary_fails;   /* Vary: * or more than we keep */
    int64_t expires_s; /* Unix seconds; a value that is no date is given as 0 */
    int64_t date_s;
    uint64_t age_s;
    int64_t request_s, response_s; /* by our clock: request sent, response head received */
};

enum freshness_store {
    FRESHNESS_STORE = 0,
    FRESHNESS_STATUS, /* not final, 304, or not understood with must-understand */
    FRESHNESS_NO_STORE,
    FRESHNESS_PRIVATE,
    FRESHNESS_AUTHORIZATION, /* 3.5 */
    FRESHNESS_SET_COOKIE,
    FRESHNESS_VARY,
    FRESHNESS_NOT_FRESH, /* nothing allows reuse, and there is no validator to reuse it by */
};

struct freshness {
    enum freshness_store store;
    uint32_t lifetime_s, swr_s, sie_s;
    uint64_t birth_unix_s;
    uint16_t flags; /* OBJECT_MUST_REVALIDATE, _NO_CACHE, _IMMUTABLE, _NEGATIVE */
};

/* 4.2.3: corrected_initial_age. */
uint64_t freshness_initial_age_s(const struct freshness_response *r);
/* 4.2.1, and the rule. */
uint32_t freshness_lifetime_s(const struct freshness_response *r, const struct freshness_rule *rule);
/* 3, and the rule. */
enum freshness_store freshness_storable(const struct freshness_request *q, const struct freshness_response *r,
                                        const struct freshness_rule *rule);
/* All of it. *out is filled even where the response may not be stored. For a 304 give the fields of the
 * stored response as updated by it (4.3.4), and its times. */
void freshness_of(const struct freshness_request *q, const struct freshness_response *r,
                  const struct freshness_rule *rule, struct freshness *out);

/* One word for Cache-Status' `detail` and for logs. */
const char *freshness_store_name(enum freshness_store why);

enum freshness_verdict {
    FRESHNESS_FRESH,           /* answer with it */
    FRESHNESS_STALE,           /* answer with it (max-stale), nothing else to do */
    FRESHNESS_STALE_SWR,       /* answer with it, and revalidate behind its back */
    FRESHNESS_VALIDATE,        /* revalidate before it may answer */
    FRESHNESS_GATEWAY_TIMEOUT, /* only-if-cached: 504 (5.2.1.7) */
};

struct freshness_use {
    enum freshness_verdict verdict;
    bool stale_if_error; /* with VALIDATE: it may answer when the upstream cannot (RFC 5861, 4) */
    int64_t ttl_s;       /* lifetime less age; below 0 when stale */
};

/* `o` is NULL when nothing is stored (then only-if-cached matters). */
struct freshness_use freshness_usable(const struct object *o, const struct freshness_request *q,
                                      bool honour_request, uint64_t now_unix_s);
