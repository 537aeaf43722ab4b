/* idle PORT CONNECTIONS TARGETS: opens the connections, asks once on each and reads the answer, then holds
 * them open. Prints "ready" when all are, and ends when its standard input does. */
#include "client.h"

#include "util/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void ask(int fd, struct str target)
{
    char chunk[65536];
    char head[HEAD_MAX + 1];
    size_t n = 0;
    uint64_t seen = 0;
    struct answer answer;
    client_send_get(fd, target);
    for (int complete = 0; !complete;) {
        ssize_t got = recv(fd, head + n, HEAD_MAX - n, 0);
        if (got <= 0)
            client_fail("connection closed before a head");
        n += (size_t)got;
        head[n] = 0;
        complete = client_parse_head(head, &answer);
        if (complete < 0 || (complete && answer.status != 200))
            client_fail("not an answer to hold a connection with: %.60s", head);
    }
    for (seen = n - answer.head_bytes; seen < answer.body_bytes;) {
        ssize_t got = recv(fd, chunk, sizeof(chunk), 0);
        if (got <= 0)
            client_fail("connection closed within a body");
        seen += (uint64_t)got;
    }
}

int main(int argc, char **argv)
{
    if (argc != 4)
        client_fail("usage: idle PORT CONNECTIONS TARGETS");
    uint16_t port = (uint16_t)atoi(argv[1]);
    size_t count = (size_t)atol(argv[2]);
    struct targets targets = client_read_targets(argv[3]);
    if (count > CLIENTS_MAX)
        client_fail("at most %u connections", CLIENTS_MAX);
    for (size_t i = 0; i < count; i++)
        ask(client_connect(port), targets.lines[i % targets.count]);
    printf("ready\n");
    fflush(stdout);
    char c;
    while (read(STDIN_FILENO, &c, 1) > 0)
        ;
    free(targets.lines);
    free(targets.text);
    return 0;
}
