/* Processes: what a pre-forking server needs and Lua lacks.
 * Lives here: fork, kill, waitpid, getpid. May include: base. */
#ifndef ML_NET_PROCESS_H
#define ML_NET_PROCESS_H
#include <stdbool.h>
#include <sys/types.h>
#include "base/status.h"

/* *child is 0 in the child. stdio buffers are flushed first, so nothing is written twice. */
ml_status ml_process_fork(pid_t *child, ml_error *err);
/* pid > 0 only: process groups and "everybody" are never signalled. */
ml_status ml_process_kill(pid_t pid, int signal, ml_error *err);

typedef struct ml_process_end {
  pid_t pid;     /* 0: nobody has ended yet */
  bool signaled; /* ended by a signal */
  int code;      /* exit code or signal number */
} ml_process_end;
/* Reaps one ended child (pid == -1: any) without waiting. NOT_FOUND: there is no such child. */
ml_status ml_process_reap(pid_t pid, ml_process_end *end, ml_error *err);

#endif
