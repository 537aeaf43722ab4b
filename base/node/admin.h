/* The admin HTTP server: few clients, small answers, on the control thread with plain sockets and poll(2).
 *
 * On the Unix socket everything is allowed; on the TCP address a route that is not ADMIN_OPEN needs the
 * bearer token. A connection has a deadline for its head, its body and its answer, so that a client that is
 * stuck holds one of ADMIN_CONNECTIONS_MAX places for a bounded time and never holds the thread. Errors are
 * application/problem+json (RFC 9457). */
#pragma once

#include "net/address.h"
#include "util/buf.h"
#include "util/grow.h"

#include <poll.h>

#define ADMIN_CONNECTIONS_MAX 64
#define ADMIN_ROUTES_MAX      64
#define ADMIN_HEAD_BYTES_MAX  (16u * 1024)
#define ADMIN_BODY_BYTES_MAX  (1024u * 1024)
#define ADMIN_REPLY_BYTES_MAX (32u * 1024 * 1024)
#define ADMIN_TIMEOUT_MS      10000 /* for a head, for a body, for each 64 KiB of an answer; and idle */
#define ADMIN_POLL_MAX        (ADMIN_CONNECTIONS_MAX + 2)

struct admin;

struct admin_options {
    const char *program;           /* "segue-edge" */
    const char *socket_path;       /* NULL: none */
    const struct address *address; /* NULL: none */
    struct str token;              /* copied; empty: what needs it is refused on TCP */
    const struct str *hosts;       /* names that a Host may have on TCP, beside addresses and localhost */
    size_t hosts_n;
    uint64_t timeout_ms; /* 0: ADMIN_TIMEOUT_MS */
};

/* Binds and listens. A socket file that nobody listens at is removed first. On failure *error_text (of static
 * storage) says what was tried. 0 or -errno; -EADDRINUSE when somebody listens there. */
int admin_open(struct admin **out, const struct admin_options *options, const char **error_text);

/* Closes everything and removes the socket file. Replies that are still owed are freed by admin_reply_send.
 */
void admin_close(struct admin **a);

/* After a reload: token and hosts. The sockets stay as they are. 0 or -ENOMEM, then all stays. */
int admin_reconfigure(struct admin *a, const struct admin_options *options);

/* --- requests --- */

struct admin_request {
    struct str method;
    struct str path;  /* as sent, before '?' */
    struct str query; /* as sent, after it */
    struct str content_type;
    struct str body;
    bool local; /* it came over the Unix socket */
};

/* Filled by the handler. */
struct admin_reply {
    int status;               /* 200 unless set */
    const char *content_type; /* "application/json" unless set */
    struct grow body;
    bool later; /* set by a handler that keeps the reply: see admin_reply_send */
    struct admin *admin;
    void *connection; /* of the admin's own; NULL once the client is gone */
};

/* All that the request points to is gone when the handler returns. */
typedef void (*admin_handler)(const struct admin_request *request, struct admin_reply *reply, void *context);

enum admin_flag { ADMIN_OPEN = 1 /* without a token on TCP */ };

/* `path` has no query; it is compared as bytes. HEAD is answered where GET is. Both strings must outlive a.
 */
void admin_route(struct admin *a, const char *method, const char *path, unsigned flags, admin_handler handler,
                 void *context);

/* An error as problem+json: status, its phrase as title, and `detail` in one sentence. */
void admin_problem(struct admin_reply *reply, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The first query parameter of this name, percent-decoded. 0, -ENOENT, or -EINVAL (bad escape, NUL, does not
 * fit). */
int admin_query(const struct admin_request *request, struct str name, struct buf *out);

/* A handler that has set reply->later calls this on the control thread when the reply is filled, exactly
 * once, whether or not the client is still there; the reply is gone afterwards. */
void admin_reply_send(struct admin_reply **reply);

/* --- the loop around it --- */

/* Fills fds (at most ADMIN_POLL_MAX) and returns how many; *wait_ms becomes less when a deadline is nearer.
 */
unsigned admin_poll_fill(struct admin *a, struct pollfd *fds, int *wait_ms);

/* Does what can be done without waiting. fds: the same, after poll(2). */
void admin_poll_run(struct admin *a, const struct pollfd *fds, unsigned fds_n);
