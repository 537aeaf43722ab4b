#include "http/http2_memory.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* As nghttp2 asks for it: a frame of SETTINGS_MAX_FRAME_SIZE with its header and a byte of padding. */
#define FRAME_BUFFER_BYTES (9u + 1u + 16384u)

static _Thread_local union {
    max_align_t align;
    char bytes[FRAME_BUFFER_BYTES];
} frame_buffer;

static _Thread_local bool making;

static void *take(size_t n, void *user_data)
{
    (void)user_data;
    return malloc(n);
}

static void *take_zeroed(size_t n, size_t size, void *user_data)
{
    (void)user_data;
    return calloc(n, size);
}

static void give(void *p, void *user_data)
{
    (void)user_data;
    if (p != &frame_buffer)
        free(p);
}

static void *resize(void *p, size_t n, void *user_data)
{
    void *larger;

    (void)user_data;
    if (p == NULL && making && n == FRAME_BUFFER_BYTES)
        return &frame_buffer;
    if (p != &frame_buffer)
        return realloc(p, n);
    larger = malloc(n);
    if (larger != NULL)
        memcpy(larger, p, n < FRAME_BUFFER_BYTES ? n : FRAME_BUFFER_BYTES);
    return larger;
}

void http2_memory_making(bool yes)
{
    making = yes;
}

nghttp2_mem http2_memory = {.malloc = take, .free = give, .calloc = take_zeroed, .realloc = resize};
