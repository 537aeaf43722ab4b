/* Structured fields (RFC 8941): as much as a dictionary needs to be judged whole. Pure. */
#pragma once

#include "util/str.h"

enum structured_type {
    STRUCTURED_BOOLEAN, /* also a key without a value, which is true */
    STRUCTURED_INTEGER,
    STRUCTURED_DECIMAL,
    STRUCTURED_STRING,
    STRUCTURED_TOKEN,
    STRUCTURED_BYTES,
    STRUCTURED_LIST, /* an inner list; its items are checked, not told */
};

struct structured_member {
    struct str key;
    enum structured_type type;
    int64_t integer; /* BOOLEAN (0 or 1) and INTEGER */
    struct str
        text; /* STRING: what stands between the quotes, escapes and all; TOKEN, BYTES, DECIMAL: as sent */
};

/* The next member of a dictionary (3.2); parameters are checked and skipped. Start with *rest = the field's
 * value. Returns 1, 0 at the end, or -EINVAL: then the whole field is to be ignored (4.2). */
int structured_member_next(struct str *rest, struct structured_member *member);
