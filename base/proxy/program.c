#include "proxy/program.h"

#include "node/admin.h"
#include "node/control.h"
#include "node/metrics.h"
#include "node/process.h"
#include "proxy/rate_limit.h"
#include "proxy/request.h"
#include "util/clock.h"
#include "util/log.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#define LOG_CLOSE_WAIT_MS 2000u

/* A worker's; 2 KiB each, touched only when needed. A client that sends ahead of an answer that it does not
 * take holds up to IO_RECV_QUEUE_MAX of them, fewer when they become scarce, and none of the last eighth
 * (let_go_of_buffers in conn.c). */
#define RECEIVE_BUFFERS 16384u

struct life {
    const struct program *program;
    const char *config_path;
    struct proxy proxy;
    struct listener_inheritance inherited;
    struct admin *admin;
    struct metrics *metrics;
    struct control *control;
    struct territory_watch watch;
    pthread_t threads[PROXY_WORKERS_MAX];
    _Atomic unsigned ready_n, failed_n, over_n;
    const void *stats[PROXY_WORKERS_MAX];
};

/* --- worker threads --- */

struct thread_start {
    struct life *life;
    unsigned index;
};

static const struct io_options io_options = {
    .entries = 1024, .receive_buffers = RECEIVE_BUFFERS, .receive_buffer_bytes = 2048};

static void run_worker(struct life *life, struct worker *w)
{
    int error = worker_start(w);

    if (error != 0) {
        atomic_fetch_add(&life->failed_n, 1);
        return; /* the process ends: what the worker holds goes with it */
    }
    if (w->index == 0)
        log_info("io_uring: %s", io_describe(w->io));
    atomic_fetch_add(&life->ready_n, 1);
    while (!worker_is_done(w) && error == 0)
        error = worker_turn(w, 100 * NS_PER_MS);
    while (error == 0 && !worker_stop(w))
        error = worker_turn(w, 10 * NS_PER_MS);
    if (error != 0) {
        log_error("worker %u cannot go on: io_uring: %s", w->index, strerror(-error));
        atomic_fetch_add(&life->failed_n, 1);
        return;
    }
    io_destroy(&w->io);
}

static void *worker_thread(void *argument)
{
    struct thread_start start = *(struct thread_start *)argument;
    struct life *life = start.life;
    struct worker *w = life->proxy.workers[start.index];
    const char *why = NULL;
    char name[16];
    int error;

    free(argument);
    (void)snprintf(name, sizeof name, "worker-%u", start.index);
    (void)pthread_setname_np(pthread_self(), name);
    error = io_create(&w->io, &io_options, &why);
    if (error != 0) {
        log_error("io_uring cannot be used: %s", why);
        atomic_fetch_add(&life->failed_n, 1);
    } else {
        run_worker(life, w);
    }
    atomic_fetch_add(&life->over_n, 1);
    return NULL;
}

static int start_threads(struct life *life)
{
    for (unsigned i = 0; i < life->proxy.workers_n; i++) {
        struct thread_start *start = malloc(sizeof *start);
        int error;

        if (start == NULL)
            return -ENOMEM;
        *start = (struct thread_start){.life = life, .index = i};
        error = pthread_create(&life->threads[i], NULL, worker_thread, start);
        if (error != 0) {
            free(start);
            return -error;
        }
    }
    return 0;
}

/* --- hooks of the control loop --- */

static bool is_ready(void *context)
{
    struct life *life = context;

    if (atomic_load(&life->failed_n) > 0)
        control_drain(life->control);
    return atomic_load(&life->ready_n) == life->proxy.workers_n;
}

static bool is_alive(void *context)
{
    const struct life *life = context;

    return atomic_load(&life->failed_n) == 0;
}

static void admin_options_of(const struct life *life, const struct proxy_conf *conf, struct address *address,
                             struct admin_options *out)
{
    *out = (struct admin_options){.program = life->program->options.name,
                                  .socket_path =
                                      conf->admin.socket_path.n > 0 ? conf->admin.socket_path.p : NULL,
                                  .token = conf->admin.token,
                                  .hosts = conf->admin.hosts,
                                  .hosts_n = conf->admin.hosts_n};
    if (conf->admin.tcp) {
        CHECK(address_of_sockaddr((const struct sockaddr *)&conf->admin.address.addr, address) == 0);
        out->address = address;
    }
}

