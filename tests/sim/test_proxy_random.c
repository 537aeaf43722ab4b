/* Random clients, origins, networks and faults around the real proxy, one world a seed. Whatever happens:
 *
 *   every byte that a client gets with 200 or 206 is the origin's, of exactly the version that the ETag names;
 *   framing and ranges are right, and an answer that ends early ends by a broken connection;
 *   what is kept is whole: who is told HIT gets all of it while the origin is down;
 *   so it is over HTTP/1.1 and HTTP/2, plain and TLS, whatever bits are flipped under TLS;
 *   every client is settled in bounded time, and after a drain nothing is left (sim_proxy_close);
 *   the same seed gives the same trace.
 *
 * SIM_SEED=N replays one seed, SIM_SEEDS=N runs the first N. */
#include "sim_proxy.h"
#include "sim_songs.h"
#include "util/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <setjmp.h>

#include <cmocka.h>

#define SEEDS         1000u
#define REPLAY_EVERY  8u
#define CLIENTS_MAX   24u
#define CLIENTS_USUAL 10u
#define REQUESTS_MAX  6u
#define PATHS         SIM_SONGS
#define SETTLE_S      300u
#define SLOW_S        60u

/* --- what there is --- */

struct wish { /* what a request asked for */
    const struct sim_song *song;
    bool head_only, is_get, bad_signature, is_upload, health;
};

struct caller { /* one of them */
    struct sim_client *http1;
    struct sim_h2 *http2;
};

struct life {
    struct sim_bed bed;
    struct sim_options options;
    struct sim_song songs[PATHS];
    struct caller clients[CLIENTS_MAX];
    struct sim_tls_sessions *sessions[2]; /* of TLS 1.3 and 1.2 */
    unsigned settled_n;                   /* the first ones of them */
    struct wish wishes[CLIENTS_MAX][REQUESTS_MAX];
    bool shut[CLIENTS_MAX]; /* its windows never open */
    unsigned clients_n;
    unsigned trouble_ppm; /* of an answer of the origin */
    bool fragile;         /* the network resets connections, too */
    bool mixed;           /* clients are of all kinds; else plain HTTP/1.1 */
    bool tls_origin;
    bool crowd; /* of slow clients with an object each: more than the memory tier holds */
    bool lies;  /* the origin's Content-Length may be wrong: then only bytes are checked, not lengths */
};

/* What has happened in all seeds: a test that never went through something shows here. */
static struct {
    uint64_t whole, partial, multipart, not_modified, errors, broken, hits, stale, joined, slow,
        passed_through;
    uint64_t evictions, refused_signatures, uploads, retries;
    uint64_t http2, tls, resumed, upstream_tls, flipped, cancelled, goaways;
} seen;

static const char *const seen_names[] = {"whole",
                                         "partial",
                                         "multipart",
                                         "not_modified",
                                         "errors",
                                         "broken",
                                         "hits",
                                         "stale",
                                         "joined",
                                         "slow",
                                         "passed",
                                         "evictions",
                                         "refused_signatures",
                                         "uploads",
                                         "retries",
                                         "http2",
                                         "tls",
                                         "resumed",
                                         "upstream_tls",
                                         "flipped",
                                         "cancelled",
                                         "goaways"};

/* --- clients of either kind --- */

static struct sim_conn *conn_of(const struct caller *c)
{
    return c->http1 != NULL ? sim_client_conn(c->http1) : sim_h2_conn(c->http2);
}

static const struct sim_reply *reply_of(const struct caller *c, size_t k)
{
    return c->http1 != NULL ? sim_client_reply(c->http1, k) : sim_h2_reply(c->http2, k);
}

static size_t asked_of(const struct caller *c)
{
    return c->http1 != NULL ? sim_client_asked(c->http1) : sim_h2_asked(c->http2);
}

static bool all_settled(void *context)
{
    struct life *l = context;

    for (; l->settled_n < l->clients_n; l->settled_n++) {
        struct caller *c = &l->clients[l->settled_n];

        if (c->http1 != NULL ? !sim_client_settled(c->http1) : !sim_h2_settled(c->http2))
            return false;
    }
    return true;
}

