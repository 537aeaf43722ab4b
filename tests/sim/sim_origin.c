/* An HTTP/1.1 origin with bodies that can be checked, and a plan of what goes wrong for each request. */
#include "sim_http.h"
#include "sim_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct planned {
    struct list link;
    struct sim_answer answer;
    unsigned times;
};

struct resource {
    struct list link;
    char *path; /* NULL: all others */
    bool has_answer;
    struct sim_answer answer;
    struct list planned; /* struct planned */
    uint64_t requests;
    char *last_head;
    size_t last_head_n;
};

struct sim_origin {
    struct sim_world *w;
    char ip[64];
    uint16_t port;
    bool speaks_tls;
    struct sim_tls_options tls;
    struct list resources, connections;
    uint64_t requests, connections_n;
    void (*hook)(void *, const struct sim_origin_request *, struct sim_answer *);
    void *hook_context;
};

struct connection {
    struct list link;
    struct sim_origin *origin;
    struct sim_conn *conn;
    struct sim_bytes in;
    uint64_t requests;
    bool ending; /* no further request is answered */
};

/* --- resources --- */

static struct resource *find(const struct sim_origin *o, struct str path, bool all_others)
{
    LIST_EACH (&o->resources, node) {
        struct resource *r = LIST_ENTRY(node, struct resource, link);
        if (all_others ? r->path == NULL : r->path != NULL && str_eq(str_z(r->path), path))
            return r;
    }
    return NULL;
}

static struct resource *find_or_add(struct sim_origin *o, struct str path, bool all_others)
{
    struct resource *r = find(o, path, all_others);

    if (r != NULL)
        return r;
    r = calloc(1, sizeof *r);
    CHECK(r != NULL);
    if (!all_others) {
        r->path = strndup(path.p, path.n);
        CHECK(r->path != NULL);
    }
    list_init(&r->planned);
    list_push_back(&o->resources, &r->link);
    return r;
}

void sim_origin_set(struct sim_origin *o, const char *path, const struct sim_answer *answer)
{
    struct resource *r = find_or_add(o, str_z(path), path == NULL);

    r->answer = *answer;
    r->has_answer = true;
}

void sim_origin_next(struct sim_origin *o, const char *path, const struct sim_answer *answer, unsigned times)
{
    struct resource *r = find_or_add(o, str_z(path), false);
    struct planned *p = calloc(1, sizeof *p);

    CHECK(p != NULL && times > 0);
    p->answer = *answer;
    p->times = times;
    list_push_back(&r->planned, &p->link);
}

void sim_origin_hook(struct sim_origin *o,
                     void (*hook)(void *, const struct sim_origin_request *, struct sim_answer *),
                     void *context)
{
    o->hook = hook;
    o->hook_context = context;
}

void sim_origin_tls(struct sim_origin *o, const struct sim_tls_options *options)
{
    o->speaks_tls = options != NULL;
    if (options != NULL)
        o->tls = *options;
}

uint64_t sim_origin_requests(const struct sim_origin *o, const char *path)
{
    const struct resource *r = path != NULL ? find(o, str_z(path), false) : NULL;

    return path == NULL ? o->requests : r != NULL ? r->requests : 0;
}

uint64_t sim_origin_connections(const struct sim_origin *o)
{
    return o->connections_n;
}

struct str sim_origin_last_head(const struct sim_origin *o, const char *path)
{
    const struct resource *r = find(o, str_z(path), false);

    return r != NULL ? str_of(r->last_head, r->last_head_n) : STR_NONE;
}

static struct sim_answer choose_answer(struct sim_origin *o, struct resource *r)
{
    struct resource *others = find(o, STR_NONE, true);
    struct planned *p;
    struct sim_answer answer;

    if (!list_empty(&r->planned)) {
        p = LIST_ENTRY(r->planned.next, struct planned, link);
        answer = p->answer;
        if (--p->times == 0) {
            list_remove(&p->link);
            free(p);
        }
        return answer;
    }
    if (r->has_answer)
        return r->answer;
    return others != NULL && others->has_answer ? others->answer : (struct sim_answer){.status = 404};
}

/* --- the answer --- */

struct rendered {
    int status;
    uint64_t from, n; /* of the body */
    char etag[40], modified[40];
};

static void date_text(char out[40], uint64_t unix_s)
{
    time_t t = (time_t)unix_s;
    struct tm tm;

    gmtime_r(&t, &tm);
    strftime(out, 40, "%a, %d %b %Y %H:%M:%S GMT", &tm);
}

