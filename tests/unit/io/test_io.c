/* Operations over real sockets and files, the setup, and the loop. */
#include "io/io_internal.h"
#include "io_fixture.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

static int wait_for(struct io *io, struct io_op *op)
{
    int result = 0;

    assert_true(RUN_UNTIL(io, op->done));
    assert_true(io_op_take(op, &result));
    assert_false(io_op_take(op, &result));
    return result;
}

/* --- setup --- */

static void test_describe(void **state)
{
    static const char *const rungs[] = {"deferred", "cooperative", "plain"};

    (void)state;
    for (unsigned rung = 0; rung < 3; rung++) {
        struct io *io = make_io(64, 16, 1024, rung);

        if (rung > 0) /* the first may not be there on an old kernel */
            assert_non_null(strstr(io_describe(io), rungs[rung]));
        assert_non_null(strstr(io_describe(io), "64/512 entries"));
        io_destroy(&io);
    }
}

/* In a child, the filter makes io_uring_setup fail as kernel.io_uring_disabled=2 and container profiles do.
 */
static void forbid_and_try(int refusal, int report_fd)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)refusal),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};
    struct io_options options = {64, 16, 1024, 0};
    const char *error_text = "";
    struct io *io = NULL;
    int rc;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0)
        _exit(2);
    rc = io_create(&io, &options, &error_text);
    dprintf(report_fd, "%d %s", rc, error_text != NULL ? error_text : "(none)");
    _exit(io == NULL ? 0 : 3);
}

static void test_forbidden(void **state)
{
    static const int refusals[] = {EPERM, ENOSYS};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        char report[1024] = "", begin[16];
        int fds[2], status;
        pid_t child;

        assert_int_equal(pipe(fds), 0);
        child = fork();
        assert_true(child >= 0);
        if (child == 0)
            forbid_and_try(refusals[i], fds[1]);
        close(fds[1]);
        assert_true(read(fds[0], report, sizeof(report) - 1) > 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        snprintf(begin, sizeof(begin), "-%d ", refusals[i]);
        assert_ptr_equal(strstr(report, begin), report);
        assert_non_null(strstr(report, "kernel.io_uring_disabled"));
        assert_non_null(strstr(report, "seccomp"));
        close(fds[0]);
    }
}

/* --- connect, accept --- */

static void test_connect_refused(void **state)
{
    struct io *io = make_io(64, 16, 1024, 0);
    struct sockaddr_in address;
    struct io_op op = {0};
    struct actor actor;
    int listener = listen_any(io, &address);
    int fd = io_socket(io, AF_INET);

    (void)state;
    close(listener);
    actor_init(&actor, NULL);
    io_connect(io, &op, &actor.flow, fd, (struct sockaddr *)&address, sizeof(address));
    assert_int_equal(wait_for(io, &op), -ECONNREFUSED);
    assert_int_equal(actor.runs_n + actor.flow.queued, 1);
    io_close(io, fd);
    io_destroy(&io);
}

static void test_accept_emfile(void **state)
{
    struct io *io = make_io(64, 16, 1024, 0);
    struct io_accept *accept = calloc(1, sizeof(*accept));
    struct sockaddr_in address;
    struct rlimit old, none;
    struct actor actor;
    int listener = listen_any(io, &address);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    int fd;

    (void)state;
    assert_non_null(accept);
    actor_init(&actor, NULL);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0); /* the kernel looks at it when accepting begins */
    io_accept_start(io, accept, &actor.flow, listener);
    assert_int_equal(io_accept_take(accept), -EAGAIN);
    assert_int_equal(connect(client, (struct sockaddr *)&address, sizeof(address)), 0);
    RUN_UNTIL(io, accept->error != 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(io_accept_take(accept), -EMFILE);
    assert_false(accept->op.in_flight);
    assert_true(actor.runs_n + actor.flow.queued > 0);
    io_accept_start(io, accept, &actor.flow, listener); /* the connection is still in the backlog */
    assert_true(RUN_UNTIL(io, accept->n == 1));
    fd = io_accept_take(accept);
    assert_true(fd >= 0);
    assert_int_equal(io_accept_take(accept), -EAGAIN);
    io_cancel(io, &accept->op);
    assert_true(RUN_UNTIL(io, !accept->op.in_flight));
    assert_int_equal(io_accept_take(accept), -ECANCELED);
    close(fd);
    close(client);
    close(listener);
    io_destroy(&io);
    free(accept);
}

