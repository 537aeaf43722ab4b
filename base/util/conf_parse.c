/* Quantities with units, and the converters that report what is wrong with one. */
#include "util/conf.h"

#include "util/check.h"
#include "util/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

struct unit {
    struct str name;
    uint64_t factor;
};

#define SECOND_MS 1000ull
#define DAY_MS    (24 * 3600 * SECOND_MS)

/* From the largest down, so that a bound is printed in the largest unit that divides it. */
static const struct unit durations[] = {
    {STR_INIT("y"), 365 * DAY_MS},
    {STR_INIT("w"), 7 * DAY_MS},
    {STR_INIT("d"), DAY_MS},
    {STR_INIT("h"), 3600 * SECOND_MS},
    {STR_INIT("m"), 60 * SECOND_MS},
    {STR_INIT("s"), SECOND_MS},
    {STR_INIT("ms"), 1},
};

static const struct unit sizes[] = {
    {STR_INIT("TiB"), 1ull << 40},
    {STR_INIT("TB"), 1000000000000ull},
    {STR_INIT("GiB"), 1ull << 30},
    {STR_INIT("GB"), 1000000000},
    {STR_INIT("MiB"), 1ull << 20},
    {STR_INIT("MB"), 1000000},
    {STR_INIT("KiB"), 1024},
    {STR_INIT("KB"), 1000},
    {STR_INIT("B"), 1},
};

static int parse_quantity(struct str text, const struct unit *units, size_t units_n, uint64_t *out)
{
    size_t digits = 0;
    while (digits < text.n && text.p[digits] >= '0' && text.p[digits] <= '9')
        digits++;
    if (digits == 0)
        return -EINVAL;
    uint64_t number;
    int rc = str_to_u64(str_of(text.p, digits), &number);
    struct str name = str_skip(text, digits);
    if (rc == 0 && number == 0 && name.n == 0) {
        *out = 0;
        return 0;
    }
    for (size_t i = 0; i < units_n; i++) {
        if (!str_eq(name, units[i].name))
            continue;
        if (rc < 0 || number > UINT64_MAX / units[i].factor)
            return -ERANGE;
        *out = number * units[i].factor;
        return 0;
    }
    return -EINVAL;
}

int conf_parse_duration_ms(struct str text, uint64_t *out)
{
    return parse_quantity(text, durations, ARRAY_LEN(durations), out);
}

int conf_parse_bytes(struct str text, uint64_t *out)
{
    return parse_quantity(text, sizes, ARRAY_LEN(sizes), out);
}

int conf_parse_rate_ns(struct str text, uint64_t *out)
{
    static const struct {
        struct str per;
        uint64_t ns;
    } periods[] = {
        {STR_INIT("/s"), NS_PER_S}, {STR_INIT("/m"), 60 * NS_PER_S}, {STR_INIT("/h"), 3600 * NS_PER_S}};

    if (text.n < 3)
        return -EINVAL;
    struct str per = str_skip(text, text.n - 2);
    uint64_t number;
    int rc = str_to_u64(str_of(text.p, text.n - 2), &number);
    for (size_t i = 0; i < ARRAY_LEN(periods); i++) {
        if (!str_eq(per, periods[i].per))
            continue;
        if (rc == 0 && number > periods[i].ns)
            rc = -ERANGE;
        if (rc == 0)
            *out = number == 0 ? 0 : periods[i].ns / number;
        return rc;
    }
    return -EINVAL;
}

int conf_parse_bytes_per_s(struct str text, uint64_t *out)
{
    if (text.n < 2 || !str_eq(str_skip(text, text.n - 2), STR("/s")))
        return -EINVAL;
    return conf_parse_bytes(str_of(text.p, text.n - 2), out);
}

/* n digits at *s, which moves on past them and the separator. */
static bool take_digits(struct str *s, size_t n, char separator, int *out)
{
    uint64_t value;
    if (s->n < n + 1 || str_to_u64(str_of(s->p, n), &value) < 0 || s->p[n] != separator)
        return false;
    *out = (int)value;
    *s = str_skip(*s, n + 1);
    return true;
}

int conf_parse_time_s(struct str text, int64_t *out)
{
    uint64_t seconds;
    if (str_to_u64(text, &seconds) == 0) {
        if (seconds > INT64_MAX)
            return -ERANGE;
        *out = (int64_t)seconds;
        return 0;
    }
    struct tm tm = {0};
    if (!take_digits(&text, 4, '-', &tm.tm_year) || !take_digits(&text, 2, '-', &tm.tm_mon) ||
        !take_digits(&text, 2, 'T', &tm.tm_mday) || !take_digits(&text, 2, ':', &tm.tm_hour) ||
        !take_digits(&text, 2, ':', &tm.tm_min) || !take_digits(&text, 2, 'Z', &tm.tm_sec) || text.n > 0)
        return -EINVAL;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    struct tm normal = tm;
    time_t t = timegm(&normal);
    /* timegm moves a 30 February into March; then it is not what was written. */
    if (normal.tm_mon != tm.tm_mon || normal.tm_mday != tm.tm_mday || normal.tm_hour != tm.tm_hour ||
        normal.tm_min != tm.tm_min || normal.tm_sec != tm.tm_sec || t < 0)
        return -EINVAL;
    *out = t;
    return 0;
}

