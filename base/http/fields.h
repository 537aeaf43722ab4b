/* Header fields of one head, as offsets into its bytes (RFC 9110, 5). The bytes belong to whoever holds the
 * head; when they are copied elsewhere, only the base pointer handed in here changes. The parser fills the
 * table; nothing here allocates or changes the bytes.
 *
 * Names that Segue knows have an id; finding those is O(1), repeated ones are chained. */
#pragma once

#include "util/limits.h"
#include "util/str.h"

/* X(id, name as written) */
#define FIELD_LIST(X)                                                                                        \
    X(ACCEPT, "Accept")                                                                                      \
    X(ACCEPT_ENCODING, "Accept-Encoding")                                                                    \
    X(ACCEPT_LANGUAGE, "Accept-Language")                                                                    \
    X(ACCEPT_RANGES, "Accept-Ranges")                                                                        \
    X(AGE, "Age")                                                                                            \
    X(ALLOW, "Allow")                                                                                        \
    X(AUTHORIZATION, "Authorization")                                                                        \
    X(CACHE_CONTROL, "Cache-Control")                                                                        \
    X(CACHE_STATUS, "Cache-Status")                                                                          \
    X(CDN_CACHE_CONTROL, "CDN-Cache-Control")                                                                \
    X(CDN_LOOP, "CDN-Loop")                                                                                  \
    X(CONNECTION, "Connection")                                                                              \
    X(CONTENT_ENCODING, "Content-Encoding")                                                                  \
    X(CONTENT_LENGTH, "Content-Length")                                                                      \
    X(CONTENT_LOCATION, "Content-Location")                                                                  \
    X(CONTENT_RANGE, "Content-Range")                                                                        \
    X(CONTENT_TYPE, "Content-Type")                                                                          \
    X(COOKIE, "Cookie")                                                                                      \
    X(DATE, "Date")                                                                                          \
    X(ETAG, "ETag")                                                                                          \
    X(EXPECT, "Expect")                                                                                      \
    X(EXPIRES, "Expires")                                                                                    \
    X(FORWARDED, "Forwarded")                                                                                \
    X(HOST, "Host")                                                                                          \
    X(IF_MATCH, "If-Match")                                                                                  \
    X(IF_MODIFIED_SINCE, "If-Modified-Since")                                                                \
    X(IF_NONE_MATCH, "If-None-Match")                                                                        \
    X(IF_RANGE, "If-Range")                                                                                  \
    X(IF_UNMODIFIED_SINCE, "If-Unmodified-Since")                                                            \
    X(KEEP_ALIVE, "Keep-Alive")                                                                              \
    X(LAST_MODIFIED, "Last-Modified")                                                                        \
    X(LOCATION, "Location")                                                                                  \
    X(ORIGIN, "Origin")                                                                                      \
    X(PRAGMA, "Pragma")                                                                                      \
    X(PROXY_AUTHENTICATE, "Proxy-Authenticate")                                                              \
    X(PROXY_AUTHENTICATION_INFO, "Proxy-Authentication-Info")                                                \
    X(PROXY_AUTHORIZATION, "Proxy-Authorization")                                                            \
    X(PROXY_CONNECTION, "Proxy-Connection")                                                                  \
    X(RANGE, "Range")                                                                                        \
    X(REFERER, "Referer")                                                                                    \
    X(RETRY_AFTER, "Retry-After")                                                                            \
    X(SERVER, "Server")                                                                                      \
    X(SET_COOKIE, "Set-Cookie")                                                                              \
    X(SURROGATE_CONTROL, "Surrogate-Control")                                                                \
    X(SURROGATE_KEY, "Surrogate-Key")                                                                        \
    X(TE, "TE")                                                                                              \
    X(TRAILER, "Trailer")                                                                                    \
    X(TRANSFER_ENCODING, "Transfer-Encoding")                                                                \
    X(UPGRADE, "Upgrade")                                                                                    \
    X(USER_AGENT, "User-Agent")                                                                              \
    X(VARY, "Vary")                                                                                          \
    X(VIA, "Via")                                                                                            \
    X(X_CACHE, "X-Cache")                                                                                    \
    X(X_FORWARDED_FOR, "X-Forwarded-For")

