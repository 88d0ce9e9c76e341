/* The thread pool.
 *
 * One loop runs at a time: its caller owns the pool (`owner`). Whoever finds it owned runs its loop alone: that covers loops
 * nested in a chunk, and requests beside a training run, without oversubscription and without waiting.
 *
 * A loop is published by opening the gate and then raising `loops`. A worker may only read the loop's fields while it is
 * counted inside the gate; the owner closes the gate when no chunk is left and waits for the count to reach zero, so fields are
 * never rewritten under a reader and a worker that wakes late finds the gate closed. Both sides wait by spinning briefly, then
 * sleeping. Whether a sleeper must be woken is decided by store-then-load on both sides with sequential consistency (Dekker), so
 * no wake-up is lost.
 *
 * The pool is static, not allocated: it cannot fail and does not show in the allocation counters. A thread that cannot be made
 * only means fewer of them. In a forked child no worker exists; the process id tells, and the child starts from an empty pool.
 * When the library is unloaded or the process ends, the workers are joined, since their code is about to be unmapped. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_getaffinity */
#endif
#include "base/thread.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include "base/cpu.h"

enum { MAX_THREADS = 256 };

#define SPIN_NS 50000u
#define GATE_OPEN 0x80000000u
#define GATE_OWNER_SLEEPS 0x40000000u
#define GATE_INSIDE 0x3FFFFFFFu /* workers inside */

static struct {
  /* the loop: written by the owner while the gate is closed and empty */
  void (*body)(void *context, size_t chunk);
  void *context;
  size_t chunks;

  _Alignas(64) _Atomic size_t next; /* first chunk not handed out */
  _Alignas(64) _Atomic uint32_t gate;
  _Alignas(64) _Atomic uint32_t loops; /* number of loops published */
  _Atomic uint32_t sleepers;           /* workers asleep or about to be */
  _Atomic int limit;                   /* workers with this index and above must leave */
  _Alignas(64) _Atomic bool owner;     /* a loop or a change of the pool is under way */

  _Atomic int wanted;    /* ml_set_threads; 0: the default */
  _Atomic int automatic; /* the default; 0: not asked for yet */
  _Atomic int ceiling;   /* threads the system let us have; 0: no bound met */
  _Atomic long process;  /* whose workers these are; 0: none yet, -1: being reset */

  /* private to the owner */
  int workers;
  pthread_t threads[MAX_THREADS];

  pthread_mutex_t mutex; /* for sleeping only */
  pthread_cond_t published, emptied;
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER, .published = PTHREAD_COND_INITIALIZER, .emptied = PTHREAD_COND_INITIALIZER};

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* ---- number of threads ---- */

static int default_threads(void) {
  int count = atomic_load_explicit(&pool.automatic, memory_order_relaxed);
  if (count > 0) return count;
#ifdef __linux__
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) count = CPU_COUNT(&allowed);
#endif
  if (count < 1) count = (int)sysconf(_SC_NPROCESSORS_ONLN);
  if (count < 1) count = 1;
  if (count > MAX_THREADS) count = MAX_THREADS;
  atomic_store_explicit(&pool.automatic, count, memory_order_relaxed);
  return count;
}

int ml_threads(void) {
  int count = atomic_load(&pool.wanted);
  if (count == 0) count = default_threads();
  int ceiling = atomic_load_explicit(&pool.ceiling, memory_order_relaxed);
  return ceiling > 0 && ceiling < count ? ceiling : count;
}

/* ---- workers ---- */

static void run_chunks(void) {
  void (*body)(void *, size_t) = pool.body;
  void *context = pool.context;
  size_t chunks = pool.chunks, chunk;
  while ((chunk = atomic_fetch_add_explicit(&pool.next, 1, memory_order_relaxed)) < chunks) body(context, chunk);
}

static void take_part(void) {
  uint32_t gate = atomic_load(&pool.gate);
  do {
    if ((gate & GATE_OPEN) == 0) return;
  } while (!atomic_compare_exchange_weak(&pool.gate, &gate, gate + 1));
  run_chunks();
  if (atomic_fetch_sub(&pool.gate, 1) == (GATE_OWNER_SLEEPS | 1)) {
    pthread_mutex_lock(&pool.mutex);
    pthread_cond_signal(&pool.emptied);
    pthread_mutex_unlock(&pool.mutex);
  }
}

static inline bool idle(uint32_t seen, int index) { return atomic_load(&pool.loops) == seen && index < atomic_load(&pool.limit); }

static void *worker(void *argument) {
  int index = (int)(intptr_t)argument;
  uint32_t seen = atomic_load(&pool.loops);
  take_part(); /* the loop this thread was made for may be published already */
  while (index < atomic_load(&pool.limit)) {
    uint64_t start = ml_clock_ns();
    for (unsigned turn = 1; idle(seen, index); ++turn) {
      relax();
      if (turn % 64 == 0 && ml_clock_ns() - start > SPIN_NS) break;
    }
    if (idle(seen, index)) {
      pthread_mutex_lock(&pool.mutex);
      atomic_fetch_add(&pool.sleepers, 1);
      while (idle(seen, index)) pthread_cond_wait(&pool.published, &pool.mutex);
      atomic_fetch_sub(&pool.sleepers, 1);
      pthread_mutex_unlock(&pool.mutex);
    }
    seen = atomic_load(&pool.loops);
    take_part();
  }
  return NULL;
}