/* bytes=A-B, bytes=A- or bytes=-N. False: not one range that can be satisfied. */
static bool parse_range(struct str value, uint64_t total, uint64_t *from, uint64_t *n)
{
    char text[64];
    unsigned long long a = 0, b = 0;
    int used = 0;

    if (value.n >= sizeof text || memchr(value.p, ',', value.n) != NULL)
        return false;
    memcpy(text, value.p, value.n);
    text[value.n] = '\0';
    if (sscanf(text, "bytes=-%llu%n", &b, &used) == 1 && used == (int)value.n) {
        a = b < total ? total - b : 0;
        b = total - 1;
    } else if (sscanf(text, "bytes=%llu-%llu%n", &a, &b, &used) != 2 || used != (int)value.n) {
        if (sscanf(text, "bytes=%llu-%n", &a, &used) != 1 || used != (int)value.n)
            return false;
        b = total - 1;
    }
    b = b < total ? b : total - 1;
    if (total == 0 || a > b)
        return false;
    *from = a;
    *n = b - a + 1;
    return true;
}

static struct rendered render(const struct sim_answer *a, struct str head)
{
    struct rendered out = {.status = a->status != 0 ? a->status : 200, .n = a->body_bytes};
    struct str range = sim_head_field(head, "Range"), if_range = sim_head_field(head, "If-Range");
    struct str none_match = sim_head_field(head, "If-None-Match");
    struct str since = sim_head_field(head, "If-Modified-Since");

    if (a->etag || a->weak_etag)
        snprintf(out.etag, sizeof out.etag, "%s\"v%llu\"", a->weak_etag ? "W/" : "",
                 (unsigned long long)a->version);
    if (a->last_modified_s != 0)
        date_text(out.modified, a->last_modified_s);
    if (a->status != 0)
        return out;
    if ((out.etag[0] != '\0' && str_eq(none_match, str_z(out.etag))) ||
        (none_match.p == NULL && out.modified[0] != '\0' && str_eq(since, str_z(out.modified)))) {
        out.status = 304;
        out.n = 0;
    } else if (range.p != NULL && !a->no_ranges && !a->chunked &&
               (if_range.p == NULL || (!a->weak_etag && out.etag[0] && str_eq(if_range, str_z(out.etag))) ||
                (out.modified[0] && str_eq(if_range, str_z(out.modified))))) {
        if (parse_range(range, a->body_bytes, &out.from, &out.n)) {
            out.status = 206;
        } else if (memchr(range.p, ',', range.n) == NULL) {
            out.status = 416;
            out.n = 0;
        }
    }
    return out;
}

static void add(struct sim_bytes *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct sim_bytes *b, const char *format, ...)
{
    char text[1024];
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    CHECK(n >= 0 && (size_t)n < sizeof text);
    sim_bytes_add(b, text, (size_t)n);
}

static void write_head(struct sim_bytes *h, const struct sim_origin *o, const struct sim_answer *a,
                       const struct rendered *r)
{
    char date[40];

    for (unsigned i = 0; i < a->interim_100; i++)
        add(h, "HTTP/1.1 100 Continue\r\n\r\n");
    for (unsigned i = 0; i < a->interim_103; i++)
        add(h, "HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n");
    date_text(date, sim_unix_s(o->w));
    add(h, "HTTP/1.1 %d Status\r\nDate: %s\r\n", r->status, date);
    if (r->etag[0] != '\0')
        add(h, "ETag: %s\r\n", r->etag);
    if (r->modified[0] != '\0')
        add(h, "Last-Modified: %s\r\n", r->modified);
    if (r->status == 206)
        add(h, "Content-Range: bytes %llu-%llu/%llu\r\n", (unsigned long long)r->from,
            (unsigned long long)(r->from + r->n - 1), (unsigned long long)a->body_bytes);
    if (r->status == 416)
        add(h, "Content-Range: bytes */%llu\r\n", (unsigned long long)a->body_bytes);
    if (a->close_after || a->by_close)
        add(h, "Connection: close\r\n");
    if (a->fields != NULL)
        sim_bytes_add(h, a->fields, strlen(a->fields));
    if (a->head_pad_bytes > 0) {
        char *pad = malloc(a->head_pad_bytes);
        CHECK(pad != NULL);
        memset(pad, 'p', a->head_pad_bytes);
        add(h, "X-Pad: ");
        sim_bytes_add(h, pad, a->head_pad_bytes);
        add(h, "\r\n");
        free(pad);
    }
    if (r->status == 304 || r->status == 204)
        ;
    else if (a->chunked)
        add(h, "Transfer-Encoding: chunked\r\n");
    else if (!a->by_close)
        add(h, "Content-Length: %llu\r\n", (unsigned long long)r->n + (unsigned long long)a->length_lie);
    add(h, "\r\n");
}

