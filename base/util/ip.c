#include "util/ip.h"

#include <arpa/inet.h>
#include <errno.h>

struct ip ip_of_ipv4(const void *in_addr)
{
    struct ip a = {.bytes = {[10] = 0xff, [11] = 0xff}};

    memcpy(a.bytes + 12, in_addr, 4);
    return a;
}

struct ip ip_of_ipv6(const void *in6_addr)
{
    struct ip a;

    memcpy(a.bytes, in6_addr, 16);
    return a;
}

/* *is_ipv4: written as a dotted quad, so that a prefix counts from there. */
static int parse(struct str text, struct ip *out, bool *is_ipv4)
{
    char z[IP_TEXT_MAX];
    unsigned char bytes[16];

    if (text.n == 0 || text.n >= sizeof z || memchr(text.p, '\0', text.n))
        return -EINVAL;
    memcpy(z, text.p, text.n);
    z[text.n] = '\0';
    *is_ipv4 = memchr(text.p, ':', text.n) == NULL;
    if (inet_pton(*is_ipv4 ? AF_INET : AF_INET6, z, bytes) != 1)
        return -EINVAL;
    *out = *is_ipv4 ? ip_of_ipv4(bytes) : ip_of_ipv6(bytes);
    return 0;
}

int ip_parse(struct str text, struct ip *out)
{
    bool is_ipv4;

    return parse(text, out, &is_ipv4);
}

int ip_block_parse(struct str text, struct ip_block *out)
{
    const char *slash = text.n ? memchr(text.p, '/', text.n) : NULL;
    struct str address = slash ? str_of(text.p, (size_t)(slash - text.p)) : text;
    struct ip_block block = {.bits = 128};
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

bool ip_in_block(const struct ip *address, const struct ip_block *block)
{
    size_t whole = block->bits / 8;
    unsigned rest = block->bits % 8;

    if (memcmp(address->bytes, block->address.bytes, whole) != 0)
        return false;
    return rest == 0 || ((address->bytes[whole] ^ block->address.bytes[whole]) >> (8 - rest)) == 0;
}

struct ip ip_client_network(const struct ip *address)
{
    struct ip network = *address;

    if (!ip_is_ipv4(address))
        memset(network.bytes + 8, 0, 8);
    return network;
}

void ip_format(const struct ip *address, struct buf *out)
{
    char z[IP_TEXT_MAX];
    bool is_ipv4 = ip_is_ipv4(address);

    inet_ntop(is_ipv4 ? AF_INET : AF_INET6, address->bytes + (is_ipv4 ? 12 : 0), z, sizeof z);
    buf_add_str(out, str_z(z));
}
