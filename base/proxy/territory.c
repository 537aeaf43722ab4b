#include "proxy/territory.h"

#include "util/check.h"
#include "util/clock.h"
#include "util/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const names[TERRITORY_PARTS] = {[TERRITORY_GEO] = "geo", [TERRITORY_RIGHTS] = "rights"};

/* --- files --- */

static int64_t ns_of(struct timespec t)
{
    return (int64_t)t.tv_sec * (int64_t)NS_PER_S + t.tv_nsec;
}

static struct territory_stamp stamp_of(const struct stat *st)
{
    return (struct territory_stamp){.exists = true,
                                    .device = st->st_dev,
                                    .inode = st->st_ino,
                                    .bytes = st->st_size,
                                    .modified_ns = ns_of(st->st_mtim),
                                    .changed_ns = ns_of(st->st_ctim)};
}

static bool same(const struct territory_stamp *a, const struct territory_stamp *b)
{
    return a->exists == b->exists && a->device == b->device && a->inode == b->inode && a->bytes == b->bytes &&
           a->modified_ns == b->modified_ns && a->changed_ns == b->changed_ns;
}

static int fail(char error[TERRITORY_ERROR_BYTES], int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int fail(char error[TERRITORY_ERROR_BYTES], int code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(error, TERRITORY_ERROR_BYTES, format, args);
    va_end(args);
    return code;
}

/* An open file and its stamp, or -errno. A FIFO would hold the thread, a folder cannot be read. */
static int open_file(const char *path, struct territory_stamp *stamp, char error[TERRITORY_ERROR_BYTES])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), code;
    struct stat st;

    *stamp = (struct territory_stamp){.exists = false};
    if (fd < 0)
        return fail(error, -errno, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st) != 0) {
        code = fail(error, -errno, "%s: %s", path, strerror(errno));
    } else {
        *stamp = stamp_of(&st);
        code = S_ISREG(st.st_mode) ? 0 : fail(error, -EINVAL, "%s is no regular file", path);
    }
    if (code == 0)
        return fd;
    close(fd);
    return code;
}

/* What was read while somebody wrote may be half of one version and half of another. */
static int still_the_same(int fd, const char *path, const struct territory_stamp *before,
                          char error[TERRITORY_ERROR_BYTES])
{
    struct territory_stamp now;
    struct stat st;

    if (fstat(fd, &st) != 0)
        return fail(error, -errno, "%s: %s", path, strerror(errno));
    now = stamp_of(&st);
    return same(&now, before) ? 0 : fail(error, -EAGAIN, "%s changed while it was read", path);
}

static int read_all(int fd, const char *path, size_t bytes, char **out, char error[TERRITORY_ERROR_BYTES])
{
    size_t n = 0;

    if (bytes > RIGHTS_FILE_BYTES_MAX)
        return fail(error, -EFBIG, "%s is larger than %u MiB", path, RIGHTS_FILE_BYTES_MAX >> 20);
    *out = malloc(bytes + 1);
    if (*out == NULL)
        return fail(error, -ENOMEM, "%s: out of memory", path);
    while (n < bytes) {
        ssize_t got = read(fd, *out + n, bytes - n);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            free(TAKE(out));
            return got < 0 ? fail(error, -errno, "%s: %s", path, strerror(errno))
                           : fail(error, -EAGAIN, "%s changed while it was read", path);
        }
        n += (size_t)got;
    }
    return 0;
}

/* --- parts --- */

static int load_geo(const char *path, struct geo **out, struct territory_stamp *stamp,
                    char error[TERRITORY_ERROR_BYTES])
{
    char why[GEO_ERROR_BYTES];
    int fd = open_file(path, stamp, error), code;

    if (fd < 0)
        return fd;
    code = geo_open(fd, out, why);
    if (code != 0)
        (void)fail(error, code, "%s %s", path, why);
    else if ((code = still_the_same(fd, path, stamp, error)) != 0)
        geo_unref(out);
    close(fd);
    return code;
}

static int parse_rights(const char *path, struct str text, bool geo, struct rights **out,
                        char error[TERRITORY_ERROR_BYTES])
{
    struct rights_error why;
    int code = rights_parse(text, out, &why);

    if (code != 0)
        return why.line > 0 ? fail(error, code, "%s:%u: %s", path, why.line, why.text)
                            : fail(error, code, "%s: %s", path, why.text);
    if (geo || rights_market_line(*out) == 0)
        return 0;
    (void)fail(
        error, -EINVAL,
        "%s:%u: names markets, but there is no `geo` to tell countries by; without it only `all` and `none` "
        "can be",
        path, rights_market_line(*out));
    rights_unref(out);
    return -EINVAL;
}

static int load_rights(const char *path, bool geo, struct rights **out, struct territory_stamp *stamp,
                       char error[TERRITORY_ERROR_BYTES])
{
    int fd = open_file(path, stamp, error), code;
    char *text = NULL;

    if (fd < 0)
        return fd;
    code = read_all(fd, path, (size_t)stamp->bytes, &text, error);
    if (code == 0)
        code = still_the_same(fd, path, stamp, error);
    if (code == 0)
        code = parse_rights(path, str_of(text, (size_t)stamp->bytes), geo, out, error);
    free(text);
    close(fd);
    return code;
}