/* ---- the owner's side ---- */

static void join_surplus(int keep) {
  if (atomic_load(&pool.limit) > keep) atomic_store(&pool.limit, keep);
  if (pool.workers <= keep) return;
  pthread_mutex_lock(&pool.mutex);
  pthread_cond_broadcast(&pool.published);
  pthread_mutex_unlock(&pool.mutex);
  while (pool.workers > keep) pthread_join(pool.threads[--pool.workers], NULL);
}

static void add_workers(int count) {
  if (pool.workers >= count) return;
  atomic_store(&pool.limit, count);
  sigset_t all, before;
  sigfillset(&all); /* signals are for the program's own threads */
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (pool.workers < count) {
    if (pthread_create(&pool.threads[pool.workers], NULL, worker, (void *)(intptr_t)pool.workers) != 0) {
      atomic_store(&pool.ceiling, pool.workers + 1); /* do not try again until ml_set_threads */
      break;
    }
    ++pool.workers;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* In a child of the process that made the workers: forgets them. False: another thread is at it. */
static bool own_process(void) {
  long process = (long)getpid(), made_by = atomic_load(&pool.process);
  if (made_by == process) return true;
  if (made_by == -1 || !atomic_compare_exchange_strong(&pool.process, &made_by, -1)) return false;
  if (made_by != 0) {
    pool.workers = 0;
    atomic_store(&pool.gate, 0);
    atomic_store(&pool.sleepers, 0);
    pool.mutex = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    pool.published = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    pool.emptied = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    atomic_store(&pool.ceiling, 0);
    atomic_store(&pool.owner, false);
  }
  atomic_store(&pool.process, process);
  return true;
}

static bool acquire(void) { return own_process() && !atomic_load(&pool.owner) && !atomic_exchange(&pool.owner, true); }

static bool surplus(void) { return atomic_load(&pool.limit) >= ml_threads(); }

/* Gives the pool back. ml_set_threads may have found it owned meanwhile and left the joining to us. */
static void release(void) {
  do {
    join_surplus(ml_threads() - 1);
    atomic_store(&pool.owner, false);
  } while (surplus() && acquire());
}

void ml_set_threads(int n) {
  atomic_store(&pool.wanted, n < 0 ? 1 : n > MAX_THREADS ? MAX_THREADS : n);
  atomic_store(&pool.ceiling, 0);
  if (acquire()) release();
}

static void wait_for_workers(void) {
  uint32_t gate = atomic_fetch_and(&pool.gate, ~GATE_OPEN) & ~GATE_OPEN;
  if (gate == 0) return;
  uint64_t start = ml_clock_ns();
  for (unsigned turn = 1; atomic_load(&pool.gate) != 0; ++turn) {
    relax();
    if (turn % 64 == 0 && ml_clock_ns() - start > SPIN_NS) break;
  }
  if (atomic_load(&pool.gate) == 0) return;
  pthread_mutex_lock(&pool.mutex);
  atomic_fetch_or(&pool.gate, GATE_OWNER_SLEEPS);
  while ((atomic_load(&pool.gate) & GATE_INSIDE) != 0) pthread_cond_wait(&pool.emptied, &pool.mutex);
  atomic_store(&pool.gate, 0);
  pthread_mutex_unlock(&pool.mutex);
}

void ml_parallel(size_t chunks, void (*body)(void *context, size_t chunk), void *context) {
  int threads = chunks > 1 ? ml_threads() : 1;
  if (threads <= 1 || !acquire()) {
    for (size_t chunk = 0; chunk < chunks; ++chunk) body(context, chunk);
    return;
  }
  add_workers(threads - 1);
  pool.body = body;
  pool.context = context;
  pool.chunks = chunks;
  atomic_store(&pool.next, 0);
  atomic_store(&pool.gate, GATE_OPEN);
  atomic_fetch_add(&pool.loops, 1);
  uint32_t asleep = atomic_load(&pool.sleepers);
  if (asleep > 0) {
    pthread_mutex_lock(&pool.mutex); /* those counted are now waiting, or have seen the new loop */
    pthread_mutex_unlock(&pool.mutex);
    if (asleep < chunks) pthread_cond_broadcast(&pool.published);
    else {
      for (size_t i = 1; i < chunks; ++i) pthread_cond_signal(&pool.published);
    }
  }
  run_chunks();
  wait_for_workers();
  release();
}

/* exit() may be called while another thread is in a loop: then the workers are left alone. */
__attribute__((destructor)) static void join_all(void) {
  if (atomic_load(&pool.process) == (long)getpid() && acquire()) {
    join_surplus(0);
    /* stays owned: loops started by later destructors run on their own thread */
  }
}
