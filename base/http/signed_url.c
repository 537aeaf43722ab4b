#include "http/signed_url.h"

#include "http/markets.h"
#include "http/signed_url_token.h"
#include "http/url.h"
#include "util/check.h"

#include <errno.h>
#include <openssl/crypto.h>

#define EXP_DIGITS_MAX 11

const struct str signed_url_names[] = {
    STR_INIT("exp"), STR_INIT("geo"),  STR_INIT("ip"),  STR_INIT("kid"),
    STR_INIT("pfx"), STR_INIT("rate"), STR_INIT("uid"), STR_INIT("sig"),
};
const size_t signed_url_names_n = ARRAY_LEN(signed_url_names);

void signed_url_keys_init(struct signed_url_keys *keys)
{
    *keys = (struct signed_url_keys){.magic = SIGNED_URL_KEYS_MAGIC, .default_index = -1};
}

static int find_key(const struct signed_url_keys *keys, struct str kid)
{
    for (uint32_t i = 0; i < keys->n; i++)
        if (str_eq(kid, str_of(keys->at[i].kid, keys->at[i].kid_n)))
            return (int)i;
    return -ENOENT;
}

int signed_url_keys_add(struct signed_url_keys *keys, struct str kid, struct str secret, int64_t not_before_s,
                        int64_t not_after_s)
{
    struct signed_url_key *key;

    CHECK_MAGIC(keys, SIGNED_URL_KEYS_MAGIC);
    if (kid.n == 0 || kid.n > SIGNED_URL_KID_BYTES_MAX || secret.n == 0)
        return -EINVAL;
    for (size_t i = 0; i < kid.n; i++)
        if (!signed_url_value_byte((unsigned char)kid.p[i]))
            return -EINVAL;
    if (find_key(keys, kid) >= 0)
        return -EEXIST;
    if (keys->n == SIGNED_URL_KEYS_MAX)
        return -ENOSPC;
    key = &keys->at[keys->n++];
    memcpy(key->kid, kid.p, kid.n);
    key->kid_n = (uint8_t)kid.n;
    key->not_before_s = not_before_s;
    key->not_after_s = not_after_s;
    hmac_key_init(&key->hmac, secret);
    return 0;
}

int signed_url_keys_set_default(struct signed_url_keys *keys, struct str kid)
{
    int i;

    CHECK_MAGIC(keys, SIGNED_URL_KEYS_MAGIC);
    i = find_key(keys, kid);
    if (i < 0)
        return i;
    keys->default_index = i;
    return 0;
}

int signed_url_keys_find(const struct signed_url_keys *keys, struct str kid)
{
    CHECK_MAGIC(keys, SIGNED_URL_KEYS_MAGIC);
    if (kid.p)
        return find_key(keys, kid);
    if (keys->default_index >= 0)
        return keys->default_index;
    return keys->n == 1 ? 0 : -ENOENT;
}

void signed_url_keys_clear(struct signed_url_keys *keys)
{
    CHECK_MAGIC(keys, SIGNED_URL_KEYS_MAGIC);
    OPENSSL_cleanse(keys, sizeof *keys);
    signed_url_keys_init(keys);
}

struct signed_url_parts signed_url_split(struct str target)
{
    struct url_target t = url_target_split(target);
    struct signed_url_parts parts = {.token = STR_NONE, .path = t.path, .query = t.query};
    const char *end;

    if (!str_starts(t.path, STR("/~")))
        return parts;
    parts.token = str_skip(t.path, 2);
    end = parts.token.n ? memchr(parts.token.p, '/', parts.token.n) : NULL;
    if (end)
        parts.token.n = (size_t)(end - parts.token.p);
    parts.path = str_skip(t.path, 2 + parts.token.n);
    return parts;
}

