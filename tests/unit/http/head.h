/* Fields for tests, through the real parser. */
#pragma once

#include "http/http1.h"

#include "../unit.h"

/* lines end in CRLF each; the fields' offsets count from text. */
struct test_head {
    char text[2048];
    struct http1_response parsed;
};

static inline const struct fields *test_fields(struct test_head *h, const char *lines)
{
    int n = snprintf(h->text, sizeof h->text, "HTTP/1.1 200 OK\r\n%s\r\n", lines);

    assert_in_range(n, 1, sizeof h->text - 1);
    assert_int_equal(http1_parse_response(h->text, (size_t)n, false, &h->parsed), n);
    return &h->parsed.fields;
}
