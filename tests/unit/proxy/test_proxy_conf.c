/* edge.yaml and shield.yaml: what a whole file becomes, what is left out becomes, and the line that is said
 * of each thing that can be wrong. */
#include "proxy/proxy_conf.h"
#include "util/check.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define KEYS "keys: [{kid: k1, secret: c2VndWUtdGVzdC1rZXktb25lLTAxMjM0NTY3ODlhYmM=}]\n"

static char folder[] = "/tmp/segue-test-proxy-conf-XXXXXX";

static void write_file(const char *name, const char *text, mode_t mode)
{
    FILE *f = fopen(name, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(name, mode), 0);
}

static int setup(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL || chdir(folder) < 0)
        return -1;
    write_file("keys.yaml", KEYS, 0640);
    write_file("open-keys.yaml", KEYS, 0644);
    write_file("bad-keys.yaml", "keys: [{kid: k1, secret: c2hvcnQ=}]\n", 0640);
    write_file("token", "0123456789abcdef\n", 0640);
    write_file("open-token", "0123456789abcdef\n", 0644);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    static const char *const names[] = {"keys.yaml", "open-keys.yaml", "bad-keys.yaml",
                                        "token",     "open-token",     "x.yaml"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        unlink(names[i]);
    return chdir("/") < 0 || rmdir(folder) < 0;
}

static struct proxy_conf *load(enum proxy_role role, const char *text)
{
    struct proxy_conf *conf;
    struct conf_error error;
    write_file("x.yaml", text, 0644);
    if (proxy_conf_load("x.yaml", role, &conf, &error) != 0)
        fail_msg("%s", error.text);
    return conf;
}

#define assert_str(s, z)                                                                                     \
    do {                                                                                                     \
        assert_int_equal((s).n, strlen(z));                                                                  \
        assert_string_equal((s).p, z);                                                                       \
    } while (0)

static void test_edge_defaults(void **state)
{
    (void)state;
    struct proxy_conf *c =
        load(PROXY_ROLE_EDGE,
             "listen: [{address: \"127.0.0.1:8080\"}]\nupstreams: [{url: \"http://127.0.0.1:8081\"}]\n");
    assert_str(c->name, "segue-edge");
    assert_int_equal(c->listen_n, 1);
    assert_true(c->listen[0].address.loopback);
    const struct sockaddr_in *sin = (const struct sockaddr_in *)&c->listen[0].address.addr;
    assert_int_equal(sin->sin_family, AF_INET);
    assert_int_equal(ntohs(sin->sin_port), 8080);
    assert_int_equal(ntohl(sin->sin_addr.s_addr), INADDR_LOOPBACK);
    assert_int_equal(c->listen[0].address.addr_len, sizeof(*sin));
    assert_str(c->admin.socket_path, "");
    assert_false(c->admin.tcp);
    assert_int_equal(c->workers, 0);
    assert_int_equal(c->hosts_n, 0);
    assert_int_equal(c->memory_bytes, 1ull << 30);
    assert_false(c->signing.given);
    assert_int_equal(c->rate_limit.per_uid.interval_ns, 0);
    assert_int_equal(c->rate_limit.per_address.interval_ns, 0);
    assert_int_equal(c->rate_limit.per_address.burst, 100);
    assert_int_equal(c->rate_limit.connections_per_address, 0);
    assert_int_equal(c->rate_limit.table_entries, 65536);
    assert_false(c->access_log);
    assert_int_equal(c->rules.n, 0);
    assert_int_equal(c->rules.none.signing, RULE_SIGNING_IGNORED);
    assert_false(c->rules.none.cache);
    assert_int_equal(c->rules.none.query, RULE_QUERY_ALL);
    assert_int_equal(c->rules.none.methods, RULE_METHOD_GET | RULE_METHOD_HEAD);

    const struct proxy_upstream *u = &c->upstreams[0];
    assert_int_equal(u->scheme, URL_HTTP);
    assert_str(u->url, "http://127.0.0.1:8081");
    assert_str(u->host, "127.0.0.1");
    assert_int_equal(u->port, 8081);
    assert_str(u->path, "");
    assert_str(u->host_field, "127.0.0.1:8081");
    assert_int_equal(u->weight, 1);
    assert_false(u->backup);
    assert_int_equal(u->connections_max, 1024);
    assert_true(pattern_matches(&u->match, STR("/any/thing")));

    assert_false(c->pacing.cmcd_rtp);
    assert_int_equal(c->pacing.cmcd_rtp_min_bytes_per_s, 32768);
    assert_int_equal(c->timeouts.client_head_ms, 10000);
    assert_int_equal(c->timeouts.client_idle_ms, 75000);
    assert_int_equal(c->timeouts.upstream_connect_ms, 3000);
    assert_int_equal(c->timeouts.upstream_first_byte_ms, 30000);
    assert_int_equal(c->timeouts.upstream_between_bytes_ms, 30000);
    assert_true(c->timeouts.upstream_idle_ms < c->timeouts.client_idle_ms);
    assert_int_equal(c->limits.connections_max, 65536);
    assert_int_equal(c->limits.client_rate_min, 1024);
    assert_int_equal(c->limits.listen_backlog, 4096);
    proxy_conf_free(&c);
    assert_null(c);
}

