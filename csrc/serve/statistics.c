/* The counters lie in a shared anonymous mapping, so that workers forked after a model was loaded add to the same ones. */
#include "serve/statistics.h"

#include <sys/mman.h>
#include <time.h>

ml_status ml_statistics_new(ml_statistics **out, ml_error *err) {
  void *memory = mmap(NULL, sizeof **out, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  *out = memory == MAP_FAILED ? NULL : memory;
  return *out ? ML_OK : ml_fail_memory(err, sizeof **out, "statistics");
}

void ml_statistics_free(ml_statistics *statistics) {
  if (statistics) munmap(statistics, sizeof *statistics);
}

static void add(atomic_uint_least64_t *counter, uint64_t value) { atomic_fetch_add_explicit(counter, value, memory_order_relaxed); }

void ml_statistics_success(ml_statistics *statistics, uint64_t rows, const uint64_t times[3]) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  atomic_store_explicit(&statistics->last_ms, (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000, memory_order_relaxed);
  add(&statistics->inferences, rows);
  add(&statistics->executions, 1);
  add(&statistics->successes, 1);
  add(&statistics->success_ns, times[0] + times[1] + times[2]);
  add(&statistics->input_ns, times[0]);
  add(&statistics->infer_ns, times[1]);
  add(&statistics->output_ns, times[2]);
  for (size_t i = 0; rows > 0 && i < ML_STATISTICS_SIZES; i++) {
    uint_least64_t size = 0;
    if (!atomic_compare_exchange_strong(&statistics->batches[i].size, &size, rows) && size != rows) continue;
    add(&statistics->batches[i].count, 1);
    add(&statistics->batches[i].input_ns, times[0]);
    add(&statistics->batches[i].infer_ns, times[1]);
    add(&statistics->batches[i].output_ns, times[2]);
    break;
  }
}

void ml_statistics_failure(ml_statistics *statistics, uint64_t ns) {
  add(&statistics->failures, 1);
  add(&statistics->failure_ns, ns);
}