/* What cannot change while the process runs, because memory or sockets hang on it. */
static void warn_of_what_stays(const struct proxy_conf *old, const struct proxy_conf *now)
{
    bool listeners = old->listen_n != now->listen_n;

    for (unsigned i = 0; i < old->listen_n && !listeners; i++)
        listeners = !str_eq(old->listen[i].address.text, now->listen[i].address.text);
    if (listeners)
        log_warn("listen changed; that needs a restart, and the old addresses stay");
    if (old->memory_bytes != now->memory_bytes)
        log_warn("memory.size changed; that needs a restart, and the old size stays");
    if (old->rate_limit.table_entries != now->rate_limit.table_entries)
        log_warn("rate_limit.table changed; that needs a restart, and the old size stays");
    if (old->workers != now->workers)
        log_warn("workers changed; that needs a restart, and the old number stays");
    if (old->access_log != now->access_log || !str_eq(old->access_log_path, now->access_log_path) ||
        old->access_log_format != now->access_log_format)
        log_warn("access_log changed; that needs a restart, and the old log stays");
}

/* Takes what the configuration was loaded with, or what has taken its place since. */
static void post_territory(struct life *life, struct territory *territory)
{
    for (unsigned i = 0; i < life->proxy.workers_n; i++)
        worker_post_territory(life->proxy.workers[i], territory);
    territory_unref(&life->proxy.territory);
    life->proxy.territory = territory;
}

/* A session that began under one snapshot is resumed under the next, and by any worker. */
static void share_tickets(struct proxy *proxy, const struct proxy_conf *conf)
{
    for (unsigned i = 0; i < conf->listen_n; i++)
        if (conf->listen[i].tls != NULL)
            tls_server_set_tickets(conf->listen[i].tls, proxy->tickets);
}

static int reload(void *context)
{
    struct life *life = context;
    struct conf_error error;
    struct proxy_conf *conf;
    struct admin_options options;
    struct address address;
    struct site *site;
    int result = proxy_conf_load(life->config_path, life->program->role, &conf, &error);

    if (life->proxy.access_log != NULL) /* log rotation asks for it in the same way */
        access_log_reopen(life->proxy.access_log);
    if (result != 0) {
        log_error("reload refused, the old configuration stays: %s", error.text);
        return result;
    }
    if (proxy_conf_holds_secrets(conf))
        process_guard_memory();
    warn_of_what_stays(life->proxy.site->conf, conf);
    share_tickets(&life->proxy, conf);
    site = site_create(&conf);
    if (site == NULL) {
        log_error("reload refused, the old configuration stays: no memory for the new one");
        return -ENOMEM;
    }
    if (life->admin != NULL) {
        admin_options_of(life, site->conf, &address, &options);
        (void)admin_reconfigure(life->admin, &options);
    }
    post_territory(life, TAKE(&site->conf->territory)); /* first: the new rules may ask for countries */
    for (unsigned i = 0; i < life->proxy.workers_n; i++)
        worker_post_site(life->proxy.workers[i], site);
    site_unref(&life->proxy.site);
    life->proxy.site = site;
    log_info("configuration reloaded from %s", life->config_path);
    return 0;
}

static void drain(void *context, bool hurry)
{
    struct life *life = context;

    atomic_store(&life->proxy.draining, true);
    for (unsigned i = 0; i < life->proxy.workers_n; i++)
        worker_post_drain(life->proxy.workers[i], hurry);
}

static bool is_drained(void *context)
{
    const struct life *life = context;

    return atomic_load(&life->over_n) == life->proxy.workers_n;
}

static void tick(void *context, uint64_t now_ns)
{
    struct life *life = context;
    struct territory *replaced =
        territory_look(&life->watch, life->proxy.territory, life->proxy.site->conf->territory_paths);

    (void)now_ns;
    if (replaced != NULL)
        post_territory(life, replaced);
    tls_tickets_tick(life->proxy.tickets, clock_unix_s());
    if (atomic_load(&life->failed_n) > 0 && control_state(life->control) != CONTROL_DRAINING)
        control_drain(life->control);
}

/* --- metrics that are not in a worker's struct --- */

