#include "net/resolve.h"

#include "util/check.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/stats.h"

#include <ares.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>

#define TIMEOUT_MS_DEFAULT 2000
#define TRIES_DEFAULT      2
#define FAILURE_S_DEFAULT  1

/* One socket of c-ares. It may close a socket whose poll is in flight: the slot then stays until the poll has
 * completed. (The ring keeps its file open until then, so the number is not polled by mistake.) */
struct slot {
    struct list node;
    ares_socket_t fd;
    unsigned wanted; /* POLLIN | POLLOUT */
    unsigned armed;  /* what the poll in flight waits for */
    bool closed;     /* by c-ares */
    struct io_op op;
};

struct name {
    struct list node; /* of the resolver's names, least recently asked first */
    struct resolver *resolver;
    struct list waiters; /* struct resolve */
    bool asking;
    bool answered; /* `result` is the last answer, not only a failure */
    int result;    /* addresses, or -errno */
    unsigned addresses_n;
    struct address addresses[RESOLVE_ADDRESSES_MAX]; /* ports 0 */
    uint64_t fresh_until_ns;                         /* of `result` */
    uint64_t asked_not_before_ns;                    /* after a failure */
    uint64_t text_n;
    char text[RESOLVE_NAME_BYTES_MAX + 1]; /* lower case; a dot at its end keeps c-ares from searching */
};

#define RESOLVER_MAGIC 0x5245534fu

struct resolver {
    struct flow flow;
    uint32_t magic;
    struct io *io;
    struct resolve_options options;
    char *servers;
    ares_channel channel; /* NULL once stopping */
    struct list slots, names;
    unsigned names_n;
    struct timer timer;
    struct flow *stop_waiter;
    bool stopping;
    bool starting; /* inside ares_getaddrinfo: an answer now is the hosts file's */
    struct resolve_stats unused_stats, *stats;
};

/* --- c-ares and the ring --- */

static void slot_arm(struct resolver *r, struct slot *s)
{
    if (s->closed || s->op.in_flight || s->op.done || s->wanted == 0)
        return;
    s->armed = s->wanted;
    io_poll(r->io, &s->op, &r->flow, s->fd, s->wanted);
}

static void on_socket_state(void *context, ares_socket_t fd, int readable, int writable)
{
    struct resolver *r = context;
    unsigned wanted = (readable ? POLLIN : 0u) | (writable ? POLLOUT : 0u);
    struct slot *s = NULL;

    LIST_EACH (&r->slots, node) {
        struct slot *candidate = LIST_ENTRY(node, struct slot, node);

        if (candidate->fd == fd && !candidate->closed)
            s = candidate;
    }
    if (s == NULL) {
        if (wanted == 0)
            return;
        s = calloc(1, sizeof *s);
        if (s == NULL)
            return; /* nobody reads it: the query ends by its timeout */
        s->fd = fd;
        list_push_back(&r->slots, &s->node);
    }
    s->wanted = wanted;
    if (wanted == 0)
        s->closed = true; /* what follows is close(2) */
    if (s->op.in_flight && (s->closed || (wanted & ~s->armed) != 0))
        io_cancel(r->io, &s->op);
    flow_wake(io_ready(r->io), &r->flow);
}

/* What c-ares itself waits for. */
static void set_timer(struct resolver *r)
{
    struct timeval tv;

    if (r->channel == NULL || ares_timeout(r->channel, NULL, &tv) == NULL) {
        io_timer_cancel(r->io, &r->timer);
        return;
    }
    /* Never below a tick: it counts in microseconds, and would be asked too early for ever. */
    io_timer_set(r->io, &r->timer, &r->flow, (uint64_t)tv.tv_sec * 1000 + (uint64_t)tv.tv_usec / 1000 + 1);
}

static enum flow_result step_run(struct flow *f)
{
    struct resolver *r = CONTAINER_OF(f, struct resolver, flow);
    bool timed_out = r->timer.fired;

    LIST_EACH (&r->slots, node) {
        struct slot *s = LIST_ENTRY(node, struct slot, node);
        int events;

        if (!io_op_take(&s->op, &events))
            continue;
        /* An error is told to c-ares as readable: its read then finds out. The call may close this and other
         * sockets, which only marks their slots. */
        if (!s->closed && r->channel != NULL && events != -ECANCELED)
            ares_process_fd(r->channel,
                            events < 0 || (events & (POLLIN | POLLERR | POLLHUP)) ? s->fd : ARES_SOCKET_BAD,
                            events > 0 && (events & POLLOUT) ? s->fd : ARES_SOCKET_BAD);
    }
    if (timed_out && r->channel != NULL)
        ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    LIST_EACH (&r->slots, node) {
        struct slot *s = LIST_ENTRY(node, struct slot, node);

        if (s->closed && !s->op.in_flight && !s->op.done) {
            list_remove(&s->node);
            free(s);
        } else {
            slot_arm(r, s);
        }
    }
    set_timer(r);
    if (r->stopping && list_empty(&r->slots) && r->stop_waiter != NULL)
        flow_wake(io_ready(r->io), TAKE(&r->stop_waiter));
    return FLOW_WAIT;
}

