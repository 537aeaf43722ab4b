/* The resolver against a real dnsmasq on loopback. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/resolve.h"
#include "util/check.h"
#include "util/clock.h"
#include "util/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static struct io *io;
static pid_t server;
static uint16_t port;

/* --- the name server --- */

static void start_server(const char *address, const char *ttl)
{
    char host_record[200], ttl_option[40], port_option[40], many[16][60];
    const char *argv[40] = {"dnsmasq",
                            "--keep-in-foreground",
                            "--no-resolv",
                            "--no-hosts",
                            "--conf-file=/dev/null",
                            "--listen-address=127.0.0.1",
                            "--bind-interfaces",
                            "--no-daemon",
                            "--log-facility=-",
                            "--local=/test/",
                            "--pid-file="};
    unsigned n = 11;

    snprintf(port_option, sizeof port_option, "--port=%u", port);
    snprintf(ttl_option, sizeof ttl_option, "--local-ttl=%s", ttl);
    snprintf(host_record, sizeof host_record, "--host-record=one.test,%s", address);
    argv[n++] = port_option;
    argv[n++] = ttl_option;
    argv[n++] = host_record;
    argv[n++] = "--host-record=both.test,192.0.2.2,2001:db8::2";
    argv[n++] = "--server=/broken/127.0.0.1#9"; /* nobody answers there */
    for (unsigned i = 0; i < 16; i++) {
        snprintf(many[i], sizeof many[i], "--host-record=many.test,198.51.100.%u", i + 1);
        argv[n++] = many[i];
    }
    argv[n] = NULL;
    server = fork();
    if (server == 0) {
        if (freopen("/dev/null", "w", stderr) == NULL)
            _exit(126);
        execv("/usr/sbin/dnsmasq", (char *const *)(uintptr_t)argv);
        _exit(127);
    }
}

static void stop_server(void)
{
    if (server > 0) {
        kill(server, SIGKILL);
        waitpid(server, NULL, 0);
    }
    server = 0;
}

/* --- a flow that asks and notes the answer --- */

struct asker {
    struct flow flow;
    struct resolve q;
    bool finished;
    int result;
};

static enum flow_result step_wait(struct flow *f)
{
    struct asker *a = CONTAINER_OF(f, struct asker, flow);

    if (!resolve_take(&a->q, &a->result))
        return FLOW_WAIT;
    a->finished = true;
    return FLOW_DONE;
}

static void asker_done(struct flow *f)
{
    (void)f;
}

static const flow_step steps[] = {step_wait};
static const char *const step_names[] = {"wait"};
static const struct flow_type asker_type = {
    .name = "asker", .steps = steps, .step_names = step_names, .steps_n = 1, .done = asker_done};

static void begin(struct resolver *r, struct asker *a, const char *host)
{
    *a = (struct asker){.finished = false};
    flow_init(&a->flow, &asker_type, 0);
    resolve_start(r, &a->q, &a->flow, str_z(host), 8081);
    io_wake(io, &a->flow);
}

static void run_until(const bool *condition, uint64_t ms)
{
    uint64_t end_ns = clock_mono_ns() + ms * NS_PER_MS;

    while (!*condition && clock_mono_ns() < end_ns)
        assert_int_equal(io_run_once(io, 10 * NS_PER_MS), 0);
    assert_true(*condition);
}

static void run_for(uint64_t ms)
{
    uint64_t end_ns = clock_mono_ns() + ms * NS_PER_MS;

    while (clock_mono_ns() < end_ns)
        assert_int_equal(io_run_once(io, 10 * NS_PER_MS), 0);
}

static int ask(struct resolver *r, struct asker *a, const char *host)
{
    begin(r, a, host);
    run_until(&a->finished, 20000);
    return a->result;
}

static void assert_address(const struct asker *a, int i, const char *want)
{
    char text[ADDRESS_TEXT_MAX];

    assert_true(i < a->result);
    address_format(&a->q.addresses[i], text);
    assert_string_equal(text, want);
}

static struct resolve_stats stats;

static struct resolver *make(void)
{
    static char servers[40];
    const struct resolve_options options = {
        .servers = servers, .timeout_ms = 300, .tries = 2, .failure_s = 1, .stats = &stats};
    struct resolver *r = NULL;

    snprintf(servers, sizeof servers, "127.0.0.1:%u", port);
    stats = (struct resolve_stats){0};
    assert_int_equal(resolver_create(&r, io, &options), 0);
    return r;
}

static enum flow_result step_nothing(struct flow *f)
{
    (void)f;
    return FLOW_WAIT;
}

static void drop(struct resolver **r)
{
    static const flow_step nothing[] = {step_nothing};
    static const struct flow_type type = {
        .name = "stopper", .steps = nothing, .step_names = step_names, .steps_n = 1};
    struct flow stopper;

    flow_init(&stopper, &type, 0);
    for (int i = 0; i < 200 && !resolver_stop(*r, &stopper); i++)
        io_run_once(io, 10 * NS_PER_MS);
    while (stopper.queued)
        io_run_once(io, 0);
    resolver_destroy(r);
    assert_null(*r);
}