static const struct {
    unsigned status;
    struct str reason;
    const char *explain;
} results[SIGNED_URL_RESULT_COUNT] = {
    [SIGNED_URL_OK] = {200, STR_INIT(""), "valid"},
    [SIGNED_URL_MISSING] = {403, STR_INIT("signature"), "there is no sig"},
    [SIGNED_URL_TWO_TOKENS] = {403, STR_INIT("signature"),
                               "there is a token in the path and one in the query"},
    [SIGNED_URL_REPEATED] = {403, STR_INIT("signature"), "a signed parameter is given twice"},
    [SIGNED_URL_MALFORMED] = {403, STR_INIT("signature"), "a value is malformed or outside its alphabet"},
    [SIGNED_URL_NO_EXP] = {403, STR_INIT("signature"), "exp is missing"},
    [SIGNED_URL_UNKNOWN_KEY] = {403, STR_INIT("signature"), "the key is not known"},
    [SIGNED_URL_KEY_NOT_VALID] = {403, STR_INIT("signature"), "the key is not yet or no longer valid"},
    [SIGNED_URL_BAD_SIG_FORM] = {403, STR_INIT("signature"), "sig is not 43 canonical base64url characters"},
    [SIGNED_URL_WRONG_SIG] = {403, STR_INIT("signature"), "sig does not match"},
    [SIGNED_URL_LIFETIME] = {403, STR_INIT("signature"), "exp is beyond lifetime_max"},
    [SIGNED_URL_OUTSIDE_PREFIX] = {403, STR_INIT("signature"), "the path is outside pfx"},
    [SIGNED_URL_PREFIX_TOO_SHORT] = {403, STR_INIT("signature"), "pfx has fewer segments than pfx_depth_min"},
    [SIGNED_URL_EXPIRED] = {403, STR_INIT("expired"), "it has expired"},
    [SIGNED_URL_ADDRESS] = {403, STR_INIT("address"), "the client's address is not in ip"},
    [SIGNED_URL_GEO] = {403, STR_INIT("geo"), "the client's country is not allowed by geo, or not known"},
};

unsigned signed_url_status(enum signed_url_result result)
{
    CHECK((unsigned)result < SIGNED_URL_RESULT_COUNT);
    return results[result].status;
}

struct str signed_url_reason(enum signed_url_result result)
{
    CHECK((unsigned)result < SIGNED_URL_RESULT_COUNT);
    return results[result].reason;
}

const char *signed_url_explain(enum signed_url_result result)
{
    CHECK((unsigned)result < SIGNED_URL_RESULT_COUNT);
    return results[result].explain;
}

static enum signed_url_result check_prefix(struct str pfx, struct str path, unsigned depth_min)
{
    size_t slashes = 0;

    if (pfx.n == 0 || pfx.p[0] != '/' || pfx.p[pfx.n - 1] != '/')
        return SIGNED_URL_MALFORMED;
    for (size_t i = 0; i < pfx.n; i++)
        slashes += pfx.p[i] == '/';
    if (slashes - 1 < depth_min)
        return SIGNED_URL_PREFIX_TOO_SHORT;
    /* A judged path has no dot and no empty segment, and a prefix no escape: the raw bytes decide. */
    return str_starts(path, pfx) ? SIGNED_URL_OK : SIGNED_URL_OUTSIDE_PREFIX;
}

/* What the token says, once it is known to be the signer's. In the order of the table: first all that makes
 * it no good token, then whether it is good here and now. */
static enum signed_url_result check_claims(const struct signed_url_policy *policy,
                                           const struct signed_url_token *token, struct str path,
                                           int64_t now_s, const struct signed_url_client *client,
                                           struct signed_url_claims *claims)
{
    struct ip_block block = {.bits = 0};
    uint64_t now = now_s > 0 ? (uint64_t)now_s : 0;
    struct markets markets;

