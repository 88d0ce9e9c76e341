/* What AveragePool and its gradient share.
 * Lives here: attributes and the number of taps a mean is over. May include: ops/pool.h. Ownership: nothing is kept. */
#ifndef ML_OPS_AVERAGE_POOL_H
#define ML_OPS_AVERAGE_POOL_H
#include "ops/pool.h"

/* Taps of output o along dimension d that count: those inside the input or, with padding, inside the padded input. */
int64_t ml__average_taps(const ml__window *w, int32_t d, int64_t o, bool padding);
extern const ml_attr_def ml__average_pool_attrs[];

#endif
