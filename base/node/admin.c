#include "node/admin_internal.h"

#include "util/check.h"
#include "util/clock.h"
#include "util/log.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG           64
#define READ_BYTES        (16u * 1024)
#define PROGRESS_BYTES    (64u * 1024)                 /* of an answer, for which a client gets a timeout */
#define TCP_MAX           (ADMIN_CONNECTIONS_MAX - 16) /* strangers never take all the places */
#define IN_BYTES_MAX      (ADMIN_HEAD_BYTES_MAX + ADMIN_BODY_BYTES_MAX + READ_BYTES)
#define ACCEPT_PAUSE_NS   (100 * NS_PER_MS)
#define LINGER_NS         (2 * NS_PER_S)
#define REQUESTS_IN_A_ROW 16 /* of one connection before others get their turn */

/* --- listening --- */

/* Takes away a socket file that nobody listens at. 0 or -errno. */
static int remove_stale(const struct sockaddr_un *sun)
{
    struct stat st;
    int fd, error = 0;

    if (lstat(sun->sun_path, &st) != 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EEXIST;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)sun, sizeof *sun) == 0 || errno == EAGAIN)
        error = -EADDRINUSE; /* EAGAIN: its backlog is full, so somebody listens */
    else if (errno != ECONNREFUSED)
        error = -errno;
    else if (unlink(sun->sun_path) != 0 && errno != ENOENT)
        error = -errno;
    close(fd);
    return error;
}

static int listen_unix(struct admin *a, const char *path)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    struct stat st;
    int fd, error;

    if (strlen(path) >= sizeof sun.sun_path)
        return -ENAMETOOLONG;
    memcpy(sun.sun_path, path, strlen(path) + 1);
    error = remove_stale(&sun);
    if (error != 0)
        return error;
    a->socket_path = strdup(path);
    if (a->socket_path == NULL)
        return -ENOMEM;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    /* The mode of the socket is that of the file which bind makes: at no moment is it wider. chmod after it
     * only undoes what the umask took away. */
    if (fchmod(fd, 0660) != 0 || bind(fd, (struct sockaddr *)&sun, sizeof sun) != 0 ||
        chmod(path, 0660) != 0 || listen(fd, BACKLOG) != 0 || lstat(path, &st) != 0) {
        error = -errno;
        close(fd);
        return error;
    }
    a->socket_dev = st.st_dev;
    a->socket_ino = st.st_ino;
    a->unix_fd = fd;
    return 0;
}

static int listen_tcp(struct admin *a, const struct address *address)
{
    int one = 1, error;
    int fd = socket(address->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        (address->sa.sa_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) != 0) ||
        bind(fd, &address->sa, address_bytes(address)) != 0 || listen(fd, BACKLOG) != 0) {
        error = -errno;
        close(fd);
        return error;
    }
    a->tcp_fd = fd;
    return 0;
}

int admin_open(struct admin **out, const struct admin_options *options, const char **error_text)
{
    struct admin *a = calloc(1, sizeof *a);
    int error;

    *error_text = "no memory for the admin server";
    if (a == NULL)
        return -ENOMEM;
    a->magic = ADMIN_MAGIC;
    a->program = options->program;
    a->timeout_ns = (options->timeout_ms ? options->timeout_ms : ADMIN_TIMEOUT_MS) * NS_PER_MS;
    a->unix_fd = a->tcp_fd = -1;
    error = admin_access_copy(&a->access, options);
    if (error == 0 && options->socket_path != NULL) {
        *error_text = "cannot listen on the admin socket";
        error = listen_unix(a, options->socket_path);
    }
    if (error == 0 && options->address != NULL) {
        *error_text = "cannot listen on the admin address";
        error = listen_tcp(a, options->address);
    }
    if (error != 0) {
        admin_close(&a);
        return error;
    }
    *error_text = NULL;
    *out = a;
    return 0;
}

int admin_reconfigure(struct admin *a, const struct admin_options *options)
{
    struct admin_access access;

    CHECK_MAGIC(a, ADMIN_MAGIC);
    if (admin_access_copy(&access, options) != 0)
        return -ENOMEM;
    admin_access_free(&a->access);
    a->access = access;
    return 0;
}

/* --- replies --- */

static struct admin_reply *reply_new(struct admin *a, struct admin_connection *c)
{
    struct admin_reply *reply = calloc(1, sizeof *reply);

    if (reply != NULL)
        *reply = (struct admin_reply){.status = 200,
                                      .content_type = "application/json",
                                      .body = grow_of(ADMIN_REPLY_BYTES_MAX),
                                      .admin = a,
                                      .connection = c};
    return reply;
}

static void reply_free(struct admin_reply **reply)
{
    struct admin_reply *gone = TAKE(reply);

    if (gone == NULL)
        return;
    grow_free(&gone->body);
    free(gone);
}

