/* A borrowed run of bytes, not terminated. The one who made it says how long the bytes live. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
    const char *p;
    size_t n;
};

#define STR(literal) ((struct str){(literal), sizeof(literal) - 1})
#define STR_INIT(literal)                                                                                    \
    {                                                                                                        \
        (literal), sizeof(literal) - 1                                                                       \
    } /* for static initialisers */
#define STR_NONE   ((struct str){NULL, 0})
#define STR_FMT    "%.*s"
#define STR_ARG(s) (int)(s).n, (s).p

static inline struct str str_of(const char *p, size_t n)
{
    return (struct str){p, n};
}

static inline struct str str_z(const char *z)
{
    return (struct str){z, z ? strlen(z) : 0};
}

static inline bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool str_starts(struct str s, struct str prefix)
{
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

/* From byte n on; empty when s is shorter. */
static inline struct str str_skip(struct str s, size_t n)
{
    return n >= s.n ? str_of(s.p + s.n, 0) : str_of(s.p + n, s.n - n);
}

/* ASCII only: bytes above 127 compare as they are. */
bool str_eq_nocase(struct str a, struct str b);

/* Without SP and HTAB at both ends (OWS of RFC 9110, 5.6.3). */
struct str str_trim_ows(struct str s);

/* Decimal digits only, no sign, no space. Returns 0, or -ERANGE / -EINVAL; *out is set on success only. */
int str_to_u64(struct str s, uint64_t *out);

/* Length of the valid UTF-8 sequence at the front of s, which is not empty (RFC 3629, section 4: no overlong
 * forms, no surrogates); 0 when there is none. */
size_t str_utf8_length(struct str s);
