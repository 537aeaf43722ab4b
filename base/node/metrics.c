#include "node/metrics.h"

#include "node/process.h"
#include "util/check.h"
#include "util/clock.h"
#include "util/version.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct metrics_set { /* a table over workers, or a source */
    const struct metric_desc *table;
    size_t table_n;
    const void *const *workers;
    unsigned workers_n;
    metrics_source source;
    void *context;
};

#define METRICS_MAGIC 0x4d455452u

struct metrics {
    uint32_t magic;
    char program[32]; /* segue-edge */
    char prefix[32];  /* segue_edge_ */
    struct metrics_set sets[METRICS_SETS_MAX];
    unsigned sets_n;
};

struct metrics_writer {
    struct grow *out;
    const char *prefix;
    bool json;
    bool any_family, any_sample;
    const char *family;
    enum metric_type type;
};

/* Upper bounds of what Prometheus gets, in ns: from a hit in memory to a long body. */
static const uint64_t bounds_ns[] = {
    50 * NS_PER_US,  100 * NS_PER_US, 250 * NS_PER_US,  500 * NS_PER_US, 1 * NS_PER_MS,   2500 * NS_PER_US,
    5 * NS_PER_MS,   10 * NS_PER_MS,  25 * NS_PER_MS,   50 * NS_PER_MS,  100 * NS_PER_MS, 250 * NS_PER_MS,
    500 * NS_PER_MS, 1 * NS_PER_S,    2500 * NS_PER_MS, 5 * NS_PER_S,    10 * NS_PER_S,   30 * NS_PER_S,
    60 * NS_PER_S,   300 * NS_PER_S,  1800 * NS_PER_S};

/* And of sizes: the last value before a power of two, where a bucket ends exactly. */
static const uint64_t bounds_plain[] = {(1ull << 10) - 1, (1ull << 12) - 1, (1ull << 14) - 1,
                                        (1ull << 16) - 1, (1ull << 18) - 1, (1ull << 20) - 1,
                                        (1ull << 22) - 1, (1ull << 24) - 1, (1ull << 26) - 1,
                                        (1ull << 28) - 1, (1ull << 30) - 1, (1ull << 32) - 1};

struct metrics *metrics_create(const char *program)
{
    struct metrics *m = calloc(1, sizeof *m);

    if (m == NULL)
        return NULL;
    m->magic = METRICS_MAGIC;
    CHECK(snprintf(m->program, sizeof m->program, "%s", program) < (int)sizeof m->program);
    CHECK(snprintf(m->prefix, sizeof m->prefix, "%s_", program) < (int)sizeof m->prefix);
    for (char *p = m->prefix; *p != 0; p++)
        if (*p == '-')
            *p = '_';
    return m;
}

void metrics_destroy(struct metrics **m)
{
    struct metrics *gone = TAKE(m);

    CHECK_MAGIC(gone, METRICS_MAGIC);
    gone->magic = 0;
    free(gone);
}

static bool table_has(const struct metric_desc *table, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(table[i].name, name) == 0)
            return true;
    return false;
}

void metrics_add_table(struct metrics *m, const struct metric_desc *table, size_t table_n,
                       const void *const *workers, unsigned workers_n)
{
    CHECK_MAGIC(m, METRICS_MAGIC);
    CHECK(m->sets_n < METRICS_SETS_MAX);
    for (size_t i = 0; i < table_n; i++) { /* a family told twice makes the whole page invalid */
        CHECK(i == 0 || strcmp(table[i].name, table[i - 1].name) == 0 || !table_has(table, i, table[i].name));
        for (unsigned k = 0; k < m->sets_n; k++)
            CHECK(!table_has(m->sets[k].table, m->sets[k].table_n, table[i].name));
    }
    m->sets[m->sets_n++] =
        (struct metrics_set){.table = table, .table_n = table_n, .workers = workers, .workers_n = workers_n};
}

void metrics_add_source(struct metrics *m, metrics_source source, void *context)
{
    CHECK_MAGIC(m, METRICS_MAGIC);
    CHECK(m->sets_n < METRICS_SETS_MAX);
    m->sets[m->sets_n++] = (struct metrics_set){.source = source, .context = context};
}

