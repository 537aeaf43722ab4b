/* The parser of rights files, and the lookup against one that reads all lines. The input is a path, and after its
 * newline the file. */
#include "fuzz.h"

#include "http/rights.h"
#include "http/url.h"

static struct str word(struct str *line)
{
    while (line->n > 0 && strchr(" \t\r", line->p[0]) != NULL && line->p[0] != '\0')
        *line = str_skip(*line, 1);
    size_t n = 0;
    while (n < line->n && (line->p[n] == '\0' || strchr(" \t\r", line->p[n]) == NULL))
        n++;
    struct str w = str_of(line->p, n);
    *line = str_skip(*line, n);
    return w;
}

static enum rights_answer reference(struct str file, struct str path, struct str country)
{
    struct str best = STR_NONE, markets = STR("all");
    struct markets m;
    while (file.n > 0) {
        struct str line = fuzz_line(&file), prefix = word(&line), given = word(&line);
        if (prefix.n == 0 || prefix.p[0] == '#')
            continue;
        if (prefix.p[prefix.n - 1] == '/')
            prefix.n--;
        bool fits = str_starts(path, prefix) && (path.n == prefix.n || path.p[prefix.n] == '/');
        if (fits && (best.p == NULL || prefix.n > best.n)) {
            best = prefix;
            markets = given;
        }
    }
    if (str_eq(markets, STR("all")))
        return RIGHTS_ALLOWED;
    if (str_eq(markets, STR("none")))
        return RIGHTS_TAKEN_DOWN;
    CHECK(markets_parse(markets, &m) == 0);
    return markets_allow(&m, country) ? RIGHTS_ALLOWED : RIGHTS_NOT_HERE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *bytes = exact_copy(data, size), *file_bytes, *scratch;
    struct str in = str_of(bytes, size), raw = fuzz_line(&in), path, file;
    struct rights_error error;
    struct rights *rights;

    file_bytes = exact_copy(in.p, in.n);
    file = str_of(file_bytes, in.n);
    scratch = exact_copy(raw.p, raw.n);
    if (rights_parse(file, &rights, &error) != 0) {
        CHECK(rights == NULL && error.text[0] != '\0');
    } else if (url_path_canonical(raw, scratch, &path) == 0) {
        static const struct str countries[] = {STR_INIT("SE"), STR_INIT(""), STR_INIT("US")};
        bool plain =
            (file.n == 0 || memchr(file.p, '%', file.n) == NULL) && memchr(path.p, '%', path.n) == NULL;
        for (size_t i = 0; i < ARRAY_LEN(countries); i++) {
            enum rights_answer answer = rights_check(rights, path, countries[i]);
            CHECK(!plain || answer == reference(file, path, countries[i]));
        }
    }
    rights_unref(&rights);
    free(scratch);
    free(file_bytes);
    free(bytes);
    return 0;
}
