/* NonMaxSuppression 11: for each image and class the boxes of best score, leaving out every box whose intersection over union
 * with one taken before is above iou_threshold.
 * boxes (N,B,4), scores (N,C,B) float32, max_output_boxes_per_class (int64), iou_threshold, score_threshold (float32; all three
 * optional) -> selected_indices (S,3) int64: image, class, box. Equal scores: the lower box first. ONNX operator specification.
 */
#include <math.h>
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "center_point_box", ML_ATTR_INT, false,
    "0 (default): y1, x1, y2, x2 of two opposite corners; 1: centre x, centre y, width, height" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *boxes = ctx->in[0], *scores = ctx->in[1];
  char a[96], b[96];
  bool fits = (boxes->rank == ML_UNKNOWN || (boxes->rank == 3 && (boxes->dims[2] < 0 || boxes->dims[2] == 4))) &&
              (scores->rank == ML_UNKNOWN || scores->rank == 3);
  if (fits && boxes->rank == 3 && scores->rank == 3)
    fits = (boxes->dims[0] < 0 || scores->dims[0] < 0 || boxes->dims[0] == scores->dims[0]) &&
           (boxes->dims[1] < 0 || scores->dims[2] < 0 || boxes->dims[1] == scores->dims[2]);
  if (!fits)
    return ml_fail(err, ML_INVALID_ARGUMENT, "boxes %s and scores %s: expected (N, B, 4) and (N, C, B)",
                   ml_shape_format(boxes->dims, boxes->rank, a, sizeof a),
                   ml_shape_format(scores->dims, scores->rank, b, sizeof b));
  int64_t kind = ml_attr_int(ctx->attrs, "center_point_box", 0);
  if (kind != 0 && kind != 1)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'center_point_box' is %lld, expected 0 or 1", (long long)kind);
  ml_op_set(ctx->out[0], ML_INT64, (const int64_t[]){ ML_UNKNOWN, 3 }, 2);
  return ML_OK;
}

/* y1, x1, y2, x2 with y1 <= y2 and x1 <= x2 */
static void corners(const float *box, bool centred, float *out) {
  if (centred) {
    out[0] = box[1] - box[3] / 2;
    out[1] = box[0] - box[2] / 2;
    out[2] = box[1] + box[3] / 2;
    out[3] = box[0] + box[2] / 2;
    return;
  }
  out[0] = fminf(box[0], box[2]);
  out[1] = fminf(box[1], box[3]);
  out[2] = fmaxf(box[0], box[2]);
  out[3] = fmaxf(box[1], box[3]);
}

static bool overlap(const float *one, const float *other, bool centred, float threshold) {
  float a[4], b[4];
  corners(one, centred, a);
  corners(other, centred, b);
  float height = fminf(a[2], b[2]) - fmaxf(a[0], b[0]), width = fminf(a[3], b[3]) - fmaxf(a[1], b[1]);
  if (!(height > 0) || !(width > 0)) return false;
  float common = height * width, area_a = (a[2] - a[0]) * (a[3] - a[1]), area_b = (b[2] - b[0]) * (b[3] - b[1]);
  float both = area_a + area_b - common;
  if (!(common > 0) || !(area_a > 0) || !(area_b > 0) || !(both > 0)) return false;
  return common / both > threshold;
}

/* ---- a heap of boxes, best score on top ---- */
static bool better(const float *scores, int64_t a, int64_t b) {
  float x = isnan(scores[a]) ? -INFINITY : scores[a], y = isnan(scores[b]) ? -INFINITY : scores[b];
  return x > y || (x == y && a < b);
}

static void sink(const float *scores, int64_t *heap, size_t n, size_t at) {
  for (;;) {
    size_t best = at, left = 2 * at + 1;
    if (left < n && better(scores, heap[left], heap[best])) best = left;
    if (left + 1 < n && better(scores, heap[left + 1], heap[best])) best = left + 1;
    if (best == at) return;
    int64_t t = heap[at];
    heap[at] = heap[best];
    heap[best] = t;
    at = best;
  }
}

