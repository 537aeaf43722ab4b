#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/control.h"
#include "util/check.h"
#include "util/clock.h"
#include "util/log.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* A program whose hooks note what they are asked, and a loop in a thread. */
static struct {
    _Atomic bool ready, drained;
    _Atomic int reload_result, reloads, drains, hurries, ticks, mails;
    _Atomic bool alive;
    struct control *control;
    struct admin *admin;
    struct metrics *metrics;
    pthread_t thread;
    int result;
    int notify_fd;
    char notify_path[64], socket_path[64];
    char notified[4096];
} p;

static bool on_ready(void *context)
{
    assert_ptr_equal(context, &p);
    return p.ready;
}

static bool on_alive(void *context)
{
    (void)context;
    return p.alive;
}

static int on_reload(void *context)
{
    (void)context;
    p.reloads++;
    return p.reload_result;
}

static void on_drain(void *context, bool hurry)
{
    (void)context;
    if (hurry)
        p.hurries++;
    else
        p.drains++;
}

static bool on_drained(void *context)
{
    (void)context;
    return p.drained;
}

static void on_tick(void *context, uint64_t now_ns)
{
    (void)context;
    assert_true(now_ns > 0);
    p.ticks++;
}

static void on_mail(struct mail *mail, void *context)
{
    assert_ptr_equal(context, &p);
    free(mail);
    p.mails++;
}

static void *run(void *unused)
{
    p.result = control_run(p.control);
    return unused;
}

/* All that systemd was told so far. */
static const char *notified(void)
{
    size_t n = strlen(p.notified);
    ssize_t more;

    while ((more = recv(p.notify_fd, p.notified + n, sizeof p.notified - n - 2, MSG_DONTWAIT)) > 0) {
        n += (size_t)more;
        p.notified[n++] = '\n';
        p.notified[n] = 0;
    }
    return p.notified;
}

static void open_notify_socket(void)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};

    snprintf(p.notify_path, sizeof p.notify_path, "/tmp/test_control.%d.notify", (int)getpid());
    memcpy(sun.sun_path, p.notify_path, strlen(p.notify_path) + 1);
    unlink(p.notify_path);
    p.notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(p.notify_fd, (struct sockaddr *)&sun, sizeof sun), 0);
    setenv("NOTIFY_SOCKET", p.notify_path, 1);
    setenv("WATCHDOG_USEC", "100000", 1);
}

static int start(void **state)
{
    struct control_options options = {
        .hooks = {on_ready, on_alive, on_reload, on_drain, on_drained, on_tick},
        .context = &p,
        .tick_ms = 10,
        .drain_ms = 400,
        .hurry_ms = 50,
    };
    struct admin_options admin = {.program = "segue-test", .socket_path = p.socket_path};
    const char *error_text;

    (void)state;
    log_set_level(LOG_LEVEL_ERROR);
    memset(&p, 0, sizeof p);
    p.alive = true;
    open_notify_socket();
    snprintf(p.socket_path, sizeof p.socket_path, "/tmp/test_control.%d.sock", (int)getpid());
    assert_int_equal(admin_open(&p.admin, &admin, &error_text), 0);
    p.metrics = metrics_create("segue-test");
    options.admin = p.admin;
    options.metrics = p.metrics;
    control_block_signals();
    assert_int_equal(control_create(&p.control, &options), 0);
    return pthread_create(&p.thread, NULL, run, NULL);
}

static int finish(void **state)
{
    (void)state;
    control_destroy(&p.control);
    admin_close(&p.admin);
    metrics_destroy(&p.metrics);
    close(p.notify_fd);
    unlink(p.notify_path);
    return 0;
}

#define WAIT_FOR(condition)                                                                                  \
    do {                                                                                                     \
        for (int tries_ = 0; tries_ < 2000 && !(condition); tries_++)                                        \
            usleep(2000);                                                                                    \
        assert_true(condition);                                                                              \
    } while (0)

/* The status of GET `path` over the admin socket; the answer is left in `text`. */
static int get(const char *path, char *text, size_t cap)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0), n;
    size_t got = 0;
    ssize_t more;

    snprintf(sun.sun_path, sizeof sun.sun_path, "%s", p.socket_path);
    assert_int_equal(connect(fd, (struct sockaddr *)&sun, sizeof sun), 0);
    n = snprintf(text, cap, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path);
    assert_int_equal(send(fd, text, (size_t)n, MSG_NOSIGNAL), n);
    while (got < cap - 1 && (more = recv(fd, text + got, cap - 1 - got, 0)) > 0)
        got += (size_t)more;
    text[got] = 0;
    close(fd);
    return got > 12 ? atoi(text + 9) : 0;
}

