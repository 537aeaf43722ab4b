/* Range, Content-Range and multipart/byteranges (RFC 9110, 14 and 15.3.7). Pure. */
#pragma once

#include "util/buf.h"
#include "util/limits.h"

struct range {
    uint64_t first, last; /* both inclusive; last below the length */
};

struct ranges {
    unsigned n;
    struct range at[HTTP_RANGES_MAX];
};

enum range_result {
    RANGE_WHOLE,         /* ignore the field: 200 with everything */
    RANGE_PARTIAL,       /* 206: out->n is 1 or more */
    RANGE_UNSATISFIABLE, /* 416 with content_range_unsatisfied */
};

/* What a Range asks of a representation of `length` bytes. Another unit, bad syntax, or more than
 * HTTP_RANGES_MAX ranges are RANGE_WHOLE. Ranges that overlap or touch are one range in the place of the
 * first of them (RFC 9110, 14.2 and 17.15), so that all together never hold a byte twice; otherwise they keep
 * the order asked for. */
enum range_result ranges_parse(struct str value, uint64_t length, struct ranges *out);

struct content_range {
    bool unsatisfied; /* bytes * / total: first and last mean nothing */
    bool has_total;   /* else the total was given as "*" */
    uint64_t first, last, total;
};

/* Returns 0 or -EINVAL (not bytes, first after last, last not below total, overflow). */
int content_range_parse(struct str value, struct content_range *out);

void content_range_add(struct buf *b, struct range range, uint64_t total); /* "bytes 0-4/10" */
void content_range_unsatisfied_add(struct buf *b, uint64_t total);         /* "bytes * /10", no space */

/* A multipart/byteranges body: a head before each part, then an end. content_type may be empty. The boundary
 * is the caller's: 1 to 70 bytes of token characters that occur in no part (a random one). */
void range_part_head_add(struct buf *b, struct str boundary, struct str content_type, struct range range,
                         uint64_t total);
void range_parts_end_add(struct buf *b, struct str boundary);
size_t range_part_head_bytes(struct str boundary, struct str content_type, struct range range,
                             uint64_t total);
uint64_t range_parts_bytes(const struct ranges *ranges, struct str boundary, struct str content_type,
                           uint64_t total); /* Content-Length of all of it */