static int start(void **state)
{
    const struct io_options options = {.entries = 64, .receive_buffers = 8, .receive_buffer_bytes = 4096};
    const char *error_text = NULL;

    (void)state;
    log_set_level(LOG_LEVEL_ERROR);
    port = (uint16_t)(25000 + getpid() % 5000);
    if (io_create(&io, &options, &error_text) != 0)
        return -1;
    start_server("192.0.2.1", "60");
    usleep(300000);
    return waitpid(server, NULL, WNOHANG) == 0 ? 0 : -1;
}

static int finish(void **state)
{
    (void)state;
    stop_server();
    io_destroy(&io);
    return 0;
}

static void names_become_addresses(void **state)
{
    struct resolver *r = make();
    struct asker a;
    bool v4 = false, v6 = false;

    (void)state;
    assert_int_equal(ask(r, &a, "one.test"), 1);
    assert_address(&a, 0, "192.0.2.1:8081");
    assert_int_equal(ask(r, &a, "both.test"), 2);
    for (int i = 0; i < 2; i++) {
        v4 |= a.q.addresses[i].sa.sa_family == AF_INET;
        v6 |= a.q.addresses[i].sa.sa_family == AF_INET6;
    }
    assert_true(v4 && v6);
    assert_int_equal(ask(r, &a, "many.test"), RESOLVE_ADDRESSES_MAX);
    assert_int_equal(stats.queries, 3);
    assert_int_equal(stats.names, 3);
    assert_int_equal(stats.failures + stats.missing + stats.stale, 0);
    drop(&r);
}

static void literals_need_nobody(void **state)
{
    struct resolver *r = make();
    struct asker a;

    (void)state;
    begin(r, &a, "192.0.2.77");
    assert_true(a.q.done); /* at once */
    run_until(&a.finished, 1000);
    assert_address(&a, 0, "192.0.2.77:8081");
    assert_int_equal(ask(r, &a, "2001:db8::7"), 1);
    assert_address(&a, 0, "[2001:db8::7]:8081");
    assert_int_equal(ask(r, &a, "::ffff:192.0.2.5"), 1);
    assert_address(&a, 0, "192.0.2.5:8081");
    assert_int_equal(stats.queries, 0);
    drop(&r);
}

static void the_hosts_file_comes_first(void **state)
{
    struct resolver *r = make();
    struct asker a;
    char text[ADDRESS_TEXT_MAX];

    (void)state;
    assert_true(ask(r, &a, "localhost") >= 1);
    for (int i = 0; i < a.result; i++) {
        (void)address_format_ip(&a.q.addresses[i], text);
        assert_true(strcmp(text, "::1") == 0 || strncmp(text, "127.", 4) == 0);
    }
    begin(r, &a, "LocalHost"); /* kept, and without case */
    assert_true(a.q.done);
    run_until(&a.finished, 1000);
    assert_int_equal(stats.queries, 1);
    drop(&r);
}

static void answers_are_kept_and_shared(void **state)
{
    struct resolver *r = make();
    struct asker a[50];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(a); i++)
        begin(r, &a[i], i % 2 ? "one.test" : "ONE.test");
    for (size_t i = 0; i < ARRAY_LEN(a); i++) {
        run_until(&a[i].finished, 5000);
        assert_address(&a[i], 0, "192.0.2.1:8081");
    }
    assert_int_equal(stats.queries, 1); /* one question for all who wait */
    begin(r, &a[0], "one.test");
    assert_true(a[0].q.done);
    run_until(&a[0].finished, 1000);
    assert_int_equal(stats.queries, 1);
    drop(&r);
}

static void what_is_no_name_is_refused(void **state)
{
    static const char *const bad[] = {"", ".", "a b", "a\tb", "\xc3\xa9.test", ".test"};
    struct resolver *r = make();
    char long_name[300];
    struct asker a;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(ask(r, &a, bad[i]), -EINVAL);
    memset(long_name, 'a', sizeof long_name);
    long_name[254] = 0;
    assert_int_equal(ask(r, &a, long_name), -EINVAL);
    assert_int_equal(stats.queries, 0);
    long_name[100] = 0; /* a label of more than 63 bytes */
    assert_true(ask(r, &a, long_name) < 0);
    drop(&r);
}

static void a_name_that_does_not_exist_is_an_answer(void **state)
{
    struct resolver *r = make();
    struct asker a;

    (void)state;
    assert_int_equal(ask(r, &a, "missing.test"), -ENOENT);
    assert_int_equal(stats.missing, 1);
    assert_int_equal(ask(r, &a, "missing.test"), -ENOENT); /* not asked again at once */
    assert_int_equal(stats.queries, 1);
    run_for(1100);
    assert_int_equal(ask(r, &a, "missing.test"), -ENOENT);
    assert_int_equal(stats.queries, 2);
    drop(&r);
}