struct printed {
    char text[32];
};

static struct printed print_quantity(uint64_t value, const struct unit *units, size_t units_n)
{
    struct printed p;
    size_t i = 0;
    while (i + 1 < units_n && (value == 0 || value % units[i].factor != 0))
        i++;
    snprintf(p.text, sizeof(p.text), "%" PRIu64 "%s", value / units[i].factor, units[i].name.p);
    return p;
}

struct quantity {
    const char *expected;
    int (*parse)(struct str text, uint64_t *out);
    const struct unit *units; /* NULL: a bare number */
    size_t units_n;
};

static const struct quantity duration = {CONF_DURATION_EXPECTED, conf_parse_duration_ms, durations,
                                         ARRAY_LEN(durations)};
static const struct quantity size = {CONF_BYTES_EXPECTED, conf_parse_bytes, sizes, ARRAY_LEN(sizes)};
static const struct quantity speed = {CONF_SPEED_EXPECTED, conf_parse_bytes_per_s, sizes, ARRAY_LEN(sizes)};
static const struct quantity number_ = {"a whole number", str_to_u64, NULL, 0};

static struct printed print_bound(const struct quantity *q, uint64_t value)
{
    static const struct unit bare = {STR_INIT(""), 1};
    return q->units != NULL ? print_quantity(value, q->units, q->units_n) : print_quantity(value, &bare, 1);
}

static uint64_t convert(struct conf *conf, const char *path, const char *text, const struct quantity *q,
                        uint64_t absent, uint64_t min, uint64_t max)
{
    if (text == NULL)
        return absent;
    uint64_t value = 0;
    int rc = q->parse(str_z(text), &value);
    if (rc == -EINVAL) {
        bool bare = q->units != NULL && str_to_u64(str_z(text), &value) == 0;
        conf_fail(conf, path, "expected %s, got \"%.80s\"%s", q->expected, text,
                  bare ? ", which has no unit" : "");
        return absent;
    }
    if (rc == 0 && value < min) {
        conf_fail(conf, path, "must be at least %s, got \"%.80s\"", print_bound(q, min).text, text);
        return absent;
    }
    if (rc < 0 || value > max) {
        conf_fail(conf, path, "must be at most %s, got \"%.80s\"", print_bound(q, max).text, text);
        return absent;
    }
    return value;
}

uint64_t conf_duration_ms(struct conf *conf, const char *path, const char *text, uint64_t absent,
                          uint64_t min, uint64_t max)
{
    return convert(conf, path, text, &duration, absent, min, max);
}

uint64_t conf_duration_s(struct conf *conf, const char *path, const char *text, uint64_t absent, uint64_t min,
                         uint64_t max)
{
    uint64_t max_ms = max > UINT64_MAX / SECOND_MS ? UINT64_MAX : max * SECOND_MS;
    uint64_t ms = convert(conf, path, text, &duration, UINT64_MAX, min * SECOND_MS, max_ms);
    if (ms == UINT64_MAX)
        return absent;
    if (ms % SECOND_MS != 0) {
        conf_fail(conf, path, "expected whole seconds, got \"%.80s\"", text);
        return absent;
    }
    return ms / SECOND_MS;
}

uint64_t conf_bytes(struct conf *conf, const char *path, const char *text, uint64_t absent, uint64_t min,
                    uint64_t max)
{
    return convert(conf, path, text, &size, absent, min, max);
}

uint64_t conf_number(struct conf *conf, const char *path, const char *text, uint64_t absent, uint64_t min,
                     uint64_t max)
{
    return convert(conf, path, text, &number_, absent, min, max);
}

uint64_t conf_bytes_per_s(struct conf *conf, const char *path, const char *text, uint64_t absent,
                          uint64_t min, uint64_t max)
{
    return convert(conf, path, text, &speed, absent, min, max);
}

uint64_t conf_rate_ns(struct conf *conf, const char *path, const char *text, uint64_t absent)
{
    uint64_t value;
    if (text == NULL)
        return absent;
    int rc = conf_parse_rate_ns(str_z(text), &value);
    if (rc == 0)
        return value;
    if (rc == -ERANGE)
        conf_fail(conf, path, "must be at most 1000000000/s, got \"%.80s\"", text);
    else
        conf_fail(conf, path, "expected %s, got \"%.80s\"", CONF_RATE_EXPECTED, text);
    return absent;
}

int64_t conf_time_s(struct conf *conf, const char *path, const char *text, int64_t absent)
{
    int64_t value;
    if (text == NULL)
        return absent;
    if (conf_parse_time_s(str_z(text), &value) == 0)
        return value;
    conf_fail(conf, path, "expected %s, got \"%.80s\"", CONF_TIME_EXPECTED, text);
    return absent;
}