static const char whole_edge[] =
    "name: edge-1.example\n"
    "listen: [{address: \"0.0.0.0:80\"}, {address: \"[::1]:8080\", proxy_protocol: [10.0.0.0/8, \"::1\"]}]\n"
    "admin: {socket: edge.sock, address: \"0.0.0.0:9180\", token: token, hosts: [Edge.Example]}\n"
    "hosts: [Audio.Example.NET]\n"
    "workers: 3\n"
    "memory: {size: 64MiB}\n"
    "upstreams:\n"
    "  - {url: \"http://Shield.example/%7ea%2c/\", weight: 7, max_connections: 9, peer_token: token, host: "
    "H.example}\n"
    "  - {url: \"http://[2001:db8::1]:81\", backup: true}\n"
    "rate_limit: {per_uid: 50/s, per_address: 100/m, burst: 7, connections_per_address: 2000, table: 5000}\n"
    "signing: {keys: keys.yaml, clock_skew: 1m, lifetime_max: 7d, pfx_depth_min: 3}\n"
    "rules:\n"
    "  - {match: \"/tracks/**\", ttl: 1y, immutable: true, track: \"/tracks/{track}/{quality}/{n}.{ext}\"}\n"
    "  - {match: \"/images/**\", ttl: 0, signed: false, negative_ttl: 1m}\n"
    "  - {match: \"/v/**\", signed: false, keep_query: [w, h, w], override: true, ttl: 5s}\n"
    "  - {match: \"/n/**\", signed: false, keep_query: []}\n"
    "  - {match: \"/p/**\", methods: [GET, POST, GET], cache: false}\n"
    "  - {match: \"/q/**\", methods: all, stale_while_revalidate: 1m, stale_if_error: 1d,\n"
    "     client_cache_control: true, store_set_cookie: true, store_authorization: true}\n"
    "access_log: {path: log/edge.log, format: combined}\n"
    "trusted_proxies: [10.0.0.0/8, \"::1\"]\n"
    "pacing: {cmcd_rtp: true, cmcd_rtp_min: 100KB/s}\n"
    "timeouts: {client_head: 1500ms, drain: 2m}\n"
    "limits: {client_rate_min: 0/s, object_max: 2GiB, connections_max: 5}\n";

static void check_rules(const struct rules *rules)
{
    assert_int_equal(rules->n, 6);
    const struct rule *r = rules_find(rules, STR("/tracks/a/320/7.ogg"));
    assert_ptr_equal(r, &rules->items[0]);
    assert_true(r->cache && r->ttl_given && r->immutable && !r->override && !r->swr_given);
    assert_int_equal(r->ttl_s, 365 * 86400);
    assert_int_equal(r->negative_ttl_s, 5);
    assert_int_equal(r->signing, RULE_SIGNING_REQUIRED);
    assert_int_equal(r->query, RULE_QUERY_NONE);
    assert_str(r->allow, "GET, HEAD");
    struct track_name name;
    assert_true(track_extract(r->track, STR("/tracks/a/320/7.ogg"), &name));
    assert_int_equal(name.number, 7);

    r = &rules->items[1];
    assert_int_equal(r->signing, RULE_SIGNING_IGNORED);
    assert_int_equal(r->query, RULE_QUERY_ALL);
    assert_true(r->ttl_given);
    assert_int_equal(r->ttl_s, 0);
    assert_int_equal(r->negative_ttl_s, 60);
    assert_null(r->track);

    r = &rules->items[2];
    assert_int_equal(r->query, RULE_QUERY_LISTED);
    assert_int_equal(r->keep_query_n, 2);
    assert_str(r->keep_query[0], "h");
    assert_str(r->keep_query[1], "w");
    assert_true(r->override);
    assert_int_equal(rules->items[3].query, RULE_QUERY_NONE);

    r = &rules->items[4];
    assert_false(r->cache);
    assert_int_equal(r->methods, RULE_METHOD_GET | RULE_METHOD_POST);
    assert_str(r->allow, "GET, POST");
    r = &rules->items[5];
    assert_true(r->methods & RULE_METHOD_ALL && r->methods & RULE_METHOD_DELETE &&
                r->methods & RULE_METHOD_GET);
    assert_true(r->swr_given && r->sie_given);
    assert_int_equal(r->stale_while_revalidate_s, 60);
    assert_int_equal(r->stale_if_error_s, 86400);
    assert_true(r->client_cache_control && r->store_set_cookie && r->store_authorization);

    r = rules_find(rules, STR("/other"));
    assert_ptr_equal(r, &rules->none);
    assert_int_equal(r->signing, RULE_SIGNING_REQUIRED);
}

