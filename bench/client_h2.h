/* The little of HTTP/2 that the load programs speak (RFC 9113, RFC 7541): requests whose fields are literals
 * without an index, and answers of which no more is read than the frames and whether the status is 200. */
#pragma once

#include "client_tls.h"

#define H2_FRAME_HEAD       9u
#define H2_PAYLOAD_MAX      16384u /* what a peer may send that has not been told otherwise */
#define H2_REQUEST_MAX      (H2_FRAME_HEAD + HEAD_MAX)
#define H2_PREFACE_MAX      64u
#define H2_STREAM_MAX       0x7fffffffu
#define H2_FLAG_END_STREAM  0x1u
#define H2_FLAG_ACK         0x1u
#define H2_FLAG_END_HEADERS 0x4u
#define H2_ERROR_CANCEL     8u

enum h2_type {
    H2_DATA = 0,
    H2_HEADERS = 1,
    H2_RST_STREAM = 3,
    H2_SETTINGS = 4,
    H2_PING = 6,
    H2_GOAWAY = 7,
    H2_WINDOW_UPDATE = 8,
};

struct h2_frame {
    unsigned type;
    unsigned flags;
    uint32_t stream;
    size_t bytes; /* of payload */
};

/* These write frames at `into` and return their length. */
size_t h2_write_preface(char *into); /* with SETTINGS of nothing and the widest window of the connection */
size_t h2_write_settings_ack(char *into);
size_t h2_write_get(char *into, uint32_t stream, struct str target);
size_t h2_write_reset(char *into, uint32_t stream, uint32_t error);

struct h2_frame h2_parse_frame_head(const char *head);

/* The preface and what the server's own asks for; the connection blocks. */
void h2_begin(struct link *link);

/* One request and its whole answer; the program ends if that is not 200. The connection blocks. */
void h2_ask(struct link *link, uint32_t stream, struct str target);
