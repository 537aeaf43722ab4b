#include "net/proxy_protocol.h"

#include "util/check.h"
#include "util/ip.h"

#include <errno.h>

/* --- version 1: a line of text --- */

static const struct str v1_prefix = STR_INIT("PROXY ");

/* The next word, which ends at one space or at the line's end. */
static struct str take_word(struct str *line)
{
    const char *space = memchr(line->p, ' ', line->n);
    struct str word = str_of(line->p, space != NULL ? (size_t)(space - line->p) : line->n);

    *line = str_skip(*line, word.n + (space != NULL));
    return word;
}

static bool take_ip(struct str *line, bool v6, struct ip *out)
{
    struct str word = take_word(line);

    return word.n > 0 && (memchr(word.p, ':', word.n) != NULL) == v6 && ip_parse(word, out) == 0;
}

static bool take_port(struct str *line, uint16_t *out)
{
    struct str word = take_word(line);
    uint64_t port;

    if (word.n > 5 || (word.n > 1 && word.p[0] == '0') || str_to_u64(word, &port) != 0 || port > UINT16_MAX)
        return false;
    *out = (uint16_t)port;
    return true;
}

static int parse_v1_line(struct str line, struct proxy_protocol *out)
{
    struct str family = take_word(&line);
    bool v6 = str_eq(family, STR("TCP6")), spaces;
    struct ip source, destination;
    uint16_t source_port, destination_port;

    if (str_eq(family, STR("UNKNOWN"))) /* what follows is to be ignored */
        return 0;
    if (!v6 && !str_eq(family, STR("TCP4")))
        return -EPROTO;
    spaces = line.n > 0 && line.p[line.n - 1] != ' '; /* a space at the end leaves no empty word to find */
    if (!spaces || !take_ip(&line, v6, &source) || !take_ip(&line, v6, &destination) ||
        !take_port(&line, &source_port) || !take_port(&line, &destination_port) || line.n > 0)
        return -EPROTO;
    out->has_source = true;
    out->source = address_of_ip(&source, source_port);
    return 0;
}

static int parse_v1(struct str in, struct proxy_protocol *out)
{
    size_t n =
        in.n < PROXY_PROTOCOL_V1_BYTES_MAX ? in.n : PROXY_PROTOCOL_V1_BYTES_MAX - 1; /* without its LF */
    const char *cr = memchr(in.p, '\r', n);
    size_t line_n = cr != NULL ? (size_t)(cr - in.p) : n;
    int rc;

    if (memchr(in.p, '\n', line_n) != NULL)
        return -EPROTO;
    if (line_n + 2 > PROXY_PROTOCOL_V1_BYTES_MAX)
        return -EMSGSIZE;
    if (cr == NULL || line_n + 2 > in.n)
        return 0;
    if (cr[1] != '\n')
        return -EPROTO;
    out->version = 1;
    rc = parse_v1_line(str_of(in.p + v1_prefix.n, line_n - v1_prefix.n), out);
    return rc < 0 ? rc : (int)line_n + 2;
}

/* --- version 2: 16 bytes, addresses, TLVs --- */

static const struct str v2_signature = STR_INIT("\r\n\r\n\0\r\nQUIT\n");

#define V2_FIXED_BYTES 16u
#define TLV_CRC32C     0x03

enum { COMMAND_LOCAL = 0x20, COMMAND_PROXY = 0x21 }; /* with the version, 2, before it */

/* What may stand in the byte of address family and transport, and how long its addresses are. A transport that
 * is not a stream cannot be what this connection is: its addresses are read over. */
static const struct v2_family {
    uint8_t code;
    uint8_t address_bytes; /* one of the two */
    bool named;            /* names a source that is of use here */
    uint8_t addresses_bytes;
} v2_families[] = {
    {0x00, 0, false, 0},   {0x11, 4, true, 12},     {0x12, 4, false, 12},    {0x21, 16, true, 36},
    {0x22, 16, false, 36}, {0x31, 108, false, 216}, {0x32, 108, false, 216},
};

