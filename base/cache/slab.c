#include "cache/slab.h"

#include "util/check.h"
#include "util/list.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLAB_POISON 1
#endif
#endif
#ifdef SLAB_POISON
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

#define SLAB_MAGIC 0x534c4142
#define PAGE_MAGIC 0x50414745
#define CLASSES    (SLAB_BYTES_MAX / 8 + 1)

/* At the start of each page, found from a slot by its address. */
struct page {
    struct list node; /* of its class, while it has a free slot */
    void *free_head;  /* slots given back, linked through their first bytes */
    uint32_t magic;
    uint16_t used, made; /* slots in use; slots ever given out, the rest was never touched */
};

struct slab {
    uint32_t magic;
    size_t page_bytes;
    pthread_mutex_t lock;
    uint64_t pages, used_bytes;
    struct list classes[CLASSES]; /* pages with a free slot, by eighth of their slot's size */
};

static size_t slots_in(const struct slab *s, size_t slot_bytes)
{
    return (s->page_bytes - sizeof(struct page)) / slot_bytes;
}

struct slab *slab_new(size_t page_bytes)
{
    CHECK(page_bytes >= 4096 && page_bytes <= 65536 && (page_bytes & (page_bytes - 1)) == 0);
    struct slab *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->magic = SLAB_MAGIC;
    s->page_bytes = page_bytes;
    for (unsigned i = 0; i < CLASSES; i++)
        list_init(&s->classes[i]);
    if (pthread_mutex_init(&s->lock, NULL) != 0) {
        free(s);
        return NULL;
    }
    return s;
}

void slab_free(struct slab *s)
{
    CHECK_MAGIC(s, SLAB_MAGIC);
    CHECK(s->pages == 0);
    pthread_mutex_destroy(&s->lock);
    s->magic = 0;
    free(s);
}

size_t slab_page_bytes(const struct slab *s)
{
    return s->page_bytes;
}

uint64_t slab_unused_bytes(struct slab *s)
{
    pthread_mutex_lock(&s->lock);
    uint64_t n = s->pages * s->page_bytes - s->used_bytes;
    pthread_mutex_unlock(&s->lock);
    return n;
}

int slab_grow(struct slab *s, size_t bytes)
{
    CHECK_MAGIC(s, SLAB_MAGIC);
    CHECK(bytes > 0 && bytes <= SLAB_BYTES_MAX);
    struct page *p = aligned_alloc(s->page_bytes, s->page_bytes);
    if (!p)
        return -ENOMEM;
    *p = (struct page){.magic = PAGE_MAGIC};
    ASAN_POISON_MEMORY_REGION(p + 1, s->page_bytes - sizeof *p);
    pthread_mutex_lock(&s->lock);
    s->pages++;
    list_push_back(&s->classes[slab_rounded(bytes) / 8], &p->node);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

void *slab_get(struct slab *s, size_t bytes)
{
    CHECK_MAGIC(s, SLAB_MAGIC);
    CHECK(bytes > 0 && bytes <= SLAB_BYTES_MAX);
    size_t slot_bytes = slab_rounded(bytes);
    struct list *class = &s->classes[slot_bytes / 8];
    void *slot = NULL;

    pthread_mutex_lock(&s->lock);
    if (!list_empty(class)) {
        struct page *p = LIST_ENTRY(class->next, struct page, node);
        slot = p->free_head;
        if (!slot)
            slot = (char *)(p + 1) + p->made++ * slot_bytes;
        ASAN_UNPOISON_MEMORY_REGION(slot, slot_bytes);
        if (p->free_head)
            p->free_head = *(void **)slot;
        p->used++;
        s->used_bytes += slot_bytes;
        if (!p->free_head && p->made == slots_in(s, slot_bytes))
            list_remove(&p->node);
    }
    pthread_mutex_unlock(&s->lock);
    return slot;
}

static void page_free(struct slab *s, struct page *p)
{
    ASAN_UNPOISON_MEMORY_REGION(p, s->page_bytes);
    p->magic = 0;
    free(p);
}

size_t slab_put(struct slab *s, void *slot, size_t bytes)
{
    CHECK_MAGIC(s, SLAB_MAGIC);
    struct page *p = (struct page *)((uintptr_t)slot & ~(uintptr_t)(s->page_bytes - 1));
    size_t slot_bytes = slab_rounded(bytes);
    bool empty;

    CHECK_MAGIC(p, PAGE_MAGIC);
    pthread_mutex_lock(&s->lock);
    CHECK(p->used > 0 && ((size_t)((char *)slot - (char *)(p + 1))) % slot_bytes == 0);
    if (!p->free_head && p->made == slots_in(s, slot_bytes)) /* it was full */
        list_push_front(&s->classes[slot_bytes / 8], &p->node);
    *(void **)slot = p->free_head;
    p->free_head = slot;
    ASAN_POISON_MEMORY_REGION(slot, slot_bytes);
    p->used--;
    s->used_bytes -= slot_bytes;
    empty = p->used == 0;
    if (empty) {
        list_remove(&p->node);
        s->pages--;
    }
    pthread_mutex_unlock(&s->lock);
    if (!empty)
        return 0;
    page_free(s, p);
    return s->page_bytes;
}

size_t slab_trim(struct slab *s)
{
    size_t bytes = 0;

    CHECK_MAGIC(s, SLAB_MAGIC);
    pthread_mutex_lock(&s->lock);
    for (unsigned i = 0; i < CLASSES; i++) {
        LIST_EACH (&s->classes[i], node) {
            struct page *p = LIST_ENTRY(node, struct page, node);
            if (p->used > 0)
                continue;
            list_remove(node);
            page_free(s, p);
            s->pages--;
            bytes += s->page_bytes;
        }
    }
    pthread_mutex_unlock(&s->lock);
    return bytes;
}