static void cache_metrics(struct metrics_writer *w, void *context)
{
    const struct life *life = context;
    struct memory_stats m;
    struct flight_stats f;

    memory_stats(life->proxy.memory, &m);
    flight_stats(life->proxy.flights, &f);
    metrics_family(w, "cache_objects", METRIC_GAUGE, "Objects kept, by tier.");
    metrics_u64(w, "tier=\"memory\"", m.objects);
    metrics_family(w, "cache_bytes", METRIC_GAUGE,
                   "Bytes in use, by tier; index and fills under way included.");
    metrics_u64(w, "tier=\"memory\"", m.bytes);
    metrics_family(w, "cache_size_bytes", METRIC_GAUGE, "Bytes that may be used, by tier.");
    metrics_u64(w, "tier=\"memory\"", life->proxy.site->conf->memory_bytes);
    metrics_family(w, "cache_detached_bytes", METRIC_GAUGE,
                   "Bytes of fills under way, and of objects that are gone but still being read.");
    metrics_u64(w, NULL, m.detached_bytes);
    metrics_family(w, "cache_lookups_total", METRIC_COUNTER, "Lookups, by tier and result.");
    metrics_u64(w, "tier=\"memory\",result=\"hit\"", m.hits);
    metrics_u64(w, "tier=\"memory\",result=\"miss\"", m.misses);
    metrics_family(w, "cache_insertions_total", METRIC_COUNTER, "Objects put in, by tier.");
    metrics_u64(w, "tier=\"memory\"", m.insertions);
    metrics_family(w, "cache_evictions_total", METRIC_COUNTER, "Objects evicted, by tier.");
    metrics_u64(w, "tier=\"memory\"", m.evictions);
    metrics_family(w, "cache_admissions_total", METRIC_COUNTER,
                   "Objects that went to the main queue at once because they were remembered, by tier.");
    metrics_u64(w, "tier=\"memory\"", m.ghost_hits);
    metrics_family(w, "cache_refused_total", METRIC_COUNTER,
                   "Answers passed through because no room could be made.");
    metrics_u64(w, NULL, m.refused);
    metrics_family(w, "flights", METRIC_GAUGE, "Fills under way.");
    metrics_u64(w, NULL, f.flights);
    metrics_family(w, "flight_readers", METRIC_GAUGE, "Requests that read from a fill under way.");
    metrics_u64(w, NULL, f.readers);
    metrics_family(w, "flight_joins_total", METRIC_COUNTER, "Requests that joined a fill under way.");
    metrics_u64(w, NULL, f.joined_total);
}

static void place_metrics(struct metrics_writer *w, void *context)
{
    const struct life *life = context;

    territory_metrics(w, life->proxy.territory, &life->watch);
}

static void tls_metrics(struct metrics_writer *w, void *context)
{
    const struct life *life = context;
    const struct proxy_conf *conf = life->proxy.site->conf;
    int64_t soonest_unix_s = INT64_MAX;

    for (unsigned i = 0; i < conf->listen_n; i++)
        if (conf->listen[i].tls != NULL && tls_server_expiry_unix_s(conf->listen[i].tls) < soonest_unix_s)
            soonest_unix_s = tls_server_expiry_unix_s(conf->listen[i].tls);
    if (soonest_unix_s == INT64_MAX)
        return;
    metrics_family(w, "tls_certificate_expiry_timestamp_seconds", METRIC_GAUGE,
                   "Unix time at which the first of the listeners' certificates expires.");
    metrics_u64(w, NULL, soonest_unix_s > 0 ? (uint64_t)soonest_unix_s : 0);
}

/* --- what the cache holds for a URL --- */

static void object_reply(const struct object *o, struct str url, struct grow *out)
{
    uint64_t now_s = clock_unix_s(), age_s = object_age_s(o, now_s);

    grow_add_lit(out, "{\"url\": ");
    grow_add_json(out, url);
    grow_printf(out, ", \"state\": \"%s\", \"tier\": \"memory\", \"status\": %u",
                age_s < o->lifetime_s ? "fresh" : "stale", o->status);
    grow_printf(out, ", \"hits\": %u", atomic_load_explicit(&o->hits, memory_order_relaxed));
    grow_printf(out, ", \"size\": %llu, \"age\": %llu, \"ttl\": %lld, \"tags\": ",
                (unsigned long long)object_total_bytes(o), (unsigned long long)age_s,
                (long long)o->lifetime_s - (long long)age_s);
    grow_add_json(out, object_tags(o));
    grow_add_lit(out, "}\n");
}

static void get_object(const struct admin_request *request, struct admin_reply *reply, void *context)
{
    const struct life *life = context;
    char url[8192], canonical[8192], query[3 * 8192], text[4 * 8192];
    struct buf b = buf_of(url, sizeof url), kept = buf_of(query, sizeof query),
               key_text = buf_of(text, sizeof text);
    struct url_target target;
    struct str path;
    struct cache_key key;
    const struct variant_select newest = {.hash = NULL};
    struct object *o;
    const struct rule *rule;

    if (admin_query(request, STR("url"), &b) != 0) {
        admin_problem(reply, 400, "say which: /object?url=/path");
        return;
    }
    target = url_target_split(buf_str(&b));
    if (target.path.n > sizeof canonical || url_path_canonical(target.path, canonical, &path) != 0) {
        admin_problem(reply, 400, "this path cannot be requested");
        return;
    }
    rule = rules_find(&life->proxy.site->conf->rules, path);
    if (request_key(rule, path, target.query, &kept, &key_text, &key) != 0) {
        admin_problem(reply, 414, "this URL is too long");
        return;
    }
    o = memory_lookup(life->proxy.memory, &key, 0, &newest);
    if (o == NULL) {
        admin_problem(reply, 404, "nothing is kept for this URL");
        return;
    }
    object_reply(o, buf_str(&b), &reply->body);
    object_unref(life->proxy.memory, &o);
}

