#include "cache/slab.h"

#include "cache/poison.h"
#include "util/check.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>

#define SLAB_MAGIC     0x534c4142
#define SLAB_BYTES_MAX 65536u
#define CLASSES        (SLAB_BYTES_MAX / SLAB_SLOTS_MIN / 8 + 1)
#define SHORT_SLOT     512u
#define LITTLE_WASTE   2048u  /* in 65,536ths */
#define NONE           0u     /* no slab has this number */
#define NO_SLOT        0xffff /* ends the list of those given back */

/* Of one slab, found from a slot by the number of its run. */
struct page {
    char *run;           /* NULL: free, and `next` is the next such */
    uint32_t next, prev; /* in its class, while it has a free slot */
    uint16_t slot_eighths;
    uint16_t free_head;  /* slots given back, linked through their first bytes */
    uint16_t used, made; /* slots in use; slots ever given out, the rest was never touched */
};

_Static_assert(sizeof(struct page) == SLAB_META_BYTES, "what slab.h says");

struct slab {
    uint32_t magic;
    size_t slab_bytes_max;
    struct pages *pages;
    pthread_mutex_t lock;
    struct page *at; /* by number; address space that is used as far as there are slabs */
    uint32_t numbers_n, numbers_made, free_numbers;
    uint64_t unused_bytes;
    uint32_t slabs;
    uint32_t classes[CLASSES]; /* slabs with a free slot, by eighth of their slot's size */
};

static uint64_t at_bytes(const struct slab *s)
{
    return (uint64_t)s->numbers_n * sizeof *s->at;
}

struct slab *slab_new(struct pages *pages, size_t slab_bytes_max, uint64_t reserved_bytes)
{
    CHECK(slab_bytes_max >= PAGE_BYTES && slab_bytes_max <= SLAB_BYTES_MAX &&
          slab_bytes_max % PAGE_BYTES == 0);
    struct slab *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->magic = SLAB_MAGIC;
    s->slab_bytes_max = slab_bytes_max;
    s->pages = pages;
    s->numbers_n = (uint32_t)(reserved_bytes / PAGE_BYTES) + 1;
    s->numbers_made = 1;
    s->at =
        mmap(NULL, at_bytes(s), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s->at == MAP_FAILED || pthread_mutex_init(&s->lock, NULL) != 0) {
        if (s->at != MAP_FAILED)
            munmap(s->at, at_bytes(s));
        free(s);
        return NULL;
    }
    return s;
}

void slab_free(struct slab *s)
{
    CHECK_MAGIC(s, SLAB_MAGIC);
    CHECK(s->slabs == 0);
    munmap(s->at, at_bytes(s));
    pthread_mutex_destroy(&s->lock);
    s->magic = 0;
    free(s);
}

/* The length that wastes least, and for slots that are not small the shortest that wastes little: the fewer
 * slots a slab has, the sooner it is empty and serves others. */
size_t slab_run_bytes(const struct slab *s, size_t bytes)
{
    size_t slot_bytes = slab_rounded(bytes), best = s->slab_bytes_max, best_waste = SIZE_MAX;

    for (size_t n = s->slab_bytes_max; n >= PAGE_BYTES && n >= slot_bytes; n -= PAGE_BYTES) {
        size_t waste = (n % slot_bytes + SLAB_META_BYTES) * 65536 / n;
        if (waste < best_waste || (slot_bytes > SHORT_SLOT && waste <= LITTLE_WASTE)) {
            best = n;
            best_waste = waste;
        }
    }
    return best;
}

size_t slab_slot_max(const struct slab *s)
{
    size_t n = s->slab_bytes_max / SLAB_SLOTS_MIN;
    return n & ~(size_t)(n <= 1024 ? 7 : 63);
}

uint64_t slab_unused_bytes(struct slab *s)
{
    pthread_mutex_lock(&s->lock);
    uint64_t n = s->unused_bytes + (uint64_t)s->slabs * SLAB_META_BYTES;
    pthread_mutex_unlock(&s->lock);
    return n;
}

static size_t slot_bytes_of(const struct page *p)
{
    return (size_t)p->slot_eighths * 8;
}

static size_t run_bytes_of(const struct slab *s, const struct page *p)
{
    return slab_run_bytes(s, slot_bytes_of(p));
}

static bool has_free_slot(const struct slab *s, const struct page *p)
{
    return p->free_head != NO_SLOT || (p->made + 1u) * slot_bytes_of(p) <= run_bytes_of(s, p);
}

