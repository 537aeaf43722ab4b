/* The PROXY protocol, versions 1 and 2 (HAProxy, doc/proxy-protocol.txt): the few bytes with which a proxy that
 * passes connections on begins each of them, to say whose it is. They come before TLS and HTTP.
 *
 * Pure: from bytes to a struct. Whoever calls knows that the peer may say such things; from anybody else the
 * same bytes are no header. */
#pragma once

#include "net/address.h"
#include "util/str.h"

/* The bound of version 1's line is the specification's. Version 2 can tell a length of up to 65,535; what a proxy
 * says in one segment that every path carries (536 bytes) after the fixed part is enough for addresses and the
 * TLVs that are in use. */
#define PROXY_PROTOCOL_V1_BYTES_MAX 107u
#define PROXY_PROTOCOL_BYTES_MAX    (16u + 536u)

struct proxy_protocol {
    uint8_t version; /* 1 or 2 */
    bool local;      /* version 2: the proxy's own connection, such as a health check */
    bool has_source; /* else it does not know, or cannot say in these terms: the peer's own address stays */
    struct address source;
};

/* `in` begins with the connection's first byte. Above 0: a header of that many bytes; all after it is the
 * client's. 0: not whole yet. -EPROTO: no header, and with more bytes it becomes none; -EMSGSIZE: longer than is
 * taken; -EBADMSG: its checksum (CRC32C TLV) is wrong. */
int proxy_protocol_parse(struct str in, struct proxy_protocol *out);
