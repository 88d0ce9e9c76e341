#include "train/loss.h"
#include <string.h>

typedef struct builder {
  ml_graph *graph;
  const ml_train_config *config;
  ml_value *prediction, *target, *weight;
  ml_error *err;
} builder;

static ml_status node(builder *b, const char *domain, const char *op, const ml_attr *attrs, size_t n_attrs, size_t n_in, ml_value *const *in, ml_value **out)
{
  return ml_graph_node(b->graph, ml_op_find(domain, op), NULL, attrs, n_attrs, n_in, in, 1, NULL, out, b->err);
}

static ml_status target_input(builder *b, ml_dtype dtype, const int64_t *dims, int32_t rank)
{
  int64_t shape[ML_MAX_RANK] = { ML_UNKNOWN };
  for (int32_t i = 1; i < rank; i++) shape[i] = dims[i];
  ML_TRY(ml_graph_input(b->graph, "mlserve.target", dtype, shape, rank, &b->target, b->err));
  if (!b->config->weighted) return ML_OK;
  return ml_graph_input(b->graph, "mlserve.weight", ML_FLOAT32, shape, 1, &b->weight, b->err);
}

/* A loss operator of ours on (prediction, target[, weight]), mean over everything. */
static ml_status elementwise(builder *b, const char *op, const ml_attr *attrs, size_t n_attrs, ml_value *prediction, ml_value **loss)
{
  ML_TRY(target_input(b, prediction->dtype, prediction->dims, prediction->rank));
  ml_value *const in[] = { prediction, b->target, b->weight };
  return node(b, "mlserve", op, attrs, n_attrs, b->weight ? 3 : 2, in, loss);
}

static ml_status binary_crossentropy(builder *b, ml_value **loss)
{
  const ml_node *last = b->prediction->producer;
  bool sigmoid = last && last->op == &ml_op_sigmoid;
  if (b->config->from_logits) return elementwise(b, "SigmoidCrossEntropy", NULL, 0, b->prediction, loss);
  return elementwise(b, sigmoid ? "SigmoidCrossEntropy" : "BinaryCrossEntropy", NULL, 0, sigmoid ? last->in[0] : b->prediction, loss);
}

static ml_status sparse_categorical_crossentropy(builder *b, ml_value **loss)
{
  ml_value *scores = b->prediction;
  if (scores->rank < 2) {
    char shape[128];
    return ml_fail(b->err, ML_INVALID_ARGUMENT, "loss '%s' needs an output of shape (rows, classes), got %s", b->config->loss,
                   ml_shape_format(scores->dims, scores->rank, shape, sizeof shape));
  }
  int64_t dims[ML_MAX_RANK]; /* class ids: the output's shape without the class axis (axis 1) */
  int32_t rank = scores->rank - 1;
  for (int32_t i = 1; i < rank; i++) dims[i] = scores->dims[i + 1];
  ML_TRY(target_input(b, ML_INT64, dims, rank));
  const ml_node *last = scores->producer;
  bool softmax = last && last->op == &ml_op_softmax && (ml_attr_int(&last->attrs, "axis", -1) == 1 || (scores->rank == 2 && ml_attr_int(&last->attrs, "axis", -1) == -1));
  const char *op = "SoftmaxCrossEntropyLoss";
  if (softmax) scores = last->in[0];
  else if (!b->config->from_logits) { /* probabilities of unknown origin */
    ml_tensor *tiny;
    ml_value *low;
    ML_TRY(ml_tensor_new(scores->dtype, NULL, 0, &tiny, b->err));
    ml_element_set(tiny->view.data, scores->dtype, 0, 1e-7);
    ml_status status = ml_graph_initializer(b->graph, NULL, tiny, false, &low, b->err);
    ml_tensor_release(tiny);
    ML_TRY(status);
    ML_TRY(node(b, "", "Clip", NULL, 0, 2, (ml_value *[]){ scores, low }, &scores));
    ML_TRY(node(b, "", "Log", NULL, 0, 1, &scores, &scores));
    op = "NegativeLogLikelihoodLoss";
  }
  ml_attr reduction = ml_attr_of_str("reduction", b->weight ? "none" : "mean");
  ML_TRY(node(b, "", op, &reduction, 1, 2, (ml_value *[]){ scores, b->target }, loss));
  if (!b->weight) return ML_OK;
  ML_TRY(node(b, "", "Mul", NULL, 0, 2, (ml_value *[]){ *loss, b->weight }, loss));
  ml_attr keep = ml_attr_of_int("keepdims", 0);
  return node(b, "", "ReduceMean", &keep, 1, 1, (ml_value *const *)loss, loss);
}

static ml_status mse(builder *b, ml_value **loss) { return elementwise(b, "SquaredError", NULL, 0, b->prediction, loss); }
static ml_status mae(builder *b, ml_value **loss) { return elementwise(b, "AbsoluteError", NULL, 0, b->prediction, loss); }
static ml_status huber(builder *b, ml_value **loss)
{
  ml_attr delta = ml_attr_of_float("delta", b->config->delta > 0 ? b->config->delta : 1);
  return elementwise(b, "HuberLoss", &delta, 1, b->prediction, loss);
}

static const struct { const char *name; ml_status (*append)(builder *b, ml_value **loss); } losses[] = {
  { "binary_crossentropy", binary_crossentropy },
  { "sparse_categorical_crossentropy", sparse_categorical_crossentropy },
  { "categorical_crossentropy", sparse_categorical_crossentropy }, /* one-hot targets arrive as class ids */
  { "mse", mse }, { "mean_squared_error", mse },
  { "mae", mae }, { "mean_absolute_error", mae },
  { "huber", huber },
};

ml_status ml_loss_append(ml_graph *graph, const ml_train_config *config, ml_loss_graph *out, ml_error *err)
{
  builder b = { .graph = graph, .config = config, .err = err };
  if (graph->n_outputs == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "the model has no output to compute a loss of");
  b.prediction = graph->outputs[0];
  if (b.prediction->rank < 1) return ml_fail(err, ML_INVALID_ARGUMENT, "output '%s': the loss needs rows along its first axis", b.prediction->name);
  for (size_t i = 0; i < sizeof losses / sizeof *losses; i++) {
    if (strcmp(losses[i].name, config->loss) != 0) continue;
    ml_status status = losses[i].append(&b, &out->loss);
    if (status != ML_OK) return ml_fail_in(err, status, "loss '%s'", config->loss);
    out->target = b.target;
    out->weight = b.weight;
    return ML_OK;
  }
  return ml_fail(err, ML_INVALID_ARGUMENT,
                 "unknown loss '%s'; known: binary_crossentropy, categorical_crossentropy, sparse_categorical_crossentropy, mse, mae, huber", config->loss);
}