/* A server that is silent: an error after its tries, not asked again for a moment; the flow never hangs. */
static void silence_ends_in_a_timeout(void **state)
{
    struct resolver *r = make();
    struct asker a;
    uint64_t start_ns;

    (void)state;
    kill(server, SIGSTOP);
    start_ns = clock_mono_ns();
    assert_int_equal(ask(r, &a, "one.test"), -ETIMEDOUT);
    assert_true(clock_mono_ns() - start_ns >= 500 * NS_PER_MS);
    assert_true(clock_mono_ns() - start_ns < 5 * NS_PER_S);
    begin(r, &a, "one.test");
    assert_true(a.q.done);
    run_until(&a.finished, 1000);
    assert_int_equal(a.result, -ETIMEDOUT);
    assert_int_equal(stats.queries, 1);
    assert_int_equal(stats.failures, 1);
    kill(server, SIGCONT);
    run_for(1100);
    assert_int_equal(ask(r, &a, "one.test"), 1);
    drop(&r);
}

/* The last good answer goes on while DNS is away, and gives way when it is back. */
static void stale_answers_bridge_a_failure(void **state)
{
    struct resolver *r = make();
    struct asker a;
    uint64_t stale;

    (void)state;
    stop_server();
    start_server("192.0.2.1", "0"); /* clamped to a second */
    usleep(300000);
    assert_int_equal(ask(r, &a, "one.test"), 1);
    begin(r, &a, "one.test");
    assert_true(a.q.done); /* TTL 0 is kept for a second all the same */
    run_until(&a.finished, 1000);
    assert_int_equal(stats.queries, 1);
    stop_server();
    run_for(1200);
    begin(r, &a, "one.test"); /* at once, while it is asked anew */
    assert_true(a.q.done);
    run_until(&a.finished, 1000);
    assert_address(&a, 0, "192.0.2.1:8081");
    assert_int_equal(stats.queries, 2);
    run_for(900); /* that question fails */
    assert_int_equal(stats.failures, 1);
    stale = stats.stale;
    assert_int_equal(ask(r, &a, "one.test"), 1);
    assert_address(&a, 0, "192.0.2.1:8081");
    assert_true(stats.stale > stale || stats.queries > 2);
    start_server("192.0.2.99", "0");
    run_for(2500);
    assert_int_equal(ask(r, &a, "one.test"), 1); /* begins to ask again */
    run_for(500);
    assert_int_equal(ask(r, &a, "one.test"), 1);
    assert_address(&a, 0, "192.0.2.99:8081");
    drop(&r);
    stop_server();
    start_server("192.0.2.1", "60");
    usleep(300000);
}

static void a_question_can_be_cancelled(void **state)
{
    struct resolver *r = make();
    struct asker a, b;

    (void)state;
    begin(r, &a, "one.test");
    begin(r, &b, "one.test");
    resolve_cancel(&a.q);
    resolve_cancel(&a.q);
    run_until(&b.finished, 5000);
    assert_address(&b, 0, "192.0.2.1:8081");
    assert_false(a.finished);
    while (a.flow.queued)
        io_run_once(io, 0);
    drop(&r);
}

static void stopping_ends_what_is_asked(void **state)
{
    struct resolver *r = make();
    struct asker a, b;

    (void)state;
    kill(server, SIGSTOP);
    begin(r, &a, "one.test");
    begin(r, &b, "both.test");
    run_for(50);
    drop(&r);
    run_until(&a.finished, 1000);
    run_until(&b.finished, 1000);
    assert_int_equal(a.result, -ECANCELED);
    assert_int_equal(b.result, -ECANCELED);
    kill(server, SIGCONT);
}

static void a_reload_asks_again(void **state)
{
    struct resolver *r = make();
    struct asker a;

    (void)state;
    kill(server, SIGSTOP);
    begin(r, &a, "one.test");
    run_for(50);
    kill(server, SIGCONT);
    assert_int_equal(resolver_reload(r), 0);
    run_until(&a.finished, 5000);
    assert_int_equal(a.result, 1);
    drop(&r);
}

static void names_have_a_maximum(void **state)
{
    struct resolver *r = make();
    struct asker a;
    char name[40];

    (void)state;
    for (unsigned i = 0; i < RESOLVE_NAMES_MAX + 50; i++) {
        snprintf(name, sizeof name, "n%u.test", i);
        assert_int_equal(ask(r, &a, name), -ENOENT);
        assert_true(stats.names <= RESOLVE_NAMES_MAX);
    }
    assert_int_equal(stats.names, RESOLVE_NAMES_MAX);
    drop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_become_addresses),
        cmocka_unit_test(literals_need_nobody),
        cmocka_unit_test(the_hosts_file_comes_first),
        cmocka_unit_test(answers_are_kept_and_shared),
        cmocka_unit_test(what_is_no_name_is_refused),
        cmocka_unit_test(a_name_that_does_not_exist_is_an_answer),
        cmocka_unit_test(silence_ends_in_a_timeout),
        cmocka_unit_test(stale_answers_bridge_a_failure),
        cmocka_unit_test(a_question_can_be_cancelled),
        cmocka_unit_test(stopping_ends_what_is_asked),
        cmocka_unit_test(a_reload_asks_again),
        cmocka_unit_test(names_have_a_maximum),
    };

    return cmocka_run_group_tests(tests, start, finish);
}
