#include "sim_proxy.h"

#include "proxy/conn.h"
#include "proxy/fill.h"
#include "proxy/rate_limit.h"
#include "proxy/request.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char keys_yaml[] = "keys: [{kid: k1, secret: c2ltdWxhdGlvbiBzZWNyZXQgb2YgMzIgYnl0ZXMhISE=}]\n";

/* --- configuration --- */

static void write_file(const struct sim_proxy *p, const char *name, const char *text)
{
    char path[128];
    int fd;

    snprintf(path, sizeof path, "%s/%s", p->folder, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

static struct site *load(const struct sim_proxy *p, const char *yaml)
{
    struct proxy_conf *conf = NULL;
    struct conf_error error;
    struct site *site;
    char path[128];

    write_file(p, "proxy.yaml", yaml);
    snprintf(path, sizeof path, "%s/proxy.yaml", p->folder);
    if (proxy_conf_load(path, p->proxy.role, &conf, &error) != 0)
        sim_fail(p->w, "%s", error.text);
    for (unsigned i = 0; i < conf->listen_n; i++)
        if (conf->listen[i].tls != NULL)
            tls_server_set_tickets(conf->listen[i].tls, p->proxy.tickets);
    site = site_create(&conf);
    CHECK(site != NULL);
    return site;
}

static void make_folder(struct sim_proxy *p)
{
    const char *tmp = getenv("TMPDIR");

    snprintf(p->folder, sizeof p->folder, "%.40s/segue-sim-XXXXXX", tmp != NULL ? tmp : "/tmp");
    CHECK(mkdtemp(p->folder) != NULL);
    write_file(p, "keys.yaml", keys_yaml);
    write_file(p, "cert.pem", sim_pem(SIM_PEM_CERTIFICATE));
    write_file(p, "key.pem", sim_pem(SIM_PEM_KEY));
    write_file(p, "ca.pem", sim_pem(SIM_PEM_CA));
}

static void remove_folder(const struct sim_proxy *p)
{
    static const char *const names[] = {"keys.yaml", "proxy.yaml", "cert.pem", "key.pem", "ca.pem"};
    char path[128];

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        snprintf(path, sizeof path, "%s/%s", p->folder, names[i]);
        unlink(path);
    }
    rmdir(p->folder);
}

/* --- set up --- */

static void turn(void *context)
{
    struct worker *w = context;

    CHECK(worker_turn(w, UINT64_MAX) == 0);
}

static void create_workers(struct sim_proxy *p)
{
    struct flight_worker flights[PROXY_WORKERS_MAX];
    struct proxy *proxy = &p->proxy;

    proxy->rate_limits = rate_limits_create(proxy->site->conf);
    CHECK(proxy->rate_limits != NULL);
    for (unsigned i = 0; i < proxy->workers_n; i++) {
        CHECK(worker_create(&proxy->workers[i], proxy, i) == 0);
        flights[i] = (struct flight_worker){.mailbox = &proxy->workers[i]->mailbox};
    }
    proxy->flights = flight_table_create(proxy->memory, flights, proxy->workers_n);
    CHECK(proxy->flights != NULL);
}

static void start_workers(struct sim_proxy *p, const struct sim_proxy_options *options)
{
    const struct io_options io = {
        .entries = 1024,
        .receive_buffers = options->receive_buffers > 0 ? options->receive_buffers : 256,
        .receive_buffer_bytes = options->receive_buffer_bytes > 0 ? options->receive_buffer_bytes : 4096,
    };

    for (unsigned i = 0; i < p->proxy.workers_n; i++) {
        struct worker *w = p->proxy.workers[i];
        const char *why = NULL;

        CHECK(io_create(&w->io, &io, &why) == 0);
        sim_worker(p->w, w->io, turn, w);
        CHECK(worker_start(w) == 0);
    }
}

struct sim_proxy *sim_proxy_open(struct sim_world *w, const struct sim_proxy_options *options)
{
    struct sim_proxy *p = calloc(1, sizeof *p);

    CHECK(p != NULL);
    p->w = w;
    hash_init_fixed(sim_seed(w));
    make_folder(p);
    p->proxy.role = options->role;
    p->proxy.workers_n = options->workers > 0 ? options->workers : 1;
    p->proxy.tickets = tls_tickets_create();
    CHECK(p->proxy.tickets != NULL);
    p->proxy.site = load(p, options->yaml);
    snprintf(p->proxy.instance, sizeof p->proxy.instance, "%016llx", (unsigned long long)sim_seed(w));
    p->proxy.memory = memory_new(&(struct memory_config){.size_bytes = p->proxy.site->conf->memory_bytes});
    CHECK(p->proxy.memory != NULL);
    create_workers(p);
    start_workers(p, options);
    return p;
}

/* --- life --- */

void sim_proxy_reload(struct sim_proxy *p, const char *yaml)
{
    struct site *site = load(p, yaml);

    for (unsigned i = 0; i < p->proxy.workers_n; i++)
        worker_post_site(p->proxy.workers[i], site);
    site_unref(&p->proxy.site);
    p->proxy.site = site;
}

void sim_proxy_drain(struct sim_proxy *p, bool hurry)
{
    p->draining = true;
    atomic_store(&p->proxy.draining, true);
    for (unsigned i = 0; i < p->proxy.workers_n; i++)
        if (!p->stopped[i])
            worker_post_drain(p->proxy.workers[i], hurry);
}

bool sim_proxy_is_over(void *proxy)
{
    struct sim_proxy *p = proxy;
    bool over = true;

    for (unsigned i = 0; i < p->proxy.workers_n; i++) {
        struct worker *w = p->proxy.workers[i];

        if (!p->stopped[i] && worker_is_done(w) && worker_stop(w)) {
            p->stopped[i] = true;
            io_destroy(&w->io);
        }
        over = over && p->stopped[i];
    }
    return over;
}

void sim_proxy_say_what_is_left(const struct sim_proxy *p)
{
    for (unsigned i = 0; i < p->proxy.workers_n; i++) {
        const struct worker *w = p->proxy.workers[i];

        fprintf(stderr,
                "worker %u: stopped %d, connections %zu (gauge %llu, active %llu, HTTP/2 %llu, handshaking "
                "%llu), "
                "requests %zu (HTTP/2: gauge %llu), streams %zu, slabs %zu, fills %zu, upstream %llu\n",
                i, p->stopped[i], w->conns.in_use, (unsigned long long)w->stats.connections_open,
                (unsigned long long)w->stats.connections_active,
                (unsigned long long)w->stats.http2_connections_open,
                (unsigned long long)w->stats.tls.handshaking, w->requests.in_use,
                (unsigned long long)w->stats.http2_requests, w->http2_streams.in_use, w->http2_slabs.in_use,
                w->fills.in_use, (unsigned long long)w->stats.upstream_open);
        LIST_EACH (&w->conn_list, node) {
            const struct conn *c = LIST_ENTRY(node, struct conn, node);

            fprintf(stderr, "  connection at %s", c->flow.type->step_names[c->flow.step]);
            if (c->request != NULL)
                fprintf(stderr, ", request at %s", c->request->flow.type->step_names[c->request->flow.step]);
            fputc('\n', stderr);
        }
    }
}

static void check_empty(const struct sim_proxy *p)
{
    struct memory_stats memory;
    struct flight_stats flights;

    for (unsigned i = 0; i < p->proxy.workers_n; i++) {
        const struct worker *w = p->proxy.workers[i];

        if (w->conns.in_use + w->requests.in_use + w->fills.in_use > 0 || w->stats.upstream_open > 0 ||
            w->stats.connections_open > 0 || w->stats.connections_active > 0 ||
            w->http2_streams.in_use + w->http2_slabs.in_use > 0 || w->stats.http2_connections_open > 0 ||
            w->stats.http2_requests > 0 || w->stats.tls.handshaking > 0) {
            sim_proxy_say_what_is_left(p);
            sim_fail(p->w, "worker %u is stopped, and something is left", i);
        }
    }
    if (address_count_sum(p->proxy.rate_limits->connections) > 0)
        sim_fail(p->w, "all connections are over, and some are still counted to an address");
    for (unsigned i = 0; i < p->proxy.workers_n; i++)
        worker_destroy(&((struct sim_proxy *)(uintptr_t)p)->proxy.workers[i]);
    flight_stats(p->proxy.flights, &flights);
    if (flights.flights > 0 || flights.readers > 0)
        sim_fail(p->w, "%llu flights and %llu readers are left", (unsigned long long)flights.flights,
                 (unsigned long long)flights.readers);
    memory_stats(p->proxy.memory, &memory);
    if (memory.detached_bytes > 0)
        sim_fail(p->w, "%llu bytes of the memory tier are held by nobody",
                 (unsigned long long)memory.detached_bytes);
    if (atomic_load(&p->proxy.site->refs) != 1)
        sim_fail(p->w, "the configuration is held %u times", atomic_load(&p->proxy.site->refs));
}

void sim_proxy_close(struct sim_proxy **pp, uint64_t for_ns)
{
    struct sim_proxy *p = TAKE(pp);

    if (!p->draining)
        sim_proxy_drain(p, false);
    if (!sim_run(p->w, sim_proxy_is_over, p, for_ns)) {
        sim_proxy_say_what_is_left(p);
        sim_fail(p->w, "the proxy does not end");
    }
    sim_check_clean(p->w);
    check_empty(p);
    flight_table_destroy(&p->proxy.flights);
    rate_limits_destroy(&p->proxy.rate_limits);
    memory_free(&p->proxy.memory);
    site_unref(&p->proxy.site);
    tls_tickets_destroy(&p->proxy.tickets);
    remove_folder(p);
    free(p);
}

uint64_t sim_proxy_stat(const struct sim_proxy *p, size_t offset)
{
    uint64_t sum = 0, one;

    for (unsigned i = 0; i < p->proxy.workers_n; i++) {
        memcpy(&one, (const char *)&p->proxy.workers[i]->stats + offset, sizeof one);
        sum += one;
    }
    return sum;
}

void sim_proxy_sign(const struct sim_proxy *p, const char *path, int64_t lifetime_s, char *out, size_t cap)
{
    struct signed_url_grant grant = {.exp_s = (uint64_t)((int64_t)sim_unix_s(p->w) + lifetime_s)};
    struct buf b = buf_of(out, cap - 1);

    CHECK(signed_url_sign_query(p->proxy.site->conf->signing.keys, &grant, str_z(path), STR_NONE, &b) == 0);
    out[b.n] = '\0';
}

/* --- beds --- */

struct sim_bed sim_bed_open(const struct sim_options *options, unsigned workers, const char *yaml)
{
    struct sim_bed bed = {.w = sim_create(options)};

    bed.origin = sim_origin_new(bed.w, "127.0.0.1", SIM_ORIGIN_PORT);
    bed.p = sim_proxy_open(bed.w, &(struct sim_proxy_options){.workers = workers, .yaml = yaml});
    return bed;
}

struct sim_bed sim_bed_open_exact(uint64_t seed, unsigned workers, const char *yaml)
{
    struct sim_options options = sim_options_calm(seed);

    options.net.latency_ns = (struct sim_range){100 * NS_PER_US, 100 * NS_PER_US};
    options.net.send_buffer_bytes = options.net.receive_buffer_bytes = (struct sim_range){65536, 65536};
    options.net.segment_bytes = (struct sim_range){1460, 1460};
    return sim_bed_open(&options, workers, yaml);
}

uint64_t sim_bed_ms_since(const struct sim_bed *bed, uint64_t began_ns)
{
    return (sim_now_ns(bed->w) - began_ns) / NS_PER_MS;
}

void sim_bed_close(struct sim_bed *bed)
{
    sim_proxy_close(&bed->p, 300 * NS_PER_S);
    sim_origin_free(&bed->origin);
    sim_destroy(&bed->w);
}

struct sim_client *sim_bed_client(struct sim_bed *bed, const struct sim_client_options *options)
{
    bool tls = options != NULL && options->tls != NULL;

    return sim_client_new(bed->w, "127.0.0.1", tls ? SIM_TLS_PORT : SIM_PROXY_PORT, options);
}

struct sim_h2 *sim_bed_h2(struct sim_bed *bed, const struct sim_h2_options *options)
{
    bool tls = options != NULL && options->tls != NULL;

    return sim_h2_new(bed->w, "127.0.0.1", tls ? SIM_TLS_PORT : SIM_PROXY_PORT, options);
}

void sim_bed_settle(struct sim_bed *bed, struct sim_client *c, uint64_t for_s)
{
    if (!sim_run(bed->w, sim_client_settled, c, for_s * NS_PER_S)) {
        sim_proxy_say_what_is_left(bed->p);
        sim_fail(bed->w, "a client is not answered");
    }
}

struct all {
    struct sim_client **clients;
    size_t n, at; /* those before it are settled, and stay so */
};

static bool all_settled(void *context)
{
    struct all *all = context;

    while (all->at < all->n && sim_client_settled(all->clients[all->at]))
        all->at++;
    return all->at == all->n;
}

void sim_bed_settle_all(struct sim_bed *bed, struct sim_client **clients, size_t n, uint64_t for_s)
{
    struct all all = {.clients = clients, .n = n};

    if (!sim_run(bed->w, all_settled, &all, for_s * NS_PER_S)) {
        sim_proxy_say_what_is_left(bed->p);
        sim_fail(bed->w, "client %zu is not answered", all.at);
    }
}

void sim_bed_run_ms(struct sim_bed *bed, uint64_t ms)
{
    (void)sim_run(bed->w, NULL, NULL, ms * NS_PER_MS);
}

struct sim_client *sim_bed_get(struct sim_bed *bed, const char *target, const char *fields)
{
    struct sim_client *c = sim_bed_client(bed, NULL);

    sim_client_get(c, target, fields);
    sim_bed_settle(bed, c, 300);
    return c;
}

static void want(const struct sim_bed *bed, const struct sim_reply *r, size_t i, int status)
{
    if (r->malformed || !r->complete || r->status != status)
        sim_fail(bed->w,
                 "reply %zu: wanted %d, got %d, complete %d, malformed %d (%s), %zu bytes of body:\n" STR_FMT,
                 i, status, r->status, r->complete, r->malformed, r->why != NULL ? r->why : "", r->body.n,
                 STR_ARG(r->head));
}

static void want_body(const struct sim_bed *bed, const struct sim_reply *r, size_t i, const char *path,
                      uint64_t version, uint64_t bytes)
{
    uint64_t id = sim_body_id(str_z(path), version);

    want(bed, r, i, 200);
    if (r->body.n != bytes || sim_body_differs(id, 0, r->body.p, r->body.n) != r->body.n)
        sim_fail(bed->w, "reply %zu: %zu bytes of %llu, the first %zu right", i, r->body.n,
                 (unsigned long long)bytes, sim_body_differs(id, 0, r->body.p, r->body.n));
}

void sim_bed_want(struct sim_bed *bed, struct sim_client *c, size_t i, int status)
{
    want(bed, sim_client_reply(c, i), i, status);
}

void sim_bed_want_body(struct sim_bed *bed, struct sim_client *c, size_t i, const char *path,
                       uint64_t version, uint64_t bytes)
{
    want_body(bed, sim_client_reply(c, i), i, path, version, bytes);
}

void sim_bed_settle_h2(struct sim_bed *bed, struct sim_h2 *c, uint64_t for_s)
{
    if (!sim_run(bed->w, sim_h2_settled, c, for_s * NS_PER_S)) {
        sim_proxy_say_what_is_left(bed->p);
        sim_fail(bed->w, "a client of HTTP/2 is not answered");
    }
    if (sim_h2_broken(c) != NULL)
        sim_fail(bed->w, "HTTP/2: %s", sim_h2_broken(c));
}

void sim_bed_want_h2(struct sim_bed *bed, struct sim_h2 *c, size_t i, int status)
{
    want(bed, sim_h2_reply(c, i), i, status);
}

void sim_bed_want_h2_body(struct sim_bed *bed, struct sim_h2 *c, size_t i, const char *path, uint64_t version,
                          uint64_t bytes)
{
    want_body(bed, sim_h2_reply(c, i), i, path, version, bytes);
}
