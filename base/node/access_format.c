/* Lines of the access log from records, and the scrubbing of signatures. Pure; see access_log.h. */
#include "node/access_log.h"

#include "util/buf.h"
#include "util/clock.h"

#include <stdio.h>
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

/* Into `to`, which has room for s.n bytes. */
static struct str scrub(char *to, struct str s)
{
    struct buf b = buf_of(to, s.n);
    bool in_query = false;
    unsigned char before = '&';

    for (size_t at = 0, next; at < s.n; at = next) {
        unsigned char c = decoded(s, at, &next);
        size_t value = (c | 0x20) == 's' && !is_name_char(before) ? after_sig(s, at) : 0;

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

/* --- JSON --- */

static struct str cut_to(struct str s, size_t max)
{
    return s.n > max ? str_of(s.p, max) : s;
}

/* ,"name":"value" with signatures taken out; nothing when it is empty. */
static void json_str(struct grow *out, const char *name, struct str value)
{
    char scratch[ACCESS_TARGET_BYTES_MAX];

    if (value.n == 0)
        return;
    grow_printf(out, ",\"%s\":", name);
    grow_add_json(out, scrub(scratch, cut_to(value, sizeof scratch)));
}

static void json_u64(struct grow *out, const char *name, uint64_t value)
{
    grow_printf(out, ",\"%s\":", name);
    grow_add_u64(out, value);
}

static void json_seconds(struct grow *out, const char *name, uint64_t ns)
{
    grow_printf(out, ",\"%s\":%llu.%06llu", name, (unsigned long long)(ns / NS_PER_S),
                (unsigned long long)(ns % NS_PER_S / NS_PER_US));
}

static const char *protocol(unsigned version)
{
    switch (version) {
    case 10:
        return "HTTP/1.0";
    case 20:
        return "HTTP/2.0";
    default:
        return "HTTP/1.1";
    }
}

static struct tm utc(uint64_t unix_ns)
{
    time_t t = (time_t)(unix_ns / NS_PER_S);
    struct tm tm = {0};

    gmtime_r(&t, &tm);
    return tm;
}

static void format_json(struct grow *out, const struct access_record *r)
{
    struct tm tm = utc(r->unix_ns);
    char ip[ADDRESS_TEXT_MAX];

    address_format_ip(&r->client, ip);
    grow_printf(out, "{\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03lluZ\",\"client\":\"%s\"",
                tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
                (unsigned long long)(r->unix_ns % NS_PER_S / NS_PER_MS), ip);
    json_u64(out, "client_port", address_port(&r->client));
    json_str(out, "method", r->method);
    json_str(out, "host", r->host);
    json_str(out, "target", r->target);
    grow_printf(out, ",\"protocol\":\"%s\"", protocol(r->http_version));
    json_u64(out, "status", r->status);
    json_u64(out, "body_bytes", r->body_bytes);
    json_u64(out, "sent_bytes", r->sent_bytes);
    json_seconds(out, "ttfb", r->ttfb_ns);
    json_seconds(out, "duration", r->total_ns);
    grow_printf(out, ",\"cache\":\"%s\"", access_cache_name(r->cache));
    json_str(out, "reason", r->reason);
    json_str(out, "uid", r->uid);
    json_str(out, "kid", r->kid);
    json_str(out, "range", r->range);
    json_str(out, "user_agent", r->user_agent);
    json_str(out, "referer", r->referer);
    if (r->upstream.n > 0 || r->upstream_status != 0) {
        json_str(out, "upstream", r->upstream);
        json_u64(out, "upstream_status", r->upstream_status);
        json_seconds(out, "upstream_ttfb", r->upstream_ns);
    }
    json_u64(out, "worker", r->worker);
    if (r->aborted)
        grow_add_lit(out, ",\"aborted\":true");
    if (r->cut)
        grow_add_lit(out, ",\"cut\":true");
    grow_add_lit(out, "}\n");
}

/* --- combined --- */

/* As nginx and Apache write it: quotes, backslashes and all that is not printable ASCII become \xHH. */
static void combined_str(struct grow *out, struct str value)
{
    char scratch[ACCESS_TARGET_BYTES_MAX];
    struct str s = scrub(scratch, cut_to(value, sizeof scratch));
    size_t from = 0;

    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];

        if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\')
            continue;
        grow_add(out, s.p + from, i - from);
        grow_printf(out, "\\x%02X", c);
        from = i + 1;
    }
    grow_add(out, s.p + from, s.n - from);
}

/* A field outside quotes: a space in it would shift all that follow. */
static void combined_word(struct grow *out, struct str value)
{
    if (value.n == 0)
        grow_add_char(out, '-');
    for (size_t i = 0; i < value.n; i++) {
        unsigned char c = (unsigned char)value.p[i];

        if (c > 0x20 && c < 0x7f && c != '"' && c != '\\')
            grow_add_char(out, (char)c);
        else
            grow_printf(out, "\\x%02X", c);
    }
}

static void combined_quoted(struct grow *out, struct str value)
{
    grow_add_lit(out, " \"");
    combined_str(out, value.n > 0 ? value : STR("-"));
    grow_add_char(out, '"');
}

static void format_combined(struct grow *out, const struct access_record *r)
{
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    struct tm tm = utc(r->unix_ns);
    char ip[ADDRESS_TEXT_MAX];

    address_format_ip(&r->client, ip);
    grow_printf(out, "%s - ", ip);
    combined_word(out, r->uid);
    grow_printf(out, " [%02d/%s/%04d:%02d:%02d:%02d +0000] \"", tm.tm_mday, months[tm.tm_mon],
                tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
    combined_str(out, r->method);
    grow_add_char(out, ' ');
    combined_str(out, r->target);
    grow_printf(out, " %s\" %03u ", protocol(r->http_version), r->status);
    grow_add_u64(out, r->body_bytes);
    combined_quoted(out, r->referer);
    combined_quoted(out, r->user_agent);
    grow_add_char(out, '\n');
}

void access_log_format(struct grow *out, enum access_log_format format, const struct access_record *record)
{
    if (format == ACCESS_LOG_JSON)
        format_json(out, record);
    else
        format_combined(out, record);
}
