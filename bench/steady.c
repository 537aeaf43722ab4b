/* steady PORT RATE SECONDS TARGETS BODY behaved|flood: requests over TLS at a fixed rate, HTTP/1.1, over
 * connections that stay open, whatever the server answers meanwhile. Each request is due at a time of its own,
 * and waits from then on: a server that is late with one is late with those behind it too. Prints one line:
 *
 *     figures asked=N right=N refused=N broken=N p50_us=N p99_us=N max_us=N own_p99_us=N
 *
 * right: 200 and the bytes of the file BODY; refused: 429. p50, p99, max: from when it was due to the last byte
 * of a right answer. own_p99: how late this program itself was to ask, which is not the server's doing.
 *
 * `flood` is the same from another address (127.0.0.2) and over more connections. It skips what is due while
 * all of them wait, so that it stays a bounded load. */
#include "client_tls.h"

#include "util/check.h"
#include "util/clock.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>

#define EVENTS_MAX        64
#define ROOM              65536u
#define CONNECTIONS       32u
#define CONNECTIONS_FLOOD 64u
#define REQUESTS_MAX      1000000u
#define ANSWERS_WITHIN_S  5u
#define FLOOD_FROM        (INADDR_LOOPBACK + 1)
#define BROKEN_MAX        100u

struct conn {
    struct link link;
    uint64_t due_ns; /* of the request it waits on; 0: idle */
    struct answer answer;
    bool in_body;
    bool same; /* the bytes of the body so far are the file's */
    uint64_t body_bytes;
    size_t head_bytes;
    char head[HEAD_MAX + 1];
    struct conn *next_idle;
};

static struct {
    SSL_CTX *context;
    int epoll;
    uint16_t port;
    bool flood;
    struct str body;
    struct targets targets;
    struct conn *idle;
    size_t waiting;
    uint64_t asked, right, refused, broken;
    uint64_t *waited_ns; /* of right answers */
    uint64_t *own_ns;    /* of requests asked */
} run;

static void open_conn(struct conn *c)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (!link_open(&c->link, run.context, "http/1.1", run.flood ? FLOOD_FROM : 0, run.port))
        client_fail("a connection was not accepted");
    link_set_nonblocking(&c->link);
    if (epoll_ctl(run.epoll, EPOLL_CTL_ADD, c->link.fd, &event))
        client_fail("epoll: %s", strerror(errno));
    c->due_ns = 0;
    c->next_idle = run.idle;
    run.idle = c;
}

static void broken(struct conn *c)
{
    if (++run.broken > BROKEN_MAX)
        client_fail("more than %u connections broke", BROKEN_MAX);
    run.waiting -= c->due_ns > 0;
    for (struct conn **at = &run.idle; *at; at = &(*at)->next_idle)
        if (*at == c) {
            *at = c->next_idle;
            break;
        }
    link_close(&c->link);
    open_conn(c);
}

/* `held`: no connection was free when it was due, which is the server's doing. */
static void ask(uint64_t due_ns, bool held)
{
    struct conn *c = run.idle;
    char request[HEAD_MAX];
    run.idle = c->next_idle;
    size_t n = client_write_get(request, run.targets.lines[run.asked % run.targets.count]);
    c->due_ns = due_ns;
    c->in_body = false;
    c->head_bytes = 0;
    run.waiting++;
    run.own_ns[run.asked++] = held ? 0 : clock_mono_ns() - due_ns;
    if (link_write(&c->link, request, n) != (ssize_t)n)
        broken(c);
}

static void complete(struct conn *c)
{
    if (c->answer.status == 200 && c->same && c->body_bytes == run.body.n)
        run.waited_ns[run.right++] = clock_mono_ns() - c->due_ns;
    run.refused += c->answer.status == 429;
    c->due_ns = 0;
    c->next_idle = run.idle;
    run.idle = c;
    run.waiting--;
}

static void take_body(struct conn *c, const char *bytes, size_t n)
{
    if (n > run.body.n - c->body_bytes || memcmp(run.body.p + c->body_bytes, bytes, n) != 0)
        c->same = false;
    c->body_bytes += n;
}

