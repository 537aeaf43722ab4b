/* A flow is one struct, one list of named steps and one dispatcher: a connection, a request, a fill.
 *
 * A step does what it can without waiting and returns what is to follow. It says which step that is by
 * setting `flow->step`. A flow that waits is woken by whatever it waits for (an operation, a timer, another
 * flow); a wake may be early or for something else, so a step looks at its state, never at who woke it.
 * Nothing but the dispatcher (flow_run_ready) calls a step.
 *
 * A flow belongs to one thread. Other threads reach it through its worker's mailbox (io/mailbox.h). */
#pragma once

#include "util/check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum flow_result {
    FLOW_NEXT, /* run flow->step now */
    FLOW_WAIT, /* run flow->step after a wake */
    FLOW_DONE, /* the type's `done` gets the flow and may free it */
};

struct flow;
typedef enum flow_result (*flow_step)(struct flow *);

struct flow_type {
    const char *name;
    const flow_step *steps;
    const char *const *step_names;
    unsigned steps_n;
    void (*done)(struct flow *); /* the last touch: nothing refers to the flow afterwards */
};

#define FLOW_MAGIC 0x464c4f57u

struct flow {
    uint32_t magic;
    uint8_t step; /* index into type->steps */
    bool queued;
    const struct flow_type *type;
    struct flow *next_ready;
};

/* The flows that are to run, in the order of their wakes. One a worker. */
struct flow_queue {
    struct flow *head, *tail;
    size_t n;
};

static inline void flow_init(struct flow *f, const struct flow_type *type, uint8_t step)
{
    *f = (struct flow){.magic = FLOW_MAGIC, .type = type, .step = step};
}

/* Queues the flow once; waking a flow that is queued does nothing. */
static inline void flow_wake(struct flow_queue *q, struct flow *f)
{
    CHECK_MAGIC(f, FLOW_MAGIC);
    if (f->queued)
        return;
    f->queued = true;
    f->next_ready = NULL;
    if (q->head == NULL)
        q->head = f;
    else
        q->tail->next_ready = f;
    q->tail = f;
    q->n++;
}

/* Runs the flows that were ready when it was called, each for at most FLOW_STEPS_MAX steps (a flow that
 * reaches that bound goes to the end of the queue). Flows woken meanwhile wait for the next call. */
void flow_run_ready(struct flow_queue *q);
