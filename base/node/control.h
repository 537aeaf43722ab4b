/* The control thread of every program: signals, admin requests, the regular tick, systemd, reload and drain.
 * It may block; workers never do. main() calls control_block_signals before any thread, then control_create,
 * starts its workers, and gives the rest of the process's life to control_run.
 *
 *     SIGHUP                reload; a reload that fails leaves all as it was
 *     SIGTERM, SIGINT       drain; once more: hurry
 *     SIGPIPE               ignored
 */
#pragma once

#include "io/mailbox.h"
#include "node/admin.h"
#include "node/metrics.h"

#include <stdbool.h>
#include <stdint.h>

enum control_state { CONTROL_STARTING, CONTROL_READY, CONTROL_DRAINING };

/* Every hook runs on the control thread; those that are NULL are left out. */
struct control_hooks {
    bool (*ready)(void *context);             /* asked until true: listening, and the stores are loaded */
    bool (*alive)(void *context);             /* before the watchdog is told; false: let systemd act */
    int (*reload)(void *context);             /* 0 or -errno; logs either, and why */
    void (*drain)(void *context, bool hurry); /* first: stop accepting, end when idle; hurry: end now */
    bool (*drained)(void *context);           /* asked until true, then control_run returns */
    void (*tick)(void *context, uint64_t now_ns);
};

struct control_options {
    struct control_hooks hooks;
    void *context;
    struct admin *admin;     /* or NULL; gets the routes /healthz, /readyz, /metrics and /stats */
    struct metrics *metrics; /* or NULL; gets reload results and state */
    uint64_t tick_ms;        /* 0: 1000 */
    uint64_t drain_ms;       /* how long a drain may take; 0: 30 s */
    uint64_t hurry_ms;       /* how long after the second signal; 0: 1 s */
};

struct control;

/* Signals then reach nothing but control_run. Before threads, since they inherit it. */
void control_block_signals(void);

int control_create(struct control **out, const struct control_options *options); /* 0 or -errno */
void control_destroy(struct control **c);

/* Returns 0 once drained, or -ETIMEDOUT when the time for it ran out. */
int control_run(struct control *c);

/* Any thread: messages for the control thread; `receive` gets the hooks' context. */
struct mailbox *control_mailbox(struct control *c);

enum control_state control_state(const struct control *c);

/* The same as SIGTERM, from the control thread: a worker that cannot go on. */
void control_drain(struct control *c);
