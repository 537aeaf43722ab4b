/* Random clients, origins, networks and faults around the real proxy, one world a seed. Whatever happens:
 *
 *   every byte that a client gets with 200 or 206 is the origin's, of exactly the version that the ETag names;
 *   framing and ranges are right, and an answer that ends early ends by a broken connection;
 *   what is kept is whole: who is told HIT gets all of it while the origin is down;
 *   every client is settled in bounded time, and after a drain nothing is left (sim_proxy_close);
 *   the same seed gives the same trace.
 *
 * SIM_SEED=N replays one seed, SIM_SEEDS=N runs the first N. */
#include "sim_proxy.h"
#include "util/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <setjmp.h>

#include <cmocka.h>

#define SEEDS        1000u
#define REPLAY_EVERY 8u
#define CLIENTS_MAX  10u
#define REQUESTS_MAX 6u
#define PATHS        20u
#define SETTLE_S     300u
#define SLOW_S       60u

/* --- what there is --- */

struct song {
    char path[24];
    uint64_t bytes; /* of version 1; later ones differ a little where `grows` */
    uint64_t version;
    const char *fields;
    bool grows, etag, chunked, no_ranges, by_close, passed, is_signed;
};

struct wish { /* what a request asked for */
    const struct song *song;
    bool head_only, is_get, bad_signature, is_upload, health;
};

struct life {
    struct sim_bed bed;
    struct sim_options options;
    struct song songs[PATHS];
    struct sim_client *clients[CLIENTS_MAX];
    struct wish wishes[CLIENTS_MAX][REQUESTS_MAX];
    unsigned clients_n;
    unsigned trouble_ppm; /* of an answer of the origin */
    bool fragile;         /* the network resets connections, too */
    bool lies;            /* the origin's Content-Length may be wrong: then only bytes are checked, not lengths */
};

/* What has happened in all seeds: a test that never went through something shows here. */
static struct {
    uint64_t whole, partial, multipart, not_modified, errors, broken, hits, stale, joined, slow, passed_through;
    uint64_t evictions, refused_signatures, uploads, retries;
} seen;

static const char *const seen_names[] = {
    "whole",  "partial",        "multipart", "not_modified",       "errors",  "broken", "hits", "stale", "joined", "slow",
    "passed", "evictions", "refused_signatures", "uploads", "retries"};

static uint64_t bytes_of(const struct song *s, uint64_t version)
{
    return s->grows ? s->bytes + version * 7 % 5000 : s->bytes;
}

/* --- the origin --- */

static const struct song *song_at(const struct life *l, struct str target)
{
    for (size_t i = 0; i < PATHS; i++)
        if (str_eq(str_of(target.p, strcspn(target.p, "? ")), str_z(l->songs[i].path)))
            return &l->songs[i];
    return NULL;
}

static void trouble(struct sim_world *w, struct sim_answer *a, bool lies)
{
    static const struct str garbage = STR_INIT("\x16\x03\x01 not HTTP at all\r\n\r\n");
    static const struct str moved = STR_INIT("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n");
    static const struct str unasked = STR_INIT("HTTP/1.1 304 Not Modified\r\nETag: \"other\"\r\n\r\n");

    switch (sim_below(w, lies ? 18 : 16)) {
    case 0: a->never = true; break;
    case 1: a->cut = SIM_CUT_BEFORE_HEAD; break;
    case 2: a->cut = SIM_CUT_IN_HEAD, a->cut_at = sim_below(w, 150); break;
    case 3:
    case 4:
    case 5: a->cut = SIM_CUT_IN_BODY, a->cut_at = sim_below(w, a->body_bytes + 1); break;
    case 6: a->status = 500; break;
    case 7: a->status = 503, a->fields = "Retry-After: 1\r\n"; break;
    case 8: a->raw = garbage; break;
    case 9: a->raw = moved; break;
    case 10: a->raw = unasked; break;
    case 11: a->head_pad_bytes = 100000; break;
    case 16: a->length_lie = -(int64_t)sim_below(w, a->body_bytes < 1000 ? a->body_bytes + 1 : 1000); break;
    case 17: a->length_lie = 1 + (int64_t)sim_below(w, 1000); break;
    case 12: a->interim_100 = 1, a->interim_103 = 2; break;
    case 13: a->delay_ns = sim_below(w, 5 * NS_PER_S); break;
    case 14: a->drip_bytes_per_s = 1 + a->body_bytes / (1 + sim_below(w, 8)); break;
    default: a->status = 404; break;
    }
    a->cut_by_close = sim_below(w, 2);
}

