/* YAML files read into structs by a libcyaml schema, with errors that name file, line, key and what was
 * expected:
 *
 *     edge.yaml:14: rules[2].ttl: expected a duration such as 30s, 5m, 1h, 7d or 1y, got "5 minutes"
 *
 * Two passes: libyaml's document gives every node its line, and is checked against the schema here (unknown
 * and missing keys, wrong kinds, duplicate keys, aliases), then libcyaml fills the struct. Values with a unit
 * or a meaning are strings in the schema; the program converts them with the functions below, which report by
 * key path and need no test of their own: the first error stays, later ones are dropped.
 *
 * A conf may block on the disk and is for start, reload and tools only. */
#pragma once

#include "util/str.h"

#include <cyaml/cyaml.h>

#define CONF_FILE_BYTES_MAX  (1024 * 1024) /* ten thousand rules; what is larger is not a configuration */
#define CONF_ERROR_BYTES_MAX 1024
#define CONF_DEPTH_MAX       16 /* the contract's files nest 4 deep */
#define CONF_PATH_BYTES_MAX  256

struct conf_error {
    char text[CONF_ERROR_BYTES_MAX]; /* one line, no newline at its end; empty: no error */
};

struct conf; /* an open file: its text, its nodes with their lines, the first error */

enum conf_flag {
    CONF_SECRET = 1, /* refuse a file that others than owner and group can read or write; wipe copies */
};

/* Reads the file. Only the first error of a conf is kept, in *error, which must outlive it. Returns 0 and a
 * conf that conf_close frees, or a negative errno: -EFBIG, -EISDIR, -EPERM (secret file that others can
 * read), -EILSEQ (not UTF-8), -EINVAL (not YAML, or not one document with a mapping), or what open(2) says.
 */
int conf_open(const char *path, unsigned flags, struct conf **out, struct conf_error *error);

/* The same from memory; `name` stands for the file in errors. For tests, fuzzing and tools. */
int conf_open_text(const char *name, struct str text, unsigned flags, struct conf **out,
                   struct conf_error *error);
void conf_close(struct conf **conf);

/* Checks the document against the schema and fills a new struct, or returns -EINVAL. The struct is the
 * caller's, to be freed with conf_unload. `top` is a mapping with CYAML_FLAG_POINTER. */
int conf_load(struct conf *conf, const struct cyaml_schema_value *top, void **out);
void conf_unload(struct conf *conf, const struct cyaml_schema_value *top, void **data);

/* Whether the file has this key path ("rules[2].keep_query"). */
bool conf_has(const struct conf *conf, const char *path);

/* Values that libcyaml's types cannot tell (`all` or a list), which the schema leaves out by CYAML_IGNORE:
 * the scalar at a path, or NULL; the number of entries of the list at a path, or -1. They live as long as
 * conf. */
const char *conf_scalar_at(const struct conf *conf, const char *path);
int conf_list_count(const struct conf *conf, const char *path);

/* The line (from 1) of a key path, or of the nearest of its parents that is there. */
unsigned conf_line(const struct conf *conf, const char *path);

/* Records an error at a key path (NULL: of the whole file). Always returns -EINVAL. */
int conf_fail(struct conf *conf, const char *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* 0, or -EINVAL once anything failed. */
int conf_status(const struct conf *conf);

/* A key path in a buffer of its own: conf_fail(c, CONF_PATH("rules[%u].ttl", i), ...). */
struct conf_path {
    char text[CONF_PATH_BYTES_MAX];
};
struct conf_path conf_path_of(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define CONF_PATH(...) (conf_path_of(__VA_ARGS__).text)

/* Converters: `text` as the schema read it, NULL when the key is absent (then `absent` is the result). A
 * value out of [min, max] is an error that names the bound. They return `absent` after an error. */
uint64_t conf_duration_ms(struct conf *conf, const char *path, const char *text, uint64_t absent,
                          uint64_t min, uint64_t max);
/* Whole seconds: 500ms is an error. */
uint64_t conf_duration_s(struct conf *conf, const char *path, const char *text, uint64_t absent, uint64_t min,
                         uint64_t max);
uint64_t conf_bytes(struct conf *conf, const char *path, const char *text, uint64_t absent, uint64_t min,
                    uint64_t max);
uint64_t conf_number(struct conf *conf, const char *path, const char *text, uint64_t absent, uint64_t min,
                     uint64_t max);

/* N bytes a second, written as a size and "/s". */
uint64_t conf_bytes_per_s(struct conf *conf, const char *path, const char *text, uint64_t absent,
                          uint64_t min, uint64_t max);
/* N events a second, a minute or an hour, as nanoseconds from one to the next; 0 for none (0/s). */
uint64_t conf_rate_ns(struct conf *conf, const char *path, const char *text, uint64_t absent);
/* A moment, in Unix seconds. */
int64_t conf_time_s(struct conf *conf, const char *path, const char *text, int64_t absent);

/* The secret that stands alone in a file (a token): its first line without white space around it. `path` is
 * the file. The same checks as CONF_SECRET; 16 to 512 bytes, visible ASCII. Returns 0 and the length. */
int conf_read_token(const char *path, char *out, size_t cap, size_t *n, struct conf_error *error);

/* Pure parsers of quantities. Returns 0, -EINVAL (not of the form) or -ERANGE.
 *   duration   a whole number and ms, s, m, h, d, w or y (365 d); 0 may stand alone
 *   bytes      a whole number and B, KiB, MiB, GiB, TiB, KB, MB, GB or TB; 0 may stand alone
 *   rate       N/s, N/m or N/h, as nanoseconds from one event to the next; 0 for none (0/s) */
int conf_parse_duration_ms(struct str text, uint64_t *out);
int conf_parse_bytes(struct str text, uint64_t *out);
int conf_parse_rate_ns(struct str text, uint64_t *out);
int conf_parse_bytes_per_s(struct str text, uint64_t *out); /* 64KiB/s */

/* Unix seconds, or RFC 3339 in UTC without fractions: 2027-01-31T12:00:00Z. */
int conf_parse_time_s(struct str text, int64_t *out);

#define CONF_DURATION_EXPECTED "a duration such as 30s, 5m, 1h, 7d or 1y"
#define CONF_BYTES_EXPECTED    "a size such as 512KiB, 64MiB or 1GiB"
#define CONF_RATE_EXPECTED     "a rate such as 50/s, 100/m or 1000/h"
#define CONF_SPEED_EXPECTED    "a speed such as 1KiB/s"
#define CONF_TIME_EXPECTED     "a time such as 2027-01-31T12:00:00Z, or Unix seconds"
