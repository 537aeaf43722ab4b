/* Where a request comes from, and whether what it asks for may be heard there. */
#include "proxy/conn.h"
#include "proxy/request.h"

static void look_up(struct worker *w, const struct ip *address, char country[2])
{
    if (geo_country(w->territory->geo, address, country))
        stat_inc(&w->stats.geo_known);
    else
        stat_inc(&w->stats.geo_unknown);
}

/* A connection's own address is looked up once, and again only in another database. */
void request_find_country(struct request *r)
{
    const struct territory *t = r->worker->territory;
    struct conn *c = r->carrier->conn;
    struct ip client = address_ip(&r->client), peer = address_ip(&c->peer);

    if (t == NULL || t->geo == NULL)
        return;
    if (!ip_eq(&client, &peer)) {
        look_up(r->worker, &client, r->country);
        return;
    }
    if (c->geo_serial != geo_serial(t->geo)) {
        look_up(r->worker, &peer, c->country);
        c->geo_serial = geo_serial(t->geo);
    }
    memcpy(r->country, c->country, sizeof r->country);
}

static unsigned refuse(struct request *r, uint64_t *count, const char *reason, const char **detail,
                       const char *why)
{
    stat_inc(count);
    r->reason = reason;
    *detail = why;
    return 403;
}

unsigned request_check_territory(struct request *r, const char **detail)
{
    static const char here[] = "not available in this market";
    struct proxy_stats *stats = &r->worker->stats;
    const struct territory *t = r->worker->territory;
    struct str country = str_of(r->country, sizeof r->country);

    if (r->rule->markets != NULL && !markets_allow(r->rule->markets, country))
        return refuse(r, &stats->geo_blocked[STAT_GEO_RULE], "geo", detail, here);
    if (t == NULL || t->rights == NULL)
        return 0;
    switch (rights_check(t->rights, r->path, country)) {
    case RIGHTS_ALLOWED:
        break;
    case RIGHTS_NOT_HERE:
        return refuse(r, &stats->geo_blocked[STAT_GEO_RIGHTS], "geo", detail, here);
    case RIGHTS_TAKEN_DOWN:
        return refuse(r, &stats->taken_down, "rights", detail, "no longer available");
    }
    return 0;
}
