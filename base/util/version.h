/* What -V, build info and Server say. The Makefile names both. */
#pragma once

#ifndef SEGUE_VERSION
#define SEGUE_VERSION "0"
#endif

#ifndef SEGUE_COMMIT
#define SEGUE_COMMIT "unknown"
#endif
