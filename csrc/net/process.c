#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pipe2 */
#endif
#include "net/process.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

/* Signals wait while the child still has the parent's handlers and the pipe they write to: a SIGTERM for the child must not look
 * like one for the parent. */
ml_status ml_process_fork(pid_t *child, ml_error *err) {
  fflush(NULL);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pid_t pid = fork();
  int code = errno;
  if (pid == 0) ml_process_release_signals();
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (pid < 0) {
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

ml_status ml_process_end_with(pid_t parent, int signal, ml_error *err) {
#ifdef __linux__
  if (prctl(PR_SET_PDEATHSIG, (unsigned long)signal) != 0) return ml_fail(err, ML_INVALID_ARGUMENT, "prctl: %s", strerror(errno));
#else
  (void)signal;
#endif
  if (getppid() != parent) return ml_fail(err, ML_NOT_FOUND, "process %ld is no longer the parent", (long)parent);
  return ML_OK;
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

/* ---- descriptors ---- */

ml_status ml_process_pair(int ends[2], ml_error *err) {
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0) return ML_OK;
  return ml_fail(err, ML_UNAVAILABLE, "socketpair: %s", strerror(errno));
}

bool ml_process_wait(const int *descriptors, size_t count, int milliseconds) {
  struct pollfd waiting[ML_PROCESS_MAX_WAIT];
  if (count > ML_PROCESS_MAX_WAIT) count = ML_PROCESS_MAX_WAIT;
  for (size_t i = 0; i < count; ++i) waiting[i] = (struct pollfd){ .fd = descriptors[i], .events = POLLIN };
  return poll(waiting, (nfds_t)count, milliseconds) > 0; /* EINTR: the signal is in the pipe, the next call sees it */
}

int64_t ml_process_raise_descriptors(int64_t wanted) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return -1;
  if (limit.rlim_cur == RLIM_INFINITY) return INT64_MAX;
  if (limit.rlim_cur < (rlim_t)wanted) {
    struct rlimit raised = limit;
    raised.rlim_cur = limit.rlim_max == RLIM_INFINITY || limit.rlim_max > (rlim_t)wanted ? (rlim_t)wanted : limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  }
  return limit.rlim_cur > (rlim_t)INT64_MAX ? INT64_MAX : (int64_t)limit.rlim_cur;
}

ml_status ml_process_notify(const char *path, const char *text, ml_error *err) {
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  size_t length = strlen(path);
  if (length < 2 || length >= sizeof address.sun_path || (path[0] != '/' && path[0] != '@'))
    return ml_fail(err, ML_INVALID_ARGUMENT, "notification socket '%s': not an absolute path or abstract name", path);
  memcpy(address.sun_path, path, length);
  if (path[0] == '@') address.sun_path[0] = '\0'; /* a name without a file */
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return ml_fail(err, ML_UNAVAILABLE, "socket: %s", strerror(errno));
  const socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
  ssize_t sent;
  do sent = sendto(fd, text, strlen(text), MSG_NOSIGNAL, (const struct sockaddr *)&address, size);
  while (sent < 0 && errno == EINTR);
  int code = errno;
  close(fd);
  if (sent < 0) return ml_fail(err, ML_UNAVAILABLE, "notification socket '%s': %s", path, strerror(code));
  return ML_OK;
}
