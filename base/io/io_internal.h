/* What the files of the one io_uring owner share. Only they include it, and only it includes liburing. */
#pragma once

#include "io/io.h"
#include "util/check.h"
#include "util/limits.h"

#include <liburing.h>

#define IO_MAGIC 0x494f5552u

#define IO_BUFFER_GROUP 1

enum io_kind {
    IO_KIND_PLAIN = 1,
    IO_KIND_RECV_INTO,
    IO_KIND_SEND,
    IO_KIND_SENDMSG,
    IO_KIND_ACCEPT,
    IO_KIND_ACCEPT_POLL, /* of a non-blocking listener on a kernel that does not wait for it */
    IO_KIND_RECV,
};

struct io_buffer {
    uint32_t n;    /* bytes received */
    uint16_t next; /* in the queue of its io_recv, or among the spare ones */
};

/* The receive buffers. The kernel takes them from the ring first in, first out, which would drag all of them
 * through the CPU's caches; so only so many as a turn of the loop needs are in the ring, and the rest are
 * kept aside, the last returned on top. */
struct io_buffers {
    struct io_uring_buf_ring *ring;
    size_t ring_bytes;
    char *memory;
    struct io_buffer *info;
    unsigned n, bytes;
    unsigned unread_n; /* in queues */
    unsigned in_ring, in_ring_target;
    uint16_t spare; /* IO_RECV_NONE: none */
    uint64_t target_grown_ns;
    struct list starving; /* receives that found the ring empty */
};

struct io_mail {
    struct flow flow;
    struct io *io;
    struct io_op poll;
    struct mailbox *box;
    void *context;
};

struct io {
    uint32_t magic;
    bool closing; /* nothing is asked again */
    bool can_recv_multishot;
    bool can_accept_multishot;
    struct io_uring ring;
    struct flow_queue ready;
    struct timer_wheel *timers;
    uint64_t now_ns, now_unix_s, unix_read_ns;
    size_t in_flight_n;
    struct io_buffers buffers;
    struct io_mail mail;
    char description[200];
};

/* A submission entry; when the queue is full it is submitted first. NULL only when the kernel refuses to take
 * anything for a long time. */
struct io_uring_sqe *io_sqe(struct io *io);

/* For operations that are complete at their one completion. */
void io_op_finish(struct io *io, struct io_op *op, int result);

/* The rest of a submission: from here on `op` is in flight. */
void io_op_begin(struct io *io, struct io_op *op, struct flow *f, enum io_kind kind,
                 struct io_uring_sqe *sqe);

/* Takes completions, at most so many. Returns how many. */
unsigned io_reap(struct io *io, unsigned n_max);

/* Of a completion that was not the last one of its operation, `more` is set. */
void io_op_complete(struct io *io, struct io_op *op, int result, uint32_t flags);
void io_accept_complete(struct io *io, struct io_accept *a, int result, bool more);
void io_recv_complete(struct io *io, struct io_recv *r, int result, uint32_t flags);

int io_buffers_open(struct io *io, unsigned n, unsigned bytes);
void io_buffers_close(struct io *io);

/* Arms those that starved, as far as there are buffers. True: some are left and could be armed next turn. */
bool io_recv_feed(struct io *io);