static int load_part(struct territory *t, enum territory_part part, const char *path, bool geo,
                     char error[TERRITORY_ERROR_BYTES])
{
    return part == TERRITORY_GEO ? load_geo(path, &t->geo, &t->stamps[part], error)
                                 : load_rights(path, geo, &t->rights, &t->stamps[part], error);
}

/* --- snapshots --- */

static struct territory *create(void)
{
    struct territory *t = calloc(1, sizeof *t);

    if (t != NULL)
        t->refs = 1;
    return t;
}

int territory_load(const char *const paths[TERRITORY_PARTS], struct territory **out,
                   enum territory_part *part, char error[TERRITORY_ERROR_BYTES])
{
    struct territory *t = create();
    int code = 0;

    *out = NULL;
    *part = TERRITORY_GEO;
    if (t == NULL)
        return fail(error, -ENOMEM, "out of memory");
    for (unsigned i = 0; i < TERRITORY_PARTS && code == 0; i++) {
        *part = i;
        if (paths[i] != NULL)
            code = load_part(t, i, paths[i], paths[TERRITORY_GEO] != NULL, error);
    }
    if (code != 0)
        territory_unref(&t);
    *out = t;
    return code;
}

struct territory *territory_ref(struct territory *t)
{
    atomic_fetch_add(&t->refs, 1);
    return t;
}

void territory_unref(struct territory **pt)
{
    struct territory *t = TAKE(pt);

    if (t == NULL || atomic_fetch_sub(&t->refs, 1) != 1)
        return;
    geo_unref(&t->geo);
    rights_unref(&t->rights);
    free(t);
}

/* --- watching --- */

/* A snapshot with this part loaded anew and the other as it is, or NULL. */
static struct territory *replace(const struct territory *current, enum territory_part part, const char *path,
                                 struct territory_watch *watch)
{
    char error[TERRITORY_ERROR_BYTES] = "out of memory";
    struct territory *t = create();
    int code = t == NULL ? -ENOMEM : load_part(t, part, path, current->geo != NULL, error);

    if (code == -EAGAIN) { /* the next look sees what became of it */
        territory_unref(&t);
        return NULL;
    }
    if (code != 0) {
        watch->refused[part] = watch->seen[part];
        watch->has_refused[part] = true;
        watch->failed[part]++;
        log_error("%s; what was loaded before stays until the file is replaced by a good one", error);
        territory_unref(&t);
        return NULL;
    }
    for (unsigned i = 0; i < TERRITORY_PARTS; i++)
        if (i != part)
            t->stamps[i] = current->stamps[i];
    if (part != TERRITORY_GEO && current->geo != NULL)
        t->geo = geo_ref(current->geo);
    if (part != TERRITORY_RIGHTS && current->rights != NULL)
        t->rights = rights_ref(current->rights);
    watch->replaced[part]++;
    if (part == TERRITORY_GEO)
        log_info("country database replaced from %s", path);
    else
        log_info("rights replaced from %s: %zu entries", path, rights_entries(t->rights));
    return t;
}

struct territory *territory_look(struct territory_watch *watch, const struct territory *current,
                                 const char *const paths[TERRITORY_PARTS])
{
    struct territory *made = NULL;

    for (unsigned i = 0; i < TERRITORY_PARTS; i++) {
        struct territory_stamp now = {.exists = false};
        struct territory *next;
        struct stat st;
        bool settled;

        if (paths[i] == NULL)
            continue;
        if (stat(paths[i], &st) == 0)
            now = stamp_of(&st);
        settled = same(&now, &watch->seen[i]);
        watch->seen[i] = now;
        if (!settled || same(&now, &current->stamps[i]) ||
            (watch->has_refused[i] && same(&now, &watch->refused[i])))
            continue;
        next = replace(made != NULL ? made : current, i, paths[i], watch);
        if (next != NULL) {
            territory_unref(&made);
            made = next;
        }
    }
    return made;
}

void territory_metrics(struct metrics_writer *w, const struct territory *current,
                       const struct territory_watch *watch)
{
    if (current->geo != NULL) {
        metrics_family(w, "geo_database_build_timestamp_seconds", METRIC_GAUGE,
                       "When the country database in use was made.");
        metrics_u64(w, NULL, geo_build_unix_s(current->geo));
    }
    if (current->rights != NULL) {
        metrics_family(w, "rights_entries", METRIC_GAUGE, "Entries of the rights file in use.");
        metrics_u64(w, NULL, rights_entries(current->rights));
        metrics_family(w, "rights_bytes", METRIC_GAUGE, "Memory that they take.");
        metrics_u64(w, NULL, rights_bytes(current->rights));
    }
    metrics_family(w, "territory_replacements_total", METRIC_COUNTER,
                   "Country databases and rights files found changed, by what came of it.");
    for (unsigned i = 0; i < TERRITORY_PARTS; i++) {
        char labels[64];

        (void)snprintf(labels, sizeof labels, "file=\"%s\",result=\"ok\"", names[i]);
        metrics_u64(w, labels, watch->replaced[i]);
        (void)snprintf(labels, sizeof labels, "file=\"%s\",result=\"error\"", names[i]);
        metrics_u64(w, labels, watch->failed[i]);
    }
}