static void answer_hook(void *context, const struct sim_origin_request *request, struct sim_answer *a)
{
    struct life *l = context;
    struct sim_world *w = l->bed.w;
    const struct song *s = song_at(l, request->target);

    if (s == NULL) {
        a->status = 404;
        return;
    }
    *a = (struct sim_answer){.version = s->version,
                             .body_bytes = bytes_of(s, s->version),
                             .etag = s->etag,
                             .chunked = s->chunked,
                             .no_ranges = s->no_ranges,
                             .by_close = s->by_close,
                             .fields = s->fields};
    a->close_after = sim_chance(w, 100000);
    if (sim_chance(w, 300000))
        a->delay_ns = sim_below(w, 300 * NS_PER_MS);
    if (sim_chance(w, l->trouble_ppm))
        trouble(w, a, l->lies);
}

static void change_versions(void *context)
{
    struct life *l = context;
    struct song *s = &l->songs[sim_below(l->bed.w, PATHS)];

    s->version++;
    sim_after(l->bed.w, 1 + sim_below(l->bed.w, 4 * NS_PER_S), change_versions, l);
}

static void go_up_and_down(void *context)
{
    struct life *l = context;
    static const enum sim_route routes[] = {SIM_ROUTE_OPEN, SIM_ROUTE_OPEN, SIM_ROUTE_REFUSED, SIM_ROUTE_LOST};

    sim_route(l->bed.w, "127.0.0.1", SIM_ORIGIN_PORT, routes[sim_below(l->bed.w, ARRAY_LEN(routes))]);
    sim_after(l->bed.w, 1 + sim_below(l->bed.w, 5 * NS_PER_S), go_up_and_down, l);
}

/* --- set up --- */

static void make_songs(struct life *l)
{
    static const uint64_t sizes[PATHS] = {0,      1,      4096,   400000, 1048576, 1048577, 3500000,
                                          70000,  20000,  524288, 500000, 500001,  500002,  500003,
                                          300000, 400001, 450000, 480000, 510000,  520000};
    static const char *const fields[] = {"", "", "", "Cache-Control: max-age=2\r\n", "Cache-Control: private\r\n",
                                         "Cache-Control: no-cache\r\n", "Cache-Control: no-store\r\n",
                                         "Vary: Accept-Encoding\r\n", "Cache-Control: max-age=1, stale-while-revalidate=5\r\n"};
    struct sim_world *w = l->bed.w;
    const struct sim_net *net = &l->options.net;
    uint64_t segment_max = net->send_buffer_bytes.min == 1 ? 1 : net->segment_bytes.max;

    for (size_t i = 0; i < PATHS; i++) {
        struct song *s = &l->songs[i];

        *s = (struct song){.bytes = sizes[i], .version = 1, .etag = true, .fields = fields[sim_below(w, ARRAY_LEN(fields))]};
        if (segment_max < 1460 && s->bytes > 20000) /* segments or buffers of a byte would only take long */
            s->bytes = s->bytes % 5000;
        else if (segment_max == 1460 && s->bytes > 1048577)
            s->bytes = 1048577 + 5000;
        if (i >= 9) /* to fill the smallest tier */
            s->fields = i % 2 ? "Cache-Control: max-age=60\r\n" : "";
        s->passed = i == 7 && sim_below(w, 2);
        s->is_signed = i == 8;
        s->grows = sim_below(w, 3) == 0;
        switch (sim_below(w, 8)) {
        case 0: s->chunked = true; break;
        case 1: s->no_ranges = true; break;
        case 2: s->by_close = true; break;
        default: break;
        }
        snprintf(s->path, sizeof s->path, "/%s/%zu", s->passed ? "p" : s->is_signed ? "s" : "o", i);
    }
}

static const char yaml_format[] =
    SIM_YAML_LISTEN SIM_YAML_UPSTREAM
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
    make_songs(l);
    l->lies = seed % 3 == 0;
    l->trouble_ppm = (unsigned)sim_below(w, 3) * 150000;
    l->bed.origin = sim_origin_new(w, "127.0.0.1", SIM_ORIGIN_PORT);
    sim_origin_hook(l->bed.origin, answer_hook, l);
    snprintf(yaml, sizeof yaml, yaml_format, sim_below(w, 2) ? 4u : 12u, sim_below(w, 2) ? 20u : 0u);
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