static void test_whole_edge(void **state)
{
    (void)state;
    struct proxy_conf *c = load(PROXY_ROLE_EDGE, whole_edge);
    assert_str(c->name, "edge-1.example");
    assert_int_equal(c->listen_n, 2);
    assert_false(c->listen[0].address.loopback);
    assert_true(c->listen[1].address.loopback);
    const struct sockaddr_in6 *sin6 = (const struct sockaddr_in6 *)&c->listen[1].address.addr;
    assert_int_equal(sin6->sin6_family, AF_INET6);
    assert_int_equal(ntohs(sin6->sin6_port), 8080);
    assert_memory_equal(&sin6->sin6_addr, &in6addr_loopback, 16);
    assert_str(c->admin.socket_path, "edge.sock");
    assert_true(c->admin.tcp);
    assert_str(c->admin.token, "0123456789abcdef");
    assert_str(c->admin.hosts[0], "edge.example");
    assert_int_equal(c->hosts_n, 1);
    assert_str(c->hosts[0], "audio.example.net");
    assert_int_equal(c->workers, 3);
    assert_int_equal(c->memory_bytes, 64 << 20);

    assert_int_equal(c->upstreams_n, 2);
    assert_str(c->upstreams[0].host, "shield.example");
    assert_int_equal(c->upstreams[0].port, 80);
    assert_str(c->upstreams[0].path, "/~a%2C");
    assert_str(c->upstreams[0].host_field, "h.example");
    assert_int_equal(c->upstreams[0].weight, 7);
    assert_int_equal(c->upstreams[0].connections_max, 9);
    assert_str(c->upstreams[0].peer_token, "0123456789abcdef");
    assert_str(c->upstreams[1].host, "2001:db8::1");
    assert_str(c->upstreams[1].host_field, "[2001:db8::1]:81");
    assert_true(c->upstreams[1].backup);

    assert_true(c->signing.given && c->signing.required);
    assert_int_equal(c->signing.keys->n, 1);
    assert_int_equal(c->signing.policy.clock_skew_s, 60);
    assert_int_equal(c->signing.policy.lifetime_max_s, 7 * 86400);
    assert_int_equal(c->signing.policy.pfx_depth_min, 3);
    assert_int_equal(c->rate_limit.per_uid.interval_ns, 20000000);
    assert_int_equal(c->rate_limit.per_address.interval_ns, 600000000);
    assert_int_equal(c->rate_limit.per_uid.burst, 7);
    assert_int_equal(c->rate_limit.per_address.burst, 7);
    assert_int_equal(c->rate_limit.connections_per_address, 2000);
    assert_int_equal(c->rate_limit.table_entries, 5000);
    check_rules(&c->rules);

    assert_true(c->access_log);
    assert_str(c->access_log_path, "log/edge.log");
    assert_int_equal(c->access_log_format, PROXY_LOG_COMBINED);
    struct ip a;
    assert_int_equal(ip_parse(STR("10.1.2.3"), &a), 0);
    assert_int_equal(c->listen[0].proxy_protocol_n, 0);
    assert_int_equal(c->listen[1].proxy_protocol_n, 2);
    assert_true(ip_in_block(&a, &c->listen[1].proxy_protocol[0]));
    assert_false(ip_in_block(&a, &c->listen[1].proxy_protocol[1]));
    assert_int_equal(c->trusted_proxies_n, 2);
    assert_true(ip_in_block(&a, &c->trusted_proxies[0]));
    assert_false(ip_in_block(&a, &c->trusted_proxies[1]));
    assert_true(c->pacing.cmcd_rtp);
    assert_int_equal(c->pacing.cmcd_rtp_min_bytes_per_s, 100000);
    assert_int_equal(c->timeouts.client_head_ms, 1500);
    assert_int_equal(c->timeouts.drain_ms, 120000);
    assert_int_equal(c->limits.client_rate_min, 0);
    assert_int_equal(c->limits.object_bytes_max, 2ull << 30);
    assert_int_equal(c->limits.connections_max, 5);
    proxy_conf_free(&c);
}

