/* Memory that reading a file takes, overwritten before it is given back: the file may hold secrets.
 *
 * libyaml cannot be told what to allocate with, and leaves each scalar several times in freed memory (raw input,
 * decoded input, tokens, events). But it calls its own allocator by name, and a program's symbols come before a
 * library's: so these four take the place of its own. tests/unit/proxy/test_secrets.c sees whether they do. */
#include "util/conf_node.h"

#include <malloc.h>
#include <stdlib.h>

void *yaml_malloc(size_t n);
void *yaml_realloc(void *p, size_t n);
void yaml_free(void *p);
yaml_char_t *yaml_strdup(const yaml_char_t *text);

void *yaml_malloc(size_t n)
{
    return malloc(n > 0 ? n : 1);
}

void yaml_free(void *p)
{
    if (p == NULL)
        return;
    explicit_bzero(p, malloc_usable_size(p));
    free(p);
}

void *yaml_realloc(void *p, size_t n)
{
    void *new = yaml_malloc(n);
    size_t old_n = p != NULL ? malloc_usable_size(p) : 0;

    if (new == NULL)
        return NULL;
    if (old_n > 0)
        memcpy(new, p, old_n < n ? old_n : n);
    yaml_free(p);
    return new;
}

yaml_char_t *yaml_strdup(const yaml_char_t *text)
{
    return text != NULL ? (yaml_char_t *)strdup((const char *)text) : NULL;
}

void *conf_wiping_memory(void *context, void *p, size_t n)
{
    (void)context;
    if (n > 0)
        return yaml_realloc(p, n);
    yaml_free(p);
    return NULL;
}
