#include "proxy/proxy_conf.h"

#include "cache/memory.h"
#include "proxy/proxy_conf_raw.h"
#include "util/address_count.h"
#include "util/check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/un.h>

#define TOKEN_BYTES_MAX 512
#define NAME_BYTES_MAX  64
#define HOUR_MS         (3600 * 1000ull)
#define GIB             (1024ull * 1024 * 1024)

/* ---- What all parts use ---- */

struct str load_path(struct loader *l, const char *path)
{
    struct str p = str_z(path);
    if (path[0] == '/' || l->folder.n == 0)
        return arena_str(l->a, p);
    char *joined = arena_alloc(l->a, l->folder.n + p.n + 1);
    memcpy(joined, l->folder.p, l->folder.n);
    memcpy(joined + l->folder.n, p.p, p.n);
    return str_of(joined, l->folder.n + p.n);
}

struct str load_lower(struct loader *l, struct str s)
{
    char *lower = arena_alloc(l->a, s.n + 1);
    for (size_t i = 0; i < s.n; i++)
        lower[i] = (char)(s.p[i] >= 'A' && s.p[i] <= 'Z' ? s.p[i] + 32 : s.p[i]);
    return str_of(lower, s.n);
}

struct str load_token(struct loader *l, const char *key, const char *path)
{
    char token[TOKEN_BYTES_MAX];
    size_t n = 0;
    struct conf_error error;
    struct str result = STR("");
    if (conf_read_token(load_path(l, path).p, token, sizeof(token), &n, &error) < 0)
        conf_fail(l->conf, key, "%s", error.text);
    else
        result = arena_str(l->a, str_of(token, n));
    explicit_bzero(token, sizeof(token));
    l->out->has_tokens = true;
    return result;
}

/* ---- Addresses and names ---- */

static bool is_loopback(const struct ip *a)
{
    static const struct ip v6 = {{[15] = 1}};
    return ip_is_ipv4(a) ? a->bytes[12] == 127 : ip_eq(a, &v6);
}

static void load_address(struct loader *l, const char *path, const char *text, struct proxy_address *out)
{
    struct url_host host;
    struct ip a;
    if (url_host_parse(str_z(text), &host) < 0 || host.port == 0 || ip_parse(host.name, &a) < 0) {
        conf_fail(l->conf, path,
                  "expected an address and a port such as 127.0.0.1:8080 or [::1]:8080, got \"%.80s\"", text);
        return;
    }
    *out = (struct proxy_address){.text = arena_str(l->a, str_z(text)), .loopback = is_loopback(&a)};
    if (ip_is_ipv4(&a)) {
        struct sockaddr_in *sin = (struct sockaddr_in *)&out->addr;
        sin->sin_family = AF_INET;
        sin->sin_port = htons(host.port);
        memcpy(&sin->sin_addr, a.bytes + 12, 4);
        out->addr_len = sizeof(*sin);
    } else {
        struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)&out->addr;
        sin6->sin6_family = AF_INET6;
        sin6->sin6_port = htons(host.port);
        memcpy(&sin6->sin6_addr, a.bytes, 16);
        out->addr_len = sizeof(*sin6);
    }
}

static bool same_address(const struct proxy_address *a, const struct proxy_address *b)
{
    return a->addr_len == b->addr_len && memcmp(&a->addr, &b->addr, a->addr_len) == 0;
}

static const struct ip_block *load_blocks(struct loader *l, const char *path, char **raw, unsigned n)
{
    struct ip_block *items = arena_new(l->a, struct ip_block, n);
    for (unsigned i = 0; i < n; i++)
        if (ip_block_parse(str_z(raw[i]), &items[i]) < 0)
            conf_fail(l->conf, CONF_PATH("%s[%u]", path, i),
                      "expected an address or a block such as 10.0.0.0/8, got \"%.80s\"", raw[i]);
    return items;
}

