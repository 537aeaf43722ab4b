#include "http/http1.h"

#include "http/url.h"
#include "util/check.h"

#include <errno.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* What is left to read of a head. */
struct scan {
    const char *base, *p, *end;
};

/* Steps of the parsers return 1 (go on), 0 (more bytes are needed) or -enum http1_error. Each byte is judged
 * in its order and alone decides, so that a head gives the same answer however it was split. */
enum { MORE = 0, GO_ON = 1 };

/* Bytes that end a run: those that may not be in a field value, and in a target also space and "#". */
enum { ENDS_VALUE = 1, ENDS_TARGET = 2, ENDS_BOTH = 3 };

static const uint8_t ends[256] = {
    [0 ... 8] = ENDS_BOTH, [9] = ENDS_TARGET,   [10 ... 31] = ENDS_BOTH,
    [' '] = ENDS_TARGET,   ['#'] = ENDS_TARGET, [127] = ENDS_BOTH,
};

/* The first byte at or after p that ends a field value, or end. */
static const char *value_end(const char *p, const char *end)
{
#ifdef __SSE2__
    const __m128i last_control = _mm_set1_epi8(0x1f), tab = _mm_set1_epi8('\t'), del = _mm_set1_epi8(0x7f);

    for (; end - p >= 16; p += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(x, last_control), x);
        __m128i bad = _mm_or_si128(_mm_andnot_si128(_mm_cmpeq_epi8(x, tab), control), _mm_cmpeq_epi8(x, del));
        int mask = _mm_movemask_epi8(bad);

        if (mask)
            return p + __builtin_ctz((unsigned)mask);
    }
#endif
    while (p < end && !(ends[(unsigned char)*p] & ENDS_VALUE))
        p++;
    return p;
}

/* The same for a target. */
static const char *target_end(const char *p, const char *end)
{
#ifdef __SSE2__
    const __m128i space = _mm_set1_epi8(' '), hash = _mm_set1_epi8('#'), del = _mm_set1_epi8(0x7f);

    for (; end - p >= 16; p += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(x, space), x);
        __m128i bad = _mm_or_si128(control, _mm_or_si128(_mm_cmpeq_epi8(x, hash), _mm_cmpeq_epi8(x, del)));
        int mask = _mm_movemask_epi8(bad);

        if (mask)
            return p + __builtin_ctz((unsigned)mask);
    }
#endif
    while (p < end && !(ends[(unsigned char)*p] & ENDS_TARGET))
        p++;
    return p;
}

/* At a CR that must be the first half of a line's end. */
static int line_end(struct scan *s)
{
    if (s->end - s->p < 2)
        return MORE;
    if (s->p[1] != '\n')
        return -HTTP1_BAD_LINE_END;
    s->p += 2;
    return GO_ON;
}

/* An empty line before a request line is skipped (RFC 9112, 2.2). */
static int skip_empty_line(struct scan *s)
{
    if (s->p == s->end)
        return MORE;
    return *s->p == '\r' ? line_end(s) : GO_ON;
}

static int parse_method(struct scan *s, struct http1_request *out)
{
    const char *start = s->p;
    const char *limit =
        s->end - start > (ptrdiff_t)HTTP_METHOD_BYTES_MAX + 1 ? start + HTTP_METHOD_BYTES_MAX + 1 : s->end;

    if (s->end - start >= 4 && memcmp(start, "GET ", 4) == 0) {
        out->method = HTTP_GET;
        s->p += 3;
    } else {
        while (s->p < limit && http_token_table[(unsigned char)*s->p])
            s->p++;
        if (s->p - start > (ptrdiff_t)HTTP_METHOD_BYTES_MAX)
            return -HTTP1_METHOD_TOO_LONG;
        if (s->p == s->end)
            return MORE;
        if (*s->p != ' ' || s->p == start)
            return -HTTP1_BAD_REQUEST_LINE;
        out->method = (uint8_t)http_method_of(str_of(start, (size_t)(s->p - start)));
    }
    out->method_off = (uint16_t)(start - s->base);
    out->method_n = (uint16_t)(s->p - start);
    s->p++;
    return GO_ON;
}