_Noreturn static void say_who_waits(const struct life *l)
{
    const struct caller *c = &l->clients[l->settled_n];

    sim_proxy_say_what_is_left(l->bed.p);
    for (size_t k = 0; k < asked_of(c); k++)
        fprintf(stderr, "  %s: status %d, %zu bytes, ended %d\n", l->wishes[l->settled_n][k].song->path,
                reply_of(c, k)->status, reply_of(c, k)->body.n, reply_of(c, k)->ended);
    sim_fail(l->bed.w, "client %u, connection %llu, HTTP/%d%s is not answered", l->settled_n,
             (unsigned long long)sim_conn_id(conn_of(c)), c->http1 != NULL ? 1 : 2,
             sim_conn_is_tls(conn_of(c)) ? " over TLS" : "");
}

static void free_caller(struct caller *c)
{
    if (c->http1 != NULL)
        sim_client_free(&c->http1);
    else
        sim_h2_free(&c->http2);
}

/* --- the origin --- */

static const struct sim_song *song_at(const struct life *l, struct str target)
{
    for (size_t i = 0; i < PATHS; i++)
        if (str_eq(str_of(target.p, strcspn(target.p, "? ")), str_z(l->songs[i].path)))
            return &l->songs[i];
    return NULL;
}

/* Of the connections that come from here on. */
static void choose_origin_tls(struct life *l)
{
    struct sim_tls_options tls = sim_tls_options_random(l->bed.w);

    tls.alpn = "http/1.1";
    if (l->fragile && sim_below(l->bed.w, 4) == 0)
        tls.flip_sent_at = 1 + sim_between(l->bed.w, (struct sim_range){0, 100000});
    sim_origin_tls(l->bed.origin, &tls);
}

static void answer_hook(void *context, const struct sim_origin_request *request, struct sim_answer *a)
{
    struct life *l = context;
    struct sim_world *w = l->bed.w;
    const struct sim_song *s = song_at(l, request->target);

    if (l->tls_origin)
        choose_origin_tls(l);
    if (sim_body_differs(3, 0, request->body.p, request->body.n) != request->body.n)
        sim_fail(w, "an upload is wrong");
    if (s == NULL) {
        a->status = 404;
        return;
    }
    *a = (struct sim_answer){.version = s->version,
                             .body_bytes = sim_song_bytes(s, s->version),
                             .etag = s->etag,
                             .chunked = s->chunked,
                             .no_ranges = s->no_ranges,
                             .by_close = s->by_close,
                             .drip_bytes_per_s =
                                 UINT64_MAX, /* or that of the answer before it would hold on */
                             .fields = s->fields};
    a->close_after = sim_chance(w, 100000);
    if (sim_chance(w, 300000))
        a->delay_ns = sim_below(w, 300 * NS_PER_MS);
    if (sim_chance(w, l->trouble_ppm))
        sim_answer_trouble(w, a, l->lies);
}

static void change_versions(void *context)
{
    struct life *l = context;
    struct sim_world *w = l->bed.w;
    /* Often one in slices, so that it changes between them. */
    struct sim_song *s = &l->songs[sim_below(w, 2) ? 5 + sim_below(w, 2) : sim_below(w, PATHS)];

    s->version++;
    sim_after(w, 1 + sim_below(w, 2 * NS_PER_S), change_versions, l);
}

static void go_up_and_down(void *context)
{
    struct life *l = context;
    static const enum sim_route routes[] = {SIM_ROUTE_OPEN, SIM_ROUTE_OPEN, SIM_ROUTE_REFUSED,
                                            SIM_ROUTE_LOST};

    sim_route(l->bed.w, "127.0.0.1", SIM_ORIGIN_PORT, routes[sim_below(l->bed.w, ARRAY_LEN(routes))]);
    sim_after(l->bed.w, 1 + sim_below(l->bed.w, 5 * NS_PER_S), go_up_and_down, l);
}

/* --- set up --- */

static const char yaml_format[] =
    "%s%s"
    "memory: {size: %uMiB}\n"
    "signing: {keys: keys.yaml}\n"
    "rules:\n"
    "  - {match: \"/p/**\", cache: false, methods: all, signed: false}\n"
    "  - {match: \"/s/**\", ttl: 5s}\n"
    "  - {match: \"/o/**\", ttl: 3s, signed: false, methods: all, stale_if_error: %us}\n"
    "timeouts: {client_head: 5s, client_idle: 10s, client_body: 3s, upstream_connect: 2s,\n"
    "           upstream_first_byte: 3s, upstream_between_bytes: 3s, upstream_idle: 4s}\n"
    "limits: {client_rate_grace: 4s, client_rate_min: 200B/s, upstream_idle_max: 3}\n";