static uint32_t load_be16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t load_be32(const uint8_t *p)
{
    return load_be16(p) << 16 | load_be16(p + 2);
}

/* CRC-32C (Castagnoli) as RFC 9260, appendix A, computes it; four bits at a time are fast enough for 552 bytes. */
static uint32_t crc32c_add(uint32_t crc, uint8_t byte)
{
    static const uint32_t table[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
        0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
    };

    crc ^= byte;
    crc = crc >> 4 ^ table[crc & 15];
    return crc >> 4 ^ table[crc & 15];
}

/* The checksum is of the whole header with its own four bytes as zeros. */
static bool checksum_is_right(const uint8_t *header, size_t n, size_t at)
{
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < n; i++)
        crc = crc32c_add(crc, i >= at && i < at + 4 ? 0 : header[i]);
    return ~crc == load_be32(header + at);
}

static int check_tlvs(const uint8_t *header, size_t n, size_t at)
{
    while (at < n) {
        size_t length;

        if (n - at < 3)
            return -EPROTO;
        length = load_be16(header + at + 1);
        if (length > n - at - 3)
            return -EPROTO;
        if (header[at] == TLV_CRC32C) {
            if (length != 4)
                return -EPROTO;
            if (!checksum_is_right(header, n, at + 3))
                return -EBADMSG;
        }
        at += 3 + length;
    }
    return 0;
}

static int parse_v2_proxied(const uint8_t *header, size_t n, struct proxy_protocol *out)
{
    const struct v2_family *family = NULL;
    const uint8_t *addresses = header + V2_FIXED_BYTES;
    struct ip source;

    for (size_t i = 0; i < ARRAY_LEN(v2_families); i++)
        if (v2_families[i].code == header[13])
            family = &v2_families[i];
    if (family == NULL || n - V2_FIXED_BYTES < family->addresses_bytes)
        return -EPROTO;
    if (family->named) {
        source = family->address_bytes == 4 ? ip_of_ipv4(addresses) : ip_of_ipv6(addresses);
        out->has_source = true;
        out->source = address_of_ip(&source, (uint16_t)load_be16(addresses + 2u * family->address_bytes));
    }
    return check_tlvs(header, n, V2_FIXED_BYTES + family->addresses_bytes);
}

static int parse_v2(struct str in, struct proxy_protocol *out)
{
    const uint8_t *header = (const uint8_t *)in.p;
    size_t n;
    int rc = 0;

    if (in.n > 12 && header[12] != COMMAND_LOCAL && header[12] != COMMAND_PROXY)
        return -EPROTO;
    if (in.n < V2_FIXED_BYTES)
        return 0;
    n = V2_FIXED_BYTES + load_be16(header + 14);
    if (n > PROXY_PROTOCOL_BYTES_MAX)
        return -EMSGSIZE;
    if (in.n < n)
        return 0;
    out->version = 2;
    out->local = header[12] == COMMAND_LOCAL;
    if (!out->local) /* of a local connection's header all but the length is to be ignored */
        rc = parse_v2_proxied(header, n, out);
    return rc < 0 ? rc : (int)n;
}

/* --- both --- */

static bool may_begin_with(struct str in, struct str what)
{
    size_t n = in.n < what.n ? in.n : what.n;

    return memcmp(in.p, what.p, n) == 0;
}

int proxy_protocol_parse(struct str in, struct proxy_protocol *out)
{
    int rc = -EPROTO;

    *out = (struct proxy_protocol){0};
    if (in.n == 0)
        return 0;
    if (may_begin_with(in, v2_signature))
        rc = parse_v2(in, out);
    else if (may_begin_with(in, v1_prefix))
        rc = in.n < v1_prefix.n ? 0 : parse_v1(in, out);
    if (rc <= 0) /* what was read before the mistake is not to be believed either */
        *out = (struct proxy_protocol){0};
    return rc;
}
