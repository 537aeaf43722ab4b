/* The memory of object bodies: runs of whole pages of 4 KiB in one reserved piece of address space. A general
 * allocator rounds bodies up by as much as a quarter (400,000 bytes to 458,752) and keeps 128 bytes for each;
 * here a run is rounded to a page and costs 8 bytes a page, kept apart from the bodies.
 *
 * Address space costs nothing and memory does, so the two are dealt with apart. A run that is given back
 * stays resident ("idle") and is what the next one that fits is cut from; runs that lie idle beside each
 * other are joined. What is idle and fits nothing is returned to the kernel by pages_trim, after which its
 * addresses are free to be joined and used again. So fragmentation can cost no more memory than the owner
 * lets lie idle, and never makes a run impossible while there is memory for it: nothing must be moved, and
 * nothing evicted for being a neighbour.
 *
 * Kept without huge pages: they would make it impossible to return less than 2 MiB (khugepaged fills holes up
 * again), and sending from them was no faster (400 KiB at random out of 1.6 GiB over loopback: 48.2 us each
 * with small pages, 48.6 with huge ones).
 *
 * Keeps no budget: the owner charges what pages_take says has become resident and takes off what pages_trim
 * says has gone. Thread-safe. One lock, held for some hundred nanoseconds and never in a system call that
 * touches a body: 64 workers that fill at 1 Gb/s each take and give back 40,000 runs of 200 KB a second,
 * which holds it for a fiftieth of the time. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_BYTES         4096u
#define PAGES_RUN_BYTES    (1u << 20) /* the longest run */
#define PAGES_META_BYTES   8u         /* of a page that was ever used */
#define PAGES_NUMBERS      (1u << 29)
#define PAGES_RESERVED_MAX (1ull << 41) /* 2 TiB */

struct pages;

/* Reserves this much address space, at most PAGES_RESERVED_MAX. NULL without it. */
struct pages *pages_new(uint64_t reserved_bytes);
void pages_free(struct pages *p); /* no run may be out */

static inline size_t pages_rounded(size_t bytes)
{
    return (bytes + PAGE_BYTES - 1) & ~(size_t)(PAGE_BYTES - 1);
}

enum pages_from {
    PAGES_IDLE, /* out of what is resident, or not at all */
    PAGES_FRESH /* not resident yet: for when nothing idle fits */
};

/* A run of `bytes`, 1 to PAGES_RUN_BYTES, rounded up; its content is undefined. *resident_bytes is what this
 * adds to what is resident: 0 for PAGES_IDLE, at most pages_rounded plus PAGES_META_BYTES a page. NULL when
 * there is no such run. */
char *pages_take(struct pages *p, enum pages_from from, size_t bytes, size_t *resident_bytes);
/* Its memory is idle from now on. Poisoned under AddressSanitizer. */
void pages_put(struct pages *p, char *run);
/* Returns idle runs to the kernel, until that is `bytes` or more or nothing is idle. Returns how much it was.
 */
uint64_t pages_trim(struct pages *p, uint64_t bytes);
uint64_t pages_idle_bytes(const struct pages *p);
/* For what is kept of pages, now and at most of all times. */
uint64_t pages_own_bytes(const struct pages *p);

/* The length of the run that begins there. */
size_t pages_run_bytes(const struct pages *p, const char *run);

/* A run may carry a number, 1 to PAGES_NUMBERS - 1, that is found by any address in the run. 0: it has none,
 * which is told only by the run's first address. */
void pages_number_set(struct pages *p, char *run, uint32_t number);
uint32_t pages_number(const struct pages *p, const void *address);
