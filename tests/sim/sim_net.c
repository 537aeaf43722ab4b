/* Connections: two ends, and a pipe towards each. */
#include "sim_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>

struct route {
    struct list link;
    struct sockaddr_storage address;
    enum sim_route route;
};

/* --- addresses --- */

socklen_t sim_address(struct sockaddr_storage *out, const char *ip, uint16_t port)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;

    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, ip, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        return sizeof *v4;
    }
    CHECK(inet_pton(AF_INET6, ip, &v6->sin6_addr) == 1);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    return sizeof *v6;
}

static uint16_t port_of(const struct sockaddr_storage *a)
{
    return a->ss_family == AF_INET ? ((const struct sockaddr_in *)a)->sin_port
                                   : ((const struct sockaddr_in6 *)a)->sin6_port;
}

static void set_port(struct sockaddr_storage *a, uint16_t port)
{
    if (a->ss_family == AF_INET)
        ((struct sockaddr_in *)a)->sin_port = htons(port);
    else
        ((struct sockaddr_in6 *)a)->sin6_port = htons(port);
}

/* Whether who connects to `to` reaches `at`, which may be the wildcard address. */
static bool reaches(const struct sockaddr_storage *to, const struct sockaddr_storage *at)
{
    if (to->ss_family != at->ss_family || port_of(to) != port_of(at))
        return false;
    if (to->ss_family == AF_INET) {
        const struct sockaddr_in *a = (const struct sockaddr_in *)to, *b = (const struct sockaddr_in *)at;
        return b->sin_addr.s_addr == INADDR_ANY || a->sin_addr.s_addr == b->sin_addr.s_addr;
    }
    const struct sockaddr_in6 *a = (const struct sockaddr_in6 *)to, *b = (const struct sockaddr_in6 *)at;
    return IN6_IS_ADDR_UNSPECIFIED(&b->sin6_addr) || IN6_ARE_ADDR_EQUAL(&a->sin6_addr, &b->sin6_addr);
}

void sim_route(struct sim_world *w, const char *ip, uint16_t port, enum sim_route how)
{
    struct sockaddr_storage address;
    struct route *r;

    sim_address(&address, ip, port);
    LIST_EACH (&w->routes, node) {
        r = LIST_ENTRY(node, struct route, link);
        if (reaches(&address, &r->address)) {
            r->route = how;
            return;
        }
    }
    r = calloc(1, sizeof *r);
    CHECK(r != NULL);
    r->address = address;
    r->route = how;
    list_push_back(&w->routes, &r->link);
}

static enum sim_route route_to(const struct sim_world *w, const struct sockaddr_storage *to)
{
    LIST_EACH (&w->routes, node) {
        const struct route *r = LIST_ENTRY(node, struct route, link);
        if (reaches(to, &r->address))
            return r->route;
    }
    return SIM_ROUTE_OPEN;
}

/* --- a pipe --- */

uint64_t sim_rate_ns(uint64_t bytes, uint64_t bytes_per_s)
{
    if (bytes_per_s == UINT64_MAX)
        return 0;
    return (uint64_t)((unsigned __int128)bytes * NS_PER_S / bytes_per_s);
}

static size_t in_transit(const struct sim_pipe *p)
{
    return p->bytes.n - p->unread;
}

static void drop_transit(struct sim_pipe *p)
{
    p->bytes.n = p->unread;
    p->fin_sent = false;
}

/* What has been sent and can arrive gets an arrival. */
static void start_arrival(struct sim_conn *to, size_t sent_now)
{
    struct sim_world *w = to->w;
    struct sim_pipe *p = &to->in;
    const struct sim_net *net = &w->options.net;
    uint64_t delay;

    if (sim_event_is_set(&p->arrival) || to->state == SIM_CONN_DEAD)
        return;
    if (in_transit(p) == 0 ? !p->fin_sent || p->fin_arrived : p->unread >= p->receive_cap && !to->closed) {
        p->flowing = false;
        return;
    }
    delay = sim_between(w, p->flowing ? net->gap_ns : net->latency_ns);
    if (sim_fault(w, w->options.faults.stall_ppm, &w->counts.stalls))
        delay += sim_between(w, w->options.faults.stall_ns);
    p->flowing = true;
    sim_event_set(w, &p->arrival, delay + sim_rate_ns(sent_now, to->other->pace));
}