enum field_id {
    FIELD_OTHER, /* a name that Segue does not know */
#define FIELD_ENUM_(id, name) FIELD_##id,
    FIELD_LIST(FIELD_ENUM_)
#undef FIELD_ENUM_
        FIELD_ID_COUNT
};

_Static_assert(FIELD_ID_COUNT <= 64, "`present` has a bit for each");

#define FIELD_BIT(id) (1ull << (id))

struct field {
    uint16_t name_off, name_n;
    uint16_t value_off, value_n; /* without the whitespace around it */
    uint8_t id;                  /* enum field_id */
    uint8_t next;                /* index of the next field of the same known id, or FIELD_END */
};

#define FIELD_END 255

struct fields {
    uint64_t present; /* FIELD_BIT of every known id there is */
    uint8_t n;
    uint8_t first[FIELD_ID_COUNT]; /* set only where `present` has the bit */
    uint8_t last[FIELD_ID_COUNT];
    struct field at[HTTP_FIELDS_MAX];
};

/* A set of indices into fields.at. */
struct field_set {
    uint64_t bits[2];
};

enum field_id field_id_of(struct str name);
struct str field_id_name(enum field_id id); /* of FIELD_OTHER: empty */

static inline void fields_init(struct fields *f)
{
    f->present = 0;
    f->n = 0;
}

/* Adds one. Returns 0, or -ENOSPC when there are HTTP_FIELDS_MAX. Offsets and lengths fit 16 bits. */
int fields_add(struct fields *f, const char *base, size_t name_off, size_t name_n, size_t value_off,
               size_t value_n);

static inline bool fields_has(const struct fields *f, enum field_id id)
{
    return (f->present & FIELD_BIT(id)) != 0;
}

static inline struct str field_name(const struct fields *f, const char *base, unsigned i)
{
    return str_of(base + f->at[i].name_off, f->at[i].name_n);
}

static inline struct str field_value(const struct fields *f, const char *base, unsigned i)
{
    return str_of(base + f->at[i].value_off, f->at[i].value_n);
}

/* The first value of a known name; STR_NONE (p NULL) when there is none. */
static inline struct str fields_get(const struct fields *f, const char *base, enum field_id id)
{
    return fields_has(f, id) ? field_value(f, base, f->first[id]) : STR_NONE;
}

/* All fields of a known name, in order:
 *     for (unsigned i = fields_first(f, id); i != FIELD_END; i = f->at[i].next) */
static inline unsigned fields_first(const struct fields *f, enum field_id id)
{
    return fields_has(f, id) ? f->first[id] : FIELD_END;
}

unsigned fields_count(const struct fields *f, enum field_id id);

/* The index of the first field of that name (known or not) at or after `from`, or FIELD_END. */
unsigned fields_find(const struct fields *f, const char *base, struct str name, unsigned from);

/* The comma separated members of all fields of one name as one list (RFC 9110, 5.3 and 5.6.1): empty members
 * are left out, commas inside quoted strings do not separate, whitespace around members is cut. */
struct field_members {
    const struct fields *fields;
    const char *base;
    struct str rest;
    unsigned next;
};

struct field_members field_members_of(const struct fields *f, const char *base, enum field_id id);
bool field_members_next(struct field_members *it, struct str *member);

/* The same over one value. */
bool str_member_next(struct str *rest, struct str *member);

/* Is one of the list's members this token, without case? */
bool fields_have_member(const struct fields *f, const char *base, enum field_id id, struct str token);

/* The inside of a quoted-string with its escapes taken out (RFC 9110, 5.6.4), into out, which has room for
 * quoted.n bytes. Returns the length, or -EINVAL when it is not one whole quoted-string. */
int field_unquote(struct str quoted, char *out);

/* Fields that end at this hop and are never forwarded nor stored (RFC 9110, 7.6.1; RFC 9111, 3.1): the fixed
 * ones, and those that Connection nominates. */
bool field_id_is_hop_by_hop(enum field_id id);
struct field_set fields_hop_by_hop(const struct fields *f, const char *base);

static inline bool field_set_has(const struct field_set *set, unsigned i)
{
    return (set->bits[i / 64] >> (i % 64) & 1) != 0;
}

/* RFC 9110, 5.6.2. */
bool http_is_token(struct str s);
extern const uint8_t http_token_table[256]; /* 1 for tchar */
