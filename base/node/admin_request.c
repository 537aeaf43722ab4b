/* Who may ask what of the admin server, and the shape of its answers. No I/O. */
#include "node/admin_internal.h"

#include "http/date.h"
#include "util/check.h"
#include "util/clock.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* --- token and hosts --- */

void admin_access_free(struct admin_access *access)
{
    if (access->token.p != NULL) {
        OPENSSL_cleanse((void *)(uintptr_t)access->token.p, access->token.n);
        free((void *)(uintptr_t)access->token.p);
    }
    for (size_t i = 0; i < access->hosts_n; i++)
        free((void *)(uintptr_t)access->hosts[i].p);
    free(access->hosts);
    *access = (struct admin_access){0};
}

static int copy_str(struct str *to, struct str from)
{
    char *p = malloc(from.n + 1);

    if (p == NULL)
        return -ENOMEM;
    if (from.n > 0)
        memcpy(p, from.p, from.n);
    *to = str_of(p, from.n);
    return 0;
}

int admin_access_copy(struct admin_access *to, const struct admin_options *options)
{
    struct admin_access copy = {0};

    if (copy_str(&copy.token, options->token) != 0)
        goto fail;
    copy.hosts = calloc(options->hosts_n + 1, sizeof *copy.hosts);
    if (copy.hosts == NULL)
        goto fail;
    for (; copy.hosts_n < options->hosts_n; copy.hosts_n++)
        if (copy_str(&copy.hosts[copy.hosts_n], options->hosts[copy.hosts_n]) != 0)
            goto fail;
    *to = copy;
    return 0;

fail:
    admin_access_free(&copy);
    return -ENOMEM;
}

/* A name that somebody else's DNS may point here (rebinding) is not served; an address cannot be one. */
static bool host_allowed(const struct admin_access *access, struct str value)
{
    struct url_host host;
    struct address unused;

    if (value.n == 0 || url_host_parse(value, &host) != 0)
        return false;
    if (host.is_ipv6 || address_parse_ip(host.name, &unused) == 0 ||
        str_eq_nocase(host.name, STR("localhost")))
        return true;
    for (size_t i = 0; i < access->hosts_n; i++)
        if (str_eq_nocase(host.name, access->hosts[i]))
            return true;
    return false;
}

/* RFC 6750, 2.1. The time taken tells no more than the token's length. */
static bool token_given(const struct admin_access *access, const struct fields *fields, const char *base)
{
    static const struct str scheme = STR_INIT("Bearer ");
    struct str value = fields_get(fields, base, FIELD_AUTHORIZATION);

    if (access->token.n == 0 || fields_count(fields, FIELD_AUTHORIZATION) != 1 || value.n < scheme.n ||
        !str_eq_nocase(str_of(value.p, scheme.n), scheme))
        return false;
    value = str_trim_ows(str_skip(value, scheme.n));
    return value.n == access->token.n && CRYPTO_memcmp(value.p, access->token.p, value.n) == 0;
}

/* --- routes --- */

static bool method_matches(const struct admin_route_entry *route, struct str method)
{
    return str_eq(str_z(route->method), method) ||
           (str_eq(method, STR("HEAD")) && strcmp(route->method, "GET") == 0);
}

