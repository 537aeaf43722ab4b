#include "http/signed_url_token.h"

#include "http/url.h"
#include "util/check.h"

#include <errno.h>

/* What a signed value may hold (interfaces.md). */
static const uint8_t value_bytes[256] = {
    ['A' ... 'Z'] = 1, ['a' ... 'z'] = 1, ['0' ... '9'] = 1, ['.'] = 1, ['_'] = 1,
    ['~'] = 1,         [','] = 1,         ['/'] = 1,         [':'] = 1, ['-'] = 1,
};

bool signed_url_value_byte(unsigned char byte)
{
    return value_bytes[byte];
}

static const struct str names[SIGNED_URL_PARAM_COUNT] = {
    [SIGNED_URL_EXP] = STR_INIT("exp"),     [SIGNED_URL_GEO_] = STR_INIT("geo"),
    [SIGNED_URL_IP] = STR_INIT("ip"),       [SIGNED_URL_KID] = STR_INIT("kid"),
    [SIGNED_URL_RATE] = STR_INIT("rate"),   [SIGNED_URL_UID] = STR_INIT("uid"),
    [SIGNED_URL_PFX] = STR_INIT("pfx"),     [SIGNED_URL_SIG] = STR_INIT("sig"),
    [SIGNED_URL_DEPTH] = STR_INIT("depth"),
};

struct str signed_url_param_name(enum signed_url_param param)
{
    return names[param];
}

/* Names are never decoded. COUNT when it is none of ours. */
static enum signed_url_param param_of(struct str name)
{
    if (name.n < 2 || name.n > 5)
        return SIGNED_URL_PARAM_COUNT;
    for (unsigned i = 0; i < SIGNED_URL_PARAM_COUNT; i++)
        if (names[i].n == name.n && memcmp(names[i].p, name.p, name.n) == 0)
            return (enum signed_url_param)i;
    return SIGNED_URL_PARAM_COUNT;
}

static bool put_param(struct signed_url_token *token, enum signed_url_param param, struct str value)
{
    if (signed_url_token_has(token, param))
        return false;
    token->present |= 1u << param;
    token->value[param] = value;
    return true;
}

static bool query_has_sig(struct str query)
{
    struct url_param p;

    while (url_query_next(&query, &p))
        if (str_eq(p.name, names[SIGNED_URL_SIG]))
            return true;
    return false;
}

static enum signed_url_result read_query(struct str query, struct signed_url_token *token)
{
    struct url_param p;
    bool repeated = false;

    while (url_query_next(&query, &p)) {
        enum signed_url_param param = param_of(p.name);

        if (param < SIGNED_URL_DEPTH && !put_param(token, param, p.value))
            repeated = true;
    }
    if (!signed_url_token_has(token, SIGNED_URL_SIG))
        return SIGNED_URL_MISSING;
    return repeated ? SIGNED_URL_REPEATED : SIGNED_URL_OK;
}

static enum signed_url_result read_segment(struct str segment, struct signed_url_token *token)
{
    while (segment.n > 0) {
        const char *end = memchr(segment.p, ';', segment.n);
        struct str one = end ? str_of(segment.p, (size_t)(end - segment.p)) : segment;
        const char *equals = one.n ? memchr(one.p, '=', one.n) : NULL;
        struct str name = equals ? str_of(one.p, (size_t)(equals - one.p)) : one;
        enum signed_url_param param = param_of(name);

        segment = str_skip(segment, one.n + 1);
        if (param != SIGNED_URL_PARAM_COUNT &&
            !put_param(token, param, str_skip(one, name.n + (equals != NULL))))
            return SIGNED_URL_REPEATED;
    }
    if (!signed_url_token_has(token, SIGNED_URL_SIG))
        return SIGNED_URL_MISSING;
    return signed_url_token_has(token, SIGNED_URL_PFX) ? SIGNED_URL_MALFORMED
                                                       : SIGNED_URL_OK; /* depth stands for it */
}

/* pfx from depth: the first N segments of the path, with the "/" after them. A path that has no "/" there is
 * outside of any prefix so deep. */
static enum signed_url_result prefix_of_depth(struct str path, struct signed_url_token *token)
{
    uint64_t depth;
    size_t n = 1;

    if (str_to_u64(token->value[SIGNED_URL_DEPTH], &depth) < 0 || path.n == 0 || path.p[0] != '/')
        return SIGNED_URL_MALFORMED;
    for (; depth > 0; depth--) {
        const char *slash = memchr(path.p + n, '/', path.n - n);

        if (!slash)
            return SIGNED_URL_OUTSIDE_PREFIX;
        n = (size_t)(slash - path.p) + 1;
    }
    put_param(token, SIGNED_URL_PFX, str_of(path.p, n));
    return SIGNED_URL_OK;
}

enum signed_url_result signed_url_token_read(const struct signed_url_parts *parts,
                                             struct signed_url_token *token)
{
    enum signed_url_result r;

