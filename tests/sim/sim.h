/* The simulated twin of io/io.h and util/clock.h: one world of virtual time, virtual sockets and scripted
 * peers, in which everything that happens follows from one seed. No thread, no wall clock.
 *
 * One world lives at a time; io_create and the clock use it. Several workers (struct io) may live in it, and
 * run in turns that the seed chooses. Programs that talk to each other may live in one world.
 *
 * What a real kernel could not show is checked all the time, and ends the process with the seed, the virtual
 * time and a sentence: an operation reused or forgotten in flight, a descriptor used after its close, closed
 * with operations in flight or leaked, memory that changes while it is sent. Received bytes are overwritten
 * with 0xDB once consumed. SIM_TRACE=1 in the environment prints every event.
 *
 * Times are virtual nanoseconds since the world began; chances are in parts per million. Nothing here may
 * depend on addresses of memory. HTTP peers: sim_http.h, sim_h2.h; TLS on them: sim_tls.h. */
#pragma once

#include "io/io.h"

/* --- the world --- */

struct sim_world;

struct sim_range { /* both ends included */
    uint64_t min, max;
};

/* What is drawn for each new connection, and each direction of it. */
struct sim_net {
    struct sim_range latency_ns;           /* of the first segment after silence, and half a handshake */
    struct sim_range gap_ns;               /* between segments of one burst */
    struct sim_range segment_bytes;        /* {1, 1}: every byte comes alone */
    struct sim_range send_buffer_bytes;    /* taken from the sender and not yet arrived */
    struct sim_range receive_buffer_bytes; /* arrived (so acknowledged) and not yet read */
    struct sim_range operation_ns;         /* from an operation being possible to its completion */
    struct sim_range read_bytes;           /* what one read of a scripted peer takes */
    struct sim_range disk_ns;
    struct sim_range turn_ns; /* what a worker's turn takes */
};

struct sim_faults {
    unsigned short_send_ppm; /* a send ends after a part of its bytes */
    unsigned short_recv_ppm; /* a receive gives less than has come */
    unsigned recv_ends_ppm;  /* a multishot receive ends after a buffer, as the kernel may do */
    unsigned reset_ppm;      /* a direction of a connection is reset at a byte within reset_at */
    struct sim_range reset_at;
    unsigned stall_ppm; /* a segment is late by stall_ns */
    struct sim_range stall_ns;
    unsigned connect_refused_ppm;
    unsigned connect_lost_ppm; /* connects that never end by themselves before CONNECT_TIMEOUT */
    unsigned accept_emfile_ppm;
    unsigned socket_emfile_ppm;
    unsigned spurious_wake_ppm;   /* a turn also wakes a flow whose operation is not complete */
    unsigned cancel_late_ppm;     /* a cancelled operation completes with its own result, where it has one */
    unsigned receive_buffers_max; /* bound on io_options.receive_buffers; 0: none */
    unsigned open_error_ppm;      /* files: -EIO; */
    unsigned read_error_ppm;      /* -EIO; */
    unsigned short_read_ppm;
    uint64_t
        break_at_try; /* the n-th try of a connect, accept, send or receive finds its connection broken */
};

/* How often it has happened: a test that is to go through a fault shows here that it did. */
struct sim_counts {
    uint64_t short_sends, short_recvs, recv_ends, recv_pauses, recv_starved;
    uint64_t resets; /* of reset_ppm */
    uint64_t stalls, refused, lost, accept_errors, socket_errors, spurious_wakes, late_cancels;
    uint64_t file_faults;
    uint64_t tries; /* of operations on connections: what break_at_try counts */
};

struct sim_options {
    uint64_t seed;
    uint64_t unix_s; /* Unix time at which the world begins; 0: 1790000000 */
    struct sim_net net;
    struct sim_faults faults;
};

/* A calm network without faults, but with random latency and segments. */
struct sim_options sim_options_calm(uint64_t seed);

/* What the seed says, from calm to cruel: tiny buffers, segments of a byte, stalls, faults. No connection is
 * reset or refused (a test that wants that sets it). */
struct sim_options sim_options_rough(uint64_t seed);

struct sim_world *sim_create(const struct sim_options *options);

/* Peers' connections may still be open; of the program nothing may: see sim_check_clean. The ios must have
 * been destroyed. Clears *world. */
void sim_destroy(struct sim_world **world);

/* Ends the process when the program has left a descriptor open or an operation in flight. */
void sim_check_clean(struct sim_world *w);

size_t sim_open_fds(const struct sim_world *w); /* of the program: sockets, listeners, files */
size_t sim_ops_in_flight(const struct sim_world *w);

/* May be changed while the world runs: holds for what begins afterwards. */
struct sim_net *sim_net(struct sim_world *w);
struct sim_faults *sim_faults(struct sim_world *w);
const struct sim_counts *sim_counts(const struct sim_world *w);

uint64_t sim_seed(const struct sim_world *w);
uint64_t sim_now_ns(const struct sim_world *w);
uint64_t sim_unix_s(const struct sim_world *w);

/* Of everything that has happened, bytes included: equal for equal seeds, or something is not deterministic.
 */
uint64_t sim_trace_hash(const struct sim_world *w);

/* A test's own part of the trace. */
void sim_note(struct sim_world *w, const char *what, uint64_t a, uint64_t b);

