/* The audio trace: which segment each request of a day asks for. Made from a seed alone, the same on every
 * machine. README.md says what was chosen where the workload leaves a choice. */
#pragma once

#include <stdint.h>

#define TRACE_TRACKS      100000u
#define TRACE_QUALITIES   3u
#define TRACE_LISTENERS   1200u /* playing at any time, one request in 10 s each */
#define TRACE_SEGMENT_S   10u
#define TRACE_NEW_EVERY_S 180u /* 20 new tracks an hour */

struct trace {
    uint32_t *requests; /* numbers of objects: segments in one quality, below objects_n */
    uint64_t requests_n;
    uint32_t *bytes; /* of each object */
    uint32_t objects_n;
    uint64_t catalogue_bytes; /* of the first TRACE_TRACKS tracks in all qualities */
    double zipf;              /* the exponent that was found */
};

/* Exits when there is no memory: this is a benchmark. */
void trace_make(struct trace *t, uint64_t seed, uint64_t requests_n);
void trace_free(struct trace *t);
