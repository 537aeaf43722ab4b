#include "net/tls.h"

#include <errno.h>

int tls_server_create(const struct tls_server_options *options, struct tls_tickets *tickets,
                      struct tls_server **out, char why[TLS_WHY_BYTES])
{
    (void)options;
    (void)tickets;
    (void)out;
    why[0] = '\0';
    return -ENOSYS;
}

struct tls_server *tls_server_ref(struct tls_server *s)
{
    return s;
}

void tls_server_unref(struct tls_server **s)
{
    *s = NULL;
}

int64_t tls_server_expiry_unix_s(const struct tls_server *s)
{
    (void)s;
    return 0;
}
