/* Every named maximum, with the sum that explains it. */
#pragma once

/* --- the loop --- */

/* Steps a flow may run before others get their turn: a request that hits takes about 10. */
#define FLOW_STEPS_MAX 64u

/* Rounds of woken flows before the kernel is asked again: a request wakes its connection, which wakes it. */
#define IO_FLOW_ROUNDS_MAX 4u

/* --- io --- */

/* One send. The kernel gives one that had to wait 128 times to a thread of its own; a peer whose window opens
 * by 16 KiB at a time stays below that for 2 MiB. Far above what is worth sending at once. */
#define IO_SEND_BYTES_MAX (1u << 20)

/* Kernel threads a ring may have for what can only be done blocking (opening and reading files). */
#define IO_KERNEL_WORKERS_MAX 16u

/* Tries to get a submission entry from a kernel that is out of memory before the operation fails. */
#define IO_SUBMIT_TRIES_MAX 100u
