/* The floor of our own I/O: answers whatever comes with a fixed head and body, without looking at it.
 *
 *   io_floor [-p PORT] [-b BODY_KIB] [-s] [-1] [-r RUNG] [-n BUFFERS] [-k BUFFER_BYTES] [-q]
 *
 * -s: head and body in one run (send), not as two (sendmsg). -1: one receive for each request. -r: which rung
 * of the setup ladder. On SIGTERM it says how much CPU time each request took. */
#include "io/io.h"
#include "util/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { STEP_READ, STEP_SENT, STEP_CLOSE, STEPS_N };

struct connection {
    struct flow flow;
    struct io_recv recv;
    struct io_op send;
    struct msghdr message;
    struct iovec vecs[2];
    size_t sent_n;
    int fd;
};

static struct {
    struct io *io;
    char *answer; /* head, then body */
    size_t head_n, answer_n;
    bool one_run, single_shot;
    uint64_t requests_n, turns_n;
    struct flow flow;
    struct io_accept accept;
} server;

static volatile sig_atomic_t leaving;

static void on_signal(int number)
{
    (void)number;
    leaving = 1;
}

static void send_rest(struct connection *c)
{
    if (server.one_run || c->sent_n >= server.head_n) {
        io_send(server.io, &c->send, &c->flow, c->fd, server.answer + c->sent_n, server.answer_n - c->sent_n);
        return;
    }
    c->vecs[0] = (struct iovec){server.answer + c->sent_n, server.head_n - c->sent_n};
    c->vecs[1] = (struct iovec){server.answer + server.head_n, server.answer_n - server.head_n};
    c->message = (struct msghdr){.msg_iov = c->vecs, .msg_iovlen = 2};
    io_sendmsg(server.io, &c->send, &c->flow, c->fd, &c->message);
}

static enum flow_result step_read(struct flow *f)
{
    struct connection *c = CONTAINER_OF(f, struct connection, flow);
    struct str got = io_recv_peek(server.io, &c->recv);

    if (got.n == 0) {
        if (io_recv_end(&c->recv) != 0) {
            f->step = STEP_CLOSE;
            return FLOW_NEXT;
        }
        io_recv_arm(server.io, &c->recv);
        return FLOW_WAIT;
    }
    io_recv_consume(server.io, &c->recv, got.n);
    c->sent_n = 0;
    send_rest(c);
    f->step = STEP_SENT;
    return FLOW_WAIT;
}

static enum flow_result step_sent(struct flow *f)
{
    struct connection *c = CONTAINER_OF(f, struct connection, flow);
    int result;

    if (!io_op_take(&c->send, &result))
        return FLOW_WAIT;
    if (result < 0) {
        f->step = STEP_CLOSE;
        return FLOW_NEXT;
    }
    c->sent_n += (size_t)result;
    if (c->sent_n < server.answer_n) {
        send_rest(c);
        return FLOW_WAIT;
    }
    server.requests_n++;
    f->step = STEP_READ;
    return FLOW_NEXT;
}

static enum flow_result step_close(struct flow *f)
{
    struct connection *c = CONTAINER_OF(f, struct connection, flow);

    if (!io_recv_stop(server.io, &c->recv))
        return FLOW_WAIT;
    io_close(server.io, c->fd);
    return FLOW_DONE;
}

static void connection_done(struct flow *f)
{
    free(CONTAINER_OF(f, struct connection, flow));
}

static const flow_step connection_steps[STEPS_N] = {step_read, step_sent, step_close};
static const char *const connection_step_names[STEPS_N] = {"read", "sent", "close"};
static const struct flow_type connection_type = {"connection", connection_steps, connection_step_names,
                                                 STEPS_N, connection_done};

static enum flow_result step_accept(struct flow *f)
{
    int fd;

    (void)f;
    while ((fd = io_accept_take(&server.accept)) >= 0) {
        struct connection *c = calloc(1, sizeof(*c));

        CHECK(c != NULL);
        c->fd = fd;
        flow_init(&c->flow, &connection_type, STEP_READ);
        io_recv_init(&c->recv, fd, &c->flow, !server.single_shot);
        io_wake(server.io, &c->flow);
    }
    if (fd != -EAGAIN)
        log_error("accept: %s", strerror(-fd));
    return FLOW_WAIT;
}

static const flow_step accept_steps[] = {step_accept};
static const char *const accept_step_names[] = {"accept"};
static const struct flow_type accept_type = {"accept", accept_steps, accept_step_names, 1, NULL};

static void make_answer(size_t body_n)
{
    char head[256];
    int head_n = snprintf(head, sizeof(head),
                          "HTTP/1.1 200 OK\r\nContent-Type: audio/ogg\r\nContent-Length: %zu\r\n"
                          "Cache-Control: public, max-age=31536000\r\nAge: 10\r\n\r\n",
                          body_n);

    server.head_n = (size_t)head_n;
    server.answer_n = server.head_n + body_n;
    server.answer = malloc(server.answer_n);
    CHECK(server.answer != NULL);
    memcpy(server.answer, head, server.head_n);
    memset(server.answer + server.head_n, 'x', body_n);
}

static void report(void)
{
    struct rusage usage;
    double us;

    getrusage(RUSAGE_SELF, &usage);
    us = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
         (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    printf("%llu requests, %.2f us of CPU each (%.0f %% user), %.1f requests a turn\n",
           (unsigned long long)server.requests_n, us / (double)server.requests_n,
           100.0 * ((double)usage.ru_utime.tv_sec * 1e6 + (double)usage.ru_utime.tv_usec) / us,
           (double)server.requests_n / (double)server.turns_n);
}

int main(int argc, char **argv)
{
    struct io_options options = {.entries = 1024, .receive_buffers = 1024, .receive_buffer_bytes = 4096};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(8090)};
    size_t body_kib = 4;
    const char *error_text;
    int option, fd, rc;

    while ((option = getopt(argc, argv, "p:b:s1r:n:k:")) != -1) {
        switch (option) {
        case 'p':
            address.sin_port = htons((uint16_t)atoi(optarg));
            break;
        case 'b':
            body_kib = (size_t)atoi(optarg);
            break;
        case 's':
            server.one_run = true;
            break;
        case '1':
            server.single_shot = true;
            break;
        case 'r':
            options.first_rung = (unsigned)atoi(optarg);
            break;
        case 'n':
            options.receive_buffers = (unsigned)atoi(optarg);
            break;
        case 'k':
            options.receive_buffer_bytes = (unsigned)atoi(optarg);
            break;
        default:
            return 2;
        }
    }
    make_answer(body_kib * 1024);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    rc = io_create(&server.io, &options, &error_text);
    if (rc < 0) {
        log_error("%s", error_text);
        return 1;
    }
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    fd = io_listen(server.io, (struct sockaddr *)&address, sizeof(address), 1024);
    if (fd < 0) {
        log_error("listen: %s", strerror(-fd));
        return 1;
    }
    log_info("%s", io_describe(server.io));
    flow_init(&server.flow, &accept_type, 0);
    io_accept_start(server.io, &server.accept, &server.flow, fd);
    while (rc == 0 && !leaving) {
        rc = io_run_once(server.io, UINT64_MAX);
        server.turns_n++;
    }
    report();
    return rc == 0 ? 0 : 1;
}
