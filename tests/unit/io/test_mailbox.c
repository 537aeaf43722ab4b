#include "io/mailbox.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define SENDERS_N  4
#define LETTERS_N  20000
#define TIMEOUT_MS 10000

struct letter {
    struct mail mail;
    unsigned sender, number;
};

struct sender {
    pthread_t thread;
    unsigned sender;
    struct mailbox *box;
    struct letter *letters;
};

struct receiver {
    unsigned next[SENDERS_N]; /* number that is due from each */
    unsigned n;
    bool order_kept;
};

static void receive(struct mail *mail, void *context)
{
    struct letter *letter = CONTAINER_OF(mail, struct letter, mail);
    struct receiver *receiver = context;

    if (receiver->next[letter->sender]++ != letter->number)
        receiver->order_kept = false;
    receiver->n++;
    memset(letter, 0xa5, sizeof(*letter)); /* it is the receiver's: nobody looks at it any more */
}

static void *run_sender(void *argument)
{
    struct sender *s = argument;

    for (unsigned i = 0; i < LETTERS_N; i++) {
        mailbox_post(s->box, &s->letters[i].mail);
        if (i % 2 == s->sender % 2)
            sched_yield(); /* so that the box is found empty often */
    }
    return NULL;
}

static bool readable(const struct mailbox *m, int timeout_ms)
{
    struct pollfd p = {.fd = m->event_fd, .events = POLLIN};

    return poll(&p, 1, timeout_ms) == 1;
}

static void test_order_and_wakes(void **state)
{
    struct receiver receiver = {.order_kept = true};
    struct letter letters[3] = {{.number = 0}, {.number = 1}, {.number = 2}};
    struct mailbox m;
    uint64_t wakes = 0;

    (void)state;
    assert_int_equal(mailbox_open(&m), 0);
    assert_false(readable(&m, 0));
    assert_int_equal(mailbox_deliver(&m, &receiver), 0);
    for (unsigned i = 0; i < 3; i++) {
        letters[i].mail.receive = receive;
        mailbox_post(&m, &letters[i].mail);
    }
    assert_true(readable(&m, 0));
    assert_int_equal(read(m.event_fd, &wakes, sizeof(wakes)), sizeof(wakes));
    assert_int_equal(wakes, 1); /* one wake for the three */
    assert_int_equal(mailbox_deliver(&m, &receiver), 3);
    assert_true(receiver.order_kept);
    assert_int_equal(mailbox_deliver(&m, &receiver), 0);
    assert_false(readable(&m, 0));
    mailbox_close(&m);
}

struct reposter {
    struct mail mail;
    struct mailbox *box;
    unsigned left;
};

static void repost(struct mail *mail, void *context)
{
    struct reposter *r = CONTAINER_OF(mail, struct reposter, mail);

    (void)context;
    if (--r->left > 0)
        mailbox_post(r->box, mail);
}

static void test_post_from_receive(void **state)
{
    struct mailbox m;
    struct reposter r = {.mail.receive = repost, .box = &m, .left = 3};

    (void)state;
    assert_int_equal(mailbox_open(&m), 0);
    mailbox_post(&m, &r.mail);
    for (unsigned left = 3; left > 0; left--) {
        assert_true(readable(&m, 0));
        assert_int_equal(r.left, left);
        assert_int_equal(mailbox_deliver(&m, NULL), 1);
    }
    assert_false(readable(&m, 0));
    mailbox_close(&m);
}

static void test_threads(void **state)
{
    struct receiver receiver = {.order_kept = true};
    struct sender senders[SENDERS_N];
    struct mailbox m;

    (void)state;
    assert_int_equal(mailbox_open(&m), 0);
    for (unsigned s = 0; s < SENDERS_N; s++) {
        senders[s].box = &m;
        senders[s].sender = s;
        senders[s].letters = calloc(LETTERS_N, sizeof(struct letter));
        assert_non_null(senders[s].letters);
        for (unsigned i = 0; i < LETTERS_N; i++)
            senders[s].letters[i] = (struct letter){.mail.receive = receive, .sender = s, .number = i};
        assert_int_equal(pthread_create(&senders[s].thread, NULL, run_sender, &senders[s]), 0);
    }
    /* Only ever waiting for the event: a wake that were lost would time out. */
    while (receiver.n < SENDERS_N * LETTERS_N && readable(&m, TIMEOUT_MS))
        mailbox_deliver(&m, &receiver);
    assert_int_equal(receiver.n, SENDERS_N * LETTERS_N);
    assert_true(receiver.order_kept);
    for (unsigned s = 0; s < SENDERS_N; s++) {
        assert_int_equal(pthread_join(senders[s].thread, NULL), 0);
        free(senders[s].letters);
    }
    mailbox_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_and_wakes),
        cmocka_unit_test(test_post_from_receive),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
