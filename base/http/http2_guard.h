/* Who talks HTTP/2 much and asks for little (RFC 9113, 10.5): counts the frames that come in and says when it is
 * abuse. It stands before the session and sees only frame headers, so that an attack costs us nine bytes
 * of reading a frame. Pure; it never allocates.
 *
 * Each kind of frame that carries nothing has a budget (util/limits.h), refilled by time and by useful work. */
#pragma once

#include "util/str.h"

#include <stdbool.h>
#include <stdint.h>

enum http2_frame_type {
    HTTP2_DATA = 0,
    HTTP2_HEADERS = 1,
    HTTP2_PRIORITY = 2,
    HTTP2_RST_STREAM = 3,
    HTTP2_SETTINGS = 4,
    HTTP2_PUSH_PROMISE = 5,
    HTTP2_PING = 6,
    HTTP2_GOAWAY = 7,
    HTTP2_WINDOW_UPDATE = 8,
    HTTP2_CONTINUATION = 9,
    HTTP2_PRIORITY_UPDATE = 16, /* RFC 9218, 7.1 */
};

#define HTTP2_FLAG_END_STREAM    0x1 /* of DATA and HEADERS */
#define HTTP2_FLAG_END_HEADERS   0x4
#define HTTP2_FRAME_HEADER_BYTES 9

struct http2_frame {
    uint32_t length;
    uint32_t stream;
    uint8_t type, flags;
};

enum http2_attack {
    HTTP2_ATTACK_NONE,
    HTTP2_ATTACK_RESETS, /* streams opened only to be reset, by RST_STREAM or by errors that make us reset them */
    HTTP2_ATTACK_CONTINUATION,
    HTTP2_ATTACK_HEADERS, /* a header block that decodes to far more than a head may have */
    HTTP2_ATTACK_SETTINGS,
    HTTP2_ATTACK_PINGS,
    HTTP2_ATTACK_PRIORITIES,
    HTTP2_ATTACK_WINDOW_UPDATES,
    HTTP2_ATTACK_EMPTY_FRAMES,
    HTTP2_ATTACK_UNKNOWN_FRAMES,
    HTTP2_ATTACK_UNREAD, /* frames that we have to answer, from who does not read the answers */
    HTTP2_ATTACKS
};

const char *http2_attack_name(enum http2_attack attack); /* "rapid_reset", ... as in metrics */

struct http2_guard {
    uint32_t skip; /* bytes before the next frame header: the preface, or a payload */
    uint8_t header_n;
    uint8_t header[HTTP2_FRAME_HEADER_BYTES];
    bool block_open;       /* a header block has begun, and its last frame is not known... */
    bool block_last;       /* ... or known, and its payload is what is being skipped */
    uint8_t continuations; /* of that block */
    uint32_t block_bytes;
    uint64_t refilled_ns;
    int32_t left[HTTP2_ATTACKS];
};

/* skip: bytes before the first frame header, which is the client's preface. */
void http2_guard_init(struct http2_guard *g, uint32_t skip, uint64_t now_ns);

/* Walks to the end of the next frame header. True: *frame is one, and *in begins after it. False: *in is used up. */
bool http2_guard_next(struct http2_guard *g, struct str *in, struct http2_frame *frame);

/* What this frame makes of it. RST_STREAM is judged by who knows the stream, with http2_guard_charge. */
enum http2_attack http2_guard_judge(struct http2_guard *g, const struct http2_frame *frame, uint64_t now_ns);

/* One frame of the kind. */
enum http2_attack http2_guard_charge(struct http2_guard *g, enum http2_attack kind, uint64_t now_ns);

/* A header block has begun and not all of it has come. */
static inline bool http2_guard_in_block(const struct http2_guard *g)
{
    return g->block_open || (g->block_last && g->skip > 0);
}

/* --- useful work --- */

void http2_guard_requested(struct http2_guard *g);                      /* a request has come in whole */
void http2_guard_answered(struct http2_guard *g);                       /* a request's answer was begun */
void http2_guard_sent(struct http2_guard *g, uint32_t bytes, bool end); /* a DATA frame went out */