/* What it says of accepted sockets, also when the listener came from elsewhere and is non-blocking. */
static void test_accepted_sockets(void **state)
{
    struct io *io = make_io(64, 16, 1024, 0);
    struct io_accept accept = {0};
    struct sockaddr_in address;
    struct sockaddr_storage peer, local;
    struct actor actor;
    int listener = listen_any(io, &address);
    int on = 0, fd, clients[3];
    socklen_t on_bytes = sizeof(on), bytes = sizeof(local);

    (void)state;
    set_nonblocking(listener);
    actor_init(&actor, NULL);
    io_accept_start(io, &accept, &actor.flow, listener);
    run_for(io, NS_PER_MS);
    for (int i = 0; i < 3; i++) {
        clients[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(connect(clients[i], (struct sockaddr *)&address, sizeof(address)), 0);
        assert_true(RUN_UNTIL(io, accept.n == 1));
        fd = io_accept_take(&accept);
        assert_true(fd >= 0);
        assert_int_equal(getsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, &on_bytes), 0);
        assert_int_equal(on, 1);
        assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        assert_int_equal(io_peer_address(io, fd, &peer), 0);
        assert_int_equal(getsockname(clients[i], (struct sockaddr *)&local, &bytes), 0);
        assert_memory_equal(&peer, &local, sizeof(struct sockaddr_in));
        assert_int_equal(io_local_address(io, fd, &local), 0);
        assert_memory_equal(&local, &address, sizeof(struct sockaddr_in));
        close(fd);
    }
    for (int i = 0; i < 3; i++)
        close(clients[i]);
    io_destroy(&io); /* with the accept in flight */
    close(listener);
}

static void test_listen(void **state)
{
    struct sockaddr_in address, again;
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int on = 0, first = listen_any(NULL, &address), second, sixth;
    socklen_t bytes = sizeof(on);

    (void)state;
    again = address;
    second = io_listen(NULL, (struct sockaddr *)&again, sizeof(again), 16);
    assert_true(second >= 0); /* SO_REUSEPORT: every worker has one */
    sixth = io_listen(NULL, (struct sockaddr *)&six, sizeof(six), 16);
    assert_true(sixth >= 0 || sixth == -EADDRNOTAVAIL || sixth == -EAFNOSUPPORT);
    if (sixth >= 0) {
        assert_int_equal(getsockopt(sixth, IPPROTO_IPV6, 26 /* IPV6_V6ONLY */, &on, &bytes), 0);
        assert_int_equal(on, 1);
        close(sixth);
    }
    again.sin_addr.s_addr = htonl(0xc0000201); /* 192.0.2.1, not ours */
    assert_int_equal(io_listen(NULL, (struct sockaddr *)&again, sizeof(again), 16), -EADDRNOTAVAIL);
    close(first);
    close(second);
}

/* --- send --- */

struct drain {
    pthread_t thread;
    int fd;
    size_t chunk, got_n;
    uint64_t pause_ns;
    bool right;
};

static void *run_drain(void *argument)
{
    struct drain *d = argument;
    struct timespec pause = {.tv_nsec = (long)d->pause_ns};
    char *chunk = malloc(d->chunk);
    ssize_t n;

    d->right = true;
    while ((n = read(d->fd, chunk, d->chunk)) > 0) {
        for (ssize_t i = 0; i < n; i++)
            d->right = d->right && chunk[i] == pattern(d->got_n + (size_t)i);
        d->got_n += (size_t)n;
        if (d->pause_ns > 0)
            nanosleep(&pause, NULL);
    }
    free(chunk);
    return NULL;
}

static void test_send_large(void **state)
{
    enum { BYTES_N = 5 * IO_SEND_BYTES_MAX + 77 };
    struct io *io = make_io(64, 16, 1024, 0);
    struct drain drain = {.chunk = 65536};
    struct io_op op = {0};
    struct actor actor;
    char *bytes = pattern_bytes(BYTES_N);
    uint64_t acked = 0;
    size_t sent_n = 0;
    int fd;

    (void)state;
    tcp_pair(&fd, &drain.fd);
    assert_int_equal(pthread_create(&drain.thread, NULL, run_drain, &drain), 0);
    actor_init(&actor, NULL);
    while (sent_n < BYTES_N) {
        size_t left = BYTES_N - sent_n;
        int n;

        io_send(io, &op, &actor.flow, fd, bytes + sent_n, left);
        n = wait_for(io, &op);
        assert_int_equal(n, left < IO_SEND_BYTES_MAX ? left : IO_SEND_BYTES_MAX); /* never short of that */
        sent_n += (size_t)n;
    }
    for (uint64_t until = clock_mono_ns() + PATIENCE_NS; acked < BYTES_N && clock_mono_ns() < until;)
        assert_int_equal(io_acked_bytes(io, fd, &acked), 0);
    assert_in_range(acked, BYTES_N, BYTES_N + 1); /* SYN may count as one */
    io_shutdown_send(io, fd);
    pthread_join(drain.thread, NULL);
    assert_int_equal(drain.got_n, BYTES_N);
    assert_true(drain.right);
    io_close(io, fd);
    close(drain.fd);
    io_destroy(&io);
    free(bytes);
}

