/* What carries a request to its client and back: an HTTP/1.1 connection (conn.c) or a stream of an HTTP/2 one
 * (http2_conn.c). A request knows its carrier only by this, so that it is the same request on both.
 *
 * Heads of answers are handed over in HTTP/1.1's form, which is how objects keep them; a carrier that frames
 * otherwise translates. */
#pragma once

#include "util/str.h"

#include <stdbool.h>
#include <stdint.h>

struct conn;
struct request;
struct carrier;

struct request_end {
    bool aborted; /* the answer was not sent whole: the client has to see that */
    bool close;   /* the connection cannot carry another (HTTP/1.1) */
    bool unread;  /* the request's body was not read to its end: what comes is no request */
};

struct carrier_ops {
    bool frames_body;     /* bodies need no length and no chunks of ours, either way */
    uint8_t http_version; /* for the log: 20; 0: as the head says */

    /* Sends what request->out holds, which stays until the completion in out.send.op (as of io_op: in flight, then the
     * request's flow is woken). */
    void (*send)(struct carrier *c, struct request *r);

    /* True once, at its end: *error is 0 or -errno. */
    bool (*send_take)(struct carrier *c, struct request *r, int *error);

    /* The request goes: what is in flight completes early, and nothing more of it is sent. */
    void (*send_cancel)(struct carrier *c, struct request *r);

    /* Bytes that the client has taken, for the least rate: it counts up only. CARRIER_NOT_ITS_TURN while others of the
     * same client go first. 0 or -errno. */
    int (*taken_bytes)(struct carrier *c, struct request *r, uint64_t *bytes);

    /* 100 Continue; completion as of send. */
    void (*send_continue)(struct carrier *c, struct request *r);

    /* The request's body as it came. With frames_body it is the body itself and body_end tells that it is whole
     * (-ENODATA); without, HTTP/1.1's framing is in it. */
    struct str (*body_peek)(struct carrier *c);
    void (*body_consume)(struct carrier *c, size_t n);
    int (*body_end)(struct carrier *c); /* 0: more may come; -ENODATA; another -errno: it will not be whole */
    void (*body_arm)(struct carrier *c); /* request_client_spoke is called when more comes */

    /* Whether the answer has to say that the connection closes. */
    bool (*will_close)(const struct carrier *c);

    /* The request is over and gone. */
    void (*done)(struct carrier *c, const struct request_end *end);
};

#define CARRIER_NOT_ITS_TURN UINT64_MAX

struct carrier {
    const struct carrier_ops *ops;
    struct conn *conn; /* peer, worker, listener */
};
