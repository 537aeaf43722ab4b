#include "client_tls.h"

#include "util/check.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CIPHER    "TLS_AES_128_GCM_SHA256"
#define GROUP     "X25519"
#define GROUP_NID NID_X25519

SSL_CTX *client_tls_context(const char *protocol)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    unsigned char offer[32];
    CHECK(context);
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL); /* the certificate is made for the run */
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
    if (SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(context, CIPHER) != 1 || SSL_CTX_set1_groups_list(context, GROUP) != 1)
        client_fail("this OpenSSL has no TLS 1.3 with " CIPHER " and " GROUP);
    if (!protocol)
        return context;
    size_t n = strlen(protocol);
    CHECK(n < sizeof(offer));
    offer[0] = (unsigned char)n;
    memcpy(offer + 1, protocol, n);
    CHECK(SSL_CTX_set_alpn_protos(context, offer, (unsigned)n + 1) == 0);
    return context;
}

SSL *client_tls_new(SSL_CTX *context, int fd)
{
    SSL *ssl = SSL_new(context);
    CHECK(ssl && SSL_set_fd(ssl, fd) == 1);
    SSL_set_connect_state(ssl);
    return ssl;
}

void client_tls_check(SSL *ssl, const char *protocol)
{
    const unsigned char *chosen;
    unsigned n;
    const char *cipher = SSL_get_cipher_name(ssl);
    if (strcmp(cipher, CIPHER) != 0 || SSL_get_negotiated_group(ssl) != GROUP_NID)
        client_fail("negotiated %s and group %ld", cipher, SSL_get_negotiated_group(ssl));
    SSL_get0_alpn_selected(ssl, &chosen, &n);
    /* A server without ALPN answers nothing, and speaks HTTP/1.1. */
    if (protocol && (n > 0 || strcmp(protocol, "http/1.1") != 0) &&
        (n != strlen(protocol) || memcmp(chosen, protocol, n) != 0))
        client_fail("the server does not speak %s", protocol);
}

bool link_open(struct link *link, SSL_CTX *context, const char *protocol, uint32_t from, uint16_t port)
{
    *link = (struct link){.fd = client_connect_from(from, port)};
    if (link->fd < 0)
        return false;
    if (!context)
        return true;
    link->ssl = client_tls_new(context, link->fd);
    if (SSL_do_handshake(link->ssl) != 1) {
        ERR_clear_error();
        link_close(link);
        errno = 0;
        return false;
    }
    client_tls_check(link->ssl, protocol);
    return true;
}

void link_close(struct link *link)
{
    SSL_free(link->ssl);
    if (link->fd >= 0)
        close(link->fd);
    *link = (struct link){.fd = -1};
}

static ssize_t moved(struct link *link, ssize_t n)
{
    if (n > 0)
        return n;
    if (!link->ssl)
        return n == 0 ? 0 : errno == EAGAIN || errno == EINTR ? -1 : -2;
    int error = SSL_get_error(link->ssl, (int)n);
    ERR_clear_error();
    if (error == SSL_ERROR_ZERO_RETURN)
        return 0;
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? -1 : -2;
}

ssize_t link_read(struct link *link, void *into, size_t room)
{
    return moved(link, link->ssl ? SSL_read(link->ssl, into, (int)room) : recv(link->fd, into, room, 0));
}

ssize_t link_write(struct link *link, const void *bytes, size_t n)
{
    return moved(link,
                 link->ssl ? SSL_write(link->ssl, bytes, (int)n) : send(link->fd, bytes, n, MSG_NOSIGNAL));
}

void link_write_all(struct link *link, const void *bytes, size_t n)
{
    const char *p = bytes;
    while (n > 0) {
        ssize_t wrote = link_write(link, p, n);
        if (wrote <= 0)
            client_fail("a connection closed while it was written to");
        p += wrote;
        n -= (size_t)wrote;
    }
}

void link_read_all(struct link *link, void *into, size_t n)
{
    char *p = into;
    while (n > 0) {
        ssize_t got = link_read(link, p, n);
        if (got <= 0)
            client_fail("a connection closed while an answer was read");
        p += got;
        n -= (size_t)got;
    }
}

void link_set_nonblocking(struct link *link)
{
    if (fcntl(link->fd, F_SETFL, O_NONBLOCK))
        client_fail("fcntl: %s", strerror(errno));
}
