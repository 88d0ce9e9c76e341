/* Scores and labels of ai.onnx.ml's models. Lives here: what the linear, support vector and tree operators share: post_transform,
 * class labels, the (rows, features) reading of X. May include: tensor, base. Ownership: nothing is kept; labels stay in the
 * attributes. */
#ifndef ML_OPS_CLASS_SCORES_H
#define ML_OPS_CLASS_SCORES_H
#include "ops/feature.h"

typedef enum ml__transform { /* TreeEnsemble-5's numbers */
  ML__TRANSFORM_NONE = 0, ML__TRANSFORM_SOFTMAX, ML__TRANSFORM_LOGISTIC, ML__TRANSFORM_SOFTMAX_ZERO, ML__TRANSFORM_PROBIT
} ml__transform;

/* String attribute post_transform; default NONE. */
ml_status ml__transform_of(const ml_attrs *attrs, ml__transform *out, ml_error *err);
/* The transform of one row of scores, in place. A single score knows no softmax: it stays. */
void ml__transform_f32(ml__transform transform, float *scores, size_t n);
void ml__transform_f64(ml__transform transform, double *scores, size_t n);
float ml__logistic(float v);

/* The labels, from one of two list attributes; at least one label. */
ml_status ml__labels_of(const ml_attrs *attrs, const char *ints, const char *strings, ml_view *out, ml_error *err);
static inline void ml__label_put(const ml_view *labels, size_t label, ml_view *y, size_t row) {
  if (labels->dtype == ML_STRING) ((ml_str *)y->data)[row] = ((const ml_str *)labels->data)[label];
  else ((int64_t *)y->data)[row] = ((const int64_t *)labels->data)[label];
}
/* Y (rows) of the labels' type and Z (rows, scores) float32 from X. */
ml_status ml__infer_classifier(ml_op_ctx *ctx, const ml_view *labels, int64_t scores, ml_error *err);

/* X is (rows, features), or (features) as one row; dimensions may be ML_UNKNOWN, rank too. */
ml_status ml__matrix_of(const ml_view *x, int64_t *rows, int64_t *features, ml_error *err);
/* X as `to` (float32 or float64): X's own memory when it has that type already, else converted into `room` (count elements). */
static inline const void *ml__matrix_as(const ml_view *x, ml_dtype to, void *room) {
  if (x->dtype == to) return x->data;
  ml_convert(x->data, x->dtype, room, to, x->count);
  return room;
}
/* Bytes of `room`, rounded up to 64; fails when they do not fit. */
ml_status ml__matrix_room(const ml_view *x, ml_dtype to, size_t *bytes, ml_error *err);
/* count * size rounded up to 64 bytes, added to *bytes. */
ml_status ml__room_add(size_t *bytes, size_t count, size_t size, ml_error *err);
static inline size_t ml__room_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

#endif
