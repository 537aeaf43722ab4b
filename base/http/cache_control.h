/* Cache-Control (RFC 9111, 5.2; RFC 5861; RFC 8246) and CDN-Cache-Control (RFC 9213). Pure: says what was
 * sent; what follows from it is cache/freshness. */
#pragma once

#include "http/fields.h"

/* Longer deltas, and those too big for any number, are this (RFC 9111, 1.2.2). */
#define CACHE_CONTROL_DELTA_MAX 2147483648u

enum cache_control_flag {
    CC_NO_STORE = 1 << 0,
    CC_NO_CACHE = 1 << 1,        /* of the whole response: without fields */
    CC_NO_CACHE_FIELDS = 1 << 2, /* no-cache="..." with at least one field name */
    CC_PRIVATE = 1 << 3,
    CC_PRIVATE_FIELDS = 1 << 4,
    CC_PUBLIC = 1 << 5,
    CC_MUST_REVALIDATE = 1 << 6,
    CC_PROXY_REVALIDATE = 1 << 7,
    CC_MUST_UNDERSTAND = 1 << 8,
    CC_IMMUTABLE = 1 << 9,
    CC_NO_TRANSFORM = 1 << 10,
    CC_ONLY_IF_CACHED = 1 << 11,
    CC_MAX_STALE_ANY = 1 << 12, /* max-stale without a value */
    CC_HAS_MAX_AGE = 1 << 13,
    CC_HAS_S_MAXAGE = 1 << 14,
    CC_HAS_SWR = 1 << 15, /* stale-while-revalidate */
    CC_HAS_SIE = 1 << 16, /* stale-if-error */
    CC_HAS_MAX_STALE = 1 << 17,
    CC_HAS_MIN_FRESH = 1 << 18,
    CC_FRESHNESS_INVALID =
        1 << 19, /* some max-age or s-maxage was no number and counts as 0, so stale (4.2.1) */
};

struct cache_control {
    uint32_t flags;
    uint32_t max_age_s, s_maxage_s; /* each set where its HAS flag is */
    uint32_t stale_while_revalidate_s, stale_if_error_s;
    uint32_t max_stale_s, min_fresh_s;
    struct str no_cache_fields, private_fields; /* comma separated names, inside the head, quotes cut off */
};

/* All Cache-Control fields of a head as one list. Names without case, values as token or quoted-string.
 * Unknown directives are skipped. Of a directive given twice the first holds (RFC 9111, 4.2.1), but for the
 * fields of no-cache and private: two lists of them count as the directive without fields. Values that are no
 * number: max-age and s-maxage count as 0, the others as not given. Pragma is not looked at. */
void cache_control_parse(const struct fields *f, const char *base, struct cache_control *out);

/* CDN-Cache-Control, a structured-field dictionary (RFC 8941, 3.2). Returns 1 with *out filled when there is
 * one that is valid and not empty, which then stands in place of Cache-Control and Expires; 0 when there is
 * none, or it does not parse as a dictionary and so is ignored as a whole. A known directive of the wrong
 * type is ignored. */
int cache_control_parse_targeted(const struct fields *f, const char *base, struct cache_control *out);
