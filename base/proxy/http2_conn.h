/* A client's HTTP/2 connection: what hangs on a struct conn once ALPN or the preface said so. It feeds the session
 * (http/http2.h) with what comes, starts a request for each stream, and sends what the session frames, one slab at a
 * time. It runs in the connection's flow. */
#pragma once

#include "http/http2.h"
#include "proxy/conn.h"

struct http2_conn;

/* c->http2 is then there. `before`: bytes that have been taken off the stream already. 0, or -ENOMEM. */
int http2_conn_start(struct conn *c, struct str before);

enum http2_conn_result {
    HTTP2_CONN_WAIT,
    HTTP2_CONN_LINGER, /* c->http2 is gone; the client has to be told why, while it may still be sending */
    HTTP2_CONN_CLOSE,  /* c->http2 is gone */
};

/* All that can be done at present. */
enum http2_conn_result http2_conn_step(struct conn *c);

/* Says goodbye, lets what is under way end, and ends; with hurry at once. */
void http2_conn_drain(struct conn *c, bool hurry);

/* For the worker's pool of streams. */
extern const size_t http2_conn_stream_bytes;