    token->present = 0;
    if (!parts->token.p) {
        r = read_query(parts->query, token);
    } else {
        if (query_has_sig(parts->query))
            return SIGNED_URL_TWO_TOKENS;
        r = read_segment(parts->token, token);
        if (r == SIGNED_URL_OK && signed_url_token_has(token, SIGNED_URL_DEPTH))
            r = prefix_of_depth(parts->path, token);
    }
    if (r != SIGNED_URL_OK)
        return r;
    token->sig = token->value[SIGNED_URL_SIG];
    return signed_url_token_has(token, SIGNED_URL_EXP) ? SIGNED_URL_OK : SIGNED_URL_NO_EXP;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes once; what comes out must be of the alphabet, which has no "%". */
static bool add_value(struct buf *b, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        int byte = (unsigned char)s.p[i];

        if (byte == '%') {
            int high = s.n - i > 2 ? hex_digit(s.p[i + 1]) : -1,
                low = s.n - i > 2 ? hex_digit(s.p[i + 2]) : -1;

            if (high < 0 || low < 0)
                return false;
            byte = high << 4 | low;
            i += 2;
        }
        if (!value_bytes[byte])
            return false;
        buf_add_char(b, (char)byte);
    }
    return true;
}

static bool add_line(struct buf *b, struct signed_url_token *token, enum signed_url_param param)
{
    size_t start;

    buf_add_char(b, '\n');
    buf_add_str(b, names[param]);
    buf_add_char(b, '=');
    start = b->n;
    if (!add_value(b, token->value[param]))
        return false;
    token->decoded[param] = str_of(b->p + start, b->n - start);
    return true;
}

enum signed_url_result signed_url_token_message(struct signed_url_token *token, struct str path,
                                                struct signed_url_scratch *scratch)
{
    struct buf b = buf_of(scratch->bytes, sizeof scratch->bytes - HMAC_ROOM_BYTES);

    buf_add_lit(&b, "segue1");
    token->decoded[SIGNED_URL_PFX] = STR_NONE;
    if (!signed_url_token_has(token, SIGNED_URL_PFX)) {
        buf_add_lit(&b, "\npath=");
        buf_add_str(&b, path);
    } else if (signed_url_token_has(token, SIGNED_URL_DEPTH)) {
        /* Part of the path, so not decoded: an escape in it is outside the alphabet. */
        if (memchr(token->value[SIGNED_URL_PFX].p, '%', token->value[SIGNED_URL_PFX].n) ||
            !add_line(&b, token, SIGNED_URL_PFX))
            return SIGNED_URL_MALFORMED;
    } else if (!add_line(&b, token, SIGNED_URL_PFX)) {
        return SIGNED_URL_MALFORMED;
    }
    for (unsigned i = 0; i < SIGNED_URL_SORTED_COUNT; i++) {
        token->decoded[i] = STR_NONE;
        if (signed_url_token_has(token, (enum signed_url_param)i) &&
            !add_line(&b, token, (enum signed_url_param)i))
            return SIGNED_URL_MALFORMED;
    }
    token->message_n = b.n;
    return b.overflow ? SIGNED_URL_MALFORMED
                      : SIGNED_URL_OK; /* only of a target past HTTP_TARGET_BYTES_MAX */
}

static const char base64url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* One more than a character's value; 0 for what is none. */
static uint8_t base64url_value(unsigned char c)
{
    if (c >= 'A' && c <= 'Z')
        return (uint8_t)(c - 'A' + 1);
    if (c >= 'a' && c <= 'z')
        return (uint8_t)(c - 'a' + 27);
    if (c >= '0' && c <= '9')
        return (uint8_t)(c - '0' + 53);
    return c == '-' ? 63 : c == '_' ? 64 : 0;
}

int signed_url_sig_decode(struct str sig, uint8_t mac[static HMAC_BYTES])
{
    uint32_t bits = 0;
    size_t out = 0;

    if (sig.n != SIGNED_URL_SIG_BYTES)
        return -EINVAL;
    for (size_t i = 0; i < SIGNED_URL_SIG_BYTES; i++) {
        unsigned value = base64url_value((unsigned char)sig.p[i]);

        if (value == 0)
            return -EINVAL;
        bits = bits << 6 | (value - 1);
        if (i % 4 == 3) {
            mac[out++] = (uint8_t)(bits >> 16);
            mac[out++] = (uint8_t)(bits >> 8);
            mac[out++] = (uint8_t)bits;
        }
    }
    /* The last three characters hold 18 bits, of which 16 count: the other two are 0 in the canonical form.
     */
    if (bits & 3)
        return -EINVAL;
    mac[out++] = (uint8_t)(bits >> 10);
    mac[out++] = (uint8_t)(bits >> 2);
    return 0;
}

void signed_url_sig_encode(const uint8_t mac[static HMAC_BYTES], char sig[static SIGNED_URL_SIG_BYTES])
{
    size_t out = 0;

    for (size_t i = 0; i + 3 <= HMAC_BYTES; i += 3) {
        uint32_t bits = (uint32_t)mac[i] << 16 | (uint32_t)mac[i + 1] << 8 | mac[i + 2];

        sig[out++] = base64url[bits >> 18];
        sig[out++] = base64url[bits >> 12 & 63];
        sig[out++] = base64url[bits >> 6 & 63];
        sig[out++] = base64url[bits & 63];
    }
    sig[out++] = base64url[mac[30] >> 2];
    sig[out++] = base64url[(mac[30] & 3) << 4 | mac[31] >> 4];
    sig[out++] = base64url[(mac[31] & 15) << 2];
}
