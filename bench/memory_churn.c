/* How well the memory tier uses its memory when it is full and bodies of many sizes come and go: bodies of 30
 * to 400 KB, and slices of 1 MiB, one in ten by number. A key is asked for with the skew of a catalogue; a
 * miss is filled. A few of the objects found are read for a while, as by slow clients.
 *
 *     memory_churn [MiB of the tier [fills]]
 */
#include "cache/memory.h"
#include "node/process.h"
#include "util/clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define READ_MAX 32u /* objects held by readers */

static uint64_t seed = 1;

static uint64_t random_next(void)
{
    uint64_t z = (seed += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static uint64_t rss_bytes(void)
{
    struct process_usage usage;
    process_usage(&usage);
    return usage.resident_bytes;
}

static size_t body_bytes_of(uint32_t key)
{
    uint64_t r = key * 0x9e3779b97f4a7c15ull >> 20;
    return r % 10 == 0 ? 1u << 20 : 30000 + r / 10 % 370000;
}

static struct cache_key key_of(uint32_t n, char *memory, size_t cap)
{
    struct buf text = buf_of(memory, cap);
    struct cache_key key;
    char path[64];

    snprintf(path, sizeof path, "/tracks/%08x/segment.ogg", n);
    CHECK(cache_key_make(&text, STR("audio.example"), str_z(path), STR_NONE, &key) == 0);
    return key;
}

/* False when it is refused. */
static bool fill(struct memory *m, const struct cache_key *key, size_t n, uint64_t *ns)
{
    struct object_spec spec = {.key = *key,
                               .head = STR("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nETag: \"1\"\r\n"),
                               .status = 200,
                               .total_bytes = n,
                               .birth_unix_s = 1790000000,
                               .lifetime_s = 31536000,
                               .epoch = memory_epoch(m)};
    struct object *o;
    uint64_t from = clock_mono_ns();
    char *body = memory_body_new(m, n);

    *ns += clock_mono_ns() - from;
    if (!body)
        return false;
    memset(body, 'x', n);
    CHECK(object_head_scan(&spec) == 0 && memory_object_new(m, &spec, &body, n, &o) == 0);
    from = clock_mono_ns();
    CHECK(memory_insert(m, o) == 0);
    object_unref(m, &o);
    *ns += clock_mono_ns() - from;
    return true;
}

/* What lies in the tier, as asked for. */
static uint64_t held_bytes(struct memory *m, uint32_t keys)
{
    uint64_t bytes = 0;
    for (uint32_t n = 0; n < keys; n++) {
        char memory[128];
        struct cache_key key = key_of(n, memory, sizeof memory);
        struct object *o = memory_lookup(m, &key, 0, NULL);
        if (!o)
            continue;
        bytes += o->body_bytes;
        object_unref(m, &o);
    }
    return bytes;
}

int main(int argc, char **argv)
{
    uint64_t size = (argc > 1 ? strtoul(argv[1], NULL, 10) : 1024) << 20, rss = rss_bytes(), rss_max = 0;
    uint32_t fills_max = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 50000;
    uint32_t keys = (uint32_t)(size / 298000) * 4; /* four times what fits */
    struct object *read[READ_MAX] = {NULL};
    uint64_t refused = 0, ns = 0;

    hash_init_fixed(1);
    struct memory *m = memory_new(&(struct memory_config){.size_bytes = size});
    CHECK(m);
    for (uint32_t fills = 0, asked = 0; fills < fills_max; asked++) {
        char memory[128];
        double u = (double)(random_next() >> 11) / 9007199254740992.0;
        uint32_t n = (uint32_t)(pow(u, 2.0) * keys); /* the first keys more often */
        struct cache_key key = key_of(n, memory, sizeof memory);
        struct object *o = memory_lookup(m, &key, 0, NULL);
        if (o) {
            struct object **at = &read[random_next() % READ_MAX];
            if (*at)
                object_unref(m, at);
            *at = o;
            continue;
        }
        refused += !fill(m, &key, body_bytes_of(n), &ns);
        fills++;
        uint64_t now = fills % 64 == 0 ? rss_bytes() - rss : 0;
        rss_max = now > rss_max ? now : rss_max;
        if (fills % (fills_max / 10) == 0) {
            struct memory_stats s;
            memory_stats(m, &s);
            uint64_t held = held_bytes(m, keys);
            struct rusage u0;
            getrusage(RUSAGE_SELF, &u0);
            printf(
                "fills %u evictions %llu refused %llu used %.4f of rss, %.4f of size; rss at most %.4f, idle "
                "%.4f of size; %.1f us a fill, %.1f faults\n",
                fills, (unsigned long long)s.evictions, (unsigned long long)refused,
                (double)held / (double)(rss_bytes() - rss), (double)held / (double)size,
                (double)rss_max / (double)size, (double)s.idle_bytes / (double)size,
                (double)ns / 1000.0 / fills, (double)u0.ru_minflt / fills);
        }
    }
    for (unsigned i = 0; i < READ_MAX; i++) {
        if (read[i])
            object_unref(m, &read[i]);
    }
    memory_free(&m);
    return 0;
}