/* A peer that reads so little at a time that the kernel stops waiting for it in the usual way. */
static void test_send_to_slow_peer(void **state)
{
    enum { BYTES_N = 60000 };
    struct io *io = make_io(64, 16, 1024, 0);
    struct drain drain = {.chunk = 512, .pause_ns = 20 * NS_PER_US};
    struct io_op op = {0};
    struct actor actor;
    char *bytes = pattern_bytes(BYTES_N);
    int fd, small = 2048;

    (void)state;
    tcp_pair(&fd, &drain.fd);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    assert_int_equal(setsockopt(drain.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
    assert_int_equal(pthread_create(&drain.thread, NULL, run_drain, &drain), 0);
    actor_init(&actor, NULL);
    for (size_t sent_n = 0; sent_n < BYTES_N;) {
        int n;

        io_send(io, &op, &actor.flow, fd, bytes + sent_n, BYTES_N - sent_n);
        n = wait_for(io, &op);
        assert_true(n > 0);
        sent_n += (size_t)n;
    }
    io_shutdown_send(io, fd);
    pthread_join(drain.thread, NULL);
    assert_int_equal(drain.got_n, BYTES_N);
    assert_true(drain.right);
    io_close(io, fd);
    close(drain.fd);
    io_destroy(&io);
    free(bytes);
}

/* The kernel says EAGAIN too rarely to wait for it, so it is said here in its place, of an operation as it is
 * when its completion comes. What was to be sent is sent all the same. */
static void test_eagain(void **state)
{
    struct io *io = make_io(64, 16, 1024, 0);
    struct iovec vec = {(void *)(uintptr_t) "again", 5};
    struct msghdr message = {.msg_iov = &vec, .msg_iovlen = 1};
    struct actor actor;
    int fd, theirs;
    char bytes[8];

    (void)state;
    tcp_pair(&fd, &theirs);
    actor_init(&actor, NULL);
    for (int kind = IO_KIND_RECV_INTO; kind <= IO_KIND_SENDMSG; kind++) {
        struct io_op op = {.flow = &actor.flow, .fd = fd, .argument = "again", .n = 5, .in_flight = true};

        op.kind = (uint8_t)kind;
        if (kind == IO_KIND_SENDMSG)
            op.argument = &message;
        if (kind == IO_KIND_RECV_INTO) {
            op.argument = bytes;
            assert_int_equal(write(theirs, "again", 5), 5);
        }
        io->in_flight_n++;
        io_op_complete(io, &op, -EAGAIN, 0);
        assert_true(op.in_flight && !op.done);
        assert_int_equal(wait_for(io, &op), 5);
        if (kind != IO_KIND_RECV_INTO)
            assert_int_equal(read(theirs, bytes, sizeof(bytes)), 5);
        assert_memory_equal(bytes, "again", 5);
    }
    assert_int_equal(io->in_flight_n, 0);
    io_close(io, fd);
    close(theirs);
    io_destroy(&io);
}

static void test_sendmsg(void **state)
{
    enum { PART_N = 100000 };
    struct io *io = make_io(64, 16, 1024, 0);
    struct drain drain = {.chunk = 65536};
    struct iovec vecs[IO_VECS_MAX];
    struct msghdr message = {.msg_iov = vecs, .msg_iovlen = IO_VECS_MAX};
    struct io_op op = {0};
    struct actor actor;
    char *bytes = pattern_bytes((size_t)PART_N * IO_VECS_MAX);
    int fd;

    (void)state;
    tcp_pair(&fd, &drain.fd);
    assert_int_equal(pthread_create(&drain.thread, NULL, run_drain, &drain), 0);
    for (size_t i = 0; i < IO_VECS_MAX; i++)
        vecs[i] = (struct iovec){bytes + i * PART_N, PART_N};
    actor_init(&actor, NULL);
    io_sendmsg(io, &op, &actor.flow, fd, &message);
    assert_int_equal(wait_for(io, &op), PART_N * IO_VECS_MAX);
    io_shutdown_send(io, fd);
    pthread_join(drain.thread, NULL);
    assert_int_equal(drain.got_n, PART_N * IO_VECS_MAX);
    assert_true(drain.right);
    io_close(io, fd);
    close(drain.fd);
    io_destroy(&io);
    free(bytes);
}

/* No signal, and an error. */
static void test_send_to_nobody(void **state)
{
    struct io *io = make_io(64, 16, 1024, 0);
    struct io_op op = {0};
    struct actor actor;
    int fd, theirs, result = 1;

    (void)state;
    tcp_pair(&fd, &theirs);
    close(theirs);
    actor_init(&actor, NULL);
    for (int i = 0; i < 1000 && result >= 0; i++) {
        io_send(io, &op, &actor.flow, fd, "x", 1);
        result = wait_for(io, &op);
    }
    assert_true(result == -EPIPE || result == -ECONNRESET);
    io_close(io, fd);
    io_destroy(&io);
}

static void test_pace(void **state)
{
    struct io *io = make_io(64, 16, 1024, 0);
    uint64_t rate = 0;
    socklen_t bytes = sizeof(rate);
    int fd, theirs;

    (void)state;
    tcp_pair(&fd, &theirs);
    io_pace(io, fd, 6000000000);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, &bytes), 0);
    assert_int_equal(rate, 6000000000);
    io_pace(io, fd, UINT64_MAX);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, &bytes), 0);
    assert_true(rate == UINT64_MAX);
    close(fd);
    close(theirs);
    io_destroy(&io);
}

