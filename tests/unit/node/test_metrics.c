#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/metrics.h"
#include "node/process.h"
#include "util/check.h"
#include "util/clock.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct worker {
    uint64_t hits, misses, connections, busy_ns;
    struct histogram ttfb, sizes;
};

static const struct metric_desc table[] = {
    {"requests_total", "Requests.", METRIC_COUNTER, METRIC_PLAIN, "cache=\"hit\"",
     offsetof(struct worker, hits), false},
    {"requests_total", "Requests.", METRIC_COUNTER, METRIC_PLAIN, "cache=\"miss\"",
     offsetof(struct worker, misses), false},
    {"connections", "A line\nand a \\.", METRIC_GAUGE, METRIC_PLAIN, NULL,
     offsetof(struct worker, connections), true},
    {"busy_seconds_total", "Time.", METRIC_COUNTER, METRIC_NS, NULL, offsetof(struct worker, busy_ns), false},
    {"ttfb_seconds", "First byte.", METRIC_HISTOGRAM, METRIC_NS, "cache=\"hit\"",
     offsetof(struct worker, ttfb), false},
    {"body_bytes", "Sizes.", METRIC_HISTOGRAM, METRIC_PLAIN, NULL, offsetof(struct worker, sizes), false},
};

static struct worker *workers[2];

static void source(struct metrics_writer *w, void *context)
{
    char text[METRICS_LABELS_BYTES];
    struct buf labels = buf_of(text, sizeof text);

    assert_string_equal(context, "context");
    metrics_family(w, "store_ratio", METRIC_GAUGE, "Ratio.");
    metrics_label(&labels, "path", STR("/a\"b\\c\nd\xff,e=f}"));
    metrics_label(&labels, "class", STR("nvme"));
    metrics_number(w, text, 0.25);
    metrics_number(w, "path=\"nan\"", NAN);
    metrics_number(w, "path=\"inf\"", -INFINITY);
    metrics_u64(w, NULL, 7);
}

static struct metrics *make(void)
{
    struct metrics *m = metrics_create("segue-edge");

    for (int i = 0; i < 2; i++)
        workers[i] = calloc(1, sizeof **workers);
    workers[0]->hits = 5;
    workers[1]->hits = 6;
    workers[1]->misses = UINT64_MAX;
    workers[0]->connections = 3;
    workers[1]->connections = 4;
    workers[0]->busy_ns = 1500000000;
    workers[1]->busy_ns = 1;
    histogram_record(&workers[0]->ttfb, 90000);   /* 90 us */
    histogram_record(&workers[1]->ttfb, 3000000); /* 3 ms */
    histogram_record(&workers[1]->ttfb, 400 * NS_PER_S);
    histogram_record(&workers[0]->sizes, 65535);
    metrics_add_table(m, table, ARRAY_LEN(table), (const void *const *)workers, 2);
    metrics_add_source(m, source, (void *)(uintptr_t) "context");
    return m;
}

static void drop(struct metrics **m)
{
    metrics_destroy(m);
    free(workers[0]);
    free(workers[1]);
}

static void assert_line(const struct grow *out, const char *line)
{
    char with_ends[512];

    snprintf(with_ends, sizeof with_ends, "\n%s\n", line);
    if (memmem(out->p, out->n, with_ends, strlen(with_ends)) == NULL)
        fail_msg("no line: %s\n%.*s", line, (int)out->n, out->p);
}

static void prometheus_text(void **state)
{
    struct metrics *m = make();
    struct grow out = grow_of(METRICS_BYTES_MAX);

    (void)state;
    metrics_render_prometheus(m, &out);
    assert_false(out.failed);
    assert_line(&out, "# HELP segue_edge_requests_total Requests.\n"
                      "# TYPE segue_edge_requests_total counter\n"
                      "segue_edge_requests_total{cache=\"hit\"} 11\n"
                      "segue_edge_requests_total{cache=\"miss\"} 18446744073709551615");
    assert_line(&out, "# HELP segue_edge_connections A line\\nand a \\\\.\n"
                      "# TYPE segue_edge_connections gauge\n"
                      "segue_edge_connections{worker=\"0\"} 3\n"
                      "segue_edge_connections{worker=\"1\"} 4");
    assert_line(&out, "segue_edge_busy_seconds_total 1.500000001");
    assert_line(&out, "# TYPE segue_edge_ttfb_seconds histogram");
    assert_line(&out, "segue_edge_ttfb_seconds_bucket{cache=\"hit\",le=\"0.00005\"} 0");
    assert_line(&out, "segue_edge_ttfb_seconds_bucket{cache=\"hit\",le=\"0.0001\"} 1");
    assert_line(&out, "segue_edge_ttfb_seconds_bucket{cache=\"hit\",le=\"0.0025\"} 1");
    assert_line(&out, "segue_edge_ttfb_seconds_bucket{cache=\"hit\",le=\"0.005\"} 2");
    assert_line(&out, "segue_edge_ttfb_seconds_bucket{cache=\"hit\",le=\"300\"} 2");
    assert_line(&out, "segue_edge_ttfb_seconds_bucket{cache=\"hit\",le=\"1800\"} 3");
    assert_line(&out, "segue_edge_ttfb_seconds_bucket{cache=\"hit\",le=\"+Inf\"} 3\n"
                      "segue_edge_ttfb_seconds_sum{cache=\"hit\"} 400.00309\n"
                      "segue_edge_ttfb_seconds_count{cache=\"hit\"} 3");
    assert_line(&out,
                "segue_edge_body_bytes_bucket{le=\"16383\"} 0\nsegue_edge_body_bytes_bucket{le=\"65535\"} 1");
    assert_line(&out, "segue_edge_store_ratio{path=\"/a\\\"b\\\\c?d?,e=f}\",class=\"nvme\"} 0.25\n"
                      "segue_edge_store_ratio{path=\"nan\"} NaN\n"
                      "segue_edge_store_ratio{path=\"inf\"} -Inf\n"
                      "segue_edge_store_ratio 7");
    grow_free(&out);
    drop(&m);
}

