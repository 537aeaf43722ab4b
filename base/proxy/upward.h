/* The head of a request that goes up: what of the client's fields is passed on, and what is added. */
#pragma once

#include "http/fields.h"
#include "util/buf.h"

struct fill;

/* Whether the answer is stored or shared decides which fields may go up. */
enum upward_use {
    UPWARD_FILL,         /* cacheable: no Range, no conditionals, no Cookie, nothing of one client alone */
    UPWARD_PASS,         /* passed: all that is end to end */
    UPWARD_PASS_OPTIONS, /* the same, and Max-Forwards counts down (RFC 9110, 7.6.2) */
};

/* Adds the lines to pass on. Never hop-by-hop fields, Host, Content-Length, X-Forwarded-For, CDN-Loop, Via,
 * peer tokens or Expect. Check out->overflow. */
void upward_fields(const struct fields *fields, const char *base, enum upward_use use, struct buf *out);

/* The variant a request selects among those of an answer with this Vary (http/vary.h), never 0. Fields that
 * do not go up with a fill do not count: the answer was chosen without them. */
uint64_t upward_variant(struct str vary, const struct fields *fields, const char *base);

/* Renders f->out for f->upstream: request line, Host, the fields, then Range, conditionals, framing, Via,
 * CDN-Loop (RFC 8586) and peer token as they apply. Sets f->asked_range. 0 or -ENOMEM. */
int upward_render(struct fill *f);
/* Frees that head, in which the upstream's token stands. */
void upward_forget(struct fill *f);

/* True when CDN-Loop says that this process has passed the request on already. */
bool upward_is_loop(const struct fields *fields, const char *base, struct str name, const char *instance);

/* True when an OPTIONS request is not to go any further: its Max-Forwards is 0 (RFC 9110, 7.6.2). */
bool upward_ends_here(const struct fields *fields, const char *base);

/* The field that carries `peer_token`. */
#define UPWARD_PEER_FIELD "Segue-Peer"