/* --- cancel, poll, destroy --- */

static void test_cancel(void **state)
{
    struct io *io = make_io(64, 16, 1024, 0);
    struct io_op into = {0}, poll_op = {0}, send = {0};
    char *large = calloc(1, IO_SEND_BYTES_MAX), bytes[16];
    struct actor actor;
    int fd, theirs, small = 4096, n;

    (void)state;
    tcp_pair(&fd, &theirs);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    actor_init(&actor, NULL);
    io_cancel(io, &into); /* not in flight */
    io_recv_into(io, &into, &actor.flow, fd, bytes, sizeof(bytes));
    io_poll(io, &poll_op, &actor.flow, fd, POLLIN);
    io_send(io, &send, &actor.flow, fd, large, IO_SEND_BYTES_MAX);
    run_for(io, 2 * NS_PER_MS);
    assert_true(into.in_flight && poll_op.in_flight && send.in_flight);
    io_cancel(io, &into);
    io_cancel(io, &poll_op);
    io_cancel(io, &send);
    assert_int_equal(wait_for(io, &into), -ECANCELED);
    assert_int_equal(wait_for(io, &poll_op), -ECANCELED);
    n = wait_for(io, &send); /* a part of it was sent */
    assert_true(n == -ECANCELED || (n > 0 && n < (int)IO_SEND_BYTES_MAX));

    /* The same operations again, and now they complete. */
    io_recv_into(io, &into, &actor.flow, fd, bytes, sizeof(bytes));
    assert_int_equal(write(theirs, "hello", 5), 5);
    assert_int_equal(wait_for(io, &into), 5);
    assert_memory_equal(bytes, "hello", 5);
    io_poll(io, &poll_op, &actor.flow, fd, POLLIN);
    assert_int_equal(write(theirs, "!", 1), 1);
    assert_true(wait_for(io, &poll_op) & POLLIN);
    io_recv_into(io, &into, &actor.flow, fd, bytes, sizeof(bytes));
    assert_int_equal(wait_for(io, &into), 1);
    io_recv_into(io, &into, &actor.flow, fd, bytes, sizeof(bytes));
    shutdown(theirs, SHUT_WR);
    assert_int_equal(wait_for(io, &into), 0);
    io_close(io, fd);
    close(theirs);
    io_destroy(&io);
    free(large);
}

