#include "http/signed_url_token.h"
#include "http/url.h"
#include "util/check.h"

#include <errno.h>
#include <openssl/crypto.h>

#define NUMBER_BYTES 20

/* The numbers of a grant as text, which the token's values point to. */
struct numbers {
    char exp[NUMBER_BYTES], rate[NUMBER_BYTES];
};

static struct str number(char text[static NUMBER_BYTES], uint64_t value)
{
    struct buf b = buf_of(text, NUMBER_BYTES);

    buf_add_u64(&b, value);
    return buf_str(&b);
}

static void put(struct signed_url_token *token, enum signed_url_param param, struct str value)
{
    token->present |= 1u << param;
    token->value[param] = value;
}

static void token_of_grant(const struct signed_url_keys *keys, int key, const struct signed_url_grant *grant,
                           struct numbers *numbers, struct signed_url_token *token)
{
    token->present = 0;
    put(token, TOKEN_EXP, number(numbers->exp, grant->exp_s));
    put(token, TOKEN_KID, str_of(keys->at[key].kid, keys->at[key].kid_n));
    if (grant->geo.n > 0)
        put(token, TOKEN_GEO, grant->geo);
    if (grant->ip.n > 0)
        put(token, TOKEN_IP, grant->ip);
    if (grant->rate_bytes_per_s > 0)
        put(token, TOKEN_RATE, number(numbers->rate, grant->rate_bytes_per_s));
    if (grant->uid.n > 0)
        put(token, TOKEN_UID, grant->uid);
    if (grant->pfx.n > 0)
        put(token, TOKEN_PFX, grant->pfx);
}

/* Puts a value into a URL. A "/" would end a token segment; nothing else of the alphabet needs an escape. */
static void add_value(struct buf *out, struct str value, bool in_segment)
{
    for (size_t i = 0; i < value.n; i++) {
        if (in_segment && value.p[i] == '/')
            buf_add_lit(out, "%2F");
        else
            buf_add_char(out, value.p[i]);
    }
}

static void add_params(struct buf *out, const struct signed_url_token *token, const char *sig,
                       bool in_segment)
{
    char between = in_segment ? ';' : '&';

    for (unsigned i = 0; i <= TOKEN_PFX; i++) {
        if (!signed_url_token_has(token, (enum signed_url_param)i) || (in_segment && i == TOKEN_PFX))
            continue;
        buf_add_str(out, signed_url_param_name((enum signed_url_param)i));
        buf_add_char(out, '=');
        add_value(out, token->value[i], in_segment);
        buf_add_char(out, between);
    }
    buf_add_lit(out, "sig=");
    buf_add(out, sig, SIGNED_URL_SIG_BYTES);
}

/* A reader decodes values, so an escape here would say one thing to us and another to it. */
static bool values_are_plain(const struct signed_url_token *token)
{
    for (unsigned i = 0; i <= TOKEN_PFX; i++)
        if (signed_url_token_has(token, (enum signed_url_param)i) && token->value[i].n > 0 &&
            memchr(token->value[i].p, '%', token->value[i].n))
            return false;
    return true;
}

static unsigned segments_of(struct str pfx)
{
    unsigned n = 0;

    for (size_t i = 1; i < pfx.n; i++)
        n += pfx.p[i] == '/';
    return n;
}

/* Would the URL that was written be accepted by whoever has all the time, addresses and markets it asks for?
 * One reader of the rules is enough: verify itself. */
static int check(const struct signed_url_keys *keys, const struct signed_url_grant *grant, int key,
                 struct str written, struct signed_url_scratch *scratch)
{
    struct signed_url_parts parts = signed_url_split(written);
    struct signed_url_policy policy = {0};
    struct ip_block block = {.bits = 0};
    struct signed_url_client client = {.address = &block.address, .country = STR_NONE};
    struct signed_url_claims claims;
    enum signed_url_result r;
    int64_t now_s = keys->at[key].not_before_s > 0 ? keys->at[key].not_before_s : 0;

    if (written.n > HTTP_TARGET_BYTES_MAX)
        return -EINVAL;
    if (grant->ip.n > 0 && ip_block_parse(grant->ip, &block) < 0)
        return -EINVAL;
    policy.clock_skew_s = INT64_MAX;
    r = signed_url_verify(keys, &policy, &parts, now_s, &client, scratch, &claims);
    return r == SIGNED_URL_OK || r == SIGNED_URL_GEO ? 0 : -EINVAL;
}

static int write_signed(const struct signed_url_keys *keys, const struct signed_url_grant *grant,
                        struct str path, struct str query, bool in_segment, struct buf *out)
{
    struct signed_url_scratch scratch;
    struct signed_url_token token;
    struct numbers numbers;
    char sig[SIGNED_URL_SIG_BYTES], canonical[HTTP_TARGET_BYTES_MAX];
    uint8_t mac[HMAC_BYTES];
    struct str ignored;
    size_t start = out->n;
    int key = signed_url_keys_find(keys, grant->kid.n > 0 ? grant->kid : STR_NONE);

    if (key < 0)
        return key;
    if (path.n > sizeof canonical || url_path_canonical(path, canonical, &ignored) < 0 ||
        str_starts(path, STR("/~")))
        return -EINVAL;
    token_of_grant(keys, key, grant, &numbers, &token);
    if (!values_are_plain(&token) || signed_url_token_message(&token, path, &scratch) != SIGNED_URL_OK)
        return -EINVAL;
    hmac_sha256(&keys->at[key].hmac, (uint8_t *)scratch.bytes, token.message_n, mac);
    signed_url_sig_encode(mac, sig);

    if (in_segment) {
        buf_add_lit(out, "/~");
        if (signed_url_token_has(&token, TOKEN_PFX)) {
            buf_add_lit(out, "depth=");
            buf_add_u64(out, segments_of(grant->pfx));
            buf_add_char(out, ';');
        }
        add_params(out, &token, sig, true);
    }
    buf_add_str(out, path);
    if (!in_segment) {
        buf_add_char(out, '?');
        add_params(out, &token, sig, false);
    }
    if (query.n > 0) {
        buf_add_char(out, in_segment ? '?' : '&');
        buf_add_str(out, query);
    }
    if (out->overflow)
        return -ENOSPC;
    return check(keys, grant, key, str_of(out->p + start, out->n - start), &scratch);
}

/* Leaves *out as it was where it fails. */
static int sign(const struct signed_url_keys *keys, const struct signed_url_grant *grant, struct str path,
                struct str query, bool in_segment, struct buf *out)
{
    size_t start = out->n;
    int r = write_signed(keys, grant, path, query, in_segment, out);

    if (r < 0)
        out->n = start;
    return r;
}

int signed_url_sign_query(const struct signed_url_keys *keys, const struct signed_url_grant *grant,
                          struct str path, struct str query, struct buf *out)
{
    return sign(keys, grant, path, query, false, out);
}

int signed_url_sign_path(const struct signed_url_keys *keys, const struct signed_url_grant *grant,
                         struct str path, struct str query, struct buf *out)
{
    return sign(keys, grant, path, query, true, out);
}
