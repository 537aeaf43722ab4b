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