static void class_add(struct slab *s, struct page *p)
{
    uint32_t *first = &s->classes[p->slot_eighths], number = (uint32_t)(p - s->at);

    p->next = *first;
    p->prev = NONE;
    if (*first != NONE)
        s->at[*first].prev = number;
    *first = number;
}

static void class_remove(struct slab *s, const struct page *p)
{
    if (p->next != NONE)
        s->at[p->next].prev = p->prev;
    if (p->prev != NONE)
        s->at[p->prev].next = p->next;
    else
        s->classes[p->slot_eighths] = p->next;
}

void slab_add(struct slab *s, size_t bytes, char **run)
{
    CHECK_MAGIC(s, SLAB_MAGIC);
    size_t run_bytes = pages_run_bytes(s->pages, *run);
    CHECK(bytes > 0 && bytes <= slab_slot_max(s) && run_bytes == slab_run_bytes(s, bytes));
    POISON(*run, run_bytes);
    pthread_mutex_lock(&s->lock);
    uint32_t number = s->free_numbers;
    if (number != NONE)
        s->free_numbers = s->at[number].next;
    else
        number = s->numbers_made++;
    CHECK(number < s->numbers_n); /* there are as many as the pages have room for */
    pages_number_set(s->pages, *run, number);
    s->at[number] = (struct page){
        .run = TAKE(run), .slot_eighths = (uint16_t)(slab_rounded(bytes) / 8), .free_head = NO_SLOT};
    class_add(s, &s->at[number]);
    s->slabs++;
    s->unused_bytes += run_bytes;
    pthread_mutex_unlock(&s->lock);
}

void *slab_get(struct slab *s, size_t bytes)
{
    CHECK_MAGIC(s, SLAB_MAGIC);
    CHECK(bytes > 0 && bytes <= slab_slot_max(s));
    size_t slot_bytes = slab_rounded(bytes);
    char *slot = NULL;

    pthread_mutex_lock(&s->lock);
    uint32_t number = s->classes[slot_bytes / 8];
    if (number != NONE) {
        struct page *p = &s->at[number];
        bool again = p->free_head != NO_SLOT;
        slot = p->run + (again ? p->free_head : p->made++) * slot_bytes;
        UNPOISON(slot, slot_bytes);
        if (again)
            p->free_head = *(uint16_t *)(void *)slot;
        POISON(slot + bytes, slot_bytes - bytes);
        p->used++;
        s->unused_bytes -= slot_bytes;
        if (!has_free_slot(s, p))
            class_remove(s, p);
    }
    pthread_mutex_unlock(&s->lock);
    return slot;
}

/* Under the lock. Its run is the caller's. */
static char *slab_remove(struct slab *s, struct page *p)
{
    class_remove(s, p);
    p->next = s->free_numbers;
    s->free_numbers = (uint32_t)(p - s->at);
    s->slabs--;
    s->unused_bytes -= run_bytes_of(s, p);
    UNPOISON(p->run, run_bytes_of(s, p));
    return TAKE(&p->run);
}

static struct page *page_of(const struct slab *s, const void *slot)
{
    CHECK_MAGIC(s, SLAB_MAGIC);
    uint32_t number = pages_number(s->pages, slot);
    CHECK(number != NONE && number < s->numbers_n);
    return &s->at[number];
}

size_t slab_slot_bytes(const struct slab *s, const void *slot)
{
    return slot_bytes_of(page_of(s, slot));
}

char *slab_put(struct slab *s, void *slot)
{
    struct page *p = page_of(s, slot);
    size_t slot_bytes = slot_bytes_of(p), offset = (size_t)((char *)slot - p->run);
    char *run = NULL;

    pthread_mutex_lock(&s->lock);
    CHECK(p->used > 0 && offset % slot_bytes == 0);
    if (!has_free_slot(s, p))
        class_add(s, p);
    UNPOISON(slot, slot_bytes);
    *(uint16_t *)slot = p->free_head;
    p->free_head = (uint16_t)(offset / slot_bytes);
    POISON(slot, slot_bytes);
    p->used--;
    s->unused_bytes += slot_bytes;
    if (p->used == 0)
        run = slab_remove(s, p);
    pthread_mutex_unlock(&s->lock);
    return run;
}

char *slab_take_unused(struct slab *s)
{
    char *run = NULL;

    CHECK_MAGIC(s, SLAB_MAGIC);
    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 1; i < s->numbers_made && !run; i++) {
        if (s->at[i].run && s->at[i].used == 0)
            run = slab_remove(s, &s->at[i]);
    }
    pthread_mutex_unlock(&s->lock);
    return run;
}