static void cut(struct connection *c, const struct sim_answer *a)
{
    c->ending = true;
    if (a->cut_by_close)
        sim_conn_cut(c->conn);
    else
        sim_conn_reset(c->conn);
}

static void send_chunked(struct connection *c, uint64_t id, uint64_t n, bool whole)
{
    for (uint64_t at = 0; at < n;) {
        uint64_t chunk = sim_between(c->origin->w, (struct sim_range){1, 32768});
        struct sim_bytes line = {0};

        add(&line, "%llx\r\n", (unsigned long long)(chunk < n - at || !whole ? chunk : n - at));
        chunk = chunk < n - at ? chunk : n - at;
        sim_conn_send(c->conn, str_of(line.p, line.n));
        sim_bytes_free(&line);
        sim_conn_send_body(c->conn, id, at, chunk);
        at += chunk;
        if (at < n || whole)
            sim_conn_send(c->conn, STR("\r\n"));
    }
    if (whole)
        sim_conn_send(c->conn, STR("0\r\n\r\n"));
}

static void send_body(struct connection *c, const struct sim_answer *a, const struct rendered *r, uint64_t id)
{
    bool cuts = a->cut == SIM_CUT_IN_BODY;
    uint64_t n = cuts && a->cut_at < r->n ? a->cut_at : r->n;

    if (a->chunked)
        send_chunked(c, id, n, !cuts);
    else
        sim_conn_send_body(c->conn, id, r->from, n);
    if (cuts)
        cut(c, a);
}

static void answer(struct connection *c, const struct sim_answer *a, const struct sim_origin_request *request,
                   struct str path)
{
    struct rendered r = render(a, request->head);
    struct sim_bytes head = {0};
    bool head_only = str_eq(request->method, STR("HEAD"));
    size_t n;

    if (a->never)
        return;
    sim_conn_pause(c->conn, a->delay_ns);
    if (a->drip_bytes_per_s > 0)
        sim_conn_write_rate(c->conn, a->drip_bytes_per_s);
    if (a->cut == SIM_CUT_BEFORE_HEAD) {
        cut(c, a);
        return;
    }
    if (a->raw.p != NULL)
        sim_bytes_add(&head, a->raw.p, a->raw.n);
    else
        write_head(&head, c->origin, a, &r);
    n = a->cut == SIM_CUT_IN_HEAD && a->cut_at < head.n ? a->cut_at : head.n;
    sim_conn_send(c->conn, str_of(head.p, n));
    sim_bytes_free(&head);
    if (a->cut == SIM_CUT_IN_HEAD) {
        cut(c, a);
        return;
    }
    sim_conn_pause(c->conn, a->body_delay_ns);
    if (a->raw.p == NULL && !head_only && r.status != 304 && r.status != 204)
        send_body(c, a, &r, sim_body_id(path, a->version));
    if ((a->close_after || a->by_close) && !c->ending) {
        c->ending = true;
        sim_conn_close(c->conn);
    }
}

/* --- connections --- */

static void on_request(struct connection *c, struct str head, struct str body)
{
    struct sim_origin *o = c->origin;
    const char *sp = memchr(head.p, ' ', head.n);
    struct sim_origin_request request = {.head = head, .body = body, .nth_connection = c->requests++};
    struct sim_answer a;
    struct resource *r;
    struct str path;

    if (sp == NULL)
        sim_fail(o->w, "the origin was sent what is no request");
    request.method = str_of(head.p, (size_t)(sp - head.p));
    request.target = str_skip(head, request.method.n + 1);
    request.target.n = strcspn(request.target.p, " \r");
    path = str_of(request.target.p, strcspn(request.target.p, " \r?"));
    r = find_or_add(o, path, false);
    request.nth = r->requests++;
    o->requests++;
    free(r->last_head);
    r->last_head = strndup(head.p, head.n);
    r->last_head_n = head.n;
    sim_trace(o->w, "request", request.nth, c->requests);
    a = choose_answer(o, r);
    if (o->hook != NULL)
        o->hook(o->hook_context, &request, &a);
    answer(c, &a, &request, path);
}

