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

void buf_add_json(struct buf *b, struct str s)
{
    buf_add_char(b, '"');
    while (s.n > 0) {
        unsigned char c = (unsigned char)s.p[0];
        size_t n = str_utf8_length(s);

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
