/* HTTP/1.1 heads and framing (RFC 9112): bytes to structs and structs to bytes. Pure: no I/O, no allocation,
 * nothing kept between calls. Whatever a peer sends gives a result; nothing is repaired that two readers
 * could understand in two ways.
 *
 * Offsets are relative to the head's first byte (`p` as given to the parser), so that a head can be copied.
 */
#pragma once

#include "http/fields.h"
#include "util/buf.h"

enum http_method {
    HTTP_GET,
    HTTP_HEAD,
    HTTP_POST,
    HTTP_PUT,
    HTTP_DELETE,
    HTTP_PATCH,
    HTTP_OPTIONS,
    HTTP_TRACE,
    HTTP_CONNECT,
    HTTP_METHOD_OTHER, /* a token; its bytes are at method_off */
};

enum http_target_form {
    HTTP_TARGET_ORIGIN,    /* /path?query */
    HTTP_TARGET_ABSOLUTE,  /* http://host/path?query; target_* is the part from the path on */
    HTTP_TARGET_ASTERISK,  /* OPTIONS * */
    HTTP_TARGET_AUTHORITY, /* CONNECT host:port */
};

enum http_framing {
    HTTP_BODY_NONE,
    HTTP_BODY_LENGTH,  /* content_length bytes, which may be 0 */
    HTTP_BODY_CHUNKED, /* struct http1_chunked */
    HTTP_BODY_CLOSE,   /* responses only: until the connection ends */
};

/* Why a head was refused; returned negated. For a request, http1_error_status is the answer, after which the
 * connection is closed; for a response, it is the upstream's fault (502). */
enum http1_error {
    HTTP1_BAD_REQUEST_LINE = 1,
    HTTP1_BAD_STATUS_LINE,
    HTTP1_METHOD_TOO_LONG, /* 501 */
    HTTP1_TARGET_TOO_LONG, /* 414 */
    HTTP1_BAD_TARGET,
    HTTP1_VERSION,         /* 505 */
    HTTP1_HEAD_TOO_LONG,   /* 431 */
    HTTP1_FIELDS_TOO_MANY, /* 431 */
    HTTP1_BAD_LINE_END,    /* a bare CR or LF */
    HTTP1_BAD_FIELD_NAME,
    HTTP1_SPACE_BEFORE_COLON,
    HTTP1_OBS_FOLD,
    HTTP1_BAD_FIELD_VALUE, /* NUL or another control byte */
    HTTP1_HOST_MISSING,
    HTTP1_HOST_REPEATED,
    HTTP1_HOST_INVALID,
    HTTP1_HOST_DISAGREES, /* with the absolute form */
    HTTP1_BAD_CONTENT_LENGTH,
    HTTP1_LENGTH_AND_ENCODING, /* both Content-Length and Transfer-Encoding */
    HTTP1_BAD_TRANSFER_ENCODING,
    HTTP1_BAD_CONNECTION, /* more than HTTP_CONNECTION_MEMBERS_MAX members */
    HTTP1_BAD_CHUNK,      /* size missing or overflowing, bad line end, line too long */
    HTTP1_TRAILER_TOO_LONG,
    HTTP1_BAD_TRAILER,
    HTTP1_ERROR_COUNT
};

unsigned http1_error_status(int error);    /* of the negated enum, as returned */
const char *http1_error_reason(int error); /* a few words for a log or a problem's detail */

struct http1_request {
    uint16_t method_off, method_n;
    uint16_t target_off,
        target_n;              /* path and query as sent, "*", or authority; n is 0 for http://host alone */
    uint16_t host_off, host_n; /* with its port; n is 0 when a 1.0 request has none */
    uint8_t method;            /* enum http_method */
    uint8_t target_form;       /* enum http_target_form */
    uint8_t framing;           /* enum http_framing, never CLOSE */
    uint8_t minor;             /* 0 or 1: what is spoken; 1.2 counts as 1.1 */
    bool keep_alive;           /* the client's wish */
    bool expect_continue;
    uint64_t content_length; /* with HTTP_BODY_LENGTH, else 0 */
    struct fields fields;
};

