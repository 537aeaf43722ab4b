#include "http/http2_head.h"

#include "util/check.h"

#include <errno.h>
#include <stdlib.h>

/* --- requests --- */

void http2_head_begin(struct http2_head *h, bool trailers)
{
    memset(h, 0, offsetof(struct http2_head, pseudo_bytes));
    h->trailers = trailers;
    h->pseudo = buf_of(h->pseudo_bytes, sizeof h->pseudo_bytes);
    h->text = buf_of(h->text_bytes, sizeof h->text_bytes);
}

static void refuse(struct http2_head *h, unsigned status, const char *detail)
{
    if (h->refuse != 0)
        return;
    h->refuse = status;
    h->detail = detail;
}

static void refuse_as(struct http2_head *h, enum http1_error error)
{
    refuse(h, http1_error_status(-(int)error), http1_error_reason(-(int)error));
}

static struct str keep(struct http2_head *h, struct str value, size_t max, enum http1_error error)
{
    char *at = h->pseudo.p + h->pseudo.n;

    if (value.n > max || value.n > h->pseudo.cap - h->pseudo.n) {
        refuse_as(h, error);
        return STR_NONE;
    }
    buf_add_str(&h->pseudo, value);
    return str_of(at, value.n);
}

/* Which of them there must and may be is nghttp2's to judge. */
static void add_pseudo(struct http2_head *h, struct str name, struct str value)
{
    if (h->line_written)
        h->malformed = true;
    else if (str_eq(name, STR(":method")))
        h->method = keep(h, value, HTTP_METHOD_BYTES_MAX, HTTP1_METHOD_TOO_LONG);
    else if (str_eq(name, STR(":path")))
        h->path = keep(h, value, HTTP_TARGET_BYTES_MAX, HTTP1_TARGET_TOO_LONG);
    else if (str_eq(name, STR(":authority")))
        h->authority = keep(h, value, 512, HTTP1_HOST_INVALID);
    else if (str_eq(name, STR(":scheme")))
        h->scheme_other = !str_eq_nocase(value, STR("https")) && !str_eq_nocase(value, STR("http"));
    else
        h->malformed = true;
}

static void add_line(struct http2_head *h, struct str name, struct str value)
{
    http1_add_field(&h->text, name, value);
    h->fields_n++;
}

static void write_line(struct http2_head *h)
{
    if (h->line_written)
        return;
    h->line_written = true;
    http1_add_request_line(&h->text, h->method, h->path.p == NULL ? h->authority : h->path);
    if (h->authority.p != NULL)
        add_line(h, STR("host"), h->authority);
}

/* One line, its pieces joined (RFC 9113, 8.2.3), wherever they stood. */
static void add_cookie(struct http2_head *h, struct str value)
{
    struct buf *b = &h->text;
    size_t more = value.n + 2, after;

    if (h->cookie_end == 0) {
        add_line(h, STR("cookie"), value);
        h->cookie_end = b->n - 2;
        return;
    }
    if (++h->cookies_n > HTTP2_COOKIES_MAX) {
        refuse_as(h, HTTP1_FIELDS_TOO_MANY);
        return;
    }
    if (b->overflow || more > b->cap - b->n) {
        b->overflow = true;
        return;
    }
    after = b->n - h->cookie_end;
    memmove(b->p + h->cookie_end + more, b->p + h->cookie_end, after);
    memcpy(b->p + h->cookie_end, "; ", 2);
    memcpy(b->p + h->cookie_end + 2, value.p, value.n);
    b->n += more;
    h->cookie_end += more;
}

static void add_host(struct http2_head *h, struct str value)
{
    if (h->authority.p == NULL)
        add_line(h, STR("host"), value);
    else if (!str_eq_nocase(value, h->authority))
        refuse(h, 400, "Host and :authority disagree");
}

void http2_head_add(struct http2_head *h, struct str name, struct str value)
{
    h->listed_bytes += (uint32_t)(name.n + value.n + 32);
    if (h->trailers || h->malformed || h->refuse != 0)
        return;
    if (name.n > 0 && name.p[0] == ':') {
        add_pseudo(h, name, value);
        return;
    }
    write_line(h);
    if (h->text.overflow)
        return;
    if (!http_is_token(name)) {
        h->malformed = true;
        return;
    }
    if (str_eq(name, STR("cookie"))) {
        add_cookie(h, value);
        return;
    }
    if (str_eq(name, STR("host"))) {
        add_host(h, value);
        return;
    }
    if (str_eq(name, STR("content-length")))
        h->has_length = true;
    else if (str_eq(name, STR("transfer-encoding"))) /* the one below is ours */
        h->malformed = true;
    if (h->fields_n < HTTP_FIELDS_MAX)
        add_line(h, name, value);
    else
        refuse_as(h, HTTP1_FIELDS_TOO_MANY);
}

bool http2_head_end(struct http2_head *h, bool ended, struct http1_request *parsed, unsigned *status,
                    const char **detail)
{
    int n;

    if (h->refuse == 0 && !h->malformed) {
        write_line(h);
        if (!ended && !h->has_length)
            add_line(h, STR("transfer-encoding"), STR("chunked"));
        http1_add_head_end(&h->text);
        if (h->text.overflow)
            refuse_as(h, HTTP1_HEAD_TOO_LONG);
        else if (h->scheme_other)
            refuse(h, 400, "a scheme other than http and https");
    }
    if (h->malformed)
        return false;
    *detail = h->detail;
    *status = h->refuse;
    if (h->refuse != 0)
        return true;
    n = http1_parse_request(h->text.p, h->text.n, parsed);
    if (n < 0) {
        *status = http1_error_status(n);
        *detail = http1_error_reason(n);
        return true;
    }
    /* A value that smuggled a line's end would read as other lines than were written. */
    return (size_t)n == h->text.n && parsed->fields.n == h->fields_n;
}