void metrics_label(struct buf *labels, const char *name, struct str value)
{
    if (labels->n > 0)
        buf_add_char(labels, ',');
    buf_add_str(labels, str_z(name));
    buf_add_lit(labels, "=\"");
    for (size_t i = 0; i < value.n; i++) {
        char c = value.p[i];

        if (c == '"' || c == '\\')
            buf_add_char(labels, '\\');
        buf_add_char(labels, c >= ' ' && c <= '~' ? c : '?');
    }
    buf_add_lit(labels, "\"");
    buf_add_char(labels, 0);
    if (!labels->overflow)
        labels->n--;
}

/* --- families and samples, in both formats --- */

static const char *type_name(enum metric_type type)
{
    switch (type) {
    case METRIC_COUNTER:
        return "counter";
    case METRIC_GAUGE:
        return "gauge";
    case METRIC_HISTOGRAM:
        return "histogram";
    }
    CHECK(!"a metric has a type");
}

static void end_family(struct metrics_writer *w)
{
    if (w->json && w->any_family)
        grow_add_lit(w->out, "]}");
}

void metrics_family(struct metrics_writer *w, const char *name, enum metric_type type, const char *help)
{
    if (w->json) {
        end_family(w);
        grow_add_z(w->out, w->any_family ? ",\n" : "\n");
        grow_printf(w->out, "\"%s\":{\"type\":\"%s\",\"samples\":[", name, type_name(type));
    } else {
        grow_printf(w->out, "# HELP %s%s ", w->prefix, name);
        for (const char *p = help; *p != 0; p++) {
            if (*p == '\\')
                grow_add_lit(w->out, "\\\\");
            else if (*p == '\n')
                grow_add_lit(w->out, "\\n");
            else
                grow_add_char(w->out, *p);
        }
        grow_printf(w->out, "\n# TYPE %s%s %s\n", w->prefix, name, type_name(type));
    }
    w->family = name;
    w->type = type;
    w->any_family = true;
    w->any_sample = false;
}

/* `name{labels,more} `, without what is absent. */
static void begin_line(struct metrics_writer *w, const char *suffix, const char *labels, const char *more)
{
    grow_printf(w->out, "%s%s%s", w->prefix, w->family, suffix);
    if (labels != NULL || more != NULL)
        grow_printf(w->out, "{%s%s%s}", labels ? labels : "", labels && more ? "," : "", more ? more : "");
    grow_add_char(w->out, ' ');
}

/* Labels in Prometheus form become members: the escapes of one (\\ \" \n) are those of the other. */
static void json_labels(struct metrics_writer *w, const char *labels)
{
    bool in_value = false;

    grow_add_z(w->out, w->any_sample ? ",{\"labels\":{" : "{\"labels\":{");
    w->any_sample = true;
    if (labels != NULL) {
        grow_add_char(w->out, '"');
        for (const char *p = labels; *p != 0; p++) {
            if (in_value && *p == '\\' && p[1] != 0) {
                grow_add(w->out, p++, 2);
            } else if (!in_value && *p == '=') {
                grow_add_lit(w->out, "\":");
            } else if (!in_value && *p == ',') {
                grow_add_lit(w->out, ",\"");
            } else {
                grow_add_char(w->out, *p);
                in_value ^= *p == '"';
            }
        }
    }
    grow_add_lit(w->out, "},");
}

/* Seconds, exact, without trailing zeros. */
static void add_ns(struct grow *out, uint64_t ns)
{
    char digits[32];
    int n = snprintf(digits, sizeof digits, "%llu.%09llu", (unsigned long long)(ns / NS_PER_S),
                     (unsigned long long)(ns % NS_PER_S));

    while (digits[n - 1] == '0')
        n--;
    if (digits[n - 1] == '.')
        n--;
    grow_add(out, digits, (size_t)n);
}

static void add_unit(struct grow *out, uint64_t value, enum metric_unit unit)
{
    if (unit == METRIC_NS)
        add_ns(out, value);
    else
        grow_add_u64(out, value);
}

