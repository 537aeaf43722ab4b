/* idle PORT CONNECTIONS TARGETS plain|tls|h2: opens the connections, asks once on each and reads the answer,
 * then holds them open. Prints "ready" when all are, and ends when its standard input does. */
#include "client_h2.h"

#include "util/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void ask(struct link *link, struct str target)
{
    char chunk[65536];
    char head[HEAD_MAX + 1];
    size_t n = 0;
    struct answer answer;
    size_t bytes = client_write_get(chunk, target);
    link_write_all(link, chunk, bytes);
    for (int complete = 0; !complete;) {
        ssize_t got = link_read(link, head + n, HEAD_MAX - n);
        if (got <= 0)
            client_fail("connection closed before a head");
        n += (size_t)got;
        head[n] = 0;
        complete = client_parse_head(head, &answer);
        if (complete < 0 || (complete && answer.status != 200))
            client_fail("not an answer to hold a connection with: %.60s", head);
    }
    for (uint64_t seen = n - answer.head_bytes; seen < answer.body_bytes;) {
        ssize_t got = link_read(link, chunk, sizeof(chunk));
        if (got <= 0)
            client_fail("connection closed within a body");
        seen += (uint64_t)got;
    }
}

int main(int argc, char **argv)
{
    if (argc != 5)
        client_fail("usage: idle PORT CONNECTIONS TARGETS plain|tls|h2");
    uint16_t port = (uint16_t)atoi(argv[1]);
    size_t count = (size_t)atol(argv[2]);
    struct targets targets = client_read_targets(argv[3]);
    bool h2 = strcmp(argv[4], "h2") == 0;
    const char *protocol = h2 ? "h2" : "http/1.1";
    SSL_CTX *context = strcmp(argv[4], "plain") == 0 ? NULL : client_tls_context(protocol);
    if (count > CLIENTS_MAX)
        client_fail("at most %u connections", CLIENTS_MAX);
    struct link *links = calloc(count + 1, sizeof(*links));
    CHECK(links);
    for (size_t i = 0; i < count; i++) {
        if (!link_open(&links[i], context, protocol, 0, port))
            client_fail("connection %zu was not accepted", i);
        if (h2)
            h2_begin(&links[i]);
        struct str target = targets.lines[i % targets.count];
        if (h2)
            h2_ask(&links[i], 1, target);
        else
            ask(&links[i], target);
    }
    printf("ready\n");
    fflush(stdout);
    char c;
    while (read(STDIN_FILENO, &c, 1) > 0)
        ;
    free(targets.lines);
    free(targets.text);
    free(links);
    SSL_CTX_free(context);
    return 0;
}
