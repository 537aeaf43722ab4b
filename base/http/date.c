#include "http/date.h"

#include <errno.h>

static const char weekdays[7][10] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                     "Thursday", "Friday", "Saturday"};
static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

#define DAY_S      86400
#define YEAR_MIN_S (-62135596800) /* 0001-01-01 00:00:00 */
#define YEAR_MAX_S 253402300799   /* 9999-12-31 23:59:59 */

struct civil {
    int64_t year;
    unsigned month, day; /* from 1 */
};

/* Days since 1970-01-01 in the proleptic Gregorian calendar. A year begins in March here, so that the leap
 * day is its last and the months' lengths repeat every five; an era has 400 years, 146,097 days. */
static int64_t days_of(struct civil c)
{
    int64_t y = c.year - (c.month <= 2);
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * (c.month + (c.month > 2 ? -3 : 9)) + 2) / 5 + c.day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;

    return era * 146097 + day_of_era - 719468;
}

static struct civil civil_of(int64_t days)
{
    int64_t z = days + 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    int64_t day_of_era = z - era * 146097;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t march_month = (5 * day_of_year + 2) / 153;
    struct civil c = {
        .day = (unsigned)(day_of_year - (153 * march_month + 2) / 5 + 1),
        .month = (unsigned)(march_month < 10 ? march_month + 3 : march_month - 9),
    };

    c.year = year_of_era + era * 400 + (c.month <= 2);
    return c;
}

static void put2(char *p, unsigned v)
{
    p[0] = (char)('0' + v / 10);
    p[1] = (char)('0' + v % 10);
}

void date_format(int64_t unix_s, char out[static DATE_BYTES])
{
    int64_t s = unix_s < YEAR_MIN_S ? YEAR_MIN_S : unix_s > YEAR_MAX_S ? YEAR_MAX_S : unix_s;
    int64_t days = (s >= 0 ? s : s - (DAY_S - 1)) / DAY_S;
    unsigned of_day = (unsigned)(s - days * DAY_S);
    struct civil c = civil_of(days);

    memcpy(out, "Thu, 01 Jan 1970 00:00:00 GMT", DATE_BYTES);
    memcpy(out, weekdays[((days + 4) % 7 + 7) % 7], 3);
    put2(out + 5, c.day);
    memcpy(out + 8, months + (c.month - 1) * 3, 3);
    put2(out + 12, (unsigned)c.year / 100);
    put2(out + 14, (unsigned)c.year % 100);
    put2(out + 17, of_day / 3600);
    put2(out + 20, of_day / 60 % 60);
    put2(out + 23, of_day % 60);
}

/* Takes n digits off s; a space may stand for the first where `padded`. */
static bool take_number(struct str *s, size_t n, bool padded, unsigned *out)
{
    unsigned value = 0;

    if (s->n < n)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (padded && i == 0 && s->p[0] == ' ')
            continue;
        if (s->p[i] < '0' || s->p[i] > '9')
            return false;
        value = value * 10 + (unsigned)(s->p[i] - '0');
    }
    *s = str_skip(*s, n);
    *out = value;
    return true;
}

static bool take_literal(struct str *s, struct str literal)
{
    if (!str_starts(*s, literal))
        return false;
    *s = str_skip(*s, literal.n);
    return true;
}

static bool take_month(struct str *s, unsigned *out)
{
    for (unsigned m = 0; m < 12; m++)
        if (take_literal(s, str_of(months + m * 3, 3))) {
            *out = m + 1;
            return true;
        }
    return false;
}

static bool take_time(struct str *s, unsigned *of_day)
{
    unsigned h, m, sec;

    if (!take_number(s, 2, false, &h) || !take_literal(s, STR(":")) || !take_number(s, 2, false, &m) ||
        !take_literal(s, STR(":")) || !take_number(s, 2, false, &sec))
        return false;
    *of_day = h * 3600 + m * 60 + sec;
    return h < 24 && m < 60 && sec <= 60;
}

static unsigned days_in(int64_t year, unsigned month)
{
    static const uint8_t days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

    if (month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0))
        return 29;
    return days[month - 1];
}

/* The weekday, in full or its first three letters; 0 when it is none. */
static size_t weekday_bytes(struct str s, bool *in_full)
{
    for (size_t i = 0; i < 7; i++) {
        struct str name = str_z(weekdays[i]);

        if (str_starts(s, name)) {
            *in_full = true;
            return name.n;
        }
        if (str_starts(s, str_of(name.p, 3))) {
            *in_full = false;
            return 3;
        }
    }
    return 0;
}

/* "06 Nov 1994 08:49:37 GMT" */
static bool parse_imf(struct str s, struct civil *c, unsigned *of_day)
{
    unsigned year;

    if (!take_number(&s, 2, false, &c->day) || !take_literal(&s, STR(" ")) || !take_month(&s, &c->month) ||
        !take_literal(&s, STR(" ")) || !take_number(&s, 4, false, &year) || !take_literal(&s, STR(" ")) ||
        !take_time(&s, of_day))
        return false;
    c->year = year;
    return str_eq(s, STR(" GMT"));
}

/* "06-Nov-94 08:49:37 GMT" */
static bool parse_rfc850(struct str s, int64_t now_s, struct civil *c, unsigned *of_day)
{
    int64_t this_year = civil_of((now_s >= 0 ? now_s : now_s - (DAY_S - 1)) / DAY_S).year;
    unsigned year;

    if (!take_number(&s, 2, false, &c->day) || !take_literal(&s, STR("-")) || !take_month(&s, &c->month) ||
        !take_literal(&s, STR("-")) || !take_number(&s, 2, false, &year) || !take_literal(&s, STR(" ")) ||
        !take_time(&s, of_day))
        return false;
    c->year = this_year - this_year % 100 + year;
    if (c->year > this_year + 50)
        c->year -= 100;
    else if (c->year <= this_year - 50)
        c->year += 100;
    return str_eq(s, STR(" GMT"));
}

/* "Nov  6 08:49:37 1994" */
static bool parse_asctime(struct str s, struct civil *c, unsigned *of_day)
{
    unsigned year;

    if (!take_month(&s, &c->month) || !take_literal(&s, STR(" ")) || !take_number(&s, 2, true, &c->day) ||
        !take_literal(&s, STR(" ")) || !take_time(&s, of_day) || !take_literal(&s, STR(" ")) ||
        !take_number(&s, 4, false, &year))
        return false;
    c->year = year;
    return s.n == 0;
}

int date_parse(struct str text, int64_t now_s, int64_t *unix_s)
{
    bool in_full = false, ok;
    size_t n = weekday_bytes(text, &in_full);
    struct str rest = str_skip(text, n);
    struct civil c = {0};
    unsigned of_day = 0;

    if (n == 0)
        return -EINVAL;
    if (take_literal(&rest, STR(", ")))
        ok = in_full ? parse_rfc850(rest, now_s, &c, &of_day) : parse_imf(rest, &c, &of_day);
    else
        ok = !in_full && take_literal(&rest, STR(" ")) && parse_asctime(rest, &c, &of_day);
    if (!ok || c.year < 1 || c.day < 1 || c.day > days_in(c.year, c.month))
        return -EINVAL;
    *unix_s = days_of(c) * DAY_S + of_day;
    return 0;
}
