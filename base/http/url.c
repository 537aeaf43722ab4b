#include "http/url.h"

#include "util/check.h"
#include "util/ip.h"

#include <errno.h>

/* What a byte may be in a path as sent. */
enum { BAD, PLAIN, SLASH, DOT, PERCENT };

static const uint8_t path_class[256] = {
    ['!'] = PLAIN,         ['"'] = PLAIN,         ['$'] = PLAIN, ['%'] = PERCENT,
    ['&' ... '-'] = PLAIN, ['.'] = DOT,           ['/'] = SLASH, ['0' ... '>'] = PLAIN,
    ['@' ... '['] = PLAIN, [']' ... '~'] = PLAIN, /* the others BAD */
};

/* RFC 3986, 2.3. */
static const uint8_t unreserved[256] = {
    ['A' ... 'Z'] = 1, ['a' ... 'z'] = 1, ['0' ... '9'] = 1, ['-'] = 1, ['.'] = 1, ['_'] = 1, ['~'] = 1,
};

/* One more than what a hex digit means; 0 for what is none. */
static const uint8_t hex_digit[256] = {
    ['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,  ['6'] = 7,  ['7'] = 8,
    ['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
    ['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
};

static const char hex_upper[] = "0123456789ABCDEF";

/* The byte that an escape at s.p[i] means, or -1 when it is none. */
static int escape_at(struct str s, size_t i)
{
    int high, low;

    if (s.n - i < 3)
        return -1;
    high = hex_digit[(unsigned char)s.p[i + 1]];
    low = hex_digit[(unsigned char)s.p[i + 2]];
    return high == 0 || low == 0 ? -1 : (high - 1) << 4 | (low - 1);
}

const char *url_error_reason(int error)
{
    static const char *const reasons[URL_ERROR_COUNT] = {
        [URL_NOT_ABSOLUTE] = "path does not begin with /",
        [URL_EMPTY_SEGMENT] = "empty path segment",
        [URL_DOT_SEGMENT] = "path segment . or ..",
        [URL_BAD_ESCAPE] = "bad escape in the path",
        [URL_ENCODED_SLASH] = "encoded slash or backslash in the path",
        [URL_ENCODED_NUL] = "encoded NUL in the path",
        [URL_BAD_BYTE] = "byte not allowed in a path",
    };

    CHECK(error < 0 && error > -URL_ERROR_COUNT);
    return reasons[-error];
}

struct url_target url_target_split(struct str target)
{
    const char *q = target.n ? memchr(target.p, '?', target.n) : NULL;
    struct url_target t = {.path = target, .query = STR_NONE};

    if (q) {
        t.path.n = (size_t)(q - target.p);
        t.query = str_skip(target, t.path.n + 1);
    }
    return t;
}

/* Judges all but escapes, whose place it only tells: *escaped is set at the first. */
static int judge(struct str path, bool *escaped)
{
    size_t segment = 1, dots = 0; /* where the segment began, and how many dots it has */

    if (path.n == 0 || path.p[0] != '/')
        return -URL_NOT_ABSOLUTE;
    for (size_t i = 1; i < path.n; i++) {
        switch (path_class[(unsigned char)path.p[i]]) {
        case PLAIN:
            break;
        case DOT:
            dots++;
            break;
        case SLASH:
            if (i == segment)
                return -URL_EMPTY_SEGMENT;
            if (dots == i - segment && dots <= 2)
                return -URL_DOT_SEGMENT;
            segment = i + 1;
            dots = 0;
            break;
        case PERCENT:
            *escaped = true;
            break;
        default:
            return -URL_BAD_BYTE;
        }
    }
    return dots > 0 && dots == path.n - segment && dots <= 2 ? -URL_DOT_SEGMENT : 0;
}

/* Decodes what is unreserved and puts the rest in upper case. */
static int decode(struct str raw, char *out, struct str *canonical)
{
    size_t n = 0;

    for (size_t i = 0; i < raw.n; i++) {
        int byte;

        if (raw.p[i] != '%') {
            out[n++] = raw.p[i];
            continue;
        }
        byte = escape_at(raw, i);
        if (byte < 0)
            return -URL_BAD_ESCAPE;
        if (byte == '/' || byte == '\\')
            return -URL_ENCODED_SLASH;
        if (byte == 0)
            return -URL_ENCODED_NUL;
        if (unreserved[byte]) {
            out[n++] = (char)byte;
        } else {
            out[n++] = '%';
            out[n++] = hex_upper[byte >> 4];
            out[n++] = hex_upper[byte & 15];
        }
        i += 2;
    }
    *canonical = str_of(out, n);
    return 0;
}

int url_path_canonical(struct str raw, char *scratch, struct str *canonical)
{
    bool escaped = false;
    int r = judge(raw, &escaped);

    if (r < 0)
        return r;
    if (!escaped) {
        *canonical = raw;
        return 0;
    }
    r = decode(raw, scratch, canonical);
    return r < 0 ? r : judge(*canonical, &escaped); /* "%2e%2e" is a dot segment only now */
}

struct str url_path_decode(struct str canonical, char *out, size_t cap)
{
    size_t n = 0;

    if (canonical.n == 0 || memchr(canonical.p, '%', canonical.n) == NULL)
        return canonical;
    for (size_t i = 0; i < canonical.n && n < cap; n++) {
        int byte = canonical.p[i] == '%' ? escape_at(canonical, i) : -1;

        out[n] = byte >= 0 ? (char)byte : canonical.p[i];
        i += byte >= 0 ? 3 : 1;
    }
    return str_of(out, n);
}

bool url_segment_next(struct str *rest, struct str *segment)
{
    const char *slash;

    if (rest->n == 0)
        return false;
    *rest = str_skip(*rest, 1); /* the "/" before it */
    slash = rest->n ? memchr(rest->p, '/', rest->n) : NULL;
    *segment = slash ? str_of(rest->p, (size_t)(slash - rest->p)) : *rest;
    *rest = str_skip(*rest, segment->n);
    return true;
}

bool url_query_next(struct str *rest, struct url_param *param)
{
    while (rest->n > 0) {
        const char *end = memchr(rest->p, '&', rest->n);
        struct str one = end ? str_of(rest->p, (size_t)(end - rest->p)) : *rest;
        const char *equals;

        *rest = str_skip(*rest, one.n + 1);
        if (one.n == 0)
            continue;
        equals = memchr(one.p, '=', one.n);
        param->has_value = equals != NULL;
        param->name = equals ? str_of(one.p, (size_t)(equals - one.p)) : one;
        param->value = equals ? str_skip(one, param->name.n + 1) : str_of(one.p + one.n, 0);
        return true;
    }
    return false;
}

bool url_name_is(struct str sent, struct str name)
{
    size_t n = 0;

    for (size_t i = 0; i < sent.n; i++, n++) {
        int byte = (unsigned char)sent.p[i];

        if (byte == '%' && escape_at(sent, i) >= 0) {
            byte = escape_at(sent, i);
            i += 2;
        }
        if (n == name.n || (unsigned char)name.p[n] != byte)
            return false;
    }
    return n == name.n;
}

static void add_canonical(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        int byte = (unsigned char)s.p[i];
        bool escape = byte < 0x21 || byte > 0x7e;

        if (byte == '%') {
            int meant = escape_at(s, i);

            escape = meant < 0 || !unreserved[meant];
            if (meant >= 0) {
                byte = meant;
                i += 2;
            }
        }
        if (escape)
            buf_add(out, (char[]){'%', hex_upper[byte >> 4], hex_upper[byte & 15]}, 3);
        else
            buf_add_char(out, (char)byte);
    }
}

static void add_param(struct buf *out, size_t start, const struct url_param *param)
{
    if (out->n > start)
        buf_add_char(out, '&');
    add_canonical(out, param->name);
    if (param->has_value) {
        buf_add_char(out, '=');
        add_canonical(out, param->value);
    }
}

void url_query_keep(struct str query, const struct str *names, size_t n, struct buf *out)
{
    size_t start = out->n;

    for (size_t i = 0; i < n; i++) {
        struct str rest = query;
        struct url_param param;

        while (url_query_next(&rest, &param))
            if (url_name_is(param.name, names[i]))
                add_param(out, start, &param);
    }
}

void url_query_keep_all_but(struct str query, const struct str *names, size_t n, struct buf *out)
{
    size_t start = out->n;
    struct url_param param;

    while (url_query_next(&query, &param)) {
        size_t i = 0;

        while (i < n && !url_name_is(param.name, names[i]))
            i++;
        if (i == n)
            add_param(out, start, &param);
    }
}

/* Names of DNS and dotted quads; of RFC 3986's reg-name only what is unreserved, since the rest ("%", ",",
 * ";") is in no host's name and two readers may take it for different ones. */
static bool is_reg_name(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!unreserved[(unsigned char)s.p[i]])
            return false;
    return s.n > 0 && s.n <= 255;
}

int url_host_parse(struct str value, struct url_host *out)
{
    struct url_host host = {.name = value};
    const char *end;

    if (value.n > 0 && value.p[0] == '[') {
        struct ip address;

        end = memchr(value.p, ']', value.n);
        if (!end)
            return -EINVAL;
        host.is_ipv6 = true;
        host.name = str_of(value.p + 1, (size_t)(end - value.p - 1));
        value = str_skip(value, host.name.n + 2);
        if (!memchr(host.name.p, ':', host.name.n) || ip_parse(host.name, &address) < 0)
            return -EINVAL;
    } else {
        end = value.n ? memchr(value.p, ':', value.n) : NULL;
        if (end)
            host.name.n = (size_t)(end - value.p);
        value = str_skip(value, host.name.n);
        if (!is_reg_name(host.name))
            return -EINVAL;
    }
    if (value.n > 0) {
        uint64_t port;

        if (value.p[0] != ':')
            return -EINVAL;
        value = str_skip(value, 1);
        if (value.n > 0) { /* "host:" is a host without a port (RFC 3986, 3.2.3) */
            if (value.n > 5 || str_to_u64(value, &port) < 0 || port == 0 || port > UINT16_MAX)
                return -EINVAL;
            host.port = (uint16_t)port;
        }
    }
    *out = host;
    return 0;
}

bool url_host_eq(const struct url_host *a, const struct url_host *b, uint16_t default_port)
{
    return (a->port ? a->port : default_port) == (b->port ? b->port : default_port) &&
           str_eq_nocase(a->name, b->name);
}

static bool take_prefix_nocase(struct str *s, struct str prefix)
{
    if (s->n < prefix.n || !str_eq_nocase(str_of(s->p, prefix.n), prefix))
        return false;
    *s = str_skip(*s, prefix.n);
    return true;
}

int url_parse(struct str text, struct url *out)
{
    struct url url = {.scheme = URL_FILE};
    struct url_host host;
    size_t n = 0;

    for (size_t i = 0; i < text.n; i++)
        if (path_class[(unsigned char)text.p[i]] == BAD)
            return -EINVAL;
    if (take_prefix_nocase(&text, STR("file://"))) {
        if (text.n == 0 || text.p[0] != '/')
            return -EINVAL;
        url.path = text;
        *out = url;
        return 0;
    }
    if (take_prefix_nocase(&text, STR("http://")))
        url.scheme = URL_HTTP;
    else if (take_prefix_nocase(&text, STR("https://")))
        url.scheme = URL_HTTPS;
    else
        return -EINVAL;
    while (n < text.n && text.p[n] != '/')
        n++;
    if (url_host_parse(str_of(text.p, n), &host) < 0)
        return -EINVAL;
    url.host = host.name;
    url.host_is_ipv6 = host.is_ipv6;
    url.port = host.port ? host.port : url.scheme == URL_HTTPS ? 443 : 80;
    url.path = str_skip(text, n);
    *out = url;
    return 0;
}
