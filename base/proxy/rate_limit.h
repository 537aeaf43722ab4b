/* What one user or one address may have: requests at a rate, and connections at once. The tables belong to the
 * process and are shared by its workers; they survive reloads, the limits themselves come with each
 * configuration. A client's address is an IPv4 address or an IPv6 /64 (ip_client_network).
 *
 * It decides, counts and logs; to answer 429 or to close the connection is the caller's. A table that has no place
 * for somebody lets him pass, counted in rate_limit_uncounted_total. */
#pragma once

#include "net/address.h"
#include "proxy/worker.h"
#include "util/address_count.h"
#include "util/rate_table.h"

struct rate_limits {
    struct rate_table *requests;
    struct address_count *connections;
};

/* Sizes come from the configuration. NULL: no memory. No limit is needed for the tables to be there, since a reload
 * may bring one; what is not used costs no memory. */
struct rate_limits *rate_limits_create(const struct proxy_conf *conf);
/* No connection is left. */
void rate_limits_destroy(struct rate_limits **l);

/* A request of this client, with the uid of its valid signature or none. 0: within its limits, and counted. Else the
 * whole seconds after which it may come again, 1 or more. */
uint32_t rate_limit_request(struct worker *w, const struct proxy_rate_limit *limit, struct str uid,
                            struct address client);

/* A connection from this address begins, as soon as that is known for good (after a PROXY header where one comes).
 * False: it has as many as it may, and this one is to be closed at once. Else *slot is given back by
 * rate_limit_leave, exactly once; 0 if it is not counted. Trusted proxies bring many clients and are not
 * counted. */
bool rate_limit_enter(struct worker *w, const struct address *peer, uint32_t *slot);
void rate_limit_leave(struct worker *w, uint32_t *slot);
