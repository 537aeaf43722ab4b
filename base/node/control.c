#include "node/control.h"

#include "util/check.h"
#include "util/clock.h"
#include "util/log.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define TICK_MS_DEFAULT  1000
#define DRAIN_MS_DEFAULT 30000
#define HURRY_MS_DEFAULT 1000
#define READY_POLL_MS    20 /* while starting or draining, how often the program is asked */

#define CONTROL_MAGIC 0x4354524cu

struct control {
    uint32_t magic;
    struct control_options options;
    enum control_state state;
    bool hurried;
    int signal_fd;
    struct mailbox mailbox;
    uint64_t next_tick_ns, drain_deadline_ns;
    uint64_t watchdog_every_ns, next_watchdog_ns; /* 0: systemd does not watch */
    uint64_t reloads, reloads_failed, reload_last_ok, reload_last_unix_s;
};

static void fill_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
}

void control_block_signals(void)
{
    sigset_t set;

    fill_signals(&set);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    signal(SIGPIPE, SIG_IGN);
}

/* --- what the admin server answers by itself --- */

static const char *state_name(enum control_state state)
{
    static const char *const names[] = {"starting", "ready", "draining"};

    return names[state];
}

static void handle_healthz(const struct admin_request *request, struct admin_reply *reply, void *context)
{
    (void)request;
    (void)context;
    grow_add_lit(&reply->body, "{\"status\":\"ok\"}\n");
}

static void handle_readyz(const struct admin_request *request, struct admin_reply *reply, void *context)
{
    const struct control *c = context;

    (void)request;
    if (c->state != CONTROL_READY)
        admin_problem(reply, 503, "This node is %s.", state_name(c->state));
    else
        grow_add_lit(&reply->body, "{\"status\":\"ready\"}\n");
}

static void handle_metrics(const struct admin_request *request, struct admin_reply *reply, void *context)
{
    const struct control *c = context;

    (void)request;
    reply->content_type = "text/plain; version=0.0.4; charset=utf-8";
    metrics_render_prometheus(c->options.metrics, &reply->body);
}

static void handle_stats(const struct admin_request *request, struct admin_reply *reply, void *context)
{
    const struct control *c = context;

    (void)request;
    metrics_render_json(c->options.metrics, &reply->body);
}

static void control_metrics(struct metrics_writer *w, void *context)
{
    const struct control *c = context;

    metrics_family(w, "ready", METRIC_GAUGE, "1 while the node takes traffic.");
    metrics_u64(w, NULL, c->state == CONTROL_READY);
    metrics_family(w, "draining", METRIC_GAUGE,
                   "1 while the node finishes what it has and takes nothing new.");
    metrics_u64(w, NULL, c->state == CONTROL_DRAINING);
    metrics_family(w, "config_reloads_total", METRIC_COUNTER, "Configuration reloads.");
    metrics_u64(w, "result=\"ok\"", c->reloads);
    metrics_u64(w, "result=\"failed\"", c->reloads_failed);
    metrics_family(w, "config_last_reload_successful", METRIC_GAUGE,
                   "1 when the last load of the configuration succeeded.");
    metrics_u64(w, NULL, c->reload_last_ok);
    metrics_family(w, "config_last_reload_success_timestamp_seconds", METRIC_GAUGE,
                   "When the configuration in use was loaded, Unix time.");
    metrics_u64(w, NULL, c->reload_last_unix_s);
}

/* --- making --- */

static void take_defaults(struct control_options *o)
{
    if (o->tick_ms == 0)
        o->tick_ms = TICK_MS_DEFAULT;
    if (o->drain_ms == 0)
        o->drain_ms = DRAIN_MS_DEFAULT;
    if (o->hurry_ms == 0)
        o->hurry_ms = HURRY_MS_DEFAULT;
}

static void add_routes(struct control *c)
{
    struct admin *a = c->options.admin;

    if (c->options.metrics != NULL)
        metrics_add_source(c->options.metrics, control_metrics, c);
    if (a == NULL)
        return;
    admin_route(a, "GET", "/healthz", ADMIN_OPEN, handle_healthz, c);
    admin_route(a, "GET", "/readyz", ADMIN_OPEN, handle_readyz, c);
    if (c->options.metrics != NULL) {
        admin_route(a, "GET", "/metrics", ADMIN_OPEN, handle_metrics, c);
        admin_route(a, "GET", "/stats", ADMIN_OPEN, handle_stats, c);
    }
}

int control_create(struct control **out, const struct control_options *options)
{
    struct control *c = calloc(1, sizeof *c);
    uint64_t watchdog_us = 0;
    sigset_t set;
    int error;

    if (c == NULL)
        return -ENOMEM;
    c->magic = CONTROL_MAGIC;
    c->options = *options;
    take_defaults(&c->options);
    c->reload_last_ok = 1; /* the program has its configuration by now */
    c->reload_last_unix_s = clock_unix_s();
    fill_signals(&set);
    c->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (c->signal_fd < 0) {
        error = -errno;
        free(c);
        return error;
    }
    error = mailbox_open(&c->mailbox);
    if (error != 0) {
        close(c->signal_fd);
        free(c);
        return error;
    }
    if (sd_watchdog_enabled(0, &watchdog_us) > 0)
        c->watchdog_every_ns = watchdog_us * NS_PER_US / 2; /* as sd_watchdog_enabled(3) recommends */
    add_routes(c);
    *out = c;
    return 0;
}

