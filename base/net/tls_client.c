#include "net/tls.h"

#include <errno.h>

int tls_client_create(const struct tls_client_options *options, struct tls_client **out,
                      char why[TLS_WHY_BYTES])
{
    (void)options;
    (void)out;
    why[0] = '\0';
    return -ENOSYS;
}

struct tls_client *tls_client_ref(struct tls_client *c)
{
    return c;
}

void tls_client_unref(struct tls_client **c)
{
    *c = NULL;
}
