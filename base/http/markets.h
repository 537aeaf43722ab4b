/* Sets of markets (interfaces.md, "Signed URLs"): "SE,NO" is these, "-US,CA" all but these; ISO 3166-1 alpha-2, upper
 * case. What a signed URL's `geo`, a rule's `markets` and a line of a rights file say is judged here and nowhere else.
 * Pure; a set is a plain value. */
#pragma once

#include "util/str.h"

#define MARKETS_WORDS 11 /* 26 x 26 pairs of letters, a bit each */

struct markets {
    uint64_t bits[MARKETS_WORDS];
};

/* Returns 0, or -EINVAL: not two upper-case letters each, a comma between two, with or without a "-" before the first.
 * Which pairs of letters are countries is not looked at: the list changes. *out is set on success only. */
int markets_parse(struct str text, struct markets *out);

/* country is two upper-case letters, or anything else where it is not known: then no set allows it, not even one of
 * all but a few. */
bool markets_allow(const struct markets *markets, struct str country);

/* Two upper-case letters. */
bool markets_is_country(struct str s);

#define MARKETS_EXPECTED "markets such as SE,NO, or with a - first all but those, such as -US,CA"