static void load_listen(struct loader *l)
{
    struct proxy_listen *items = arena_new(l->a, struct proxy_listen, l->raw->listen_count);
    for (unsigned i = 0; i < l->raw->listen_count; i++) {
        load_address(l, CONF_PATH("listen[%u].address", i), l->raw->listen[i].address, &items[i].address);
        items[i].proxy_protocol =
            load_blocks(l, CONF_PATH("listen[%u].proxy_protocol", i), l->raw->listen[i].proxy_protocol,
                        l->raw->listen[i].proxy_protocol_count);
        items[i].proxy_protocol_n = l->raw->listen[i].proxy_protocol_count;
        for (unsigned k = 0; k < i; k++)
            if (same_address(&items[i].address, &items[k].address))
                conf_fail(l->conf, CONF_PATH("listen[%u].address", i), "is the same as that of listen[%u]",
                          k);
    }
    l->out->listen = items;
    l->out->listen_n = l->raw->listen_count;
}

static const struct str *load_hosts(struct loader *l, const char *path, char **raw, unsigned n)
{
    struct str *items = arena_new(l->a, struct str, n);
    for (unsigned i = 0; i < n; i++) {
        struct url_host host;
        struct str text = str_z(raw[i]);
        if (url_host_parse(text, &host) < 0 || host.port != 0 || text.p[text.n - 1] == ':' ||
            strchr(raw[i], '*') != NULL)
            conf_fail(l->conf, CONF_PATH("%s[%u]", path, i),
                      "expected a host name without a port, got \"%.80s\"", raw[i]);
        items[i] = load_lower(l, text);
    }
    return items;
}