static void add_range(struct life *l, const struct song *s, struct buf *b)
{
    struct sim_world *w = l->bed.w;
    uint64_t n = s->bytes + 1, first = sim_below(w, n), last = first + sim_below(w, n);

    switch (sim_below(w, 6)) {
    case 0: buf_printf(b, "Range: bytes=%llu-\r\n", (unsigned long long)first); break;
    case 1: buf_printf(b, "Range: bytes=-%llu\r\n", (unsigned long long)sim_below(w, n)); break;
    case 2:
        buf_printf(b, "Range: bytes=%llu-%llu,%llu-%llu\r\n", (unsigned long long)first, (unsigned long long)first + 99,
                   (unsigned long long)last, (unsigned long long)last + 50);
        break;
    case 3: buf_printf(b, "Range: bytes=0-0\r\nIf-Range: \"v%llu\"\r\n", (unsigned long long)s->version); break;
    default: buf_printf(b, "Range: bytes=%llu-%llu\r\n", (unsigned long long)first, (unsigned long long)last); break;
    }
}

static void add_target(struct life *l, const struct song *s, struct wish *wish, struct buf *b)
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

static void ask(struct life *l, struct sim_client *c, struct wish *wish)
{
    struct sim_world *w = l->bed.w;
    const struct song *s = &l->songs[sim_below(w, PATHS)];
    uint64_t kind = sim_below(w, 20), body = 0;
    char raw[1024];
    struct buf b = buf_of(raw, sizeof raw);

    *wish = (struct wish){.song = s, .is_get = true};
    if (kind == 0) {
        wish->health = true;
        send_in_parts(l, c, STR("GET /.segue/health HTTP/1.1\r\nHost: h\r\n\r\n"), false);
        return;
    }
    wish->head_only = kind == 1;
    wish->is_upload = kind == 2 && (s->passed || !s->is_signed);
    wish->is_get = !wish->head_only && !wish->is_upload;
    buf_add_str(&b, wish->head_only ? STR("HEAD ") : wish->is_upload ? STR("POST ") : STR("GET "));
    add_target(l, s, wish, &b);
    buf_add_str(&b, STR(" HTTP/1.1\r\nHost: h\r\n"));
    if (wish->is_upload) {
        body = sim_below(w, 20000);
        buf_printf(&b, "Content-Length: %llu\r\n", (unsigned long long)body);
    } else if (kind < 10) {
        add_range(l, s, &b);
    } else if (kind < 12) {
        buf_printf(&b, "If-None-Match: \"v%llu\"\r\n", (unsigned long long)s->version);
    }
    if (sim_below(w, 4) == 0)
        buf_add_str(&b, STR("Accept-Encoding: gzip\r\n"));
    if (sim_below(w, 20) == 0)
        buf_add_str(&b, STR("Connection: close\r\n"));
    buf_add_str(&b, STR("\r\n"));
    send_in_parts(l, c, buf_str(&b), wish->head_only);
    if (wish->is_upload)
        sim_conn_send_body(sim_client_conn(c), 3, 0, body);
}

static void add_client(void *context)
{
    struct life *l = context;
    struct sim_world *w = l->bed.w;
    struct sim_client_options options = {0};
    unsigned i = l->clients_n++, requests = 1 + (unsigned)sim_below(w, REQUESTS_MAX);
    struct sim_client *c;

    if (sim_below(w, 6) == 0)
        options.read_rate = 20 + sim_between(w, (struct sim_range){0, 2000000});
    if (sim_below(w, 6) == 0) {
        options.abort_at_bytes = 1 + sim_between(w, (struct sim_range){0, 500000});
        options.abort_by_close = sim_below(w, 2);
    }
    c = l->clients[i] = sim_bed_client(&l->bed, &options);
    for (unsigned k = 0; k < requests; k++) {
        ask(l, c, &l->wishes[i][k]);
        if (sim_below(w, 2))
            sim_client_pause(c, sim_below(w, 3 * NS_PER_S));
    }
    if (sim_below(w, 6) == 0)
        sim_conn_end(sim_client_conn(c));
}

/* --- what has to hold --- */

static uint64_t number_after(struct str s, const char *mark)
{
    const char *at = s.n > 0 ? memmem(s.p, s.n, mark, strlen(mark)) : NULL;

    return at == NULL ? UINT64_MAX : strtoull(at + strlen(mark), NULL, 10);
}

static void check_run(const struct life *l, const struct song *s, uint64_t version, uint64_t from, struct str bytes)
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
    if (sscanf(text, "bytes %llu-%llu/%llu", &a, &b, &all) != 3 || a > b || b >= all || (all != total && !l->lies))
        sim_fail(l->bed.w, "Content-Range: %s of %llu bytes", text, (unsigned long long)total);
    *from = a;
    *n = b - a + 1;
}

