/* What Resize and its gradient share.
 * Lives here: sizes, scales and coordinates of a resize, and the table of taps per axis. May include: ops/movement.h, tensor,
 * base. Ownership: nothing is kept; tables lie in the operator's workspace.
 *
 * Interpolation is separable: each output position of an axis is a weighted sum of `taps` input positions of that axis. A resize
 * is one pass per axis whose size or coordinates change, and its gradient is the same passes transposed. */
#ifndef ML_OPS_RESIZE_H
#define ML_OPS_RESIZE_H
#include "ops/movement.h"

typedef enum ml__resize_mode { ML__RESIZE_NEAREST, ML__RESIZE_LINEAR, ML__RESIZE_CUBIC } ml__resize_mode;

typedef struct ml__resize_axis {
  bool active;              /* something happens along this axis */
  double scale, start, end; /* start, end: region of interest */
  int64_t taps;
  int64_t
      *index; /* (out, taps) positions in the input, inside it; the first is -1 where the output lies outside (extrapolation) */
  double *weight; /* (out, taps) */
} ml__resize_axis;

typedef struct ml__resize {
  int32_t rank;
  int64_t in[ML_MAX_RANK], out[ML_MAX_RANK]; /* out: ML_UNKNOWN while not known */
  ml__resize_axis axis[ML_MAX_RANK];
  ml__resize_mode mode;
  int coordinates, rounding; /* of the attributes coordinate_transformation_mode and nearest_mode */
  bool antialias, exclude_outside;
  double cubic_a, extrapolation;
} ml__resize;

extern const ml_attr_def ml__resize_attrs[];
/* From the attributes and the inputs first … first+2 (roi, scales, sizes). *known: scales or sizes (and roi where needed) have
 * values. */
ml_status ml__resize_read(const ml_op_ctx *ctx, const ml_view *x, int32_t first, ml__resize *r, bool *known, ml_error *err);
/* Bytes of the tables. */
ml_status ml__resize_table_bytes(const ml__resize *r, size_t *bytes, ml_error *err);
/* Fills the tables into memory. */
void ml__resize_tables(ml__resize *r, void *memory);

/* One pass along `axis` of src, whose extents are dims (the axis' not counted): forward src has r->in[axis], dst r->out[axis]
 * positions; transposed the other way round, and dst is overwritten. float32 or float64. */
void ml__resize_pass(const ml__resize *r, int32_t axis, const int64_t *dims, bool transposed, ml_dtype dtype, const void *src,
                     void *dst);
/* Elements of the largest tensor between two passes (0: fewer than two passes) when axes are done from the last (transposed: the
 * first) on; *passes gets their number. */
ml_status ml__resize_between(const ml__resize *r, bool transposed, size_t *elements, int32_t *passes, ml_error *err);
/* All passes; between: two buffers of `elements` each. */
void ml__resize_all(const ml__resize *r, bool transposed, ml_dtype dtype, const void *src, void *dst, void *between,
                    size_t elements);

#endif
