/* Memory for the small part of each object, in steps of 8 bytes: a general allocator rounds sizes like these
 * up by 30 bytes each, a third of all that an object costs. Slots of one size lie together in pages; a page
 * goes back when its last slot does. Thread-safe; its lock is held for a few instructions.
 *
 * Keeps no budget: a page is added only when the caller says so, so that it can be charged first. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define SLAB_BYTES_MAX 1024u /* what is larger is malloc's */

struct slab;

/* page_bytes: a power of two, 4096 to 65536. NULL without memory. */
struct slab *slab_new(size_t page_bytes);
void slab_free(struct slab *s); /* it must be empty */

/* Aligned to 8. NULL when there is no free slot of this size: then slab_grow. */
void *slab_get(struct slab *s, size_t bytes);
/* Adds a page for slots of this size. 0 or -ENOMEM. */
int slab_grow(struct slab *s, size_t bytes);
/* Frees pages that were added and never used, since another slot came free meanwhile. Returns their bytes. */
size_t slab_trim(struct slab *s);
/* Returns the bytes of memory that this set free: a page's or 0. */
size_t slab_put(struct slab *s, void *p, size_t bytes);

size_t slab_page_bytes(const struct slab *s);
/* What of the pages is in no slot that is in use. */
uint64_t slab_unused_bytes(struct slab *s);

/* What a slot of this size takes. */
static inline size_t slab_rounded(size_t bytes)
{
    return (bytes + 7) & ~(size_t)7;
}
