/* Signed URLs. The input is either a grant, one value a line, that is signed: then it must verify, say what
 * was granted, and not verify once a byte is changed in what it covers; or a target that is verified as it
 * is. */
#include "fuzz.h"

#include "http/signed_url.h"
#include "http/url.h"

#define NOW 1790000000

static struct signed_url_keys keys;
static struct signed_url_scratch scratch;
static const struct signed_url_policy policy = {.clock_skew_s = 5, .lifetime_max_s = 0, .pfx_depth_min = 0};

static enum signed_url_result verify(struct str target, const struct signed_url_client *client,
                                     struct signed_url_claims *claims)
{
    struct signed_url_parts parts = signed_url_split(target);
    char canonical[HTTP_TARGET_BYTES_MAX];
    struct str path;

    if (parts.path.n > sizeof canonical || url_path_canonical(parts.path, canonical, &path) < 0)
        return SIGNED_URL_MALFORMED;
    return signed_url_verify(&keys, &policy, &parts, NOW, client, &scratch, claims);
}

static void check_grant(struct str in, bool in_path, size_t change)
{
    struct ip_block block = {.bits = 128};
    struct signed_url_client client = {.address = &block.address, .country = STR("SE")};
    struct signed_url_grant grant = {.kid = STR("k1"), .exp_s = NOW + 60};
    struct signed_url_claims claims;
    char text[HTTP_TARGET_BYTES_MAX];
    struct buf b = buf_of(text, sizeof text);
    enum signed_url_result r;
    struct str path = fuzz_line(&in);

    grant.uid = fuzz_line(&in);
    grant.pfx = fuzz_line(&in);
    grant.geo = fuzz_line(&in);
    grant.ip = fuzz_line(&in);
    grant.rate_bytes_per_s = fuzz_byte(&in);
    if ((in_path ? signed_url_sign_path : signed_url_sign_query)(&keys, &grant, path, STR_NONE, &b) < 0) {
        CHECK(b.n == 0);
        return;
    }
    if (grant.ip.n > 0)
        CHECK(ip_block_parse(grant.ip, &block) == 0);
    r = verify(buf_str(&b), &client, &claims);
    CHECK(r == SIGNED_URL_OK || (r == SIGNED_URL_GEO && grant.geo.n > 0));
    CHECK(claims.exp_s == grant.exp_s && claims.rate_bytes_per_s == grant.rate_bytes_per_s);
    CHECK(str_eq(claims.uid, grant.uid) && str_eq(claims.pfx, grant.pfx) && str_eq(claims.geo, grant.geo) &&
          str_eq(claims.ip, grant.ip) && str_eq(claims.kid, grant.kid));
    if (grant.pfx.n > 0)
        return; /* what follows the prefix may change */
    change %= b.n;
    text[change] ^= 1;
    r = verify(buf_str(&b), &client, &claims);
    CHECK(r != SIGNED_URL_OK && r != SIGNED_URL_GEO && r != SIGNED_URL_ADDRESS && r != SIGNED_URL_EXPIRED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str in = str_of((const char *)data, size);
    unsigned choice = fuzz_byte(&in), change = fuzz_byte(&in);
    char *copy = exact_copy(in.p, in.n);
    struct ip address = {{0}};
    struct signed_url_client client = {.address = &address, .country = STR("SE")};
    struct signed_url_claims claims;

    if (keys.magic == 0) {
        signed_url_keys_init(&keys);
        CHECK(signed_url_keys_add(&keys, STR("k1"), STR("a secret"), INT64_MIN, INT64_MAX) == 0);
    }
    if (choice & 1)
        check_grant(str_of(copy, in.n), choice & 2, change);
    else /* nobody who does not know the secret makes a right one */
        CHECK(verify(str_of(copy, in.n), &client, &claims) < SIGNED_URL_EXPIRED &&
              signed_url_status(verify(str_of(copy, in.n), &client, &claims)) == 403);
    free(copy);
    return 0;
}
