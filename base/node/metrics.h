/* Everything a program counts, rendered for Prometheus (text format 0.0.4) and as JSON. It reads the workers'
 * structs while they write them (util/stats.h) and owns none of them. For the control thread.
 *
 * What is not in a worker's struct, or has labels that are known only at run time (a store, an upstream), is
 * written by a source: a function that names families and their samples. */
#pragma once

#include "util/buf.h"
#include "util/grow.h"
#include "util/stats.h"

#define METRICS_SETS_MAX     32
#define METRICS_BYTES_MAX    (16u * 1024 * 1024)
#define METRICS_LABELS_BYTES 512

struct metrics;
struct metrics_writer;

/* `program` is "segue-edge": every name then starts "segue_edge_". Build info, and what the kernel says of
 * the process (memory, descriptors, CPU, start), are there without being added. NULL: no memory. */
struct metrics *metrics_create(const char *program);
void metrics_destroy(struct metrics **m);

/* `table`, `workers` and the structs it points to must outlive the metrics. */
void metrics_add_table(struct metrics *m, const struct metric_desc *table, size_t table_n,
                       const void *const *workers, unsigned workers_n);

typedef void (*metrics_source)(struct metrics_writer *w, void *context);
void metrics_add_source(struct metrics *m, metrics_source source, void *context);

/* Both add to `out`; failure is out->failed. */
void metrics_render_prometheus(struct metrics *m, struct grow *out);

/* {"program", "version", "time": Unix seconds, "metrics": {NAME: {"type", "samples": [{"labels": {},
 * "value": N}]}}}. Names are without the prefix. A histogram's sample has "count", "sum", "p50", "p90",
 * "p99", "p999" (seconds, where it counts time) and "buckets": [[upper bound in ns or bytes, count]], only
 * those that are not empty, so that two answers can be subtracted. */
void metrics_render_json(struct metrics *m, struct grow *out);

/* --- for sources --- */

/* Begins a family; its samples follow. A family is begun once. `name` is without the prefix. */
void metrics_family(struct metrics_writer *w, const char *name, enum metric_type type, const char *help);

/* `labels` as in metric_desc, or NULL. */
void metrics_u64(struct metrics_writer *w, const char *labels, uint64_t value);
void metrics_number(struct metrics_writer *w, const char *labels, double value);
void metrics_histogram(struct metrics_writer *w, const char *labels, const struct histogram *h,
                       enum metric_unit unit);

/* Adds name="value" with its escapes, after a comma when there is something before it, and a NUL that the
 * length does not count. Bytes that are not visible ASCII or space become '?'. */
void metrics_label(struct buf *labels, const char *name, struct str value);
