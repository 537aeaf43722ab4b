/* The one owner of io_uring: operations on sockets and files for one worker thread.
 *
 * An operation is a struct of its owner's. Its completion records a result and wakes the owning flow;
 * nothing is run from inside a completion. An operation in flight, and all memory given to it, must
 * stay where it is until it is complete: a flow that wants to go cancels its operations, waits for them,
 * and then closes (closing alone does not cancel).
 *
 * All results are >= 0 or -errno. An io belongs to the thread that created it. tests/sim has a second
 * implementation of this header, with virtual time, scripted peers and seeded faults. */
#pragma once

#include "io/flow.h"
#include "io/mailbox.h"
#include "io/timer.h"
#include "util/limits.h"
#include "util/list.h"
#include "util/str.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

struct io;
struct open_how;
struct statx;

/* --- the loop --- */

struct io_options {
    unsigned entries;              /* submission queue; the completion queue is several times larger */
    unsigned receive_buffers;      /* provided to io_recv, a power of two, at most 32768 */
    unsigned receive_buffer_bytes; /* at most 65535 */
    unsigned first_rung;           /* of the setup ladder, 0 the best; for tests and measurements */
};

/* On the thread that will use it. On failure *error_text says in a sentence what happened and, where
 * io_uring is not permitted, which sysctl (kernel.io_uring_disabled) or seccomp profile to look at. */
int io_create(struct io **out, const struct io_options *options, const char **error_text);
void io_destroy(struct io **io);

/* Which rung of the setup ladder is in use and what was probed, for -V and the log. Lives as long as io. */
const char *io_describe(const struct io *io);

/* One turn: runs the flows that are ready, submits, waits at most wait_max_ns (not at all while flows are
 * ready) for a completion, a timer or mail, takes what came and runs the flows it woke. What those ask for is
 * submitted when the next turn begins. 0 or -errno (then the ring is broken). */
int io_run_once(struct io *io, uint64_t wait_max_ns);

/* CLOCK_MONOTONIC and Unix time, read once each time round the loop. */
uint64_t io_now_ns(const struct io *io);
uint64_t io_now_unix_s(const struct io *io);

struct flow_queue *io_ready(struct io *io);
struct timer_wheel *io_timers(struct io *io);

static inline void io_wake(struct io *io, struct flow *f)
{
    flow_wake(io_ready(io), f);
}

static inline void io_timer_set(struct io *io, struct timer *t, struct flow *f, uint64_t delay_ms)
{
    timer_set(io_timers(io), t, f, io_now_ns(io), delay_ms);
}

static inline void io_timer_cancel(struct io *io, struct timer *t)
{
    timer_cancel(io_timers(io), t);
}

/* Mail is delivered by the loop with this context. The mailbox must outlive the io. */
int io_attach_mailbox(struct io *io, struct mailbox *m, void *context);

/* --- one operation --- */

struct io_op {
    struct flow *flow;    /* woken at completion */
    const void *argument; /* with n and fd: of the implementation, which may have to ask again */
    uint32_t n;
    int32_t fd;
    int32_t result;
    uint8_t kind; /* of the implementation */
    bool in_flight;
    bool done; /* complete, result not yet taken */
};

/* True once, when the operation is complete: *result is its result, and it may be used anew. */
static inline bool io_op_take(struct io_op *op, int *result)
{
    if (!op->done)
        return false;
    op->done = false;
    *result = op->result;
    return true;
}

/* Asks the kernel to end it early. It completes all the same, with -ECANCELED or its own result. Does
 * nothing when it is not in flight. */
void io_cancel(struct io *io, struct io_op *op);

void io_connect(struct io *io, struct io_op *op, struct flow *f, int fd, const struct sockaddr *address,
                socklen_t address_bytes);

/* Into memory of the caller's. Result: bytes, 0 at the end of the stream. */
void io_recv_into(struct io *io, struct io_op *op, struct flow *f, int fd, void *to, size_t n);

/* One send in flight a socket. Waits until all is sent or an error occurs, and may still be short; more than
 * IO_SEND_BYTES_MAX always is. */
void io_send(struct io *io, struct io_op *op, struct flow *f, int fd, const void *bytes, size_t n);

/* The same for up to IO_VECS_MAX runs; `message` must have msg_iov and msg_iovlen set and the rest zero, and
 * stay, as must the vectors, until completion. */
#define IO_VECS_MAX 8
void io_sendmsg(struct io *io, struct io_op *op, struct flow *f, int fd, const struct msghdr *message);

void io_openat2(struct io *io, struct io_op *op, struct flow *f, int dir_fd, const char *path,
                struct open_how *how);
void io_statx(struct io *io, struct io_op *op, struct flow *f, int fd,
              struct statx *out); /* of an open file */
