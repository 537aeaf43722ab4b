/* PROXY headers: a whole one says the same whatever follows and needs all of its bytes; what is refused stays
 * refused; nothing is taken that is longer than the bound. */
#include "fuzz.h"

#include "net/proxy_protocol.h"

static int parse(const uint8_t *data, size_t n, struct proxy_protocol *out)
{
    char *copy = exact_copy(data, n);
    int rc = proxy_protocol_parse(str_of(copy, n), out);

    free(copy);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy_protocol whole, part;
    int rc = parse(data, size, &whole);

    CHECK(rc <= (int)PROXY_PROTOCOL_BYTES_MAX && rc <= (int)size);
    CHECK(rc > 0 || !whole.has_source);
    CHECK(!whole.has_source || !whole.local);
    if (whole.version == 1)
        CHECK(rc <= (int)PROXY_PROTOCOL_V1_BYTES_MAX);
    for (size_t n = 0; n < size && n < PROXY_PROTOCOL_BYTES_MAX + 2; n++) {
        int before = parse(data, n, &part);

        if (rc > 0)
            CHECK(before == (n < (size_t)rc ? 0 : rc));
        else if (before < 0)
            CHECK(rc == before);
        else
            CHECK(before == 0);
    }
    if (rc > 0 && whole.has_source) {
        CHECK(parse(data, (size_t)rc, &part) == rc);
        CHECK(address_eq(&whole.source, &part.source));
    }
    return 0;
}