/* --- answers --- */

/* Those that differ from answer to answer: in the dynamic table they would only push out what repeats. */
static bool is_worth_indexing(enum field_id id)
{
    const uint64_t varying =
        FIELD_BIT(FIELD_AGE) | FIELD_BIT(FIELD_CACHE_STATUS) | FIELD_BIT(FIELD_CONTENT_LENGTH) |
        FIELD_BIT(FIELD_CONTENT_LOCATION) | FIELD_BIT(FIELD_CONTENT_RANGE) | FIELD_BIT(FIELD_DATE) |
        FIELD_BIT(FIELD_ETAG) | FIELD_BIT(FIELD_EXPIRES) | FIELD_BIT(FIELD_LAST_MODIFIED) |
        FIELD_BIT(FIELD_LOCATION) | FIELD_BIT(FIELD_SET_COOKIE) | FIELD_BIT(FIELD_SURROGATE_KEY);

    return (varying >> id & 1) == 0;
}

static bool is_of_http1(enum field_id id)
{
    const uint64_t framing = FIELD_BIT(FIELD_CONNECTION) | FIELD_BIT(FIELD_KEEP_ALIVE) |
                             FIELD_BIT(FIELD_PROXY_CONNECTION) | FIELD_BIT(FIELD_TRANSFER_ENCODING) |
                             FIELD_BIT(FIELD_UPGRADE);

    return (framing >> id & 1) != 0;
}

#define ANSWER_FIELDS_MAX (HTTP_FIELDS_MAX + 28) /* an upstream's, and what we add */

struct answer {
    unsigned n;
    nghttp2_nv at[ANSWER_FIELDS_MAX];
};

static void add_field(struct answer *a, struct str name, struct str value, uint8_t flags)
{
    if (a->n == ANSWER_FIELDS_MAX)
        return;
    a->at[a->n++] = (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name.p,
                                 .value = (uint8_t *)(uintptr_t)value.p,
                                 .namelen = name.n,
                                 .valuelen = value.n,
                                 .flags = flags};
}

/* "HTTP/1.1 200 ..." */
static bool add_status(struct answer *a, struct str line)
{
    if (line.n < 12)
        return false;
    add_field(a, STR(":status"), str_of(line.p + 9, 3),
              NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE);
    return true;
}

/* The name is copied by nghttp2, which puts it into lower case. */
static bool add_line_of(struct answer *a, struct str line)
{
    const char *colon = memchr(line.p, ':', line.n);
    enum field_id id;
    struct str name, value;

    if (colon == NULL)
        return false;
    name = str_of(line.p, (size_t)(colon - line.p));
    id = field_id_of(name);
    if (is_of_http1(id))
        return true;
    value = str_trim_ows(str_skip(line, name.n + 1));
    add_field(a, name, value,
              is_worth_indexing(id) ? NGHTTP2_NV_FLAG_NO_COPY_VALUE
                                    : NGHTTP2_NV_FLAG_NO_COPY_VALUE | NGHTTP2_NV_FLAG_NO_INDEX);
    return true;
}

static bool add_lines(struct answer *a, struct str text)
{
    while (text.n > 0) {
        const char *lf = memchr(text.p, '\n', text.n);
        size_t n = lf == NULL ? 0 : (size_t)(lf - text.p) + 1;

        if (n < 2 || lf[-1] != '\r')
            return false;
        if (n > 2 &&
            !(a->n == 0 ? add_status(a, str_of(text.p, n - 2)) : add_line_of(a, str_of(text.p, n - 2))))
            return false;
        text = str_skip(text, n);
    }
    return true;
}

static bool has_whole_lines(const struct iovec *vecs, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (vecs[i].iov_len > 0 && ((const char *)vecs[i].iov_base)[vecs[i].iov_len - 1] != '\n')
            return false;
    return true;
}

/* In one piece, for the few heads whose lines lie in several. */
static char *flatten(const struct iovec *vecs, unsigned n, size_t *bytes)
{
    size_t total = 0, at = 0;
    char *flat;

    for (unsigned i = 0; i < n; i++)
        total += vecs[i].iov_len;
    flat = malloc(total + 1);
    for (unsigned i = 0; flat != NULL && i < n; i++) {
        memcpy(flat + at, vecs[i].iov_base, vecs[i].iov_len);
        at += vecs[i].iov_len;
    }
    *bytes = total;
    return flat;
}

int http2_head_answer(nghttp2_session *session, int32_t id, const struct iovec *vecs, unsigned vecs_n,
                      const nghttp2_data_provider *body)
{
    struct answer a;
    char *flat = NULL;
    bool good = true;
    int error;

    a.n = 0;
    if (has_whole_lines(vecs, vecs_n)) {
        for (unsigned i = 0; good && i < vecs_n; i++)
            good = add_lines(&a, str_of(vecs[i].iov_base, vecs[i].iov_len));
    } else {
        size_t n;

        flat = flatten(vecs, vecs_n, &n);
        if (flat == NULL)
            return -ENOMEM;
        good = add_lines(&a, str_of(flat, n));
        for (unsigned i = 0; i < a.n; i++)
            a.at[i].flags &= NGHTTP2_NV_FLAG_NO_INDEX; /* nothing of it stays */
    }
    error = good && a.n > 0 ? nghttp2_submit_response(session, id, a.at, a.n, body)
                            : NGHTTP2_ERR_INVALID_ARGUMENT;
    free(flat);
    if (error == 0)
        return 0;
    return error == NGHTTP2_ERR_NOMEM ? -ENOMEM : -EINVAL;
}