static void open_life(struct life *l, uint64_t seed)
{
    struct sim_options *o = &l->options;
    char yaml[2048];
    struct sim_world *w;

    *o = seed % 5 == 0 ? sim_options_calm(seed) : sim_options_rough(seed);
    l->fragile = seed % 4 == 1;
    if (l->fragile) {
        o->faults.reset_ppm = 50000;
        o->faults.reset_at = (struct sim_range){1, 100000};
        o->faults.connect_refused_ppm = 50000;
        o->faults.connect_lost_ppm = 20000;
    }
    if (seed % 7 == 2)
        o->faults.receive_buffers_max = 3;
    if (seed % 9 == 3)
        o->faults.accept_emfile_ppm = o->faults.socket_emfile_ppm = 50000;
    w = l->bed.w = sim_create(o);
    sim_songs_make(w, &o->net, l->songs);
    l->crowd = seed % 11 == 4;
    l->lies = seed % 3 == 0;
    l->trouble_ppm = (unsigned)sim_below(w, 3) * 150000;
    l->bed.origin = sim_origin_new(w, "127.0.0.1", SIM_ORIGIN_PORT);
    sim_origin_hook(l->bed.origin, answer_hook, l);
    l->mixed = seed % 3 != 0;
    l->tls_origin = seed % 5 == 1;
    if (l->tls_origin)
        choose_origin_tls(l);
    for (size_t i = 0; i < ARRAY_LEN(l->sessions); i++)
        l->sessions[i] = sim_tls_sessions_new();
    snprintf(yaml, sizeof yaml, yaml_format, l->mixed ? SIM_YAML_LISTEN_ALL : SIM_YAML_LISTEN,
             l->tls_origin ? SIM_YAML_UPSTREAM_TLS : SIM_YAML_UPSTREAM,
             l->crowd || sim_below(w, 2) ? 4u : 12u, sim_below(w, 2) ? 20u : 0u);
    l->bed.p = sim_proxy_open(w, &(struct sim_proxy_options){.workers = 1 + (unsigned)sim_below(w, 3),
                                                             .receive_buffers = 16u << sim_below(w, 3),
                                                             .receive_buffer_bytes = 512u << sim_below(w, 4),
                                                             .yaml = yaml});
    if (sim_below(w, 2))
        sim_after(w, NS_PER_S, change_versions, l);
    if (sim_below(w, 3) == 0)
        sim_after(w, NS_PER_S, go_up_and_down, l);
}

/* --- clients --- */

static void add_range(struct life *l, const struct sim_song *s, struct buf *b)
{
    struct sim_world *w = l->bed.w;
    uint64_t n = s->bytes + 1, first = sim_below(w, n), last = first + sim_below(w, n);

    switch (sim_below(w, 6)) {
    case 0:
        buf_printf(b, "Range: bytes=%llu-\r\n", (unsigned long long)first);
        break;
    case 1:
        buf_printf(b, "Range: bytes=-%llu\r\n", (unsigned long long)sim_below(w, n));
        break;
    case 2:
        buf_printf(b, "Range: bytes=%llu-%llu,%llu-%llu\r\n", (unsigned long long)first,
                   (unsigned long long)first + 99, (unsigned long long)last, (unsigned long long)last + 50);
        break;
    case 3:
        buf_printf(b, "Range: bytes=0-0\r\nIf-Range: \"v%llu\"\r\n", (unsigned long long)s->version);
        break;
    default:
        buf_printf(b, "Range: bytes=%llu-%llu\r\n", (unsigned long long)first, (unsigned long long)last);
        break;
    }
}

static void add_target(struct life *l, const struct sim_song *s, struct wish *wish, struct buf *b)
{
    char url[256];

    if (!s->is_signed) {
        buf_add_str(b, str_z(s->path));
        return;
    }
    wish->bad_signature = sim_below(l->bed.w, 4) == 0;
    sim_proxy_sign(l->bed.p, s->path, 3000, url, sizeof url);
    if (wish->bad_signature)
        url[strlen(url) - 2] ^= 1;
    buf_add_str(b, str_z(url));
}

