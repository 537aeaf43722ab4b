/* Signed URLs, as interfaces.md defines them: the token in the query, or as a first path segment "/~...".
 *
 * The order of a request: signed_url_split takes the token segment off; url_path_canonical judges what is
 * left (400); the rule says whether a token is wanted; signed_url_verify answers. Verifying allocates
 * nothing, keeps nothing, and writes no secret and no expected signature anywhere but on its own stack, which
 * it clears.
 *
 * A key is held as the two SHA-256 states that HMAC starts from (RFC 2104), not as its secret; a key set is
 * read-only once made and may be shared by all workers. */
#pragma once

#include "util/buf.h"
#include "util/hmac.h"
#include "util/ip.h"
#include "util/limits.h"

#define SIGNED_URL_SIG_BYTES 43

struct signed_url_key {
    struct hmac_key hmac;
    int64_t not_before_s, not_after_s; /* both inclusive; INT64_MIN and INT64_MAX: always */
    uint8_t kid_n;
    char kid[SIGNED_URL_KID_BYTES_MAX];
};

#define SIGNED_URL_KEYS_MAGIC 0x73756b31u

struct signed_url_keys {
    uint32_t magic;
    uint32_t n;
    int default_index; /* -1: none named; then the only key there is */
    struct signed_url_key at[SIGNED_URL_KEYS_MAX];
};

void signed_url_keys_init(struct signed_url_keys *keys);

/* secret is the decoded one; the caller clears it. Returns 0, -EEXIST (kid is there), -ENOSPC, or -EINVAL
 * (kid empty, too long or outside the alphabet of values; secret empty). */
int signed_url_keys_add(struct signed_url_keys *keys, struct str kid, struct str secret, int64_t not_before_s,
                        int64_t not_after_s);

/* Returns 0, or -ENOENT. */
int signed_url_keys_set_default(struct signed_url_keys *keys, struct str kid);

/* Forgets all of it, so that no key stays in freed memory. */
void signed_url_keys_clear(struct signed_url_keys *keys);

struct signed_url_parts {
    struct str token; /* what stands after "/~"; p is NULL when there is no token segment */
    struct str
        path; /* raw, without the token segment; empty when nothing follows it, which no judge lets pass */
    struct str query; /* p is NULL when there is none */
};

/* Never fails. Also for rules that are not signed: a token segment never reaches cache key or upstream. */
struct signed_url_parts signed_url_split(struct str target);

struct signed_url_policy {
    uint64_t clock_skew_s;
    uint64_t lifetime_max_s; /* 0: no limit */
    unsigned pfx_depth_min;
};

enum signed_url_result {
    SIGNED_URL_OK,
    /* Segue-Reason: signature */
    SIGNED_URL_MISSING,
    SIGNED_URL_TWO_TOKENS,
    SIGNED_URL_REPEATED,
    SIGNED_URL_MALFORMED, /* a value outside its alphabet or form */
    SIGNED_URL_NO_EXP,
    SIGNED_URL_UNKNOWN_KEY,
    SIGNED_URL_KEY_NOT_VALID, /* not yet, or no longer */
    SIGNED_URL_BAD_SIG_FORM,  /* not 43 canonical characters */
    SIGNED_URL_WRONG_SIG,
    SIGNED_URL_LIFETIME,
    SIGNED_URL_OUTSIDE_PREFIX,
    SIGNED_URL_PREFIX_TOO_SHORT,
    /* the others */
    SIGNED_URL_EXPIRED,
    SIGNED_URL_ADDRESS,
    SIGNED_URL_GEO,
    SIGNED_URL_RESULT_COUNT
};

unsigned signed_url_status(enum signed_url_result result);     /* 200 or 403 */
struct str signed_url_reason(enum signed_url_result result);   /* Segue-Reason: "signature", "expired", ... */
const char *signed_url_explain(enum signed_url_result result); /* for seguectl verify; never for a client */

/* Where verify assembles what is signed. A worker has one; what claims point to lives until its next use. */
struct signed_url_scratch {
    char bytes[HTTP_TARGET_BYTES_MAX + 256];
};

/* What a valid token grants; n is 0 or the number is 0 where it says nothing. */
struct signed_url_claims {
    uint64_t exp_s;
    uint64_t rate_bytes_per_s;
    struct str kid, uid, pfx, geo, ip; /* decoded; in scratch */
    unsigned key_index;
};

struct signed_url_client {
    const struct ip *address;
    struct str country; /* two upper-case letters, or empty when it is not known */
};

/* parts are those of signed_url_split with a path that was judged good. *claims is filled on success, and for
 * EXPIRED, ADDRESS and GEO, whose signature was right. */
enum signed_url_result
signed_url_verify(const struct signed_url_keys *keys, const struct signed_url_policy *policy,
                  const struct signed_url_parts *parts, int64_t now_s, const struct signed_url_client *client,
                  struct signed_url_scratch *scratch, struct signed_url_claims *claims);

/* Names of the query form's parameters, sig included: they never enter cache key or upstream where a rule is
 * signed (url_query_keep_all_but). */
extern const struct str signed_url_names[];
extern const size_t signed_url_names_n;

struct signed_url_grant {
    struct str kid; /* empty: the default key; sent all the same */
    uint64_t exp_s;
    struct str uid, pfx, geo, ip; /* empty: left out */
    uint64_t rate_bytes_per_s;    /* 0: left out */
};

/* Appends the signed URL from its path on. path is raw and begins with "/", query are other parameters to
 * keep, or empty. In the path form, pfx is sent as depth. Returns 0, -ENOENT (no such key), -EINVAL (a value
 * that verify would refuse, a path outside pfx or not as url_path_canonical wants it), -ENOSPC. */
int signed_url_sign_query(const struct signed_url_keys *keys, const struct signed_url_grant *grant,
                          struct str path, struct str query, struct buf *out);
int signed_url_sign_path(const struct signed_url_keys *keys, const struct signed_url_grant *grant,
                         struct str path, struct str query, struct buf *out);
