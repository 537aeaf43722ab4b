/* What the files of the simulation share. Tests include sim.h. */
#pragma once

#include "sim.h"
#include "util/check.h"
#include "util/clock.h"
#include "util/list.h"

#include <linux/openat2.h>

#define SIM_FD_BASE  (1 << 20) /* virtual descriptors are beyond what the kernel gives here */
#define SIM_NEVER    UINT64_MAX
#define SIM_OP_MAGIC 0x53494f50u

/* --- events (sim_world.c) --- */

struct sim_event {
    uint64_t at, order;
    void (*call)(void *);
    void *context;
    size_t place; /* in the heap, from 1; 0: not set */
};

void sim_event_set(struct sim_world *w, struct sim_event *e, uint64_t delay_ns);
void sim_event_cancel(struct sim_world *w, struct sim_event *e);

static inline bool sim_event_is_set(const struct sim_event *e)
{
    return e->place != 0;
}

/* Chance, counted. */
static inline bool sim_fault(struct sim_world *w, unsigned ppm, uint64_t *count)
{
    bool happens = sim_chance(w, ppm);

    *count += happens;
    return happens;
}

void sim_trace(struct sim_world *w, const char *what, uint64_t a, uint64_t b);
void sim_trace_bytes(struct sim_world *w, const void *bytes, size_t n);

/* --- bytes in order --- */

struct sim_bytes {
    char *p;
    size_t head, n, cap;
};

void sim_bytes_add(struct sim_bytes *b, const void *bytes, size_t n);
void sim_bytes_drop(struct sim_bytes *b, size_t n);
void sim_bytes_free(struct sim_bytes *b);

static inline char *sim_bytes_at(const struct sim_bytes *b, size_t i)
{
    return b->p + b->head + i;
}

/* --- the world --- */

enum sim_fd_kind { SIM_FD_CLOSED, SIM_FD_CONN, SIM_FD_LISTENER, SIM_FD_FILE };

struct sim_fd {
    enum sim_fd_kind kind;
    unsigned ops_n; /* submitted and not yet taken */
    union {
        struct sim_conn *conn;
        struct sim_listener *listener;
        int file; /* of the kernel */
    };
};

struct sim_world {
    struct sim_options options;
    struct sim_counts counts;
    uint64_t random[4];
    uint64_t secrets; /* state of OpenSSL's randomness */
    struct sim_tls_world *tls;
    uint64_t now, mono_base;
    uint64_t hash;
    bool trace;
    uint64_t event_order;
    struct sim_event **heap;
    size_t heap_n, heap_cap;
    struct sim_fd *fds;
    size_t fds_n, fds_cap, fds_open;
    struct sim_op **ops; /* in flight, by slot */
    size_t ops_n, ops_cap, ops_in_flight, free_slot_hint;
    struct list ios, listeners, routes, conns, calls;
    uint64_t conns_n;
    uint16_t next_port;
};

extern struct sim_world *sim_current;

struct sim_fd *sim_fd_get(struct sim_world *w, int fd, enum sim_fd_kind kind, const char *what);
int sim_fd_new(struct sim_world *w, enum sim_fd_kind kind, void *object, int file);

/* --- workers (sim_io.c) --- */

struct sim_completion {
    struct sim_op *op;
    int result;
    int buffer; /* of a receive, or -1 */
    bool more;
};

struct sim_buffer {
    char *p;
    size_t n; /* bytes received into it */
    uint16_t next;
};

struct sim_mail {
    struct flow flow;
    struct io *io;
    struct mailbox *mailbox;
    void *context;
    struct list link;
};

struct io {
    uint32_t magic;
    struct sim_world *w;
    struct list link;
    struct flow_queue ready;
    struct timer_wheel *timers;
    uint64_t now_ns, wake_at;
    void (*turn)(void *);
    void *turn_context;
    struct sim_completion *done;
    size_t done_head, done_n, done_cap;
    struct list mails;
    struct list accepts; /* sim_op.io_link of accepts in flight */
    struct list starved; /* io_recv.starving */
    struct sim_buffer *buffers;
    unsigned buffers_n, buffer_bytes;
    uint16_t free_head, free_tail;
    unsigned free_n;
    char description[64];
};