static void test_shield(void **state)
{
    (void)state;
    struct proxy_conf *c =
        load(PROXY_ROLE_SHIELD, "listen: [{address: \"0.0.0.0:8081\"}]\n"
                                "peers: {token: token}\n"
                                "origins:\n"
                                "  - {match: \"/tracks/**\", url: \"file:///srv/my%20audio/\"}\n"
                                "  - {url: \"file:///\"}\n"
                                "  - {match: \"/**\", url: \"http://o.example/base/\"}\n"
                                "rules: [{match: \"/x/**\", signed: false}, {match: \"/y\"}]\n");
    assert_str(c->name, "segue-shield");
    assert_str(c->peers_token, "0123456789abcdef");
    assert_int_equal(c->upstreams_n, 3);
    assert_int_equal(c->upstreams[0].scheme, URL_FILE);
    assert_str(c->upstreams[0].path, "/srv/my audio");
    assert_false(pattern_matches(&c->upstreams[0].match, STR("/x")));
    assert_str(c->upstreams[1].path, "/");
    assert_true(pattern_matches(&c->upstreams[1].match, STR("/x")));
    assert_str(c->upstreams[2].path, "/base");
    assert_str(c->upstreams[2].host_field, "o.example");
    assert_int_equal(c->rules.items[1].signing, RULE_SIGNING_IGNORED);
    assert_int_equal(c->rules.items[1].query, RULE_QUERY_ALL);
    proxy_conf_free(&c);
}

static void test_signing_not_required(void **state)
{
    (void)state;
    struct proxy_conf *c = load(
        PROXY_ROLE_EDGE, "listen: [{address: \"127.0.0.1:1\"}]\nupstreams: [{url: \"http://a\"}]\n"
                         "signing: {required: false, keys: keys.yaml}\n"
                         "rules: [{match: /a}, {match: /b, signed: true}, {match: /c, signed: false}]\n");
    assert_int_equal(c->rules.items[0].signing, RULE_SIGNING_OPTIONAL);
    assert_int_equal(c->rules.items[1].signing, RULE_SIGNING_REQUIRED);
    assert_int_equal(c->rules.items[2].signing, RULE_SIGNING_IGNORED);
    assert_int_equal(c->rules.none.signing, RULE_SIGNING_REQUIRED);
    assert_int_equal(c->signing.policy.clock_skew_s, 5);
    assert_int_equal(c->signing.policy.lifetime_max_s, 86400);
    assert_int_equal(c->signing.policy.pfx_depth_min, 2);
    proxy_conf_free(&c);
}

/* The files named in a file lie beside it, wherever the program was started. */
static void test_relative_to_the_file(void **state)
{
    (void)state;
    char path[64], log[80];
    struct proxy_conf *c;
    struct conf_error error;
    write_file("x.yaml", whole_edge, 0644);
    snprintf(path, sizeof(path), "%s/x.yaml", folder);
    snprintf(log, sizeof(log), "%s/log/edge.log", folder);
    assert_int_equal(chdir("/"), 0);
    int rc = proxy_conf_load(path, PROXY_ROLE_EDGE, &c, &error);
    assert_int_equal(chdir(folder), 0);
    assert_int_equal(rc, 0);
    assert_str(c->access_log_path, log);
    assert_int_equal(c->signing.keys->n, 1);
    proxy_conf_free(&c);
}

/* ---- What is refused ---- */

struct refusal {
    const char *text, *error;
};

static void run(enum proxy_role role, const char *head, const struct refusal *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char text[2048];
        struct proxy_conf *conf;
        struct conf_error error;
        snprintf(text, sizeof(text), "%s%s\n", head, cases[i].text);
        write_file("x.yaml", text, 0644);
        int rc = proxy_conf_load("x.yaml", role, &conf, &error);
        if (rc >= 0)
            fail_msg("was not refused: %s", cases[i].text);
        assert_null(conf);
        assert_string_equal(error.text, cases[i].error);
    }
}

/* Every case stands in line 3. */
#define EDGE_HEAD   "listen: [{address: \"127.0.0.1:80\"}]\nupstreams: [{url: \"http://a\"}]\n"
#define SHIELD_HEAD "listen: [{address: \"127.0.0.1:80\"}]\norigins: [{url: \"http://a\"}]\n"
#define UNBUILT     "is not available in this version"
#define TLS_FORMS   "expected `certificate` and `key`, or a list of both as `certificates`"

