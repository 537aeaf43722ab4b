#include "client_h2.h"

#include "util/check.h"

#include <string.h>

/* Static table of HPACK (RFC 7541, appendix A). */
#define INDEXED       0x80u
#define METHOD_GET    2u
#define SCHEME_HTTPS  7u
#define STATUS_200    8u
#define NAME_AUTH     1u
#define NAME_PATH     4u
#define SIZE_UPDATE   0x20u /* 001xxxxx: the size of the dynamic table */
#define PREFIX_7_FULL 127u

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
static const char authority[] = "127.0.0.1";

static void put_32(char *into, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        into[i] = (char)(value >> (24 - 8 * i));
}

static uint32_t get_32(const char *from)
{
    const unsigned char *p = (const unsigned char *)from;
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static size_t write_frame_head(char *into, struct h2_frame frame)
{
    put_32(into, (uint32_t)frame.bytes << 8 | frame.type);
    into[4] = (char)frame.flags;
    put_32(into + 5, frame.stream);
    return H2_FRAME_HEAD;
}

size_t h2_write_preface(char *into)
{
    size_t n = sizeof(preface) - 1;
    memcpy(into, preface, n);
    n += write_frame_head(into + n, (struct h2_frame){.type = H2_SETTINGS});
    n += write_frame_head(into + n, (struct h2_frame){.type = H2_WINDOW_UPDATE, .bytes = 4});
    put_32(into + n, H2_STREAM_MAX - 65535);
    return n + 4;
}

size_t h2_write_settings_ack(char *into)
{
    return write_frame_head(into, (struct h2_frame){.type = H2_SETTINGS, .flags = H2_FLAG_ACK});
}

/* A literal field, not indexed, whose name is in the static table. */
static char *put_field(char *p, unsigned name, struct str value)
{
    *p++ = (char)name;
    if (value.n < PREFIX_7_FULL) {
        *p++ = (char)value.n;
    } else {
        *p++ = (char)PREFIX_7_FULL;
        size_t rest = value.n - PREFIX_7_FULL;
        for (; rest >= 128; rest >>= 7)
            *p++ = (char)(0x80 | (rest & 0x7f));
        *p++ = (char)rest;
    }
    memcpy(p, value.p, value.n);
    return p + value.n;
}

size_t h2_write_get(char *into, uint32_t stream, struct str target)
{
    CHECK(target.n + 64 < HEAD_MAX);
    char *p = into + H2_FRAME_HEAD;
    *p++ = (char)(INDEXED | METHOD_GET);
    *p++ = (char)(INDEXED | SCHEME_HTTPS);
    p = put_field(p, NAME_AUTH, str_of(authority, sizeof(authority) - 1));
    p = put_field(p, NAME_PATH, target);
    size_t n = (size_t)(p - into);
    write_frame_head(into, (struct h2_frame){.type = H2_HEADERS,
                                             .flags = H2_FLAG_END_STREAM | H2_FLAG_END_HEADERS,
                                             .stream = stream,
                                             .bytes = n - H2_FRAME_HEAD});
    return n;
}

size_t h2_write_reset(char *into, uint32_t stream, uint32_t error)
{
    write_frame_head(into, (struct h2_frame){.type = H2_RST_STREAM, .stream = stream, .bytes = 4});
    put_32(into + H2_FRAME_HEAD, error);
    return H2_FRAME_HEAD + 4;
}

struct h2_frame h2_parse_frame_head(const char *head)
{
    uint32_t first = get_32(head);
    return (struct h2_frame){.bytes = first >> 8,
                             .type = first & 0xff,
                             .flags = (unsigned char)head[4],
                             .stream = get_32(head + 5) & H2_STREAM_MAX};
}

static struct h2_frame read_frame(struct link *link, char *payload)
{
    char head[H2_FRAME_HEAD];
    link_read_all(link, head, sizeof(head));
    struct h2_frame frame = h2_parse_frame_head(head);
    if (frame.bytes > H2_PAYLOAD_MAX)
        client_fail("a frame of %zu bytes", frame.bytes);
    link_read_all(link, payload, frame.bytes);
    return frame;
}

static void acknowledge(struct link *link)
{
    char ack[H2_FRAME_HEAD];
    link_write_all(link, ack, h2_write_settings_ack(ack));
}

void h2_begin(struct link *link)
{
    char frames[H2_PREFACE_MAX];
    char payload[H2_PAYLOAD_MAX];
    link_write_all(link, frames, h2_write_preface(frames));
    struct h2_frame frame = read_frame(link, payload);
    if (frame.type != H2_SETTINGS || (frame.flags & H2_FLAG_ACK))
        client_fail("the server begins with a frame of type %u", frame.type);
    acknowledge(link);
}

/* Whether a block of fields begins with status 200, after what changes the size of the table. */
static bool is_200(const char *block, size_t n)
{
    size_t i = 0;
    while (i < n && ((unsigned char)block[i] & 0xe0u) == SIZE_UPDATE) {
        bool more = ((unsigned char)block[i++] & 0x1fu) == 0x1fu;
        for (; more && i < n; i++)
            more = (unsigned char)block[i] & 0x80u;
    }
    return i < n && (unsigned char)block[i] == (INDEXED | STATUS_200);
}

void h2_ask(struct link *link, uint32_t stream, struct str target)
{
    char request[H2_REQUEST_MAX];
    char payload[H2_PAYLOAD_MAX];
    link_write_all(link, request, h2_write_get(request, stream, target));
    for (bool ended = false; !ended;) {
        struct h2_frame frame = read_frame(link, payload);
        if (frame.type == H2_SETTINGS && !(frame.flags & H2_FLAG_ACK))
            acknowledge(link);
        if (frame.type == H2_GOAWAY || frame.type == H2_RST_STREAM)
            client_fail("a frame of type %u in place of an answer", frame.type);
        if (frame.type == H2_HEADERS && !is_200(payload, frame.bytes))
            client_fail("an HTTP/2 answer that is not 200");
        ended = (frame.type == H2_DATA || frame.type == H2_HEADERS) && frame.stream == stream &&
                (frame.flags & H2_FLAG_END_STREAM);
    }
}
