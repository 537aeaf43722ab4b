#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/admin.h"
#include "util/check.h"
#include "util/clock.h"
#include "util/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define TOKEN "0123456789abcdefTOKEN"

static char socket_path[64];
static struct admin *admin;
static struct address address;
static pthread_t thread;
static _Atomic bool stop;
static struct admin_reply *_Atomic owed;
static _Atomic bool send_owed;
static _Atomic unsigned echoes;

/* --- the server side: handlers and a loop in a thread --- */

static void handle_echo(const struct admin_request *r, struct admin_reply *reply, void *context)
{
    assert_string_equal(context, "context");
    echoes++;
    reply->content_type = "text/plain";
    grow_printf(&reply->body, "%.*s %.*s?%.*s %s %.*s ", STR_ARG(r->method), STR_ARG(r->path),
                STR_ARG(r->query), r->local ? "local" : "tcp", STR_ARG(r->content_type));
    grow_add_str(&reply->body, r->body);
}

static void handle_query(const struct admin_request *r, struct admin_reply *reply, void *context)
{
    char text[20];
    struct buf b = buf_of(text, sizeof text);
    int result = admin_query(r, STR("url"), &b);

    (void)context;
    grow_printf(&reply->body, "%d %.*s", result, result == 0 ? (int)b.n : 0, text);
}

static char large[200000 * 8]; /* "0000000\n" to "0199999\n" */

static void handle_large(const struct admin_request *r, struct admin_reply *reply, void *context)
{
    (void)r;
    (void)context;
    grow_add(&reply->body, large, sizeof large);
}

static void handle_too_large(const struct admin_request *r, struct admin_reply *reply, void *context)
{
    (void)r;
    (void)context;
    (void)grow_reserve(&reply->body, ADMIN_REPLY_BYTES_MAX + 1);
}

static void handle_later(const struct admin_request *r, struct admin_reply *reply, void *context)
{
    (void)r;
    (void)context;
    reply->later = true;
    owed = reply;
}

static void *serve(void *unused)
{
    while (!stop) {
        struct pollfd fds[ADMIN_POLL_MAX];
        int wait_ms = 5;
        unsigned n = admin_poll_fill(admin, fds, &wait_ms);

        poll(fds, n, wait_ms);
        if (send_owed) {
            struct admin_reply *reply = owed;

            owed = NULL;
            send_owed = false;
            grow_add_lit(&reply->body, "at last");
            admin_reply_send(&reply);
        }
        admin_poll_run(admin, fds, n);
    }
    return unused;
}

static struct admin_options make_options(void)
{
    static const struct str hosts[] = {STR_INIT("admin.example.net")};

    return (struct admin_options){.program = "segue-test",
                                  .socket_path = socket_path,
                                  .address = &address,
                                  .token = STR(TOKEN),
                                  .hosts = hosts,
                                  .hosts_n = 1,
                                  .timeout_ms = 1000};
}

static int start(void **state)
{
    static const char context[] = "context";
    struct admin_options options;
    const char *error_text;

    (void)state;
    log_set_level(LOG_LEVEL_WARN);
    for (int i = 0; i < 200000; i++) {
        char line[16];

        snprintf(line, sizeof line, "%07d\n", i);
        memcpy(large + (size_t)i * 8, line, 8);
    }
    snprintf(socket_path, sizeof socket_path, "/tmp/test_admin.%d.sock", (int)getpid());
    for (uint16_t port = 20000 + (uint16_t)(getpid() % 10000); admin == NULL; port++) {
        assert_int_equal(address_parse(STR("127.0.0.1:1"), 0, &address), 0);
        address_set_port(&address, port);
        options = make_options();
        if (admin_open(&admin, &options, &error_text) == -EADDRINUSE && port < 40000)
            continue;
        assert_null(error_text);
    }
    admin_route(admin, "GET", "/metrics", ADMIN_OPEN, handle_echo, (void *)(uintptr_t)context);
    admin_route(admin, "POST", "/echo", 0, handle_echo, (void *)(uintptr_t)context);
    admin_route(admin, "GET", "/query", 0, handle_query, NULL);
    admin_route(admin, "GET", "/large", 0, handle_large, NULL);
    admin_route(admin, "GET", "/too-large", 0, handle_too_large, NULL);
    admin_route(admin, "GET", "/later", 0, handle_later, NULL);
    stop = false;
    return pthread_create(&thread, NULL, serve, NULL);
}