static void send_in_parts(struct life *l, struct sim_client *c, struct str raw, bool head_only)
{
    struct sim_world *w = l->bed.w;
    size_t first = sim_below(w, 3) == 0 ? (size_t)sim_below(w, raw.n) + 1 : raw.n;

    sim_client_request(c, str_of(raw.p, first), head_only);
    for (raw = str_skip(raw, first); raw.n > 0;) {
        size_t n = (size_t)sim_below(w, raw.n) + 1;

        sim_client_pause(c, sim_below(w, 20 * NS_PER_MS));
        sim_client_part(c, str_of(raw.p, n));
        raw = str_skip(raw, n);
    }
}

struct question {
    const char *method;
    char target[300], fields[500];
    uint64_t body_bytes;
};

static void think_of(struct life *l, struct wish *wish, struct question *q)
{
    struct sim_world *w = l->bed.w;
    const struct sim_song *s = &l->songs[l->crowd               ? 9 + l->clients_n % (PATHS - 9)
                                         : sim_below(w, 4) == 0 ? 5 + sim_below(w, 2)
                                                                : sim_below(w, PATHS)];
    uint64_t kind = sim_below(w, 20);
    struct buf target = buf_of(q->target, sizeof q->target - 1), b = buf_of(q->fields, sizeof q->fields - 1);

    *wish = (struct wish){.song = s, .is_get = true};
    q->method = "GET";
    q->body_bytes = 0;
    if (kind == 0) {
        wish->health = true;
        buf_add_str(&target, STR("/.segue/health"));
    } else {
        wish->head_only = kind == 1;
        wish->is_upload = kind == 2 && (s->passed || !s->is_signed);
        wish->is_get = !wish->head_only && !wish->is_upload;
        q->method = wish->head_only ? "HEAD" : wish->is_upload ? "POST" : "GET";
        add_target(l, s, wish, &target);
        if (wish->is_upload)
            q->body_bytes = sim_below(w, 20000);
        else if (kind < 10)
            add_range(l, s, &b);
        else if (kind < 12)
            buf_printf(&b, "If-None-Match: \"v%llu\"\r\n", (unsigned long long)s->version);
        if (sim_below(w, 4) == 0)
            buf_add_str(&b, STR("Accept-Encoding: gzip\r\n"));
    }
    q->target[target.n] = q->fields[b.n] = '\0';
}

static void ask(struct life *l, struct sim_client *c, struct wish *wish)
{
    struct question q;
    char raw[1024];
    struct buf b = buf_of(raw, sizeof raw);

    think_of(l, wish, &q);
    buf_printf(&b, "%s %s HTTP/1.1\r\nHost: h\r\n%s", q.method, q.target, q.fields);
    if (wish->is_upload)
        buf_printf(&b, "Content-Length: %llu\r\n", (unsigned long long)q.body_bytes);
    if (sim_below(l->bed.w, 20) == 0)
        buf_add_str(&b, STR("Connection: close\r\n"));
    buf_add_str(&b, STR("\r\n"));
    send_in_parts(l, c, buf_str(&b), wish->head_only);
    if (wish->is_upload)
        sim_conn_send_body(sim_client_conn(c), 3, 0, q.body_bytes);
}

static void ask_http2(struct life *l, struct sim_h2 *c, struct wish *wish, uint64_t after_ns)
{
    struct sim_world *w = l->bed.w;
    struct question q;
    struct sim_h2_request r = {.target = q.target, .fields = q.fields, .body_id = 3, .after_ns = after_ns};
    size_t n;

    think_of(l, wish, &q);
    r.method = q.method;
    r.body_bytes = q.body_bytes;
    r.has_length = wish->is_upload && sim_below(w, 2);
    n = strlen(q.fields);
    if (sim_below(w, 2))
        snprintf(q.fields + n, sizeof q.fields - n, "priority: u=%u%s\r\n", (unsigned)sim_below(w, 8),
                 sim_below(w, 2) ? ", i" : "");
    if (sim_below(w, 10) == 0)
        r.reset_after_ns = 1 + sim_between(w, (struct sim_range){0, 3 * NS_PER_S});
    if (sim_below(w, 10) == 0)
        r.reset_at_bytes = 1 + sim_between(w, (struct sim_range){0, 400000});
    if (r.body_bytes > 1 && sim_below(w, 8) == 0)
        r.body_stops_at = 1 + sim_below(w, r.body_bytes - 1);
    (void)sim_h2_ask(c, &r);
}