/* Takes the chunks that begin at the front of `in` off their framing. Returns how many bytes they are with it, 0 while
 * they are not whole. */
static size_t read_chunks(const struct connection *c, struct str in, struct sim_bytes *body)
{
    size_t at = 0;

    for (;;) {
        struct str rest = str_skip(in, at);
        const char *end = rest.n > 0 ? memmem(rest.p, rest.n, "\r\n", 2) : NULL;
        size_t n;

        if (end == NULL)
            return 0;
        n = strtoull(rest.p, NULL, 16);
        at += (size_t)(end + 2 - rest.p);
        if (in.n < at + n + 2)
            return 0;
        sim_bytes_add(body, in.p + at, n);
        if (memcmp(in.p + at + n, "\r\n", 2) != 0)
            sim_fail(c->origin->w, "the origin was sent a chunk with a wrong end");
        at += n + 2;
        if (n == 0)
            return at;
    }
}

/* What of `in` belongs to the request with this head; 0 while it has not all come. */
static size_t read_request_body(const struct connection *c, struct str head, struct str in,
                                struct sim_bytes *body)
{
    struct str length = sim_head_field(head, "Content-Length");
    uint64_t n = 0;

    if (sim_head_field(head, "Transfer-Encoding").p != NULL) {
        n = read_chunks(c, str_skip(in, head.n), body);
        return n > 0 ? head.n + n : 0;
    }
    for (size_t i = 0; i < length.n; i++)
        n = n * 10 + (uint64_t)(length.p[i] - '0');
    if (in.n < head.n + n)
        return 0;
    sim_bytes_add(body, in.p + head.n, n);
    return head.n + n;
}

static void on_data(void *me, struct sim_conn *conn, struct str bytes)
{
    struct connection *c = me;
    const char *end;

    (void)conn;
    sim_bytes_add(&c->in, bytes.p, bytes.n);
    while (!c->ending && c->in.n > 0 &&
           (end = memmem(sim_bytes_at(&c->in, 0), c->in.n, "\r\n\r\n", 4)) != NULL) {
        struct str in = str_of(sim_bytes_at(&c->in, 0), c->in.n);
        struct str head = str_of(in.p, (size_t)(end + 4 - in.p));
        struct sim_bytes body = {0};
        size_t n = read_request_body(c, head, in, &body);

        if (n > 0)
            on_request(c, head, str_of(body.p != NULL ? sim_bytes_at(&body, 0) : "", body.n));
        sim_bytes_free(&body);
        if (n == 0)
            return;
        sim_bytes_drop(&c->in, n);
    }
}

static void on_end(void *me, struct sim_conn *conn)
{
    (void)me;
    sim_conn_close(conn); /* after what is still to be sent */
}

static const struct sim_peer origin_peer = {.data = on_data, .end = on_end};

static void *on_accept(void *context, struct sim_conn *conn)
{
    struct sim_origin *o = context;
    struct connection *c = calloc(1, sizeof *c);

    CHECK(c != NULL);
    c->origin = o;
    c->conn = conn;
    o->connections_n++;
    list_push_back(&o->connections, &c->link);
    if (o->speaks_tls)
        sim_conn_tls_accept(conn, &o->tls);
    return c;
}

struct sim_origin *sim_origin_new(struct sim_world *w, const char *ip, uint16_t port)
{
    struct sim_origin *o = calloc(1, sizeof *o);

    CHECK(o != NULL && strlen(ip) < sizeof o->ip);
    o->w = w;
    memcpy(o->ip, ip, strlen(ip) + 1);
    o->port = port;
    list_init(&o->resources);
    list_init(&o->connections);
    sim_listen(w, ip, port, &origin_peer, on_accept, o);
    return o;
}

void sim_origin_free(struct sim_origin **pp)
{
    struct sim_origin *o = TAKE(pp);

    sim_listen_stop(o->w, o->ip, o->port);
    LIST_EACH (&o->connections, conn_node) {
        struct connection *c = LIST_ENTRY(conn_node, struct connection, link);
        sim_conn_reset_now(c->conn);
        sim_bytes_free(&c->in);
        free(c);
    }
    LIST_EACH (&o->resources, node) {
        struct resource *r = LIST_ENTRY(node, struct resource, link);
        LIST_EACH (&r->planned, planned_node)
            free(LIST_ENTRY(planned_node, struct planned, link));
        free(r->path);
        free(r->last_head);
        free(r);
    }
    free(o);
}
