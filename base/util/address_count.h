/* How many of something (connections) each of many has at this moment: counters in a table of fixed size that all
 * threads share without a lock. Keys are hashes with this process's secret. Pure; it owns nothing but its memory.
 *
 * Who enters gets a slot and gives it back when it leaves. A counter belongs to its key while it is above 0, so that
 * leaving finds it without looking for the key and cannot fail: what was counted is always taken back exactly.
 *
 * A key's places are the eight words of one cache line. When other keys hold them all, it is not counted and the
 * caller lets it in (and counts that). Threads that enter for one key in the same instant may together exceed the
 * maximum by one each, and that only when a place becomes free in between. */
#pragma once

#include "util/hash.h"

#include <stddef.h>
#include <stdint.h>

#define ADDRESS_COUNT_WAYS        8
#define ADDRESS_COUNT_ENTRY_BYTES 8
#define ADDRESS_COUNT_MAX         ((1u << 20) - 1) /* of one key */

struct address_count;

/* Places are at least `entries`, rounded up to a power of two; memory is touched as it is used. NULL: no memory. */
struct address_count *address_count_create(size_t entries);
void address_count_destroy(struct address_count **t);

/* 0: counted, and *slot is to be given back. Else *slot is 0: -EUSERS when the key has `max` (1 to
 * ADDRESS_COUNT_MAX) already, -ENOSPC when there is no place. */
int address_count_enter(struct address_count *t, struct hash128 key, unsigned max, uint32_t *slot);

/* Leaves 0 in *slot; of 0 it does nothing. */
void address_count_leave(struct address_count *t, uint32_t *slot);

/* All that are counted: exact while nobody enters or leaves. Reads the whole table. */
uint64_t address_count_sum(const struct address_count *t);