static void sample(struct metrics_writer *w, const char *labels, uint64_t value, enum metric_unit unit)
{
    CHECK(w->family != NULL && w->type != METRIC_HISTOGRAM);
    if (w->json) {
        json_labels(w, labels);
        grow_add_lit(w->out, "\"value\":");
        add_unit(w->out, value, unit);
        grow_add_char(w->out, '}');
    } else {
        begin_line(w, "", labels, NULL);
        add_unit(w->out, value, unit);
        grow_add_char(w->out, '\n');
    }
}

void metrics_u64(struct metrics_writer *w, const char *labels, uint64_t value)
{
    sample(w, labels, value, METRIC_PLAIN);
}

void metrics_number(struct metrics_writer *w, const char *labels, double value)
{
    CHECK(w->family != NULL && w->type != METRIC_HISTOGRAM);
    if (w->json) {
        json_labels(w, labels);
        if (isfinite(value))
            grow_printf(w->out, "\"value\":%.15g}", value);
        else
            grow_add_lit(w->out, "\"value\":null}");
        return;
    }
    begin_line(w, "", labels, NULL);
    if (isnan(value))
        grow_add_lit(w->out, "NaN\n");
    else if (isinf(value))
        grow_add_z(w->out, value > 0 ? "+Inf\n" : "-Inf\n");
    else
        grow_printf(w->out, "%.15g\n", value);
}

static void histogram_json(struct metrics_writer *w, const char *labels, const struct histogram *h,
                           enum metric_unit unit)
{
    static const struct {
        const char *name;
        double share;
    } shares[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}};
    bool any = false;

    json_labels(w, labels);
    grow_printf(w->out, "\"count\":%llu,\"sum\":", (unsigned long long)histogram_count(h));
    add_unit(w->out, h->sum, unit);
    for (size_t i = 0; i < ARRAY_LEN(shares); i++) {
        grow_printf(w->out, ",\"%s\":", shares[i].name);
        add_unit(w->out, histogram_percentile(h, shares[i].share), unit);
    }
    grow_add_lit(w->out, ",\"buckets\":[");
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        if (h->buckets[i] == 0)
            continue;
        grow_printf(w->out, "%s[%llu,%llu]", any ? "," : "",
                    (unsigned long long)(histogram_bucket_end(i) - 1), (unsigned long long)h->buckets[i]);
        any = true;
    }
    grow_add_lit(w->out, "]}");
}

static void bucket_line(struct metrics_writer *w, const char *labels, struct str bound, uint64_t count)
{
    char le[48];

    snprintf(le, sizeof le, "le=\"" STR_FMT "\"", STR_ARG(bound));
    begin_line(w, "_bucket", labels, le);
    grow_add_u64(w->out, count);
    grow_add_char(w->out, '\n');
}

/* h is a copy: nobody writes it. */
void metrics_histogram(struct metrics_writer *w, const char *labels, const struct histogram *h,
                       enum metric_unit unit)
{
    const uint64_t *bounds = unit == METRIC_NS ? bounds_ns : bounds_plain;
    size_t bounds_n = unit == METRIC_NS ? ARRAY_LEN(bounds_ns) : ARRAY_LEN(bounds_plain);
    uint64_t count = histogram_count(h);

    CHECK(w->family != NULL && w->type == METRIC_HISTOGRAM);
    if (w->json) {
        histogram_json(w, labels, h, unit);
        return;
    }
    for (size_t i = 0; i < bounds_n; i++) {
        struct grow bound = grow_of(32);

        add_unit(&bound, bounds[i], unit);
        bucket_line(w, labels, grow_str(&bound), histogram_count_to(h, bounds[i]));
        grow_free(&bound);
    }
    bucket_line(w, labels, STR("+Inf"), count);
    begin_line(w, "_sum", labels, NULL);
    add_unit(w->out, h->sum, unit);
    grow_add_char(w->out, '\n');
    begin_line(w, "_count", labels, NULL);
    grow_add_u64(w->out, count);
    grow_add_char(w->out, '\n');
}

/* --- tables --- */

static void render_row(struct metrics_writer *w, const struct metric_desc *row, const char *labels,
                       const void *const *workers, unsigned workers_n)
{
    uint64_t sum = 0;

    if (row->type == METRIC_HISTOGRAM) {
        struct histogram all = {0};

        for (unsigned i = 0; i < workers_n; i++)
            histogram_merge(&all,
                            (const struct histogram *)(const void *)((const char *)workers[i] + row->offset));
        metrics_histogram(w, labels, &all, row->unit);
        return;
    }
    for (unsigned i = 0; i < workers_n; i++)
        sum += stat_get((const uint64_t *)(const void *)((const char *)workers[i] + row->offset));
    sample(w, labels, sum, row->unit);
}

