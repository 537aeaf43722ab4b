#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/listener.h"
#include "util/check.h"
#include "util/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static struct io *io;

static int start(void **state)
{
    const struct io_options options = {.entries = 8, .receive_buffers = 8, .receive_buffer_bytes = 4096};
    const char *error_text = NULL;

    (void)state;
    log_set_level(LOG_LEVEL_ERROR);
    return io_create(&io, &options, &error_text);
}

static int finish(void **state)
{
    (void)state;
    io_destroy(&io);
    return 0;
}

/* A socket bound to a loopback port of the kernel's choice. */
static int bound_socket(int type, struct address *address)
{
    struct sockaddr_storage storage;
    socklen_t n = sizeof storage;
    int fd = socket(AF_INET, type, 0);

    assert_int_equal(address_parse(STR("127.0.0.1:1"), 0, address), 0);
    address_set_port(address, 0);
    assert_int_equal(bind(fd, &address->sa, address_bytes(address)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&storage, &n), 0);
    assert_int_equal(address_of_sockaddr((struct sockaddr *)&storage, address), 0);
    return fd;
}

static void assert_connects(const struct address *address)
{
    int fd = socket(address->sa.sa_family, SOCK_STREAM, 0);

    assert_int_equal(connect(fd, &address->sa, address_bytes(address)), 0);
    close(fd);
}

static void workers_share_an_address_by_their_own_sockets(void **state)
{
    struct listener a, b;
    struct address address;

    (void)state;
    assert_int_equal(address_parse(STR("127.0.0.1:1"), 0, &address), 0);
    address_set_port(&address, 0);
    assert_int_equal(listener_open(io, NULL, &address, 16, &a), 0);
    assert_int_equal(a.origin, LISTENER_OWN);
    assert_true(address_port(&a.address) != 0);
    assert_int_equal(listener_open(io, NULL, &a.address, 16, &b), 0);
    assert_int_not_equal(a.fd, b.fd);
    assert_true(address_eq(&a.address, &b.address));
    assert_connects(&a.address);
    /* ... which is why a second program is told before it does the same. */
    assert_int_equal(listener_probe(&a.address), -EADDRINUSE);
    address = a.address;
    listener_close(io, &a);
    listener_close(io, &b);
    for (int i = 0; i < 100 && listener_probe(&address) != 0; i++)
        io_run_once(io, 1000000);
    assert_int_equal(listener_probe(&address), 0);
}

static void an_inherited_socket_is_found_by_its_address(void **state)
{
    struct listener_inheritance from = {0};
    struct listener a, b, own;
    struct address address, other;
    int fd = bound_socket(SOCK_STREAM, &address), unlistened = bound_socket(SOCK_STREAM, &other);
    int datagram = bound_socket(SOCK_DGRAM, &other);

    (void)state;
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(listener_inherit_add(&from, fd, LISTENER_SYSTEMD, "http"), 0);
    assert_int_equal(listener_inherit_add(&from, unlistened, LISTENER_SYSTEMD, "x"), -EINVAL);
    assert_int_equal(listener_inherit_add(&from, datagram, LISTENER_SYSTEMD, "x"), -EINVAL);
    assert_int_equal(listener_inherit_add(&from, STDIN_FILENO, LISTENER_SYSTEMD, "x"), -ENOTSOCK);
    assert_int_equal(from.n, 1);
    assert_string_equal(from.items[0].name, "http");

    assert_int_equal(listener_open(io, &from, &address, 16, &a), 0);
    assert_int_equal(listener_open(io, &from, &address, 16, &b), 0);
    assert_int_equal(a.origin, LISTENER_SYSTEMD);
    assert_true(a.fd != fd && b.fd != fd && a.fd != b.fd); /* each its own to close */
    assert_true(from.items[0].wanted);
    assert_true(address_eq(&a.address, &address));
    address_set_port(&other, 0);
    assert_int_equal(listener_open(io, &from, &other, 16, &own), 0);
    assert_int_equal(own.origin, LISTENER_OWN);

    listener_inherit_close(&from);
    assert_int_equal(from.n, 0);
    assert_connects(&address); /* the workers' own go on */
    listener_close(io, &a);
    listener_close(io, &b);
    listener_close(io, &own);
    close(unlistened);
    close(datagram);
}

/* As systemd starts a program: sockets from descriptor 3 on, and three variables. */
static void sockets_come_from_systemd(void **state)
{
    struct address address, unused;
    int fd = bound_socket(SOCK_STREAM, &address), datagram = bound_socket(SOCK_DGRAM, &unused), status;
    pid_t child;

    (void)state;
    assert_int_equal(listen(fd, 8), 0);
    child = fork();
    if (child == 0) {
        struct listener_inheritance from = {0};
        char pid[20];
        int high = dup2(fd, 100), low = dup2(datagram, 101);

        if (dup2(high, 3) != 3 || dup2(low, 4) != 4)
            _exit(1);
        snprintf(pid, sizeof pid, "%d", (int)getpid());
        setenv("LISTEN_PID", pid, 1);
        setenv("LISTEN_FDS", "2", 1);
        setenv("LISTEN_FDNAMES", "http:other", 1);
        if (listener_inherit_systemd(&from) != 1 || from.n != 1)
            _exit(2);
        if (strcmp(from.items[0].name, "http") != 0 || !address_eq(&from.items[0].address, &address))
            _exit(3);
        if (getenv("LISTEN_FDS") != NULL || fcntl(4, F_GETFD) != -1)
            _exit(4); /* taken out of the environment; what is of no use is closed */
        if (!(fcntl(3, F_GETFD) & FD_CLOEXEC))
            _exit(5);
        if (listener_inherit_systemd(&from) != 0)
            _exit(6);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    close(fd);
    close(datagram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workers_share_an_address_by_their_own_sockets),
        cmocka_unit_test(an_inherited_socket_is_found_by_its_address),
        cmocka_unit_test(sockets_come_from_systemd),
    };

    return cmocka_run_group_tests(tests, start, finish);
}
