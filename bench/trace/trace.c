/* Misses of the memory tier on the audio trace, beside LRU and Belady. The tier is the real one, through
 * memory_lookup and memory_insert, with objects that are charged for a body they do not have.
 *
 *     trace [-n requests] [-s seeds, as 1-5 or 3] [-p percents, as 1,10] [-k shards] [-B: without Belady]  */
#include "cache/memory.h"
#include "generate.h"
#include "peers.h"
#include "util/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define SEEDS_MAX    64
#define PERCENTS_MAX 8

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static struct trace_result run_ours(const struct trace *t, uint64_t capacity_bytes, unsigned shards)
{
    struct trace_result r = {0};
    struct memory *m = memory_new(&(struct memory_config){.size_bytes = capacity_bytes, .shards = shards});
    struct memory_stats stats;

    CHECK(m);
    for (uint64_t n = 0; n < t->requests_n; n++) {
        uint32_t i = t->requests[n];
        struct cache_key key = cache_key_of(str_of((const char *)&i, sizeof i));
        struct object *o = memory_lookup(m, &key, 0, NULL);
        if (!o) {
            struct object_spec spec = {.key = key, .total_bytes = t->bytes[i], .epoch = memory_epoch(m)};
            char *no_body = NULL;
            r.misses++;
            r.missed_bytes += t->bytes[i];
            CHECK(memory_object_new(m, &spec, &no_body, t->bytes[i], &o) == 0);
            CHECK(memory_insert(m, o) == 0);
        }
        object_unref(m, &o);
    }
    memory_stats(m, &stats);
    CHECK(stats.bytes <= capacity_bytes);
    memory_free(&m);
    return r;
}

struct line {
    const char *policy;
    struct trace_result r;
    double took_s;
};

static void print_line(uint64_t seed, unsigned percent, const struct line *l, const struct line *lru,
                       const struct trace *t)
{
    printf("%4llu  %6u%%  %-8s  %10llu  %8.4f  %8.4f  %8.4f  %7.1f\n", (unsigned long long)seed, percent,
           l->policy, (unsigned long long)l->r.misses, (double)l->r.misses / (double)t->requests_n,
           (double)l->r.misses / (double)lru->r.misses,
           (double)l->r.missed_bytes / (double)lru->r.missed_bytes, l->took_s);
    fflush(stdout);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct options {
    uint64_t requests_n, seed_first, seed_last;
    unsigned percents[PERCENTS_MAX], percents_n;
    unsigned shards;
    bool belady;
};

/* Fills ratios with ours to LRU, by percent. */
static void run_seed(const struct options *opt, uint64_t seed, double ratios[])
{
    struct trace t;

    trace_make(&t, seed, opt->requests_n);
    if (seed == opt->seed_first)
        printf("# %llu requests, %u objects, catalogue %.1f GB, Zipf exponent %.4f\n"
               "seed  memory  policy        misses     ratio   to LRU  by bytes  seconds\n",
               (unsigned long long)t.requests_n, t.objects_n, (double)t.catalogue_bytes / 1e9, t.zipf);
    for (unsigned p = 0; p < opt->percents_n; p++) {
        uint64_t capacity = t.catalogue_bytes / 100 * opt->percents[p];
        struct line lines[3] = {{.policy = "lru"}, {.policy = "segue"}, {.policy = "belady"}};
        for (unsigned i = 0; i < (opt->belady ? 3 : 2); i++) {
            double from = seconds();
            lines[i].r = i == 0   ? peer_lru(&t, capacity)
                         : i == 1 ? run_ours(&t, capacity, opt->shards)
                                  : peer_belady(&t, capacity);
            lines[i].took_s = seconds() - from;
            print_line(seed, opt->percents[p], &lines[i], &lines[0], &t);
        }
        ratios[p] = (double)lines[1].r.misses / (double)lines[0].r.misses;
    }
    trace_free(&t);
}

int main(int argc, char **argv)
{
    struct options opt = {.requests_n = 10000000,
                          .seed_first = 1,
                          .seed_last = 5,
                          .percents = {1, 10},
                          .percents_n = 2,
                          .belady = true};
    static double ratios[SEEDS_MAX][PERCENTS_MAX];
    int c;

    while ((c = getopt(argc, argv, "n:s:p:k:B")) != -1) {
        char *end = optarg;
        if (c == 'n') {
            opt.requests_n = strtoull(optarg, &end, 10);
        } else if (c == 's') {
            opt.seed_first = opt.seed_last = strtoull(optarg, &end, 10);
            if (*end == '-')
                opt.seed_last = strtoull(end + 1, &end, 10);
        } else if (c == 'p') {
            for (opt.percents_n = 0; opt.percents_n < PERCENTS_MAX && *end; end += *end == ',')
                opt.percents[opt.percents_n++] = (unsigned)strtoul(end, &end, 10);
        } else if (c == 'k') {
            opt.shards = (unsigned)strtoul(optarg, &end, 10);
        } else if (c == 'B') {
            opt.belady = false;
        } else {
            return 2;
        }
    }
    if (opt.requests_n == 0 || opt.seed_last < opt.seed_first || opt.seed_last - opt.seed_first >= SEEDS_MAX)
        return 2;
    hash_init_fixed(1);

    unsigned n = 0;
    for (uint64_t seed = opt.seed_first; seed <= opt.seed_last; seed++)
        run_seed(&opt, seed, ratios[n++]);
    for (unsigned p = 0; p < opt.percents_n; p++) {
        double column[SEEDS_MAX] = {0};
        for (unsigned i = 0; i < n; i++)
            column[i] = ratios[i][p];
        qsort(column, n, sizeof column[0], compare);
        printf("audio_trace_misses_to_lru memory=%u%% median=%.4f seeds=%u\n", opt.percents[p], column[n / 2],
               n);
    }
    return 0;
}
