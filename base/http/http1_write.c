#include "http/http1.h"

#include "util/check.h"

static const struct str methods[] = {
    [HTTP_GET] = STR_INIT("GET"),         [HTTP_HEAD] = STR_INIT("HEAD"),
    [HTTP_POST] = STR_INIT("POST"),       [HTTP_PUT] = STR_INIT("PUT"),
    [HTTP_DELETE] = STR_INIT("DELETE"),   [HTTP_PATCH] = STR_INIT("PATCH"),
    [HTTP_OPTIONS] = STR_INIT("OPTIONS"), [HTTP_TRACE] = STR_INIT("TRACE"),
    [HTTP_CONNECT] = STR_INIT("CONNECT"),
};

enum http_method http_method_of(struct str name)
{
    for (size_t i = 0; i < ARRAY_LEN(methods); i++)
        if (str_eq(name, methods[i]))
            return (enum http_method)i;
    return HTTP_METHOD_OTHER;
}

struct str http_method_name(enum http_method method)
{
    CHECK((unsigned)method <= HTTP_METHOD_OTHER);
    return method == HTTP_METHOD_OTHER ? STR("") : methods[method];
}

bool http_method_is_safe(enum http_method method)
{
    return method == HTTP_GET || method == HTTP_HEAD || method == HTTP_OPTIONS || method == HTTP_TRACE;
}

static const struct {
    uint16_t status;
    const char *reason;
} errors[HTTP1_ERROR_COUNT] = {
    [HTTP1_BAD_REQUEST_LINE] = {400, "malformed request line"},
    [HTTP1_BAD_STATUS_LINE] = {400, "malformed status line"},
    [HTTP1_METHOD_TOO_LONG] = {501, "method not implemented"},
    [HTTP1_TARGET_TOO_LONG] = {414, "request target too long"},
    [HTTP1_BAD_TARGET] = {400, "malformed request target"},
    [HTTP1_VERSION] = {505, "HTTP version not spoken"},
    [HTTP1_HEAD_TOO_LONG] = {431, "head too long"},
    [HTTP1_FIELDS_TOO_MANY] = {431, "too many fields"},
    [HTTP1_BAD_LINE_END] = {400, "bare CR or LF"},
    [HTTP1_BAD_FIELD_NAME] = {400, "malformed field name"},
    [HTTP1_SPACE_BEFORE_COLON] = {400, "space before the colon of a field"},
    [HTTP1_OBS_FOLD] = {400, "folded field line"},
    [HTTP1_BAD_FIELD_VALUE] = {400, "control byte in a field"},
    [HTTP1_HOST_MISSING] = {400, "no Host"},
    [HTTP1_HOST_REPEATED] = {400, "more than one Host"},
    [HTTP1_HOST_INVALID] = {400, "malformed Host"},
    [HTTP1_HOST_DISAGREES] = {400, "Host and target disagree"},
    [HTTP1_BAD_CONTENT_LENGTH] = {400, "malformed or repeated Content-Length"},
    [HTTP1_LENGTH_AND_ENCODING] = {400, "both Content-Length and Transfer-Encoding"},
    [HTTP1_BAD_TRANSFER_ENCODING] = {400, "Transfer-Encoding other than chunked"},
    [HTTP1_BAD_CONNECTION] = {400, "too many members in Connection"},
    [HTTP1_BAD_CHUNK] = {400, "malformed chunk"},
    [HTTP1_TRAILER_TOO_LONG] = {431, "trailer too long"},
    [HTTP1_BAD_TRAILER] = {400, "malformed trailer"},
};

unsigned http1_error_status(int error)
{
    CHECK(error < 0 && error > -HTTP1_ERROR_COUNT);
    return errors[-error].status;
}

const char *http1_error_reason(int error)
{
    CHECK(error < 0 && error > -HTTP1_ERROR_COUNT);
    return errors[-error].reason;
}

