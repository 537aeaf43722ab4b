/* What an object costs in memory beside its body, key text and head, at a million objects put in by the calls
 * that a fill uses; for bodies of 1 KiB, which lie in slabs, and of 4 KiB, which are runs of pages. Two
 * figures for each:
 *
 * - accounted: what the tier counts against memory.size, idle memory too, less body, key and head as asked
 * for
 * - rss: the growth of resident memory, less the same
 *
 * Both sizes are whole slots and pages, so that what rounding wastes of other bodies is not in it: half a
 * page on the average, 1 % of a body of 200 KB (memory_churn.c measures it, with what lies idle). Key and
 * head lengths vary as real ones do, so rounding of what holds them is in it. Half as many again are put in
 * as fit, so there are evictions, holes and ghosts. Also prints the time of a hit.
 *
 *     object_memory [objects [bytes of a body]]
 */
#include "cache/memory.h"
#include "node/process.h"
#include "util/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static size_t body_bytes;

static uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
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

/* The key of object n: the same each time. 35 to 55 bytes. */
static struct cache_key key_of(uint32_t n, char *memory, size_t cap)
{
    uint64_t state = n;
    uint64_t r = random_next(&state);
    struct buf text = buf_of(memory, cap);
    struct cache_key key;
    char path[80];
    static const char *const quality[] = {"96", "160", "320"};

    snprintf(path, sizeof path, "/tracks/%.*s%08x/%s/%u.ogg", (int)(r % 16), "3n3Ppam7vgaVa1iaRUc9", n,
             quality[r / 16 % 3], (unsigned)(r / 64 % 40));
    CHECK(cache_key_make(&text, STR("audio.example"), str_z(path), STR_NONE, &key) == 0);
    return key;
}

static void put(struct memory *m, uint32_t n)
{
    char key_memory[128], head[512];
    uint64_t state = n;
    uint64_t r = random_next(&state);
    int head_n = snprintf(head, sizeof head,
                          "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nContent-Type: audio/ogg\r\n"
                          "ETag: \"%llx\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                          "Cache-Control: public, max-age=31536000%s\r\nX-Id: %.*s\r\n",
                          body_bytes, (unsigned long long)r, r & 1 ? ", immutable" : "", (int)(r % 48),
                          "0123456789abcdef0123456789abcdef0123456789abcdef");
    struct object_spec spec = {.key = key_of(n, key_memory, sizeof key_memory),
                               .head = str_of(head, (size_t)head_n),
                               .status = 200,
                               .total_bytes = body_bytes,
                               .birth_unix_s = 1790000000,
                               .lifetime_s = 31536000,
                               .epoch = memory_epoch(m)};
    struct object *o;
    char *body = memory_body_new(m, body_bytes);

    CHECK(body && object_head_scan(&spec) == 0);
    memset(body, 'x', body_bytes);
    CHECK(memory_object_new(m, &spec, &body, body_bytes, &o) == 0);
    CHECK(memory_insert(m, o) == 0);
    object_unref(m, &o);
}

/* `set` of the objects held, in random order, each often. Keys are made beforehand, as a proxy has one at
 * hand. */
static void time_hits(struct memory *m, const uint32_t *held, uint32_t held_n, uint32_t set)
{
    enum { HITS = 4000000 };
    uint64_t state = 7;
    char(*memory)[64] = malloc((size_t)set * sizeof *memory);
    struct cache_key *keys = malloc(set * sizeof *keys);

    CHECK(memory && keys && held_n > 0);
    for (uint32_t i = 0; i < set; i++)
        keys[i] = key_of(held[random_next(&state) % held_n], memory[i], sizeof *memory);
    uint64_t from = clock_mono_ns();
    for (uint32_t i = 0; i < HITS; i++) {
        struct object *o = memory_lookup(m, &keys[random_next(&state) % set], 0, NULL);
        CHECK(o);
        object_unref(m, &o);
    }
    printf("hit_ns %.0f objects=%u (lookup and unref by one thread, random order)\n",
           (double)(clock_mono_ns() - from) / HITS, set);
    free(memory);
    free(keys);
}

/* Looks up all that were put in; the numbers of those that are held go to `held`. */
static uint32_t find_held(struct memory *m, uint32_t put_n, uint32_t *held, uint64_t *asked_bytes)
{
    uint32_t held_n = 0;

    for (uint32_t n = 0; n < put_n; n++) {
        char memory[128];
        struct cache_key key = key_of(n, memory, sizeof memory);
        struct object *o = memory_lookup(m, &key, 0, NULL);
        if (!o)
            continue;
        *asked_bytes += o->body_bytes + o->key_bytes + o->head_bytes;
        held[held_n++] = n;
        object_unref(m, &o);
    }
    return held_n;
}

static void measure(uint32_t objects)
{
    uint64_t asked_bytes = 0;
    struct memory_stats stats;
    uint32_t put_n = objects + objects / 2; /* more than there is room for */
    uint32_t *held = malloc(put_n * sizeof *held);

    CHECK(held);
    memset(held, 0, put_n * sizeof *held);
    uint64_t rss_before = rss_bytes();
    struct memory *m =
        memory_new(&(struct memory_config){.size_bytes = (uint64_t)objects * (body_bytes + 440)});
    CHECK(m);
    for (uint32_t n = 0; n < put_n; n++)
        put(m, n);
    uint32_t held_n = find_held(m, put_n, held, &asked_bytes);
    memory_stats(m, &stats);
    uint64_t rss = rss_bytes() - rss_before;
    printf("bodies of %zu bytes: objects %llu of %u put in, evictions %llu, index %.1f bytes an object\n",
           body_bytes, (unsigned long long)stats.objects, put_n, (unsigned long long)stats.evictions,
           (double)stats.index_bytes / (double)stats.objects);
    CHECK(stats.objects == held_n);
    printf("object_overhead_bytes %.1f accounted, body_bytes=%zu\n",
           (double)(stats.bytes + stats.idle_bytes - asked_bytes) / held_n, body_bytes);
    printf("object_overhead_bytes %.1f rss, body_bytes=%zu\n", ((double)rss - (double)asked_bytes) / held_n,
           body_bytes);
    time_hits(m, held, held_n, 1);
    time_hits(m, held, held_n, 4096);
    time_hits(m, held, held_n, held_n);
    memory_free(&m);
    free(held);
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = {1024, 4096};
    uint32_t objects = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1000000;

    if (objects < 1000 || objects > 100000000)
        return 2;
    hash_init_fixed(1);
    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        body_bytes = argc > 2 ? strtoul(argv[2], NULL, 10) : sizes[i];
        if (body_bytes == 0)
            return 2;
        fflush(stdout);
        pid_t child = fork(); /* so that neither finds resident what the other left */
        int status = 1;
        if (child == 0) {
            measure(objects);
            return 0;
        }
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
            return 1;
        if (argc > 2)
            break;
    }
    return 0;
}