/* --- set up and take down --- */

static unsigned cpus_n(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    return (unsigned)CPU_COUNT(&set);
}

static void make_instance(struct proxy *proxy)
{
    struct hash128 h = hash_of(STR("instance")); /* the hash's secret is this process's own */

    (void)snprintf(proxy->instance, sizeof proxy->instance, "%016llx", (unsigned long long)h.low);
}

static int open_access_log(struct proxy *proxy)
{
    const struct proxy_conf *conf = proxy->site->conf;
    const struct access_log_options options = {
        .path = conf->access_log_path.p,
        .format = conf->access_log_format == PROXY_LOG_JSON ? ACCESS_LOG_JSON : ACCESS_LOG_COMBINED,
        .workers = proxy->workers_n,
    };
    int error;

    if (!conf->access_log)
        return 0;
    error = access_log_open(&proxy->access_log, &options);
    if (error != 0)
        log_error("the access log %s cannot be opened: %s", options.path, strerror(-error));
    return error;
}

static int create_shared(struct proxy *proxy)
{
    const struct memory_config memory = {.size_bytes = proxy->site->conf->memory_bytes};
    struct flight_worker flights[PROXY_WORKERS_MAX];

    proxy->tickets = tls_tickets_create();
    if (proxy->tickets == NULL) {
        log_error("no keys for TLS sessions can be made");
        return -ENOMEM;
    }
    share_tickets(proxy, proxy->site->conf);
    proxy->memory = memory_new(&memory);
    if (proxy->memory == NULL) {
        log_error("memory.size: no cache of %llu bytes can be made", (unsigned long long)memory.size_bytes);
        return -ENOMEM;
    }
    proxy->rate_limits = rate_limits_create(proxy->site->conf);
    if (proxy->rate_limits == NULL) {
        log_error("rate_limit.table: no table of %u entries can be made",
                  proxy->site->conf->rate_limit.table_entries);
        return -ENOMEM;
    }
    for (unsigned i = 0; i < proxy->workers_n; i++) {
        int error = worker_create(&proxy->workers[i], proxy, i);

        if (error != 0) {
            log_error("worker %u cannot be made: %s", i, strerror(-error));
            return error;
        }
        flights[i] = (struct flight_worker){.mailbox = &proxy->workers[i]->mailbox};
    }
    proxy->flights = flight_table_create(proxy->memory, flights, proxy->workers_n);
    return proxy->flights == NULL ? -ENOMEM : 0;
}

static int open_admin(struct life *life)
{
    struct admin_options options;
    struct address address;
    const char *why = NULL;
    int error;

    admin_options_of(life, life->proxy.site->conf, &address, &options);
    if (options.socket_path == NULL && options.address == NULL)
        return 0;
    error = admin_open(&life->admin, &options, &why);
    if (error != 0) {
        log_error("admin: %s: %s", why, strerror(-error));
        return error;
    }
    admin_route(life->admin, "GET", "/object", 0, get_object, life);
    return 0;
}

static int create_metrics(struct life *life)
{
    life->metrics = metrics_create(life->program->options.name);
    if (life->metrics == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < life->proxy.workers_n; i++)
        life->stats[i] = &life->proxy.workers[i]->stats;
    metrics_add_table(life->metrics, proxy_stats_table, proxy_stats_table_n, life->stats,
                      life->proxy.workers_n);
    metrics_add_source(life->metrics, cache_metrics, life);
    metrics_add_source(life->metrics, place_metrics, life);
    metrics_add_source(life->metrics, tls_metrics, life);
    if (life->proxy.access_log != NULL)
        metrics_add_source(life->metrics, access_log_metrics, life->proxy.access_log);
    return 0;
}