static void test_not_available(void **state)
{
    (void)state;
    static const struct refusal edge[] = {
        {"stores: [{path: /x, size: 1GiB, class: nvme}]",
         "x.yaml:3: stores: " UNBUILT ", which caches in memory only; leave it out"},
        {"origins: []", "x.yaml:3: origins: is for a shield; an edge has `upstreams`"},
        {"peers: {token: token}",
         "x.yaml:3: peers: is for a shield; an edge gives `peer_token` to an upstream"},
    };
    static const struct refusal shield[] = {
        {"peers: {}", "x.yaml:3: peers: needs a `token` or a `client_ca`"},
        {"upstreams: []", "x.yaml:3: upstreams: is for an edge; a shield has `origins`"},
        {"pacing: {cmcd_rtp: true}", "x.yaml:3: pacing: is for an edge; a shield answers no players"},
        {"signing: {keys: keys.yaml}", "x.yaml:3: signing: is for an edge; a shield checks no signatures"},
        {"rate_limit: {per_uid: 50/s}",
         "x.yaml:3: rate_limit.per_uid: is for an edge; a shield checks no signatures"},
        {"rules: [{match: /a, signed: true}]",
         "x.yaml:3: rules[0].signed: is true, but a shield checks no signatures; the edge does"},
    };
    static const struct refusal listen[] = {
        {"listen: [{address: \"127.0.0.1:80\", tls: {certificate: c, key: k}}]\nupstreams: [{url: "
         "\"http://a\"}]",
         "x.yaml:1: listen[0].tls: c: No such file or directory"},
        {"listen: [{address: \"127.0.0.1:80\", tls: {certificate: c}}]\nupstreams: [{url: \"http://a\"}]",
         "x.yaml:1: listen[0].tls: " TLS_FORMS},
        {"listen: [{address: \"127.0.0.1:80\", tls: {key: k, certificates: [{certificate: c, key: k}]}}]\n"
         "upstreams: [{url: \"http://a\"}]",
         "x.yaml:1: listen[0].tls: " TLS_FORMS},
        {"listen: [{address: \"127.0.0.1:80\", tls: {}}]\nupstreams: [{url: \"http://a\"}]",
         "x.yaml:1: listen[0].tls: " TLS_FORMS},
        {"listen: [{address: \"127.0.0.1:80\"}]\nupstreams: [{url: \"http://a\", tls: {certificate: c}}]",
         "x.yaml:2: upstreams[0].tls: is for https:// only"},
        {"listen: [{address: \"127.0.0.1:80\"}]\nupstreams: [{url: \"https://a\", tls: {certificate: c}}]",
         "x.yaml:2: upstreams[0].tls: `certificate` and `key` go together"},
        {"listen: [{address: \"127.0.0.1:80\"}]\nupstreams: [{url: \"https://a\", tls: {ca: none.pem}}]",
         "x.yaml:2: upstreams[0].tls: none.pem: No such file or directory"},
        {"listen: [{address: \"127.0.0.1:80\"}]\nupstreams: [{url: \"https://a\", tls: {ca: c, verify: "
         "false}}]",
         "x.yaml:2: upstreams[0].tls: `ca` means nothing with `verify: false`"},
        {"listen: [{address: \"127.0.0.1:80\"}]\nupstreams: [{url: \"https://a\", tls: {name: \"a:1\"}}]",
         "x.yaml:2: upstreams[0].tls: `name`: expected a host name or an address, got \"a:1\""},
    };
    static const struct refusal origins[] = {
        {"origins: [{url: \"s3://bucket/a\", region: auto}]",
         "x.yaml:2: origins[0].url: \"s3://bucket/a\": s3 " UNBUILT},
        {"origins: [{url: \"http://o.example\", credentials: s3.yaml}]",
         "x.yaml:2: origins[0].credentials: " UNBUILT},
    };
    run(PROXY_ROLE_EDGE, EDGE_HEAD, edge, ARRAY_LEN(edge));
    run(PROXY_ROLE_SHIELD, SHIELD_HEAD, shield, ARRAY_LEN(shield));
    run(PROXY_ROLE_EDGE, "", listen, ARRAY_LEN(listen));
    run(PROXY_ROLE_SHIELD, "listen: [{address: \"127.0.0.1:80\"}]\n", origins, ARRAY_LEN(origins));
}

