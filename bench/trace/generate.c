#include "generate.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define TOP_TRACKS      100u
#define TOP_SHARE       0.40
#define SESSION_TRACKS  25u
#define SKIP_AFTER      3u
#define SKIP_SHARE      0.3
#define LENGTH_MEAN_S   200.0
#define LENGTH_SD_S     50.0
#define LENGTH_MIN_S    60.0
#define NEW_SHARE       0.02
#define NEW_HALF_LIFE_S 600u
#define NEW_ALIVE       32u /* the newest ones; an older one has less than 0.004 % of plays */

static const uint32_t kbit_s[TRACE_QUALITIES] = {96, 160, 320};
static const double quality_share[TRACE_QUALITIES] = {0.40, 0.35, 0.25};

struct track {
    uint32_t first_object; /* of its first segment in its first quality; a quality's segments lie together */
    uint32_t segments;
};

struct listener {
    uint32_t track, quality, segment;
    uint32_t stop_at;     /* segments that will be played of this track */
    uint32_t tracks_left; /* after this one */
};

struct maker {
    uint64_t random[4];
    struct trace *out;
    struct track *tracks;
    uint32_t tracks_n; /* with those that have come out so far */
    double *plays;     /* cumulative, of the first TRACE_TRACKS */
};

static void *must(void *p)
{
    if (!p) {
        perror("trace");
        exit(1);
    }
    return p;
}

/* xoshiro256** by Blackman and Vigna, seeded by splitmix64. */
static uint64_t random_u64(struct maker *m)
{
    uint64_t *s = m->random, x = s[1] * 5, t = s[1] << 17;
    uint64_t result = ((x << 7) | (x >> 57)) * 9;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = (s[3] << 45) | (s[3] >> 19);
    return result;
}

static void random_seed(struct maker *m, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        uint64_t z = (seed += 0x9e3779b97f4a7c15ull);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        m->random[i] = z ^ (z >> 31);
    }
}

static double random_unit(struct maker *m)
{
    return (double)(random_u64(m) >> 11) * 0x1p-53;
}

static double random_normal(struct maker *m)
{
    double u = 1.0 - random_unit(m);
    return sqrt(-2 * log(u)) * cos(2 * M_PI * random_unit(m));
}

/* The exponent at which the top tracks have their share, by bisection. */
static double zipf_exponent(void)
{
    double low = 0, high = 2;
    for (int i = 0; i < 60; i++) {
        double s = (low + high) / 2, top = 0, all = 0;
        for (uint32_t rank = 1; rank <= TRACE_TRACKS; rank++) {
            all += pow(rank, -s);
            top = rank == TOP_TRACKS ? all : top;
        }
        *(top / all < TOP_SHARE ? &low : &high) = s;
    }
    return low;
}

static void make_plays(struct maker *m)
{
    double all = 0;

    m->out->zipf = zipf_exponent();
    for (uint32_t i = 0; i < TRACE_TRACKS; i++)
        m->plays[i] = all += pow(i + 1, -m->out->zipf);
    for (uint32_t i = 0; i < TRACE_TRACKS; i++)
        m->plays[i] /= all;
}

static void make_tracks(struct maker *m, uint32_t tracks_all)
{
    struct trace *t = m->out;
    double *lengths = must(calloc(tracks_all, sizeof *lengths));

    for (uint32_t i = 0; i < tracks_all; i++) {
        double length = LENGTH_MEAN_S + LENGTH_SD_S * random_normal(m);
        lengths[i] = length < LENGTH_MIN_S ? LENGTH_MIN_S : length;
        m->tracks[i].first_object = t->objects_n;
        m->tracks[i].segments = (uint32_t)ceil(lengths[i] / TRACE_SEGMENT_S);
        t->objects_n += m->tracks[i].segments * TRACE_QUALITIES;
    }
    t->bytes = must(calloc(t->objects_n, sizeof *t->bytes));
    for (uint32_t i = 0; i < tracks_all; i++) {
        uint32_t object = m->tracks[i].first_object;
        for (uint32_t q = 0; q < TRACE_QUALITIES; q++) {
            for (uint32_t n = 0; n < m->tracks[i].segments; n++, object++) {
                double rest = lengths[i] - n * (double)TRACE_SEGMENT_S;
                double seconds = rest < TRACE_SEGMENT_S ? rest : TRACE_SEGMENT_S;
                t->bytes[object] = (uint32_t)(seconds * kbit_s[q] * 125) + 1;
                t->catalogue_bytes += i < TRACE_TRACKS ? t->bytes[object] : 0;
            }
        }
    }
    free(lengths);
}

