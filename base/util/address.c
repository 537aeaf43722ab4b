#include "util/address.h"

#include <arpa/inet.h>
#include <errno.h>

struct address address_of_ipv4(const void *in_addr)
{
    struct address a = {.bytes = {[10] = 0xff, [11] = 0xff}};

    memcpy(a.bytes + 12, in_addr, 4);
    return a;
}

struct address address_of_ipv6(const void *in6_addr)
{
    struct address a;

    memcpy(a.bytes, in6_addr, 16);
    return a;
}

/* *is_ipv4: written as a dotted quad, so that a prefix counts from there. */
static int parse(struct str text, struct address *out, bool *is_ipv4)
{
    char z[ADDRESS_TEXT_MAX];
    unsigned char bytes[16];

    if (text.n == 0 || text.n >= sizeof z || memchr(text.p, '\0', text.n))
        return -EINVAL;
    memcpy(z, text.p, text.n);
    z[text.n] = '\0';
    *is_ipv4 = memchr(text.p, ':', text.n) == NULL;
    if (inet_pton(*is_ipv4 ? AF_INET : AF_INET6, z, bytes) != 1)
        return -EINVAL;
    *out = *is_ipv4 ? address_of_ipv4(bytes) : address_of_ipv6(bytes);
    return 0;
}

int address_parse(struct str text, struct address *out)
{
    bool is_ipv4;

    return parse(text, out, &is_ipv4);
}

int address_block_parse(struct str text, struct address_block *out)
{
    const char *slash = text.n ? memchr(text.p, '/', text.n) : NULL;
    struct str address = slash ? str_of(text.p, (size_t)(slash - text.p)) : text;
    struct address_block block = {.bits = 128};
    bool is_ipv4;

    if (parse(address, &block.address, &is_ipv4) < 0)
        return -EINVAL;
    if (slash) {
        struct str digits = str_skip(text, address.n + 1);
        uint64_t bits;

        if (digits.n > 3 || str_to_u64(digits, &bits) < 0 || bits > (is_ipv4 ? 32 : 128))
            return -EINVAL;
        block.bits = (uint8_t)(is_ipv4 ? bits + 96 : bits);
    }
    *out = block;
    return 0;
}

bool address_in_block(const struct address *address, const struct address_block *block)
{
    size_t whole = block->bits / 8;
    unsigned rest = block->bits % 8;

    if (memcmp(address->bytes, block->address.bytes, whole) != 0)
        return false;
    return rest == 0 || ((address->bytes[whole] ^ block->address.bytes[whole]) >> (8 - rest)) == 0;
}

void address_format(const struct address *address, struct buf *out)
{
    char z[ADDRESS_TEXT_MAX];
    bool is_ipv4 = address_is_ipv4(address);

    inet_ntop(is_ipv4 ? AF_INET : AF_INET6, address->bytes + (is_ipv4 ? 12 : 0), z, sizeof z);
    buf_add_str(out, str_z(z));
}
