#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pipe2 */
#endif
#include "net/process.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

ml_status ml_process_fork(pid_t *child, ml_error *err) {
  fflush(NULL);
  pid_t pid = fork();
  if (pid < 0) {
    int code = errno;
    return ml_fail(err, code == ENOMEM || code == EAGAIN ? ML_RESOURCE_EXHAUSTED : ML_UNAVAILABLE, "fork: %s", strerror(code));
  }
  *child = pid;
  return ML_OK;
}

ml_status ml_process_exec(char *const *arguments, bool end_with_parent, ml_error *err) {
#ifdef __linux__
  if (end_with_parent) prctl(PR_SET_PDEATHSIG, SIGTERM); /* outlives the exec of a program without set-user-id */
#else
  (void)end_with_parent;
#endif
  execvp(arguments[0], arguments);
  int code = errno;
  return ml_fail(err, code == ENOENT ? ML_NOT_FOUND : ML_UNAVAILABLE, "%s: %s", arguments[0], strerror(code));
}

ml_status ml_process_kill(pid_t pid, int signal, ml_error *err) {
  if (pid <= 0) return ml_fail(err, ML_INVALID_ARGUMENT, "kill: process id %ld is not positive", (long)pid);
  if (kill(pid, signal) == 0) return ML_OK;
  int code = errno;
  ml_status status = code == ESRCH ? ML_NOT_FOUND : code == EPERM ? ML_PERMISSION_DENIED : ML_INVALID_ARGUMENT;
  return ml_fail(err, status, "kill %ld with signal %d: %s", (long)pid, signal, strerror(code));
}

ml_status ml_process_reap(pid_t pid, ml_process_end *end, ml_error *err) {
  int status = 0;
  if (pid != -1 && pid <= 0) return ml_fail(err, ML_INVALID_ARGUMENT, "waitpid: process id %ld is not positive", (long)pid);
  pid_t found;
  do found = waitpid(pid, &status, WNOHANG);
  while (found < 0 && errno == EINTR);
  if (found < 0) {
    int code = errno;
    return ml_fail(err, code == ECHILD ? ML_NOT_FOUND : ML_INTERNAL, "waitpid %ld: %s", (long)pid, strerror(code));
  }
  *end = (ml_process_end){ .pid = found };
  if (found > 0) {
    end->signaled = WIFSIGNALED(status);
    end->code = end->signaled ? WTERMSIG(status) : WEXITSTATUS(status);
  }
  return ML_OK;
}

/* ---- signals ---- */

enum { MAX_SIGNALS = 8 };

static struct {
  size_t count; /* 0: not in use */
  int signals[MAX_SIGNALS];
  struct sigaction former[MAX_SIGNALS];
  int ends[2];
} caught;

/* async-signal-safe: write only; a full pipe means that enough signals wait already */
static void on_signal(int number) {
  int saved = errno;
  unsigned char byte = (unsigned char)number;
  ssize_t written = write(caught.ends[1], &byte, 1);
  (void)written;
  errno = saved;
}

/* undoes the first `count` handlers, then the pipe they write to */
static void release(size_t count) {
  for (size_t i = 0; i < count; ++i) sigaction(caught.signals[i], &caught.former[i], NULL);
  close(caught.ends[0]);
  close(caught.ends[1]);
  caught.count = 0;
}

ml_status ml_process_catch_signals(const int *signals, size_t count, int *descriptor, ml_error *err) {
  if (caught.count != 0) return ml_fail(err, ML_FAILED_PRECONDITION, "signals are caught already");
  if (count == 0 || count > MAX_SIGNALS)
    return ml_fail(err, ML_INVALID_ARGUMENT, "1 to %d signals expected, got %zu", MAX_SIGNALS, count);
  if (pipe2(caught.ends, O_CLOEXEC | O_NONBLOCK) != 0) return ml_fail(err, ML_UNAVAILABLE, "pipe: %s", strerror(errno));
  struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < count; ++i) {
    if (sigaction(signals[i], &action, &caught.former[i]) != 0) {
      int code = errno;
      release(i);
      return ml_fail(err, ML_INVALID_ARGUMENT, "signal %d: %s", signals[i], strerror(code));
    }
    caught.signals[i] = signals[i];
  }
  caught.count = count;
  *descriptor = caught.ends[0];
  return ML_OK;
}

int ml_process_caught_signal(void) {
  unsigned char byte = 0;
  if (caught.count == 0 || read(caught.ends[0], &byte, 1) != 1) return 0;
  return byte;
}

void ml_process_release_signals(void) {
  if (caught.count != 0) release(caught.count);
}