/* A new track with its share of plays, else one of the catalogue by popularity. */
static uint32_t choose_track(struct maker *m, uint32_t now_s)
{
    double u = random_unit(m);
    uint32_t newest = now_s / TRACE_NEW_EVERY_S; /* that many have come out, the last one at newest * EVERY */

    for (uint32_t n = newest; n > 0 && newest - n < NEW_ALIVE; n--) {
        uint32_t age_s = now_s - n * TRACE_NEW_EVERY_S;
        double share = ldexp(NEW_SHARE, -(int)(age_s / NEW_HALF_LIFE_S));
        if (u < share)
            return TRACE_TRACKS + n - 1;
        u -= share;
    }
    u = random_unit(m);
    uint32_t low = 0, high = TRACE_TRACKS - 1;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (m->plays[middle] < u)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void next_track(struct maker *m, struct listener *l, uint32_t now_s)
{
    if (l->tracks_left == 0) { /* another listener takes the place of one who leaves */
        double u = random_unit(m);
        l->quality = u < quality_share[0] ? 0 : u < quality_share[0] + quality_share[1] ? 1 : 2;
        l->tracks_left = SESSION_TRACKS;
    }
    l->tracks_left--;
    l->track = choose_track(m, now_s);
    l->segment = 0;
    l->stop_at = m->tracks[l->track].segments;
    if (random_unit(m) < SKIP_SHARE && l->stop_at > SKIP_AFTER)
        l->stop_at = SKIP_AFTER;
}

void trace_make(struct trace *t, uint64_t seed, uint64_t requests_n)
{
    uint64_t seconds = requests_n * TRACE_SEGMENT_S / TRACE_LISTENERS + 1;
    uint32_t tracks_all = TRACE_TRACKS + (uint32_t)(seconds / TRACE_NEW_EVERY_S) + 1;
    struct maker m = {.out = t};
    static struct listener listeners[TRACE_LISTENERS];

    *t = (struct trace){.requests_n = requests_n};
    random_seed(&m, seed);
    m.tracks = must(calloc(tracks_all, sizeof *m.tracks));
    m.plays = must(calloc(TRACE_TRACKS, sizeof *m.plays));
    t->requests = must(calloc(requests_n, sizeof *t->requests));
    make_plays(&m);
    make_tracks(&m, tracks_all);

    for (uint32_t i = 0; i < TRACE_LISTENERS; i++) { /* the first ones are somewhere in their session */
        listeners[i] = (struct listener){0};
        next_track(&m, &listeners[i], 0);
        listeners[i].tracks_left = (uint32_t)(random_unit(&m) * SESSION_TRACKS);
        listeners[i].segment = (uint32_t)(random_unit(&m) * listeners[i].stop_at);
    }
    for (uint64_t i = 0; i < requests_n; i++) {
        struct listener *l = &listeners[i % TRACE_LISTENERS];
        const struct track *track = &m.tracks[l->track];
        t->requests[i] = track->first_object + l->quality * track->segments + l->segment;
        if (++l->segment == l->stop_at)
            next_track(&m, l, (uint32_t)(i / (TRACE_LISTENERS / TRACE_SEGMENT_S)));
    }
    free(m.tracks);
    free(m.plays);
}

void trace_free(struct trace *t)
{
    free(t->requests);
    free(t->bytes);
}