static int parse_target(struct scan *s, struct http1_request *out)
{
    const char *start = s->p;
    const char *limit =
        s->end - start > (ptrdiff_t)HTTP_TARGET_BYTES_MAX + 1 ? start + HTTP_TARGET_BYTES_MAX + 1 : s->end;

    s->p = target_end(start, limit);
    if (s->p - start > (ptrdiff_t)HTTP_TARGET_BYTES_MAX)
        return -HTTP1_TARGET_TOO_LONG;
    if (s->p == s->end)
        return MORE;
    if (*s->p != ' ')
        return *s->p == '\r' || *s->p == '\n' ? -HTTP1_BAD_REQUEST_LINE : -HTTP1_BAD_TARGET;
    if (s->p == start)
        return -HTTP1_BAD_REQUEST_LINE;
    out->target_off = (uint16_t)(start - s->base);
    out->target_n = (uint16_t)(s->p - start);
    s->p++;
    return GO_ON;
}

/* "HTTP/1.1": `bad` is the error of what is no version at all. */
static int parse_version(struct scan *s, enum http1_error bad, uint8_t *minor)
{
    static const char pattern[] = "HTTP/d.d";

    for (size_t i = 0; i < sizeof pattern - 1; i++) {
        if (s->p + i == s->end)
            return MORE;
        if (pattern[i] == 'd' ? s->p[i] < '0' || s->p[i] > '9' : s->p[i] != pattern[i])
            return -(int)bad;
    }
    if (s->p[5] != '1')
        return -HTTP1_VERSION;
    *minor = s->p[7] == '0' ? 0 : 1;
    s->p += 8;
    return GO_ON;
}

static int parse_request_line(struct scan *s, struct http1_request *out)
{
    int r = skip_empty_line(s);

    if (r != GO_ON || (r = parse_method(s, out)) != GO_ON || (r = parse_target(s, out)) != GO_ON ||
        (r = parse_version(s, HTTP1_BAD_REQUEST_LINE, &out->minor)) != GO_ON)
        return r;
    if (s->p == s->end)
        return MORE;
    return *s->p == '\r' ? line_end(s) : -HTTP1_BAD_REQUEST_LINE;
}

static int parse_field(struct scan *s, struct fields *f)
{
    const char *name = s->p, *value, *end;
    size_t name_n;
    int r;

    while (s->p < s->end && http_token_table[(unsigned char)*s->p])
        s->p++;
    if (s->p == s->end)
        return MORE;
    name_n = (size_t)(s->p - name);
    if (*s->p != ':' || name_n == 0) {
        if (*s->p == ' ' || *s->p == '\t')
            return name_n == 0 ? -HTTP1_OBS_FOLD : -HTTP1_SPACE_BEFORE_COLON;
        return *s->p == '\n' ? -HTTP1_BAD_LINE_END : -HTTP1_BAD_FIELD_NAME;
    }
    do
        s->p++;
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t'));
    value = s->p;
    s->p = end = value_end(value, s->end);
    if (end == s->end)
        return MORE;
    if (*end != '\r')
        return *end == '\n' ? -HTTP1_BAD_LINE_END : -HTTP1_BAD_FIELD_VALUE;
    r = line_end(s);
    if (r != GO_ON)
        return r;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    if (fields_add(f, s->base, (size_t)(name - s->base), name_n, (size_t)(value - s->base),
                   (size_t)(end - value)) < 0)
        return -HTTP1_FIELDS_TOO_MANY;
    return GO_ON;
}

/* All fields and the empty line after them. */
static int parse_fields(struct scan *s, struct fields *f)
{
    fields_init(f);
    for (;;) {
        int r;

        if (s->p == s->end)
            return MORE;
        if (*s->p == '\r')
            return line_end(s);
        r = parse_field(s, f);
        if (r != GO_ON)
            return r;
    }
}

/* Transfer-Encoding and Content-Length (RFC 9112, 6.1 to 6.3). Two that disagree, or that two readers could
 * read differently, are what smuggling is made of: only the plainest form passes. */
static int judge_framing(const struct fields *f, const char *base, unsigned minor, uint8_t *framing,
                         uint64_t *length)
{
    if (fields_has(f, FIELD_TRANSFER_ENCODING)) {
        if (fields_has(f, FIELD_CONTENT_LENGTH))
            return -HTTP1_LENGTH_AND_ENCODING;
        if (minor == 0 || fields_count(f, FIELD_TRANSFER_ENCODING) != 1 ||
            !str_eq_nocase(fields_get(f, base, FIELD_TRANSFER_ENCODING), STR("chunked")))
            return -HTTP1_BAD_TRANSFER_ENCODING;
        *framing = HTTP_BODY_CHUNKED;
    } else if (fields_has(f, FIELD_CONTENT_LENGTH)) {
        if (fields_count(f, FIELD_CONTENT_LENGTH) != 1 ||
            str_to_u64(fields_get(f, base, FIELD_CONTENT_LENGTH), length) < 0 || *length > INT64_MAX)
            return -HTTP1_BAD_CONTENT_LENGTH;
        *framing = HTTP_BODY_LENGTH;
    }
    return 0;
}