static int finish(void **state)
{
    (void)state;
    stop = true;
    pthread_join(thread, NULL);
    admin_close(&admin);
    return access(socket_path, F_OK) == 0; /* its file is gone */
}

/* --- the client side --- */

static int dial(bool local)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fd = socket(local ? AF_UNIX : AF_INET, SOCK_STREAM, 0);

    snprintf(sun.sun_path, sizeof sun.sun_path, "%s", socket_path);
    if (connect(fd, local ? (struct sockaddr *)&sun : &address.sa,
                local ? sizeof sun : address_bytes(&address)) != 0)
        fail_msg("connect: %s", strerror(errno));
    return fd;
}

static void send_text(int fd, const char *text, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(fd, text, n, MSG_NOSIGNAL);

        if (sent < 0)
            return; /* the server may have answered and closed already */
        text += sent;
        n -= (size_t)sent;
    }
}

/* All until the end, terminated. */
static struct grow receive_all(int fd)
{
    struct grow g = grow_of(64u << 20);
    ssize_t n;

    do {
        char *to = grow_reserve(&g, 65536);

        n = recv(fd, to, 65536, 0);
        g.n += n > 0 ? (size_t)n : 0;
    } while (n > 0);
    grow_add_char(&g, 0);
    g.n--;
    return g;
}

static struct grow ask(bool local, const char *request)
{
    int fd = dial(local);
    struct grow g;

    send_text(fd, request, strlen(request));
    shutdown(fd, SHUT_WR);
    g = receive_all(fd);
    close(fd);
    return g;
}

static void assert_answer(bool local, const char *request, const char *begins, const char *contains)
{
    struct grow g = ask(local, request);

    if (strncmp(g.p, begins, strlen(begins)) != 0 || strstr(g.p, contains) == NULL)
        fail_msg("%s\ngave\n%s\nnot\n%s ... %s", request, g.p, begins, contains);
    assert_null(strstr(g.p, TOKEN));
    grow_free(&g);
}

#define HOST "Host: 127.0.0.1:9180\r\n"
#define AUTH "Authorization: Bearer " TOKEN "\r\n"

static void the_socket_may_everything(void **state)
{
    struct stat st;

    (void)state;
    assert_int_equal(stat(socket_path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0660);
    assert_answer(true, "GET /metrics?a=b HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\n",
                  "\r\n\r\nGET /metrics?a=b local  ");
    assert_answer(true,
                  "POST /echo HTTP/1.1\r\nHost: whatever.example\r\nContent-Length: 5\r\n"
                  "Content-Type: text/x\r\n\r\nhello",
                  "HTTP/1.1 200 OK\r\n", "\r\n\r\nPOST /echo? local text/x hello");
    assert_answer(true,
                  "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                  "3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
                  "HTTP/1.1 200 OK\r\n", "local  hello");
    assert_answer(true, "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\n",
                  "Content-Length: 22\r\n");
}

static void tcp_needs_the_token_for_all_but_the_open(void **state)
{
    (void)state;
    assert_answer(false, "GET /metrics HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 200 ", "tcp");
    assert_answer(false, "GET /query HTTP/1.1\r\n" HOST AUTH "\r\n", "HTTP/1.1 200 ", "-2 ");
    assert_answer(false, "GET /query HTTP/1.1\r\n" HOST "authorization: bEARER " TOKEN "\r\n\r\n",
                  "HTTP/1.1 200 ", "");
    static const char *const bad[] = {
        "",
        "Authorization: Bearer\r\n",
        "Authorization: Bearer \r\n",
        "Authorization: Bearer 0123456789abcdefTOKE\r\n",
        "Authorization: Bearer 0123456789abcdefTOKEn\r\n",
        "Authorization: Bearer 0123456789abcdefTOKENN\r\n",
        "Authorization: Basic 0123456789abcdef\r\n",
        "Authorization: 0123456789abcdef\r\n",
        "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char request[300];

        snprintf(request, sizeof request, "GET /query HTTP/1.1\r\n" HOST "%s\r\n", bad[i]);
        assert_answer(false, request, "HTTP/1.1 401 ", "WWW-Authenticate: Bearer\r\n");
        /* what there is, is no stranger's business */
        snprintf(request, sizeof request, "GET /nothing HTTP/1.1\r\n" HOST "%s\r\n", bad[i]);
        assert_answer(false, request, "HTTP/1.1 401 ", "");
        snprintf(request, sizeof request, "DELETE /metrics HTTP/1.1\r\n" HOST "%s\r\n", bad[i]);
        assert_answer(false, request, "HTTP/1.1 401 ", "");
    }
}

static void a_foreign_host_is_misdirected(void **state)
{
    static const char *const good[] = {"127.0.0.1",   "10.1.2.3:99",       "[::1]:9180",          "localhost",
                                       "LOCALHOST:1", "admin.example.net", "Admin.Example.net:80"};
    static const char *const bad[] = {"evil.example", "localhost.evil.example", "127.0.0.1.evil.example",
                                      "xadmin.example.net", "127.0.0.1x"};
    char request[300];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        snprintf(request, sizeof request, "GET /metrics HTTP/1.1\r\nHost: %s\r\n\r\n", good[i]);
        assert_answer(false, request, "HTTP/1.1 200 ", "");
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        snprintf(request, sizeof request, "GET /metrics HTTP/1.1\r\nHost: %s\r\n" AUTH "\r\n", bad[i]);
        assert_answer(false, request, "HTTP/1.1 421 ", "application/problem+json");
    }
    assert_answer(false, "GET /metrics HTTP/1.0\r\n\r\n", "HTTP/1.1 421 ", "");
}

