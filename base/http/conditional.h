/* Entity tags and preconditions (RFC 9110, 8.8.3 and 13). Pure. */
#pragma once

#include "http/fields.h"

struct etag {
    struct str opaque; /* with its quotes; n is 0 when there is none */
    bool weak;
};

/* One whole entity-tag. Returns 0 or -EINVAL. */
int etag_parse(struct str text, struct etag *out);
bool etag_eq_strong(const struct etag *a, const struct etag *b);
bool etag_eq_weak(const struct etag *a, const struct etag *b);

/* What is known of the representation that would be served. */
struct validators {
    struct etag etag;
    bool has_last_modified;
    bool last_modified_strong; /* RFC 9110, 8.8.2.2: its Date was at least a second later */
    int64_t last_modified_s;
    int64_t date_s; /* its Date, else when it was received */
};

/* From the fields of a response that was received at received_s. */
void validators_of(const struct fields *f, const char *base, int64_t received_s, struct validators *out);

/* A cache leaves If-Match and If-Unmodified-Since to the origin (RFC 9111, 4.3.2); who serves its own files
 * is one. */
enum conditional_role { CONDITIONAL_CACHE, CONDITIONAL_ORIGIN };

enum conditional_result {
    CONDITIONAL_PROCEED,
    CONDITIONAL_NOT_MODIFIED, /* 304 */
    CONDITIONAL_FAILED,       /* 412 */
};

/* The steps 1 to 4 of RFC 9110, 13.2.2 for GET and HEAD of a representation that exists and would be 200. */
enum conditional_result conditional_evaluate(const struct fields *f, const char *base,
                                             const struct validators *v, enum conditional_role role,
                                             int64_t now_s);

/* Step 5: is Range to be looked at? True when there is no If-Range, or it matches strongly. */
bool conditional_range_applies(const struct fields *f, const char *base, const struct validators *v,
                               int64_t now_s);
