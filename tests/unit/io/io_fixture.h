/* What the tests of io share: a loop, a flow that runs a function of the test's, loopback sockets. */
#pragma once

#include "io/io.h"
#include "util/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* Far above what any step of a test takes, also on a busy machine. */
#define PATIENCE_NS (20 * NS_PER_S)

struct actor {
    struct flow flow;
    void (*run)(struct actor *);
    unsigned runs_n;
};

static inline enum flow_result actor_step(struct flow *f)
{
    struct actor *a = CONTAINER_OF(f, struct actor, flow);

    a->runs_n++;
    if (a->run != NULL)
        a->run(a);
    return FLOW_WAIT;
}

static inline void actor_init(struct actor *a, void (*run)(struct actor *))
{
    static const flow_step steps[] = {actor_step};
    static const char *const names[] = {"run"};
    static const struct flow_type type = {"actor", steps, names, 1, NULL};

    *a = (struct actor){.run = run};
    flow_init(&a->flow, &type, 0);
}

static inline struct io *make_io(unsigned entries, unsigned buffers, unsigned buffer_bytes, unsigned rung)
{
    struct io_options options = {entries, buffers, buffer_bytes, rung};
    const char *error_text;
    struct io *io;

    if (io_create(&io, &options, &error_text) != 0)
        fail_msg("%s", error_text);
    return io;
}

/* Goes round the loop until the condition holds; false when patience has run out. */
#define RUN_UNTIL(io, condition)                                                                             \
    ({                                                                                                       \
        uint64_t until_ns_ = clock_mono_ns() + PATIENCE_NS;                                                  \
        while (!(condition) && clock_mono_ns() < until_ns_)                                                  \
            assert_int_equal(io_run_once((io), 10 * NS_PER_MS), 0);                                          \
        (condition);                                                                                         \
    })

/* A few turns in which nothing is expected. */
static inline void run_for(struct io *io, uint64_t ns)
{
    uint64_t until_ns = clock_mono_ns() + ns;

    while (clock_mono_ns() < until_ns)
        assert_int_equal(io_run_once(io, NS_PER_MS), 0);
}

static inline struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static inline int listen_any(struct io *io, struct sockaddr_in *bound)
{
    struct sockaddr_in address = loopback(0);
    socklen_t bytes = sizeof(*bound);
    int fd = io_listen(io, (struct sockaddr *)&address, sizeof(address), 1024);

    assert_true(fd >= 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)bound, &bytes), 0);
    return fd;
}

/* A connected pair: ours as accepted, theirs blocking. */
static inline void tcp_pair(int *ours, int *theirs)
{
    struct sockaddr_in address;
    int listener = listen_any(NULL, &address);

    *theirs = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(*theirs >= 0);
    assert_int_equal(connect(*theirs, (struct sockaddr *)&address, sizeof(address)), 0);
    *ours = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(*ours >= 0);
    close(listener);
}

static inline void set_nonblocking(int fd)
{
    assert_int_equal(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
}

/* Bytes by which a mistake in order or place shows: the pattern is as long as no buffer is. */
static inline char pattern(uint64_t at)
{
    return (char)(at % 251 ^ at / 251 % 241);
}

static inline void assert_pattern(const char *p, size_t n, uint64_t at)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != pattern(at + i))
            fail_msg("byte %llu is wrong", (unsigned long long)(at + i));
}

static inline char *pattern_bytes(size_t n)
{
    char *p = malloc(n);

    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = pattern(i);
    return p;
}
