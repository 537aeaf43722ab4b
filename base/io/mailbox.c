#include "io/mailbox.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

int mailbox_open(struct mailbox *m)
{
    atomic_init(&m->head, NULL);
    m->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return m->event_fd < 0 ? -errno : 0;
}

void mailbox_close(struct mailbox *m)
{
    if (m->event_fd >= 0)
        close(m->event_fd);
    m->event_fd = -1;
}

void mailbox_post(struct mailbox *m, struct mail *mail)
{
    struct mail *head = atomic_load_explicit(&m->head, memory_order_relaxed);
    int event_fd = m->event_fd;

    do
        mail->next = head;
    while (!atomic_compare_exchange_weak_explicit(&m->head, &head, mail, memory_order_release,
                                                  memory_order_relaxed));
    /* Who finds it empty wakes the receiver; who comes after knows that a wake is under way. */
    if (head == NULL)
        CHECK(eventfd_write(event_fd, 1) == 0 || errno == EAGAIN);
}

size_t mailbox_deliver(struct mailbox *m, void *context)
{
    struct mail *newest, *oldest = NULL;
    eventfd_t wakes;
    size_t n = 0;

    /* First the event, then the messages: what is posted in between is taken now and wakes once more, in
     * vain. The other way round a wake could be lost. */
    (void)eventfd_read(m->event_fd, &wakes);
    newest = atomic_exchange_explicit(&m->head, NULL, memory_order_acquire);
    while (newest != NULL) {
        struct mail *next = newest->next;

        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest != NULL) {
        struct mail *mail = oldest;

        oldest = mail->next; /* the receiver may free it */
        mail->receive(mail, context);
        n++;
    }
    return n;
}
