#include "io/timer.h"

#include "util/clock.h"

#include <stdlib.h>

/* Six digits of six bits hold a tick of 32 bits. A timer lies at the level of the highest digit in which its
 * deadline differs from the present tick, in the slot of that digit; so whatever a level holds comes before
 * whatever the next level holds, and the next thing to do is the first bit of the lowest level in use. */
#define LEVEL_BITS 6u
#define SLOTS      (1u << LEVEL_BITS)
#define LEVELS     6u
#define LEVEL_TOP  (LEVELS - 1)

struct timer_wheel {
    uint64_t start_ns;
    uint64_t tick; /* all that is due up to here has fired, but for what is in `due` */
    uint64_t used[LEVELS];
    struct timer due;                  /* set with a deadline that is past already */
    struct timer slots[LEVELS][SLOTS]; /* each the head of a circle */
};

static void circle_init(struct timer *head)
{
    head->next = head->prev = head;
}

static bool circle_empty(const struct timer *head)
{
    return head->next == head;
}

struct timer_wheel *timer_wheel_create(uint64_t now_ns)
{
    struct timer_wheel *w = calloc(1, sizeof(*w));

    if (w == NULL)
        return NULL;
    w->start_ns = now_ns;
    circle_init(&w->due);
    for (unsigned level = 0; level < LEVELS; level++)
        for (unsigned slot = 0; slot < SLOTS; slot++)
            circle_init(&w->slots[level][slot]);
    return w;
}

void timer_wheel_destroy(struct timer_wheel *w)
{
    free(w);
}

static unsigned level_of(uint32_t tick, uint32_t deadline)
{
    return (31u - (unsigned)__builtin_clz(tick ^ deadline)) / LEVEL_BITS;
}

static void insert(struct timer_wheel *w, struct timer *t)
{
    uint32_t tick = (uint32_t)w->tick;
    struct timer *head = &w->due;

    if ((int32_t)(t->deadline_tick - tick) > 0) {
        unsigned level = level_of(tick, t->deadline_tick);
        unsigned slot = (t->deadline_tick >> (level * LEVEL_BITS)) % SLOTS;

        head = &w->slots[level][slot];
        w->used[level] |= 1ull << slot;
    }
    t->next = head;
    t->prev = head->prev;
    head->prev->next = t;
    head->prev = t;
}

static void removed_last_of(struct timer_wheel *w, const struct timer *head)
{
    size_t index = (size_t)(head - &w->slots[0][0]);

    if (head != &w->due)
        w->used[index / SLOTS] &= ~(1ull << (index % SLOTS));
}

void timer_cancel(struct timer_wheel *w, struct timer *t)
{
    t->fired = false;
    if (t->next == NULL)
        return;
    if (t->next == t->prev) /* both are the head */
        removed_last_of(w, t->next);
    t->next->prev = t->prev;
    t->prev->next = t->next;
    t->next = t->prev = NULL;
}

void timer_set(struct timer_wheel *w, struct timer *t, struct flow *flow, uint64_t now_ns, uint64_t delay_ms)
{
    CHECK(delay_ms <= TIMER_DELAY_MS_MAX);
    CHECK(flow != NULL);
    timer_cancel(w, t);
    t->flow = flow;
    /* Upwards, so that it is never early. */
    t->deadline_tick = (uint32_t)((now_ns - w->start_ns + delay_ms * NS_PER_MS + NS_PER_MS - 1) / NS_PER_MS);
    insert(w, t);
}

static void fire_all(struct timer *head, struct flow_queue *ready)
{
    struct timer *next = NULL;

    for (struct timer *t = head->next; t != head; t = next) {
        next = t->next;
        t->next = t->prev = NULL;
        t->fired = true;
        flow_wake(ready, t->flow);
    }
    circle_init(head);
}

/* The next tick at which a slot is to be emptied, by its distance from the present one. False: none. */
static bool next_slot(const struct timer_wheel *w, unsigned *level, unsigned *slot, uint32_t *ticks)
{
    for (unsigned l = 0; l < LEVELS; l++) {
        uint32_t tick = (uint32_t)w->tick;
        unsigned shift = l * LEVEL_BITS;
        uint32_t start;

        if (w->used[l] == 0)
            continue;
        *level = l;
        *slot = (unsigned)__builtin_ctzll(w->used[l]);
        if (l == LEVEL_TOP) {
            /* Of the highest digit there are two bits, and it wraps: the first used slot after this one. */
            unsigned bits = (unsigned)w->used[l], now = tick >> shift;

            bits = (bits | bits << 4) >> (now + 1);
            *slot = (now + 1 + (unsigned)__builtin_ctz(bits)) % 4;
            start = (uint32_t)*slot << shift;
        } else {
            start = (tick & ~((1u << (shift + LEVEL_BITS)) - 1)) | (uint32_t)*slot << shift;
        }
        *ticks = start - tick;
        return true;
    }
    return false;
}

/* Moves what the slot holds to lower levels; what is due at this very tick is put into `due`. */
static void cascade(struct timer_wheel *w, struct timer *head)
{
    struct timer *next = NULL;
    struct timer *t = head->next;

    head->prev->next = NULL;
    circle_init(head);
    for (; t != NULL; t = next) {
        next = t->next;
        insert(w, t);
    }
}

void timer_wheel_advance(struct timer_wheel *w, uint64_t now_ns, struct flow_queue *ready)
{
    uint64_t target = (now_ns - w->start_ns) / NS_PER_MS;
    unsigned level, slot;
    uint32_t ticks;

    if (!circle_empty(&w->due))
        fire_all(&w->due, ready);
    if (target <= w->tick)
        return;
    while (next_slot(w, &level, &slot, &ticks) && w->tick + ticks <= target) {
        w->tick += ticks;
        w->used[level] &= ~(1ull << slot);
        if (level == 0) {
            fire_all(&w->slots[0][slot], ready);
        } else {
            cascade(w, &w->slots[level][slot]);
            fire_all(&w->due, ready);
        }
    }
    w->tick = target;
}

uint64_t timer_wheel_wait_ns(const struct timer_wheel *w, uint64_t now_ns)
{
    unsigned level, slot;
    uint32_t ticks;
    uint64_t at_ns;

    if (!circle_empty(&w->due))
        return 0;
    if (!next_slot(w, &level, &slot, &ticks))
        return UINT64_MAX;
    at_ns = w->start_ns + (w->tick + ticks) * NS_PER_MS;
    return at_ns > now_ns ? at_ns - now_ns : 0;
}
