/* HMAC-SHA-256 (RFC 2104) from the two states that a key leads to, so that a short message costs three or
 * four blocks of SHA-256 and nothing else. The key's secret is not kept. Nothing allocates; a key is
 * read-only once made, and may be shared by threads. */
#pragma once

#include "util/str.h"

#define HMAC_BYTES      32
#define HMAC_ROOM_BYTES 72 /* what hmac_sha256 may write after the message: one block's worth of padding */

struct hmac_key {
    uint32_t inner[8], outer[8];
};

void hmac_key_init(struct hmac_key *key, struct str secret);

/* The message is padded in place: HMAC_ROOM_BYTES after its n bytes are overwritten. */
void hmac_sha256(const struct hmac_key *key, uint8_t *message, size_t n, uint8_t mac[static HMAC_BYTES]);

/* In a time that does not depend on where they differ. */
bool hmac_eq(const uint8_t a[static HMAC_BYTES], const uint8_t b[static HMAC_BYTES]);
