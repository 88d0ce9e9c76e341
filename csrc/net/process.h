/* Processes: what a pre-forking server needs and Lua lacks.
 * Lives here: fork, kill, waitpid, exec, signals as bytes in a pipe, waiting without an event loop, systemd's notification.
 * May include: base.
 * Signals are caught by handlers, not by blocking them: a blocked signal still ends the process when another thread (of a
 * BLAS, of our pool) does not block it. The pipe is the one mutable global here: a handler can reach nothing else. */
#ifndef ML_NET_PROCESS_H
#define ML_NET_PROCESS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/status.h"

/* *child is 0 in the child, which catches no signals. stdio buffers are flushed first, so nothing is written twice. */
ml_status ml_process_fork(pid_t *child, ml_error *err);
/* Becomes another program (looked for in PATH): comes back only when it cannot. arguments[0] is its name, NULL ends them. With
 * end_with_parent the program gets SIGTERM when the process that forked it ends, however that comes about (Linux). */
ml_status ml_process_exec(char *const *arguments, bool end_with_parent, ml_error *err);
/* pid > 0 only: process groups and "everybody" are never signalled. */
ml_status ml_process_kill(pid_t pid, int signal, ml_error *err);

/* In a child: `signal` comes when the parent dies (Linux; elsewhere nothing comes). NOT_FOUND: it has died already. */
ml_status ml_process_end_with(pid_t parent, int signal, ml_error *err);

typedef struct ml_process_end {
  pid_t pid;     /* 0: nobody has ended yet */
  bool signaled; /* ended by a signal */
  int code;      /* exit code or signal number */
} ml_process_end;
/* Reaps one ended child (pid == -1: any) without waiting. NOT_FOUND: there is no such child. */
ml_status ml_process_reap(pid_t pid, ml_process_end *end, ml_error *err);

/* From now on these signals do not end the process but wait in a pipe; *descriptor (close-on-exec, not blocking) is readable
 * when one does. FAILED_PRECONDITION: caught already. */
ml_status ml_process_catch_signals(const int *signals, size_t count, int *descriptor, ml_error *err);
/* The next signal that came; 0: none. */
int ml_process_caught_signal(void);
/* Puts the former handling back and closes the pipe. */
void ml_process_release_signals(void);

/* Two connected stream sockets, close-on-exec, not blocking. */
ml_status ml_process_pair(int ends[2], ml_error *err);

#define ML_PROCESS_MAX_WAIT 512u
/* Waits until one of the descriptors (at most the above) can be read, has ended, or the time is over (-1: never). For a process
 * that must not have an event loop because its children make their own. False: time over or a signal. */
bool ml_process_wait(const int *descriptors, size_t count, int milliseconds);

/* Raises the soft limit of open descriptors to `wanted` where the hard limit allows. Returns the limit that holds; -1: unknown. */
int64_t ml_process_raise_descriptors(int64_t wanted);

/* Sends one datagram to the socket named by systemd's NOTIFY_SOCKET. */
ml_status ml_process_notify(const char *path, const char *text, ml_error *err);

#endif