static int create_control(struct life *life)
{
    const struct control_options options = {
        .hooks = {.ready = is_ready,
                  .alive = is_alive,
                  .reload = reload,
                  .drain = drain,
                  .drained = is_drained,
                  .tick = tick},
        .context = life,
        .admin = life->admin,
        .metrics = life->metrics,
        .drain_ms = life->proxy.site->conf->timeouts.drain_ms,
    };

    return control_create(&life->control, &options);
}

static int probe_listeners(const struct life *life)
{
    const struct proxy_conf *conf = life->proxy.site->conf;

    if (life->inherited.n > 0)
        return 0;
    for (unsigned i = 0; i < conf->listen_n; i++) {
        struct address address;
        int error;

        CHECK(address_of_sockaddr((const struct sockaddr *)&conf->listen[i].address.addr, &address) == 0);
        error = listener_probe(&address);
        if (error != 0) {
            log_error("cannot listen on " STR_FMT ": %s", STR_ARG(conf->listen[i].address.text),
                      strerror(-error));
            return error;
        }
    }
    return 0;
}

/* Everything that only one process can have, before the threads. */
static int begin(struct life *life)
{
    int error = probe_listeners(life);

    if (error == 0)
        error = open_access_log(&life->proxy);
    if (error == 0)
        error = create_shared(&life->proxy);
    if (error == 0)
        error = open_admin(life);
    if (error == 0)
        error = create_metrics(life);
    if (error == 0)
        error = create_control(life);
    if (error == 0)
        error = start_threads(life);
    return error;
}

static void end(struct life *life)
{
    struct proxy *proxy = &life->proxy;

    for (unsigned i = 0; i < proxy->workers_n; i++)
        (void)pthread_join(life->threads[i], NULL);
    if (proxy->access_log != NULL)
        access_log_close(&proxy->access_log, LOG_CLOSE_WAIT_MS);
    control_destroy(&life->control);
    metrics_destroy(&life->metrics);
    if (life->admin != NULL)
        admin_close(&life->admin);
    for (unsigned i = 0; i < proxy->workers_n; i++)
        worker_destroy(&proxy->workers[i]);
    flight_table_destroy(&proxy->flights);
    memory_free(&proxy->memory);
    rate_limits_destroy(&proxy->rate_limits);
    site_unref(&proxy->site);
    territory_unref(&proxy->territory);
    tls_tickets_destroy(&proxy->tickets); /* no context is left that uses them */
}

static int live(struct life *life)
{
    struct proxy *proxy = &life->proxy;
    const struct proxy_conf *conf = proxy->site->conf;

    if (proxy_conf_holds_secrets(conf))
        process_guard_memory();
    (void)process_raise_files();
    hash_init_random();
    make_instance(proxy);
    proxy->role = life->program->role;
    proxy->workers_n = conf->workers > 0 ? conf->workers : cpus_n();
    if (proxy->workers_n > PROXY_WORKERS_MAX)
        proxy->workers_n = PROXY_WORKERS_MAX;
    if (listener_inherit_systemd(&life->inherited) < 0)
        log_warn("the sockets that systemd passed cannot be used");
    proxy->inherited = &life->inherited;
    if (begin(life) != 0)
        return 1;
    log_info("%s: %u workers, %llu MiB of memory cache", life->program->options.name, proxy->workers_n,
             (unsigned long long)(conf->memory_bytes >> 20));
    for (unsigned i = 0; i < proxy->site->conf->listen_n; i++) {
        const struct proxy_listen *listen = &proxy->site->conf->listen[i];

        log_info("listening on " STR_FMT "%s%s%s", STR_ARG(listen->address.text),
                 listen->tls != NULL ? ", TLS" : "", listen->http2 ? ", HTTP/2" : "",
                 listen->proxy_protocol_n > 0 ? ", PROXY protocol" : "");
    }
    /* Exit without taking down what a stuck or failed worker may still hold. */
    if (control_run(life->control) != 0 || atomic_load(&life->failed_n) > 0)
        return 1;
    end(life);
    return 0;
}

int program_run(const struct program *program, int argc, char **argv)
{
    static struct life life; /* large, and there is one */
    struct options options;
    struct conf_error error;
    struct proxy_conf *conf;
    int status = options_parse(argc, argv, &program->options, &options);

    if (status >= 0)
        return status;
    if (proxy_conf_load(options.config_path, program->role, &conf, &error) != 0) {
        (void)fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    if (options.check_only) {
        proxy_conf_free(&conf);
        return 0;
    }
    control_block_signals();
    life.program = program;
    life.config_path = options.config_path;
    life.proxy.territory = TAKE(&conf->territory);
    life.proxy.site = site_create(&conf);
    if (life.proxy.site == NULL)
        return 1;
    return live(&life);
}