static void connection_close(struct admin *a, struct admin_connection *c)
{
    close(c->fd);
    if (!c->local)
        a->tcp_n--;
    grow_free(&c->in);
    grow_free(&c->body);
    grow_free(&c->out);
    if (c->state == ADMIN_LATER)
        c->reply->connection = NULL; /* its handler frees it, by admin_reply_send */
    else
        reply_free(&c->reply);
    *c = (struct admin_connection){.fd = -1};
}

void admin_close(struct admin **a)
{
    struct admin *gone = TAKE(a);
    struct stat st;

    CHECK_MAGIC(gone, ADMIN_MAGIC);
    for (unsigned i = 0; i < ADMIN_CONNECTIONS_MAX; i++)
        if (gone->connections[i].state != ADMIN_FREE)
            connection_close(gone, &gone->connections[i]);
    if (gone->unix_fd >= 0) {
        if (lstat(gone->socket_path, &st) == 0 && st.st_dev == gone->socket_dev &&
            st.st_ino == gone->socket_ino)
            unlink(gone->socket_path);
        close(gone->unix_fd);
    }
    if (gone->tcp_fd >= 0)
        close(gone->tcp_fd);
    free(gone->socket_path);
    admin_access_free(&gone->access);
    gone->magic = 0;
    free(gone);
}

static void set_deadline(struct admin *a, struct admin_connection *c)
{
    c->deadline_ns = clock_mono_ns() + a->timeout_ns;
}

/* The reply is filled: render its head and begin to send. */
static void reply_begin(struct admin *a, struct admin_connection *c)
{
    struct admin_reply *reply = c->reply;

    if (reply->body.failed)
        admin_problem(reply, 500, "The answer is larger than memory or %u bytes allow.",
                      ADMIN_REPLY_BYTES_MAX);
    admin_render_head(c, reply, &c->out);
    if (c->to_head)
        grow_free(&reply->body);
    c->sent = c->sent_at_deadline = 0;
    c->state = ADMIN_SEND;
    set_deadline(a, c);
}

void admin_reply_send(struct admin_reply **reply)
{
    struct admin_reply *r = TAKE(reply);
    struct admin_connection *c = r->connection;

    if (c == NULL) {
        reply_free(&r);
        return;
    }
    CHECK(c->state == ADMIN_LATER && c->reply == r);
    reply_begin(r->admin, c); /* the loop's next round sends it */
}

/* Answers with an error that the request itself caused; the connection ends with it. */
static void refuse(struct admin *a, struct admin_connection *c, int status, const char *detail)
{
    c->close_after = true;
    if (c->reply == NULL)
        c->reply = reply_new(a, c);
    if (c->reply == NULL) {
        connection_close(a, c);
        return;
    }
    if (detail != NULL)
        admin_problem(c->reply, status, "%s", detail);
    reply_begin(a, c);
}

/* --- requests --- */

static void run_handler(struct admin *a, struct admin_connection *c, struct str body)
{
    const struct http1_request *r = &c->request;
    struct url_target target = url_target_split(http1_target(r, c->in.p));
    const struct admin_request request = {
        .method = http1_method(r, c->in.p),
        .path = target.path,
        .query = target.query,
        .content_type = fields_get(&r->fields, c->in.p, FIELD_CONTENT_TYPE),
        .body = body,
        .local = c->local,
    };

    CHECK(c->route != NULL);
    c->state = ADMIN_LATER; /* as long as the handler has it, however it ends */
    c->route->handler(&request, c->reply, c->route->context);
    if (!http_method_is_safe(r->method))
        log_info("admin: %s %s over %s", c->route->method, c->route->path, c->local ? "the socket" : "TCP");
    if (!c->reply->later)
        reply_begin(a, c);
}

/* Drops the first n bytes of what was read: they were this request's. */
static void consume(struct admin_connection *c, size_t n)
{
    memmove(c->in.p, c->in.p + n, c->in.n - n);
    c->in.n -= n;
}

static void take_body(struct admin *a, struct admin_connection *c)
{
    struct str rest = str_of(c->in.p + c->head_bytes, c->in.n - c->head_bytes), run;
    int result;

    if (c->request.framing != HTTP_BODY_CHUNKED) {
        size_t n = (size_t)c->request.content_length;

        if (rest.n < n)
            return;
        run_handler(a, c, str_of(rest.p, n));
        consume(c, c->head_bytes + n);
        return;
    }
    while ((result = http1_chunked_next(&c->chunked, &rest, &run)) == HTTP1_CHUNKED_BODY)
        grow_add_str(&c->body, run);
    if (result < 0) {
        refuse(a, c, (int)http1_error_status(result), http1_error_reason(result));
    } else if (c->body.failed) {
        refuse(a, c, 413, "The body is too large.");
    } else if (result == HTTP1_CHUNKED_DONE) {
        run_handler(a, c, grow_str(&c->body));
        consume(c, (size_t)(rest.p - c->in.p));
        grow_free(&c->body);
    } else {
        c->in.n = c->head_bytes; /* all of the rest is decoded */
    }
}