static void choose_client_tls(struct life *l, struct sim_tls_options *tls)
{
    struct sim_world *w = l->bed.w;

    *tls = sim_tls_options_random(w);
    if (tls->suite == 0)
        tls->sessions = l->sessions[tls->tls12];
    switch (sim_below(w, 24)) {
    case 0:
        tls->flip_read_at = 1 + sim_between(w, (struct sim_range){0, 50000});
        break;
    case 1:
        tls->flip_sent_at = 1 + sim_between(w, (struct sim_range){0, 1500});
        break;
    case 2:
        tls->silent_at = 1 + sim_between(w, (struct sim_range){0, 1500});
        break;
    case 3:
        tls->no_close_notify = true;
        break;
    default:
        break;
    }
    seen.flipped += tls->flip_read_at + tls->flip_sent_at > 0;
}

static void choose_windows(struct sim_world *w, struct sim_h2_options *o)
{
    if (sim_below(w, 3) == 0)
        o->stream_window = 1 + (uint32_t)sim_between(w, (struct sim_range){0, 1000000});
    if (sim_below(w, 2))
        o->connection_window = 65535 + (uint32_t)sim_below(w, 4000000);
    if (sim_below(w, 3) == 0)
        o->hold_ns = (struct sim_range){0, sim_between(w, (struct sim_range){0, NS_PER_S})};
    o->no_window = sim_below(w, 30) == 0;
    o->never_opens = sim_below(w, 20) == 0;
    o->frame_bytes_max = 16384 + (uint32_t)sim_below(w, 3) * 20000;
    o->has_table = sim_below(w, 4) == 0;
    o->table_bytes = (uint32_t)sim_below(w, 8192);
}

static void add_http2_client(struct life *l, struct caller *caller, const struct sim_client_options *options,
                             unsigned requests)
{
    struct sim_world *w = l->bed.w;
    struct sim_h2_options o = {.tls = options->tls,
                               .read_rate = options->read_rate,
                               .abort_at_bytes = options->abort_at_bytes,
                               .abort_by_close = options->abort_by_close};
    unsigned i = (unsigned)(caller - l->clients);
    uint64_t after_ns = 0;

    choose_windows(w, &o);
    l->shut[i] = o.no_window || o.never_opens;
    caller->http2 = sim_bed_h2(&l->bed, &o);
    for (unsigned k = 0; k < requests; k++) {
        ask_http2(l, caller->http2, &l->wishes[i][k], after_ns);
        if (sim_below(w, 2))
            after_ns += sim_below(w, 3 * NS_PER_S);
    }
    seen.http2++;
}

static void add_http1_client(struct life *l, struct caller *caller, const struct sim_client_options *options,
                             unsigned requests)
{
    struct sim_world *w = l->bed.w;
    struct sim_client *c = caller->http1 = sim_bed_client(&l->bed, options);

    for (unsigned k = 0; k < requests; k++) {
        ask(l, c, &l->wishes[caller - l->clients][k]);
        if (sim_below(w, 2))
            sim_client_pause(c, sim_below(w, 3 * NS_PER_S));
    }
    if (sim_below(w, 6) == 0)
        sim_conn_end(sim_client_conn(c));
}

static void add_client(void *context)
{
    struct life *l = context;
    struct sim_world *w = l->bed.w;
    struct sim_client_options options = {0};
    struct sim_tls_options tls;
    unsigned i = l->clients_n++, requests = 1 + (unsigned)sim_below(w, REQUESTS_MAX);

    if (l->crowd)
        options.read_rate = 3000 + sim_below(w, 30000);
    else if (sim_below(w, 6) == 0)
        options.read_rate = 20 + sim_between(w, (struct sim_range){0, 2000000});
    if (sim_below(w, 6) == 0) {
        options.abort_at_bytes = 1 + sim_between(w, (struct sim_range){0, 500000});
        options.abort_by_close = sim_below(w, 2);
    }
    if (l->mixed && sim_below(w, 2)) {
        choose_client_tls(l, &tls);
        options.tls = &tls;
    }
    if (l->mixed && sim_below(w, 2))
        add_http2_client(l, &l->clients[i], &options, requests);
    else
        add_http1_client(l, &l->clients[i], &options, requests);
}

/* --- what has to hold --- */

static uint64_t number_after(struct str s, const char *mark)
{
    const char *at = s.n > 0 ? memmem(s.p, s.n, mark, strlen(mark)) : NULL;

    return at == NULL ? UINT64_MAX : strtoull(at + strlen(mark), NULL, 10);
}

