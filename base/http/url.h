/* Request targets, hosts and configured URLs (RFC 3986; interfaces.md, "Signed URLs", for what a path may
 * be). Pure; results point into the input or into memory the caller gave.
 *
 * A path is judged once and has one canonical form, which rules, cache key and upstream all see: escapes of
 * unreserved characters decoded, other escapes in upper case, all else as sent. An empty last segment
 * ("/artists/") is a directory's name and allowed; an empty one anywhere else is not. "/" is allowed. */
#pragma once

#include "util/buf.h"

/* Why a path is refused; returned negated. Each is a 400. */
enum url_error {
    URL_NOT_ABSOLUTE = 1, /* empty, or does not begin with "/" */
    URL_EMPTY_SEGMENT,
    URL_DOT_SEGMENT,   /* "." or "..", encoded or not */
    URL_BAD_ESCAPE,    /* % without two hex digits */
    URL_ENCODED_SLASH, /* %2F, %5C */
    URL_ENCODED_NUL,
    URL_BAD_BYTE, /* backslash, "#", "?", a space, a control or non-ASCII byte */
    URL_ERROR_COUNT
};

const char *url_error_reason(int error); /* of the negated enum */

struct url_target {
    struct str path;
    struct str query; /* without its "?"; p is NULL when there is none */
};

/* At the first "?". No judgement. */
struct url_target url_target_split(struct str target);

/* Judges a raw path and gives its canonical form: the raw bytes themselves where they are canonical already
 * (as nearly always), else in scratch, which has room for raw.n bytes. Returns 0, or -enum url_error. An
 * encoded control or non-ASCII byte other than %00 is allowed and stays encoded. */
int url_path_canonical(struct str raw, char *scratch, struct str *canonical);

/* What most servers above make of a canonical path: every escape is the byte it means. For comparing only: with
 * %28 for "(" nobody gets around what is said of a path. No "/" and no NUL comes of it. What is beyond cap bytes is cut
 * off. The result lies in the path, when that has no escapes, or in out, which may be where the path is. */
struct str url_path_decode(struct str canonical, char *out, size_t cap);

/* The segments of a judged path, in order: "/a/b" gives "a", "b"; "/a/" gives "a", ""; "/" gives "". Start
 * with *rest = path. */
bool url_segment_next(struct str *rest, struct str *segment);

struct url_param {
    struct str name, value; /* as sent */
    bool has_value;         /* there was a "=" */
};

/* Parameters between "&", in order; empty ones are left out. Start with *rest = query. */
bool url_query_next(struct str *rest, struct url_param *param);

/* Does a parameter's name, as sent, mean this name? Escapes are decoded, case matters. */
bool url_name_is(struct str sent, struct str name);

/* Appends what of the query enters key and upstream, in canonical form (as for paths; a "%" that begins no
 * escape becomes "%25", bytes outside ASCII are escaped). Nothing kept adds nothing. Check out->overflow;
 * three times the query's length always suffices. */
void url_query_keep(struct str query, const struct str *names, size_t n,
                    struct buf *out); /* only these, in the
                                        order of names */
void url_query_keep_all_but(struct str query, const struct str *names, size_t n,
                            struct buf *out); /* in order sent */

enum url_scheme { URL_HTTP, URL_HTTPS, URL_FILE };

/* A configured URL: http://host[:port][/path], https://..., file:///dir. No user, query or fragment. */
struct url {
    enum url_scheme scheme;
    struct str host; /* without brackets; empty for file */
    uint16_t port;   /* the scheme's where none is given; 0 for file */
    struct str path; /* from "/" on, or empty */
    bool host_is_ipv6;
};

/* Returns 0 or -EINVAL. */
int url_parse(struct str text, struct url *out);

struct url_host {
    struct str name; /* without brackets and port */
    uint16_t port;   /* 0: none given */
    bool is_ipv6;
};

/* The value of Host (RFC 9110, 7.2): reg-name, IPv4 or [IPv6], with or without :port. Returns 0 or -EINVAL.
 */
int url_host_parse(struct str value, struct url_host *out);

/* Same name without case, and same port where default_port stands for none. */
bool url_host_eq(const struct url_host *a, const struct url_host *b, uint16_t default_port);
