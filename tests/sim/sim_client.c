/* An HTTP/1.1 client that believes nothing: what it cannot make sense of is `malformed`. */
#include "sim_http.h"
#include "sim_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum state { HEAD, BODY, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER, DONE };

struct reply {
    struct sim_reply r;
    struct sim_bytes head, body, line;
    bool head_only;
    enum state state;
    uint64_t left; /* of the body or chunk */
};

struct sim_client {
    struct sim_world *w;
    struct sim_client_options options;
    struct sim_conn *conn;
    struct reply *replies;
    size_t asked_n, cap, at; /* at: the reply that is being read */
    size_t surplus;
    bool gone;
    int error;
};

/* --- fields of a head --- */

static struct str next_line(struct str *rest)
{
    const char *lf = rest->n > 0 ? memchr(rest->p, '\n', rest->n) : NULL;
    struct str line = str_of(rest->p, lf != NULL ? (size_t)(lf - rest->p) : rest->n);

    *rest = str_skip(*rest, line.n + 1);
    if (line.n > 0 && line.p[line.n - 1] == '\r')
        line.n--;
    return line;
}

static bool field_named(struct str line, const char *name, struct str *value)
{
    size_t n = strlen(name);

    if (line.n <= n || line.p[n] != ':' || strncasecmp(line.p, name, n) != 0)
        return false;
    *value = str_skip(line, n + 1);
    while (value->n > 0 && (value->p[0] == ' ' || value->p[0] == '\t'))
        *value = str_skip(*value, 1);
    while (value->n > 0 && (value->p[value->n - 1] == ' ' || value->p[value->n - 1] == '\t'))
        value->n--;
    return true;
}

struct str sim_head_field(struct str head, const char *name)
{
    struct str value;

    next_line(&head);
    while (head.n > 0)
        if (field_named(next_line(&head), name, &value))
            return value;
    return STR_NONE;
}

unsigned sim_head_field_count(struct str head, const char *name)
{
    struct str value;
    unsigned n = 0;

    next_line(&head);
    while (head.n > 0)
        n += field_named(next_line(&head), name, &value);
    return n;
}

/* --- replies --- */

static void malformed(struct reply *p, const char *why)
{
    if (!p->r.malformed)
        p->r.why = why;
    p->r.malformed = true;
}

static void finish(struct sim_client *c, struct reply *p)
{
    p->state = DONE;
    p->r.complete = true;
    p->r.done_ns = sim_now_ns(c->w);
    c->at++;
    if (c->options.closes_after_replies && c->at == c->asked_n)
        sim_conn_close_now(c->conn);
}

static bool digits(struct str s, uint64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9' || i > 17)
            return false;
        *out = *out * 10 + (uint64_t)(s.p[i] - '0');
    }
    return s.n > 0;
}

