/* Messages to a worker from other threads. Posting never blocks and never allocates: the message is a node
 * inside the sender's own struct, and belongs to the receiver from the post on. */
#pragma once

#include "io/flow.h"

#include <stdatomic.h>

struct mail {
    struct mail *next;
    void (*receive)(struct mail *, void *context); /* run by the receiving worker, from a flow step */
};

struct mailbox {
    _Atomic(struct mail *) head; /* newest first */
    int event_fd;                /* readable when head went from empty to not empty */
};

int mailbox_open(struct mailbox *m); /* 0 or -errno */
void mailbox_close(struct mailbox *m);

/* Any thread. */
void mailbox_post(struct mailbox *m, struct mail *mail);

/* The receiving thread: runs `receive` of every message that has come, oldest first. Returns how many. */
size_t mailbox_deliver(struct mailbox *m, void *context);