static const flow_step steps[] = {step_run};
static const char *const step_names[] = {"run"};
static const struct flow_type resolver_type = {
    .name = "resolver", .steps = steps, .step_names = step_names, .steps_n = 1};

/* --- answers --- */

static void complete(struct resolver *r, struct resolve *q, int result, const struct address *addresses)
{
    for (int i = 0; addresses != NULL && i < result; i++) {
        q->addresses[i] = addresses[i];
        address_set_port(&q->addresses[i], q->port);
    }
    q->result = result;
    q->done = true;
    if (q->waiting) {
        q->waiting = false;
        list_remove(&q->node);
        flow_wake(io_ready(r->io), q->flow);
    }
}

static void complete_waiters(struct name *name, int result)
{
    LIST_EACH (&name->waiters, node)
        complete(name->resolver, LIST_ENTRY(node, struct resolve, node), result, name->addresses);
}

/* A failure: the last good answer goes on, or the waiters hear of it. */
static void name_failed(struct name *name, int error)
{
    struct resolver *r = name->resolver;

    name->asked_not_before_ns = io_now_ns(r->io) + r->options.failure_s * NS_PER_S;
    stat_inc(&r->stats->failures);
    if (name->answered && name->result > 0) {
        LIST_EACH (&name->waiters, node) {
            stat_inc(&r->stats->stale);
            complete(r, LIST_ENTRY(node, struct resolve, node), name->result, name->addresses);
        }
        return;
    }
    if (!name->answered)
        name->result = error;
    complete_waiters(name, name->result);
}

static void name_answered(struct name *name, int result, uint64_t ttl_s)
{
    name->answered = true;
    name->result = result;
    name->asked_not_before_ns = 0;
    name->fresh_until_ns = io_now_ns(name->resolver->io) + ttl_s * NS_PER_S;
    complete_waiters(name, result);
}

static void take_addresses(struct name *name, const struct ares_addrinfo *info, bool from_hosts)
{
    uint64_t ttl_s = RESOLVE_TTL_MAX_S;
    int n = 0;

    for (const struct ares_addrinfo_node *node = info->nodes; node != NULL; node = node->ai_next) {
        if (n < RESOLVE_ADDRESSES_MAX && address_of_sockaddr(node->ai_addr, &name->addresses[n]) == 0) {
            address_set_port(&name->addresses[n], 0);
            n++;
        }
        if (node->ai_ttl >= 0 && (uint64_t)node->ai_ttl < ttl_s)
            ttl_s = (uint64_t)node->ai_ttl;
    }
    if (from_hosts)
        ttl_s = RESOLVE_TTL_HOSTS_S;
    if (ttl_s < RESOLVE_TTL_MIN_S)
        ttl_s = RESOLVE_TTL_MIN_S;
    if (n == 0)
        stat_inc(&name->resolver->stats->missing);
    name_answered(name, n > 0 ? n : -ENOENT, ttl_s);
}

static void ask(struct name *name);

static void on_answer(void *context, int status, int timeouts, struct ares_addrinfo *info)
{
    struct name *name = context;
    struct resolver *r = name->resolver;

    (void)timeouts;
    name->asking = false;
    switch (status) {
    case ARES_SUCCESS:
        take_addresses(name, info, r->starting);
        break;
    case ARES_ENOTFOUND:
    case ARES_ENODATA:
        stat_inc(&r->stats->missing);
        name_answered(name, -ENOENT, r->options.failure_s);
        break;
    case ARES_EBADNAME:
        name_answered(name, -EINVAL, RESOLVE_TTL_MAX_S);
        break;
    case ARES_EDESTRUCTION:
    case ARES_ECANCELLED:
        if (r->stopping)
            complete_waiters(name, -ECANCELED);
        break; /* reloading: it is asked anew below */
    case ARES_ENOMEM:
        name_failed(name, -ENOMEM);
        break;
    case ARES_ETIMEOUT:
    case ARES_ECONNREFUSED:
        name_failed(name, -ETIMEDOUT);
        break;
    default: /* SERVFAIL, REFUSED, NOTIMP, a malformed answer */
        name_failed(name, -EAGAIN);
        break;
    }
    if (info != NULL)
        ares_freeaddrinfo(info);
}

