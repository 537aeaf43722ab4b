/* Inside of signed_url: one token's parameters as they stand in a URL, and the string that is signed. Shared
 * by verifying and signing, so that both build the same string; nobody else includes it. */
#pragma once

#include "http/signed_url.h"

/* In the order in which they are signed, so that a loop over them is sorted by name. */
enum signed_url_param {
    TOKEN_EXP,
    TOKEN_GEO,
    TOKEN_IP,
    TOKEN_KID,
    TOKEN_RATE,
    TOKEN_UID,
    TOKEN_SORTED_COUNT,
    TOKEN_PFX = TOKEN_SORTED_COUNT, /* its line is the second instead */
    TOKEN_SIG,
    TOKEN_DEPTH, /* path form only */
    TOKEN_PARAM_COUNT,
};

struct signed_url_token {
    uint32_t present;                           /* 1 << enum signed_url_param */
    struct str value[TOKEN_PARAM_COUNT];        /* as sent, where present */
    struct str decoded[TOKEN_SORTED_COUNT + 1]; /* in scratch; STR_NONE where not present */
    struct str sig;
    size_t message_n;
};

static inline bool signed_url_token_has(const struct signed_url_token *token, enum signed_url_param param)
{
    return (token->present >> param & 1) != 0;
}

/* May this byte be in a signed value? */
bool signed_url_value_byte(unsigned char byte);

struct str signed_url_param_name(enum signed_url_param param);

/* The parameters of the one place there is a token: OK, MISSING, TWO_TOKENS, REPEATED, NO_EXP, or MALFORMED.
 * With depth, pfx is set to the part of the path that it means. */
enum signed_url_result signed_url_token_read(const struct signed_url_parts *parts,
                                             struct signed_url_token *token);

/* Decodes the values and writes the string to sign to scratch, with room for hmac_sha256 after it. OK or
 * MALFORMED. */
enum signed_url_result signed_url_token_message(struct signed_url_token *token, struct str path,
                                                struct signed_url_scratch *scratch);

/* 43 canonical base64url characters (RFC 4648, 5). Returns 0 or -EINVAL. */
int signed_url_sig_decode(struct str sig, uint8_t mac[static HMAC_BYTES]);
void signed_url_sig_encode(const uint8_t mac[static HMAC_BYTES], char sig[static SIGNED_URL_SIG_BYTES]);

/* The index of a kid; kid.p NULL: the default key, or the only one. -ENOENT when there is none. */
int signed_url_keys_find(const struct signed_url_keys *keys, struct str kid);
