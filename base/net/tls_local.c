/* What a worker has for its TLS connections: pools, and the gate of handshakes.
 *
 * The gate bounds what handshakes cost. Memory: so many have a place at a time, and with it a connection object of
 * OpenSSL; who waits for one leaves what the client sent in the kernel. Time: whatever a handshake has to compute is
 * computed here, in the order in which it was asked for, and only for a part of each turn of the loop, so that
 * established streams get their turn in between.
 *
 * Handshakes that stall cannot keep the others out: when all places are taken, who has waited longest for its peer,
 * and for STALLED_NS at least, has to go. The wait ends with the whole of what the peer has to say, not with any byte. */
#include "net/tls_internal.h"

#include "util/clock.h"

#include <errno.h>
#include <stdlib.h>

/* In one turn: no step begins after so long. A signature by RSA-2048 takes 0.6 to 1 ms, one by ECDSA P-256 30 us. */
#define TURN_NS    (200 * NS_PER_US)
#define TURN_STEPS 32u

#define STALLED_NS NS_PER_S

/* More than any worker's share of connections; what bounds them is that. */
#define STREAMS_MAX (1u << 20)
#define SLABS_MAX   8192u /* 512 MiB a worker: with more at a time, windows get small */
#define KEEP        256u
#define SLABS_KEEP  64u

static struct tls_handshake *handshake_of(struct list *node)
{
    return LIST_ENTRY(node, struct tls_handshake, node);
}

static void take_place(struct tls_local *l, struct tls_handshake *h)
{
    h->place = true;
    h->peer_since_ns = io_now_ns(l->io);
    l->places++;
    stat_inc(&l->options.stats->handshaking);
}

static void delayed(struct tls_local *l, struct tls_handshake *h)
{
    if (!h->delayed)
        stat_inc(&l->options.stats->handshakes_delayed);
    h->delayed = true;
}

/* Sees to it that somebody who asks for a place gets one, now or when the time has come. */
static void let_stalled_go(struct tls_local *l)
{
    uint64_t now_ns = io_now_ns(l->io);

    while (!list_empty(&l->asking) && l->places >= l->options.handshakes_max && !list_empty(&l->peers)) {
        struct tls_handshake *h = handshake_of(l->peers.next);
        uint64_t waited_ns = now_ns - h->peer_since_ns;

        if (waited_ns < STALLED_NS) {
            io_timer_set(l->io, &l->timer, &l->flow, (STALLED_NS - waited_ns) / NS_PER_MS + 1);
            return;
        }
        stat_inc(&l->options.stats->handshakes_timeout);
        tls_stream_because(h->stream, "its handshake stalled while others waited for theirs");
        tls_handshake_fail(h->stream, -ETIMEDOUT);
    }
}

static void admit(struct tls_local *l)
{
    while (!list_empty(&l->asking) && l->places < l->options.handshakes_max) {
        struct tls_handshake *h = handshake_of(l->asking.next);

        list_remove(&h->node);
        take_place(l, h);
        tls_gate_work(h->stream);
    }
}

static enum flow_result gate_step(struct flow *flow)
{
    struct tls_local *l = CONTAINER_OF(flow, struct tls_local, flow);

    CHECK_MAGIC(l, TLS_LOCAL_MAGIC);
    let_stalled_go(l);
    admit(l);
    /* The loop's clock stands still within a turn, in which this may run several times. */
    if (l->turn_ns != io_now_ns(l->io)) {
        l->turn_ns = io_now_ns(l->io);
        l->spent_ns = 0;
        l->steps = 0;
    }
    while (!list_empty(&l->working) && l->spent_ns < TURN_NS && l->steps < TURN_STEPS) {
        struct tls_handshake *h = handshake_of(l->working.next);
        uint64_t begun_ns = clock_mono_ns();

        list_remove(&h->node);
        tls_handshake_work(h->stream);
        l->spent_ns += clock_mono_ns() - begun_ns;
        l->steps++;
    }
    if (!list_empty(&l->working)) {
        delayed(l, handshake_of(l->working.next));
        io_wake(l->io, flow); /* the next turn */
    }
    return FLOW_WAIT;
}

