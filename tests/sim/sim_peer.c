/* The peers' ends of connections: reading at a rate, and a script of things to do. */
#include "sim_internal.h"

#include <errno.h>
#include <stdlib.h>

enum action_kind { SEND, SEND_BODY, PAUSE, END, CLOSE, CUT, RESET };

struct sim_action {
    struct list link;
    enum action_kind kind;
    char *bytes;      /* SEND */
    uint64_t body_id; /* SEND_BODY */
    uint64_t n, done; /* bytes, or nanoseconds */
};

#define BODY_RUN 16384u

/* --- what the peer is told --- */

static void tell_gone(struct sim_conn *c, int error)
{
    if (c->gone_told)
        return;
    c->gone_told = true;
    sim_trace(c->w, "gone", c->id, (uint64_t)(int64_t)error);
    if (c->peer->gone != NULL)
        c->peer->gone(c->me, c, error);
}

static void drop_script(struct sim_conn *c)
{
    LIST_EACH (&c->script, node) {
        struct sim_action *a = LIST_ENTRY(node, struct sim_action, link);
        list_remove(node);
        free(a->bytes);
        free(a);
    }
    sim_event_cancel(c->w, &c->write);
}

static void reset_now(struct sim_conn *c)
{
    if (c->closed)
        return;
    drop_script(c);
    sim_event_cancel(c->w, &c->read);
    sim_conn_do_reset(c);
}

/* The peer is given what can be opened, and told of close_notify or a failure. */
static void open_records(struct sim_conn *c, char *ciphertext, size_t n)
{
    enum sim_tls_event event = sim_tls_read(c, ciphertext, n);
    char plain[BODY_RUN];

    while (event == SIM_TLS_OPEN && !c->closed) {
        event = sim_tls_take(c, plain, sizeof plain, &n);
        if (n == 0)
            break;
        if (c->peer->data != NULL)
            c->peer->data(c->me, c, str_of(plain, n));
    }
    if (event == SIM_TLS_FAILED && !c->closed) {
        drop_script(c);
        tell_gone(c, -EPROTO);
    } else if (event == SIM_TLS_ENDED && !c->end_told && !c->closed) {
        c->end_told = true;
        sim_trace(c->w, "peer end", c->id, 1);
        if (c->peer->end != NULL)
            c->peer->end(c->me, c);
    }
    if (!c->closed)
        sim_peer_kick(c);
}

/* Returns bytes taken. */
static size_t read_some(struct sim_conn *c)
{
    struct sim_world *w = c->w;
    size_t n = sim_between(w, w->options.net.read_bytes);
    char *copy;

    if (n == 0)
        n = 1;
    if (c->read_rate != UINT64_MAX && n > c->read_rate / 20 + 1)
        n = c->read_rate / 20 + 1;
    if (n > c->in.unread)
        n = c->in.unread;
    if (n > c->reset_at_read - c->in.read_total)
        n = c->reset_at_read - c->in.read_total;
    copy = malloc(n + 1);
    CHECK(copy != NULL);
    memcpy(copy, sim_bytes_at(&c->in.bytes, 0), n);
    sim_trace(w, "peer read", c->id, n);
    sim_trace_bytes(w, copy, n);
    sim_conn_took(c, n);
    if (c->tls != NULL && n > 0)
        open_records(c, copy, n);
    else if (c->peer->data != NULL && n > 0)
        c->peer->data(c->me, c, str_of(copy, n));
    free(copy);
    if (c->in.read_total == c->reset_at_read && c->closes_at_limit)
        sim_conn_close_now(c);
    else if (c->in.read_total == c->reset_at_read)
        reset_now(c);
    return n;
}

static void on_read(void *context)
{
    struct sim_conn *c = context;
    size_t n = 0;

    if (c->closed)
        return;
    if (c->in.unread > 0) {
        n = read_some(c);
    } else if (c->state == SIM_CONN_DEAD) {
        drop_script(c);
        tell_gone(c, -ECONNRESET);
        return;
    } else if (c->in.fin_arrived && !c->end_told && c->tls != NULL) {
        tell_gone(c, -ECONNABORTED); /* anybody may have cut it off */
        sim_conn_close_now(c);
        return;
    } else if (c->in.fin_arrived && !c->end_told) {
        c->end_told = true;
        sim_trace(c->w, "peer end", c->id, 0);
        if (c->peer->end != NULL)
            c->peer->end(c->me, c);
    }
    if (c->closed)
        return;
    if (c->end_told && c->shut)
        tell_gone(c, 0);
    if (sim_conn_readable(c) && c->read_rate > 0 && !(c->end_told && c->state == SIM_CONN_OPEN))
        sim_event_set(c->w, &c->read,
                      sim_rate_ns(n, c->read_rate) + sim_between(c->w, c->w->options.net.operation_ns));
}