static void check_run(const struct life *l, const struct sim_song *s, uint64_t version, uint64_t from,
                      struct str bytes)
{
    uint64_t id = sim_body_id(str_z(s->path), version);
    size_t right = sim_body_differs(id, from, bytes.p, bytes.n);

    if (right != bytes.n)
        sim_fail(l->bed.w, "%s, version %llu: byte %llu is wrong", s->path, (unsigned long long)version,
                 (unsigned long long)from + right);
}

static void parse_range(const struct life *l, struct str value, uint64_t total, uint64_t *from, uint64_t *n)
{
    unsigned long long a, b, all;
    char text[80];

    snprintf(text, sizeof text, STR_FMT, STR_ARG(value));
    if (sscanf(text, "bytes %llu-%llu/%llu", &a, &b, &all) != 3 || a > b || b >= all ||
        (all != total && !l->lies))
        sim_fail(l->bed.w, "Content-Range: %s of %llu bytes", text, (unsigned long long)total);
    *from = a;
    *n = b - a + 1;
}

/* Every part on its own; then the closing boundary. */
static void check_multipart(const struct life *l, const struct sim_song *s, uint64_t version,
                            const struct sim_reply *r)
{
    struct str rest = r->body, type = sim_head_field(r->head, "Content-Type");
    const char *boundary = memmem(type.p, type.n, "boundary=", 9);
    struct str mark = str_of(boundary + 9, (size_t)(type.p + type.n - boundary - 9));

    for (unsigned parts = 0;; parts++) {
        const char *at = memmem(rest.p, rest.n, mark.p, mark.n), *end;
        struct str head;
        uint64_t from, n;

        if (at == NULL)
            sim_fail(l->bed.w, "multipart: no boundary after %u parts", parts);
        rest = str_of(at + mark.n, (size_t)(rest.p + rest.n - at) - mark.n);
        if (str_eq(rest, STR("--\r\n")) && parts > 1)
            return;
        end = memmem(rest.p, rest.n, "\r\n\r\n", 4);
        if (end == NULL)
            sim_fail(l->bed.w, "multipart: no head of part %u", parts);
        head = str_of(rest.p, (size_t)(end + 4 - rest.p));
        rest = str_skip(rest, head.n);
        parse_range(l, sim_head_field(head, "Content-Range"), sim_song_bytes(s, version), &from, &n);
        if (rest.n < n)
            sim_fail(l->bed.w, "multipart: part %u is short", parts);
        check_run(l, s, version, from, str_of(rest.p, n));
        rest = str_skip(rest, n);
    }
}

static void check_body(const struct life *l, const struct wish *wish, const struct sim_reply *r)
{
    const struct sim_song *s = wish->song;
    uint64_t version = number_after(sim_head_field(r->head, "ETag"), "v"), total, from = 0, n;
    struct str type = sim_head_field(r->head, "Content-Type");

    if (version == UINT64_MAX || version == 0 || version > s->version)
        sim_fail(l->bed.w, "%s: no version in:\n" STR_FMT, s->path, STR_ARG(r->head));
    n = total = sim_song_bytes(s, version);
    if (r->status == 206 && type.n > 0 && str_starts(type, STR("multipart/"))) {
        seen.multipart += r->complete;
        if (r->complete)
            check_multipart(l, s, version, r);
        return;
    }
    if (r->status == 206)
        parse_range(l, sim_head_field(r->head, "Content-Range"), total, &from, &n);
    if (l->lies)
        n = r->framing == SIM_FRAMING_LENGTH ? r->content_length : UINT64_MAX;
    if (r->framing == SIM_FRAMING_LENGTH && r->content_length != n)
        sim_fail(l->bed.w, "%s: Content-Length is %llu of %llu", s->path,
                 (unsigned long long)r->content_length, (unsigned long long)n);
    if (r->body.n > n || (r->complete && r->body.n != n && !wish->head_only && !l->lies))
        sim_fail(l->bed.w, "%s: %zu bytes of %llu, framing %d", s->path, r->body.n, (unsigned long long)n,
                 r->framing);
    check_run(l, s, version, from, r->body);
    seen.whole += r->complete && r->status == 200;
    seen.partial += r->complete && r->status == 206;
}

