/* Common Media Client Data (CTA-5004): what a player tells of itself with each request, in the query parameter
 * `CMCD` or in the fields CMCD-Object, CMCD-Request, CMCD-Session and CMCD-Status; both are dictionaries of
 * structured fields (http/structured.h). Pure.
 *
 * It is advice from a stranger: what is malformed, out of bounds or unknown is left out, and nothing fails. A
 * payload that is no dictionary is left out whole. */
#pragma once

#include "http/fields.h"
#include "util/buf.h"

enum cmcd_key {
    CMCD_BR,  /* encoded bitrate, kbit/s */
    CMCD_BL,  /* buffer length, ms */
    CMCD_BS,  /* the buffer ran empty before this request */
    CMCD_CID, /* content */
    CMCD_D,   /* duration of the object, ms */
    CMCD_DL,  /* deadline: the buffer runs empty, ms */
    CMCD_MTP, /* measured throughput, kbit/s */
    CMCD_NOR, /* path of the next object, relative to this one's, percent-encoded */
    CMCD_NRR, /* range of the next object: "0-4095" */
    CMCD_OT,  /* object type: a m v av i c tt k o */
    CMCD_PR,  /* playback rate, thousandths: 0 is stopped */
    CMCD_RTP, /* requested maximum throughput, kbit/s: more is of no use to it */
    CMCD_SF,  /* streaming format: d h s o */
    CMCD_SID, /* session */
    CMCD_ST,  /* stream type: v l */
    CMCD_SU,  /* needed urgently: startup, seek, or an empty buffer */
    CMCD_TB,  /* top bitrate, kbit/s */
    CMCD_V,   /* version of the specification */
    CMCD_KEYS
};

#define CMCD_NUMBER_MAX   UINT32_MAX
#define CMCD_ID_BYTES_MAX 64 /* sid and cid */

struct cmcd {
    uint32_t present;           /* a bit for each enum cmcd_key */
    uint32_t number[CMCD_KEYS]; /* of numbers and flags */
    struct str text[CMCD_KEYS]; /* of strings and tokens, borrowed from the payload */
};

static inline bool cmcd_has(const struct cmcd *c, enum cmcd_key key)
{
    return (c->present >> key & 1) != 0;
}

/* The name of the query parameter, for url_query_keep_all_but and the like. */
extern const struct str cmcd_parameter;

/* A payload, decoded, on top of what *c has; begin with a *c that is all zeros. */
void cmcd_add(struct cmcd *c, struct str payload);

/* All of a request: fields first, then the parameter, which is decoded into `scratch` (query.n bytes suffice; what
 * does not fit is left out). Texts live as long as head and scratch. */
void cmcd_of_request(const struct fields *fields, const char *head, struct str query, struct buf *scratch,
                     struct cmcd *c);
