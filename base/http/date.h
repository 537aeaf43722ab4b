/* HTTP dates (RFC 9110, 5.6.7). No locale, no time zone database, no libc calendar. */
#pragma once

#include "util/str.h"

#define DATE_BYTES 29 /* "Sun, 06 Nov 1994 08:49:37 GMT" */

/* IMF-fixdate of Unix seconds, not terminated. Outside years 1 to 9999 it is the nearest date inside. */
void date_format(int64_t unix_s, char out[static DATE_BYTES]);

/* All three forms: IMF-fixdate, RFC 850 (its two-digit year is at most 50 years ahead of now_s) and asctime.
 * The weekday must be a weekday's name and is otherwise not believed. A leap second (60) is the next second.
 * Returns 0, or -EINVAL. */
int date_parse(struct str text, int64_t now_s, int64_t *unix_s);