#define SIM_IO_MAGIC 0x53494d49u

bool sim_io_wants_turn(const struct io *io);
uint64_t sim_io_next_ns(const struct io *io); /* when it will want one, by the world's clock */

/* --- operations --- */

enum sim_op_kind {
    SIM_OP_CONNECT = 1,
    SIM_OP_RECV_INTO,
    SIM_OP_RECV,
    SIM_OP_SEND,
    SIM_OP_POLL,
    SIM_OP_ACCEPT,
    SIM_OP_OPEN,
    SIM_OP_STATX,
    SIM_OP_READ,
    SIM_OP_KINDS
};

struct sim_op {
    uint32_t magic;
    enum sim_op_kind kind;
    struct io *io;
    struct io_op *op;
    int slot, fd;
    struct sim_conn *conn;
    struct sim_listener *listener;
    struct sim_event event; /* its next try */
    bool cancelled;
    bool ended;          /* its last completion is queued */
    unsigned pending_n;  /* completions queued and not taken */
    struct list io_link; /* accepts */
    const struct msghdr *message;
    struct iovec vecs[IO_VECS_MAX];
    unsigned vecs_n;
    char *shadow; /* what was to be sent, as it was at submission */
    size_t n, sent;
    bool last_part; /* a send that will be short */
    bool lost;      /* a connect that nobody answers */
    bool breaks;    /* by break_at_try: a connect is refused, an accept finds no descriptor */
    void *to;
    uint64_t offset;
    unsigned events;
    const char *path;
    struct open_how *how;
    union {
        struct io_recv *recv;
        struct io_accept *accept;
    };
};

struct sim_op *sim_op_start(struct io *io, struct io_op *op, struct flow *f, int fd, enum sim_op_kind kind);

/* Queues a completion for the worker. */
void sim_op_post(struct sim_op *op, int result, int buffer, bool more);
void sim_op_free(struct sim_op *op);

/* Sees to it that it is tried soon. */
void sim_op_kick(struct sim_op *op);

/* Where a cancelled operation may not have its own result: completes it and returns true. */
bool sim_op_ends_cancelled(struct sim_op *op, bool possible);
void sim_send_check(struct sim_op *op);

/* Tries, by kind; called by the world. */
void sim_try_connect(void *op);
void sim_try_recv(void *op);
void sim_try_send(void *op);
void sim_try_poll(void *op);
void sim_try_accept(void *op);
void sim_try_file(void *op);

/* Takes a completion, on the worker's turn. */
void sim_recv_taken(struct sim_op *op, int result, int buffer, bool more);
void sim_accept_taken(struct sim_op *op, int result, bool more);
void sim_recv_feed(struct io *io); /* those that starved, when buffers have come back */
void sim_accept_resume(struct io *io);
void sim_buffers_init(struct io *io, const struct io_options *options);
void sim_buffers_free(struct io *io);

/* --- the network (sim_net.c) --- */

struct sim_listener {
    struct list link;
    struct sim_world *w;
    struct sockaddr_storage address;
    int fd;              /* -1: a peer's */
    struct list backlog; /* sim_conn.backlog_link */
    struct sim_op *op;   /* accept */
    const struct sim_peer *peer;
    void *(*accept)(void *, struct sim_conn *);
    void *context;
};

/* One direction: what is on its way to `to`, after what has arrived there. */
struct sim_pipe {
    struct sim_bytes bytes; /* `unread` have arrived, the rest is on its way */
    size_t unread;
    size_t send_cap, receive_cap;
    uint64_t arrived_total, read_total;
    uint64_t reset_at;
    bool fin_sent, fin_arrived;
    bool flowing; /* a burst goes on: the next segment comes after a gap, not after a latency */
    struct sim_event arrival;
};

