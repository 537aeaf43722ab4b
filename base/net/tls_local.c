#include "net/tls.h"

#include <errno.h>

int tls_local_create(struct tls_local **out, struct io *io, const struct tls_local_options *options)
{
    (void)io;
    (void)options;
    *out = NULL;
    return 0;
}

void tls_local_reconfigure(struct tls_local *l, const struct tls_local_options *options)
{
    (void)l;
    (void)options;
}

void tls_local_destroy(struct tls_local **l)
{
    *l = NULL;
}