static void render_each(struct metrics_writer *w, const struct metric_desc *row, const void *const *workers,
                        unsigned workers_n)
{
    for (unsigned i = 0; i < workers_n; i++) {
        char labels[METRICS_LABELS_BYTES];
        int n = snprintf(labels, sizeof labels, "%s%sworker=\"%u\"", row->labels ? row->labels : "",
                         row->labels ? "," : "", i);

        CHECK(n < (int)sizeof labels);
        render_row(w, row, labels, &workers[i], 1);
    }
}

static void render_table(struct metrics_writer *w, const struct metrics_set *set)
{
    const char *name = NULL;

    for (size_t i = 0; i < set->table_n; i++) {
        const struct metric_desc *row = &set->table[i];

        if (name == NULL || strcmp(name, row->name) != 0)
            metrics_family(w, row->name, row->type, row->help);
        name = row->name;
        if (row->each_worker)
            render_each(w, row, set->workers, set->workers_n);
        else
            render_row(w, row, row->labels, set->workers, set->workers_n);
    }
}

static void render_process(struct metrics_writer *w)
{
    struct process_usage usage;

    process_usage(&usage);
    metrics_family(w, "build_info", METRIC_GAUGE, "What was built; always 1.");
    metrics_u64(w, "version=\"" SEGUE_VERSION "\",commit=\"" SEGUE_COMMIT "\",compiler=\"" __VERSION__ "\"",
                1);
    metrics_family(w, "process_resident_memory_bytes", METRIC_GAUGE, "Memory that is resident.");
    metrics_u64(w, NULL, usage.resident_bytes);
    metrics_family(w, "process_virtual_memory_bytes", METRIC_GAUGE, "Address space in use.");
    metrics_u64(w, NULL, usage.virtual_bytes);
    metrics_family(w, "process_open_fds", METRIC_GAUGE, "Open file descriptors.");
    metrics_u64(w, NULL, usage.open_files);
    metrics_family(w, "process_max_fds", METRIC_GAUGE, "File descriptors that may be open.");
    metrics_u64(w, NULL, usage.files_max);
    metrics_family(w, "process_threads", METRIC_GAUGE, "Threads.");
    metrics_u64(w, NULL, usage.threads);
    metrics_family(w, "process_cpu_seconds_total", METRIC_COUNTER, "CPU time used.");
    sample(w, "mode=\"user\"", usage.cpu_user_ns, METRIC_NS);
    sample(w, "mode=\"system\"", usage.cpu_system_ns, METRIC_NS);
    metrics_family(w, "process_start_time_seconds", METRIC_GAUGE, "When the process started, Unix time.");
    metrics_number(w, NULL, usage.start_unix_s);
}

static void render(struct metrics *m, struct metrics_writer *w)
{
    CHECK_MAGIC(m, METRICS_MAGIC);
    render_process(w);
    for (unsigned i = 0; i < m->sets_n; i++) {
        if (m->sets[i].source != NULL)
            m->sets[i].source(w, m->sets[i].context);
        else
            render_table(w, &m->sets[i]);
    }
}

void metrics_render_prometheus(struct metrics *m, struct grow *out)
{
    struct metrics_writer w = {.out = out, .prefix = m->prefix};

    render(m, &w);
}

void metrics_render_json(struct metrics *m, struct grow *out)
{
    struct metrics_writer w = {.out = out, .prefix = "", .json = true};
    uint64_t now_ns = clock_unix_ns();

    grow_printf(out, "{\"program\":\"%s\",\"version\":\"" SEGUE_VERSION "\",\"time\":", m->program);
    grow_printf(out, "%llu.%03llu,\"metrics\":{", (unsigned long long)(now_ns / NS_PER_S),
                (unsigned long long)(now_ns % NS_PER_S / NS_PER_MS));
    render(m, &w);
    end_family(&w);
    grow_add_lit(out, "}}\n");
}
