/* Every named maximum that more than one module has to know, each with the sum that explains it.
 * docs/limits.md says the same to operators. */
#pragma once

/* --- the loop --- */

/* Steps a flow may run before others get their turn: a request that hits takes about 10. */
#define FLOW_STEPS_MAX 64u

/* Rounds of woken flows before the kernel is asked again: a request wakes its connection, which wakes it. */
#define IO_FLOW_ROUNDS_MAX 4u

/* --- io --- */

/* One send. The kernel gives one that had to wait 128 times to a thread of its own; a peer whose window opens
 * by 16 KiB at a time stays below that for 2 MiB. Far above what is worth sending at once. */
#define IO_SEND_BYTES_MAX (1u << 20)

/* Kernel threads a ring may have for what can only be done blocking (opening and reading files). */
#define IO_KERNEL_WORKERS_MAX 16u

/* Tries to get a submission entry from a kernel that is out of memory before the operation fails. */
#define IO_SUBMIT_TRIES_MAX 100u

/* --- http --- */

/* One request head, from its first byte to the empty line. A player's is 300 to 900 bytes, a browser's with
 * cookies 2 to 4 KiB; the longest target (8 KiB), as much again for all fields, is 16 KiB, which is also what
 * one connection can make us hold before it has said anything useful: 10,000 slow heads are 160 MiB. */
#define HTTP_REQUEST_HEAD_BYTES_MAX (16u << 10)

/* The request target: 2,000 is what browsers and CDNs agree on, signed prefix and CMCD add at most 2 KiB, and
 * a string to sign (target + 16 bytes) still fits a worker's stack. */
#define HTTP_TARGET_BYTES_MAX (8u << 10)

/* A method's name: the longest registered one, UPDATEREDIRECTREF, has 17 bytes. */
#define HTTP_METHOD_BYTES_MAX 32u

/* Fields of one head. 100 of 10 bytes make the table 1 KB; Apache refuses at the same number. */
#define HTTP_FIELDS_MAX 100u

/* Members of Connection. Each is looked for among all fields, so 32 x 100 comparisons is the worst. */
#define HTTP_CONNECTION_MEMBERS_MAX 32u

/* A response head of an upstream. Offsets in `struct field` are 16 bits, so it is the most they can tell. */
#define HTTP_RESPONSE_HEAD_BYTES_MAX (64u << 10)

/* Chunked bodies: one chunk-size line with its extensions, and all trailer fields together. Extensions are
 * read by nobody, so that more than a few hundred bytes are only ever an attack. */
#define HTTP_CHUNK_LINE_BYTES_MAX 1024u
#define HTTP_TRAILER_BYTES_MAX    (8u << 10)

/* Ranges answered in one response (interfaces.md); more: the whole object. */
#define HTTP_RANGES_MAX 16u

/* Field names one Vary may nominate, and the bytes of their list; more makes a response uncacheable. */
#define HTTP_VARY_NAMES_MAX 8u
#define HTTP_VARY_BYTES_MAX 256u

/* Signing keys valid at once: two while they rotate, times a few products; a lookup reads all of them. */
#define SIGNED_URL_KEYS_MAX      16u
#define SIGNED_URL_KID_BYTES_MAX 32u

/* --- HTTP/2 --- */

/* Bytes of a request's body that a client may send before somebody has read them: what a connection can make us
 * hold, whatever its streams (RFC 9113's own default for both windows). Who uploads gets 64 KiB a round trip,
 * 1.3 MB/s at 50 ms; this is a node that sends. */
#define HTTP2_WINDOW_BYTES 65535u

/* A header block, encoded, and decoded as SETTINGS_MAX_HEADER_LIST_SIZE counts it: what is above
 * HTTP_REQUEST_HEAD_BYTES_MAX is dropped and answered with 431; beyond four times that it is a bomb. */
#define HTTP2_HEAD_BYTES_MAX (4u * HTTP_REQUEST_HEAD_BYTES_MAX)

/* Frames of 16 KiB that such a block can fill are 4; one that comes in more pieces than 8 is made to cost. */
#define HTTP2_CONTINUATIONS_MAX 8u

/* A cookie may come in pieces (RFC 9113, 8.2.3); browsers send one for each cookie, and keep 180 a site. */
#define HTTP2_COOKIES_MAX 256u

/* The dynamic table for our heads: what repeats from answer to answer is about ten fields of 80 bytes with HPACK's own
 * overhead. And the client's table for its heads, RFC 7541's default. */
#define HTTP2_ENCODER_TABLE_BYTES 2048u
#define HTTP2_DECODER_TABLE_BYTES 4096u

/* What is framed ahead of the socket: four DATA frames. More would only let what is urgent wait behind it. */
#define HTTP2_SLAB_BYTES (64u << 10)

/* Slabs of a worker on their way at once: 32 MiB. With more clients that are slow to take theirs, the others get
 * small ones, of two TCP segments with jumbo frames: 10,000 of them are 80 MiB. */
#define HTTP2_SLABS_MAX        512u
#define HTTP2_SLABS_KEEP       8u
#define HTTP2_SLAB_SMALL_BYTES (8u << 10)

/* Streams of a worker for each of its connections_max. A player has one to six under way, and most connections
 * idle; when half of them are in use, a connection gets no more than 8. */
#define HTTP2_STREAMS_PER_CONNECTION 2u

/* Frames that carry nothing: a client has a budget of each kind, which time and useful work refill
 * (http2_guard.c). Bursts are several times what clients do at their worst: a browser that goes away resets each of
 * its 100 streams; one at its start sends six PRIORITY; libraries send two WINDOW_UPDATE for each 4 KiB they read, and
 * one for each stream they open; some ping for each round trip of a download. */
#define HTTP2_RESETS_BURST         300 /* streams reset before their answer; then 30/s, and one for each answer */
#define HTTP2_SETTINGS_ENTRIES_MAX 32  /* of one frame; seven are known */
#define HTTP2_SETTINGS_BURST       30  /* then 1/s: each costs an answer */
#define HTTP2_PINGS_BURST          200 /* then 20/s: each costs an answer */
#define HTTP2_PRIORITIES_BURST     500 /* then 50/s, and four for each request */
#define HTTP2_WINDOW_UPDATES_BURST                                                                           \
    2000 /* then 100/s, four for each DATA that was worth sending or ended a stream and for each 4 KiB in it */
#define HTTP2_EMPTIES_BURST 100 /* DATA without bytes or end; then 10/s */
#define HTTP2_UNKNOWNS_BURST                                                                                 \
    200 /* extensions, and the grease some sprinkle; then 20/s, two for each request */
