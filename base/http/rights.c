#include "http/rights.h"

#include "http/url.h"
#include "util/check.h"
#include "util/hash.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define RIGHTS_MAGIC 0x52697431u
#define SEED         0x5269676874730001ull
#define SET_TABLE    (1u << 17) /* twice RIGHTS_SETS_MAX and more */

enum { SET_ALL, SET_NONE, SET_FIRST }; /* from there on rights->sets */

/* Open addressing; the texts hold, for each entry, this and then the prefix, decoded and without a slash at its
 * end. */
struct slot {
    uint32_t tag; /* of the hash */
    uint32_t at;  /* in texts; 0: free */
};

struct text_head {
    uint16_t n;
    uint16_t set;
};

struct rights {
    uint32_t magic;
    _Atomic unsigned refs;
    struct slot *slots;
    size_t slots_n, entries;
    char *texts;
    size_t texts_n;
    struct markets *sets;
    size_t sets_n, sets_cap;
    unsigned depth_max, market_line;
    size_t prefix_max;
};

/* --- lines --- */

static void describe(struct rights_error *error, unsigned line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void describe(struct rights_error *error, unsigned line, const char *format, ...)
{
    va_list args;

    error->line = line;
    va_start(args, format);
    (void)vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    for (char *c = error->text; *c != '\0'; c++) /* what was quoted may be anything */
        if (*c < ' ' || *c > '~')
            *c = '?';
}

#define fail(error, line, ...) (describe((error), (line), __VA_ARGS__), -EINVAL)

struct line {
    unsigned number;
    struct str prefix, markets; /* as written */
};

struct reader {
    struct str rest;
    unsigned number;
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static struct str take_word(struct str *line)
{
    size_t begin = 0, end;

    while (begin < line->n && is_space(line->p[begin]))
        begin++;
    for (end = begin; end < line->n && !is_space(line->p[end]);)
        end++;
    struct str word = str_of(line->p + begin, end - begin);
    *line = str_skip(*line, end);
    return word;
}

static bool says_nothing(struct str word)
{
    return word.n == 0 || word.p[0] == '#';
}

/* The next line that is an entry. 1, 0 at the end, or -EINVAL. */
static int next_line(struct reader *r, struct line *out, struct rights_error *error)
{
    while (r->rest.n > 0) {
        const char *end = memchr(r->rest.p, '\n', r->rest.n);
        struct str line = str_of(r->rest.p, end != NULL ? (size_t)(end - r->rest.p) : r->rest.n);

        r->number++;
        if (end == NULL)
            return fail(error, r->number, "the last line does not end; is the file whole?");
        r->rest = str_skip(r->rest, line.n + 1);
        *out = (struct line){.number = r->number, .prefix = take_word(&line)};
        if (says_nothing(out->prefix))
            continue;
        out->markets = take_word(&line);
        if (says_nothing(out->markets))
            return fail(error, r->number, "expected markets, `all` or `none` behind the prefix");
        if (!says_nothing(take_word(&line)))
            return fail(error, r->number, "expected nothing behind the markets but a comment");
        return 1;
    }
    return 0;
}

#define DECODED_BYTES (RIGHTS_PREFIX_BYTES_MAX + 1) /* more than any prefix: what follows decides nothing */

/* Decoded, without a slash at its end. *out lies in the text or in scratch. */
static int read_prefix(const struct line *line, char scratch[DECODED_BYTES], struct str *out,
                       struct rights_error *error)
{
    char canonical_scratch[RIGHTS_PREFIX_BYTES_MAX];
    struct str canonical;
    int code;

    if (line->prefix.n > RIGHTS_PREFIX_BYTES_MAX)
        return fail(error, line->number, "the prefix is longer than %u bytes", RIGHTS_PREFIX_BYTES_MAX);
    if (memchr(line->prefix.p, '*', line->prefix.n) != NULL)
        return fail(error, line->number,
                    "a prefix holds for all that lies below it and has no *; a real one is %%2A");
    code = url_path_canonical(line->prefix, canonical_scratch, &canonical);
    if (code != 0)
        return fail(error, line->number, "expected a path prefix that begins with /, got \"%.*s\": %s",
                    (int)(line->prefix.n < 80 ? line->prefix.n : 80), line->prefix.p, url_error_reason(code));
    *out = url_path_decode(canonical, scratch, DECODED_BYTES);
    if (out->p == canonical_scratch) {
        memcpy(scratch, out->p, out->n);
        out->p = scratch;
    }
    if (out->p[out->n - 1] == '/')
        out->n--;
    return 0;
}

/* --- building --- */

struct builder {
    struct rights *rights;
    uint16_t *set_table; /* by hash, numbers in rights->sets from 1; 0: free */
    struct rights_error *error;
};

static int intern(struct builder *b, const struct line *line, const struct markets *m, uint16_t *set)
{
    struct rights *r = b->rights;
    size_t at = hash_chain(SEED, str_of((const char *)m->bits, sizeof m->bits)) % SET_TABLE;

    for (; b->set_table[at] != 0; at = (at + 1) % SET_TABLE) {
        if (memcmp(&r->sets[b->set_table[at] - 1], m, sizeof *m) == 0) {
            *set = (uint16_t)(b->set_table[at] - 1 + SET_FIRST);
            return 0;
        }
    }
    if (r->sets_n == RIGHTS_SETS_MAX)
        return fail(b->error, line->number, "more than %u different sets of markets", RIGHTS_SETS_MAX);
    if (r->sets_n == r->sets_cap) {
        size_t cap = r->sets_cap > 0 ? 2 * r->sets_cap : 16;
        struct markets *more = realloc(r->sets, cap * sizeof *more);

        if (more == NULL)
            return -ENOMEM;
        r->sets = more;
        r->sets_cap = cap;
    }
    *set = (uint16_t)(r->sets_n + SET_FIRST);
    r->sets[r->sets_n++] = *m;
    b->set_table[at] = (uint16_t)r->sets_n;
    return 0;
}

static int read_markets(struct builder *b, const struct line *line, uint16_t *set)
{
    struct markets m;

    if (str_eq(line->markets, STR("all")) || str_eq(line->markets, STR("none"))) {
        *set = line->markets.p[0] == 'a' ? SET_ALL : SET_NONE;
        return 0;
    }
    if (markets_parse(line->markets, &m) != 0)
        return fail(b->error, line->number, "expected `all`, `none` or " MARKETS_EXPECTED ", got \"%.*s\"",
                    (int)(line->markets.n < 80 ? line->markets.n : 80), line->markets.p);
    if (b->rights->market_line == 0)
        b->rights->market_line = line->number;
    return intern(b, line, &m, set);
}

static struct text_head head_at(const struct rights *r, uint32_t at)
{
    struct text_head head;

    memcpy(&head, r->texts + at, sizeof head);
    return head;
}

/* The slot of a prefix, or the free one where it belongs. */
static struct slot *find(const struct rights *r, uint64_t hash, struct str prefix)
{
    size_t at = (hash >> 32) * r->slots_n >> 32;

    for (;; at = at + 1 < r->slots_n ? at + 1 : 0) {
        struct slot *s = &r->slots[at];

        if (s->at == 0)
            return s;
        if (s->tag == (uint32_t)hash && head_at(r, s->at).n == prefix.n &&
            memcmp(r->texts + s->at + sizeof(struct text_head), prefix.p, prefix.n) == 0)
            return s;
    }
}

/* Where in the file a prefix first stands. */
static unsigned first_line_of(struct str text, struct str prefix)
{
    char scratch[DECODED_BYTES];
    struct reader reader = {.rest = text};
    struct rights_error ignored;
    struct line line;
    struct str found;

    while (next_line(&reader, &line, &ignored) == 1)
        if (read_prefix(&line, scratch, &found, &ignored) == 0 && str_eq(found, prefix))
            return line.number;
    return 0;
}

static int add(struct builder *b, const struct line *line, struct str text)
{
    struct rights *r = b->rights;
    char scratch[DECODED_BYTES];
    struct text_head head;
    struct str prefix, rest, segment;
    uint64_t hash = SEED;
    unsigned depth = 0;
    struct slot *slot;
    int code = read_prefix(line, scratch, &prefix, b->error);

    if (code == 0)
        code = read_markets(b, line, &head.set);
    if (code != 0)
        return code;
    for (rest = prefix; rest.n > 0 && url_segment_next(&rest, &segment); depth++)
        hash = hash_chain(hash, segment);
    slot = find(r, hash, prefix);
    if (slot->at != 0)
        return fail(b->error, line->number, "the same prefix stands in line %u already",
                    first_line_of(text, prefix));
    head.n = (uint16_t)prefix.n;
    *slot = (struct slot){.tag = (uint32_t)hash, .at = (uint32_t)r->texts_n};
    memcpy(r->texts + r->texts_n, &head, sizeof head);
    memcpy(r->texts + r->texts_n + sizeof head, prefix.p, prefix.n);
    r->texts_n += sizeof head + prefix.n;
    r->entries++;
    r->depth_max = depth > r->depth_max ? depth : r->depth_max;
    r->prefix_max = prefix.n > r->prefix_max ? prefix.n : r->prefix_max;
    return 0;
}

/* A first look at all lines, so that memory is taken once and exactly. */
static int measure(struct str text, size_t *entries, size_t *bytes, struct rights_error *error)
{
    struct reader reader = {.rest = text};
    struct line line;
    int code;

    *entries = *bytes = 0;
    while ((code = next_line(&reader, &line, error)) == 1) {
        *bytes += sizeof(struct text_head) + line.prefix.n;
        if (++*entries > RIGHTS_ENTRIES_MAX)
            return fail(error, line.number, "more than %u entries", RIGHTS_ENTRIES_MAX);
    }
    return code;
}

static int build(struct builder *b, struct str text, size_t entries, size_t bytes)
{
    struct rights *r = b->rights;
    struct reader reader = {.rest = text};
    struct line line;
    void *exact;
    int code;

    r->slots_n = entries + entries / 3 + 1;
    r->slots = calloc(r->slots_n, sizeof *r->slots);
    r->texts_n = sizeof(struct text_head); /* no entry lies at 0 */
    r->texts = malloc(r->texts_n + bytes);
    if (r->slots == NULL || r->texts == NULL)
        return -ENOMEM;
    while ((code = next_line(&reader, &line, b->error)) == 1)
        if ((code = add(b, &line, text)) != 0)
            return code;
    exact = r->sets_n > 0 ? realloc(r->sets, r->sets_n * sizeof *r->sets) : NULL;
    if (exact != NULL)
        r->sets = exact;
    return code;
}

int rights_parse(struct str text, struct rights **out, struct rights_error *error)
{
    struct builder b = {.error = error};
    size_t entries, bytes;
    int code;

    *out = NULL;
    *error = (struct rights_error){.line = 0};
    if (text.n == 0)
        return fail(error, 0, "the file is empty; a comment says that nothing is meant");
    if (text.n > RIGHTS_FILE_BYTES_MAX)
        return fail(error, 0, "the file is larger than %u MiB", RIGHTS_FILE_BYTES_MAX >> 20);
    code = measure(text, &entries, &bytes, error);
    if (code != 0)
        return code;
    b.rights = calloc(1, sizeof *b.rights);
    b.set_table = calloc(SET_TABLE, sizeof *b.set_table);
    if (b.rights != NULL) {
        b.rights->magic = RIGHTS_MAGIC;
        b.rights->refs = 1;
    }
    code = b.rights != NULL && b.set_table != NULL ? build(&b, text, entries, bytes) : -ENOMEM;
    free(b.set_table);
    if (code != 0)
        rights_unref(&b.rights);
    if (code == -ENOMEM)
        describe(error, 0, "out of memory");
    *out = b.rights;
    return code;
}

struct rights *rights_ref(struct rights *rights)
{
    CHECK_MAGIC(rights, RIGHTS_MAGIC);
    atomic_fetch_add(&rights->refs, 1);
    return rights;
}

void rights_unref(struct rights **prights)
{
    struct rights *r = TAKE(prights);

    if (r == NULL)
        return;
    CHECK_MAGIC(r, RIGHTS_MAGIC);
    if (atomic_fetch_sub(&r->refs, 1) != 1)
        return;
    free(r->slots);
    free(r->texts);
    free(r->sets);
    r->magic = 0;
    free(r);
}

/* --- asking --- */

/* What the longest prefix that fits says. */
static unsigned set_of(const struct rights *r, struct str canonical)
{
    char scratch[DECODED_BYTES];
    struct str path = url_path_decode(canonical, scratch, DECODED_BYTES), rest = path, segment;
    const struct slot *slot = find(r, SEED, str_of(path.p, 0));
    unsigned set = slot->at != 0 ? head_at(r, slot->at).set : SET_ALL;
    uint64_t hash = SEED;

    for (unsigned depth = 0; depth < r->depth_max && url_segment_next(&rest, &segment); depth++) {
        struct str prefix = str_of(path.p, (size_t)(segment.p + segment.n - path.p));

        if (prefix.n > r->prefix_max)
            break;
        hash = hash_chain(hash, segment);
        slot = find(r, hash, prefix);
        if (slot->at != 0)
            set = head_at(r, slot->at).set;
    }
    return set;
}

enum rights_answer rights_check(const struct rights *rights, struct str path, struct str country)
{
    unsigned set;

    CHECK_MAGIC(rights, RIGHTS_MAGIC);
    set = set_of(rights, path);
    if (set == SET_ALL)
        return RIGHTS_ALLOWED;
    if (set == SET_NONE)
        return RIGHTS_TAKEN_DOWN;
    return markets_allow(&rights->sets[set - SET_FIRST], country) ? RIGHTS_ALLOWED : RIGHTS_NOT_HERE;
}

unsigned rights_market_line(const struct rights *rights)
{
    return rights->market_line;
}

size_t rights_entries(const struct rights *rights)
{
    return rights->entries;
}

size_t rights_bytes(const struct rights *rights)
{
    return sizeof *rights + rights->slots_n * sizeof(struct slot) + rights->texts_n +
           rights->sets_n * sizeof(struct markets);
}
