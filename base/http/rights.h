/* Where what lies under a path may be heard: the file that `rights` names, so that a take-down needs no re-signed URL.
 *
 *     # the longest prefix that fits decides
 *     /tracks/3n3Ppam7           SE,NO,DK      markets, as everywhere (markets.h)
 *     /tracks/3n3Ppam7/preview   all           no restriction
 *     /tracks/5HCyWlXZ           none          taken down, for everybody
 *
 * One entry a line, a prefix and its markets with white space between them; '#' begins a comment at the begin of a line
 * or after the markets. A prefix is whole segments: /tracks/ab does not hold for /tracks/abc; a "/" at its end means
 * nothing. Paths and prefixes are compared decoded, so that another spelling leads around nothing. Two entries with one prefix are an error. So is a file that is empty or
 * whose last line does not end: it is probably not all of one.
 *
 * Compiled it is read-only, counted, and shared by all threads: 16 bytes an entry and its text, with one copy of each
 * set of markets. Asking takes one look a segment, no memory, and never more than the longest prefix deep. */
#pragma once

#include "http/markets.h"

#define RIGHTS_FILE_BYTES_MAX   (1024u << 20)
#define RIGHTS_ENTRIES_MAX      (16u << 20) /* a catalogue of 100 million tracks, a sixth of them restricted */
#define RIGHTS_PREFIX_BYTES_MAX 1024u
#define RIGHTS_SETS_MAX         65000u /* different sets of markets in one file */

struct rights;

struct rights_error {
    unsigned line; /* from 1; 0: of the whole file */
    char text[256];
};

/* Returns 0, -EINVAL or -ENOMEM with *error set. */
int rights_parse(struct str text, struct rights **out, struct rights_error *error);

struct rights *rights_ref(struct rights *rights);
void rights_unref(struct rights **rights); /* any thread; NULL is let pass */

enum rights_answer {
    RIGHTS_ALLOWED,
    RIGHTS_NOT_HERE,  /* not in this country, or it is not known which */
    RIGHTS_TAKEN_DOWN /* nowhere */
};

/* path is canonical; country as in markets_allow. */
enum rights_answer rights_check(const struct rights *rights, struct str path, struct str country);

/* The first line that names markets, which need to know the country; 0: there is none. */
unsigned rights_market_line(const struct rights *rights);

size_t rights_entries(const struct rights *rights);
size_t rights_bytes(const struct rights *rights); /* of memory */