static int judge_connection(const struct fields *f, const char *base, unsigned minor, bool *keep_alive)
{
    struct field_members it = field_members_of(f, base, FIELD_CONNECTION);
    bool close = false, keep = false;
    struct str member;
    unsigned n = 0;

    while (field_members_next(&it, &member)) {
        if (++n > HTTP_CONNECTION_MEMBERS_MAX)
            return -HTTP1_BAD_CONNECTION;
        if (str_eq_nocase(member, STR("close")))
            close = true;
        else if (str_eq_nocase(member, STR("keep-alive")))
            keep = true;
    }
    *keep_alive = !close && (minor >= 1 || keep);
    return 0;
}

/* Takes the authority off an absolute-form target, which stands in place of Host (RFC 9112, 3.2.2). */
static int judge_absolute(struct http1_request *r, const char *base, size_t scheme_n, uint16_t port,
                          const struct url_host *host)
{
    struct str rest = str_skip(str_of(base + r->target_off, r->target_n), scheme_n);
    struct url_host authority;
    size_t n = 0;

    while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?')
        n++;
    /* http://host?query has no path to point at; no client that matters sends it. */
    if (n < rest.n && rest.p[n] == '?')
        return -HTTP1_BAD_TARGET;
    if (url_host_parse(str_of(rest.p, n), &authority) < 0)
        return -HTTP1_BAD_TARGET;
    if (host && !url_host_eq(host, &authority, port))
        return -HTTP1_HOST_DISAGREES;
    r->target_form = HTTP_TARGET_ABSOLUTE;
    r->host_off = (uint16_t)(rest.p - base);
    r->host_n = (uint16_t)n;
    r->target_off = (uint16_t)(r->host_off + n);
    r->target_n = (uint16_t)(rest.n - n);
    return 0;
}

/* host: that of the Host field, NULL when a 1.0 request has none. */
static int judge_target(struct http1_request *r, const char *base, const struct url_host *host)
{
    struct str target = str_of(base + r->target_off, r->target_n);
    struct url_host authority;

    if (r->method == HTTP_CONNECT) {
        r->target_form = HTTP_TARGET_AUTHORITY;
        return url_host_parse(target, &authority) < 0 || authority.port == 0 ? -HTTP1_BAD_TARGET : 0;
    }
    r->target_form = HTTP_TARGET_ORIGIN;
    if (target.p[0] == '/')
        return 0;
    if (target.n > 7 && str_eq_nocase(str_of(target.p, 7), STR("http://")))
        return judge_absolute(r, base, 7, 80, host);
    if (target.n > 8 && str_eq_nocase(str_of(target.p, 8), STR("https://")))
        return judge_absolute(r, base, 8, 443, host);
    if (r->method == HTTP_OPTIONS && str_eq(target, STR("*"))) {
        r->target_form = HTTP_TARGET_ASTERISK;
        return 0;
    }
    return -HTTP1_BAD_TARGET;
}

static int judge_host_and_target(struct http1_request *r, const char *base)
{
    const struct field *field;
    struct url_host host;

    r->host_off = r->host_n = 0;
    if (!fields_has(&r->fields, FIELD_HOST))
        return r->minor >= 1 ? -HTTP1_HOST_MISSING : judge_target(r, base, NULL);
    field = &r->fields.at[r->fields.first[FIELD_HOST]];
    if (field->next != FIELD_END)
        return -HTTP1_HOST_REPEATED;
    if (url_host_parse(str_of(base + field->value_off, field->value_n), &host) < 0)
        return -HTTP1_HOST_INVALID;
    r->host_off = field->value_off;
    r->host_n = field->value_n;
    return judge_target(r, base, &host);
}

static int judge_request(struct http1_request *r, const char *base)
{
    int e = judge_host_and_target(r, base);

    r->framing = HTTP_BODY_NONE;
    r->content_length = 0;
    if (e < 0 || (e = judge_framing(&r->fields, base, r->minor, &r->framing, &r->content_length)) < 0 ||
        (e = judge_connection(&r->fields, base, r->minor, &r->keep_alive)) < 0)
        return e;
    r->expect_continue = r->minor >= 1 && fields_has(&r->fields, FIELD_EXPECT) &&
                         fields_have_member(&r->fields, base, FIELD_EXPECT, STR("100-continue"));
    return 0;
}

