/* Assertions and ownership.
 *
 * CHECK is always on and catches only programmers' errors. What a peer, a disk, an operator or the
 * kernel can cause is a returned error, never a CHECK. A struct that outlives a call starts with a
 * magic, checked where it enters a module.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

_Noreturn void check_failed(const char *expr, const char *file, int line, const char *func);

#define CHECK(cond)                                                                                          \
    do {                                                                                                     \
        if (__builtin_expect(!(cond), 0))                                                                    \
            check_failed(#cond, __FILE__, __LINE__, __func__);                                               \
    } while (0)

#define CHECK_MAGIC(ptr, value) CHECK((ptr) != NULL && (ptr)->magic == (value))

/* Takes what *pp owns and leaves NULL behind. */
#define TAKE(pp)                                                                                             \
    ({                                                                                                       \
        __typeof__(*(pp)) taken_ = *(pp);                                                                    \
        *(pp) = NULL;                                                                                        \
        taken_;                                                                                              \
    })

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define LIKELY(x)   __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
