/* Threads: one lazily made pool for data-parallel loops.
 * Lives here: the default runtime (one of the core's few process-wide objects). May include: base.
 * fork() before first use is safe; a child that finds its parent's pool builds its own. */
#ifndef ML_BASE_THREAD_H
#define ML_BASE_THREAD_H
#include <stddef.h>
#include "base/status.h"

/* Threads a parallel loop may use, the caller included. Default: the processors this process may run on. */
int ml_threads(void);
/* n >= 1; n == 0 restores the default. Takes effect at the next loop; joins surplus workers. */
void ml_set_threads(int n);

/* Runs body(context, chunk) for chunk = 0 … chunks-1. The caller takes part; chunks are handed out by an atomic counter;
 * workers spin about 50 us after their last job, then sleep. Nested calls run on the calling thread. With one thread or one chunk
 * no worker is woken. Chunking is the caller's and must not depend on ml_threads(), so results do not either. */
void ml_parallel(size_t chunks, void (*body)(void *context, size_t chunk), void *context);

#endif
