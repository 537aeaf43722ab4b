/* The proxy in a simulated world: what program.c sets up around base/proxy, without threads, signals and admin,
 * and an origin above it. Everything is taken down by its owner's *_close, which checks that nothing is left: no
 * descriptor, operation, connection, request, fill, flight, upstream connection, or byte outside the cache. */
#pragma once

#include "proxy/worker.h"
#include "sim_h2.h"
#include "sim_http.h"
#include "util/clock.h"

#define SIM_PROXY_PORT  8080
#define SIM_ORIGIN_PORT 8081
#define SIM_TLS_PORT    8443

/* What most configurations begin with. `keys.yaml` lies beside every one, and cert.pem, key.pem, ca.pem of sim_tls.h. */
#define SIM_YAML_LISTEN     "listen: [{address: \"127.0.0.1:8080\"}]\n"
#define SIM_YAML_LISTEN_ALL /* and HTTP/2 on both */                                                         \
    "listen: [{address: \"127.0.0.1:8080\", http2: true}, "                                                  \
    "{address: \"127.0.0.1:8443\", http2: true, tls: {certificate: cert.pem, key: key.pem}}]\n"
#define SIM_YAML_UPSTREAM_TLS "upstreams: [{url: \"https://127.0.0.1:8081\", tls: {ca: ca.pem}}]\n"
#define SIM_YAML_UPSTREAM     "upstreams: [{url: \"http://127.0.0.1:8081\"}]\n"
#define SIM_YAML_MEMORY       "memory: {size: 64MiB}\n"
#define SIM_YAML              SIM_YAML_LISTEN SIM_YAML_UPSTREAM SIM_YAML_MEMORY

struct sim_proxy_options {
    enum proxy_role role;
    unsigned workers;                               /* 0: 1 */
    unsigned receive_buffers, receive_buffer_bytes; /* 0: 256 of 4096 */
    const char *yaml;
};

struct sim_proxy {
    struct sim_world *w;
    struct proxy proxy;
    bool stopped[PROXY_WORKERS_MAX];
    bool draining;
    char folder[64];
};

struct sim_proxy *sim_proxy_open(struct sim_world *w, const struct sim_proxy_options *options);

/* As SIGHUP and SIGTERM do it. */
void sim_proxy_reload(struct sim_proxy *p, const char *yaml);
void sim_proxy_drain(struct sim_proxy *p, bool hurry);

/* For sim_run: everything is over; takes workers down that are done. */
bool sim_proxy_is_over(void *proxy);

/* Drains, unless that has been done, and checks. At most so long may it take. */
void sim_proxy_close(struct sim_proxy **p, uint64_t for_ns);

/* To standard error, before one fails. */
void sim_proxy_say_what_is_left(const struct sim_proxy *p);

/* A counter of struct proxy_stats, over all workers. */
#define SIM_PROXY_STAT(p, field) sim_proxy_stat(p, offsetof(struct proxy_stats, field))
uint64_t sim_proxy_stat(const struct sim_proxy *p, size_t offset);

/* path?exp=...&kid=...&sig=... with the key of keys.yaml. */
void sim_proxy_sign(const struct sim_proxy *p, const char *path, int64_t lifetime_s, char *out, size_t cap);

/* --- a world, an origin at SIM_ORIGIN_PORT, and a proxy --- */

struct sim_bed {
    struct sim_world *w;
    struct sim_origin *origin;
    struct sim_proxy *p;
};

struct sim_bed sim_bed_open(const struct sim_options *options, unsigned workers, const char *yaml);
/* No chance in it: what happens at a moment happens at that moment. */
struct sim_bed sim_bed_open_exact(uint64_t seed, unsigned workers, const char *yaml);
void sim_bed_close(struct sim_bed *bed);

/* A client of the proxy; with options.tls of its TLS listener. */
struct sim_client *sim_bed_client(struct sim_bed *bed, const struct sim_client_options *options);

struct sim_h2 *sim_bed_h2(struct sim_bed *bed, const struct sim_h2_options *options);

/* Runs until it is settled, and fails after so many virtual seconds. */
void sim_bed_settle(struct sim_bed *bed, struct sim_client *c, uint64_t for_s);

/* Runs until all are settled, and fails after so many virtual seconds. */
void sim_bed_settle_all(struct sim_bed *bed, struct sim_client **clients, size_t n, uint64_t for_s);

/* Runs for so long. */
void sim_bed_run_ms(struct sim_bed *bed, uint64_t ms);

uint64_t sim_bed_ms_since(const struct sim_bed *bed, uint64_t began_ns);

/* At the moment, or at most 20 ms later: a tick of the wheel, and the way. */
#define assert_at_ms(ms, want) assert_in_range(ms, want, (want) + 20)

/* One GET on a connection of its own, until its end; `fields` as sim_client_get. The caller frees the client. */
struct sim_client *sim_bed_get(struct sim_bed *bed, const char *target, const char *fields);

/* Ends the process, saying what came instead, unless the only or given reply is as wanted. */
void sim_bed_want(struct sim_bed *bed, struct sim_client *c, size_t reply, int status);
/* ... a 200 with exactly the body of the path's version. */
void sim_bed_want_body(struct sim_bed *bed, struct sim_client *c, size_t reply, const char *path,
                       uint64_t version, uint64_t bytes);

/* The same of HTTP/2. Nothing may be wrong with the connection either. */
void sim_bed_settle_h2(struct sim_bed *bed, struct sim_h2 *c, uint64_t for_s);
void sim_bed_want_h2(struct sim_bed *bed, struct sim_h2 *c, size_t i, int status);
void sim_bed_want_h2_body(struct sim_bed *bed, struct sim_h2 *c, size_t i, const char *path, uint64_t version,
                          uint64_t bytes);