/* Every part on its own; then the closing boundary. */
static void check_multipart(const struct life *l, const struct song *s, uint64_t version, const struct sim_reply *r)
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
        parse_range(l, sim_head_field(head, "Content-Range"), bytes_of(s, version), &from, &n);
        if (rest.n < n)
            sim_fail(l->bed.w, "multipart: part %u is short", parts);
        check_run(l, s, version, from, str_of(rest.p, n));
        rest = str_skip(rest, n);
    }
}

static void check_body(const struct life *l, const struct wish *wish, const struct sim_reply *r)
{
    const struct song *s = wish->song;
    uint64_t version = number_after(sim_head_field(r->head, "ETag"), "v"), total, from = 0, n;
    struct str type = sim_head_field(r->head, "Content-Type");

    if (version == UINT64_MAX || version == 0 || version > s->version)
        sim_fail(l->bed.w, "%s: no version in:\n" STR_FMT, s->path, STR_ARG(r->head));
    n = total = bytes_of(s, version);
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
        sim_fail(l->bed.w, "%s: Content-Length is %llu of %llu", s->path, (unsigned long long)r->content_length,
                 (unsigned long long)n);
    if (r->body.n > n || (r->complete && r->body.n != n && !wish->head_only && !l->lies))
        sim_fail(l->bed.w, "%s: %zu bytes of %llu, framing %d", s->path, r->body.n, (unsigned long long)n, r->framing);
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

/* A body that ends with its connection may be cut by whoever breaks it, and nobody sees it. An origin that lies
 * about its length below what it has, or cuts such a body, makes what we pass on short, too. */
static bool may_be_cut_unseen(const struct life *l, const struct wish *wish)
{
    return wish->song->by_close && (l->trouble_ppm > 0 || l->fragile);
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
    count_reply(r);
    if (wish->health || wish->is_upload) {
        seen.uploads += wish->is_upload && r->status == 200;
        return;
    }
    if (wish->song->is_signed && wish->bad_signature != (r->status == 403))
        sim_fail(l->bed.w, "%s: a signature is %s and the status %d", wish->song->path,
                 wish->bad_signature ? "bad" : "good", r->status);
    seen.refused_signatures += r->status == 403;
    if ((r->status == 200 || r->status == 206) && !may_be_cut_unseen(l, wish))
        check_body(l, wish, r);
}

static void check_clients(struct life *l)
{
    for (unsigned i = 0; i < l->clients_n; i++) {
        struct sim_client *c = l->clients[i];

        for (size_t k = 0; k < sim_client_asked(c); k++) {
            const struct sim_reply *r = sim_client_reply(c, k);

            seen.broken += r->status != 0 && !r->complete;
            check_reply(l, &l->wishes[i][k], r);
        }
        if (sim_client_surplus(c) > 0)
            sim_fail(l->bed.w, "client %u got %zu bytes too many", i, sim_client_surplus(c));
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
    seen.retries += SIM_PROXY_STAT(l->bed.p, upstream_retries);
}

/* --- one world --- */

static uint64_t run(uint64_t seed)
{
    struct life l = {0};
    unsigned clients;
    uint64_t hash;

    open_life(&l, seed);
    clients = 1 + (unsigned)sim_below(l.bed.w, CLIENTS_MAX);
    for (unsigned i = 0; i < clients; i++)
        sim_after(l.bed.w, sim_below(l.bed.w, 2) ? sim_below(l.bed.w, 8 * NS_PER_S) : 0, add_client, &l);
    sim_bed_run_ms(&l.bed, 8001);
    assert_int_equal(l.clients_n, clients);
    if (seed % 6 == 0) /* in the middle of it all */
        sim_proxy_drain(l.bed.p, seed % 12 == 0);
    sim_bed_run_ms(&l.bed, SLOW_S * 1000);
    for (unsigned i = 0; i < clients; i++) /* what lies in the network of a client that reads 20 bytes a second */
        sim_conn_read_rate(sim_client_conn(l.clients[i]), UINT64_MAX);
    sim_bed_settle_all(&l.bed, l.clients, clients, SETTLE_S);
    check_clients(&l);
    if (seed % 6 != 0)
        check_what_is_kept(&l);
    add_counts(&l);
    for (unsigned i = 0; i < clients; i++)
        sim_client_free(&l.clients[i]);
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
    assert_true(seen.errors > 200 && seen.broken > 100 && seen.hits > 200 && seen.stale > 20 && seen.joined > 50);
    assert_true(seen.slow > 5 && seen.evictions > 50 && seen.passed_through > 50 && seen.refused_signatures > 20);
    assert_true(seen.uploads > 20 && seen.retries > 5);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_worlds)};

    log_set_level((enum log_level)0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
