/* Heads between HTTP/2 and HTTP/1.1's form (RFC 9113, 8.2 and 8.3; RFC 9110, 7.8): fields of a request, as they
 * are decoded, to the text of a head; the text of an answer's head to fields. For http2.c alone. */
#pragma once

#include "http/http1.h"
#include "util/buf.h"
#include "util/limits.h"

#include <nghttp2/nghttp2.h>
#include <sys/uio.h>

/* A header block while it is decoded. Bounded whatever is added; what does not fit is dropped and remembered. */
struct http2_head {
    bool trailers;
    bool line_written; /* the request line, and Host from :authority */
    bool malformed;
    bool has_length;
    bool scheme_other; /* than http and https */
    uint16_t cookies_n;
    uint32_t listed_bytes; /* as SETTINGS_MAX_HEADER_LIST_SIZE counts, of all that was added */
    uint32_t fields_n;     /* lines of the text */
    size_t cookie_end;     /* in the text, of the cookies' value; 0: none */
    unsigned refuse;       /* the status, or 0 */
    const char *detail;
    struct str method, path, authority; /* in `pseudo`; p NULL: none */
    struct buf pseudo, text;
    char pseudo_bytes[HTTP_TARGET_BYTES_MAX + 1024];
    char text_bytes[HTTP_REQUEST_HEAD_BYTES_MAX];
};

void http2_head_begin(struct http2_head *head, bool trailers);
void http2_head_add(struct http2_head *head, struct str name, struct str value);

/* The block has ended. ended: there is no body. True: either *refuse is the status to answer with and *detail why, or
 * it is 0 and *parsed belongs to http2_head_text. False: malformed, in a way that deserves no answer. */
bool http2_head_end(struct http2_head *head, bool ended, struct http1_request *parsed, unsigned *refuse,
                    const char **detail);

static inline struct str http2_head_text(const struct http2_head *head)
{
    return buf_str(&head->text);
}

/* Submits an answer's head, which the vectors hold in HTTP/1.1's form. Values are referred to until HEADERS is framed or
 * the stream closed. body: NULL, and the answer ends with its head. 0 or -ENOMEM or, of a head that is none,
 * -EINVAL. */
int http2_head_answer(nghttp2_session *session, int32_t id, const struct iovec *vecs, unsigned vecs_n,
                      const nghttp2_data_provider *body);
