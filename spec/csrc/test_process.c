/* Processes and signals. The case that matters: a signal meant for the process arrives in a thread that blocks nothing (as a BLAS
 * starts them), and must end up in the pipe all the same. */
#include "net/process.h"
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>
#include "tap.h"

static void *idle(void *unused) {
  (void)unused;
  for (;;) pause();
  return NULL;
}

static bool readable(int descriptor, int milliseconds) {
  struct pollfd wait = { .fd = descriptor, .events = POLLIN };
  int result;
  do result = poll(&wait, 1, milliseconds);
  while (result < 0);
  return result == 1;
}

static void test_signals(void) {
  ml_error err;
  int descriptor = -1, other = -1;
  const int signals[] = { SIGTERM, SIGUSR1 }, impossible[] = { SIGUSR2, SIGKILL };
  pthread_t thread;
  ok(pthread_create(&thread, NULL, idle, NULL) == 0, "a thread that blocks no signal");
  ok(ml_process_catch_signals(impossible, 2, &descriptor, &err) == ML_INVALID_ARGUMENT, "SIGKILL cannot be caught");
  ok(ml_process_caught_signal() == 0, "nothing is caught after a failure");
  ok(ml_process_catch_signals(signals, 2, &descriptor, &err) == ML_OK, "caught");
  ok(ml_process_catch_signals(signals, 2, &other, &err) == ML_FAILED_PRECONDITION, "not twice");
  sigset_t blocked, former;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &blocked, &former); /* so that the other thread has to take it */
  ok(!readable(descriptor, 0) && ml_process_caught_signal() == 0, "no signal yet");
  ok(ml_process_kill(getpid(), SIGTERM, &err) == ML_OK, "sent");
  ok(readable(descriptor, 5000), "the descriptor wakes up");
  ok(ml_process_caught_signal() == SIGTERM && ml_process_caught_signal() == 0, "the signal is there, once");
  for (int i = 0; i < 100000; ++i) raise(SIGUSR1); /* more than a pipe holds: no blocking, no failure */
  ok(ml_process_caught_signal() == SIGUSR1, "a full pipe");
  ml_process_release_signals();
  ml_process_release_signals();
  pthread_sigmask(SIG_SETMASK, &former, NULL);
  struct sigaction now;
  ok(sigaction(SIGTERM, NULL, &now) == 0 && now.sa_handler == SIG_DFL, "the former handling is back");
}

static void test_processes(void) {
  ml_error err;
  ml_process_end end;
  pid_t child = -1;
  ok(ml_process_reap(-1, &end, &err) == ML_NOT_FOUND, "no child");
  ok(ml_process_kill(0, SIGTERM, &err) == ML_INVALID_ARGUMENT, "no process groups");
  ok(ml_process_kill(-1, SIGTERM, &err) == ML_INVALID_ARGUMENT, "not everybody");
  ok(ml_process_reap(0, &end, &err) == ML_INVALID_ARGUMENT, "no group to reap");
  if (!ok(ml_process_fork(&child, &err) == ML_OK, "fork")) return;
  if (child == 0) {
    pause();
    _exit(0);
  }
  ok(ml_process_reap(child, &end, &err) == ML_OK && end.pid == 0, "still running");
  ok(ml_process_kill(child, SIGKILL, &err) == ML_OK, "killed");
  for (int i = 0; i < 500 && end.pid == 0; ++i) {
    usleep(10000);
    ml_process_reap(-1, &end, &err);
  }
  ok(end.pid == child && end.signaled && end.code == SIGKILL, "reaped with its signal");
}

int main(void) {
  test_processes();
  test_signals();
  return done();
}
