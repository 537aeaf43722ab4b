/* Listening sockets of a worker: its own, or one that systemd passed and all workers share.
 *
 * Own sockets are one a worker with SO_REUSEPORT, so that the kernel spreads connections and nobody fights
 * over one queue. An inherited socket is duplicated for each worker; they all accept from its one queue. A
 * socket handed over by an older process (origin LISTENER_HANDED_OVER) will come in through the same list. */
#pragma once

#include "io/io.h"
#include "net/address.h"

#define LISTENERS_INHERITED_MAX 64

enum listener_origin { LISTENER_OWN, LISTENER_SYSTEMD, LISTENER_HANDED_OVER };

struct listener_inherited {
    int fd; /* -1: taken from the list */
    enum listener_origin origin;
    struct address address;
    char name[64]; /* FileDescriptorName=; "unknown" when systemd was given none */
    bool wanted;   /* a worker has opened it */
};

/* What the process was started with. Filled once in main, before threads; read-only for the workers. */
struct listener_inheritance {
    struct listener_inherited items[LISTENERS_INHERITED_MAX];
    unsigned n;
};

/* Takes the sockets of LISTEN_FDS out of the environment. What is no listening TCP socket stays out of the
 * list, is closed, and is logged. Returns how many, or -errno. */
int listener_inherit_systemd(struct listener_inheritance *from);

/* Puts in one more, which becomes the list's. 0, -ENOSPC, -ENOTSOCK, -EINVAL (not listening), -EAFNOSUPPORT.
 */
int listener_inherit_add(struct listener_inheritance *from, int fd, enum listener_origin origin,
                         const char *name);

/* Closes all of it, once every worker has opened its own; logs those that no worker wanted. */
void listener_inherit_close(struct listener_inheritance *from);

struct listener {
    int fd; /* of this worker alone */
    enum listener_origin origin;
    struct address address; /* as bound: a port of 0 is resolved */
};

/* On the worker's thread: the inherited socket of the same address, else a new one. `from` may be NULL.
 * Returns 0 or -errno. */
int listener_open(struct io *io, struct listener_inheritance *from, const struct address *address,
                  int backlog, struct listener *out);
void listener_close(struct io *io, struct listener *l);

/* -EADDRINUSE when another process listens there already: with SO_REUSEPORT two programs of one user would
 * share a port in silence. Before the workers start, and only for what is not inherited. 0 or -errno. */
int listener_probe(const struct address *address);
