/* Listening sockets that Lua's libraries cannot make: Unix sockets whose file is replaced only when nobody listens there, and
 * sockets inherited from a supervisor.
 * Lives here: descriptors, no event loop, no Lua. May include: base. */
#ifndef ML_NET_LISTEN_H
#define ML_NET_LISTEN_H
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

typedef struct ml_listen_file { uint64_t device, inode; } ml_listen_file; /* which file a path named once */

/* Listens at `path` with file permissions `mode`. A socket file that nobody listens at is a leftover and is removed;
 * ALREADY_EXISTS: somebody does, or the file is no socket. */
ml_status ml_listen_unix(const char *path, unsigned mode, int *descriptor, ml_listen_file *file, ml_error *err);

/* Removes the socket file when `path` still names the same one. */
void ml_listen_remove(const char *path, const ml_listen_file *file);

typedef enum ml_listen_family { ML_LISTEN_OTHER = 0, ML_LISTEN_UNIX, ML_LISTEN_INET, ML_LISTEN_INET6 } ml_listen_family;
/* Checks that `descriptor` is a listening stream socket, makes it close-on-exec and not blocking. */
ml_status ml_listen_adopt(int descriptor, ml_listen_family *family, ml_error *err);

#endif
