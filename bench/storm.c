/* storm PORT CLIENTS TARGETS BODY: opens a connection for each client, then sends all requests at once and
 * compares every byte of every answer with the file BODY. Prints one line:
 *
 *     figures clients=N right=N p50_us=N p99_us=N max_us=N all_us=N
 *
 * right: clients that got 200 and the exact bytes. p50, p99, max: from sending a client's request to the
 * arrival of its first byte. all: from the first request to the last byte of all.
 *
 * A client that reads 400 MB is busy when a first byte arrives, and would count its own delay as the
 * server's. So arrival is when the kernel took the segment in (SO_TIMESTAMPNS), not when this program got
 * round to it. */
#include "client.h"

#include "util/check.h"
#include "util/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES   65536u /* for one client before the next has its turn */
#define EVENTS_MAX   1024
#define TIME_LIMIT_S 60u

struct client {
    int fd;
    uint64_t sent_ns;
    uint64_t first_ns; /* 0: nothing has come */
    char head[HEAD_MAX + 1];
    size_t head_bytes; /* read so far, while the head is not complete */
    bool in_body;
    bool right;
    uint64_t body_bytes; /* compared so far */
};

static char chunk[READ_BYTES];

/* Reads once, and notes when the kernel took in what it read. */
static ssize_t read_stamped(struct client *c, char *into, size_t room)
{
    union {
        char bytes[CMSG_SPACE(sizeof(struct timespec))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = into, .iov_len = room};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    ssize_t got = recvmsg(c->fd, &msg, 0);
    if (got <= 0 || c->first_ns)
        return got;
    c->first_ns = clock_unix_ns();
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&msg); h; h = CMSG_NXTHDR(&msg, h)) {
        struct timespec taken;
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_TIMESTAMPNS)
            continue;
        memcpy(&taken, CMSG_DATA(h), sizeof(taken));
        uint64_t ns = (uint64_t)taken.tv_sec * NS_PER_S + (uint64_t)taken.tv_nsec;
        if (ns > c->sent_ns && ns < c->first_ns)
            c->first_ns = ns;
    }
    return got;
}

/* Returns whether the client expects more. */
static bool compare(struct client *c, const char *bytes, size_t n, struct str body)
{
    if (n > body.n - c->body_bytes || memcmp(body.p + c->body_bytes, bytes, n) != 0)
        return false;
    c->body_bytes += n;
    c->right = c->body_bytes == body.n;
    return !c->right;
}

static bool on_readable(struct client *c, struct str body)
{
    char *into = c->in_body ? chunk : c->head + c->head_bytes;
    ssize_t got = read_stamped(c, into, c->in_body ? READ_BYTES : HEAD_MAX - c->head_bytes);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (got <= 0)
        return false;
    if (c->in_body)
        return compare(c, chunk, (size_t)got, body);

    struct answer answer;
    c->head_bytes += (size_t)got;
    c->head[c->head_bytes] = 0;
    int complete = client_parse_head(c->head, &answer);
    if (complete == 0)
        return c->head_bytes < HEAD_MAX;
    if (complete < 0 || answer.status != 200 || answer.body_bytes != body.n)
        return false;
    c->in_body = true;
    return compare(c, c->head + answer.head_bytes, c->head_bytes - answer.head_bytes, body);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void report(const struct client *clients, size_t count, uint64_t all_ns)
{
    uint64_t *waited_ns = calloc(count, sizeof(*waited_ns));
    CHECK(waited_ns);
    size_t right = 0;
    for (size_t i = 0; i < count; i++) {
        right += clients[i].right;
        waited_ns[i] = clients[i].first_ns ? clients[i].first_ns - clients[i].sent_ns : UINT64_MAX;
    }
    qsort(waited_ns, count, sizeof(*waited_ns), by_value);
    printf("figures clients=%zu right=%zu p50_us=%llu p99_us=%llu max_us=%llu all_us=%llu\n", count, right,
           waited_ns[(count - 1) / 2] / NS_PER_US, waited_ns[(count - 1) * 99 / 100] / NS_PER_US,
           waited_ns[count - 1] / NS_PER_US, all_ns / NS_PER_US);
    free(waited_ns);
}

static void open_all(int epoll, struct client *clients, size_t count, uint16_t port)
{
    int on = 1;
    for (size_t i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &clients[i]};
        clients[i].fd = client_connect(port);
        if (setsockopt(clients[i].fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)) ||
            fcntl(clients[i].fd, F_SETFL, O_NONBLOCK) ||
            epoll_ctl(epoll, EPOLL_CTL_ADD, clients[i].fd, &event))
            client_fail("connection %zu: %s", i, strerror(errno));
    }
}

int main(int argc, char **argv)
{
    if (argc != 5)
        client_fail("usage: storm PORT CLIENTS TARGETS BODY");
    uint16_t port = (uint16_t)atoi(argv[1]);
    size_t count = (size_t)atol(argv[2]);
    struct targets targets = client_read_targets(argv[3]);
    struct str body = client_read_file(argv[4]);
    if (count == 0 || count > CLIENTS_MAX)
        client_fail("1 to %u clients", CLIENTS_MAX);
    struct client *clients = calloc(count, sizeof(*clients));
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    CHECK(clients && epoll >= 0);
    open_all(epoll, clients, count, port);
    usleep(200000); /* the server has accepted them all: what is measured is the storm on the object */

    uint64_t start_ns = clock_mono_ns();
    for (size_t i = 0; i < count; i++) {
        clients[i].sent_ns = clock_unix_ns();
        client_send_get(clients[i].fd, targets.lines[i % targets.count]);
    }
    struct epoll_event events[EVENTS_MAX];
    for (size_t left = count; left > 0 && clock_mono_ns() - start_ns < TIME_LIMIT_S * NS_PER_S;) {
        int ready = epoll_wait(epoll, events, EVENTS_MAX, 1000);
        for (int i = 0; i < ready; i++) {
            struct client *c = events[i].data.ptr;
            if (on_readable(c, body))
                continue;
            left--;
            close(c->fd);
        }
    }
    report(clients, count, clock_mono_ns() - start_ns);
    free(clients);
    return 0;
}