/* Cancelled before it was ever submitted, and used anew at once. */
static void test_cancel_at_once(void **state)
{
    struct io *io = make_io(64, 16, 1024, 0);
    struct io_op op = {0};
    struct actor actor;
    int fd, theirs;
    char byte;

    (void)state;
    tcp_pair(&fd, &theirs);
    actor_init(&actor, NULL);
    for (int i = 0; i < 50; i++) {
        io_recv_into(io, &op, &actor.flow, fd, &byte, 1);
        io_cancel(io, &op);
        assert_int_equal(wait_for(io, &op), -ECANCELED);
    }
    io_close(io, fd);
    close(theirs);
    io_destroy(&io);
}

/* After io_destroy the kernel writes into none of the memory it was given. */
static void test_destroy_in_flight(void **state)
{
    enum { N = 20 };
    struct io *io = make_io(8, 16, 1024, 0);
    struct io_op *ops = calloc(N, sizeof(*ops));
    struct io_recv *recv = calloc(N, sizeof(*recv));
    char *bytes = calloc(N, 64);
    struct actor actor;
    int fd[N], theirs[N];

    (void)state;
    actor_init(&actor, NULL);
    for (int i = 0; i < N; i++) {
        tcp_pair(&fd[i], &theirs[i]);
        if (i % 2 == 0) {
            io_recv_into(io, &ops[i], &actor.flow, fd[i], bytes + i * 64, 64);
        } else {
            io_recv_init(&recv[i], fd[i], &actor.flow, i % 4 == 1);
            io_recv_arm(io, &recv[i]);
        }
        if (i == N / 2)
            run_for(io, NS_PER_MS); /* the others are not even submitted */
    }
    io_destroy(&io);
    for (int i = 0; i < N; i++) {
        assert_false(ops[i].in_flight);
        assert_false(recv[i].op.in_flight);
        assert_int_equal(write(theirs[i], "x", 1), 1);
        assert_int_equal(bytes[i * 64], 0);
        close(fd[i]);
        close(theirs[i]);
    }
    free(ops);
    free(recv);
    free(bytes);
}

/* Far more operations at once than there are entries in either queue. */
static void test_queues_overflow(void **state)
{
    enum { N = 300 };
    struct io *io = make_io(2, 16, 1024, 0);
    struct io_op *ops = calloc(N, sizeof(*ops));
    char bytes[N];
    struct actor actor;
    int fds[2];

    (void)state;
    assert_int_equal(pipe(fds), 0);
    memset(bytes, 'p', sizeof(bytes));
    assert_int_equal(write(fds[1], bytes, sizeof(bytes)), sizeof(bytes));
    memset(bytes, 0, sizeof(bytes));
    actor_init(&actor, NULL);
    for (int i = 0; i < N; i++)
        io_read(io, &ops[i], &actor.flow, fds[0], bytes + i, 1, (uint64_t)-1);
    for (int i = 0; i < N; i++) {
        assert_int_equal(wait_for(io, &ops[i]), 1);
        assert_int_equal(bytes[i], 'p');
    }
    close(fds[0]);
    close(fds[1]);
    io_destroy(&io);
    free(ops);
}

/* --- files --- */

static void test_files(void **state)
{
    struct io *io = make_io(64, 16, 1024, 0);
    char dir[] = "/tmp/test_io_XXXXXX", path[64], bytes[64] = "";
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC, .resolve = RESOLVE_BENEATH};
    struct statx stat;
    struct io_op op = {0};
    struct actor actor;
    int dir_fd, fd;

    (void)state;
    actor_init(&actor, NULL);
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/audio.ogg", dir);
    fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, "0123456789", 10), 10);
    close(fd);
    dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_true(dir_fd >= 0);

    io_openat2(io, &op, &actor.flow, dir_fd, "none.ogg", &how);
    assert_int_equal(wait_for(io, &op), -ENOENT);
    io_openat2(io, &op, &actor.flow, dir_fd, "../../etc/passwd", &how);
    assert_int_equal(wait_for(io, &op), -EXDEV);
    io_openat2(io, &op, &actor.flow, dir_fd, "audio.ogg", &how);
    fd = wait_for(io, &op);
    assert_true(fd >= 0);
    io_statx(io, &op, &actor.flow, fd, &stat);
    assert_int_equal(wait_for(io, &op), 0);
    assert_int_equal(stat.stx_size, 10);
    assert_true(S_ISREG(stat.stx_mode));
    assert_true(stat.stx_mask & STATX_MTIME);
    io_read(io, &op, &actor.flow, fd, bytes, 4, 3);
    assert_int_equal(wait_for(io, &op), 4);
    assert_memory_equal(bytes, "3456", 4);
    io_read(io, &op, &actor.flow, fd, bytes, sizeof(bytes), 8);
    assert_int_equal(wait_for(io, &op), 2); /* short at the end */
    io_read(io, &op, &actor.flow, fd, bytes, sizeof(bytes), 10);
    assert_int_equal(wait_for(io, &op), 0);
    io_close(io, fd);
    io_destroy(&io); /* submits the close */
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    close(dir_fd);
    unlink(path);
    rmdir(dir);
}