static void test_edge_refused(void **state)
{
    (void)state;
    static const struct refusal cases[] = {
        {"upstream: []", "x.yaml:3: unknown key \"upstream\", did you mean \"upstreams\"?"},
        {"name: a b", "x.yaml:3: name: expected a letter, then up to 63 of A-Za-z0-9.-_, got \"a b\""},
        {"name: 1a", "x.yaml:3: name: expected a letter, then up to 63 of A-Za-z0-9.-_, got \"1a\""},
        {"workers: 0", "x.yaml:3: workers: expected `auto` or a number from 1 to 256, got \"0\""},
        {"workers: many", "x.yaml:3: workers: expected `auto` or a number from 1 to 256, got \"many\""},
        {"memory: {size: 4095KiB}", "x.yaml:3: memory.size: must be at least 4MiB, got \"4095KiB\""},
        {"memory: {size: 1G}",
         "x.yaml:3: memory.size: expected a size such as 512KiB, 64MiB or 1GiB, got \"1G\""},
        {"hosts: [\"a.example:80\"]",
         "x.yaml:3: hosts[0]: expected a host name without a port, got \"a.example:80\""},
        {"hosts: [\"*.example\"]",
         "x.yaml:3: hosts[0]: expected a host name without a port, got \"*.example\""},
        {"admin: {address: \"0.0.0.0:91\"}",
         "x.yaml:3: admin.address: 0.0.0.0:91 is not loopback, so admin needs a `token`"},
        {"admin: {address: \"127.0.0.1:80\"}", "x.yaml:3: admin.address: is the same as that of listen[0]"},
        {"admin: {token: open-token}", "x.yaml:3: admin.token: open-token: holds a secret, but others can "
                                       "read it (mode 0644); run: chmod 0640 "
                                       "and give it the group of the service"},
        {"admin: {token: none}", "x.yaml:3: admin.token: none: cannot be opened: No such file or directory"},
        {"signing: {required: true}", "x.yaml:3: signing: the key \"keys\" is missing"},
        {"signing: {keys: none.yaml}",
         "x.yaml:3: signing.keys: none.yaml: cannot be opened: No such file or directory"},
        {"signing: {keys: open-keys.yaml}", "x.yaml:3: signing.keys: open-keys.yaml: holds a secret, but "
                                            "others can read it (mode 0644); run: chmod "
                                            "0640 and give it the group of the service"},
        {"signing: {keys: bad-keys.yaml}",
         "x.yaml:3: signing.keys: bad-keys.yaml:1: keys[0].secret: expected 16 to 512 bytes in base64, got 5 "
         "(openssl rand -base64 32 makes one)"},
        {"signing: {keys: keys.yaml, clock_skew: 2h}",
         "x.yaml:3: signing.clock_skew: must be at most 1h, got \"2h\""},
        {"signing: {keys: keys.yaml, pfx_depth_min: 0}",
         "x.yaml:3: signing.pfx_depth_min: must be at least 1, got \"0\""},
        {"rate_limit: {per_uid: 50/s}",
         "x.yaml:3: rate_limit.per_uid: needs `signing`: only the uid of a valid signature is counted"},
        {"rate_limit: {per_address: 50}",
         "x.yaml:3: rate_limit.per_address: expected a rate such as 50/s, 100/m or 1000/h, got \"50\""},
        {"rate_limit: {per_address: 2000000000/s}",
         "x.yaml:3: rate_limit.per_address: must be at most 1000000000/s, got \"2000000000/s\""},
        {"rate_limit: {burst: 0}", "x.yaml:3: rate_limit.burst: must be at least 1, got \"0\""},
        {"rate_limit: {burst: 1000001}",
         "x.yaml:3: rate_limit.burst: must be at most 1000000, got \"1000001\""},
        {"rate_limit: {connections_per_address: 1048576}",
         "x.yaml:3: rate_limit.connections_per_address: must be at most 1048575, got \"1048576\""},
        {"rate_limit: {table: 1023}", "x.yaml:3: rate_limit.table: must be at least 1024, got \"1023\""},
        {"rate_limit: {per_ip: 1/s}",
         "x.yaml:3: rate_limit: unknown key \"per_ip\", did you mean \"per_uid\"?"},
        {"trusted_proxies: [10.0.0.0/33]", "x.yaml:3: trusted_proxies[0]: expected an address or a block "
                                           "such as 10.0.0.0/8, got \"10.0.0.0/33\""},
        {"access_log: {path: a, format: xml}",
         "x.yaml:3: access_log.format: expected json or combined, got \"xml\""},
        {"timeouts: {client_head: 0s}", "x.yaml:3: timeouts.client_head: must be at least 1ms, got \"0s\""},
        {"limits: {client_rate_min: 1KiB}",
         "x.yaml:3: limits.client_rate_min: expected a speed such as 1KiB/s, got \"1KiB\""},
        {"limits: {connections_max: -1}",
         "x.yaml:3: limits.connections_max: expected a whole number, got \"-1\""},
    };
    static const struct refusal listen[] = {
        {"listen:\n  - {address: \"127.0.0.1:80\", proxy_protocol: [\"::1\", lb.example]}\n"
         "upstreams: [{url: \"http://a\"}]",
         "x.yaml:2: listen[0].proxy_protocol[1]: expected an address or a block such as 10.0.0.0/8, got "
         "\"lb.example\""},
    };
    run(PROXY_ROLE_EDGE, EDGE_HEAD, cases, ARRAY_LEN(cases));
    run(PROXY_ROLE_EDGE, "", listen, ARRAY_LEN(listen));
}