    if (claims->exp_s > now && policy->lifetime_max_s && claims->exp_s - now > policy->lifetime_max_s)
        return SIGNED_URL_LIFETIME;
    if (signed_url_token_has(token, TOKEN_PFX)) {
        enum signed_url_result r = check_prefix(claims->pfx, path, policy->pfx_depth_min);

        if (r != SIGNED_URL_OK)
            return r;
    }
    if (signed_url_token_has(token, TOKEN_RATE) &&
        (str_to_u64(token->decoded[TOKEN_RATE], &claims->rate_bytes_per_s) < 0 ||
         claims->rate_bytes_per_s == 0))
        return SIGNED_URL_MALFORMED;
    if (signed_url_token_has(token, TOKEN_IP) && ip_block_parse(claims->ip, &block) < 0)
        return SIGNED_URL_MALFORMED;
    if (signed_url_token_has(token, TOKEN_GEO) && markets_parse(claims->geo, &markets) < 0)
        return SIGNED_URL_MALFORMED;

    if (now > claims->exp_s && now - claims->exp_s > policy->clock_skew_s)
        return SIGNED_URL_EXPIRED;
    if (signed_url_token_has(token, TOKEN_IP) && !ip_in_block(client->address, &block))
        return SIGNED_URL_ADDRESS;
    if (signed_url_token_has(token, TOKEN_GEO) && !markets_allow(&markets, client->country))
        return SIGNED_URL_GEO;
    return SIGNED_URL_OK;
}

/* Compares in constant time; a key that is not valid now is no key. */
static enum signed_url_result check_mac(const struct signed_url_keys *keys,
                                        const struct signed_url_token *token, int64_t now_s,
                                        struct signed_url_scratch *scratch, unsigned *key_index)
{
    uint8_t given[HMAC_BYTES], mac[HMAC_BYTES];
    const struct signed_url_key *key;
    bool right;
    int i;

    if (signed_url_sig_decode(token->sig, given) < 0)
        return SIGNED_URL_BAD_SIG_FORM;
    i = signed_url_keys_find(keys, token->decoded[TOKEN_KID]);
    if (i < 0)
        return SIGNED_URL_UNKNOWN_KEY;
    key = &keys->at[i];
    if (now_s < key->not_before_s || now_s > key->not_after_s)
        return SIGNED_URL_KEY_NOT_VALID;
    hmac_sha256(&key->hmac, (uint8_t *)scratch->bytes, token->message_n, mac);
    right = hmac_eq(mac, given);
    OPENSSL_cleanse(mac, sizeof mac);
    *key_index = (unsigned)i;
    return right ? SIGNED_URL_OK : SIGNED_URL_WRONG_SIG;
}

enum signed_url_result signed_url_verify(const struct signed_url_keys *keys,
                                         const struct signed_url_policy *policy,
                                         const struct signed_url_parts *parts, int64_t now_s,
                                         const struct signed_url_client *client,
                                         struct signed_url_scratch *scratch, struct signed_url_claims *claims)
{
    struct signed_url_token token;
    enum signed_url_result r;
    struct str exp;

    CHECK_MAGIC(keys, SIGNED_URL_KEYS_MAGIC);
    *claims = (struct signed_url_claims){0};
    r = signed_url_token_read(parts, &token);
    if (r != SIGNED_URL_OK)
        return r;
    r = signed_url_token_message(&token, parts->path, scratch);
    if (r != SIGNED_URL_OK)
        return r;
    r = check_mac(keys, &token, now_s, scratch, &claims->key_index);
    if (r != SIGNED_URL_OK)
        return r;

    exp = token.decoded[TOKEN_EXP];
    if (exp.n > EXP_DIGITS_MAX || str_to_u64(exp, &claims->exp_s) < 0)
        return SIGNED_URL_MALFORMED;
    claims->kid = token.decoded[TOKEN_KID];
    claims->uid = token.decoded[TOKEN_UID];
    claims->pfx = token.decoded[TOKEN_PFX];
    claims->geo = token.decoded[TOKEN_GEO];
    claims->ip = token.decoded[TOKEN_IP];
    return check_claims(policy, &token, parts->path, now_s, client, claims);
}
