/* The country of an address, from a MaxMind DB file (its specification, version 2.0) by libmaxminddb. Both shapes of
 * records are read: `country.iso_code` as MaxMind's, and a flat `country_code`.
 *
 * A file is copied into sealed memory before anything looks at it, so that one which is overwritten or truncated
 * later cannot reach us. The copy is judged whole: every record of the search tree and every byte that can be reached
 * from it. The library trusts more than a damaged file deserves (it steps over nested maps by recursion without a
 * limit), and so a lookup only ever walks what has been judged.
 *
 * An open database is read-only, counted, and shared by all threads. Opening blocks and is for the control thread. */
#pragma once

#include "util/ip.h"

#define GEO_FILE_BYTES_MAX (512u << 20) /* the largest that is sold has about 300 MiB */
#define GEO_ERROR_BYTES    512

struct geo;

/* Reads what fd stands at to its end; the caller closes it. Returns 0, or a negative errno and in *error what is
 * wrong with it (without its name): -EINVAL (no database, damaged, or one without countries), -EFBIG, or what the
 * kernel said. */
int geo_open(int fd, struct geo **out, char error[GEO_ERROR_BYTES]);

struct geo *geo_ref(struct geo *geo);
void geo_unref(struct geo **geo); /* any thread; NULL is let pass */

/* Writes two upper-case letters, or two NULs and returns false: not known. */
bool geo_country(const struct geo *geo, const struct ip *address, char country[2]);

/* Of this database and of no other that the process has had; never 0. Who keeps an answer keeps this with it. */
uint32_t geo_serial(const struct geo *geo);

uint64_t geo_build_unix_s(const struct geo *geo);
struct str geo_type(const struct geo *geo); /* "GeoLite2-Country" */
