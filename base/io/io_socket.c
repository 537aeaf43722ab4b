/* Calls on sockets that do not wait. */
#include "io/io.h"

#include <errno.h>
#include <linux/tcp.h>
#include <unistd.h>

static int set(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof(value)) == 0 ? 0 : -errno;
}

int io_listen(struct io *io, const struct sockaddr *address, socklen_t address_bytes, int backlog)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
    int rc;

    (void)io;
    if (fd < 0)
        return -errno;
    rc = set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (rc == 0)
        rc = set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (rc == 0)
        rc = set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (rc == 0 && address->sa_family == AF_INET6)
        rc = set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (rc == 0 && bind(fd, address, address_bytes) != 0)
        rc = -errno;
    if (rc == 0 && listen(fd, backlog) != 0)
        rc = -errno;
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}

int io_socket(struct io *io, int family)
{
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    int rc;

    (void)io;
    if (fd < 0)
        return -errno;
    rc = set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}

int io_peer_address(struct io *io, int fd, struct sockaddr_storage *out)
{
    socklen_t bytes = sizeof(*out);

    (void)io;
    return getpeername(fd, (struct sockaddr *)out, &bytes) == 0 ? 0 : -errno;
}

int io_local_address(struct io *io, int fd, struct sockaddr_storage *out)
{
    socklen_t bytes = sizeof(*out);

    (void)io;
    return getsockname(fd, (struct sockaddr *)out, &bytes) == 0 ? 0 : -errno;
}

void io_shutdown_send(struct io *io, int fd)
{
    (void)io;
    (void)shutdown(fd, SHUT_WR); /* fails only when the connection is gone already */
}

int io_acked_bytes(struct io *io, int fd, uint64_t *out)
{
    struct tcp_info info = {0};
    socklen_t bytes = sizeof(info);

    (void)io;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0)
        return -errno;
    if (bytes < offsetof(struct tcp_info, tcpi_bytes_acked) + sizeof(info.tcpi_bytes_acked))
        return -EOPNOTSUPP;
    *out = info.tcpi_bytes_acked;
    return 0;
}

void io_pace(struct io *io, int fd, uint64_t bytes_per_s)
{
    (void)io;
    (void)setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &bytes_per_s, sizeof(bytes_per_s));
}