static void test_rules_refused(void **state)
{
    (void)state;
    static const struct refusal cases[] = {
        {"rules:\n  - {match: /a}\n  - {match: /b}\n  - match: /c\n    ttl: 5 minutes",
         "x.yaml:7: rules[2].ttl: expected a duration such as 30s, 5m, 1h, 7d or 1y, got \"5 minutes\""},
        {"rules: [{ttl: 5m}]", "x.yaml:3: rules[0]: the key \"match\" is missing"},
        {"rules: [{match: \"/a**\"}]",
         "x.yaml:3: rules[0].match: \"/a**\": '**' can only be a whole segment, between two '/'"},
        {"rules: [{match: \"/a/../b\"}]", "x.yaml:3: rules[0].match: \"/a/../b\": path segment . or .."},
        {"rules: [{match: \"/**\"}, {match: /b}]",
         "x.yaml:3: rules[1].match: can never match, since rules[0] comes first and matches every path"},
        {"rules: [{match: /b}, {match: /b}]",
         "x.yaml:3: rules[1].match: can never match, since rules[0] comes first and matches the same"},
        {"rules: [{match: /b, track: \"/{t}\"}]",
         "x.yaml:3: rules[0].track: \"/{t}\": has a name other than {track}, {quality}, {n} and {ext}"},
        {"rules: [{match: /b, override: true}]",
         "x.yaml:3: rules[0].override: needs a `ttl` to put in place of the origin's"},
        {"rules: [{match: /b, cache: false, ttl: 5m}]",
         "x.yaml:3: rules[0].cache: is false, so the rule cannot have ttl, immutable or stale_*"},
        {"rules: [{match: /b, signed: true}]",
         "x.yaml:3: rules[0].signed: is true, but the file has no `signing`"},
        {"rules: [{match: /b, methods: [GET, CONNECT]}]",
         "x.yaml:3: rules[0].methods[1]: expected one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, got "
         "\"CONNECT\""},
        {"rules: [{match: /b, methods: [[GET]]}]", "x.yaml:3: rules[0].methods[0]: expected one of GET, "
                                                   "HEAD, POST, PUT, PATCH, DELETE, OPTIONS, got \"\""},
        {"rules: [{match: /b, methods: any}]",
         "x.yaml:3: rules[0].methods: expected `all` or a list such as [GET, HEAD, POST]"},
        {"rules: [{match: /b, methods: {GET: 1}}]",
         "x.yaml:3: rules[0].methods: expected `all` or a list such as [GET, HEAD, POST]"},
        {"rules: [{match: /b, methods: []}]",
         "x.yaml:3: rules[0].methods: expected `all` or a list such as [GET, HEAD, POST]"},
        {"rules: [{match: /b, keep_query: [uid]}]\nsigning: {keys: keys.yaml}",
         "x.yaml:3: rules[0].keep_query[0]: \"uid\" is a parameter of signed URLs and never enters the cache "
         "key"},
        {"rules: [{match: /b, ttl: 11y}]", "x.yaml:3: rules[0].ttl: must be at most 10y, got \"11y\""},
        {"rules: [{match: /b, ttl: 500ms}]", "x.yaml:3: rules[0].ttl: expected whole seconds, got \"500ms\""},
    };
    run(PROXY_ROLE_EDGE, EDGE_HEAD, cases, ARRAY_LEN(cases));
}