static void count_reply(const struct sim_reply *r)
{
    struct str x = sim_head_field(r->head, "X-Cache"), status = sim_head_field(r->head, "Cache-Status");

    seen.errors += r->status >= 500;
    seen.not_modified += r->status == 304;
    seen.hits += str_eq(x, STR("HIT"));
    seen.stale += str_eq(x, STR("STALE"));
    seen.joined += status.n > 0 && memmem(status.p, status.n, "collapsed", 9) != NULL;
}

/* A body that ends with its connection may be cut by whoever breaks it, and nobody sees it, but under TLS. An origin that lies
 * about its length below what it has, or cuts such a body, makes what we pass on short, too. */
static bool may_be_cut_unseen(const struct life *l, const struct wish *wish)
{
    return wish->song->by_close && !l->tls_origin && (l->trouble_ppm > 0 || l->fragile);
}

static void check_reply(const struct life *l, const struct wish *wish, const struct sim_reply *r)
{
    static const int possible[] = {200, 204, 206, 302, 304, 403, 404, 408, 412, 416, 500, 502, 503, 504};
    bool known = false;

    if (r->malformed)
        sim_fail(l->bed.w, "%s: malformed: %s", wish->song->path, r->why);
    if (r->status == 0)
        return;
    for (size_t i = 0; i < ARRAY_LEN(possible); i++)
        known = known || r->status == possible[i];
    if (!known)
        sim_fail(l->bed.w, "%s: status %d", wish->song->path, r->status);
    if (wish->health || wish->is_upload) {
        seen.uploads += wish->is_upload && r->status == 200;
        return;
    }
    if (wish->song->is_signed && r->status != 408 && wish->bad_signature != (r->status == 403))
        sim_fail(l->bed.w, "%s: a signature is %s and the status %d", wish->song->path,
                 wish->bad_signature ? "bad" : "good", r->status);
    seen.refused_signatures += r->status == 403;
    if ((r->status == 200 || r->status == 206) && !may_be_cut_unseen(l, wish))
        check_body(l, wish, r);
}

/* Who did not see the end of a head does not know that it was a HEAD: that answer has a body. */
static bool was_cut_off_in_its_head(const struct life *l, unsigned i)
{
    size_t n = sim_client_complete(l->clients[i].http1);

    return n > 0 && l->wishes[i][n - 1].head_only && reply_of(&l->clients[i], n - 1)->status == 408;
}

static void check_connection(const struct life *l, unsigned i)
{
    const struct caller *c = &l->clients[i];

    if (c->http2 != NULL && sim_h2_broken(c->http2) != NULL)
        sim_fail(l->bed.w, "client %u: %s", i, sim_h2_broken(c->http2));
    if (c->http2 != NULL)
        seen.goaways += sim_h2_said_goaway(c->http2);
    else if (sim_client_surplus(c->http1) > 0 && !was_cut_off_in_its_head(l, i))
        sim_fail(l->bed.w, "client %u got %zu bytes too many", i, sim_client_surplus(c->http1));
    if (sim_conn_is_tls(conn_of(c))) {
        seen.tls += sim_conn_tls_is_done(conn_of(c));
        seen.resumed += sim_conn_tls_was_resumed(conn_of(c));
    }
}

static void check_clients(struct life *l)
{
    for (unsigned i = 0; i < l->clients_n; i++) {
        const struct caller *c = &l->clients[i];

        for (size_t k = 0; k < asked_of(c); k++) {
            const struct sim_reply *r = reply_of(c, k);

            seen.broken += r->status != 0 && !r->complete;
            seen.cancelled += c->http2 != NULL && sim_h2_was_reset_by_us(c->http2, k);
            check_reply(l, &l->wishes[i][k], r);
            count_reply(r);
        }
        check_connection(l, i);
    }
}

/* Whatever is kept must be whole: asked for once more while nobody is there to ask upstream. */
static void check_what_is_kept(struct life *l)
{
    unsigned first = l->clients_n;

    sim_route(l->bed.w, "127.0.0.1", SIM_ORIGIN_PORT, SIM_ROUTE_REFUSED);
    for (size_t i = 0; i < PATHS; i++) {
        struct sim_client *c;
        struct wish wish = {.song = &l->songs[i], .is_get = true};

        if (l->songs[i].is_signed)
            continue;
        c = sim_bed_client(&l->bed, NULL);
        sim_client_get(c, l->songs[i].path, NULL);
        sim_bed_settle(&l->bed, c, SETTLE_S);
        check_reply(l, &wish, sim_client_reply(c, 0));
        sim_client_free(&c);
    }
    assert_int_equal(first, l->clients_n);
}