/* Reports seed, time and message to standard error and aborts. */
_Noreturn void sim_fail(const struct sim_world *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Which seeds a test is to run: from first to last. SIM_SEED=N in the environment: only that one;
 * SIM_SEEDS=N: the first N instead of the default. */
struct sim_range sim_seeds(uint64_t default_n);

/* --- chance --- */

uint64_t sim_random(struct sim_world *w);            /* 64 bits */
uint64_t sim_below(struct sim_world *w, uint64_t n); /* 0..n-1; n > 0 */
uint64_t sim_between(struct sim_world *w,
                     struct sim_range range); /* with small values often when it is wide */
bool sim_chance(struct sim_world *w, unsigned ppm);

/* --- running --- */

/* A worker's way round its loop, which calls io_run_once(io, ...) once. Without it the world calls
 * io_run_once itself. A wait_max_ns other than 0 and UINT64_MAX is kept: the worker gets its turn after it.
 */
void sim_worker(struct sim_world *w, struct io *io, void (*turn)(void *), void *context);

/* Runs workers and events until `until` (may be NULL) returns true, which is asked after each turn and event,
 * or `for_ns` have passed. Turns take a few virtual microseconds each. True: `until` held. */
bool sim_run(struct sim_world *w, bool (*until)(void *), void *context, uint64_t for_ns);

/* Runs until nothing is left to do but timers of the program, at most for_ns; true: it is so. */
bool sim_run_idle(struct sim_world *w, uint64_t for_ns);

/* Calls it once, later. */
void sim_after(struct sim_world *w, uint64_t delay_ns, void (*call)(void *), void *context);

/* --- addresses --- */

/* "127.0.0.1" or "::1"; returns its length. */
socklen_t sim_address(struct sockaddr_storage *out, const char *ip, uint16_t port);

/* What meets those who connect there, before listeners are looked at. */
enum sim_route { SIM_ROUTE_OPEN, SIM_ROUTE_REFUSED, SIM_ROUTE_LOST, SIM_ROUTE_UNREACHABLE };
void sim_route(struct sim_world *w, const char *ip, uint16_t port, enum sim_route route);

#define SIM_CONNECT_TIMEOUT_NS (130ull * 1000000000) /* as Linux: then -ETIMEDOUT */

/* --- scripted peers --- */

/* A peer's end of a connection. Belongs to the world and stays until sim_destroy. */
struct sim_conn;

/* Called between turns, never from inside a call of the program. Any may be NULL. A peer reads by itself all
 * that comes, at the rate set. */
struct sim_peer {
    void (*open)(void *me, struct sim_conn *c);
    void (*data)(void *me, struct sim_conn *c, struct str bytes);
    void (*end)(void *me, struct sim_conn *c); /* the program has ended its stream; ours is still open */
    void (*gone)(void *me, struct sim_conn *c,
                 int error); /* the last call: 0, -ECONNRESET, -ECONNREFUSED... */
};

/* The next connect to that address finds a peer: `accept` returns its `me`. */
void sim_listen(struct sim_world *w, const char *ip, uint16_t port, const struct sim_peer *peer,
                void *(*accept)(void *context, struct sim_conn *c), void *context);
void sim_listen_stop(struct sim_world *w, const char *ip, uint16_t port);

/* Connects from from_ip (NULL: 127.0.0.1) to a listener of the program. Refused: `gone` says so. */
struct sim_conn *sim_connect(struct sim_world *w, const char *from_ip, const char *ip, uint16_t port,
                             const struct sim_peer *peer, void *me);

/* Things to do in order, each when the one before is done. What is sent is copied. */
void sim_conn_send(struct sim_conn *c, struct str bytes);
void sim_conn_send_body(struct sim_conn *c, uint64_t body_id, uint64_t offset, uint64_t n); /* generated */
void sim_conn_pause(struct sim_conn *c, uint64_t ns);
void sim_conn_end(struct sim_conn *c);   /* FIN: half-close */
void sim_conn_close(struct sim_conn *c); /* both ways; what was sent still arrives, unless bytes are unread */
void sim_conn_cut(struct sim_conn *c);   /* as close, but without TLS's close_notify */
void sim_conn_reset(struct sim_conn *c); /* what is on its way is lost */

void sim_conn_reset_now(struct sim_conn *c); /* past what is queued */
void sim_conn_close_now(struct sim_conn *c);

/* 0: does not read, or write, until set anew. UINT64_MAX, as at first: without limit. */
void sim_conn_read_rate(struct sim_conn *c, uint64_t bytes_per_s);
void sim_conn_write_rate(struct sim_conn *c, uint64_t bytes_per_s);

bool sim_conn_is_open(const struct sim_conn *c);     /* connected, and not closed by us or reset */
bool sim_conn_is_finished(const struct sim_conn *c); /* was closed or reset by us, or is gone */
uint64_t sim_conn_read_total(const struct sim_conn *c);
uint64_t sim_conn_sent_total(const struct sim_conn *c);
uint64_t sim_conn_id(const struct sim_conn *c); /* 1, 2, ... in the order of their creation */
struct sim_world *sim_conn_world(struct sim_conn *c);

/* The connection is reset when the peer has been given / has sent so many bytes in all. */
void sim_conn_reset_at(struct sim_conn *c, uint64_t read_bytes, uint64_t sent_bytes);

/* --- bodies that can be checked at any byte --- */

uint64_t sim_body_id(struct str path, uint64_t version);
uint8_t sim_body_byte(uint64_t body_id, uint64_t offset);
void sim_body_fill(uint64_t body_id, uint64_t offset, void *to, size_t n);

/* Index of the first byte that differs from the body at `offset`, or n when none does. */
size_t sim_body_differs(uint64_t body_id, uint64_t offset, const void *bytes, size_t n);
