/* The memory tier: all objects that can be served without I/O, by key, within one budget of bytes. Shared by
 * all workers; its shards' locks are held for a lookup, an insert or one eviction, and never while anything
 * is waited for or freed.
 *
 * The budget counts everything that is allocated for objects: bodies (also of fills under way), structs with
 * key and head, index and ghosts, each as it is rounded, and memory that lies idle between bodies (pages.h;
 * evictions leave at most a 32nd of the tier and 256 MiB of it). So it is what the tier has resident. It is
 * never exceeded: what does not fit evicts, and when nothing more can go (all that is left is being read or
 * filled) the reservation fails and the caller passes its response through. Eviction steps over what is being
 * read, since that would free nothing; an object that is replaced or removed leaves the index at once and its
 * memory with its last reader.
 *
 * A fill:
 *
 *     body = memory_body_new(m, bytes);  NULL: pass through
 *     ... the bytes arrive ...
 *     memory_object_new(m, &spec, &body, bytes, &object);
 *     memory_insert(m, object);
 *     object_unref(m, &object);
 *
 * A hit:
 *
 *     object = memory_lookup(m, &key, slice, &select);
 *     ...
 *     object_unref(m, &object);
 *
 * Vary and slices: an object that varies, or is one slice of several, is found only through its key's marker:
 * a small object that holds the names in Vary, the bounded list of variants, and the epoch before which none
 * counts. So taking out the marker takes out all of a key at once, however many slices there are; they leave
 * by eviction. Lookups and inserts do this by themselves. */
#pragma once

#include "cache/key.h"
#include "cache/object.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct memory;

struct memory_config {
    uint64_t size_bytes;
    unsigned shards; /* a power of two; 0: chosen by size */
};

/* Asks for the variant that a request selects: the hash of the request's values of these fields, never 0. A `hash`
 * that is NULL asks for the newest variant, for who looks without a request. */
struct variant_select {
    uint64_t (*hash)(void *context, struct str vary);
    void *context;
};

struct memory_stats {
    uint64_t size_bytes;
    uint64_t objects;
    uint64_t bytes;         /* all that counts against the budget, but for idle_bytes */
    uint64_t idle_bytes;    /* resident between bodies, for the next that fits */
    uint64_t indexed_bytes; /* of objects in the index */
    uint64_t index_bytes;
    uint64_t detached_bytes; /* the rest: fills under way, objects replaced or evicted and still being read */
    uint64_t hits, misses;
    uint64_t insertions, replacements, removals, evictions, ghost_hits;
    uint64_t refused; /* reservations that failed */
};

/* NULL with errno when there is no memory or the size is below MEMORY_BYTES_MIN. */
#define MEMORY_BYTES_MIN (4u * 1024u * 1024u)
struct memory *memory_new(const struct memory_config *config);
/* No reader, no fill may be left. */
void memory_free(struct memory **memory);

/* Memory for a body, charged; evicts to make room. NULL when it cannot be had: then pass the response
 * through. A body is at most CACHE_SLICE_BYTES, and at most an eighth of the tier. Not NULL for 0 bytes: it
 * is freed the same way. */
char *memory_body_new(struct memory *m, size_t bytes);
/* Gives back a body that became no object. */
void memory_body_free(struct memory *m, char **body);

/* An object with one reference, the caller's; in no index yet. Takes *body on success only. Returns 0,
 * -E2BIG, -EINVAL (object_spec_check) or -ENOMEM. */
int memory_object_new(struct memory *m, const struct object_spec *spec, char **body, size_t body_bytes,
                      struct object **out);
/* As above, over the body of `old` (RFC 9111, 4.3.4): a short body is copied, a longer one shared. */
int memory_object_renew(struct memory *m, const struct object_spec *spec, struct object *old,
                        struct object **out);
void object_unref(struct memory *m, struct object **object);

/* A reference to what may answer, or NULL. Freshness is the caller's to judge. `select` may be NULL: then a
 * response that varies is not found. An object whose fill began before the purge floor is not found and goes.
 */
struct object *memory_lookup(struct memory *m, const struct cache_key *key, uint32_t slice,
                             const struct variant_select *select);

/* Puts it in the index (which takes a reference of its own), in place of what was there under its identity.
 * All slices of a representation carry one validator; that is the caller's to see to. Returns 0, -ENOMEM, or
 * -ESTALE when its fill began before the purge floor; the caller keeps its reference in any case. */
int memory_insert(struct memory *m, struct object *object);

/* Puts `object` in place of `old`, if that is still what the index holds. Returns 0, or -ENOENT when it no
 * longer is. */
int memory_replace(struct memory *m, struct object *old, struct object *object);

/* Takes out this very object, if the index still holds it. */
void memory_remove(struct memory *m, struct object *object);

/* Takes out all of a key, with every variant and slice. Returns the epoch from now on: a fill that found
 * another validator than the stored slices have calls this and takes this epoch for its own object. */
uint64_t memory_remove_key(struct memory *m, const struct cache_key *key);

/* The epoch of a fill that begins now, and the floor below which nothing is found. Purge by prefix and tag
 * will keep its table beside these. */
uint64_t memory_epoch(const struct memory *m);
void memory_purge_all(struct memory *m);

void memory_stats(const struct memory *m, struct memory_stats *out);