int admin_judge(const struct admin *a, struct admin_connection *c, struct admin_reply *reply)
{
    const char *base = c->in.p;
    const struct http1_request *r = &c->request;
    struct str method = http1_method(r, base), path = url_target_split(http1_target(r, base)).path;
    const struct admin_route_entry *found = NULL;
    bool known_path = false;

    if (!c->local && !host_allowed(&a->access, http1_host(r, base))) {
        admin_problem(reply, 421, "The Host must be an address, localhost or in admin.hosts.");
        return -1;
    }
    if (r->target_form == HTTP_TARGET_ORIGIN || r->target_form == HTTP_TARGET_ABSOLUTE) {
        for (unsigned i = 0; i < a->routes_n && found == NULL; i++) {
            if (!str_eq(str_z(a->routes[i].path), path))
                continue;
            known_path = true;
            if (method_matches(&a->routes[i], method))
                found = &a->routes[i];
        }
    }
    /* Before 404 and 405, so that a stranger learns nothing of what there is. */
    if (!c->local && (found == NULL || !(found->flags & ADMIN_OPEN)) &&
        !token_given(&a->access, &r->fields, base)) {
        admin_problem(reply, 401, "This needs the admin token.");
        return -1;
    }
    if (found == NULL) {
        if (known_path)
            admin_problem(reply, 405, "This path has other methods.");
        else
            admin_problem(reply, 404, "There is nothing at this path.");
        /* RFC 9110, 15.5.6: the methods are told in Allow. */
        for (unsigned i = 0; i < a->routes_n; i++)
            if (str_eq(str_z(a->routes[i].path), path))
                grow_printf(&c->out, "%s%s", c->out.n > 0 ? ", " : "",
                            strcmp(a->routes[i].method, "GET") == 0 ? "GET, HEAD" : a->routes[i].method);
        return -1;
    }
    if (r->framing == HTTP_BODY_LENGTH && r->content_length > ADMIN_BODY_BYTES_MAX) {
        admin_problem(reply, 413, "A body has at most %u bytes.", ADMIN_BODY_BYTES_MAX);
        return -1;
    }
    c->route = found;
    return 0;
}

void admin_route(struct admin *a, const char *method, const char *path, unsigned flags, admin_handler handler,
                 void *context)
{
    CHECK_MAGIC(a, ADMIN_MAGIC);
    CHECK(a->routes_n < ADMIN_ROUTES_MAX);
    a->routes[a->routes_n++] = (struct admin_route_entry){method, path, flags, handler, context};
}

/* --- replies --- */

void admin_problem(struct admin_reply *reply, int status, const char *format, ...)
{
    char detail[512];
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    grow_free(&reply->body);
    reply->status = status;
    reply->content_type = "application/problem+json";
    grow_add_lit(&reply->body, "{\"type\":\"about:blank\",\"title\":");
    grow_add_json(&reply->body, str_z(http_status_reason((unsigned)status)));
    grow_printf(&reply->body, ",\"status\":%d,\"detail\":", status);
    grow_add_json(&reply->body, str_of(detail, n < 0                       ? 0
                                               : (size_t)n < sizeof detail ? (size_t)n
                                                                           : sizeof detail - 1));
    grow_add_lit(&reply->body, "}\n");
}

void admin_render_head(const struct admin_connection *c, const struct admin_reply *reply, struct grow *out)
{
    struct grow allow = *out; /* admin_judge left the methods there */
    char date[DATE_BYTES];

    *out = grow_of(ADMIN_HEAD_BYTES_MAX);
    date_format((int64_t)clock_unix_s(), date);
    grow_printf(out, "HTTP/1.1 %d %s\r\nDate: %.*s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n",
                reply->status, http_status_reason((unsigned)reply->status), DATE_BYTES, date,
                reply->content_type, reply->body.n);
    grow_add_lit(out, "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
    if (reply->status == 401)
        grow_add_lit(out, "WWW-Authenticate: Bearer\r\n");
    if (reply->status == 405)
        grow_printf(out, "Allow: %.*s\r\n", (int)allow.n, allow.p ? allow.p : "");
    grow_add_z(out, c->close_after ? "Connection: close\r\n\r\n" : "\r\n");
    grow_free(&allow);
}

/* --- for handlers --- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int percent_decode(struct str s, struct buf *out)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];

        if (c == '%') {
            int high = i + 2 < s.n ? hex_digit(s.p[i + 1]) : -1;
            int low = i + 2 < s.n ? hex_digit(s.p[i + 2]) : -1;

            if (high < 0 || low < 0 || (high == 0 && low == 0))
                return -EINVAL;
            c = (char)(high << 4 | low);
            i += 2;
        }
        buf_add_char(out, c);
    }
    return out->overflow ? -EINVAL : 0;
}

int admin_query(const struct admin_request *request, struct str name, struct buf *out)
{
    struct str rest = request->query;
    struct url_param param;

    while (url_query_next(&rest, &param))
        if (url_name_is(param.name, name))
            return percent_decode(param.value, out);
    return -ENOENT;
}