static size_t select_boxes(const float *boxes, const float *scores, size_t n, size_t most, float iou, float least, bool centred,
                           int64_t *heap, int64_t *selected) {
  size_t candidates = 0, taken = 0;
  for (size_t i = 0; i < n; i++)
    if (scores[i] > least || (isinf(least) && least < 0)) heap[candidates++] = (int64_t)i;
  for (size_t i = candidates / 2; i-- > 0;) sink(scores, heap, candidates, i);
  while (candidates > 0 && taken < most) {
    int64_t box = heap[0];
    bool keep = true;
    heap[0] = heap[--candidates];
    sink(scores, heap, candidates, 0);
    for (size_t i = 0; i < taken && keep; i++) keep = !overlap(boxes + box * 4, boxes + selected[i] * 4, centred, iou);
    if (keep) selected[taken++] = box;
  }
  return taken;
}

static ml_status scalar(const ml_op_ctx *ctx, int32_t i, const char *what, double fallback, double *out, ml_error *err) {
  const ml_view *v = ml__in(ctx, i);
  *out = fallback;
  if (!v || v->count == 0) return ML_OK;
  if (v->count != 1) return ml_fail(err, ML_INVALID_ARGUMENT, "%s has %zu elements, expected 1", what, v->count);
  *out = ml_element_get(v->data, v->dtype, 0);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *boxes = ctx->in[0], *scores = ctx->in[1];
  ml_view *y = ctx->out[0];
  double limit, iou, least;
  ML_TRY(scalar(ctx, 2, "max_output_boxes_per_class", 0, &limit, err));
  ML_TRY(scalar(ctx, 3, "iou_threshold", 0, &iou, err));
  ML_TRY(scalar(ctx, 4, "score_threshold", -INFINITY, &least, err));
  const size_t images = (size_t)scores->dims[0], classes = (size_t)scores->dims[1], n = (size_t)scores->dims[2];
  const bool centred = ml_attr_int(ctx->attrs, "center_point_box", 0) != 0;
  if (boxes->count != images * n * 4)
    return ml_fail(err, ML_INVALID_ARGUMENT, "boxes has %zu elements, expected %zu", boxes->count, images * n * 4);
  const size_t most = !(limit > 0) ? 0 : limit < (double)n ? (size_t)limit : n;
  size_t total = 0, slots = 0, bytes = 0;
  int64_t *memory = NULL;
  if (most > 0 && scores->count > 0) { /* heap, then for each image and class the number of boxes and the boxes */
    bool fits = ml_add_size(most, 1, &slots) && ml_mul_size(slots, images * classes, &slots) && ml_add_size(slots, n, &slots) &&
                ml_mul_size(slots, sizeof(int64_t), &bytes);
    memory = fits ? ctx->run->scratch(ctx->run, bytes) : NULL;
    if (!memory) return ml_fail_memory(err, bytes, "selected boxes");
    for (size_t u = 0; u < images * classes; u++) {
      int64_t *selected = memory + n + u * (most + 1);
      selected[0] = (int64_t)select_boxes((const float *)boxes->data + u / classes * n * 4, (const float *)scores->data + u * n,
                                          n, most, (float)iou, (float)least, centred, memory, selected + 1);
      total += (size_t)selected[0];
    }
  }
  ML_TRY(ctx->run->resize(ctx->run, y, (const int64_t[]){ (int64_t)total, 3 }, 2, err));
  int64_t *to = y->data;
  for (size_t u = 0; total > 0 && u < images * classes; u++) {
    const int64_t *selected = memory + n + u * (most + 1);
    for (int64_t i = 0; i < selected[0]; i++) {
      *to++ = (int64_t)(u / classes);
      *to++ = (int64_t)(u % classes);
      *to++ = selected[i + 1];
    }
  }
  return ML_OK;
}

const ml_op_def ml_op_non_max_suppression = {
  .name = "NonMaxSuppression", .domain = "", .since = 11, .min_in = 2, .max_in = 5, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_BIT(ML_FLOAT32), ML_BIT(ML_FLOAT32), ML_BIT(ML_INT64), ML_BIT(ML_FLOAT32) },
  .formula = "best boxes that overlap little",
  .infer = infer, .run = run,
};
