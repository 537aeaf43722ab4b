/* One shard of the memory tier's index, with its S3-FIFO (Yang et al., SOSP 2023): what is new goes to a
 * small queue; what was read again there moves to the main queue, the rest leaves and is remembered as a
 * ghost; what comes back while its ghost is known goes to main at once. A hit only counts to three; no list
 * is written.
 *
 * An entry is 28 bytes whatever the object is: an id, the charge in bytes, a pointer to the value. Entries
 * lie in chunks and are named by number, so links are 4 bytes; buckets grow one at a time (linear hashing),
 * so no insert ever pays for a rehash. Not thread-safe: memory.h holds the shard's lock. Never follows the
 * value's pointer. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define S3FIFO_NONE        0u         /* no entry */
#define S3FIFO_CHARGE_MAX  (1u << 28) /* bytes of one entry, less one */
#define S3FIFO_ENTRIES_MAX (1u << 30) /* of one shard */

struct s3fifo;

/* An eviction or removal gives back the value; the caller drops it after the lock. */
struct s3fifo_victim {
    void *value;
    uint32_t charge_bytes;
};

struct s3fifo_stats {
    uint64_t entries, bytes, small_bytes;
    uint64_t insertions, ghost_hits, evictions, promotions;
    uint64_t own_bytes; /* of entries, buckets and ghosts */
};

/* NULL without memory. */
struct s3fifo *s3fifo_new(void);
void s3fifo_free(struct s3fifo *s); /* it must be empty */

/* The first entry of this id (after `after`, when it is not S3FIFO_NONE), or S3FIFO_NONE. Ids of 64 bits are
 * kept as 32, so the caller compares the value and goes on when it is another. */
uint32_t s3fifo_find(const struct s3fifo *s, uint64_t id, uint32_t after);
void *s3fifo_value(const struct s3fifo *s, uint32_t entry);
void s3fifo_hit(struct s3fifo *s, uint32_t entry);

/* What the next insert may add to own_bytes: mostly 0. For a caller that must have it granted first. */
size_t s3fifo_growth_bytes(const struct s3fifo *s);
uint64_t s3fifo_own_bytes(const struct s3fifo *s);
/* 0, or -ENOMEM and nothing changed. */
int s3fifo_insert(struct s3fifo *s, uint64_t id, void *value, uint32_t charge_bytes);
/* Another value at the same place, with what it has earned. Returns the old one. */
struct s3fifo_victim s3fifo_replace(struct s3fifo *s, uint32_t entry, void *value, uint32_t charge_bytes);
struct s3fifo_victim s3fifo_remove(struct s3fifo *s, uint32_t entry);
/* The one to go next, taken out. What `in_use` says of a value (it may be NULL) keeps that value, since
 * evicting what is being read frees nothing; value NULL when the shard is empty or all that was looked at is
 * in use. */
struct s3fifo_victim s3fifo_evict(struct s3fifo *s, bool (*in_use)(const void *value));

void s3fifo_stats(const struct s3fifo *s, struct s3fifo_stats *out);