static void ask(struct name *name)
{
    struct resolver *r = name->resolver;
    const struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};

    name->asking = true;
    stat_inc(&r->stats->queries);
    r->starting = true;
    ares_getaddrinfo(r->channel, name->text, NULL, &hints, on_answer, name);
    r->starting = false;
    flow_wake(io_ready(r->io), &r->flow); /* to arm its sockets and timer */
}

/* --- names --- */

/* The canonical form of a host name, or false. What it may hold is looked at by c-ares and by the server. */
static bool canonical_name(struct str host, char *out, size_t *n)
{
    if (host.n == 0 || host.n > RESOLVE_NAME_BYTES_MAX || host.p[0] == '.')
        return false;
    for (size_t i = 0; i < host.n; i++) {
        unsigned char c = (unsigned char)host.p[i];

        if (c <= 0x20 || c >= 0x7f)
            return false;
        out[i] = (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
    }
    out[host.n] = 0;
    *n = host.n;
    return true;
}

static struct name *name_find(struct resolver *r, const char *text, size_t n)
{
    LIST_EACH (&r->names, node) {
        struct name *name = LIST_ENTRY(node, struct name, node);

        if (name->text_n == n && memcmp(name->text, text, n) == 0) {
            list_remove(&name->node); /* the one asked last stands last */
            list_push_back(&r->names, &name->node);
            return name;
        }
    }
    return NULL;
}

static void name_free(struct resolver *r, struct name *name)
{
    list_remove(&name->node);
    free(name);
    r->names_n--;
    stat_set(&r->stats->names, r->names_n);
}

/* A new name, in place of the one asked for least recently when there are too many. */
static struct name *name_make(struct resolver *r, const char *text, size_t n, int *error)
{
    struct name *name;

    *error = -ENOBUFS;
    LIST_EACH (&r->names, node) {
        if (r->names_n < RESOLVE_NAMES_MAX)
            break;
        name = LIST_ENTRY(node, struct name, node);
        if (!name->asking)
            name_free(r, name);
    }
    if (r->names_n >= RESOLVE_NAMES_MAX)
        return NULL;
    *error = -ENOMEM;
    name = calloc(1, sizeof *name);
    if (name == NULL)
        return NULL;
    name->resolver = r;
    name->text_n = n;
    memcpy(name->text, text, n + 1);
    list_init(&name->waiters);
    list_push_back(&r->names, &name->node);
    r->names_n++;
    stat_set(&r->stats->names, r->names_n);
    return name;
}

void resolve_start(struct resolver *r, struct resolve *q, struct flow *f, struct str host, uint16_t port)
{
    char text[RESOLVE_NAME_BYTES_MAX + 1];
    uint64_t now_ns = io_now_ns(r->io);
    struct address literal;
    struct name *name;
    size_t n;
    int error;

    CHECK(r->magic == RESOLVER_MAGIC && !q->waiting);
    q->flow = f;
    q->port = port;
    q->done = false;
    list_init(&q->node);
    if (r->stopping) {
        complete(r, q, -ECANCELED, NULL);
        return;
    }
    if (address_parse_ip(host, &literal) == 0) {
        complete(r, q, 1, &literal);
        return;
    }
    if (!canonical_name(host, text, &n)) {
        complete(r, q, -EINVAL, NULL);
        return;
    }
    name = name_find(r, text, n);
    if (name == NULL)
        name = name_make(r, text, n, &error);
    if (name == NULL) {
        complete(r, q, error, NULL);
        return;
    }
    if (name->answered && now_ns < name->fresh_until_ns) {
        complete(r, q, name->result, name->addresses);
        return;
    }
    if (!name->asking && now_ns >= name->asked_not_before_ns)
        ask(name); /* may have its answer on return: the hosts file's */
    if (name->answered && now_ns < name->fresh_until_ns) {
        complete(r, q, name->result, name->addresses);
    } else if (name->answered && name->result > 0 &&
               (!name->asking || now_ns < name->fresh_until_ns + RESOLVE_STALE_AT_ONCE_S * NS_PER_S)) {
        if (!name->asking) /* DNS fails at the moment; else it is only being refreshed */
            stat_inc(&r->stats->stale);
        complete(r, q, name->result, name->addresses);
    } else if (!name->asking) {
        complete(r, q, name->result, name->addresses); /* a failure of just now */
    } else {
        q->waiting = true;
        list_push_back(&name->waiters, &q->node);
    }
}

bool resolve_take(struct resolve *q, int *result)
{
    if (!q->done)
        return false;
    q->done = false;
    *result = q->result;
    return true;
}

void resolve_cancel(struct resolve *q)
{
    if (q->waiting) {
        q->waiting = false;
        list_remove(&q->node);
    }
    q->done = false;
}

/* --- making --- */

static pthread_once_t library_once = PTHREAD_ONCE_INIT;

static void init_library(void)
{
    ares_library_init(ARES_LIB_INIT_ALL);
}

static int errno_of(int status)
{
    return status == ARES_ENOMEM ? -ENOMEM : status == ARES_EFILE ? -EIO : -EINVAL;
}

static int open_channel(struct resolver *r, ares_channel *out)
{
    char lookups[] = "fb"; /* the hosts file, then DNS */
    struct ares_options options = {
        .timeout = (int)r->options.timeout_ms,
        .tries = (int)r->options.tries,
        .lookups = lookups,
        .sock_state_cb = on_socket_state,
        .sock_state_cb_data = r,
    };
    int status = ares_init_options(
        out, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB);

    if (status != ARES_SUCCESS)
        return errno_of(status);
    if (r->servers != NULL) {
        status = ares_set_servers_ports_csv(*out, r->servers);
        if (status != ARES_SUCCESS) {
            ares_destroy(*out);
            return errno_of(status);
        }
    }
    return 0;
}

int resolver_create(struct resolver **out, struct io *io, const struct resolve_options *options)
{
    struct resolver *r = calloc(1, sizeof *r);
    int error;

    if (r == NULL)
        return -ENOMEM;
    pthread_once(&library_once, init_library);
    flow_init(&r->flow, &resolver_type, 0);
    r->magic = RESOLVER_MAGIC;
    r->io = io;
    r->options = *options;
    if (r->options.timeout_ms == 0)
        r->options.timeout_ms = TIMEOUT_MS_DEFAULT;
    if (r->options.tries == 0)
        r->options.tries = TRIES_DEFAULT;
    if (r->options.failure_s == 0)
        r->options.failure_s = FAILURE_S_DEFAULT;
    r->stats = options->stats ? options->stats : &r->unused_stats;
    list_init(&r->slots);
    list_init(&r->names);
    if (options->servers != NULL) {
        r->servers = strdup(options->servers);
        if (r->servers == NULL) {
            free(r);
            return -ENOMEM;
        }
    }
    error = open_channel(r, &r->channel);
    if (error != 0) {
        free(r->servers);
        free(r);
        return error;
    }
    *out = r;
    return 0;
}

int resolver_reload(struct resolver *r)
{
    ares_channel fresh, old = r->channel;
    int error;

    CHECK(r->magic == RESOLVER_MAGIC && !r->stopping);
    error = open_channel(r, &fresh);
    if (error != 0)
        return error;
    r->channel = fresh;
    ares_destroy(old); /* ends what it was asking, with EDESTRUCTION */
    LIST_EACH (&r->names, node) {
        struct name *name = LIST_ENTRY(node, struct name, node);

        name->asked_not_before_ns = 0;
        if (!name->asking && !list_empty(&name->waiters))
            ask(name);
    }
    return 0;
}

bool resolver_stop(struct resolver *r, struct flow *waiter)
{
    CHECK(r->magic == RESOLVER_MAGIC);
    r->stopping = true;
    if (r->channel != NULL) {
        ares_destroy(r->channel);
        r->channel = NULL;
    }
    LIST_EACH (&r->slots, node) /* those of a failed close state are ended here as well */
    {
        struct slot *s = LIST_ENTRY(node, struct slot, node);

        s->closed = true;
        if (s->op.in_flight) {
            io_cancel(r->io, &s->op);
        } else {
            list_remove(&s->node);
            free(s);
        }
    }
    io_timer_cancel(r->io, &r->timer);
    if (list_empty(&r->slots) && !r->flow.queued)
        return true;
    r->stop_waiter = waiter;
    flow_wake(io_ready(r->io), &r->flow);
    return false;
}

void resolver_destroy(struct resolver **r)
{
    struct resolver *gone = TAKE(r);

    CHECK(gone->magic == RESOLVER_MAGIC && gone->stopping && list_empty(&gone->slots) && !gone->flow.queued);
    LIST_EACH (&gone->names, node)
        name_free(gone, LIST_ENTRY(node, struct name, node));
    free(gone->servers);
    gone->magic = 0;
    free(gone);
}