static void test_places_refused(void **state)
{
    (void)state;
#define EXPECTED_ADDRESS "expected an address and a port such as 127.0.0.1:8080 or [::1]:8080, got "
    static const struct refusal edge[] = {
        {"upstreams: [{url: \"http://a\"}]", "x.yaml:1: the key \"listen\" is missing"},
        {"listen: []\nupstreams: [{url: \"http://a\"}]",
         "x.yaml:1: listen: expected at least 1 entry, got 0"},
        {"listen: [{address: \"127.0.0.1:1\"}]", "x.yaml:1: the key \"upstreams\" is missing"},
        {"listen: [{address: \"127.0.0.1:1\"}]\nupstreams: []",
         "x.yaml:2: upstreams: expected at least 1 entry, got 0"},
        {"listen: [{address: \"127.0.0.1\"}]\nupstreams: [{url: \"http://a\"}]",
         "x.yaml:1: listen[0].address: " EXPECTED_ADDRESS "\"127.0.0.1\""},
        {"listen: [{address: \"localhost:80\"}]\nupstreams: [{url: \"http://a\"}]",
         "x.yaml:1: listen[0].address: " EXPECTED_ADDRESS "\"localhost:80\""},
        {"listen: [{address: \"127.0.0.1:0\"}]\nupstreams: [{url: \"http://a\"}]",
         "x.yaml:1: listen[0].address: " EXPECTED_ADDRESS "\"127.0.0.1:0\""},
        {"listen: [{address: \"127.0.0.1:65536\"}]\nupstreams: [{url: \"http://a\"}]",
         "x.yaml:1: listen[0].address: " EXPECTED_ADDRESS "\"127.0.0.1:65536\""},
        {"listen: [{address: \"::1:80\"}]\nupstreams: [{url: \"http://a\"}]",
         "x.yaml:1: listen[0].address: " EXPECTED_ADDRESS "\"::1:80\""},
        {"listen: [{address: \"127.0.0.1:1\"}, {address: \"127.0.0.1:1\"}]\nupstreams: [{url: \"http://a\"}]",
         "x.yaml:1: listen[1].address: is the same as that of listen[0]"},
        {"listen: [{address: \"127.0.0.1:1\"}]\nupstreams: [{url: \"ftp://a\"}]",
         "x.yaml:2: upstreams[0].url: expected a URL such as http://127.0.0.1:8081, got \"ftp://a\""},
        {"listen: [{address: \"127.0.0.1:1\"}]\nupstreams: [{url: \"file:///a\"}]",
         "x.yaml:2: upstreams[0].url: expected a URL such as http://127.0.0.1:8081, got \"file:///a\""},
        {"listen: [{address: \"127.0.0.1:1\"}]\nupstreams: [{url: \"http://u@a\"}]",
         "x.yaml:2: upstreams[0].url: expected a URL such as http://127.0.0.1:8081, got \"http://u@a\""},
        {"listen: [{address: \"127.0.0.1:1\"}]\nupstreams: [{url: \"http://a/b/../c\"}]",
         "x.yaml:2: upstreams[0].url: \"http://a/b/../c\": path segment . or .."},
        {"listen: [{address: \"127.0.0.1:1\"}]\nupstreams: [{url: \"http://a\", weight: 0}]",
         "x.yaml:2: upstreams[0].weight: must be at least 1, got \"0\""},
        {"listen: [{address: \"127.0.0.1:1\"}]\nupstreams: [{url: \"http://a\", backup: true}]",
         "x.yaml:2: upstreams: all of them are backups, at least one may not be"},
        {"listen: [{address: \"127.0.0.1:1\"}]\nupstreams: [{url: \"http://a\", host: \"a b\"}]",
         "x.yaml:2: upstreams[0].host: expected a host name, got \"a b\""},
    };
    static const struct refusal shield[] = {
        {"listen: [{address: \"0.0.0.0:81\"}]\norigins: [{url: \"http://a\"}]",
         "x.yaml:1: listen[0].address: 0.0.0.0:81 is not loopback, so the shield needs `peers: {token: "
         "FILE}`"},
        {"listen: [{address: \"127.0.0.1:1\"}]\norigins: [{url: \"file:///a%zz\"}]",
         "x.yaml:2: origins[0].url: \"file:///a%zz\" holds a bad escape"},
        {"listen: [{address: \"127.0.0.1:1\"}]\norigins: [{url: \"file:///a%00b\"}]",
         "x.yaml:2: origins[0].url: \"file:///a%00b\" holds a bad escape"},
        {"listen: [{address: \"127.0.0.1:1\"}]\norigins: [{url: \"file:///a\", host: a}]",
         "x.yaml:2: origins[0].host: means nothing for a file:// origin"},
        {"listen: [{address: \"127.0.0.1:1\"}]\norigins: [{url: \"http://a\", match: a}]",
         "x.yaml:2: origins[0].match: \"a\": path does not begin with /"},
        {"listen: [{address: \"127.0.0.1:1\"}]\norigins: [{url: \"http://a\", peer_token: t}]",
         "x.yaml:2: origins[0]: unknown key \"peer_token\"; known here: match, url, host, backup, "
         "max_connections, endpoint, region, credentials, tls"},
    };
    run(PROXY_ROLE_EDGE, "", edge, ARRAY_LEN(edge));
    run(PROXY_ROLE_SHIELD, "", shield, ARRAY_LEN(shield));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_edge_defaults),
        cmocka_unit_test(test_whole_edge),
        cmocka_unit_test(test_shield),
        cmocka_unit_test(test_signing_not_required),
        cmocka_unit_test(test_relative_to_the_file),
        cmocka_unit_test(test_not_available),
        cmocka_unit_test(test_edge_refused),
        cmocka_unit_test(test_rules_refused),
        cmocka_unit_test(test_places_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