static void take_head(struct admin *a, struct admin_connection *c)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    int n;

    while (c->in.n >= 2 && memcmp(c->in.p, "\r\n", 2) == 0) /* RFC 9112, 2.2 */
        consume(c, 2);
    if (!http1_head_ready(c->in.p, c->in.n, ADMIN_HEAD_BYTES_MAX, &c->scanned))
        return;
    n = http1_parse_request(c->in.p, c->in.n, &c->request);
    if (n == 0)
        return;
    if (n < 0) {
        refuse(a, c, (int)http1_error_status(n), http1_error_reason(n));
        return;
    }
    c->head_bytes = (size_t)n;
    c->to_head = c->request.method == HTTP_HEAD;
    c->close_after = !c->request.keep_alive;
    c->reply = reply_new(a, c);
    if (c->reply == NULL) {
        connection_close(a, c);
        return;
    }
    c->route = NULL;
    if (admin_judge(a, c, c->reply) != 0) {
        if (c->request.framing == HTTP_BODY_NONE ||
            (c->request.framing == HTTP_BODY_LENGTH && c->request.content_length == 0)) {
            reply_begin(a, c);
            consume(c, c->head_bytes);
        } else {
            refuse(a, c, 0, NULL); /* a body that nobody will read ends the connection */
        }
        return;
    }
    if (c->request.framing == HTTP_BODY_NONE)
        c->request.content_length = 0;
    c->body = grow_of(ADMIN_BODY_BYTES_MAX);
    http1_chunked_init(&c->chunked);
    c->state = ADMIN_BODY;
    set_deadline(a, c);
    if (c->request.expect_continue && c->in.n == c->head_bytes &&
        send(c->fd, go_on, sizeof go_on - 1, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)sizeof go_on - 1) {
        reply_free(&c->reply);
        connection_close(a, c);
        return;
    }
    take_body(a, c);
}

/* The answer is out: the next request, or the end. */
static void reply_done(struct admin *a, struct admin_connection *c)
{
    grow_free(&c->out);
    reply_free(&c->reply);
    c->scanned = 0;
    if (c->close_after) {
        /* Closing with bytes unread would reset the connection and may take the answer with it. */
        shutdown(c->fd, SHUT_WR);
        c->state = ADMIN_LINGER;
        c->deadline_ns = clock_mono_ns() + LINGER_NS;
    } else {
        c->state = ADMIN_HEAD;
        set_deadline(a, c);
    }
}

/* False when it would have to wait. */
static bool send_some(struct admin *a, struct admin_connection *c)
{
    struct grow *body = &c->reply->body;
    size_t in_head = c->sent < c->out.n ? c->out.n - c->sent : 0;
    size_t body_from = c->sent > c->out.n ? c->sent - c->out.n : 0;
    struct iovec runs[2] = {
        {.iov_base = in_head ? c->out.p + c->sent : NULL, .iov_len = in_head},
        {.iov_base = body->p ? body->p + body_from : NULL, .iov_len = body->n - body_from}};
    struct msghdr message = {.msg_iov = runs, .msg_iovlen = 2};
    ssize_t n = sendmsg(c->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR)
            connection_close(a, c);
        return false;
    }
    c->sent += (size_t)n;
    if (c->sent - c->sent_at_deadline >= PROGRESS_BYTES) {
        c->sent_at_deadline = c->sent;
        set_deadline(a, c);
    }
    if (c->sent == c->out.n + body->n)
        reply_done(a, c);
    return true;
}

/* False when it would have to wait, or the connection is gone. */
static bool read_some(struct admin *a, struct admin_connection *c)
{
    char dropped[4096];
    bool keep = c->state != ADMIN_LINGER;
    char *to = keep ? grow_reserve(&c->in, READ_BYTES) : dropped;
    ssize_t n;

    if (to == NULL) {
        connection_close(a, c);
        return false;
    }
    n = recv(c->fd, to, keep ? READ_BYTES : sizeof dropped, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0) {
        connection_close(a, c);
        return false;
    }
    if (keep)
        c->in.n += (size_t)n;
    return true;
}

