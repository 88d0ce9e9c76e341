#include "net/process.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

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
