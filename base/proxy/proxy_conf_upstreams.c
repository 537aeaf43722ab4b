/* Upstreams of an edge and origins of a shield. */
#include "proxy/proxy_conf_raw.h"

#define WEIGHT_MAX          1000
#define CONNECTIONS_DEFAULT 1024
#define CONNECTIONS_MAX     100000

struct place {
    const char *list; /* "upstreams" or "origins" */
    unsigned index;
};

#define PLACE_PATH(p, key) CONF_PATH("%s[%u]." key, (p)->list, (p)->index)

static int hex_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* "/srv/my%20music/" of a file URL as the folder "/srv/my music". */
static void load_folder(struct loader *l, const struct place *place, struct str path,
                        struct proxy_upstream *u)
{
    char *folder = arena_alloc(l->a, path.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < path.n; i++) {
        char c = path.p[i];
        if (c == '%') {
            int high = i + 2 < path.n ? hex_value(path.p[i + 1]) : -1;
            int low = i + 2 < path.n ? hex_value(path.p[i + 2]) : -1;
            if (high < 0 || low < 0 || (high | low) == 0) {
                conf_fail(l->conf, PLACE_PATH(place, "url"), "\"%.80s\" holds a bad escape", u->url.p);
                return;
            }
            c = (char)(high << 4 | low);
            i += 2;
        }
        folder[n++] = c;
    }
    while (n > 1 && folder[n - 1] == '/')
        n--;
    folder[n] = '\0';
    u->path = str_of(folder, n);
    if (n == 0 || folder[0] != '/')
        conf_fail(l->conf, PLACE_PATH(place, "url"),
                  "expected a folder such as file:///srv/audio, got \"%.80s\"", u->url.p);
}

static void load_http(struct loader *l, const struct place *place, const struct url *url,
                      struct proxy_upstream *u)
{
    char scratch[1024]; /* the schema bounds every text to as much */
    struct str path = url->path;
    while (path.n > 0 && path.p[path.n - 1] == '/')
        path.n--;
    int rc = path.n > 0 ? url_path_canonical(path, scratch, &path) : 0;
    if (rc < 0)
        conf_fail(l->conf, PLACE_PATH(place, "url"), "\"%.80s\": %s", u->url.p, url_error_reason(rc));
    else
        u->path = arena_str(l->a, path);
    u->host = load_lower(l, url->host);
    u->port = url->port;

    char authority[300];
    struct buf b = buf_of(authority, sizeof(authority));
    buf_printf(&b, url->host_is_ipv6 ? "[%s]" : "%s", u->host.p);
    if (u->port != (u->scheme == URL_HTTPS ? 443 : 80))
        buf_printf(&b, ":%u", u->port);
    if (b.overflow)
        conf_fail(l->conf, PLACE_PATH(place, "url"), "has a host name that is too long");
    u->host_field = arena_str(l->a, buf_str(&b));
}

static void load_url(struct loader *l, const struct place *place, struct proxy_upstream *u)
{
    bool shield = l->out->role == PROXY_ROLE_SHIELD;
    struct url url;
    if (str_starts(u->url, STR("s3:")) || str_starts(u->url, STR("gs:"))) {
        conf_fail(l->conf, PLACE_PATH(place, "url"),
                  "\"%.80s\": " STR_FMT " is not available in this version", u->url.p,
                  (int)(strchr(u->url.p, ':') - u->url.p), u->url.p);
        return;
    }
    if (url_parse(u->url, &url) < 0 || (url.scheme == URL_FILE && !shield)) {
        conf_fail(l->conf, PLACE_PATH(place, "url"), "expected a URL such as %s, got \"%.80s\"",
                  shield ? "http://origin.example.net or file:///srv/audio" : "http://127.0.0.1:8081",
                  u->url.p);
        return;
    }
    u->scheme = url.scheme;
    if (url.scheme == URL_FILE)
        load_folder(l, place, url.path, u);
    else
        load_http(l, place, &url, u);
}

static void load_upstream(struct loader *l, const struct place *place, const struct raw_upstream *raw,
                          struct proxy_upstream *u)
{
    struct url_host host;
    const char *why;
    u->url = arena_str(l->a, str_z(raw->url));
    load_url(l, place, u);
    u->backup = raw->backup != NULL && *raw->backup;
    u->weight = (unsigned)conf_number(l->conf, PLACE_PATH(place, "weight"), raw->weight, 1, 1, WEIGHT_MAX);
    u->connections_max = (unsigned)conf_number(l->conf, PLACE_PATH(place, "max_connections"),
                                               raw->max_connections, CONNECTIONS_DEFAULT, 1, CONNECTIONS_MAX);
    if (u->scheme == URL_HTTPS && conf_status(l->conf) == 0)
        load_upstream_tls(l, PLACE_PATH(place, "tls"), raw->tls, u);
    else if (raw->tls != NULL && u->scheme != URL_HTTPS)
        conf_fail(l->conf, PLACE_PATH(place, "tls"), "is for https:// only");
    if (raw->peer_token != NULL)
        u->peer_token = load_token(l, PLACE_PATH(place, "peer_token"), raw->peer_token);
    if (raw->host != NULL && u->scheme == URL_FILE)
        conf_fail(l->conf, PLACE_PATH(place, "host"), "means nothing for a file:// origin");
    else if (raw->host != NULL && url_host_parse(str_z(raw->host), &host) < 0)
        conf_fail(l->conf, PLACE_PATH(place, "host"), "expected a host name, got \"%.80s\"", raw->host);
    else if (raw->host != NULL)
        u->host_field = load_lower(l, str_z(raw->host));
    if (pattern_compile(str_z(raw->match != NULL ? raw->match : "/**"), l->a, &u->match, &why) < 0)
        conf_fail(l->conf, PLACE_PATH(place, "match"), "\"%.80s\": %s", raw->match, why);
}

/* Keys of the contract that belong to what is not built yet. */
static void refuse_unbuilt(struct loader *l, const struct place *place)
{
    static const char *const keys[] = {"endpoint", "region", "credentials"};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        struct conf_path path = conf_path_of("%s[%u].%s", place->list, place->index, keys[i]);
        if (conf_has(l->conf, path.text))
            conf_fail(l->conf, path.text, "is not available in this version");
    }
}

void load_upstreams(struct loader *l)
{
    struct place place = {.list = l->out->role == PROXY_ROLE_SHIELD ? "origins" : "upstreams"};
    struct proxy_upstream *items = arena_new(l->a, struct proxy_upstream, l->raw->upstreams_count);
    bool all_backup = true;
    l->out->upstreams = items;
    l->out->upstreams_n = l->raw->upstreams_count;
    for (unsigned i = 0; i < l->raw->upstreams_count && conf_status(l->conf) == 0; i++) {
        place.index = i;
        load_upstream(l, &place, &l->raw->upstreams[i], &items[i]);
        refuse_unbuilt(l, &place);
        all_backup = all_backup && items[i].backup;
    }
    if (all_backup)
        conf_fail(l->conf, place.list, "all of them are backups, at least one may not be");
}