/* Returns 1 with bytes taken in, 0 when none are there now, -1 when the connection is of no more use. */
static int read_some(struct conn *c)
{
    static char chunk[ROOM];
    ssize_t got = c->in_body ? link_read(&c->link, chunk, sizeof(chunk))
                             : link_read(&c->link, c->head + c->head_bytes, HEAD_MAX - c->head_bytes);
    if (got == -1)
        return 0;
    if (got <= 0 || c->due_ns == 0)
        return -1;
    if (c->in_body) {
        take_body(c, chunk, (size_t)got);
        return 1;
    }
    c->head_bytes += (size_t)got;
    c->head[c->head_bytes] = 0;
    int whole = client_parse_head(c->head, &c->answer);
    if (whole < 0 || (whole == 0 && c->head_bytes == HEAD_MAX))
        return -1;
    if (whole) {
        c->in_body = c->same = true;
        c->body_bytes = 0;
        take_body(c, c->head + c->answer.head_bytes, c->head_bytes - c->answer.head_bytes);
    }
    return 1;
}

static void on_readable(struct conn *c)
{
    for (;;) {
        int state = read_some(c);
        if (state < 0)
            broken(c);
        if (state <= 0)
            return;
        if (c->in_body && c->body_bytes >= c->answer.body_bytes)
            complete(c);
    }
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Microseconds at a share of the sorted values; 0 of none. */
static unsigned long long at_percent(const uint64_t *ns, uint64_t count, unsigned percent)
{
    return count ? ns[(count - 1) * percent / 100] / NS_PER_US : 0;
}

static void report(void)
{
    qsort(run.waited_ns, run.right, sizeof(*run.waited_ns), by_value);
    qsort(run.own_ns, run.asked, sizeof(*run.own_ns), by_value);
    printf("figures asked=%llu right=%llu refused=%llu broken=%llu p50_us=%llu p99_us=%llu max_us=%llu "
           "own_p99_us=%llu\n",
           (unsigned long long)run.asked, (unsigned long long)run.right, (unsigned long long)run.refused,
           (unsigned long long)run.broken, at_percent(run.waited_ns, run.right, 50),
           at_percent(run.waited_ns, run.right, 99), at_percent(run.waited_ns, run.right, 100),
           at_percent(run.own_ns, run.asked, 99));
}

/* Waits for answers until `until_ns`, or not at all. */
static void serve_events(uint64_t until_ns)
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t now_ns = clock_mono_ns();
    uint64_t wait_ns = until_ns > now_ns ? until_ns - now_ns : 0;
    struct timespec timeout = {.tv_sec = (time_t)(wait_ns / NS_PER_S), .tv_nsec = (long)(wait_ns % NS_PER_S)};
    int ready = epoll_pwait2(run.epoll, events, EVENTS_MAX, &timeout, NULL);
    for (int i = 0; i < ready; i++)
        on_readable(events[i].data.ptr);
}

static void ask_all(uint64_t rate, uint64_t total)
{
    uint64_t start_ns = clock_mono_ns();
    uint64_t last_ns = start_ns + total * NS_PER_S / rate + ANSWERS_WITHIN_S * NS_PER_S;
    bool held = false;
    for (uint64_t due = 0; due < total && clock_mono_ns() < last_ns;) {
        uint64_t due_ns = start_ns + due * NS_PER_S / rate;
        if (clock_mono_ns() < due_ns) {
            serve_events(due_ns);
        } else if (!run.idle && !run.flood) {
            held = true;
            serve_events(last_ns);
        } else {
            if (run.idle)
                ask(due_ns, held);
            held = false;
            due++;
        }
    }
    while (run.waiting > 0 && clock_mono_ns() < last_ns)
        serve_events(last_ns);
}

int main(int argc, char **argv)
{
    if (argc != 7)
        client_fail("usage: steady PORT RATE SECONDS TARGETS BODY behaved|flood");
    uint64_t rate = (uint64_t)atol(argv[2]);
    uint64_t total = rate * (uint64_t)atol(argv[3]);
    if (total == 0 || total > REQUESTS_MAX)
        client_fail("1 to %u requests", REQUESTS_MAX);
    run.port = (uint16_t)atoi(argv[1]);
    run.targets = client_read_targets(argv[4]);
    run.body = client_read_file(argv[5]);
    run.flood = strcmp(argv[6], "flood") == 0;
    run.context = client_tls_context("http/1.1");
    run.epoll = epoll_create1(EPOLL_CLOEXEC);
    run.waited_ns = calloc(total, sizeof(*run.waited_ns));
    run.own_ns = calloc(total, sizeof(*run.own_ns));
    size_t count = run.flood ? CONNECTIONS_FLOOD : CONNECTIONS;
    struct conn *conns = calloc(count, sizeof(*conns));
    CHECK(run.epoll >= 0 && run.waited_ns && run.own_ns && conns);
    for (size_t i = 0; i < count; i++)
        open_conn(&conns[i]);
    if (run.flood) {
        printf("ready\n");
        fflush(stdout);
    }

    ask_all(rate, total);
    report();
    return 0;
}