enum sim_conn_state { SIM_CONN_NEW, SIM_CONN_CONNECTING, SIM_CONN_OPEN, SIM_CONN_DEAD };

struct sim_conn {
    struct list link, backlog_link;
    struct sim_world *w;
    uint64_t id;
    int fd; /* -1: a peer's, or not yet accepted */
    int family;
    enum sim_conn_state state; /* DEAD: reset */
    struct sim_conn *other;
    struct sockaddr_storage local, remote;
    struct sim_pipe in;
    bool shut;   /* our stream has ended */
    bool closed; /* by its owner */
    int error;   /* to be reported once */
    uint64_t pace;
    struct sim_event reset_arrival;
    struct sim_op *op_connect, *op_recv, *op_send, *op_poll;

    /* a peer's */
    const struct sim_peer *peer;
    void *me;
    bool end_told, gone_told;
    bool closes_at_limit; /* in place of a reset at reset_at_read */
    struct sim_tls *tls;  /* NULL: plain */
    struct sim_event read, write, dial;
    uint64_t read_rate, write_rate;
    uint64_t sent_total, reset_at_read, reset_at_sent;
    struct list script; /* struct sim_action */
};

struct sim_conn *sim_conn_new(struct sim_world *w, int family);

/* -errno, or 0: connected, or in the backlog of a listener. -EINPROGRESS: never answered. */
int sim_net_connect(struct sim_conn *c, const struct sockaddr_storage *to);
void sim_net_forget(struct sim_world *w); /* frees connections, listeners and routes */

size_t sim_conn_room(const struct sim_conn *c); /* for its sends */
bool sim_conn_readable(const struct sim_conn *c);
bool sim_conn_writable(const struct sim_conn *c);
void sim_conn_put(struct sim_conn *c, const void *bytes, size_t n);
void sim_conn_took(struct sim_conn *c, size_t n); /* n arrived bytes have been read */
int sim_conn_take_error(struct sim_conn *c);      /* -errno once, then 0 */
void sim_conn_shut(struct sim_conn *c);
void sim_conn_do_close(struct sim_conn *c);
void sim_conn_do_reset(struct sim_conn *c);
void sim_conn_break(struct sim_conn *c); /* both ends see a reset */
void sim_conn_kick(struct sim_conn *c);  /* something has changed for its owner */
uint64_t sim_rate_ns(uint64_t bytes, uint64_t bytes_per_s);

/* Of scripted peers (sim_peer.c). */
void sim_peer_init(struct sim_conn *c, const struct sim_peer *peer, void *me);
void sim_peer_kick(struct sim_conn *c);
void sim_peer_forget(struct sim_conn *c);

/* --- TLS of scripted peers (sim_tls.c; what tests see of it is sim_tls.h) --- */

enum sim_tls_event { SIM_TLS_OPEN, SIM_TLS_ENDED, SIM_TLS_FAILED };

/* Ciphertext that has just been read; a flipped bit shows in it. */
enum sim_tls_event sim_tls_read(struct sim_conn *c, char *bytes, size_t n);
/* The next run of plaintext; none: *n is 0. ENDED: close_notify. */
enum sim_tls_event sim_tls_take(struct sim_conn *c, char *to, size_t cap, size_t *n);

size_t sim_tls_unsent(const struct sim_conn *c); /* ciphertext that waits to be sent; plain: 0 */
void sim_tls_put(struct sim_conn *c, size_t n);
bool sim_tls_may_write(const struct sim_conn *c); /* the handshake is done, and nothing waits to be sent */
size_t sim_tls_record_bytes(struct sim_conn *c);  /* of the next one, at most */
void sim_tls_write(struct sim_conn *c, const char *bytes, size_t n); /* at most that: one record */
bool sim_tls_notify(struct sim_conn *c); /* makes close_notify, if it is still to be sent */
bool sim_tls_has_failed(const struct sim_conn *c);
void sim_tls_forget(struct sim_conn *c);
void sim_tls_forget_world(struct sim_world *w);