static void a_whole_life(void **state)
{
    static char text[65536];
    uint64_t drain_ns;

    (void)state;
    /* starting */
    WAIT_FOR(p.ticks > 2);
    assert_int_equal(get("/healthz", text, sizeof text), 200);
    assert_int_equal(get("/readyz", text, sizeof text), 503);
    assert_non_null(strstr(text, "starting"));
    assert_null(strstr(notified(), "READY=1"));
    /* ready */
    p.ready = true;
    WAIT_FOR(strstr(notified(), "READY=1") != NULL);
    assert_int_equal(get("/readyz", text, sizeof text), 200);
    WAIT_FOR(strstr(notified(), "WATCHDOG=1") != NULL);
    /* reload */
    p.notified[0] = 0;
    kill(getpid(), SIGHUP);
    WAIT_FOR(p.reloads == 1);
    WAIT_FOR(strstr(notified(), "READY=1") != NULL);
    assert_non_null(strstr(p.notified, "RELOADING=1\nMONOTONIC_USEC="));
    assert_true(strstr(p.notified, "RELOADING=1") < strstr(p.notified, "READY=1"));
    p.reload_result = -EINVAL;
    kill(getpid(), SIGHUP);
    WAIT_FOR(p.reloads == 2);
    assert_int_equal(get("/metrics", text, sizeof text), 200);
    assert_non_null(strstr(text, "Content-Type: text/plain; version=0.0.4"));
    assert_non_null(strstr(text, "\nsegue_test_config_reloads_total{result=\"ok\"} 1\n"));
    assert_non_null(strstr(text, "\nsegue_test_config_reloads_total{result=\"failed\"} 1\n"));
    assert_non_null(strstr(text, "\nsegue_test_config_last_reload_successful 0\n"));
    assert_int_equal(get("/stats", text, sizeof text), 200);
    assert_non_null(strstr(text, "\"config_reloads_total\""));
    /* mail from another thread */
    for (int i = 0; i < 3; i++) {
        struct mail *mail = calloc(1, sizeof *mail);

        mail->receive = on_mail;
        mailbox_post(control_mailbox(p.control), mail);
    }
    WAIT_FOR(p.mails == 3);
    /* SIGPIPE does nothing */
    kill(getpid(), SIGPIPE);
    /* a worker that hangs: the watchdog is no longer fed */
    p.alive = false;
    usleep(120000);
    notified();
    p.notified[0] = 0;
    usleep(200000);
    assert_null(strstr(notified(), "WATCHDOG=1"));
    p.alive = true;
    /* drain: not ready, but alive and answering */
    kill(getpid(), SIGTERM);
    WAIT_FOR(p.drains == 1);
    drain_ns = clock_mono_ns();
    assert_int_equal(get("/readyz", text, sizeof text), 503);
    assert_non_null(strstr(text, "draining"));
    assert_int_equal(get("/healthz", text, sizeof text), 200);
    assert_non_null(strstr(notified(), "STOPPING=1"));
    kill(getpid(), SIGHUP); /* too late for a reload */
    usleep(50000);
    assert_int_equal(p.reloads, 2);
    p.drained = true;
    pthread_join(p.thread, NULL);
    assert_int_equal(p.result, 0);
    assert_true(clock_mono_ns() - drain_ns < 400 * NS_PER_MS);
    assert_int_equal(p.hurries, 0);
}

static void a_drain_has_an_end(void **state)
{
    uint64_t start_ns;

    (void)state;
    p.ready = true;
    WAIT_FOR(p.ticks > 0);
    start_ns = clock_mono_ns();
    kill(getpid(), SIGINT);
    pthread_join(p.thread, NULL);
    assert_int_equal(p.result, -ETIMEDOUT);
    assert_true(clock_mono_ns() - start_ns >= 400 * NS_PER_MS);
    assert_int_equal(p.drains, 1);
}

static void a_second_signal_hurries(void **state)
{
    uint64_t start_ns;

    (void)state;
    p.ready = true;
    WAIT_FOR(p.ticks > 0);
    start_ns = clock_mono_ns();
    kill(getpid(), SIGTERM);
    WAIT_FOR(p.drains == 1);
    kill(getpid(), SIGTERM);
    WAIT_FOR(p.hurries == 1);
    pthread_join(p.thread, NULL);
    assert_int_equal(p.result, -ETIMEDOUT);
    assert_true(clock_mono_ns() - start_ns < 390 * NS_PER_MS);
    assert_int_equal(p.drains, 1);
    assert_int_equal(p.hurries, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_whole_life, start, finish),
        cmocka_unit_test_setup_teardown(a_drain_has_an_end, start, finish),
        cmocka_unit_test_setup_teardown(a_second_signal_hurries, start, finish),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
