/* Whether bytes are whole values of the MaxMind DB format (specification 2.0, "Output Data Section"): each within the
 * section, nested no deeper than GEO_DEPTH_MAX, its pointers to other whole values. Pure but for a bitmap of what has
 * been judged, which makes judging all records of a database take one look at each byte. For net/geo.c. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GEO_SEPARATOR_BYTES 16 /* NULs between search tree and data */
#define GEO_DEPTH_MAX       16 /* MaxMind's records nest 4 deep */

struct geo_check {
    const uint8_t *section;
    size_t n;
    uint8_t *judged;   /* a bit for each byte at which a good value begins */
    size_t steps_left; /* a file whose values overlap could ask for more looks than anybody waits for */
};

/* 0 or -ENOMEM. The section is borrowed. */
int geo_check_init(struct geo_check *check, const uint8_t *section, size_t n);
void geo_check_free(struct geo_check *check);

/* Whether a good value begins there. */
bool geo_check_value(struct geo_check *check, uint64_t offset);

/* Whether a file has metadata, and they are what the specification has: a map of scalars, of lists of texts, and of
 * maps of texts, with no container behind a pointer (the library unfolds those, and leaks where it does not find
 * texts). */
bool geo_check_metadata(const uint8_t *file, size_t n);