static const flow_step gate_steps[] = {gate_step};
static const struct flow_type gate_type = {.name = "tls gate", .steps = gate_steps, .steps_n = 1};

void tls_gate_ask(struct tls_stream *t)
{
    struct tls_local *l = t->local;
    struct tls_handshake *h = t->handshake;

    h->state = TLS_ASKING;
    if (!t->server) { /* our own wishes are few, and clients wait for them */
        tls_gate_work(t);
        return;
    }
    list_push_back(&l->asking, &h->node);
    if (l->places >= l->options.handshakes_max)
        delayed(l, h);
    io_wake(l->io, &l->flow);
}

void tls_gate_work(struct tls_stream *t)
{
    struct tls_handshake *h = t->handshake;

    h->state = TLS_WORKING;
    list_remove(&h->node);
    if (t->server)
        list_push_back(&t->local->working, &h->node);
    else
        list_push_front(&t->local->working, &h->node);
    io_wake(t->io, &t->local->flow);
}

void tls_gate_peer(struct tls_stream *t, bool answered)
{
    struct tls_handshake *h = t->handshake;
    struct list *at = &t->local->peers;

    h->state = TLS_PEER;
    if (answered)
        h->peer_since_ns = io_now_ns(t->io);
    if (h->place) { /* who was answered now comes last at once; who sends crumbs goes back to where it was */
        while (at->prev != &t->local->peers && handshake_of(at->prev)->peer_since_ns > h->peer_since_ns)
            at = at->prev;
        list_insert_before(at, &h->node);
    }
    if (!list_empty(&t->local->asking))
        io_wake(t->io, &t->local->flow);
}

void tls_gate_leave(struct tls_stream *t)
{
    struct tls_handshake *h = t->handshake;

    list_remove(&h->node);
    if (!h->place)
        return;
    h->place = false;
    t->local->places--;
    stat_dec(&t->local->options.stats->handshaking);
    if (!list_empty(&t->local->asking))
        io_wake(t->io, &t->local->flow);
}

/* --- */

int tls_local_create(struct tls_local **out, struct io *io, const struct tls_local_options *options)
{
    struct tls_local *l = calloc(1, sizeof *l);

    if (l == NULL)
        return -ENOMEM;
    l->magic = TLS_LOCAL_MAGIC;
    l->io = io;
    tls_local_reconfigure(l, options);
    pool_init(&l->streams, "TLS streams", sizeof(struct tls_stream), STREAMS_MAX, KEEP);
    pool_init(&l->handshakes, "TLS handshakes", sizeof(struct tls_handshake), STREAMS_MAX, KEEP);
    pool_init(&l->slabs, "TLS windows", TLS_SLAB_BYTES, SLABS_MAX, SLABS_KEEP);
    pool_init(&l->small, "TLS records", TLS_SMALL_BYTES, 2 * STREAMS_MAX, KEEP);
    flow_init(&l->flow, &gate_type, 0);
    list_init(&l->asking);
    list_init(&l->working);
    list_init(&l->peers);
    *out = l;
    return 0;
}

void tls_local_reconfigure(struct tls_local *l, const struct tls_local_options *options)
{
    CHECK(options->stats != NULL);
    l->options = *options;
    if (l->options.handshakes_max == 0)
        l->options.handshakes_max = 1;
}

void tls_local_destroy(struct tls_local **lp)
{
    struct tls_local *l = TAKE(lp);

    CHECK_MAGIC(l, TLS_LOCAL_MAGIC);
    CHECK(list_empty(&l->asking) && list_empty(&l->working) && list_empty(&l->peers));
    io_timer_cancel(l->io, &l->timer);
    pool_destroy(&l->streams);
    pool_destroy(&l->handshakes);
    pool_destroy(&l->slabs);
    pool_destroy(&l->small);
    l->magic = 0;
    free(l);
}
