/* Memory of nghttp2's sessions. Each of them would keep a buffer of 16 KiB for the frame it is sending, which holds
 * nothing while none is: here all sessions of a thread have the same one, so that an idle connection costs a
 * page or two less. A session must end on the thread that made it. For http2.c alone. */
#pragma once

#include <nghttp2/nghttp2.h>

#include <stdbool.h>

/* While a session is made (true, then false), what is asked for in the size of a frame is its buffer. */
void http2_memory_making(bool making);

extern nghttp2_mem http2_memory;