void control_destroy(struct control **c)
{
    struct control *gone = TAKE(c);

    CHECK_MAGIC(gone, CONTROL_MAGIC);
    mailbox_close(&gone->mailbox);
    close(gone->signal_fd);
    gone->magic = 0;
    free(gone);
}

struct mailbox *control_mailbox(struct control *c)
{
    CHECK_MAGIC(c, CONTROL_MAGIC);
    return &c->mailbox;
}

enum control_state control_state(const struct control *c)
{
    CHECK_MAGIC(c, CONTROL_MAGIC);
    return c->state;
}

/* --- signals --- */

static void reload(struct control *c)
{
    const struct control_hooks *hooks = &c->options.hooks;
    int error;

    if (hooks->reload == NULL || c->state == CONTROL_DRAINING)
        return;
    sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)(clock_mono_ns() / NS_PER_US));
    error = hooks->reload(c->options.context);
    c->reload_last_ok = error == 0;
    if (error == 0) {
        c->reloads++;
        c->reload_last_unix_s = clock_unix_s();
    } else {
        c->reloads_failed++;
    }
    /* READY ends a reload for systemd, so one that has not begun serving is not told yet. */
    if (c->state == CONTROL_READY)
        sd_notify(0, "READY=1");
}

void control_drain(struct control *c)
{
    uint64_t now_ns = clock_mono_ns(), hurry_until_ns = now_ns + c->options.hurry_ms * NS_PER_MS;
    bool hurry = c->state == CONTROL_DRAINING;

    CHECK_MAGIC(c, CONTROL_MAGIC);
    if (hurry && c->hurried)
        return;
    if (!hurry) {
        c->state = CONTROL_DRAINING;
        c->drain_deadline_ns = now_ns + c->options.drain_ms * NS_PER_MS;
        log_info("draining, for at most %llu ms", (unsigned long long)c->options.drain_ms);
        sd_notify(0, "STOPPING=1\nSTATUS=draining");
    } else {
        c->hurried = true;
        if (hurry_until_ns < c->drain_deadline_ns)
            c->drain_deadline_ns = hurry_until_ns;
        log_info("asked again to end: ending now");
    }
    if (c->options.hooks.drain != NULL)
        c->options.hooks.drain(c->options.context, hurry);
}

static void take_signals(struct control *c)
{
    struct signalfd_siginfo info;

    while (read(c->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP)
            reload(c);
        else
            control_drain(c);
    }
}

/* --- the loop --- */

static bool ask(bool (*hook)(void *context), void *context)
{
    return hook == NULL || hook(context);
}

static void run_tick(struct control *c, uint64_t now_ns)
{
    if (c->state == CONTROL_STARTING && ask(c->options.hooks.ready, c->options.context)) {
        c->state = CONTROL_READY;
        log_info("ready");
        sd_notify(0, "READY=1\nSTATUS=serving");
    }
    if (now_ns >= c->next_tick_ns) {
        c->next_tick_ns = now_ns + c->options.tick_ms * NS_PER_MS;
        if (c->options.hooks.tick != NULL)
            c->options.hooks.tick(c->options.context, now_ns);
    }
    if (c->watchdog_every_ns > 0 && now_ns >= c->next_watchdog_ns) {
        c->next_watchdog_ns = now_ns + c->watchdog_every_ns;
        if (ask(c->options.hooks.alive, c->options.context))
            sd_notify(0, "WATCHDOG=1");
    }
}

static int ms_until(uint64_t at_ns, uint64_t now_ns)
{
    return at_ns <= now_ns ? 0 : (int)((at_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS);
}

static int wait_ms(const struct control *c, uint64_t now_ns)
{
    int wait = ms_until(c->next_tick_ns, now_ns);

    if (c->watchdog_every_ns > 0 && ms_until(c->next_watchdog_ns, now_ns) < wait)
        wait = ms_until(c->next_watchdog_ns, now_ns);
    if (c->state != CONTROL_READY && wait > READY_POLL_MS)
        wait = READY_POLL_MS;
    return wait;
}

int control_run(struct control *c)
{
    struct pollfd fds[2 + ADMIN_POLL_MAX];

    CHECK_MAGIC(c, CONTROL_MAGIC);
    for (;;) {
        unsigned admin_n = 0;
        uint64_t now_ns = clock_mono_ns();
        int wait, n;

        run_tick(c, now_ns);
        if (c->state == CONTROL_DRAINING) {
            if (ask(c->options.hooks.drained, c->options.context))
                return 0;
            if (now_ns >= c->drain_deadline_ns) {
                log_warn("not drained in time: what is left is cut off");
                return -ETIMEDOUT;
            }
        }
        wait = wait_ms(c, now_ns);
        fds[0] = (struct pollfd){.fd = c->signal_fd, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = c->mailbox.event_fd, .events = POLLIN};
        if (c->options.admin != NULL)
            admin_n = admin_poll_fill(c->options.admin, fds + 2, &wait);
        n = poll(fds, 2 + admin_n, wait);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n <= 0) /* nothing is ready, and what fds hold of it is not to be believed */
            for (unsigned i = 0; i < 2 + admin_n; i++)
                fds[i].revents = 0;
        if (fds[0].revents != 0)
            take_signals(c);
        if (fds[1].revents != 0)
            mailbox_deliver(&c->mailbox, c->options.context);
        if (c->options.admin != NULL)
            admin_poll_run(c->options.admin, fds + 2, admin_n);
    }
}
