#include "http/http1.h"

enum state {
    SIZE, /* the zero state: at the first digit of a size, or among them */
    EXTENSION_SPACE,
    EXTENSION,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER_START,
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    END_LF,
    DONE,
    FAILED,
};

static bool is_text(char c)
{
    unsigned char u = (unsigned char)c;

    return u == '\t' || (u >= ' ' && u != 0x7f);
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A byte of the line that tells a chunk's size. */
static int size_byte(struct http1_chunked *c, char byte)
{
    int digit = c->state == SIZE ? hex(byte) : -1;

    if (++c->line_bytes > HTTP_CHUNK_LINE_BYTES_MAX)
        return -HTTP1_BAD_CHUNK;
    if (digit >= 0) {
        if (c->left > (uint64_t)INT64_MAX >> 4)
            return -HTTP1_BAD_CHUNK;
        c->left = c->left << 4 | (unsigned)digit;
        c->digits = true;
        return 0;
    }
    if (!c->digits)
        return -HTTP1_BAD_CHUNK;
    if (byte == ';' && c->state != EXTENSION)
        c->state = EXTENSION;
    else if ((byte == ' ' || byte == '\t') && c->state != EXTENSION)
        c->state = EXTENSION_SPACE; /* only before a ";" */
    else if (byte == '\r' && c->state != EXTENSION_SPACE)
        c->state = SIZE_LF;
    else if (c->state != EXTENSION || !is_text(byte))
        return -HTTP1_BAD_CHUNK;
    return 0;
}

static int trailer_byte(struct http1_chunked *c, char byte)
{
    if (++c->trailer_bytes > HTTP_TRAILER_BYTES_MAX)
        return -HTTP1_TRAILER_TOO_LONG;
    switch (c->state) {
    case TRAILER_START:
        if (byte == '\r')
            c->state = END_LF;
        else if (http_token_table[(unsigned char)byte])
            c->state = TRAILER_NAME;
        else
            return -HTTP1_BAD_TRAILER;
        return 0;
    case TRAILER_NAME:
        if (byte == ':')
            c->state = TRAILER_VALUE;
        else if (!http_token_table[(unsigned char)byte])
            return -HTTP1_BAD_TRAILER;
        return 0;
    case TRAILER_VALUE:
        if (byte == '\r')
            c->state = TRAILER_LF;
        else if (!is_text(byte))
            return -HTTP1_BAD_TRAILER;
        return 0;
    default: /* TRAILER_LF */
        c->state = TRAILER_START;
        return byte == '\n' ? 0 : -HTTP1_BAD_TRAILER;
    }
}

/* Any byte that is not of the body. */
static int framing_byte(struct http1_chunked *c, char byte)
{
    switch (c->state) {
    case SIZE:
    case EXTENSION_SPACE:
    case EXTENSION:
        return size_byte(c, byte);
    case SIZE_LF:
        c->state = c->left ? DATA : TRAILER_START;
        return byte == '\n' ? 0 : -HTTP1_BAD_CHUNK;
    case DATA_CR:
        c->state = DATA_LF;
        return byte == '\r' ? 0 : -HTTP1_BAD_CHUNK;
    case DATA_LF:
        c->state = SIZE;
        c->digits = false;
        c->line_bytes = 0;
        return byte == '\n' ? 0 : -HTTP1_BAD_CHUNK;
    case END_LF:
        c->state = DONE;
        return byte == '\n' ? 0 : -HTTP1_BAD_TRAILER;
    case FAILED:
        return -HTTP1_BAD_CHUNK;
    default:
        return trailer_byte(c, byte);
    }
}

int http1_chunked_next(struct http1_chunked *c, struct str *in, struct str *body)
{
    while (in->n > 0 && c->state != DONE) {
        int r;

        if (c->state == DATA) {
            *body = str_of(in->p, c->left < in->n ? (size_t)c->left : in->n);
            *in = str_skip(*in, body->n);
            c->left -= body->n;
            if (c->left == 0)
                c->state = DATA_CR;
            return HTTP1_CHUNKED_BODY;
        }
        r = framing_byte(c, in->p[0]);
        if (r < 0) {
            c->state = FAILED;
            return r;
        }
        *in = str_skip(*in, 1);
    }
    return c->state == DONE ? HTTP1_CHUNKED_DONE : HTTP1_CHUNKED_MORE;
}