static void add_counts(const struct life *l)
{
    struct memory_stats m;

    memory_stats(l->bed.p->proxy.memory, &m);
    seen.evictions += m.evictions;
    seen.passed_through += m.refused;
    seen.slow += SIM_PROXY_STAT(l->bed.p, slow_clients);
    if (l->tls_origin)
        seen.upstream_tls += sim_origin_connections(l->bed.origin);
    seen.retries += SIM_PROXY_STAT(l->bed.p, upstream_retries);
}

/* --- one world --- */

/* What lies in the network of a client that reads 20 bytes a second, or has a window of as many, is read. Who does not
 * read at all has been given up by now. */
static void hurry_up(const struct life *l, const struct caller *c)
{
    sim_conn_read_rate(conn_of(c), UINT64_MAX);
    if (c->http2 != NULL && !l->shut[c - l->clients])
        sim_h2_open_windows(c->http2);
}

static uint64_t run(uint64_t seed)
{
    struct life l = {0};
    unsigned clients;
    uint64_t hash;

    open_life(&l, seed);
    clients = l.crowd ? CLIENTS_MAX : 1 + (unsigned)sim_below(l.bed.w, CLIENTS_USUAL);
    for (unsigned i = 0; i < clients; i++)
        sim_after(l.bed.w, sim_below(l.bed.w, 2) ? sim_below(l.bed.w, 8 * NS_PER_S) : 0, add_client, &l);
    sim_bed_run_ms(&l.bed, 8001);
    assert_int_equal(l.clients_n, clients);
    if (seed % 6 == 0) /* in the middle of it all */
        sim_proxy_drain(l.bed.p, seed % 12 == 0);
    sim_bed_run_ms(&l.bed, SLOW_S * 1000);
    for (unsigned i = 0; i < clients; i++)
        hurry_up(&l, &l.clients[i]);
    if (!sim_run(l.bed.w, all_settled, &l, SETTLE_S * NS_PER_S))
        say_who_waits(&l);
    check_clients(&l);
    if (seed % 6 != 0)
        check_what_is_kept(&l);
    add_counts(&l);
    for (unsigned i = 0; i < clients; i++)
        free_caller(&l.clients[i]);
    for (size_t i = 0; i < ARRAY_LEN(l.sessions); i++)
        sim_tls_sessions_free(&l.sessions[i]);
    sim_proxy_close(&l.bed.p, SETTLE_S * NS_PER_S);
    sim_origin_free(&l.bed.origin);
    hash = sim_trace_hash(l.bed.w);
    sim_destroy(&l.bed.w);
    return hash;
}

static void test_random_worlds(void **state)
{
    struct sim_range seeds = sim_seeds(SEEDS);

    (void)state;
    for (uint64_t seed = seeds.min; seed <= seeds.max; seed++) {
        uint64_t hash = run(seed);

        if (seed % REPLAY_EVERY == 0 && run(seed) != hash) {
            fprintf(stderr, "seed %llu does not replay\n", (unsigned long long)seed);
            fail();
        }
    }
    if (getenv("SIM_COUNTS") != NULL)
        for (size_t i = 0; i < sizeof seen / sizeof(uint64_t); i++)
            printf("%s %llu\n", seen_names[i], (unsigned long long)((const uint64_t *)&seen)[i]);
    if (seeds.max - seeds.min < SEEDS - 1)
        return;
    assert_true(seen.whole > 1000 && seen.partial > 500 && seen.multipart > 50 && seen.not_modified > 50);
    assert_true(seen.errors > 200 && seen.broken > 100 && seen.hits > 200 && seen.stale > 20 &&
                seen.joined > 50);
    assert_true(seen.slow > 5 && seen.evictions > 50 && seen.passed_through > 50 &&
                seen.refused_signatures > 20);
    assert_true(seen.uploads > 20 && seen.retries > 5);
    assert_true(seen.http2 > 1000 && seen.tls > 1000 && seen.resumed > 50 && seen.upstream_tls > 200);
    assert_true(seen.flipped > 50 && seen.cancelled > 200 && seen.goaways > 200);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_worlds)};

    log_set_level((enum log_level)0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
