/* Every named maximum, with the sum that explains it. */
#pragma once

/* --- the loop --- */

/* Steps a flow may run before others get their turn: a request that hits takes about 10. */
#define FLOW_STEPS_MAX 64u
