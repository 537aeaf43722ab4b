/* handshake PORT SECONDS CONNECTIONS full|resumed: TLS handshakes as fast as this core can, so many at a time.
 * Each is a connection of its own that waits for the server's ticket (so the server is done as well), says
 * close_notify, and waits for the server's end. Nothing is asked for. Prints one line:
 *
 *     figures handshakes=N duration_us=N
 *
 * What was begun in the time is waited for, so that the count is of all that the server had to do. */
#include "client_tls.h"

#include "util/check.h"
#include "util/clock.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define EVENTS_MAX  256
#define CLOSE_MAX_S 10u

enum phase { SHAKING, AWAITING_TICKET, CLOSING };

struct slot {
    struct link link;
    SSL_SESSION *session; /* the newest ticket; NULL: none yet */
    bool ticket;          /* this connection got one */
    enum phase phase;
};

static struct {
    SSL_CTX *context;
    int epoll;
    int slot_index; /* where a connection keeps its slot */
    uint16_t port;
    bool resume;
    uint64_t end_ns;
    uint64_t done;
    size_t open;
} run;

static int on_ticket(SSL *ssl, SSL_SESSION *session)
{
    struct slot *slot = SSL_get_ex_data(ssl, run.slot_index);
    slot->ticket = true;
    if (!run.resume)
        return 0;
    SSL_SESSION_free(slot->session);
    slot->session = session;
    return 1;
}

static void shake(struct slot *slot)
{
    SSL *ssl = slot->link.ssl;
    int result = SSL_do_handshake(ssl);
    if (result == 1) {
        client_tls_check(ssl, NULL);
        if (run.resume && slot->session && !SSL_session_reused(ssl))
            client_fail("the server did not take its own ticket");
        slot->phase = AWAITING_TICKET;
        return;
    }
    if (SSL_get_error(ssl, result) != SSL_ERROR_WANT_READ)
        client_fail("handshake: %s", ERR_reason_error_string(ERR_peek_error()));
}

static void begin(struct slot *slot)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = slot};
    slot->link = (struct link){.fd = client_connect(run.port)};
    link_set_nonblocking(&slot->link);
    slot->link.ssl = client_tls_new(run.context, slot->link.fd);
    slot->phase = SHAKING;
    slot->ticket = false;
    SSL_set_ex_data(slot->link.ssl, run.slot_index, slot);
    if (run.resume && slot->session && SSL_set_session(slot->link.ssl, slot->session) != 1)
        client_fail("the ticket cannot be used");
    if (epoll_ctl(run.epoll, EPOLL_CTL_ADD, slot->link.fd, &event))
        client_fail("epoll: %s", strerror(errno));
    run.open++;
    shake(slot);
}

/* Once we have said close_notify, what still comes (a second ticket, the server's own) is not TLS's any more: OpenSSL
 * would take it for an error, and the ticket that we have for spoilt. */
static bool has_ended(int fd)
{
    char chunk[4096];
    ssize_t got;
    do
        got = recv(fd, chunk, sizeof(chunk), 0);
    while (got > 0);
    return got == 0 || (errno != EAGAIN && errno != EINTR);
}

/* Returns whether the connection has come to its end. */
static bool advance(struct slot *slot)
{
    char chunk[4096];
    if (slot->phase == CLOSING)
        return has_ended(slot->link.fd);
    if (slot->phase == SHAKING)
        shake(slot);
    if (slot->phase == SHAKING)
        return false;
    if (link_read(&slot->link, chunk, sizeof(chunk)) != -1)
        client_fail("the server ended or spoke after a handshake, and no ticket had come");
    if (slot->ticket) {
        SSL_shutdown(slot->link.ssl);
        slot->phase = CLOSING;
    }
    return false;
}

static void on_event(struct slot *slot)
{
    if (!advance(slot))
        return;
    link_close(&slot->link);
    run.open--;
    run.done++;
    if (clock_mono_ns() < run.end_ns)
        begin(slot);
}

static void prepare(struct slot *slots, size_t count)
{
    run.context = client_tls_context(NULL);
    SSL_CTX_set_session_cache_mode(run.context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(run.context, on_ticket);
    run.slot_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    run.epoll = epoll_create1(EPOLL_CLOEXEC);
    CHECK(run.slot_index >= 0 && run.epoll >= 0);
    for (size_t i = 0; i < count; i++)
        begin(&slots[i]);
}

int main(int argc, char **argv)
{
    if (argc != 5)
        client_fail("usage: handshake PORT SECONDS CONNECTIONS full|resumed");
    uint64_t seconds = (uint64_t)atoi(argv[2]);
    size_t count = (size_t)atol(argv[3]);
    if (count == 0 || count > CLIENTS_MAX)
        client_fail("1 to %u connections", CLIENTS_MAX);
    struct slot *slots = calloc(count, sizeof(*slots));
    CHECK(slots);
    run.port = (uint16_t)atoi(argv[1]);
    run.resume = strcmp(argv[4], "resumed") == 0;
    uint64_t start_ns = clock_mono_ns();
    run.end_ns = start_ns + seconds * NS_PER_S;
    prepare(slots, count);

    struct epoll_event events[EVENTS_MAX];
    while (run.open > 0) {
        int ready = epoll_wait(run.epoll, events, EVENTS_MAX, 1000);
        for (int i = 0; i < ready; i++)
            on_event(events[i].data.ptr);
        if (clock_mono_ns() > run.end_ns + CLOSE_MAX_S * NS_PER_S)
            client_fail("%zu connections came to no end", run.open);
    }
    printf("figures handshakes=%llu duration_us=%llu\n", (unsigned long long)run.done,
           (unsigned long long)((clock_mono_ns() - start_ns) / NS_PER_US));
    for (size_t i = 0; i < count; i++)
        SSL_SESSION_free(slots[i].session);
    SSL_CTX_free(run.context);
    free(slots);
    return 0;
}