static bool wants_to_write(const struct sim_conn *c)
{
    if (c->tls == NULL)
        return !list_empty(&c->script);
    return sim_tls_unsent(c) > 0 || sim_tls_has_failed(c) ||
           (sim_tls_may_write(c) && !list_empty(&c->script));
}

void sim_peer_kick(struct sim_conn *c)
{
    if (c->closed)
        return;
    if (!sim_event_is_set(&c->read) && (c->read_rate > 0 || c->state == SIM_CONN_DEAD) &&
        sim_conn_readable(c) && !c->gone_told && !(c->end_told && c->state == SIM_CONN_OPEN))
        sim_event_set(c->w, &c->read, sim_between(c->w, c->w->options.net.operation_ns));
    if (!sim_event_is_set(&c->write) && c->state == SIM_CONN_OPEN && wants_to_write(c))
        sim_event_set(c->w, &c->write, sim_between(c->w, c->w->options.net.operation_ns));
}

/* --- the script --- */

static void send_bytes(struct sim_conn *c, const struct sim_action *a, size_t n)
{
    char run[BODY_RUN];
    const char *bytes = a->kind == SEND ? a->bytes + a->done : run;

    if (a->kind == SEND_BODY)
        sim_body_fill(a->body_id, a->done, run, n);
    if (c->tls != NULL)
        sim_tls_write(c, bytes, n);
    else
        sim_conn_put(c, bytes, n);
}

/* How much of n bytes may be sent now. */
static size_t sendable(const struct sim_conn *c, size_t n)
{
    size_t room = sim_conn_room(c);

    n = n < room ? n : room;
    if (c->write_rate != UINT64_MAX && n > c->write_rate / 20 + 1)
        n = c->write_rate / 20 + 1;
    if (n > c->reset_at_sent - c->sent_total)
        n = c->reset_at_sent - c->sent_total;
    return n;
}

/* Bytes given to the connection; 0: none fit, or it was reset. */
static size_t send_some(struct sim_conn *c, struct sim_action *a)
{
    size_t n = a->n - a->done;

    if (a->kind == SEND_BODY && n > BODY_RUN)
        n = BODY_RUN;
    n = sendable(c, n);
    if (n > 0)
        send_bytes(c, a, n);
    a->done += n;
    return n;
}

/* One record of what is to be sent is sealed; it goes out as write_ciphertext goes on. */
static void seal_some(struct sim_conn *c, struct sim_action *a)
{
    size_t n = a->n - a->done, most = sim_tls_record_bytes(c);

    if (c->write_rate != UINT64_MAX && most > c->write_rate / 20 + 1)
        most = c->write_rate / 20 + 1;
    n = n < most ? n : most;
    if (n > 0)
        send_bytes(c, a, n);
    a->done += n;
}

/* True: there was something of TLS to do before the script goes on. */
static bool write_ciphertext(struct sim_conn *c)
{
    size_t n = sim_tls_unsent(c);

    if (n > 0 && c->write_rate > 0) {
        n = sendable(c, n);
        if (n > 0)
            sim_tls_put(c, n);
        if (c->sent_total == c->reset_at_sent)
            reset_now(c);
        else if (n > 0) /* without room it will be kicked */
            sim_event_set(c->w, &c->write,
                          sim_between(c->w, c->w->options.net.operation_ns) + sim_rate_ns(n, c->write_rate));
        return true;
    }
    if (n == 0 && sim_tls_has_failed(c)) {
        sim_conn_close_now(c);
        return true;
    }
    return !sim_tls_may_write(c);
}

