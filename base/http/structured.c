#include "http/structured.h"

#include "http/fields.h"

#include <errno.h>

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_lower(char c)
{
    return c >= 'a' && c <= 'z';
}

static bool is_alpha(char c)
{
    return is_lower(c) || (c >= 'A' && c <= 'Z');
}

static char peek(const struct str *s)
{
    return s->n ? s->p[0] : '\0';
}

static struct str take(struct str *s, size_t n)
{
    struct str taken = str_of(s->p, n);

    *s = str_skip(*s, n);
    return taken;
}

static void skip_spaces(struct str *s)
{
    while (peek(s) == ' ')
        take(s, 1);
}

static int parse_key(struct str *s, struct str *key)
{
    size_t n = 0;

    if (!is_lower(peek(s)) && peek(s) != '*')
        return -EINVAL;
    while (n < s->n && (is_lower(s->p[n]) || is_digit(s->p[n]) || (s->p[n] && strchr("_-.*", s->p[n]))))
        n++;
    *key = take(s, n);
    return 0;
}

/* 4.2.4: at most 15 digits, or 12 and 3 with a point between. */
static int parse_number(struct str *s, struct structured_member *m)
{
    size_t n = peek(s) == '-', digits = 0, point = 0;

    m->integer = 0;
    for (; n < s->n; n++) {
        if (is_digit(s->p[n])) {
            digits++;
            if (!point && digits <= 15)
                m->integer = m->integer * 10 + (s->p[n] - '0');
        } else if (s->p[n] == '.' && !point && digits > 0 && digits <= 12) {
            point = digits;
        } else {
            break;
        }
        if (digits > 15)
            return -EINVAL;
    }
    if (digits == 0 || (point && (digits == point || digits - point > 3)))
        return -EINVAL;
    if (peek(s) == '-')
        m->integer = -m->integer;
    m->type = point ? STRUCTURED_DECIMAL : STRUCTURED_INTEGER;
    m->text = take(s, n);
    return 0;
}

static int parse_string(struct str *s, struct structured_member *m)
{
    size_t n = 1;

    for (; n < s->n && s->p[n] != '"'; n++) {
        if (s->p[n] == '\\' && (++n == s->n || (s->p[n] != '"' && s->p[n] != '\\')))
            return -EINVAL;
        if (s->p[n] < 0x20 || s->p[n] > 0x7e)
            return -EINVAL;
    }
    if (n == s->n)
        return -EINVAL;
    m->type = STRUCTURED_STRING;
    m->text = str_of(s->p + 1, n - 1);
    take(s, n + 1);
    return 0;
}

static int parse_token(struct str *s, struct structured_member *m)
{
    size_t n = 1;

    while (n < s->n && (http_token_table[(unsigned char)s->p[n]] || s->p[n] == ':' || s->p[n] == '/'))
        n++;
    m->type = STRUCTURED_TOKEN;
    m->text = take(s, n);
    return 0;
}

static int parse_bytes(struct str *s, struct structured_member *m)
{
    size_t n = 1;

    while (n < s->n && (is_alpha(s->p[n]) || is_digit(s->p[n]) || (s->p[n] && strchr("+/=", s->p[n]))))
        n++;
    if (n == s->n || s->p[n] != ':')
        return -EINVAL;
    m->type = STRUCTURED_BYTES;
    m->text = str_of(s->p + 1, n - 1);
    take(s, n + 1);
    return 0;
}

static int parse_boolean(struct str *s, struct structured_member *m)
{
    if (s->n < 2 || (s->p[1] != '0' && s->p[1] != '1'))
        return -EINVAL;
    m->type = STRUCTURED_BOOLEAN;
    m->integer = s->p[1] - '0';
    take(s, 2);
    return 0;
}

static int parse_bare_item(struct str *s, struct structured_member *m)
{
    char c = peek(s);

    if (c == '-' || is_digit(c))
        return parse_number(s, m);
    if (c == '"')
        return parse_string(s, m);
    if (c == '*' || is_alpha(c))
        return parse_token(s, m);
    if (c == ':')
        return parse_bytes(s, m);
    return c == '?' ? parse_boolean(s, m) : -EINVAL;
}

static int skip_parameters(struct str *s)
{
    while (peek(s) == ';') {
        struct structured_member ignored;
        struct str key;

        take(s, 1);
        skip_spaces(s);
        if (parse_key(s, &key) < 0)
            return -EINVAL;
        if (peek(s) == '=') {
            take(s, 1);
            if (parse_bare_item(s, &ignored) < 0)
                return -EINVAL;
        }
    }
    return 0;
}

static int skip_inner_list(struct str *s)
{
    take(s, 1);
    for (;;) {
        struct structured_member ignored;

        skip_spaces(s);
        if (peek(s) == ')') {
            take(s, 1);
            return 0;
        }
        if (parse_bare_item(s, &ignored) < 0 || skip_parameters(s) < 0 || (peek(s) != ' ' && peek(s) != ')'))
            return -EINVAL;
    }
}

static int parse_value(struct str *s, struct structured_member *m)
{
    if (peek(s) != '=') {
        m->type = STRUCTURED_BOOLEAN;
        m->integer = 1;
        return 0;
    }
    take(s, 1);
    if (peek(s) != '(')
        return parse_bare_item(s, m);
    m->type = STRUCTURED_LIST;
    return skip_inner_list(s);
}

int structured_member_next(struct str *rest, struct structured_member *member)
{
    struct structured_member m = {.text = STR_NONE};
    struct str s = str_trim_ows(*rest);

    if (s.n == 0)
        return 0;
    if (parse_key(&s, &m.key) < 0 || parse_value(&s, &m) < 0 || skip_parameters(&s) < 0)
        return -EINVAL;
    s = str_trim_ows(s);
    if (s.n > 0) {
        if (s.p[0] != ',')
            return -EINVAL;
        s = str_trim_ows(str_skip(s, 1));
        if (s.n == 0)
            return -EINVAL; /* a comma at the end */
    }
    *rest = s;
    *member = m;
    return 1;
}