/* Both ends see a reset, as when something between them has had enough. */
void sim_conn_break(struct sim_conn *c)
{
    struct sim_conn *ends[2] = {c, c->other};

    for (unsigned i = 0; i < 2; i++) {
        struct sim_conn *end = ends[i];
        sim_event_cancel(end->w, &end->in.arrival);
        drop_transit(&end->in);
        if (end->state != SIM_CONN_OPEN)
            continue;
        sim_trace(end->w, "killed", end->id, 0);
        end->state = SIM_CONN_DEAD;
        end->error = ECONNRESET;
        sim_conn_kick(end);
    }
}

static void on_arrival(void *context)
{
    struct sim_conn *to = context;
    struct sim_pipe *p = &to->in;
    struct sim_world *w = to->w;
    size_t n = in_transit(p);
    size_t segment = sim_between(w, w->options.net.segment_bytes);

    if (to->closed && n > 0) { /* nobody will read it: the kernel there says so */
        sim_conn_do_reset(to);
        return;
    }
    n = n < segment ? n : segment;
    if (n > p->receive_cap - p->unread)
        n = p->receive_cap - p->unread;
    if (to->other->pace != UINT64_MAX && n > to->other->pace / 50 + 1)
        n = to->other->pace / 50 + 1;
    if (p->arrived_total + n >= p->reset_at)
        n = p->reset_at - p->arrived_total;
    p->unread += n;
    p->arrived_total += n;
    sim_trace(w, "arrived", to->id, n);
    if (p->arrived_total == p->reset_at) {
        w->counts.resets++;
        sim_conn_break(to);
        return;
    }
    if (in_transit(p) == 0 && p->fin_sent)
        p->fin_arrived = true;
    start_arrival(to, n);
    sim_conn_kick(to);
    sim_conn_kick(to->other); /* there is room now */
}

static void on_reset_arrival(void *context)
{
    struct sim_conn *c = context;

    if (c->state != SIM_CONN_OPEN)
        return;
    sim_trace(c->w, "reset", c->id, 0);
    c->state = SIM_CONN_DEAD;
    c->error = ECONNRESET;
    sim_conn_kick(c);
}

/* --- an end --- */

struct sim_conn *sim_conn_new(struct sim_world *w, int family)
{
    struct sim_conn *c = calloc(1, sizeof *c);
    struct sim_net *net = &w->options.net;

    CHECK(c != NULL);
    c->w = w;
    c->id = ++w->conns_n;
    c->fd = -1;
    c->family = family;
    c->pace = UINT64_MAX;
    c->in.send_cap = sim_between(w, net->send_buffer_bytes);
    c->in.receive_cap = sim_between(w, net->receive_buffer_bytes);
    CHECK(c->in.send_cap > 0 && c->in.receive_cap > 0 && net->segment_bytes.min > 0);
    c->in.reset_at = UINT64_MAX;
    if (sim_chance(w, w->options.faults.reset_ppm))
        c->in.reset_at = sim_between(w, w->options.faults.reset_at);
    c->in.arrival = (struct sim_event){.call = on_arrival, .context = c};
    c->reset_arrival = (struct sim_event){.call = on_reset_arrival, .context = c};
    c->reset_at_read = c->reset_at_sent = UINT64_MAX;
    list_init(&c->backlog_link);
    list_init(&c->script);
    list_push_back(&w->conns, &c->link);
    return c;
}

size_t sim_conn_room(const struct sim_conn *c)
{
    const struct sim_pipe *out = &c->other->in;
    size_t used = in_transit(out);

    return used < out->send_cap ? out->send_cap - used : 0;
}

bool sim_conn_readable(const struct sim_conn *c)
{
    return c->state == SIM_CONN_DEAD ||
           (c->state == SIM_CONN_OPEN && (c->in.unread > 0 || c->in.fin_arrived));
}

bool sim_conn_writable(const struct sim_conn *c)
{
    return c->state == SIM_CONN_DEAD || (c->state == SIM_CONN_OPEN && (c->shut || sim_conn_room(c) > 0));
}

void sim_conn_put(struct sim_conn *c, const void *bytes, size_t n)
{
    CHECK(n <= sim_conn_room(c) && !c->shut);
    sim_trace(c->w, "put", c->id, n);
    sim_trace_bytes(c->w, bytes, n);
    sim_bytes_add(&c->other->in.bytes, bytes, n);
    c->sent_total += n;
    start_arrival(c->other, n);
}

void sim_conn_took(struct sim_conn *c, size_t n)
{
    CHECK(n <= c->in.unread);
    sim_bytes_drop(&c->in.bytes, n);
    c->in.unread -= n;
    c->in.read_total += n;
    start_arrival(c, 0);
}