static void on_write(void *context)
{
    struct sim_conn *c = context;
    struct sim_action *a;
    enum action_kind kind;
    size_t n = 0;
    uint64_t delay = sim_between(c->w, c->w->options.net.operation_ns);

    if (c->closed || c->state != SIM_CONN_OPEN || (c->tls != NULL && write_ciphertext(c)) ||
        list_empty(&c->script))
        return;
    a = LIST_ENTRY(c->script.next, struct sim_action, link);
    kind = a->kind;
    if (kind == SEND || kind == SEND_BODY) {
        if (c->write_rate == 0)
            return;
        if (c->tls != NULL)
            seal_some(c, a);
        else
            n = send_some(c, a);
        if (c->sent_total == c->reset_at_sent) {
            reset_now(c);
            return;
        }
        if (c->tls == NULL && n == 0 && a->done < a->n)
            return; /* room will kick it */
    } else if ((kind == END || kind == CLOSE) && c->tls != NULL && sim_tls_notify(c)) {
        sim_event_set(c->w, &c->write, delay);
        return;
    } else if (kind == PAUSE) {
        if (a->done == 0 && a->n > 0) {
            a->done = a->n;
            sim_event_set(c->w, &c->write, a->n);
            return;
        }
    }
    if (a->done == a->n || kind >= END) {
        list_remove(&a->link);
        free(a->bytes);
        free(a);
    }
    if (kind == RESET) {
        reset_now(c);
        return;
    }
    if (kind == CLOSE || kind == CUT) {
        sim_conn_close_now(c);
        return;
    }
    if (kind == END) {
        sim_conn_shut(c);
        if (c->end_told)
            tell_gone(c, 0);
    }
    if (!list_empty(&c->script) || sim_tls_unsent(c) > 0)
        sim_event_set(c->w, &c->write, delay + sim_rate_ns(n, c->write_rate));
}

static struct sim_action *action(struct sim_conn *c, enum action_kind kind, uint64_t n)
{
    struct sim_action *a = calloc(1, sizeof *a);

    CHECK(a != NULL);
    a->kind = kind;
    a->n = n;
    list_push_back(&c->script, &a->link);
    if (c->closed || c->gone_told)
        drop_script(c);
    else
        sim_peer_kick(c);
    return a;
}

void sim_conn_send(struct sim_conn *c, struct str bytes)
{
    struct sim_action *a;

    if (bytes.n == 0 || c->closed || c->gone_told)
        return;
    a = action(c, SEND, bytes.n);
    a->bytes = malloc(bytes.n);
    CHECK(a->bytes != NULL);
    memcpy(a->bytes, bytes.p, bytes.n);
}

void sim_conn_send_body(struct sim_conn *c, uint64_t body_id, uint64_t offset, uint64_t n)
{
    struct sim_action *a;

    if (n == 0 || c->closed || c->gone_told)
        return;
    a = action(c, SEND_BODY, offset + n);
    a->body_id = body_id;
    a->done = offset;
}

void sim_conn_pause(struct sim_conn *c, uint64_t ns)
{
    action(c, PAUSE, ns);
}

void sim_conn_end(struct sim_conn *c)
{
    action(c, END, 0);
}

void sim_conn_close(struct sim_conn *c)
{
    action(c, CLOSE, 0);
}

void sim_conn_cut(struct sim_conn *c)
{
    action(c, CUT, 0);
}

void sim_conn_reset(struct sim_conn *c)
{
    action(c, RESET, 0);
}

void sim_conn_reset_now(struct sim_conn *c)
{
    reset_now(c);
}

void sim_conn_close_now(struct sim_conn *c)
{
    if (c->closed)
        return;
    drop_script(c);
    sim_event_cancel(c->w, &c->read);
    sim_conn_do_close(c);
}

void sim_conn_read_rate(struct sim_conn *c, uint64_t bytes_per_s)
{
    c->read_rate = bytes_per_s;
    if (bytes_per_s == 0)
        sim_event_cancel(c->w, &c->read);
    if (c->state == SIM_CONN_OPEN || c->state == SIM_CONN_DEAD)
        sim_peer_kick(c);
}

void sim_conn_write_rate(struct sim_conn *c, uint64_t bytes_per_s)
{
    c->write_rate = bytes_per_s;
    if (c->state == SIM_CONN_OPEN)
        sim_peer_kick(c);
}

void sim_conn_reset_at(struct sim_conn *c, uint64_t read_bytes, uint64_t sent_bytes)
{
    c->reset_at_read = read_bytes > c->in.read_total ? read_bytes : c->in.read_total + 1;
    c->reset_at_sent = sent_bytes > c->sent_total ? sent_bytes : c->sent_total + 1;
}