struct http1_response {
    uint16_t status;
    uint16_t reason_off, reason_n;
    uint8_t framing; /* enum http_framing */
    uint8_t minor;
    bool keep_alive;         /* the connection can carry another request after this body */
    bool has_content_length; /* also where there is no body (HEAD, 304) */
    uint64_t content_length;
    struct fields fields;
};

/* Parses one head at p. Returns its length in bytes, 0 when more bytes are needed, or -enum http1_error.
 * An error is told as soon as its bytes are there; the answer does not depend on how the bytes were split.
 * *out is whole only when the result is above 0. */
int http1_parse_request(const char *p, size_t n, struct http1_request *out);

/* to_head: the request was HEAD. An interim (1xx) response is a result like any other: parse on after it. */
int http1_parse_response(const char *p, size_t n, bool to_head, struct http1_response *out);

/* After a parser returned 0: is it worth asking again, now that n bytes are there? *scanned is 0 for each new
 * head and is kept here, so that a head that comes byte by byte is read twice, not n times. limit is
 * HTTP_REQUEST_HEAD_BYTES_MAX or HTTP_RESPONSE_HEAD_BYTES_MAX. */
bool http1_head_ready(const char *p, size_t n, size_t limit, size_t *scanned);

/* The target of a request from its path on, "/" for an absolute form without one. */
static inline struct str http1_target(const struct http1_request *r, const char *base)
{
    return r->target_n == 0 ? STR("/") : str_of(base + r->target_off, r->target_n);
}

static inline struct str http1_method(const struct http1_request *r, const char *base)
{
    return str_of(base + r->method_off, r->method_n);
}

static inline struct str http1_host(const struct http1_request *r, const char *base)
{
    return str_of(base + r->host_off, r->host_n);
}

enum http_method http_method_of(struct str name);
struct str http_method_name(enum http_method method); /* of OTHER: empty */

/* Safe methods (RFC 9110, 9.2.1). OTHER is not. */
bool http_method_is_safe(enum http_method method);

/* A chunked body (RFC 9112, 7.1) as a state machine over input that comes in any pieces. The body's bytes are
 * told in place, extensions and trailer fields are bounded, checked and dropped. */
struct http1_chunked {
    uint64_t left; /* bytes of the current chunk still to come */
    uint32_t line_bytes;
    uint32_t trailer_bytes;
    uint8_t state;
    bool digits;
};

enum http1_chunked_result {
    HTTP1_CHUNKED_MORE, /* the input is used up; more is needed */
    HTTP1_CHUNKED_BODY, /* *body is the next run of body bytes, inside the input */
    HTTP1_CHUNKED_DONE, /* the body is whole; *in begins after it */
};

static inline void http1_chunked_init(struct http1_chunked *c)
{
    *c = (struct http1_chunked){0};
}

/* Takes from the front of *in. Returns enum http1_chunked_result, or -enum http1_error. Call until it returns
 * MORE or DONE or an error; after an error or DONE the decoder is at its end. */
int http1_chunked_next(struct http1_chunked *c, struct str *in, struct str *body);

/* Serialisers. Values are bytes that were parsed, or our own: they hold no CR or LF. */
const char *http_status_reason(unsigned status); /* "" when unknown */
void http1_add_status_line(struct buf *b, unsigned status);
void http1_add_request_line(struct buf *b, struct str method, struct str target);
void http1_add_field(struct buf *b, struct str name, struct str value);
void http1_add_field_u64(struct buf *b, struct str name, uint64_t value);
void http1_add_head_end(struct buf *b);

/* "SIZE CRLF" before a chunk's bytes; after them comes CRLF, after the last chunk "0 CRLF CRLF". */
#define HTTP1_CHUNK_HEAD_MAX 18
#define HTTP1_CHUNK_END      "\r\n"
#define HTTP1_CHUNKED_END    "0\r\n\r\n"
void http1_add_chunk_head(struct buf *b, uint64_t bytes);
