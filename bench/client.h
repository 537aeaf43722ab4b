/* What the load programs of the bench share: a file of request targets, connections to a server on loopback,
 * and the head of an answer. They are observers from outside: blocking or epoll sockets, none of base/io, so
 * that a fault there cannot hide itself. Errors end the program with a message, for nothing can be measured
 * then. */
#pragma once

#include "util/str.h"

#include <stdint.h>

#define CLIENTS_MAX 20000u /* the descriptors a process may have, with some to spare */
#define HEAD_MAX    4096u

struct targets {
    char *text;
    struct str *lines; /* point into text */
    size_t count;
};

_Noreturn void client_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The whole file as bytes of malloc. */
struct str client_read_file(const char *path);

/* One request target a line. */
struct targets client_read_targets(const char *path);

/* A connection to 127.0.0.1 that closes by reset, so that no port lingers in TIME_WAIT. */
int client_connect(uint16_t port);

/* The same from an address of this host (host order; 0: any), so that a server takes it for another client.
 * -1 with errno. */
int client_connect_from(uint32_t from, uint16_t port);

/* At most HEAD_MAX bytes. */
size_t client_write_get(char *into, struct str target);
void client_send_get(int fd, struct str target);

struct answer {
    unsigned status;
    uint64_t body_bytes; /* Content-Length */
    size_t head_bytes;   /* including the empty line */
};

/* Returns 1 when the head is complete, 0 when more must be read, -1 when it is not one that is understood:
 * these programs need a Content-Length. `text` is terminated. */
int client_parse_head(const char *text, struct answer *answer);
