/* Connections of the load programs that may be TLS 1.3. All of them offer one cipher and one group
 * (TLS_AES_128_GCM_SHA256, X25519), so that no server is measured with another one than its peers. */
#pragma once

#include "client.h"

#include <openssl/ssl.h>

struct link {
    int fd;
    SSL *ssl; /* NULL: plain */
};

/* `protocol` is what ALPN offers: "http/1.1", "h2", or NULL for none. */
SSL_CTX *client_tls_context(const char *protocol);

/* A connection over `fd`, the handshake not begun. */
SSL *client_tls_new(SSL_CTX *context, int fd);

/* Ends the program if what was negotiated is not what was offered. */
void client_tls_check(SSL *ssl, const char *protocol);

/* A connection from `from` (host order; 0: any) with its handshake done, blocking. `context` NULL: plain.
 * Returns false with errno, or 0 there when TLS failed, and nothing open. */
bool link_open(struct link *link, SSL_CTX *context, const char *protocol, uint32_t from, uint16_t port);
void link_close(struct link *link);

/* Bytes moved; 0 at the end; -1 when nothing can move now, with a socket that does not block; -2 on errors. */
ssize_t link_read(struct link *link, void *into, size_t room);
ssize_t link_write(struct link *link, const void *bytes, size_t n);

/* On a blocking connection: all of it, or the program ends. */
void link_write_all(struct link *link, const void *bytes, size_t n);
void link_read_all(struct link *link, void *into, size_t n);

void link_set_nonblocking(struct link *link);
