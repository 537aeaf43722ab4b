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

static const struct str names[TOKEN_PARAM_COUNT] = {
    [TOKEN_EXP] = STR_INIT("exp"), [TOKEN_GEO] = STR_INIT("geo"),   [TOKEN_IP] = STR_INIT("ip"),
    [TOKEN_KID] = STR_INIT("kid"), [TOKEN_RATE] = STR_INIT("rate"), [TOKEN_UID] = STR_INIT("uid"),
    [TOKEN_PFX] = STR_INIT("pfx"), [TOKEN_SIG] = STR_INIT("sig"),   [TOKEN_DEPTH] = STR_INIT("depth"),
};

struct str signed_url_param_name(enum signed_url_param param)
{
    return names[param];
}

/* Names are never decoded. COUNT when it is none of ours. */
static enum signed_url_param param_of(struct str name)
{
    if (name.n < 2 || name.n > 5)
        return TOKEN_PARAM_COUNT;
    for (unsigned i = 0; i < TOKEN_PARAM_COUNT; i++)
        if (names[i].n == name.n && memcmp(names[i].p, name.p, name.n) == 0)
            return (enum signed_url_param)i;
    return TOKEN_PARAM_COUNT;
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
        if (str_eq(p.name, names[TOKEN_SIG]))
            return true;
    return false;
}

static enum signed_url_result read_query(struct str query, struct signed_url_token *token)
{
    struct url_param p;
    bool repeated = false;

    while (url_query_next(&query, &p)) {
        enum signed_url_param param = param_of(p.name);

        if (param < TOKEN_DEPTH && !put_param(token, param, p.value))
            repeated = true;
    }
    if (!signed_url_token_has(token, TOKEN_SIG))
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
        if (param != TOKEN_PARAM_COUNT && !put_param(token, param, str_skip(one, name.n + (equals != NULL))))
            return SIGNED_URL_REPEATED;
    }
    if (!signed_url_token_has(token, TOKEN_SIG))
        return SIGNED_URL_MISSING;
    return signed_url_token_has(token, TOKEN_PFX) ? SIGNED_URL_MALFORMED
                                                  : SIGNED_URL_OK; /* depth stands for it */
}

/* pfx from depth: the first N segments of the path, with the "/" after them. A path that has no "/" there is
 * outside of any prefix so deep. */
static enum signed_url_result prefix_of_depth(struct str path, struct signed_url_token *token)
{
    uint64_t depth;
    size_t n = 1;

    if (str_to_u64(token->value[TOKEN_DEPTH], &depth) < 0 || path.n == 0 || path.p[0] != '/')
        return SIGNED_URL_MALFORMED;
    for (; depth > 0; depth--) {
        const char *slash = memchr(path.p + n, '/', path.n - n);

        if (!slash)
            return SIGNED_URL_OUTSIDE_PREFIX;
        n = (size_t)(slash - path.p) + 1;
    }
    put_param(token, TOKEN_PFX, str_of(path.p, n));
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
        if (r == SIGNED_URL_OK && signed_url_token_has(token, TOKEN_DEPTH))
            r = prefix_of_depth(parts->path, token);
    }
    if (r != SIGNED_URL_OK)
        return r;
    token->sig = token->value[TOKEN_SIG];
    return signed_url_token_has(token, TOKEN_EXP) ? SIGNED_URL_OK : SIGNED_URL_NO_EXP;
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
    token->decoded[TOKEN_PFX] = STR_NONE;
    if (!signed_url_token_has(token, TOKEN_PFX)) {
        buf_add_lit(&b, "\npath=");
        buf_add_str(&b, path);
    } else if (signed_url_token_has(token, TOKEN_DEPTH)) {
        /* Part of the path, so not decoded: an escape in it is outside the alphabet. */
        if (memchr(token->value[TOKEN_PFX].p, '%', token->value[TOKEN_PFX].n) ||
            !add_line(&b, token, TOKEN_PFX))
            return SIGNED_URL_MALFORMED;
    } else if (!add_line(&b, token, TOKEN_PFX)) {
        return SIGNED_URL_MALFORMED;
    }
    for (unsigned i = 0; i < TOKEN_SORTED_COUNT; i++) {
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

/* One more than what a character means; 0 for what is none. A table, since branches on what is as good as
 * random cost more here than the HMAC does. */
static const uint8_t base64url_digit[256] = {
    ['A'] = 1,  ['B'] = 2,  ['C'] = 3,  ['D'] = 4,  ['E'] = 5,  ['F'] = 6,  ['G'] = 7,  ['H'] = 8,
    ['I'] = 9,  ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14, ['O'] = 15, ['P'] = 16,
    ['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21, ['V'] = 22, ['W'] = 23, ['X'] = 24,
    ['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28, ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32,
    ['g'] = 33, ['h'] = 34, ['i'] = 35, ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40,
    ['o'] = 41, ['p'] = 42, ['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48,
    ['w'] = 49, ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56,
    ['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['-'] = 63, ['_'] = 64,
};

int signed_url_sig_decode(struct str sig, uint8_t mac[static HMAC_BYTES])
{
    uint32_t bits = 0;
    size_t out = 0;

    if (sig.n != SIGNED_URL_SIG_BYTES)
        return -EINVAL;
    for (size_t i = 0; i < SIGNED_URL_SIG_BYTES; i++) {
        unsigned value = base64url_digit[(unsigned char)sig.p[i]];

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
