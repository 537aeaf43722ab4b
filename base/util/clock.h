/* The only source of time. tests/sim has a second implementation with virtual time. */
#pragma once

#include <stdint.h>

#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S  1000000000ull

uint64_t clock_mono_ns(void); /* CLOCK_MONOTONIC */
uint64_t clock_unix_ns(void); /* CLOCK_REALTIME */

static inline uint64_t clock_unix_s(void)
{
    return clock_unix_ns() / NS_PER_S;
}