int sim_conn_take_error(struct sim_conn *c)
{
    int error = c->error;

    c->error = 0;
    return -error;
}

void sim_conn_shut(struct sim_conn *c)
{
    if (c->shut || c->state != SIM_CONN_OPEN)
        return;
    c->shut = true;
    sim_trace(c->w, "shut", c->id, 0);
    c->other->in.fin_sent = true;
    start_arrival(c->other, 0);
    if (c->op_send != NULL)
        sim_op_kick(c->op_send);
}

static void free_unread(struct sim_conn *c)
{
    c->in.unread = 0;
    sim_bytes_drop(&c->in.bytes, c->in.bytes.n);
}

void sim_conn_do_reset(struct sim_conn *c)
{
    if (c->state == SIM_CONN_OPEN) {
        struct sim_conn *other = c->other;
        sim_trace(c->w, "resets", c->id, 0);
        sim_event_cancel(c->w, &other->in.arrival);
        drop_transit(&other->in);
        sim_event_set(c->w, &other->reset_arrival, sim_between(c->w, c->w->options.net.latency_ns));
    }
    sim_event_cancel(c->w, &c->in.arrival);
    c->state = SIM_CONN_DEAD;
    c->closed = true;
    free_unread(c);
}

void sim_conn_do_close(struct sim_conn *c)
{
    if (c->closed)
        return;
    sim_trace(c->w, "close", c->id, c->in.unread);
    if (c->state != SIM_CONN_OPEN || c->in.unread > 0) { /* Linux resets when bytes are unread */
        sim_conn_do_reset(c);
        return;
    }
    sim_conn_shut(c);
    c->closed = true;
    start_arrival(c, 0);
}

void sim_conn_kick(struct sim_conn *c)
{
    if (c->peer != NULL) {
        sim_peer_kick(c);
        return;
    }
    if (c->op_recv != NULL && sim_conn_readable(c))
        sim_op_kick(c->op_recv);
    if (c->op_send != NULL && sim_conn_writable(c))
        sim_op_kick(c->op_send);
    if (c->op_poll != NULL)
        sim_op_kick(c->op_poll);
}

/* --- connecting --- */

static struct sim_listener *choose_listener(struct sim_world *w, const struct sockaddr_storage *to)
{
    struct sim_listener *chosen = NULL;
    uint64_t n = 0;

    LIST_EACH (&w->listeners, node) {
        struct sim_listener *l = LIST_ENTRY(node, struct sim_listener, link);
        if (reaches(to, &l->address) && sim_below(w, ++n) == 0)
            chosen = l;
    }
    return chosen;
}

int sim_net_connect(struct sim_conn *c, const struct sockaddr_storage *to)
{
    struct sim_world *w = c->w;
    enum sim_route how = route_to(w, to);
    struct sim_listener *l;
    struct sim_conn *server;

    if (how == SIM_ROUTE_LOST || sim_fault(w, w->options.faults.connect_lost_ppm, &w->counts.lost))
        return -EINPROGRESS;
    if (how == SIM_ROUTE_UNREACHABLE)
        return -EHOSTUNREACH;
    l = choose_listener(w, to);
    if (l == NULL || how == SIM_ROUTE_REFUSED ||
        sim_fault(w, w->options.faults.connect_refused_ppm, &w->counts.refused))
        return -ECONNREFUSED;
    server = sim_conn_new(w, c->family);
    server->other = c;
    c->other = server;
    if (c->local.ss_family == 0)
        sim_address(&c->local, to->ss_family == AF_INET ? "127.0.0.1" : "::1", 0);
    if (port_of(&c->local) == 0)
        set_port(&c->local, w->next_port++);
    if (w->next_port == 0)
        w->next_port = 32768;
    c->remote = server->local = *to;
    server->remote = c->local;
    c->state = server->state = SIM_CONN_OPEN;
    sim_trace(w, "connected", c->id, server->id);
    if (l->peer != NULL) {
        sim_peer_init(server, l->peer, NULL);
        server->me = l->accept != NULL ? l->accept(l->context, server) : l->context;
        if (l->peer->open != NULL)
            l->peer->open(server->me, server);
    } else {
        list_push_back(&l->backlog, &server->backlog_link);
        if (l->op != NULL)
            sim_op_kick(l->op);
    }
    return 0;
}

