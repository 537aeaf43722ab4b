#include "client.h"

#include "util/check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#define ANSWERS_WITHIN_S 10

void client_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

struct str client_read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct stat st;
    if (!file || fstat(fileno(file), &st))
        client_fail("%s: %s", path, strerror(errno));
    size_t n = (size_t)st.st_size;
    char *text = malloc(n + 1);
    CHECK(text);
    if (fread(text, 1, n, file) != n)
        client_fail("%s: short read", path);
    text[n] = 0;
    fclose(file);
    return str_of(text, n);
}

struct targets client_read_targets(const char *path)
{
    struct str file = client_read_file(path);
    struct targets targets = {.text = (char *)(uintptr_t)file.p};
    size_t room = 0;
    for (size_t i = 0; i < file.n; i++)
        room += file.p[i] == '\n';
    targets.lines = calloc(room + 1, sizeof(*targets.lines));
    CHECK(targets.lines);
    for (struct str rest = file; rest.n > 0;) {
        const char *end = memchr(rest.p, '\n', rest.n);
        size_t n = end ? (size_t)(end - rest.p) : rest.n;
        if (n > 0)
            targets.lines[targets.count++] = str_of(rest.p, n);
        rest = str_skip(rest, n + 1);
    }
    if (targets.count == 0)
        client_fail("%s: no targets", path);
    return targets;
}

int client_connect_from(uint32_t from, uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct sockaddr_in source = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(from)};
    struct linger reset = {.l_onoff = 1};
    struct timeval patience = {.tv_sec = ANSWERS_WITHIN_S};
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        client_fail("socket: %s", strerror(errno));
    if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) ||
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on)))
        client_fail("setsockopt: %s", strerror(errno));
    if (from && bind(fd, (struct sockaddr *)&source, sizeof(source)))
        client_fail("bind: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

int client_connect(uint16_t port)
{
    int fd = client_connect_from(0, port);
    if (fd < 0)
        client_fail("connect to port %u: %s", port, strerror(errno));
    return fd;
}

size_t client_write_get(char *into, struct str target)
{
    int n = snprintf(into, HEAD_MAX, "GET " STR_FMT " HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", STR_ARG(target));
    if (n < 0 || (size_t)n >= HEAD_MAX)
        client_fail("a target of %zu bytes", target.n);
    return (size_t)n;
}

void client_send_get(int fd, struct str target)
{
    char request[HEAD_MAX];
    size_t n = client_write_get(request, target);
    if (send(fd, request, n, MSG_NOSIGNAL) != (ssize_t)n)
        client_fail("send: %s", strerror(errno));
}

int client_parse_head(const char *text, struct answer *answer)
{
    const char *end = strstr(text, "\r\n\r\n");
    if (!end)
        return 0;
    *answer = (struct answer){.head_bytes = (size_t)(end - text) + 4};
    if (sscanf(text, "HTTP/1.%*1[01] %3u ", &answer->status) != 1)
        return -1;
    static const char name[] = "\r\ncontent-length:";
    const char *length = strcasestr(text, name);
    if (!length || length > end)
        return -1;
    char *after;
    answer->body_bytes = strtoull(length + sizeof(name) - 1, &after, 10);
    return *after == '\r' ? 1 : -1;
}
