/* What -V, build info and Server say. The build may name the commit. */
#pragma once

#define SEGUE_VERSION "0.1.0"

#ifndef SEGUE_COMMIT
#define SEGUE_COMMIT "unknown"
#endif