/* The registry of RFC 9110, 16.2.1, but for what no cache sends or passes on. */
static const char *const reasons[600] = {
    [100] = "Continue",
    [101] = "Switching Protocols",
    [103] = "Early Hints",
    [200] = "OK",
    [201] = "Created",
    [202] = "Accepted",
    [203] = "Non-Authoritative Information",
    [204] = "No Content",
    [205] = "Reset Content",
    [206] = "Partial Content",
    [207] = "Multi-Status",
    [300] = "Multiple Choices",
    [301] = "Moved Permanently",
    [302] = "Found",
    [303] = "See Other",
    [304] = "Not Modified",
    [307] = "Temporary Redirect",
    [308] = "Permanent Redirect",
    [400] = "Bad Request",
    [401] = "Unauthorized",
    [402] = "Payment Required",
    [403] = "Forbidden",
    [404] = "Not Found",
    [405] = "Method Not Allowed",
    [406] = "Not Acceptable",
    [407] = "Proxy Authentication Required",
    [408] = "Request Timeout",
    [409] = "Conflict",
    [410] = "Gone",
    [411] = "Length Required",
    [412] = "Precondition Failed",
    [413] = "Content Too Large",
    [414] = "URI Too Long",
    [415] = "Unsupported Media Type",
    [416] = "Range Not Satisfiable",
    [417] = "Expectation Failed",
    [421] = "Misdirected Request",
    [422] = "Unprocessable Content",
    [425] = "Too Early",
    [426] = "Upgrade Required",
    [428] = "Precondition Required",
    [429] = "Too Many Requests",
    [431] = "Request Header Fields Too Large",
    [451] = "Unavailable For Legal Reasons",
    [500] = "Internal Server Error",
    [501] = "Not Implemented",
    [502] = "Bad Gateway",
    [503] = "Service Unavailable",
    [504] = "Gateway Timeout",
    [505] = "HTTP Version Not Supported",
    [507] = "Insufficient Storage",
    [508] = "Loop Detected",
};

const char *http_status_reason(unsigned status)
{
    return status < ARRAY_LEN(reasons) && reasons[status] ? reasons[status] : "";
}

void http1_add_status_line(struct buf *b, unsigned status)
{
    CHECK(status >= 100 && status <= 999);
    buf_add_lit(b, "HTTP/1.1 ");
    buf_add_u64(b, status);
    buf_add_char(b, ' '); /* also before an empty reason (RFC 9112, 4) */
    buf_add_str(b, str_z(http_status_reason(status)));
    buf_add_lit(b, "\r\n");
}

void http1_add_request_line(struct buf *b, struct str method, struct str target)
{
    buf_add_str(b, method);
    buf_add_char(b, ' ');
    buf_add_str(b, target);
    buf_add_lit(b, " HTTP/1.1\r\n");
}

void http1_add_field(struct buf *b, struct str name, struct str value)
{
    buf_add_str(b, name);
    buf_add_lit(b, ": ");
    buf_add_str(b, value);
    buf_add_lit(b, "\r\n");
}

void http1_add_field_u64(struct buf *b, struct str name, uint64_t value)
{
    buf_add_str(b, name);
    buf_add_lit(b, ": ");
    buf_add_u64(b, value);
    buf_add_lit(b, "\r\n");
}

void http1_add_head_end(struct buf *b)
{
    buf_add_lit(b, "\r\n");
}

void http1_add_chunk_head(struct buf *b, uint64_t bytes)
{
    char text[HTTP1_CHUNK_HEAD_MAX];
    size_t i = sizeof text;

    CHECK(bytes > 0); /* a chunk of none would end the body */
    text[--i] = '\n';
    text[--i] = '\r';
    do {
        text[--i] = "0123456789abcdef"[bytes & 15];
        bytes >>= 4;
    } while (bytes > 0);
    buf_add(b, text + i, sizeof text - i);
}
