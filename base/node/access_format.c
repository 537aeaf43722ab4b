/* Lines of the access log from records, and the scrubbing of signatures. Pure; see access_log.h. */
#include "node/access_log.h"

#include "util/buf.h"
#include "util/clock.h"

#include <time.h>

const char *access_cache_name(enum access_cache c)
{
    static const char *const names[ACCESS_CACHE_VALUES] = {
        [ACCESS_CACHE_NONE] = "none",   [ACCESS_CACHE_HIT] = "hit",
        [ACCESS_CACHE_MISS] = "miss",   [ACCESS_CACHE_JOINED] = "joined",
        [ACCESS_CACHE_STALE] = "stale", [ACCESS_CACHE_REVALIDATED] = "revalidated",
        [ACCESS_CACHE_PASS] = "pass",
    };

    return (unsigned)c < ACCESS_CACHE_VALUES ? names[c] : "none";
}

/* --- signatures --- */

static int hex_digit(unsigned char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int hex_pair(struct str s, size_t at)
{
    int high, low;

    if (at + 2 > s.n)
        return -1;
    high = hex_digit((unsigned char)s.p[at]);
    low = hex_digit((unsigned char)s.p[at + 1]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

/* The character at `at` however often it is percent-encoded ("s", "%73", "%2573"); *next is after it. */
static unsigned char decoded(struct str s, size_t at, size_t *next)
{
    unsigned char c = (unsigned char)s.p[at];
    size_t i = at + 1;

    while (c == '%') {
        int value = hex_pair(s, i);

        if (value < 0)
            break;
        c = (unsigned char)value;
        i += 2;
    }
    *next = i;
    return c;
}

/* The end of "sig=" at `at`, in any case and encoding; 0: something else stands there. */
static size_t after_sig(struct str s, size_t at)
{
    static const char name[] = "sig=";

    for (const char *want = name; *want != 0; want++) {
        unsigned char c;

        if (at >= s.n)
            return 0;
        c = decoded(s, at, &at);
        if ((c >= 'A' && c <= 'Z' ? c | 0x20 : c) != (unsigned char)*want)
            return 0;
    }
    return at;
}

static bool is_name_char(unsigned char c)
{
    unsigned char l = c | 0x20;

    return (c >= '0' && c <= '9') || (l >= 'a' && l <= 'z') || c == '_';
}

/* Where the value that begins at `at` ends. It takes in more where it is in doubt: whatever a reader may
 * hold for the value is gone. Only separators as sent end it, never encoded ones. */
static size_t value_end(struct str s, size_t at, bool in_query)
{
    const char *ends = in_query ? "&# \"" : ";/?# \"";

    while (at < s.n && (s.p[at] == 0 || strchr(ends, s.p[at]) == NULL))
        at++;
    return at;
}

/* What may begin a name or a query; all else is copied by runs. */
static bool is_plain(unsigned char c)
{
    return c != '%' && c != '?' && (c | 0x20) != 's';
}

/* Into `to`, which has room for s.n bytes. */
static struct str scrub(char *to, struct str s)
{
    struct buf b = buf_of(to, s.n);
    bool in_query = false;
    unsigned char before = '&';

    for (size_t at = 0, next; at < s.n; at = next) {
        unsigned char c;
        size_t value;

        for (next = at; next < s.n && is_plain((unsigned char)s.p[next]);)
            next++;
        if (next > at) {
            buf_add(&b, s.p + at, next - at);
            before = (unsigned char)s.p[next - 1];
            continue;
        }
        c = decoded(s, at, &next);
        value = (c | 0x20) == 's' && !is_name_char(before) ? after_sig(s, at) : 0;
        if (value > 0) {
            next = value_end(s, value, in_query);
            buf_add(&b, s.p + at, value - at);
            if (next > value)
                buf_add_char(&b, '-');
            before = '-';
        } else {
            in_query |= s.p[at] == '?';
            buf_add(&b, s.p + at, next - at);
            before = c;
        }
    }
    return buf_str(&b);
}

void access_log_scrub(struct grow *out, struct str s)
{
    char *to = grow_reserve(out, s.n);

    if (to != NULL)
        out->n += scrub(to, s).n;
}

/* --- what both formats need --- */

/* The longest line: every byte of every string as \u00XX, and the rest. */
#define LINE_BYTES_MAX ((ACCESS_TARGET_BYTES_MAX * 10u) * 6u + 2048u)

static struct str cut_to(struct str s, size_t max)
{
    return s.n > max ? str_of(s.p, max) : s;
}

static void add_padded(struct buf *b, unsigned value, unsigned digits)
{
    char text[10];

    for (unsigned i = digits; i > 0; i--, value /= 10)
        text[i - 1] = (char)('0' + value % 10);
    buf_add(b, text, digits);
}

/* Lines of one second share its calendar. */
static const struct tm *utc(uint64_t unix_ns)
{
    static _Thread_local time_t last = -1;
    static _Thread_local struct tm tm;
    time_t t = (time_t)(unix_ns / NS_PER_S);

    if (t != last) {
        gmtime_r(&t, &tm);
        last = t;
    }
    return &tm;
}

static struct str protocol(unsigned version)
{
    switch (version) {
    case 10:
        return STR("HTTP/1.0");
    case 20:
        return STR("HTTP/2.0");
    default:
        return STR("HTTP/1.1");
    }
}

static void add_ip(struct buf *b, const struct address *a)
{
    char ip[ADDRESS_TEXT_MAX];

    buf_add(b, ip, address_format_ip(a, ip));
}

/* How many bytes from the start are visible ASCII or space that neither format escapes. */
static size_t plain_run(struct str s)
{
    size_t i = 0;

    while (i < s.n && (unsigned char)s.p[i] >= 0x20 && (unsigned char)s.p[i] < 0x7f && s.p[i] != '"' &&
           s.p[i] != '\\')
        i++;
    return i;
}

/* --- JSON --- */

/* `key` is ,"name": with its punctuation. Nothing at all when the value is empty. */
static void json_str(struct buf *b, struct str key, struct str value)
{
    char scratch[ACCESS_TARGET_BYTES_MAX];
    struct str clean;

    if (value.n == 0)
        return;
    clean = scrub(scratch, cut_to(value, sizeof scratch));
    buf_add_str(b, key);
    if (plain_run(clean) == clean.n) {
        buf_add_char(b, '"');
        buf_add_str(b, clean);
        buf_add_char(b, '"');
    } else {
        buf_add_json(b, clean);
    }
}

static void json_u64(struct buf *b, struct str key, uint64_t value)
{
    buf_add_str(b, key);
    buf_add_u64(b, value);
}

static void json_seconds(struct buf *b, struct str key, uint64_t ns)
{
    json_u64(b, key, ns / NS_PER_S);
    buf_add_char(b, '.');
    add_padded(b, (unsigned)(ns % NS_PER_S / NS_PER_US), 6);
}

/* RFC 3339 with milliseconds. */
static void json_time(struct buf *b, uint64_t unix_ns)
{
    const struct tm *tm = utc(unix_ns);

    add_padded(b, (unsigned)tm->tm_year + 1900, 4);
    buf_add_char(b, '-');
    add_padded(b, (unsigned)tm->tm_mon + 1, 2);
    buf_add_char(b, '-');
    add_padded(b, (unsigned)tm->tm_mday, 2);
    buf_add_char(b, 'T');
    add_padded(b, (unsigned)tm->tm_hour, 2);
    buf_add_char(b, ':');
    add_padded(b, (unsigned)tm->tm_min, 2);
    buf_add_char(b, ':');
    add_padded(b, (unsigned)tm->tm_sec, 2);
    buf_add_char(b, '.');
    add_padded(b, (unsigned)(unix_ns % NS_PER_S / NS_PER_MS), 3);
    buf_add_char(b, 'Z');
}

#define KEY(name) STR(",\"" name "\":")

static void format_json(struct buf *b, const struct access_record *r)
{
    buf_add_lit(b, "{\"time\":\"");
    json_time(b, r->unix_ns);
    buf_add_lit(b, "\",\"client\":\"");
    add_ip(b, &r->client);
    buf_add_char(b, '"');
    json_u64(b, KEY("client_port"), address_port(&r->client));
    if (r->country[0] != '\0')
        json_str(b, KEY("country"), str_of(r->country, sizeof r->country));
    json_str(b, KEY("method"), r->method);
    json_str(b, KEY("host"), r->host);
    json_str(b, KEY("target"), r->target);
    json_str(b, KEY("protocol"), protocol(r->http_version));
    json_u64(b, KEY("status"), r->status);
    json_u64(b, KEY("body_bytes"), r->body_bytes);
    json_u64(b, KEY("sent_bytes"), r->sent_bytes);
    json_seconds(b, KEY("ttfb"), r->ttfb_ns);
    json_seconds(b, KEY("duration"), r->total_ns);
    json_str(b, KEY("cache"), str_z(access_cache_name(r->cache)));
    json_str(b, KEY("reason"), r->reason);
    json_str(b, KEY("uid"), r->uid);
    json_str(b, KEY("kid"), r->kid);
    json_str(b, KEY("range"), r->range);
    json_str(b, KEY("user_agent"), r->user_agent);
    json_str(b, KEY("referer"), r->referer);
    if (r->upstream.n > 0 || r->upstream_status != 0) {
        json_str(b, KEY("upstream"), r->upstream);
        json_u64(b, KEY("upstream_status"), r->upstream_status);
        json_seconds(b, KEY("upstream_ttfb"), r->upstream_ns);
    }
    json_u64(b, KEY("worker"), r->worker);
    if (r->aborted)
        buf_add_lit(b, ",\"aborted\":true");
    if (r->cut)
        buf_add_lit(b, ",\"cut\":true");
    buf_add_lit(b, "}\n");
}

/* --- combined --- */

/* As nginx and Apache write it: quotes, backslashes and all that is not printable ASCII become \xHH. */
static void add_escaped(struct buf *b, struct str s, bool spaces)
{
    static const char hex[] = "0123456789ABCDEF";

    while (s.n > 0) {
        size_t n = plain_run(s);
        const char *space = spaces ? NULL : memchr(s.p, ' ', n);

        if (space != NULL)
            n = (size_t)(space - s.p);
        buf_add(b, s.p, n);
        s = str_skip(s, n);
        if (s.n > 0) {
            unsigned char c = (unsigned char)s.p[0];
            const char escape[4] = {'\\', 'x', hex[c >> 4], hex[c & 15]};

            buf_add(b, escape, sizeof escape);
            s = str_skip(s, 1);
        }
    }
}

static void combined_str(struct buf *b, struct str value, bool spaces)
{
    char scratch[ACCESS_TARGET_BYTES_MAX];

    add_escaped(b, scrub(scratch, cut_to(value, sizeof scratch)), spaces);
}

static void combined_time(struct buf *b, uint64_t unix_ns)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    const struct tm *tm = utc(unix_ns);

    add_padded(b, (unsigned)tm->tm_mday, 2);
    buf_add_char(b, '/');
    buf_add(b, months + 3 * tm->tm_mon, 3);
    buf_add_char(b, '/');
    add_padded(b, (unsigned)tm->tm_year + 1900, 4);
    buf_add_char(b, ':');
    add_padded(b, (unsigned)tm->tm_hour, 2);
    buf_add_char(b, ':');
    add_padded(b, (unsigned)tm->tm_min, 2);
    buf_add_char(b, ':');
    add_padded(b, (unsigned)tm->tm_sec, 2);
    buf_add_lit(b, " +0000");
}

static void format_combined(struct buf *b, const struct access_record *r)
{
    add_ip(b, &r->client);
    buf_add_lit(b, " - ");
    /* A space in a field without quotes would shift all that follow. */
    combined_str(b, r->uid.n > 0 ? r->uid : STR("-"), false);
    buf_add_lit(b, " [");
    combined_time(b, r->unix_ns);
    buf_add_lit(b, "] \"");
    combined_str(b, r->method, true);
    buf_add_char(b, ' ');
    combined_str(b, r->target, true);
    buf_add_char(b, ' ');
    buf_add_str(b, protocol(r->http_version));
    buf_add_lit(b, "\" ");
    add_padded(b, r->status, 3);
    buf_add_char(b, ' ');
    buf_add_u64(b, r->body_bytes);
    buf_add_lit(b, " \"");
    combined_str(b, r->referer.n > 0 ? r->referer : STR("-"), true);
    buf_add_lit(b, "\" \"");
    combined_str(b, r->user_agent.n > 0 ? r->user_agent : STR("-"), true);
    buf_add_lit(b, "\"\n");
}

void access_log_format(struct grow *out, enum access_log_format format, const struct access_record *record)
{
    char *to = grow_reserve(out, LINE_BYTES_MAX);
    struct buf b;

    if (to == NULL)
        return;
    b = buf_of(to, LINE_BYTES_MAX);
    if (format == ACCESS_LOG_JSON)
        format_json(&b, record);
    else
        format_combined(&b, record);
    if (b.overflow)
        out->failed = true;
    else
        out->n += b.n;
}