static void load_admin(struct loader *l)
{
    const struct raw_admin *raw = l->raw->admin;
    struct proxy_admin *admin = &l->out->admin;
    admin->socket_path = admin->token = STR("");
    if (raw == NULL)
        return;
    if (raw->socket != NULL) {
        admin->socket_path = load_path(l, raw->socket);
        if (admin->socket_path.n >= sizeof(((struct sockaddr_un *)0)->sun_path))
            conf_fail(l->conf, "admin.socket", "is %zu bytes long, a socket's path may have %zu",
                      admin->socket_path.n, sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
    }
    if (raw->token != NULL)
        admin->token = load_token(l, "admin.token", raw->token);
    if (raw->address != NULL) {
        admin->tcp = true;
        load_address(l, "admin.address", raw->address, &admin->address);
        if (conf_status(l->conf) == 0 && !admin->address.loopback && raw->token == NULL)
            conf_fail(l->conf, "admin.address", "%s is not loopback, so admin needs a `token`", raw->address);
        for (unsigned i = 0; i < l->out->listen_n; i++)
            if (same_address(&admin->address, &l->out->listen[i].address))
                conf_fail(l->conf, "admin.address", "is the same as that of listen[%u]", i);
    }
    admin->hosts = load_hosts(l, "admin.hosts", raw->hosts, raw->hosts_count);
    admin->hosts_n = raw->hosts_count;
}

static void load_trusted(struct loader *l)
{
    l->out->trusted_proxies =
        load_blocks(l, "trusted_proxies", l->raw->trusted_proxies, l->raw->trusted_proxies_count);
    l->out->trusted_proxies_n = l->raw->trusted_proxies_count;
}

/* It goes unquoted into Cache-Status and, as a pseudonym, into CDN-Loop. */
static void load_name(struct loader *l)
{
    const char *name = l->raw->name;
    if (name == NULL)
        name = l->out->role == PROXY_ROLE_EDGE ? "segue-edge" : "segue-shield";
    size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._");
    bool letter = (name[0] | 32) >= 'a' && (name[0] | 32) <= 'z';
    if (name[n] != '\0' || n > NAME_BYTES_MAX || !letter)
        conf_fail(l->conf, "name", "expected a letter, then up to %d of A-Za-z0-9.-_, got \"%.80s\"",
                  NAME_BYTES_MAX - 1, name);
    l->out->name = arena_str(l->a, str_z(name));
}

/* ---- Numbers ---- */

static void load_pacing(struct loader *l)
{
    static const struct raw_pacing none;
    const struct raw_pacing *raw = l->raw->pacing != NULL ? l->raw->pacing : &none;
    /* 256 kbit/s plays any lossy audio in time, whatever a player asks for. */
    l->out->pacing = (struct proxy_pacing){
        .cmcd_rtp = raw->cmcd_rtp != NULL && *raw->cmcd_rtp,
        .cmcd_rtp_min_bytes_per_s =
            conf_bytes_per_s(l->conf, "pacing.cmcd_rtp_min", raw->cmcd_rtp_min, 32 * 1024, 1024, GIB),
    };
}

static void load_timeouts(struct loader *l)
{
    static const struct raw_timeouts none;
    const struct raw_timeouts *raw = l->raw->timeouts != NULL ? l->raw->timeouts : &none;
    struct conf *c = l->conf;
    /* A pooled connection is given up before a peer with our own client_idle gives it up: no request is then
     * sent into a connection that is being closed. */
    l->out->timeouts = (struct proxy_timeouts){
#define TIMEOUT(key, absent_ms, max_ms)                                                                      \
    .key##_ms = conf_duration_ms(c, "timeouts." #key, raw->key, absent_ms, 1, max_ms)
        TIMEOUT(client_hello, 5000, HOUR_MS),
        TIMEOUT(client_handshake, 10000, HOUR_MS),
        TIMEOUT(client_head, 10000, HOUR_MS),
        TIMEOUT(client_idle, 75000, 24 * HOUR_MS),
        TIMEOUT(client_body, 30000, HOUR_MS),
        TIMEOUT(client_send, 60000, 24 * HOUR_MS),
        TIMEOUT(upstream_connect, 3000, HOUR_MS),
        TIMEOUT(upstream_first_byte, 30000, HOUR_MS),
        TIMEOUT(upstream_between_bytes, 30000, HOUR_MS),
        TIMEOUT(upstream_idle, 50000, 24 * HOUR_MS),
        TIMEOUT(drain, 30000, 24 * HOUR_MS),
#undef TIMEOUT
    };
}

static void load_limits(struct loader *l)
{
    static const struct raw_limits none;
    const struct raw_limits *raw = l->raw->limits != NULL ? l->raw->limits : &none;
    struct conf *c = l->conf;
    /* 1 KiB/s is a twelfth of the slowest audio that is offered (96 kbit/s): slower is no listener. */
    l->out->limits = (struct proxy_limits){
        .connections_max =
            (unsigned)conf_number(c, "limits.connections_max", raw->connections_max, 65536, 1, 10000000),
        .tls_handshakes_max =
            (unsigned)conf_number(c, "limits.tls_handshakes_max", raw->tls_handshakes_max, 1024, 1, 1000000),
        .http2_streams_max =
            (unsigned)conf_number(c, "limits.http2_streams_max", raw->http2_streams_max, 100, 1, 10000),
        .client_requests_max = (unsigned)conf_number(c, "limits.client_requests_max",
                                                     raw->client_requests_max, 100000, 1, 1000000000),
        .client_rate_min = conf_bytes_per_s(c, "limits.client_rate_min", raw->client_rate_min, 1024, 0, GIB),
        .client_rate_grace_ms = conf_duration_ms(c, "limits.client_rate_grace", raw->client_rate_grace, 60000,
                                                 1000, 24 * HOUR_MS),
        .upstream_idle_max =
            (unsigned)conf_number(c, "limits.upstream_idle_max", raw->upstream_idle_max, 64, 0, 100000),
        .listen_backlog =
            (unsigned)conf_number(c, "limits.listen_backlog", raw->listen_backlog, 4096, 1, 65535),
        .request_body_bytes_max =
            conf_bytes(c, "limits.request_body_max", raw->request_body_max, 16 * 1024 * 1024, 0, 1024 * GIB),
        .object_bytes_max = conf_bytes(c, "limits.object_max", raw->object_max, GIB, 1, 1024 * GIB),
    };
}

static void load_workers(struct loader *l)
{
    const char *text = l->raw->workers;
    uint64_t n = 0;
    if (text != NULL && strcmp(text, "auto") != 0 &&
        (str_to_u64(str_z(text), &n) < 0 || n < 1 || n > PROXY_WORKERS_MAX))
        conf_fail(l->conf, "workers", "expected `auto` or a number from 1 to %d, got \"%.40s\"",
                  PROXY_WORKERS_MAX, text);
    l->out->workers = (unsigned)n;
}

/* ---- Rate limits ---- */

static void load_rate_limit(struct loader *l)
{
    static const struct raw_rate_limit none;
    const struct raw_rate_limit *raw = l->raw->rate_limit != NULL ? l->raw->rate_limit : &none;
    struct proxy_rate_limit *r = &l->out->rate_limit;
    struct conf *c = l->conf;
    if (conf_has(c, "rate_limit.per_uid")) {
        if (l->out->role == PROXY_ROLE_SHIELD)
            conf_fail(c, "rate_limit.per_uid", "is for an edge; a shield checks no signatures");
        else if (!l->out->signing.given)
            conf_fail(c, "rate_limit.per_uid",
                      "needs `signing`: only the uid of a valid signature is counted");
    }
    r->per_uid.burst = r->per_address.burst =
        (uint32_t)conf_number(c, "rate_limit.burst", raw->burst, PROXY_RATE_BURST, 1, RATE_BURST_MAX);
    r->per_uid.interval_ns = conf_rate_ns(c, "rate_limit.per_uid", raw->per_uid, 0);
    r->per_address.interval_ns = conf_rate_ns(c, "rate_limit.per_address", raw->per_address, 0);
    r->connections_per_address = (unsigned)conf_number(c, "rate_limit.connections_per_address",
                                                       raw->connections_per_address, 0, 0, ADDRESS_COUNT_MAX);
    r->table_entries = (unsigned)conf_number(c, "rate_limit.table", raw->table, PROXY_RATE_TABLE,
                                             RATE_TABLE_ENTRIES_MIN, RATE_TABLE_ENTRIES_MAX);
}

/* ---- Secrets ---- */

static void load_signing(struct loader *l)
{
    const struct raw_signing *raw = l->raw->signing;
    struct proxy_signing *s = &l->out->signing;
    struct conf_error error;
    if (raw == NULL)
        return;
    s->given = true;
    s->required = raw->required == NULL || *raw->required;
    s->keys = arena_new(l->a, struct signed_url_keys, 1);
    if (proxy_keys_load(load_path(l, raw->keys).p, s->keys, &error) < 0)
        conf_fail(l->conf, "signing.keys", "%s", error.text);
    s->policy.clock_skew_s =
        conf_duration_s(l->conf, "signing.clock_skew", raw->clock_skew, PROXY_CLOCK_SKEW_S, 0, 3600);
    s->policy.lifetime_max_s = conf_duration_s(l->conf, "signing.lifetime_max", raw->lifetime_max, 24 * 3600,
                                               1, 10 * 365 * 86400ull);
    s->policy.pfx_depth_min = (unsigned)conf_number(l->conf, "signing.pfx_depth_min", raw->pfx_depth_min,
                                                    PROXY_PFX_DEPTH_MIN, 1, 32);
}

static void load_peers(struct loader *l)
{
    l->out->peers_token = l->out->peers_client_ca = STR("");
    if (l->raw->peers != NULL && l->raw->peers->token != NULL)
        l->out->peers_token = load_token(l, "peers.token", l->raw->peers->token);
    if (l->raw->peers != NULL && l->raw->peers->client_ca != NULL)
        l->out->peers_client_ca = load_path(l, l->raw->peers->client_ca);
    if (l->raw->peers != NULL && l->raw->peers->token == NULL && l->raw->peers->client_ca == NULL)
        conf_fail(l->conf, "peers", "needs a `token` or a `client_ca`");
    if (l->out->role != PROXY_ROLE_SHIELD || l->out->peers_token.n > 0 || conf_status(l->conf) < 0)
        return;
    for (unsigned i = 0; i < l->out->listen_n; i++) {
        bool verified = l->raw->listen[i].tls != NULL && l->out->peers_client_ca.n > 0;

        if (!l->out->listen[i].address.loopback && !verified)
            conf_fail(l->conf, CONF_PATH("listen[%u].address", i),
                      l->out->peers_client_ca.n > 0
                          ? "%s is not loopback and has no `tls`, so `peers: {client_ca: FILE}` guards it "
                            "not; give it tls, or the peers a `token`"
                          : "%s is not loopback, so the shield needs `peers: {token: FILE}`",
                      l->out->listen[i].address.text.p);
    }
}

static void load_access_log(struct loader *l)
{
    const struct raw_access_log *raw = l->raw->access_log;
    l->out->access_log_path = STR("");
    if (raw == NULL)
        return;
    l->out->access_log = true;
    l->out->access_log_path = strcmp(raw->path, "-") == 0 ? STR("-") : load_path(l, raw->path);
    l->out->access_log_format = raw->format;
}

/* Before the rules, which ask whether there is `geo`. */
static void load_territory_paths(struct loader *l)
{
    if (l->raw->geo != NULL)
        l->out->territory_paths[TERRITORY_GEO] = load_path(l, l->raw->geo->database).p;
    if (l->raw->rights != NULL)
        l->out->territory_paths[TERRITORY_RIGHTS] = load_path(l, l->raw->rights).p;
}

/* Last of all: a million lines are not read for a file that is wrong elsewhere. */
static void load_territory(struct loader *l)
{
    static const char *const keys[] = {[TERRITORY_GEO] = "geo.database", [TERRITORY_RIGHTS] = "rights"};
    char error[TERRITORY_ERROR_BYTES];
    enum territory_part part;
    if (conf_status(l->conf) == 0 &&
        territory_load(l->out->territory_paths, &l->out->territory, &part, error) != 0)
        conf_fail(l->conf, keys[part], "%s", error);
}

/* ---- The whole ---- */

/* Keys of the contract that no one may believe to work here. */
static void refuse(struct loader *l)
{
    static const struct {
        const char *path;
        const char *why;
    } refused[] = {
        {"stores", "is not available in this version, which caches in memory only; leave it out"},
    };
    static const struct {
        const char *path;
        const char *why;
    } others[2][3] = {
        [PROXY_ROLE_EDGE] = {{"origins", "is for a shield; an edge has `upstreams`"},
                             {"peers", "is for a shield; an edge gives `peer_token` to an upstream"}},
        [PROXY_ROLE_SHIELD] = {{"upstreams", "is for an edge; a shield has `origins`"},
                               {"signing", "is for an edge; a shield checks no signatures"},
                               {"pacing", "is for an edge; a shield answers no players"}},
    };
    for (size_t i = 0; i < ARRAY_LEN(others[0]) && others[l->out->role][i].path != NULL; i++)
        if (conf_has(l->conf, others[l->out->role][i].path))
            conf_fail(l->conf, others[l->out->role][i].path, "%s", others[l->out->role][i].why);
    for (size_t i = 0; i < ARRAY_LEN(refused); i++)
        if (conf_has(l->conf, refused[i].path))
            conf_fail(l->conf, refused[i].path, "%s", refused[i].why);
}

/* Signing comes before the rules, which ask whether there is any. */
static void load_parts(struct loader *l)
{
    load_name(l);
    load_listen(l);
    load_admin(l);
    l->out->hosts = load_hosts(l, "hosts", l->raw->hosts, l->raw->hosts_count);
    l->out->hosts_n = l->raw->hosts_count;
    load_workers(l);
    l->out->memory_bytes =
        conf_bytes(l->conf, "memory.size", l->raw->memory != NULL ? l->raw->memory->size : NULL, GIB,
                   MEMORY_BYTES_MIN, 1024 * 1024 * GIB);
    load_upstreams(l);
    load_signing(l);
    load_rate_limit(l);
    load_peers(l);
    load_territory_paths(l);
    load_listen_tls(l);
    load_rules(l);
    load_access_log(l);
    load_trusted(l);
    load_pacing(l);
    load_timeouts(l);
    load_limits(l);
    load_territory(l);
}

static int load(struct conf *conf, struct proxy_conf *out)
{
    const cyaml_schema_value_t *schema = out->role == PROXY_ROLE_EDGE ? &raw_edge_schema : &raw_shield_schema;
    struct loader l = {.conf = conf, .out = out, .a = &out->arena};
    const char *slash = strrchr(out->file.p, '/');
    l.folder = str_of(out->file.p, slash != NULL ? (size_t)(slash + 1 - out->file.p) : 0);
    refuse(&l);
    if (conf_status(conf) < 0)
        return -EINVAL;
    void *raw;
    int rc = conf_load(conf, schema, &raw);
    if (rc < 0)
        return rc;
    l.raw = raw;
    load_parts(&l);
    conf_unload(conf, schema, &raw);
    return conf_status(conf);
}

int proxy_conf_load(const char *path, enum proxy_role role, struct proxy_conf **out, struct conf_error *error)
{
    struct conf *conf = NULL;
    *out = NULL;
    int rc = conf_open(path, 0, &conf, error);
    if (rc < 0)
        return rc;
    struct arena arena = {0};
    struct proxy_conf *pc = arena_new(&arena, struct proxy_conf, 1);
    pc->magic = PROXY_CONF_MAGIC;
    pc->role = role;
    pc->file = arena_str(&arena, str_z(path));
    pc->arena = arena;
    rc = load(conf, pc);
    conf_close(&conf);
    if (rc < 0)
        proxy_conf_free(&pc);
    *out = pc;
    return rc;
}

bool proxy_conf_trusts(const struct proxy_conf *conf, const struct ip *peer)
{
    for (unsigned i = 0; i < conf->trusted_proxies_n; i++)
        if (ip_in_block(peer, &conf->trusted_proxies[i]))
            return true;
    return false;
}

bool proxy_conf_holds_secrets(const struct proxy_conf *conf)
{
    bool tls = false;
    for (unsigned i = 0; i < conf->listen_n; i++)
        tls = tls || conf->listen[i].tls != NULL;
    return tls || conf->signing.given || conf->has_tokens;
}

void proxy_conf_free(struct proxy_conf **pconf)
{
    struct proxy_conf *conf = TAKE(pconf);
    if (conf == NULL)
        return;
    CHECK_MAGIC(conf, PROXY_CONF_MAGIC);
    territory_unref(&conf->territory);
    for (unsigned i = 0; i < conf->listen_n; i++)
        if (conf->listen[i].tls != NULL) {
            struct tls_server *tls = conf->listen[i].tls;

            tls_server_unref(&tls);
        }
    for (unsigned i = 0; i < conf->upstreams_n; i++)
        if (conf->upstreams[i].tls != NULL) {
            struct tls_client *tls = conf->upstreams[i].tls;

            tls_client_unref(&tls);
        }
    /* The snapshot lies in its own arena, and the arena wipes the keys with all else. */
    struct arena arena = conf->arena;
    arena_free(&arena);
}