void io_read(struct io *io, struct io_op *op, struct flow *f, int fd, void *to, size_t n, uint64_t offset);

/* Readable or writable once (POLLIN | POLLOUT): for libraries that do their own reads. */
void io_poll(struct io *io, struct io_op *op, struct flow *f, int fd, unsigned events);

/* Closes without waiting and without an answer. No operation may be in flight on it. */
void io_close(struct io *io, int fd);

/* --- accept, again and again --- */

#define IO_ACCEPT_QUEUE 64

struct io_accept {
    struct io_op op; /* not for io_op_take */
    int listen_fd;
    int error;        /* what ended it (-EMFILE, ...); start it anew when the cause is gone */
    unsigned head, n; /* of the queue, a circle */
    int fds[IO_ACCEPT_QUEUE];
};

/* Sockets come with TCP_NODELAY, non-blocking and close-on-exec. */
void io_accept_start(struct io *io, struct io_accept *a, struct flow *f, int listen_fd);

/* The next socket, now the caller's; -EAGAIN when none has come; another -errno when accepting has ended
 * (-ECANCELED after io_cancel of its op). The flow must take all there are each time it is woken: what comes
 * while the queue is full is closed. */
int io_accept_take(struct io_accept *a);

/* --- receive with provided buffers: an idle connection owns none --- */

#define IO_RECV_QUEUE_MAX 8 /* buffers one socket may hold unread before its receive is paused */

struct io_recv {
    struct io_op op;      /* not for io_op_take */
    struct list starving; /* while starved */
    int fd;
    int16_t end;         /* 0 while open; -ENODATA at the end of the stream; another -errno */
    uint16_t head, tail; /* queued buffers, IO_RECV_NONE: none */
    uint16_t queued_n;
    uint16_t head_used; /* bytes of the first buffer that are consumed */
    bool multishot : 1;
    bool cancelling : 1;
    bool wanted : 1;   /* armed anew while the cancellation is on its way */
    bool stopping : 1; /* what still comes is dropped */
    bool starved : 1;  /* waits for a buffer to come back */
    bool nonempty : 1; /* the socket held more when it was last read */
};

#define IO_RECV_NONE UINT16_MAX

/* multishot: receives on and on, paused at IO_RECV_QUEUE_MAX buffers. Otherwise one buffer for each arm. */
void io_recv_init(struct io_recv *r, int fd, struct flow *f, bool multishot);

/* Makes sure a receive is in flight or data or the end is at hand. Call it whenever you are about to wait for
 * more: it is what resumes a receive that was paused, and costs nothing when there is nothing to do. */
void io_recv_arm(struct io *io, struct io_recv *r);

/* The first unread run, or an empty one. It stays valid until consumed, whatever else is received. After the
 * last run, io_recv_end tells. */
struct str io_recv_peek(struct io *io, const struct io_recv *r);

/* 0 while more may come; -ENODATA when the peer has ended its stream; else -errno. Only once all is consumed.
 */
int io_recv_end(const struct io_recv *r);

/* n: at most what peek gave. A buffer that is used up goes back to the ring. */
void io_recv_consume(struct io *io, struct io_recv *r, size_t n);

/* Three quarters of the receive buffers hold bytes that nobody has consumed: who can do without should. */
bool io_recv_scarce(const struct io *io);

/* Seven eighths do: who can do without must, so that there are some left for those who need them only for a moment. */
bool io_recv_nearly_out(const struct io *io);

/* Drops what is queued and cancels. True when nothing is in flight any more; else the flow is woken when
 * that is so, and calls again. */
bool io_recv_stop(struct io *io, struct io_recv *r);

/* --- sockets: calls that do not wait --- */

/* A listening TCP socket with SO_REUSEPORT and SO_REUSEADDR, TCP_NODELAY (inherited by what it accepts), and
 * IPV6_V6ONLY for IPv6. Returns the fd or -errno. */
int io_listen(struct io *io, const struct sockaddr *address, socklen_t address_bytes, int backlog);

/* A non-blocking TCP socket with TCP_NODELAY. Returns the fd or -errno. */
int io_socket(struct io *io, int family);

int io_peer_address(struct io *io, int fd, struct sockaddr_storage *out);  /* 0 or -errno */
int io_local_address(struct io *io, int fd, struct sockaddr_storage *out); /* 0 or -errno */
void io_shutdown_send(struct io *io, int fd);

/* Bytes the peer has acknowledged since the connection began: progress that a send in flight does not show.
 */
int io_acked_bytes(struct io *io, int fd, uint64_t *out); /* 0 or -errno */

/* Upper bound of the rate at which the kernel sends on it; UINT64_MAX: none. */
void io_pace(struct io *io, int fd, uint64_t bytes_per_s);
