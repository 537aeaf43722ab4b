/* Memory for what is small: objects' own parts and short bodies. A general allocator rounds sizes like these
 * up by 30 bytes each, a third of all that an object costs. Slots of one size lie together in slabs, which
 * are runs of pages.h; what is known of a slab is kept apart from it (SLAB_META_BYTES), so that 16 bodies of
 * 1 KiB fill 16 KiB. A slab goes back when its last slot does. Thread-safe; its lock is held for a few
 * instructions.
 *
 * Keeps no budget and takes no memory: the caller brings each slab, and gets it back. */
#pragma once

#include "cache/pages.h"

#include <stddef.h>
#include <stdint.h>

#define SLAB_SLOTS_MIN  5u  /* of a slab; what is larger is not for here */
#define SLAB_META_BYTES 24u /* kept of each */

struct slab;

/* slab_bytes_max: one or several pages, at most 64 KiB; out of `reserved_bytes` of pages. NULL without
 * memory. */
struct slab *slab_new(struct pages *pages, size_t slab_bytes_max, uint64_t reserved_bytes);
void slab_free(struct slab *s); /* it must be empty */

size_t slab_slot_max(const struct slab *s); /* the largest slot */
/* Of a slab for slots of this size. */
size_t slab_run_bytes(const struct slab *s, size_t bytes);

/* Aligned to 8. NULL when there is no free slot of this size: then slab_add. */
void *slab_get(struct slab *s, size_t bytes);
/* Takes over a run of slab_run_bytes for slots of this size. */
void slab_add(struct slab *s, size_t bytes, char **run);
/* A run that was added and never used, since another slot came free meanwhile, or NULL. */
char *slab_take_unused(struct slab *s);
/* Gives back a slot. Returns the slab, the caller's again, when it was the last of it; or NULL. */
char *slab_put(struct slab *s, void *slot);

/* Of the slot that this is. */
size_t slab_slot_bytes(const struct slab *s, const void *slot);
/* What of the slabs is in no slot that is in use, and what is kept of them. */
uint64_t slab_unused_bytes(struct slab *s);

/* What a slot of this size takes: steps of 8 bytes, of 64 above 1 KiB, where fewer sizes share more slabs. */
static inline size_t slab_rounded(size_t bytes)
{
    size_t step = bytes <= 1024 ? 8 : 64;
    return (bytes + step - 1) & ~(step - 1);
}
