#include "peers.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define NEVER UINT32_MAX

static void *must(void *p)
{
    if (!p) {
        perror("trace");
        exit(1);
    }
    return p;
}

struct lru_link {
    uint32_t newer, older;
};

/* Number objects_n is the sentinel: its `older` is the newest, its `newer` the oldest. */
static void lru_unlink(struct lru_link *l, uint32_t i)
{
    l[l[i].newer].older = l[i].older;
    l[l[i].older].newer = l[i].newer;
    l[i].newer = l[i].older = NEVER;
}

static void lru_push(struct lru_link *l, uint32_t sentinel, uint32_t i)
{
    l[i].newer = sentinel;
    l[i].older = l[sentinel].older;
    l[l[i].older].newer = i;
    l[sentinel].older = i;
}

struct trace_result peer_lru(const struct trace *t, uint64_t capacity_bytes)
{
    struct trace_result r = {0};
    uint32_t sentinel = t->objects_n;
    struct lru_link *l = must(malloc((t->objects_n + 1ull) * sizeof *l));
    uint64_t used = 0;

    for (uint32_t i = 0; i <= sentinel; i++)
        l[i].newer = l[i].older = i == sentinel ? sentinel : NEVER;
    for (uint64_t n = 0; n < t->requests_n; n++) {
        uint32_t i = t->requests[n];
        if (l[i].newer != NEVER) { // NOLINT(clang-analyzer-core.*): the loop above set them all
            lru_unlink(l, i);
        } else {
            r.misses++;
            r.missed_bytes += t->bytes[i];
            used += t->bytes[i];
            while (used > capacity_bytes) {
                uint32_t oldest = l[sentinel].newer;
                used -= t->bytes[oldest];
                lru_unlink(l, oldest);
            }
        }
        lru_push(l, sentinel, i);
    }
    free(l);
    return r;
}

/* A heap by next use, farthest on top. A use leaves its old entry behind, which is told by its time. */
struct heap_entry {
    uint32_t next_use, object;
};

struct heap {
    struct heap_entry *at;
    uint64_t n;
};

static void heap_push(struct heap *h, struct heap_entry e)
{
    uint64_t i = h->n++;
    for (; i > 0 && h->at[(i - 1) / 2].next_use < e.next_use; i = (i - 1) / 2)
        h->at[i] = h->at[(i - 1) / 2];
    h->at[i] = e;
}

static struct heap_entry heap_pop(struct heap *h)
{
    struct heap_entry top = h->at[0], last = h->at[--h->n];
    uint64_t i = 0;

    for (;;) {
        uint64_t child = 2 * i + 1;
        if (child >= h->n)
            break;
        // NOLINTNEXTLINE(clang-analyzer-core.*): what is below n was pushed
        if (child + 1 < h->n && h->at[child + 1].next_use > h->at[child].next_use)
            child++;
        if (h->at[child].next_use <= last.next_use)
            break;
        h->at[i] = h->at[child];
        i = child;
    }
    h->at[i] = last;
    return top;
}

struct trace_result peer_belady(const struct trace *t, uint64_t capacity_bytes)
{
    struct trace_result r = {0};
    uint32_t *next = must(malloc(t->requests_n * sizeof *next)); /* of request n: the next one like it */
    uint32_t *use = must(malloc(t->objects_n * sizeof *use));    /* of an object: its next request */
    bool *kept = must(calloc(t->objects_n, sizeof *kept));
    struct heap h = {.at = must(malloc(t->requests_n * sizeof *h.at))};
    uint64_t used = 0;

    for (uint32_t i = 0; i < t->objects_n; i++)
        use[i] = NEVER;
    for (uint64_t n = t->requests_n; n-- > 0;) {
        next[n] = use[t->requests[n]];
        use[t->requests[n]] = (uint32_t)n;
    }
    for (uint64_t n = 0; n < t->requests_n; n++) {
        uint32_t i = t->requests[n];
        if (!kept[i]) {
            r.misses++;
            r.missed_bytes += t->bytes[i];
            used += t->bytes[i];
            kept[i] = true;
        }
        use[i] = next[n];
        heap_push(&h, (struct heap_entry){next[n], i});
        while (used > capacity_bytes) {
            struct heap_entry e = heap_pop(&h);
            if (kept[e.object] && use[e.object] == e.next_use) {
                kept[e.object] = false;
                used -= t->bytes[e.object];
            }
        }
    }
    free(next);
    free(use);
    free(kept);
    free(h.at);
    return r;
}
