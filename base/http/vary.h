/* Vary (RFC 9110, 12.5.5; RFC 9111, 4.1): which request fields a response depends on, and a key of their
 * values. */
#pragma once

#include "http/fields.h"
#include "util/buf.h"
#include "util/hash.h"

/* All Vary fields of a response as one list of names, lower case, sorted, each once, joined by ",". Returns
 * the number of names (0: no Vary), or -EINVAL for "*" and for a member that is no token, -ENOSPC above
 * HTTP_VARY_NAMES_MAX names or HTTP_VARY_BYTES_MAX bytes; either error: matches no later request, do not
 * store. out has HTTP_VARY_BYTES_MAX bytes. */
int vary_names(const struct fields *response, const char *base, struct buf *out);

/* The key of a request among the variants of one object. names is what vary_names wrote. Values are compared
 * with repeated fields joined and whitespace around members normalised; Accept-Encoding also without case.
 * Absent and empty differ. No names: the same key for every request. */
struct hash128 vary_key(struct str names, const struct fields *request, const char *base);