/* --- the loop: timers, mail, time --- */

static void test_timers(void **state)
{
    struct io *io = make_io(64, 16, 1024, 0);
    struct timer timer = {0}, never = {0};
    struct actor actor;
    uint64_t begin_ns = clock_mono_ns(), unix_s = (uint64_t)time(NULL);
    unsigned turns_n = 0;

    (void)state;
    actor_init(&actor, NULL);
    io_timer_set(io, &timer, &actor.flow, 30);
    io_timer_set(io, &never, &actor.flow, TIMER_DELAY_MS_MAX);
    io_timer_cancel(io, &never);
    for (; !timer.fired && turns_n < 1000; turns_n++)
        assert_int_equal(io_run_once(io, UINT64_MAX), 0);
    assert_true(timer.fired);
    assert_true(clock_mono_ns() - begin_ns >= 30 * NS_PER_MS);
    assert_in_range(turns_n, 1, 10); /* it slept */
    assert_int_equal(io_run_once(io, 0), 0);
    assert_int_equal(actor.runs_n, 1);
    assert_in_range(io_now_unix_s(io), unix_s, unix_s + PATIENCE_NS / NS_PER_S);
    assert_in_range(io_now_ns(io), begin_ns + 30 * NS_PER_MS, clock_mono_ns());
    io_destroy(&io);
}

struct letter {
    struct mail mail;
    bool *got;
};

static void receive(struct mail *mail, void *context)
{
    struct letter *letter = CONTAINER_OF(mail, struct letter, mail);

    *letter->got = true;
    ++*(unsigned *)context;
}

static void *post_from_thread(void *argument)
{
    struct timespec pause = {.tv_nsec = 5 * (long)NS_PER_MS};
    void **arguments = argument;

    nanosleep(&pause, NULL); /* the loop is asleep by then */
    mailbox_post(arguments[0], arguments[1]);
    return NULL;
}

static void test_mail(void **state)
{
    enum { N = 10 };
    struct io *io = make_io(64, 16, 1024, 0);
    struct mailbox box;
    bool got[N + 1] = {false};
    struct letter letters[N + 1];
    unsigned received_n = 0;

    (void)state;
    assert_int_equal(mailbox_open(&box), 0);
    for (int i = 0; i <= N; i++)
        letters[i] = (struct letter){.mail.receive = receive, .got = &got[i]};
    mailbox_post(&box, &letters[N].mail); /* before it is attached */
    assert_int_equal(io_attach_mailbox(io, &box, &received_n), 0);
    assert_int_equal(io_attach_mailbox(io, &box, &received_n), -EBUSY);
    assert_true(RUN_UNTIL(io, received_n == 1));
    for (int i = 0; i < N; i++) {
        void *arguments[] = {&box, &letters[i].mail};
        pthread_t thread;

        assert_int_equal(pthread_create(&thread, NULL, post_from_thread, arguments), 0);
        for (int turns = 0; !got[i] && turns < 10; turns++)
            assert_int_equal(io_run_once(io, PATIENCE_NS), 0); /* nothing but the mail wakes it */
        assert_true(got[i]);
        pthread_join(thread, NULL);
    }
    assert_int_equal(received_n, N + 1);
    io_destroy(&io);
    mailbox_close(&box);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_describe),
        cmocka_unit_test(test_forbidden),
        cmocka_unit_test(test_connect_refused),
        cmocka_unit_test(test_accept_emfile),
        cmocka_unit_test(test_accepted_sockets),
        cmocka_unit_test(test_listen),
        cmocka_unit_test(test_send_large),
        cmocka_unit_test(test_send_to_slow_peer),
        cmocka_unit_test(test_eagain),
        cmocka_unit_test(test_sendmsg),
        cmocka_unit_test(test_send_to_nobody),
        cmocka_unit_test(test_pace),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_cancel_at_once),
        cmocka_unit_test(test_destroy_in_flight),
        cmocka_unit_test(test_queues_overflow),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_timers),
        cmocka_unit_test(test_mail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