static json_t *samples(json_t *all, const char *name)
{
    json_t *family = json_object_get(json_object_get(all, "metrics"), name);

    assert_non_null(family);
    return json_object_get(family, "samples");
}

static void json(void **state)
{
    struct metrics *m = make();
    struct grow out = grow_of(METRICS_BYTES_MAX);
    json_error_t error;
    json_t *all, *s;
    const char *label;

    (void)state;
    workers[1]->misses = 1ull << 62; /* jansson's integers are signed */
    metrics_render_json(m, &out);
    all = json_loadb(out.p, out.n, JSON_REJECT_DUPLICATES, &error);
    if (all == NULL)
        fail_msg("%s at %d: %.*s", error.text, error.position, (int)out.n, out.p);
    assert_string_equal(json_string_value(json_object_get(all, "program")), "segue-edge");
    s = samples(all, "requests_total");
    assert_int_equal(json_array_size(s), 2);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(s, 1), "value")), 1ll << 62);
    s = json_array_get(samples(all, "ttfb_seconds"), 0);
    assert_int_equal(json_integer_value(json_object_get(s, "count")), 3);
    assert_true(fabs(json_real_value(json_object_get(s, "sum")) - 400.00309) < 1e-9);
    assert_true(json_real_value(json_object_get(s, "p50")) >= 0.003);
    assert_true(json_real_value(json_object_get(s, "p50")) < 0.0033);
    assert_int_equal(json_array_size(json_object_get(s, "buckets")), 3);
    s = json_array_get(samples(all, "store_ratio"), 0);
    label = json_string_value(json_object_get(json_object_get(s, "labels"), "path"));
    assert_string_equal(label, "/a\"b\\c?d?,e=f}");
    assert_string_equal(json_string_value(json_object_get(json_object_get(s, "labels"), "class")), "nvme");
    assert_true(json_is_null(json_object_get(json_array_get(samples(all, "store_ratio"), 1), "value")));
    json_decref(all);
    grow_free(&out);
    drop(&m);
}

static void the_process_is_described(void **state)
{
    struct process_usage a, b;
    double now = (double)clock_unix_s();
    int fd;

    (void)state;
    process_usage(&a);
    assert_true(a.resident_bytes > 100000 && a.virtual_bytes >= a.resident_bytes);
    assert_true(a.start_unix_s > now - 600 && a.start_unix_s < now + 2);
    assert_int_equal(a.threads, 1);
    assert_true(a.files_max >= a.open_files && a.cpu_user_ns + a.cpu_system_ns > 0);
    fd = dup(0);
    assert_true(fd >= 0);
    process_usage(&b);
    assert_int_equal(b.open_files, a.open_files + 1);
    close(fd);
    assert_true(process_raise_files() >= (int64_t)a.files_max);
}

static void what_does_not_fit_is_told(void **state)
{
    struct metrics *m = make();
    struct grow out = grow_of(1000);

    (void)state;
    metrics_render_prometheus(m, &out);
    assert_true(out.failed);
    grow_free(&out);
    drop(&m);
}

/* `test_metrics print` writes a page, for promtool. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prometheus_text),
        cmocka_unit_test(json),
        cmocka_unit_test(the_process_is_described),
        cmocka_unit_test(what_does_not_fit_is_told),
    };

    if (argc == 2 && strcmp(argv[1], "print") == 0) {
        struct metrics *m = make();
        struct grow out = grow_of(METRICS_BYTES_MAX);

        metrics_render_prometheus(m, &out);
        fwrite(out.p, 1, out.n, stdout);
        grow_free(&out);
        drop(&m);
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
