#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/access_log.h"
#include "util/check.h"
#include "util/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_access_log.XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st, (void)type, (void)where;
    return remove(path);
}

static int remove_dir(void **state)
{
    (void)state;
    return nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static const char *path_of(const char *name)
{
    static char path[128];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static struct grow read_file(const char *name)
{
    struct grow g = grow_of(64u << 20);
    int fd = open(path_of(name), O_RDONLY);
    ssize_t n;
    char *to;

    assert_true(fd >= 0);
    do {
        to = grow_reserve(&g, 65536);
        n = read(fd, to, 65536);
        g.n += n > 0 ? (size_t)n : 0;
    } while (n > 0);
    close(fd);
    return g;
}

static size_t count_lines(const struct grow *g)
{
    size_t n = 0;

    for (size_t i = 0; i < g->n; i++)
        n += g->p[i] == '\n';
    if (g->n > 0)
        assert_int_equal(g->p[g->n - 1], '\n'); /* no torn line at the end */
    return n;
}

static struct access_record sample(const char *target)
{
    struct access_record r = {.unix_ns = 1790000000ull * NS_PER_S,
                              .status = 200,
                              .http_version = 11,
                              .method = STR("GET"),
                              .target = str_z(target),
                              .host = STR("audio.example.net"),
                              .user_agent = STR("Mozilla/5.0 (X11; Linux x86_64) Chrome/120.0 Safari/537.36"),
                              .uid = STR("u42"),
                              .kid = STR("k1")};

    assert_int_equal(address_parse(STR("192.0.2.9:5555"), 0, &r.client), 0);
    return r;
}

static struct access_log *open_log(const char *name, unsigned workers, size_t ring_bytes)
{
    const struct access_log_options options = {
        .path = name[0] == '/' ? name : path_of(name), .workers = workers, .ring_bytes = ring_bytes};
    struct access_log *log = NULL;

    assert_int_equal(access_log_open(&log, &options), 0);
    return log;
}

static uint64_t metric(struct access_log *log, const char *name)
{
    struct metrics *m = metrics_create("segue-test");
    struct grow out = grow_of(1 << 20);
    char line[128];
    const char *at;
    uint64_t value;

    metrics_add_source(m, access_log_metrics, log);
    metrics_render_prometheus(m, &out);
    grow_add_char(&out, 0);
    snprintf(line, sizeof line, "\nsegue_test_%s ", name);
    at = strstr(out.p, line);
    assert_non_null(at);
    value = strtoull(at + strlen(line), NULL, 10);
    grow_free(&out);
    metrics_destroy(&m);
    return value;
}

static void wait_for_metric(struct access_log *log, const char *name, uint64_t at_least)
{
    for (int i = 0; i < 500 && metric(log, name) < at_least; i++)
        usleep(10000);
    assert_true(metric(log, name) >= at_least);
}

static void a_line_appears_soon_and_mode_is_narrow(void **state)
{
    struct access_log *log = open_log("soon", 1, 0);
    struct access_record r = sample("/t?sig=SECRET");
    struct grow g;
    struct stat st;

    (void)state;
    access_log_add(access_log_ring(log, 0), &r);
    wait_for_metric(log, "access_log_written_bytes_total", 1);
    g = read_file("soon");
    assert_int_equal(count_lines(&g), 1);
    assert_null(memmem(g.p, g.n, "SECRET", 6));
    assert_non_null(memmem(g.p, g.n, "\"target\":\"/t?sig=-\"", 19));
    assert_int_equal(stat(path_of("soon"), &st), 0);
    assert_int_equal(st.st_mode & 0777 & ~0640u, 0);
    grow_free(&g);
    access_log_close(&log, 5000);
    assert_null(log);
}

struct writer {
    struct access_ring *ring;
    unsigned worker;
    pthread_t thread;
};

#define LINES_A_WORKER 20000

static void *write_many(void *arg)
{
    struct writer *w = arg;
    char target[600];

    for (unsigned i = 0; i < LINES_A_WORKER; i++) {
        struct access_record r;
        int n = snprintf(target, sizeof target, "/w%u/n%u/", w->worker, i);

        memset(target + n, 'x',
               i % 500); /* records of all lengths, so that the ring's end falls everywhere */
        target[n + i % 500] = 0;
        r = sample(target);
        access_log_add(w->ring, &r);
    }
    return NULL;
}

/* Every line is whole and in its worker's order; lines and drops add up. */
static void lines_and_drops_add_up(void **state)
{
    struct access_log *log = open_log("many", 3, 64 * 1024);
    struct writer writers[3];
    struct grow g;
    uint64_t dropped, lines;
    long last[3] = {-1, -1, -1};

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        writers[i] = (struct writer){.ring = access_log_ring(log, i), .worker = i};
        assert_int_equal(pthread_create(&writers[i].thread, NULL, write_many, &writers[i]), 0);
    }
    for (unsigned i = 0; i < 3; i++)
        pthread_join(writers[i].thread, NULL);
    for (int i = 0; i < 500 && metric(log, "access_log_waiting_bytes") > 0; i++)
        usleep(10000);
    dropped = metric(log, "access_log_dropped_total");
    lines = metric(log, "access_log_lines_total");
    assert_int_equal(lines + dropped, 3 * LINES_A_WORKER);
    access_log_close(&log, 5000);
    g = read_file("many");
    assert_int_equal(count_lines(&g), lines);
    for (const char *at = g.p; at < g.p + g.n;) {
        const char *end = memchr(at, '\n', (size_t)(g.p + g.n - at));
        const char *target = memmem(at, (size_t)(end - at), "\"target\":\"/w", 12);
        unsigned worker;
        unsigned n, xs = 0;

        assert_true(at[0] == '{' && end[-1] == '}');
        assert_non_null(target);
        assert_int_equal(sscanf(target, "\"target\":\"/w%u/n%u/", &worker, &n), 2);
        assert_true(worker < 3 && (long)n > last[worker]);
        last[worker] = n;
        for (const char *x = strchr(target + 12, 'n'); *x != '"'; x++)
            xs += *x == 'x';
        assert_int_equal(xs, n % 500);
        at = end + 1;
    }
    grow_free(&g);
}

static void rotation_goes_on_in_the_new_file(void **state)
{
    struct access_log *log = open_log("rotate", 1, 0);
    struct access_record r = sample("/one");
    struct grow g;
    char old[128];

    (void)state;
    access_log_add(access_log_ring(log, 0), &r);
    wait_for_metric(log, "access_log_written_bytes_total", 1);
    snprintf(old, sizeof old, "%s/rotate.1", dir);
    assert_int_equal(rename(path_of("rotate"), old), 0);
    access_log_reopen(log);
    for (int i = 0; i < 500 && access(path_of("rotate"), F_OK) != 0; i++)
        usleep(10000);
    r = sample("/two");
    access_log_add(access_log_ring(log, 0), &r);
    access_log_close(&log, 5000);
    g = read_file("rotate.1");
    assert_int_equal(count_lines(&g), 1);
    assert_non_null(memmem(g.p, g.n, "/one", 4));
    grow_free(&g);
    g = read_file("rotate");
    assert_int_equal(count_lines(&g), 1);
    assert_non_null(memmem(g.p, g.n, "/two", 4));
    grow_free(&g);
}

/* A disk that is full: writing fails, workers do not notice, and all goes on when there is room. */
static void a_full_disk_drops_counts_and_recovers(void **state)
{
    struct access_log *log;
    struct access_record r = sample("/t");
    char link[128];
    struct grow g;
    uint64_t dropped;

    (void)state;
    snprintf(link, sizeof link, "%s", path_of("full"));
    assert_int_equal(symlink("/dev/full", link), 0);
    log = open_log("full", 1, 64 * 1024);
    for (int i = 0; i < 5000; i++)
        access_log_add(access_log_ring(log, 0), &r);
    wait_for_metric(log, "access_log_errors_total", 1);
    for (int i = 0; i < 5000; i++)
        access_log_add(access_log_ring(log, 0), &r);
    dropped = metric(log, "access_log_dropped_total");
    assert_true(dropped > 5000 && dropped < 10000);
    assert_int_equal(metric(log, "access_log_written_bytes_total"), 0);
    assert_int_equal(unlink(link), 0); /* "room again": a plain file in its place */
    access_log_reopen(log);
    wait_for_metric(log, "access_log_written_bytes_total", 1);
    access_log_close(&log, 5000);
    g = read_file("full");
    assert_true(count_lines(&g) + dropped == 10000);
    grow_free(&g);
}

static void a_file_that_cannot_be_opened_is_an_error(void **state)
{
    const struct access_log_options options = {.path = "/nonexistent/x", .workers = 1};
    struct access_log *log = NULL;

    (void)state;
    assert_int_equal(access_log_open(&log, &options), -ENOENT);
    assert_null(log);
}

/* The directory goes away and comes back: the old file is used meanwhile, and nothing waits. */
static void a_reopen_that_fails_is_tried_again(void **state)
{
    struct access_log *log;
    struct access_record r = sample("/t");
    char sub[128], moved[128], path[256];

    (void)state;
    snprintf(sub, sizeof sub, "%s/sub", dir);
    snprintf(moved, sizeof moved, "%s/moved", dir);
    snprintf(path, sizeof path, "%s/log", sub);
    assert_int_equal(mkdir(sub, 0755), 0);
    log = open_log(path, 1, 0);
    assert_int_equal(rename(sub, moved), 0);
    access_log_reopen(log);
    wait_for_metric(log, "access_log_errors_total", 1);
    access_log_add(access_log_ring(log, 0), &r);
    wait_for_metric(log, "access_log_written_bytes_total", 1);
    assert_int_equal(mkdir(sub, 0755), 0);
    for (int i = 0; i < 500 && access(path, F_OK) != 0; i++)
        usleep(10000);
    assert_int_equal(access(path, F_OK), 0);
    access_log_close(&log, 5000);
}

static void long_strings_are_cut_and_said_to_be(void **state)
{
    static char long_text[20000];
    struct access_log *log = open_log("cut", 1, 0);
    struct access_record r;
    struct grow g;

    (void)state;
    memset(long_text, 'a', sizeof long_text - 1);
    memcpy(long_text, "/?sig=", 6); /* cut in the middle of the value */
    r = sample(long_text);
    r.user_agent = r.referer = str_z(long_text);
    access_log_add(access_log_ring(log, 0), &r);
    access_log_close(&log, 5000);
    g = read_file("cut");
    assert_int_equal(count_lines(&g), 1);
    assert_non_null(memmem(g.p, g.n, "\"cut\":true", 10));
    assert_non_null(memmem(g.p, g.n, "\"target\":\"/?sig=-\"", 18));
    assert_null(memmem(g.p, g.n, "aaaa", 4));
    grow_free(&g);
}

static void say_what_it_costs(void **state)
{
    struct access_log *log = open_log("/dev/null", 1, 4 << 20);
    struct access_ring *ring = access_log_ring(log, 0);
    struct access_record r = sample("/tracks/3n3Ppam7/320/7.ogg?exp=1790000000&kid=k1&uid=u42&sig="
                                    "0123456789012345678901234567890123456789012");
    uint64_t best_ns = UINT64_MAX;

    (void)state;
    for (int round = 0; round < 20; round++) {
        uint64_t start_ns = clock_mono_ns(), took_ns;

        for (int i = 0; i < 2000; i++)
            access_log_add(ring, &r);
        took_ns = (clock_mono_ns() - start_ns) / 2000;
        if (took_ns < best_ns)
            best_ns = took_ns;
        usleep(20000);
    }
    printf("access_log_add: %llu ns\n", (unsigned long long)best_ns);
    access_log_close(&log, 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_appears_soon_and_mode_is_narrow),
        cmocka_unit_test(lines_and_drops_add_up),
        cmocka_unit_test(rotation_goes_on_in_the_new_file),
        cmocka_unit_test(a_full_disk_drops_counts_and_recovers),
        cmocka_unit_test(a_file_that_cannot_be_opened_is_an_error),
        cmocka_unit_test(a_reopen_that_fails_is_tried_again),
        cmocka_unit_test(long_strings_are_cut_and_said_to_be),
        cmocka_unit_test(say_what_it_costs),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