static void errors_are_problems(void **state)
{
    (void)state;
    assert_answer(true, "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 Not Found\r\n",
                  "{\"type\":\"about:blank\",\"title\":\"Not Found\",\"status\":404,\"detail\":\"");
    assert_answer(true, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 405 ",
                  "\r\nAllow: GET, HEAD\r\n");
    assert_answer(true, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 405 ", "\r\nAllow: POST\r\n");
    assert_answer(true, "nonsense\r\n\r\n", "HTTP/1.1 400 ", "Connection: close");
    assert_answer(true, "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ", "");
    assert_answer(true,
                  "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                  "HTTP/1.1 400 ", "");
    assert_answer(true, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                  "HTTP/1.1 400 ", "");
    assert_answer(true, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n", "HTTP/1.1 413 ",
                  "");
    assert_answer(true, "GET /too-large HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 500 ", "");
}

static void a_refused_body_does_not_lose_the_answer(void **state)
{
    static char body[3 << 20];
    int fd = dial(false);
    const char head[] = "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 3145728\r\n\r\n";
    unsigned before = echoes;
    struct grow g;

    (void)state;
    send_text(fd, head, sizeof head - 1);
    send_text(fd, body, sizeof body);
    g = receive_all(fd);
    assert_int_equal(strncmp(g.p, "HTTP/1.1 401 ", 13), 0);
    assert_int_equal(echoes, before);
    grow_free(&g);
    close(fd);
}

static void bodies_up_to_a_mebibyte(void **state)
{
    static char request[ADMIN_BODY_BYTES_MAX + 200];
    int n = snprintf(request, sizeof request, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %u\r\n\r\n",
                     ADMIN_BODY_BYTES_MAX);
    struct grow g;

    (void)state;
    memset(request + n, 'b', ADMIN_BODY_BYTES_MAX);
    g = ask(true, request);
    assert_int_equal(strncmp(g.p, "HTTP/1.1 200 ", 13), 0);
    assert_true(g.n > ADMIN_BODY_BYTES_MAX);
    grow_free(&g);
    /* the same in one chunk more than that */
    n = snprintf(request, sizeof request,
                 "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n100001\r\n");
    memset(request + n, 'b', ADMIN_BODY_BYTES_MAX + 1);
    request[(size_t)n + ADMIN_BODY_BYTES_MAX + 1] = 0;
    g = ask(true, request);
    assert_int_equal(strncmp(g.p, "HTTP/1.1 413 ", 13), 0);
    grow_free(&g);
}

static void many_requests_on_one_connection(void **state)
{
    static char requests[100 * 64];
    int fd = dial(true);
    struct grow g;
    unsigned answers = 0;
    size_t n = 0;

    (void)state;
    for (int i = 0; i < 99; i++)
        n += (size_t)snprintf(requests + n, sizeof requests - n, "%s",
                              i % 2 ? "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
                                    : "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nb");
    n += (size_t)snprintf(requests + n, sizeof requests - n,
                          "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_true(n < sizeof requests);
    send_text(fd, requests, n);
    g = receive_all(fd);
    for (const char *at = g.p; (at = strstr(at, "HTTP/1.1 200 OK\r\n")) != NULL; at++)
        answers++;
    assert_int_equal(answers, 100);
    grow_free(&g);
    close(fd);
}

static void a_head_may_come_byte_by_byte(void **state)
{
    const char request[] =
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    int fd = dial(true);
    struct grow g;

    (void)state;
    for (size_t i = 0; i < sizeof request - 1; i++) {
        send_text(fd, request + i, 1);
        usleep(500);
    }
    g = receive_all(fd);
    assert_non_null(strstr(g.p, "local  hi"));
    grow_free(&g);
    close(fd);
}

static void expect_is_answered(void **state)
{
    const char head[] = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    char text[200] = {0};
    int fd = dial(true);
    struct grow g;

    (void)state;
    send_text(fd, head, sizeof head - 1);
    assert_int_equal(recv(fd, text, 25, MSG_WAITALL), 25);
    assert_string_equal(text, "HTTP/1.1 100 Continue\r\n\r\n");
    send_text(fd, "hi", 2);
    shutdown(fd, SHUT_WR);
    g = receive_all(fd);
    assert_int_equal(strncmp(g.p, "HTTP/1.1 200 ", 13), 0);
    grow_free(&g);
    close(fd);
}

static void large_answers_to_slow_readers(void **state)
{
    const char request[] = "GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    int fd = dial(true);
    struct grow g;

    (void)state;
    send_text(fd, request, sizeof request - 1);
    usleep(50000);
    g = receive_all(fd);
    assert_non_null(strstr(g.p, "Content-Length: 1600000\r\n"));
    assert_string_equal(g.p + g.n - 8, "0199999\n");
    grow_free(&g);
    close(fd);
}

static void a_reply_may_come_later(void **state)
{
    const char request[] = "GET /later HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    int fd = dial(true);
    struct grow g;

    (void)state;
    send_text(fd, request, sizeof request - 1);
    while (owed == NULL)
        usleep(1000);
    assert_answer(true, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 ", ""); /* others go on */
    usleep(1100000); /* longer than any timeout */
    send_owed = true;
    g = receive_all(fd);
    assert_string_equal(g.p + g.n - 7, "at last");
    grow_free(&g);
    close(fd);
    /* and the same when the client has gone */
    fd = dial(true);
    send_text(fd, request, sizeof request - 1);
    while (owed == NULL)
        usleep(1000);
    close(fd);
    usleep(50000);
    send_owed = true;
    while (send_owed)
        usleep(1000);
}

/* Clients that say nothing, half a head, half a body, or read nothing: they end, and others are served. */
static void stuck_clients_block_nobody(void **state)
{
    static const char *const says[] = {"", "GET /metr", "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n",
                                       "POST /echo HTTP/1.1\r\n" HOST AUTH "Content-Length: 10\r\n\r\nhi",
                                       "GET /large HTTP/1.1\r\n" HOST AUTH "\r\n"};
    int fds[ADMIN_CONNECTIONS_MAX - 4]; /* more than TCP has places for, and no more than its backlog holds */
    uint64_t start_ns = clock_mono_ns();

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = dial(false);
        send_text(fds[i], says[i % ARRAY_LEN(says)], strlen(says[i % ARRAY_LEN(says)]));
    }
    /* The socket has places of its own, at once. */
    assert_answer(true, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 ", "");
    assert_true(clock_mono_ns() - start_ns < 900 * NS_PER_MS);
    /* TCP has them again when the stuck have been cut off. */
    assert_answer(false, "GET /metrics HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 200 ", "");
    assert_true(clock_mono_ns() - start_ns < 5 * NS_PER_S);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        close(fds[i]);
}

static void queries_are_decoded(void **state)
{
    (void)state;
    assert_answer(true, "GET /query?x=1&url=%2Fa%20b+c HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 ",
                  "\r\n\r\n0 /a b+c");
    assert_answer(true, "GET /query?url=%2 HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 ", "-22 ");
    assert_answer(true, "GET /query?url=a%00b HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 ", "-22 ");
    assert_answer(true, "GET /query?url=012345678901234567890 HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 ",
                  "-22 ");
    assert_answer(true, "GET /query?uri=1 HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 ", "-2 ");
}

/* --- the socket file --- */

static int try_open(const char *path, struct admin **out)
{
    const struct admin_options options = {.program = "segue-test", .socket_path = path};
    const char *error_text;

    return admin_open(out, &options, &error_text);
}

static void socket_files(void **state)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    struct admin *a = NULL, *b = NULL;
    char path[108], long_path[200];
    int fd;

    (void)state;
    /* somebody listens: it stays theirs */
    assert_int_equal(try_open(socket_path, &a), -EADDRINUSE);
    assert_int_equal(access(socket_path, F_OK), 0);
    assert_answer(true, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 ", "");
    /* left behind by one that died: taken over */
    snprintf(path, sizeof path, "%s.2", socket_path);
    snprintf(sun.sun_path, sizeof sun.sun_path, "%s", path);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof sun), 0);
    close(fd);
    assert_int_equal(try_open(path, &a), 0);
    /* replaced by another process meanwhile: its file is not removed */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(try_open(path, &b), 0);
    admin_close(&a);
    assert_int_equal(access(path, F_OK), 0);
    admin_close(&b);
    assert_int_equal(access(path, F_OK), -1);
    /* a file that is no socket is not ours to remove */
    fclose(fopen(path, "w"));
    assert_int_equal(try_open(path, &a), -EEXIST);
    assert_int_equal(unlink(path), 0);
    memset(long_path, 'a', sizeof long_path - 1);
    long_path[0] = '/';
    long_path[sizeof long_path - 1] = 0;
    assert_int_equal(try_open(long_path, &a), -ENAMETOOLONG);
    assert_null(a);
}

static void a_reload_changes_the_token(void **state)
{
    struct admin_options options = make_options();

    (void)state;
    stop = true;
    pthread_join(thread, NULL);
    options.token = STR("another-token-00");
    options.hosts_n = 0;
    assert_int_equal(admin_reconfigure(admin, &options), 0);
    stop = false;
    assert_int_equal(pthread_create(&thread, NULL, serve, NULL), 0);
    assert_answer(false, "GET /query HTTP/1.1\r\n" HOST AUTH "\r\n", "HTTP/1.1 401 ", "");
    assert_answer(false, "GET /query HTTP/1.1\r\n" HOST "Authorization: Bearer another-token-00\r\n\r\n",
                  "HTTP/1.1 200 ", "");
    assert_answer(false, "GET /metrics HTTP/1.1\r\nHost: admin.example.net\r\n\r\n", "HTTP/1.1 421 ", "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_socket_may_everything),
        cmocka_unit_test(tcp_needs_the_token_for_all_but_the_open),
        cmocka_unit_test(a_foreign_host_is_misdirected),
        cmocka_unit_test(errors_are_problems),
        cmocka_unit_test(a_refused_body_does_not_lose_the_answer),
        cmocka_unit_test(bodies_up_to_a_mebibyte),
        cmocka_unit_test(many_requests_on_one_connection),
        cmocka_unit_test(a_head_may_come_byte_by_byte),
        cmocka_unit_test(expect_is_answered),
        cmocka_unit_test(large_answers_to_slow_readers),
        cmocka_unit_test(a_reply_may_come_later),
        cmocka_unit_test(stuck_clients_block_nobody),
        cmocka_unit_test(queries_are_decoded),
        cmocka_unit_test(socket_files),
        cmocka_unit_test(a_reload_changes_the_token),
    };

    return cmocka_run_group_tests(tests, start, finish);
}
