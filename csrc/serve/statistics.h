/* Counters of a servable's infer requests, as Triton's statistics extension reports them.
 * Lives here: plain counters that many threads, and processes forked after the servable was made, add to. May include: base. */
#ifndef ML_SERVE_STATISTICS_H
#define ML_SERVE_STATISTICS_H
#include <stdatomic.h>
#include <stdint.h>
#include "base/status.h"

enum { ML_STATISTICS_SIZES = 100 }; /* different batch sizes that are told apart; later ones are only in the sums */

typedef struct ml_statistics {
  atomic_uint_least64_t last_ms; /* since the epoch */
  atomic_uint_least64_t inferences, executions, successes, success_ns, failures, failure_ns, input_ns, infer_ns, output_ns;
  struct {
    atomic_uint_least64_t size, count, input_ns, infer_ns, output_ns; /* size 0: not used */
  } batches[ML_STATISTICS_SIZES];
} ml_statistics;

ml_status ml_statistics_new(ml_statistics **out, ml_error *err); /* zeros, shared with processes forked later */
void ml_statistics_free(ml_statistics *statistics); /* NULL allowed */
/* times: nanoseconds for decoding, running, encoding */
void ml_statistics_success(ml_statistics *statistics, uint64_t rows, const uint64_t times[3]);
void ml_statistics_failure(ml_statistics *statistics, uint64_t ns);

#endif