static bool is_token_char(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static void check_fields(struct reply *p, struct str head)
{
    struct str line;

    next_line(&head);
    while ((line = next_line(&head)).n > 0) {
        size_t i = 0;
        while (i < line.n && is_token_char(line.p[i]))
            i++;
        if (i == 0 || i == line.n || line.p[i] != ':')
            malformed(p, "a field line without a name and colon");
        for (; i < line.n; i++)
            if (((unsigned char)line.p[i] < 0x20 && line.p[i] != '\t') || line.p[i] == 0x7f)
                malformed(p, "a control character in a field");
    }
}

static void choose_framing(struct sim_client *c, struct reply *p)
{
    struct str head = str_of(sim_bytes_at(&p->head, 0), p->head.n);
    struct str length = sim_head_field(head, "Content-Length");
    struct str coding = sim_head_field(head, "Transfer-Encoding");
    bool bodiless = p->head_only || p->r.status == 204 || p->r.status == 304;

    if (sim_head_field_count(head, "Content-Length") > 1 ||
        sim_head_field_count(head, "Transfer-Encoding") > 1)
        malformed(p, "framing fields are repeated");
    if (length.p != NULL && coding.p != NULL)
        malformed(p, "both Content-Length and Transfer-Encoding");
    if (length.p != NULL && !digits(length, &p->r.content_length))
        malformed(p, "Content-Length is not a number");
    if (coding.p != NULL && !str_eq(coding, STR("chunked")))
        malformed(p, "Transfer-Encoding is not chunked");
    if (bodiless) {
        p->r.framing = SIM_FRAMING_NONE;
        finish(c, p);
    } else if (coding.p != NULL) {
        p->r.framing = SIM_FRAMING_CHUNKED;
        p->state = CHUNK_SIZE;
    } else if (length.p != NULL) {
        p->r.framing = SIM_FRAMING_LENGTH;
        p->left = p->r.content_length;
        p->state = BODY;
        if (p->left == 0)
            finish(c, p);
    } else {
        p->r.framing = SIM_FRAMING_CLOSE;
        p->left = UINT64_MAX;
        p->state = BODY;
    }
}

static void head_complete(struct sim_client *c, struct reply *p)
{
    struct str head = str_of(sim_bytes_at(&p->head, 0), p->head.n), first = next_line(&head);
    uint64_t status = 0;

    if (first.n < 13 || memcmp(first.p, "HTTP/1.1 ", 9) != 0 || first.p[12] != ' ' ||
        !digits(str_of(first.p + 9, 3), &status))
        malformed(p, "the status line");
    check_fields(p, str_of(sim_bytes_at(&p->head, 0), p->head.n));
    p->r.status = (int)status;
    if (status >= 100 && status < 200) {
        p->r.interim_n++;
        p->r.status = 0;
        sim_bytes_drop(&p->head, p->head.n);
        return;
    }
    choose_framing(c, p);
}

static void chunk_line(struct reply *p)
{
    struct str line = str_of(sim_bytes_at(&p->line, 0), p->line.n - 2);
    uint64_t size = 0;
    size_t i = 0;

    for (; i < line.n && line.p[i] != ';' && i < 16; i++) {
        const char *digit = strchr("0123456789abcdef0123456789ABCDEF", line.p[i]);
        if (digit == NULL || *digit == '\0')
            break;
        size = size * 16 + (uint64_t)(digit - "0123456789abcdef0123456789ABCDEF") % 16;
    }
    if (i == 0 || (i < line.n && line.p[i] != ';'))
        malformed(p, "a chunk size");
    p->left = size;
    p->state = size > 0 ? CHUNK_DATA : TRAILER;
}

static void line_complete(struct sim_client *c, struct reply *p)
{
    if (p->state == CHUNK_SIZE) {
        chunk_line(p);
    } else if (p->state == CHUNK_END) {
        if (p->line.n != 2)
            malformed(p, "bytes after a chunk");
        p->state = CHUNK_SIZE;
    } else if (p->line.n == 2) {
        finish(c, p);
    }
    sim_bytes_drop(&p->line, p->line.n);
}

static bool ends_with(const struct sim_bytes *b, const char *end, size_t n)
{
    return b->n >= n && memcmp(sim_bytes_at(b, b->n - n), end, n) == 0;
}

/* Returns how many of the bytes belong to this reply's present state. */
static size_t feed(struct sim_client *c, struct reply *p, struct str s)
{
    if (p->state == HEAD) {
        if (p->head.n == 0 && p->r.interim_n == 0)
            p->r.first_byte_ns = sim_now_ns(c->w);
        sim_bytes_add(&p->head, s.p, 1);
        if (ends_with(&p->head, "\r\n\r\n", 4))
            head_complete(c, p);
        return 1;
    }
    if (p->state == BODY || p->state == CHUNK_DATA) {
        size_t n = s.n < p->left ? s.n : p->left;
        sim_bytes_add(&p->body, s.p, n);
        p->left -= n;
        if (p->left == 0 && p->state == CHUNK_DATA)
            p->state = CHUNK_END;
        else if (p->left == 0)
            finish(c, p);
        return n;
    }
    sim_bytes_add(&p->line, s.p, 1);
    if (s.p[0] == '\n' && !ends_with(&p->line, "\r\n", 2))
        malformed(p, "a bare LF");
    if (ends_with(&p->line, "\r\n", 2))
        line_complete(c, p);
    else if (p->line.n > 4096)
        malformed(p, "an endless line");
    return 1;
}

/* --- the connection --- */

static void on_data(void *me, struct sim_conn *conn, struct str bytes)
{
    struct sim_client *c = me;

    (void)conn;
    while (bytes.n > 0) {
        if (c->at == c->asked_n || c->replies[c->at].r.malformed) {
            c->surplus += bytes.n;
            return;
        }
        bytes = str_skip(bytes, feed(c, &c->replies[c->at], bytes));
    }
}

static void left_alone(struct sim_client *c, int error)
{
    struct reply *p = c->at < c->asked_n ? &c->replies[c->at] : NULL;

    if (!c->gone && error == 0 && p != NULL && p->state == BODY && p->r.framing == SIM_FRAMING_CLOSE)
        finish(c, p);
    c->gone = true;
    if (c->error == 0)
        c->error = error;
}

static void on_end(void *me, struct sim_conn *conn)
{
    left_alone(me, 0);
    sim_conn_close_now(conn);
}

static void on_gone(void *me, struct sim_conn *conn, int error)
{
    (void)conn;
    left_alone(me, error);
}

static const struct sim_peer client_peer = {.data = on_data, .end = on_end, .gone = on_gone};

struct sim_client *sim_client_new(struct sim_world *w, const char *ip, uint16_t port,
                                  const struct sim_client_options *options)
{
    struct sim_client *c = calloc(1, sizeof *c);

    CHECK(c != NULL);
    c->w = w;
    if (options != NULL)
        c->options = *options;
    c->conn = sim_connect(w, c->options.from_ip, ip, port, &client_peer, c);
    if (c->options.read_rate > 0)
        sim_conn_read_rate(c->conn, c->options.read_rate);
    if (c->options.write_rate > 0)
        sim_conn_write_rate(c->conn, c->options.write_rate);
    if (c->options.tls != NULL)
        sim_conn_tls_connect(c->conn, c->options.tls);
    c->conn->closes_at_limit = c->options.abort_by_close;
    if (c->options.abort_at_bytes > 0)
        sim_conn_reset_at(c->conn, c->options.abort_at_bytes, UINT64_MAX);
    return c;
}

void sim_client_free(struct sim_client **pp)
{
    struct sim_client *c = TAKE(pp);

    sim_conn_close_now(c->conn);
    for (size_t i = 0; i < c->asked_n; i++) {
        sim_bytes_free(&c->replies[i].head);
        sim_bytes_free(&c->replies[i].body);
        sim_bytes_free(&c->replies[i].line);
    }
    free(c->replies);
    free(c);
}

void sim_client_request(struct sim_client *c, struct str raw, bool head_only)
{
    if (c->asked_n == c->cap) {
        c->cap = c->cap ? 2 * c->cap : 8;
        c->replies = realloc(c->replies, c->cap * sizeof *c->replies);
        CHECK(c->replies != NULL);
    }
    c->replies[c->asked_n++] = (struct reply){.head_only = head_only, .r = {.asked_ns = sim_now_ns(c->w)}};
    sim_conn_send(c->conn, raw);
}

void sim_client_part(struct sim_client *c, struct str raw)
{
    sim_conn_send(c->conn, raw);
}

void sim_client_pause(struct sim_client *c, uint64_t ns)
{
    sim_conn_pause(c->conn, ns);
}

void sim_client_get(struct sim_client *c, const char *target, const char *fields)
{
    char raw[8192];
    int n = snprintf(raw, sizeof raw, "GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n", target,
                     fields != NULL ? fields : "");

    CHECK(n > 0 && (size_t)n < sizeof raw);
    sim_client_request(c, str_of(raw, (size_t)n), false);
}

struct sim_conn *sim_client_conn(struct sim_client *c)
{
    return c->conn;
}

size_t sim_client_asked(const struct sim_client *c)
{
    return c->asked_n;
}

size_t sim_client_complete(const struct sim_client *c)
{
    return c->at;
}

const struct sim_reply *sim_client_reply(const struct sim_client *c, size_t i)
{
    struct reply *p = &c->replies[i];

    CHECK(i < c->asked_n);
    p->r.head = str_of(p->head.p != NULL ? sim_bytes_at(&p->head, 0) : "", p->head.n);
    p->r.body = str_of(p->body.p != NULL ? sim_bytes_at(&p->body, 0) : "", p->body.n);
    return &p->r;
}

bool sim_client_gone(const struct sim_client *c)
{
    return c->gone;
}

int sim_client_error(const struct sim_client *c)
{
    return c->error;
}

size_t sim_client_surplus(const struct sim_client *c)
{
    return c->surplus;
}

bool sim_client_settled(void *client)
{
    const struct sim_client *c = client;

    return c->gone || c->at == c->asked_n || c->replies[c->at].r.malformed || sim_conn_is_finished(c->conn);
}
