/* A hierarchical timer wheel: set and cancel in O(1), one millisecond a tick, for one thread.
 * A timer that goes off is marked `fired` and its flow is woken; nothing is run from inside the wheel. */
#pragma once

#include "io/flow.h"

#include <stdbool.h>
#include <stdint.h>

struct timer {
    struct timer *next, *prev; /* NULL: not set */
    struct flow *flow;
    uint32_t deadline_tick; /* wraps; compared by difference */
    bool fired;
};

struct timer_wheel;

struct timer_wheel *timer_wheel_create(uint64_t now_ns); /* NULL: no memory */
void timer_wheel_destroy(struct timer_wheel *w);

/* Sets it anew when it is set. Never goes off early, and at most about one tick late by the wheel's doing.
 * `delay_ms` is at most TIMER_DELAY_MS_MAX (about 24 days). Clears `fired`. */
void timer_set(struct timer_wheel *w, struct timer *t, struct flow *flow, uint64_t now_ns, uint64_t delay_ms);

/* Also of one that is not set. Clears `fired`. */
void timer_cancel(struct timer_wheel *w, struct timer *t);

static inline bool timer_is_set(const struct timer *t)
{
    return t->next != NULL;
}

/* Fires all that are due. */
void timer_wheel_advance(struct timer_wheel *w, uint64_t now_ns, struct flow_queue *ready);

/* How long nothing is due; UINT64_MAX when no timer is set. May be shorter than true, never longer. */
uint64_t timer_wheel_wait_ns(const struct timer_wheel *w, uint64_t now_ns);

#define TIMER_DELAY_MS_MAX (24ull * 24 * 3600 * 1000)
