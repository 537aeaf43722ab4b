#include "util/buf.h"

#include <stdarg.h>
#include <stdio.h>

void buf_add_u64(struct buf *b, uint64_t value)
{
    char digits[20];
    size_t i = sizeof digits;

    do {
        digits[--i] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    buf_add(b, digits + i, sizeof digits - i);
}

void buf_printf(struct buf *b, const char *format, ...)
{
    size_t left = b->cap - b->n;
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(left ? b->p + b->n : NULL, left, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= left) { /* vsnprintf needs one byte more for its NUL */
        b->overflow = true;
        return;
    }
    b->n += (size_t)n;
}

/* Length of the valid UTF-8 sequence at s (RFC 3629, section 4), 0 when there is none. */
static size_t utf8_sequence(struct str s)
{
    const unsigned char *u = (const unsigned char *)s.p;
    size_t n;
    unsigned char low = 0x80, high = 0xbf;

    if (u[0] < 0x80)
        return 1;
    if (u[0] >= 0xc2 && u[0] <= 0xdf) {
        n = 2;
    } else if (u[0] >= 0xe0 && u[0] <= 0xef) {
        n = 3;
        if (u[0] == 0xe0)
            low = 0xa0;
        if (u[0] == 0xed)
            high = 0x9f;
    } else if (u[0] >= 0xf0 && u[0] <= 0xf4) {
        n = 4;
        if (u[0] == 0xf0)
            low = 0x90;
        if (u[0] == 0xf4)
            high = 0x8f;
    } else {
        return 0;
    }
    if (s.n < n || u[1] < low || u[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if (u[i] < 0x80 || u[i] > 0xbf)
            return 0;
    return n;
}

void buf_add_json(struct buf *b, struct str s)
{
    buf_add_char(b, '"');
    while (s.n > 0) {
        unsigned char c = (unsigned char)s.p[0];
        size_t n = utf8_sequence(s);

        if (n == 0) {
            buf_add_lit(b, "\\ufffd");
            n = 1;
        } else if (c == '"' || c == '\\') {
            buf_add_char(b, '\\');
            buf_add_char(b, (char)c);
        } else if (c < 0x20 || c == 0x7f) {
            buf_printf(b, "\\u%04x", c);
        } else {
            buf_add(b, s.p, n);
        }
        s = str_skip(s, n);
    }
    buf_add_char(b, '"');
}
