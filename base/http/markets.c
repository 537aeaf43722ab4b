#include "http/markets.h"

#include <errno.h>

bool markets_is_country(struct str s)
{
    return s.n == 2 && s.p[0] >= 'A' && s.p[0] <= 'Z' && s.p[1] >= 'A' && s.p[1] <= 'Z';
}

static unsigned index_of(const char country[2])
{
    return (unsigned)(country[0] - 'A') * 26 + (unsigned)(country[1] - 'A');
}

int markets_parse(struct str text, struct markets *out)
{
    bool but = text.n > 0 && text.p[0] == '-';
    struct str rest = str_skip(text, but);
    struct markets m = {0};

    if (rest.n % 3 != 2)
        return -EINVAL;
    for (size_t i = 0; i < rest.n; i += 3) {
        unsigned at;

        if (!markets_is_country(str_of(rest.p + i, 2)) || (i + 2 < rest.n && rest.p[i + 2] != ','))
            return -EINVAL;
        at = index_of(rest.p + i);
        m.bits[at / 64] |= 1ull << at % 64;
    }
    for (unsigned i = 0; but && i < MARKETS_WORDS; i++)
        m.bits[i] = ~m.bits[i];
    *out = m;
    return 0;
}

bool markets_allow(const struct markets *markets, struct str country)
{
    unsigned at;

    if (!markets_is_country(country))
        return false;
    at = index_of(country.p);
    return markets->bits[at / 64] >> at % 64 & 1;
}