bool sim_conn_is_open(const struct sim_conn *c)
{
    return c->state == SIM_CONN_OPEN && !c->closed && !c->gone_told;
}

bool sim_conn_is_finished(const struct sim_conn *c)
{
    return c->closed || c->gone_told;
}

uint64_t sim_conn_read_total(const struct sim_conn *c)
{
    return c->in.read_total;
}

uint64_t sim_conn_sent_total(const struct sim_conn *c)
{
    return c->sent_total;
}

uint64_t sim_conn_id(const struct sim_conn *c)
{
    return c->id;
}

struct sim_world *sim_conn_world(struct sim_conn *c)
{
    return c->w;
}

/* --- connecting --- */

void sim_peer_init(struct sim_conn *c, const struct sim_peer *peer, void *me)
{
    c->peer = peer;
    c->me = me;
    c->read = (struct sim_event){.call = on_read, .context = c};
    c->write = (struct sim_event){.call = on_write, .context = c};
    c->read_rate = c->write_rate = UINT64_MAX;
}

static void on_dial(void *context)
{
    struct sim_conn *c = context;
    struct sockaddr_storage to = c->remote;
    int error;

    if (c->closed)
        return;
    error = c->state == SIM_CONN_CONNECTING && c->error != 0 ? -ETIMEDOUT : sim_net_connect(c, &to);
    if (error == -EINPROGRESS) {
        c->error = ETIMEDOUT; /* should nothing happen until then */
        sim_event_set(c->w, &c->dial, SIM_CONNECT_TIMEOUT_NS);
    } else if (error < 0) {
        c->error = 0;
        tell_gone(c, error);
    } else {
        if (c->peer->open != NULL)
            c->peer->open(c->me, c);
        sim_peer_kick(c);
    }
}

struct sim_conn *sim_connect(struct sim_world *w, const char *from_ip, const char *ip, uint16_t port,
                             const struct sim_peer *peer, void *me)
{
    struct sockaddr_storage to;
    struct sim_conn *c;

    sim_address(&to, ip, port);
    c = sim_conn_new(w, to.ss_family);
    sim_peer_init(c, peer, me);
    if (from_ip != NULL)
        sim_address(&c->local, from_ip, 0);
    c->remote = to;
    c->state = SIM_CONN_CONNECTING;
    c->dial = (struct sim_event){.call = on_dial, .context = c};
    sim_event_set(w, &c->dial, sim_between(w, w->options.net.latency_ns));
    return c;
}

void sim_peer_forget(struct sim_conn *c)
{
    drop_script(c);
    sim_tls_forget(c);
}

/* --- bodies: eight bytes at a time out of a mixed counter --- */

static uint64_t body_word(uint64_t body_id, uint64_t i)
{
    uint64_t z = body_id + i * 0x9e3779b97f4a7c15ull;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

uint64_t sim_body_id(struct str path, uint64_t version)
{
    uint64_t h = 0xcbf29ce484222325ull; /* FNV-1a */

    for (size_t i = 0; i < path.n; i++)
        h = (h ^ (unsigned char)path.p[i]) * 0x100000001b3ull;
    return body_word(h, version);
}

uint8_t sim_body_byte(uint64_t body_id, uint64_t offset)
{
    return (uint8_t)(body_word(body_id, offset / 8) >> (offset % 8 * 8));
}

void sim_body_fill(uint64_t body_id, uint64_t offset, void *to, size_t n)
{
    uint8_t *p = to;
    uint64_t word = body_word(body_id, offset / 8);

    for (size_t i = 0; i < n; i++) {
        if ((offset + i) % 8 == 0)
            word = body_word(body_id, (offset + i) / 8);
        p[i] = (uint8_t)(word >> ((offset + i) % 8 * 8));
    }
}

size_t sim_body_differs(uint64_t body_id, uint64_t offset, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    uint8_t expected[1024];

    for (size_t i = 0, run; i < n; i += run) {
        run = n - i < sizeof expected ? n - i : sizeof expected;
        sim_body_fill(body_id, offset + i, expected, run);
        if (memcmp(p + i, expected, run) == 0)
            continue;
        while (*(p + i) == sim_body_byte(body_id, offset + i))
            i++;
        return i;
    }
    return n;
}