int http1_parse_request(const char *p, size_t n, struct http1_request *out)
{
    size_t seen = n < HTTP_REQUEST_HEAD_BYTES_MAX ? n : HTTP_REQUEST_HEAD_BYTES_MAX;
    struct scan s = {.base = p, .p = p, .end = p + seen};
    int r = parse_request_line(&s, out);

    if (r == GO_ON)
        r = parse_fields(&s, &out->fields);
    if (r == GO_ON) {
        int e = judge_request(out, p);

        r = e < 0 ? e : GO_ON;
    }
    if (r == MORE && seen == HTTP_REQUEST_HEAD_BYTES_MAX)
        r = -HTTP1_HEAD_TOO_LONG;
    return r == GO_ON ? (int)(s.p - p) : r;
}

static int parse_status_line(struct scan *s, struct http1_response *out)
{
    int r = parse_version(s, HTTP1_BAD_STATUS_LINE, &out->minor);
    unsigned status = 0;

    if (r != GO_ON)
        return r;
    for (size_t i = 0; i < 4; i++, s->p++) {
        if (s->p == s->end)
            return MORE;
        if (i == 0 ? *s->p != ' ' : *s->p < '0' || *s->p > '9')
            return -HTTP1_BAD_STATUS_LINE;
        if (i > 0)
            status = status * 10 + (unsigned)(*s->p - '0');
    }
    if (status < 100 || status > 599)
        return -HTTP1_BAD_STATUS_LINE;
    out->status = (uint16_t)status;
    if (s->p == s->end)
        return MORE;
    /* The space before an empty reason is often left out. */
    if (*s->p != ' ' && *s->p != '\r')
        return -HTTP1_BAD_STATUS_LINE;
    if (*s->p == ' ')
        s->p++;
    out->reason_off = (uint16_t)(s->p - s->base);
    s->p = value_end(s->p, s->end);
    if (s->p == s->end)
        return MORE;
    out->reason_n = (uint16_t)(s->p - s->base - out->reason_off);
    if (*s->p != '\r')
        return *s->p == '\n' ? -HTTP1_BAD_LINE_END : -HTTP1_BAD_STATUS_LINE;
    return line_end(s);
}

/* RFC 9112, 6.3. What has no body by its status or by HEAD has none whatever its fields say. */
static int judge_response(struct http1_response *r, const char *base, bool to_head)
{
    int e = judge_connection(&r->fields, base, r->minor, &r->keep_alive);

    r->framing = HTTP_BODY_CLOSE;
    r->content_length = 0;
    if (e < 0 || (e = judge_framing(&r->fields, base, r->minor, &r->framing, &r->content_length)) < 0)
        return e;
    r->has_content_length = r->framing == HTTP_BODY_LENGTH;
    if (to_head || r->status < 200 || r->status == 204 || r->status == 304)
        r->framing = HTTP_BODY_NONE;
    if (r->framing == HTTP_BODY_CLOSE)
        r->keep_alive = false;
    return 0;
}

int http1_parse_response(const char *p, size_t n, bool to_head, struct http1_response *out)
{
    size_t seen = n < HTTP_RESPONSE_HEAD_BYTES_MAX ? n : HTTP_RESPONSE_HEAD_BYTES_MAX;
    struct scan s = {.base = p, .p = p, .end = p + seen};
    int r = parse_status_line(&s, out);

    if (r == GO_ON)
        r = parse_fields(&s, &out->fields);
    if (r == GO_ON) {
        int e = judge_response(out, p, to_head);

        r = e < 0 ? e : GO_ON;
    }
    if (r == MORE && seen == HTTP_RESPONSE_HEAD_BYTES_MAX)
        r = -HTTP1_HEAD_TOO_LONG;
    return r == GO_ON ? (int)(s.p - p) : r;
}

bool http1_head_ready(const char *p, size_t n, size_t limit, size_t *scanned)
{
    size_t i = *scanned;

    while (i < n) {
        const char *lf = memchr(p + i, '\n', n - i);

        if (!lf)
            break;
        i = (size_t)(lf - p);
        if (i == 0 || p[i - 1] != '\r')
            return true; /* a bare LF: an error to tell */
        if (n - i < 3) {
            *scanned = i; /* whether an empty line follows is seen later */
            return n >= limit;
        }
        if (p[i + 1] == '\r' && p[i + 2] == '\n')
            return true;
        i++;
    }
    *scanned = n;
    return n >= limit;
}
