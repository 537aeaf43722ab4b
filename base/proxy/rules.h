// What a path is told to do: patterns, track templates and the rules that hold them. Compiled once at load
// into the snapshot's arena, immutable after; matching allocates nothing and never takes more than
// O(path x pattern) steps.
//
// Patterns are matched against the canonical path (http/url.h), so they hold canonical text themselves:
//
//     /covers/front.jpg   exactly this path
//     /images/*/small     '*' as a whole segment: exactly one segment, of at least one byte
//     /tracks/**/*.m3u8   '*' within a segment: any bytes but '/', also none
//     /tracks/**          '**', always a whole segment: any number of segments, also none
//
// The empty last segment of a path that ends in '/' is matched by '**' and by a pattern that ends in '/', not
// by '*'.
#pragma once

#include "http/markets.h"
#include "util/arena.h"
#include "util/str.h"

#define RULES_MAX         1024 /* first match wins by a walk; a walk of more would cost more than a request */
#define PATTERN_BYTES_MAX 1024
#define RULE_INDEX_NONE   UINT32_MAX

struct pattern_segment;

struct pattern {
    struct str text;   /* as configured */
    struct str prefix; /* the literal segments at its front, "/tracks"; what most paths are told apart by */
    struct str suffix; /* literal text at its end, ".m3u8"; so most of the others need no walk either */
    const struct pattern_segment *segments; /* what follows the prefix */
    unsigned segments_n;
};

/* Returns 0, or -EINVAL and in *why what is wrong, for an error message. Everything it keeps is in `a`. */
int pattern_compile(struct str text, struct arena *a, struct pattern *out, const char **why);
/* Byte by byte as they are meant: whether pattern or path write one as it is or as an escape is all the same. */
bool pattern_matches(const struct pattern *pattern, struct str canonical_path);

/* "/tracks/{track}/{quality}/{n}.{ext}". {track} and {quality} match one byte or more without '/', the
 * shortest run that the text after them allows; {n} a decimal number; {ext} what follows the last '.' of its
 * segment. Every name at most once, with text between two of them; {track} is required. */
struct track_template;

struct track_name {
    struct str track;   /* these point into the path */
    struct str quality; /* empty when the template has none */
    struct str ext;     /* without its dot */
    bool has_number;
    uint64_t number;
};

int track_compile(struct str text, struct arena *a, const struct track_template **out, const char **why);
bool track_extract(const struct track_template *t, struct str path, struct track_name *out);

enum rule_signing {
    RULE_SIGNING_IGNORED,  /* tokens and uid mean nothing here */
    RULE_SIGNING_OPTIONAL, /* a token that is there must be valid (signing.required: false) */
    RULE_SIGNING_REQUIRED,
};

enum rule_query {
    RULE_QUERY_NONE,   /* key and upstream see no query */
    RULE_QUERY_LISTED, /* the parameters of `keep_query`, in that order */
    RULE_QUERY_ALL,    /* all, but for a token's where the rule does not ignore tokens */
};

enum rule_method {
    RULE_METHOD_GET = 1 << 0,
    RULE_METHOD_HEAD = 1 << 1,
    RULE_METHOD_POST = 1 << 2,
    RULE_METHOD_PUT = 1 << 3,
    RULE_METHOD_PATCH = 1 << 4,
    RULE_METHOD_DELETE = 1 << 5,
    RULE_METHOD_OPTIONS = 1 << 6,
    RULE_METHOD_ALL = 1 << 7, /* also those that have no bit; never CONNECT or TRACE */
};

/* 0 for a name that has no bit. */
unsigned rule_method_of(struct str name);

struct rule {
    struct pattern match;
    unsigned index; /* its place in the file, from 0, or RULE_INDEX_NONE */
    bool cache;     /* false: passed, not stored; so with `cache: false`, and where no rule matches */
    enum rule_signing signing;

    /* Freshness. A *_given that is false leaves it to the answer's own fields and to heuristics. */
    bool ttl_given;
    bool override; /* the ttl replaces the origin's own freshness */
    bool immutable;
    uint64_t ttl_s;
    uint64_t negative_ttl_s; /* 404, 410 and the like that carry no freshness of their own */
    bool swr_given, sie_given;
    uint64_t stale_while_revalidate_s; /* where the answer has none of its own */
    uint64_t stale_if_error_s;

    bool
        client_cache_control; /* honour no-cache and the like of a request; false by default, as a CDN must */
    bool store_set_cookie;    /* a response with Set-Cookie may be stored, without that field */
    bool
        store_authorization; /* a request with Authorization may be answered from the cache (RFC 9111, 3.5) */

    enum rule_query query;
    const struct str *keep_query; /* sorted, no duplicates */
    unsigned keep_query_n;

    unsigned methods;                   /* enum rule_method */
    const struct markets *markets;      /* where it may be heard, or NULL: anywhere */
    struct str allow;                   /* for the Allow field: "GET, HEAD" */
    const struct track_template *track; /* or NULL */
};

struct rules {
    const struct rule *items; /* in the order of the file */
    unsigned n;
    struct rule none; /* what holds where nothing matches: passed, not cached */
};

/* Never NULL: the first that matches, or &rules->none. */
const struct rule *rules_find(const struct rules *rules, struct str canonical_path);
