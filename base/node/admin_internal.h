/* What admin.c (sockets, connections) and admin_request.c (who may ask what) share. */
#pragma once

#include "http/http1.h"
#include "http/url.h"
#include "node/admin.h"

struct admin_route_entry {
    const char *method, *path;
    unsigned flags;
    admin_handler handler;
    void *context;
};

struct admin_access { /* who may come in over TCP; replaced whole at a reload */
    struct str token; /* the struct's own bytes */
    struct str *hosts;
    size_t hosts_n;
};

enum admin_state {
    ADMIN_FREE,   /* the place is nobody's */
    ADMIN_HEAD,   /* reading a head, or idle between two */
    ADMIN_BODY,   /* reading a body */
    ADMIN_LATER,  /* a handler has it */
    ADMIN_SEND,   /* sending the reply */
    ADMIN_LINGER, /* our side has ended; what the client still sends is dropped */
};

struct admin_connection {
    enum admin_state state;
    int fd;
    bool local;
    bool close_after;
    bool to_head;
    bool again; /* it has more to do, but others had to have their turn */
    uint64_t deadline_ns;
    struct grow in; /* a head, and what came behind it */
    size_t scanned;
    size_t head_bytes;
    struct http1_request request;
    const struct admin_route_entry *route;
    struct grow body; /* of a chunked request; one with a length stays in `in` */
    struct http1_chunked chunked;
    struct grow out; /* the reply's head */
    struct admin_reply *reply;
    size_t sent; /* bytes of out and then of the reply's body */
    size_t sent_at_deadline;
};

#define ADMIN_MAGIC 0x41444d4eu

struct admin {
    uint32_t magic;
    const char *program;
    uint64_t timeout_ns;
    char *socket_path;
    uint64_t socket_dev, socket_ino; /* of the file we made: another's is never removed */
    int unix_fd, tcp_fd;             /* -1: none */
    uint64_t accept_again_ns;        /* after EMFILE and the like */
    struct admin_access access;
    struct admin_route_entry routes[ADMIN_ROUTES_MAX];
    unsigned routes_n;
    struct admin_connection connections[ADMIN_CONNECTIONS_MAX];
    unsigned tcp_n; /* connections over TCP */
};

int admin_access_copy(struct admin_access *to, const struct admin_options *options);
void admin_access_free(struct admin_access *access);

/* Finds the route of a request whose head is whole, or fills the refusal: 0, or -1 and a reply. */
int admin_judge(const struct admin *a, struct admin_connection *c, struct admin_reply *reply);

/* Status line and fields of a reply. */
void admin_render_head(const struct admin_connection *c, const struct admin_reply *reply, struct grow *out);
