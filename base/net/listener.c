#include "net/listener.h"

#include "util/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

static int bound_address(int fd, struct address *out)
{
    struct sockaddr_storage storage;
    socklen_t n = sizeof storage;

    if (getsockname(fd, (struct sockaddr *)&storage, &n) != 0)
        return -errno;
    return address_of_sockaddr((const struct sockaddr *)&storage, out);
}

int listener_inherit_add(struct listener_inheritance *from, int fd, enum listener_origin origin,
                         const char *name)
{
    struct listener_inherited *item;
    int type = 0, listening = 0, error;
    socklen_t n = sizeof type;
    struct address address;

    if (from->n == LISTENERS_INHERITED_MAX)
        return -ENOSPC;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) != 0)
        return -errno;
    n = sizeof listening;
    if (type != SOCK_STREAM || getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) != 0 || !listening)
        return -EINVAL;
    error = bound_address(fd, &address);
    if (error != 0)
        return error;
    item = &from->items[from->n++];
    *item = (struct listener_inherited){.fd = fd, .origin = origin, .address = address};
    snprintf(item->name, sizeof item->name, "%s", name ? name : "unknown");
    return 0;
}

int listener_inherit_systemd(struct listener_inheritance *from)
{
    char **names = NULL;
    int n = sd_listen_fds_with_names(1, &names), taken = 0;

    for (int i = 0; i < n; i++) {
        int fd = SD_LISTEN_FDS_START + i;
        int error = listener_inherit_add(from, fd, LISTENER_SYSTEMD, names[i]);

        if (error != 0) {
            log_warn("socket %d (%s) that systemd passed is no listening TCP socket (%s); closed", fd,
                     names[i], strerror(-error));
            close(fd);
        } else {
            taken++;
        }
        free(names[i]);
    }
    free(names);
    return n < 0 ? n : taken;
}

void listener_inherit_close(struct listener_inheritance *from)
{
    for (unsigned i = 0; i < from->n; i++) {
        struct listener_inherited *item = &from->items[i];
        char text[ADDRESS_TEXT_MAX];

        if (!__atomic_load_n(&item->wanted, __ATOMIC_RELAXED)) {
            address_format(&item->address, text);
            log_warn("the inherited socket for %s (%s) is not in the configuration; closed", text,
                     item->name);
        }
        close(item->fd);
        item->fd = -1;
    }
    from->n = 0;
}

static struct listener_inherited *find_inherited(struct listener_inheritance *from,
                                                 const struct address *address)
{
    for (unsigned i = 0; from != NULL && i < from->n; i++)
        if (address_eq(&from->items[i].address, address))
            return &from->items[i];
    return NULL;
}

int listener_open(struct io *io, struct listener_inheritance *from, const struct address *address,
                  int backlog, struct listener *out)
{
    struct listener_inherited *inherited = find_inherited(from, address);
    struct sockaddr_storage bound;
    int fd, error;

    if (inherited != NULL) {
        fd = fcntl(inherited->fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
            return -errno;
        __atomic_store_n(&inherited->wanted, true, __ATOMIC_RELAXED); /* several workers say the same */
        *out = (struct listener){.fd = fd, .origin = inherited->origin, .address = inherited->address};
        return 0;
    }
    fd = io_listen(io, &address->sa, address_bytes(address), backlog);
    if (fd < 0)
        return fd;
    error = io_local_address(io, fd, &bound);
    *out = (struct listener){.fd = fd, .origin = LISTENER_OWN};
    if (error == 0)
        error = address_of_sockaddr((const struct sockaddr *)&bound, &out->address);
    if (error != 0)
        listener_close(io, out);
    return error;
}

void listener_close(struct io *io, struct listener *l)
{
    io_close(io, l->fd);
    l->fd = -1;
}

int listener_probe(const struct address *address)
{
    int one = 1, error = 0;
    int fd = socket(address->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    /* SO_REUSEADDR alone: connections of an earlier run may be in TIME_WAIT, but nobody may listen. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        (address->sa.sa_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) != 0) ||
        bind(fd, &address->sa, address_bytes(address)) != 0)
        error = -errno;
    close(fd);
    return error;
}
