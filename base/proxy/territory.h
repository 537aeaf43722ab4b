/* Where things may be heard: the country database and the rights file, as one counted snapshot beside the
 * configuration's. Configuring either is the configuration's business (`geo`, `rights`); this loads them, sees when
 * a file has been replaced, and then makes a new snapshot that shares what has not changed. Workers get it by mail and
 * ask nobody else, so that a take-down holds for the next request on whatever connection.
 *
 * Loading blocks and is for the control thread. A snapshot is read-only. */
#pragma once

#include "http/rights.h"
#include "net/geo.h"
#include "node/metrics.h"

#include <sys/types.h>

#define TERRITORY_ERROR_BYTES 1024

enum territory_part { TERRITORY_GEO, TERRITORY_RIGHTS, TERRITORY_PARTS };

/* What tells one version of a file from another. */
struct territory_stamp {
    bool exists;
    dev_t device;
    ino_t inode;
    off_t bytes;
    int64_t modified_ns, changed_ns;
};

struct territory {
    _Atomic unsigned refs;
    struct geo *geo;       /* NULL: none is configured */
    struct rights *rights; /* NULL: none is configured */
    struct territory_stamp stamps[TERRITORY_PARTS];
};

/* paths[] are NULL for what is not configured. Returns 0, or a negative errno with the part and one line about its
 * file. Rights that name markets need a database. */
int territory_load(const char *const paths[TERRITORY_PARTS], struct territory **out,
                   enum territory_part *part, char error[TERRITORY_ERROR_BYTES]);

struct territory *territory_ref(struct territory *t);
void territory_unref(struct territory **t); /* any thread; NULL is let pass */

/* The control thread's: what it saw of the files, and what came of it. */
struct territory_watch {
    struct territory_stamp seen[TERRITORY_PARTS];
    struct territory_stamp refused[TERRITORY_PARTS]; /* where has_refused */
    bool has_refused[TERRITORY_PARTS];
    uint64_t replaced[TERRITORY_PARTS], failed[TERRITORY_PARTS];
};

/* Looks at the files; to be called every second or so. One that is another than `current` was made from, and has not
 * changed since the last look (so that half of it is not taken for all), is loaded. Returns a new snapshot, which is
 * the caller's, or NULL: nothing has changed, or what has is no good, which is logged once for each change. */
struct territory *territory_look(struct territory_watch *watch, const struct territory *current,
                                 const char *const paths[TERRITORY_PARTS]);

/* Metrics of both. */
void territory_metrics(struct metrics_writer *w, const struct territory *current,
                       const struct territory_watch *watch);