/* Goes as far as it can without waiting. */
static void connection_run(struct admin *a, struct admin_connection *c)
{
    c->again = false;
    for (unsigned i = 0; i < REQUESTS_IN_A_ROW; i++) {
        switch (c->state) {
        case ADMIN_FREE:
        case ADMIN_LATER:
            return;
        case ADMIN_HEAD:
            if (c->in.n > 0)
                take_head(a, c);
            if (c->state == ADMIN_HEAD && !read_some(a, c))
                return;
            break;
        case ADMIN_BODY:
            take_body(a, c);
            if (c->state == ADMIN_BODY && !read_some(a, c))
                return;
            break;
        case ADMIN_SEND:
            if (!send_some(a, c))
                return;
            break;
        case ADMIN_LINGER:
            if (!read_some(a, c))
                return;
            break;
        }
    }
    c->again = true;
}

/* --- the loop around it --- */

static struct admin_connection *free_place(struct admin *a, bool local)
{
    if (!local && a->tcp_n >= TCP_MAX)
        return NULL;
    for (unsigned i = 0; i < ADMIN_CONNECTIONS_MAX; i++)
        if (a->connections[i].state == ADMIN_FREE)
            return &a->connections[i];
    return NULL;
}

static void accept_all(struct admin *a, int listen_fd, bool local)
{
    struct admin_connection *c;
    int one = 1;

    while ((c = free_place(a, local)) != NULL) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                a->accept_again_ns = clock_mono_ns() + ACCEPT_PAUSE_NS;
            return;
        }
        *c = (struct admin_connection){.state = ADMIN_HEAD,
                                       .fd = fd,
                                       .local = local,
                                       .in = grow_of(IN_BYTES_MAX),
                                       .out = grow_of(ADMIN_HEAD_BYTES_MAX)};
        set_deadline(a, c);
        if (!local) {
            a->tcp_n++;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        }
        connection_run(a, c);
    }
}

static void sooner(int *wait_ms, uint64_t at_ns, uint64_t now_ns)
{
    uint64_t ms = at_ns <= now_ns ? 0 : (at_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS;

    if (*wait_ms < 0 || ms < (uint64_t)*wait_ms)
        *wait_ms = (int)ms;
}

unsigned admin_poll_fill(struct admin *a, struct pollfd *fds, int *wait_ms)
{
    uint64_t now_ns = clock_mono_ns();
    unsigned n = 0;

    CHECK_MAGIC(a, ADMIN_MAGIC);
    for (unsigned i = 0; i < ADMIN_CONNECTIONS_MAX; i++) {
        const struct admin_connection *c = &a->connections[i];

        if (c->state == ADMIN_FREE)
            continue;
        /* One whose handler has it is only watched for its end. */
        fds[n++] = (struct pollfd){.fd = c->fd,
                                   .events = c->state == ADMIN_SEND    ? POLLOUT
                                             : c->state == ADMIN_LATER ? 0
                                                                       : POLLIN};
        if (c->state != ADMIN_LATER)
            sooner(wait_ms, c->again ? now_ns : c->deadline_ns, now_ns);
    }
    if (now_ns < a->accept_again_ns) {
        sooner(wait_ms, a->accept_again_ns, now_ns);
        return n;
    }
    if (a->unix_fd >= 0 && free_place(a, true) != NULL)
        fds[n++] = (struct pollfd){.fd = a->unix_fd, .events = POLLIN};
    if (a->tcp_fd >= 0 && free_place(a, false) != NULL)
        fds[n++] = (struct pollfd){.fd = a->tcp_fd, .events = POLLIN};
    return n;
}

static struct admin_connection *find_connection(struct admin *a, int fd)
{
    for (unsigned i = 0; i < ADMIN_CONNECTIONS_MAX; i++)
        if (a->connections[i].state != ADMIN_FREE && a->connections[i].fd == fd)
            return &a->connections[i];
    return NULL;
}

void admin_poll_run(struct admin *a, const struct pollfd *fds, unsigned fds_n)
{
    uint64_t now_ns;

    CHECK_MAGIC(a, ADMIN_MAGIC);
    for (unsigned i = 0; i < fds_n; i++) {
        struct admin_connection *c;

        if (fds[i].fd == a->unix_fd || fds[i].fd == a->tcp_fd)
            continue;
        c = find_connection(a, fds[i].fd);
        if (c == NULL || (fds[i].revents == 0 && !c->again))
            continue;
        if (c->state == ADMIN_LATER && (fds[i].revents & (POLLHUP | POLLERR)))
            connection_close(a, c);
        else
            connection_run(a, c);
    }
    now_ns = clock_mono_ns();
    for (unsigned i = 0; i < ADMIN_CONNECTIONS_MAX; i++) {
        struct admin_connection *c = &a->connections[i];

        if (c->state != ADMIN_FREE && c->state != ADMIN_LATER && now_ns >= c->deadline_ns)
            connection_close(a, c);
    }
    for (unsigned i = 0; i < fds_n; i++)
        if (fds[i].revents != 0 && (fds[i].fd == a->unix_fd || fds[i].fd == a->tcp_fd))
            accept_all(a, fds[i].fd, fds[i].fd == a->unix_fd);
}