void sim_listen(struct sim_world *w, const char *ip, uint16_t port, const struct sim_peer *peer,
                void *(*accept)(void *, struct sim_conn *), void *context)
{
    struct sim_listener *l = calloc(1, sizeof *l);

    CHECK(l != NULL);
    *l = (struct sim_listener){.w = w, .fd = -1, .peer = peer, .accept = accept, .context = context};
    sim_address(&l->address, ip, port);
    list_init(&l->backlog);
    list_push_back(&w->listeners, &l->link);
}

void sim_listen_stop(struct sim_world *w, const char *ip, uint16_t port)
{
    struct sockaddr_storage address;

    sim_address(&address, ip, port);
    LIST_EACH (&w->listeners, node) {
        struct sim_listener *l = LIST_ENTRY(node, struct sim_listener, link);
        if (l->peer != NULL && reaches(&address, &l->address)) {
            list_remove(&l->link);
            free(l);
        }
    }
}

void sim_net_forget(struct sim_world *w)
{
    LIST_EACH (&w->conns, conn_node) {
        struct sim_conn *c = LIST_ENTRY(conn_node, struct sim_conn, link);
        sim_peer_forget(c);
        sim_bytes_free(&c->in.bytes);
        free(c);
    }
    LIST_EACH (&w->listeners, listener_node)
        free(LIST_ENTRY(listener_node, struct sim_listener, link));
    LIST_EACH (&w->routes, route_node)
        free(LIST_ENTRY(route_node, struct route, link));
}

/* --- calls of io.h that do not wait --- */

static struct sim_conn *conn_of(struct io *io, int fd, const char *what)
{
    return sim_fd_get(io->w, fd, SIM_FD_CONN, what)->conn;
}

int io_socket(struct io *io, int family)
{
    struct sim_conn *c;

    if (family != AF_INET && family != AF_INET6)
        return -EAFNOSUPPORT;
    if (sim_fault(io->w, io->w->options.faults.socket_emfile_ppm, &io->w->counts.socket_errors))
        return -EMFILE;
    c = sim_conn_new(io->w, family);
    c->fd = sim_fd_new(io->w, SIM_FD_CONN, c, -1);
    sim_trace(io->w, "socket", c->id, (uint64_t)c->fd);
    return c->fd;
}

int io_listen(struct io *io, const struct sockaddr *address, socklen_t address_bytes, int backlog)
{
    struct sim_listener *l;

    CHECK(address_bytes <= sizeof l->address && backlog >= 0);
    if (address->sa_family != AF_INET && address->sa_family != AF_INET6)
        return -EAFNOSUPPORT;
    l = calloc(1, sizeof *l);
    CHECK(l != NULL);
    l->w = io->w;
    memcpy(&l->address, address, address_bytes);
    if (port_of(&l->address) == 0)
        set_port(&l->address, io->w->next_port++);
    list_init(&l->backlog);
    list_push_back(&io->w->listeners, &l->link);
    l->fd = sim_fd_new(io->w, SIM_FD_LISTENER, l, -1);
    sim_trace(io->w, "listen", (uint64_t)l->fd, port_of(&l->address));
    return l->fd;
}

int io_peer_address(struct io *io, int fd, struct sockaddr_storage *out)
{
    struct sim_conn *c = conn_of(io, fd, "asked for its peer's address");

    if (c->state != SIM_CONN_OPEN)
        return -ENOTCONN;
    *out = c->remote;
    return 0;
}

int io_local_address(struct io *io, int fd, struct sockaddr_storage *out)
{
    size_t i = (size_t)fd - SIM_FD_BASE;

    if (fd >= SIM_FD_BASE && i < io->w->fds_n && io->w->fds[i].kind == SIM_FD_LISTENER)
        *out = io->w->fds[i].listener->address;
    else
        *out = conn_of(io, fd, "asked for its address")->local;
    return 0;
}

void io_shutdown_send(struct io *io, int fd)
{
    sim_conn_shut(conn_of(io, fd, "shut down"));
}

int io_acked_bytes(struct io *io, int fd, uint64_t *out)
{
    struct sim_conn *c = conn_of(io, fd, "asked for acknowledged bytes");

    *out = c->other != NULL ? c->other->in.arrived_total : 0;
    return 0;
}

void io_pace(struct io *io, int fd, uint64_t bytes_per_s)
{
    struct sim_conn *c = conn_of(io, fd, "paced");

    sim_trace(io->w, "pace", c->id, bytes_per_s);
    c->pace = bytes_per_s > 0 ? bytes_per_s : 1;
}
