#include "io/flow.h"

#include "util/limits.h"

static void run(struct flow_queue *q, struct flow *f)
{
    for (unsigned steps_n = 0; steps_n < FLOW_STEPS_MAX; steps_n++) {
        CHECK_MAGIC(f, FLOW_MAGIC);
        CHECK(f->step < f->type->steps_n);
        switch (f->type->steps[f->step](f)) {
        case FLOW_NEXT:
            break;
        case FLOW_WAIT:
            return;
        case FLOW_DONE:
            CHECK(!f->queued); /* whoever could still wake it would touch freed memory */
            f->magic = 0;
            f->type->done(f);
            return;
        }
    }
    flow_wake(q, f);
}

void flow_run_ready(struct flow_queue *q)
{
    for (size_t left = q->n; left > 0; left--) {
        struct flow *f = q->head;

        CHECK(f != NULL);
        q->head = f->next_ready;
        if (q->head == NULL)
            q->tail = NULL;
        q->n--;
        f->queued = false;
        run(q, f);
    }
}
