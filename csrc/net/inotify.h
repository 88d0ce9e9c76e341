/* Changes of directories, told by the kernel.
 * Lives here: one inotify descriptor and its watches. A hint only: who is woken looks for itself, so lost and doubled events do no harm. May
 * include: base. Where there is no inotify, opening fails with UNIMPLEMENTED and the caller polls. */
#ifndef ML_NET_INOTIFY_H
#define ML_NET_INOTIFY_H
#include <stdbool.h>
#include "base/status.h"

/* *descriptor (close-on-exec, not blocking) is readable when something has changed; close() it. */
ml_status ml_inotify_open(int *descriptor, ml_error *err);
/* Watches a directory for names that come, go or are moved and for files that have been written. Again: no change. NOT_FOUND: no such directory;
 * RESOURCE_EXHAUSTED: the system's number of watches. */
ml_status ml_inotify_add(int descriptor, const char *path, ml_error *err);
/* Takes all events; true: there was one. Watches of directories that were moved away end. */
bool ml_inotify_take(int descriptor);

#endif
