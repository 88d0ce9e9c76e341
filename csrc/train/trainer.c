/* Two programs over one set of parameters: the training program (loss, prediction, gradients) and the evaluation program (loss, prediction,
 * with dropout idle). Parameters and gradients are flat arrays that both programs are bound to, kernels (rank >= 2) first, so that an
 * optimiser step is one or two passes and penalties apply to a prefix. Each piece begins on a cache line; the gaps stay zero. */
#include "train/trainer.h"
#include <math.h>
#include <string.h>
#include "base/cpu.h"
#include "base/rng.h"
#include "train/autodiff.h"
#include "train/loss.h"

#define GAP 16            /* floats: pieces begin on a cache line */
#define MAX_ARRAYS 4      /* parameters, gradients, two slots */
#define MAX_INPUTS 64
#define SHUFFLE_STREAM 0x5348554646ull

typedef struct running { const ml_value *result; ml_tensor *statistic; } running; /* BatchNormalization's outputs and where they go */

typedef struct mode { /* one compiled form of the model */
  ml_graph *graph;
  ml_program *program;
  ml_session *session;  /* of the batch size used last but for the tail of an epoch */
  ml_session *tail;
  bool has_gradients;
} mode;

struct ml_trainer {
  ml_train_config config;
  mode train, eval;
  size_t n_model_inputs;
  ml_parameter *parameters;
  size_t n_parameters, kernels_end, total; /* floats of kernels, of everything */
  float *arrays[MAX_ARRAYS];
  size_t n_arrays;
  running *running;
  size_t n_running;
  uint64_t step;
  uint32_t *order;       /* of order_rows rows in epoch order_epoch; kept, since an epoch may be run in parts */
  size_t cap_order, order_rows;
  uint64_t order_epoch;
};

void ml_trainer_free(ml_trainer *t)
{
  if (!t) return;
  mode *modes[] = { &t->train, &t->eval };
  for (size_t i = 0; i < 2; i++) {
    ml_session_free(modes[i]->session);
    ml_session_free(modes[i]->tail);
    ml_program_release(modes[i]->program);
    ml_graph_free(modes[i]->graph);
  }
  for (size_t i = 0; i < MAX_ARRAYS; i++) ml_free(t->arrays[i]);
  for (size_t i = 0; i < t->n_running; i++) ml_tensor_release(t->running[i].statistic);
  for (size_t i = 0; i < t->n_parameters; i++) ml_free((void *)(uintptr_t)t->parameters[i].name);
  ml_free(t->running);
  ml_free(t->parameters);
  ml_free(t->order);
  ml_free(t);
}

/* ---- training form of a graph ---- */
static ml_status scalar_bool(ml_graph *g, bool value, ml_value **out, ml_error *err)
{
  ml_tensor *tensor;
  ML_TRY(ml_tensor_new(ML_BOOL, NULL, 0, &tensor, err));
  *(bool *)tensor->view.data = value;
  ml_status status = ml_graph_initializer(g, NULL, tensor, false, out, err);
  ml_tensor_release(tensor);
  return status;
}

static ml_status train_dropout(ml_graph *g, ml_node *node, ml_error *err)
{
  ml_value *mode_on, *in[3] = { node->in[0], node->n_in > 1 ? node->in[1] : NULL, NULL };
  ML_TRY(scalar_bool(g, true, &mode_on, err));
  in[2] = mode_on;
  ml_attr kept[4];
  size_t n = 0;
  for (size_t i = 0; i < node->attrs.count && n < 4; i++) kept[n++] = node->attrs.items[i];
  ML_TRY(ml_graph_become(g, node, node->op, kept, n, 3, in, err));
  return ml_graph_want_output(g, node, 1, err); /* the mask, for the gradient */
}

static ml_status train_batch_normalization(ml_trainer *t, ml_graph *g, ml_node *node, ml_error *err)
{
  ml_attr attrs[8];
  size_t n = 0;
  for (size_t i = 0; i < node->attrs.count && n < 7; i++)
    if (strcmp(node->attrs.items[i].name, "training_mode") != 0) attrs[n++] = node->attrs.items[i];
  attrs[n++] = ml_attr_of_int("training_mode", 1);
  ML_TRY(ml_graph_become(g, node, node->op, attrs, n, (size_t)node->n_in, node->in, err));
  running *grown = ml_realloc(t->running, t->n_running * sizeof *grown, (t->n_running + 2) * sizeof *grown);
  if (!grown) return ml_fail_memory(err, (t->n_running + 2) * sizeof *grown, "running statistics");
  t->running = grown;
  for (int32_t k = 1; k <= 2; k++) {
    ML_TRY(ml_graph_want_output(g, node, k, err));
    ml_value *statistic = node->in[k + 2];
    if (!statistic->init) return ml_fail(err, ML_UNIMPLEMENTED, "BatchNormalization '%s': running statistics must be initialisers", node->name);
    ml_tensor *copy; /* shared with the caller's graph until now */
    ML_TRY(ml_tensor_copy_of(&statistic->init->view, &copy, err));
    statistic->trainable = false;
    ml_status status = ml_graph_set_initializer(g, statistic, copy, err);
    if (status == ML_OK) t->running[t->n_running++] = (running){ node->out[k], copy };
    else ml_tensor_release(copy);
    ML_TRY(status);
  }
  return ML_OK;
}

/* A frozen normalisation keeps its statistics too: they belong to what is not to change. */
static bool is_frozen(const ml_node *node)
{
  return !(node->in[1] && node->in[1]->trainable) && !(node->in[2] && node->in[2]->trainable);
}

static ml_status to_training(ml_trainer *t, ml_graph *g, ml_error *err)
{
  for (size_t i = 0; i < g->n_nodes; i++) {
    ml_node *node = g->nodes[i];
    if (node->op == &ml_op_dropout) ML_TRY(train_dropout(g, node, err));
    if (node->op == &ml_op_batch_normalization && !is_frozen(node)) ML_TRY(train_batch_normalization(t, g, node, err));
  }
  return ml_graph_infer(g, err);
}

/* ---- parameters ---- */
static ml_status add_parameter(ml_trainer *t, const ml_value *v, size_t *offset, ml_error *err)
{
  ml_parameter *p = &t->parameters[t->n_parameters];
  p->name = ml_strndup(v->name, strlen(v->name));
  if (!p->name) return ml_fail_memory(err, strlen(v->name), "a parameter");
  t->n_parameters++;
  p->offset = *offset;
  p->count = v->init->view.count;
  p->rank = v->rank;
  memcpy(p->dims, v->dims, sizeof p->dims);
  *offset += (p->count + GAP - 1) / GAP * GAP;
  return ML_OK;
}

static ml_status lay_out_parameters(ml_trainer *t, const ml_graph *g, ml_error *err)
{
  size_t n = 0, offset = 0;
  for (size_t i = 0; i < g->n_values; i++) {
    const ml_value *v = g->values[i];
    if (!v->init || !v->trainable) continue;
    if (v->dtype != ML_FLOAT32) return ml_fail(err, ML_UNIMPLEMENTED, "parameter '%s' is %s; training works on float32", v->name, ml_dtype_name(v->dtype));
    n++;
  }
  if (n == 0) return ml_fail(err, ML_FAILED_PRECONDITION, "the model has no trainable parameters");
  t->parameters = ml_alloc_zero(n, sizeof *t->parameters);
  if (!t->parameters) return ml_fail_memory(err, n * sizeof *t->parameters, "parameters");
  for (int pass = 0; pass < 2; pass++) {
    for (size_t i = 0; i < g->n_values; i++) {
      const ml_value *v = g->values[i];
      if (v->init && v->trainable && (v->rank >= 2) == (pass == 0)) ML_TRY(add_parameter(t, v, &offset, err));
    }
    if (pass == 0) t->kernels_end = offset;
  }
  t->total = offset;
  t->n_arrays = 2 + t->config.optimizer->slots;
  for (size_t i = 0; i < t->n_arrays; i++)
    if (!(t->arrays[i] = ml_alloc_zero(t->total, sizeof(float)))) return ml_fail_memory(err, t->total * sizeof(float), "parameters");
  for (size_t i = 0; i < t->n_parameters; i++) {
    const ml_parameter *p = &t->parameters[i];
    memcpy(t->arrays[0] + p->offset, ml_graph_find(g, p->name)->init->view.data, p->count * sizeof(float));
  }
  return ML_OK;
}

/* ---- the two programs ---- */
static ml_status set_outputs(ml_graph *g, ml_value *loss, ml_value *prediction, ml_error *err)
{
  for (size_t i = 0; i < g->n_outputs; i++) g->outputs[i]->is_output = false;
  g->n_outputs = 0;
  ML_TRY(ml_graph_output(g, loss, err));
  return ml_graph_output(g, prediction, err);
}

static ml_status compile(mode *m, ml_error *err)
{
  ML_TRY(ml_graph_prune(m->graph, err));
  return ml_program_new(m->graph, &(ml_compile_options){ .level = ML_LEVEL_FAST, .keep_parameters = true }, &m->program, err);
}

/* Parameters the loss does not depend on cannot be trained: they are not. */
static void freeze_unreached(ml_value *const *parameters, ml_value *const *grads, size_t n, size_t *reached)
{
  *reached = 0;
  for (size_t i = 0; i < n; i++) {
    if (grads[i]) (*reached)++;
    else parameters[i]->trainable = false;
  }
}

static ml_status build_training(ml_trainer *t, const ml_graph *graph, ml_error *err)
{
  mode *m = &t->train;
  ml_loss_graph loss;
  ML_TRY(ml_graph_clone(graph, &m->graph, err));
  ml_graph *g = m->graph;
  ML_TRY(to_training(t, g, err));
  ml_value *prediction = g->n_outputs ? g->outputs[0] : NULL;
  ML_TRY(ml_loss_append(g, &t->config, &loss, err));
  size_t n = 0, reached = 0, kept = 0;
  ml_value **wrt = ml_alloc_zero(g->n_values + 1, sizeof *wrt), **grads = ml_alloc_zero(g->n_values + 1, sizeof *grads);
  ml_status status = wrt && grads ? ML_OK : ml_fail_memory(err, g->n_values * sizeof *wrt, "a trainer");
  for (size_t i = 0; status == ML_OK && i < g->n_values; i++) if (g->values[i]->init && g->values[i]->trainable) wrt[n++] = g->values[i];
  if (status == ML_OK) status = ml_differentiate(g, loss.loss, wrt, n, grads, err);
  if (status == ML_OK) {
    freeze_unreached(wrt, grads, n, &reached);
    for (size_t i = 0; i < n; i++) if (grads[i]) { wrt[kept] = wrt[i]; grads[kept++] = grads[i]; }
    if (reached == 0)
      status = ml_fail(err, ML_FAILED_PRECONDITION, n ? "no gradient reaches the model's parameters: an operator on the way is not differentiable"
                                                      : "the model has no trainable parameters");
  }
  if (status == ML_OK) status = lay_out_parameters(t, g, err);
  if (status == ML_OK) status = set_outputs(g, loss.loss, prediction, err);
  for (size_t i = 0; status == ML_OK && i < t->n_parameters; i++) { /* gradient outputs in the order of the parameters */
    ml_value *gradient = NULL;
    for (size_t k = 0; k < kept; k++) if (strcmp(wrt[k]->name, t->parameters[i].name) == 0) gradient = grads[k];
    status = ml_graph_output(g, gradient, err);
  }
  for (size_t i = 0; status == ML_OK && i < t->n_running; i++) status = ml_graph_output(g, (ml_value *)(uintptr_t)t->running[i].result, err);
  ml_free(wrt);
  ml_free(grads);
  if (status == ML_OK) status = compile(m, err);
  m->has_gradients = true;
  return status;
}

static ml_status build_evaluation(ml_trainer *t, const ml_graph *graph, ml_error *err)
{
  mode *m = &t->eval;
  ml_loss_graph loss;
  ML_TRY(ml_graph_clone(graph, &m->graph, err));
  ml_value *prediction = m->graph->outputs[0];
  ML_TRY(ml_loss_append(m->graph, &t->config, &loss, err));
  for (size_t i = 0; i < m->graph->n_values; i++) { /* the same parameters as in training, no others */
    ml_value *v = m->graph->values[i];
    if (!v->init || !v->trainable) continue;
    const ml_value *trained = ml_graph_find(t->train.graph, v->name);
    v->trainable = trained && trained->init && trained->trainable;
  }
  for (size_t i = 0; i < m->graph->n_nodes; i++) { /* running statistics are those training updates */
    const ml_node *node = m->graph->nodes[i];
    for (int32_t k = 3; node->op == &ml_op_batch_normalization && k <= 4; k++) {
      const ml_value *trained = ml_graph_find(t->train.graph, node->in[k]->name);
      if (trained && trained->init) ML_TRY(ml_graph_set_initializer(m->graph, node->in[k], trained->init, err));
      node->in[k]->trainable = false;
    }
  }
  ML_TRY(set_outputs(m->graph, loss.loss, prediction, err));
  return compile(m, err);
}

ml_status ml_trainer_new(const ml_graph *graph, const ml_train_config *config, ml_trainer **out, ml_error *err)
{
  *out = NULL;
  if (graph->n_inputs > MAX_INPUTS) return ml_fail(err, ML_UNIMPLEMENTED, "training a model of %zu inputs (at most %d)", graph->n_inputs, MAX_INPUTS);
  ml_trainer *t = ml_alloc_zero(1, sizeof *t);
  if (!t) return ml_fail_memory(err, sizeof *t, "a trainer");
  t->config = *config;
  t->n_model_inputs = graph->n_inputs;
  ml_status status = build_training(t, graph, err);
  if (status == ML_OK) status = build_evaluation(t, graph, err);
  t->config.loss = NULL; /* the caller's string */
  if (status != ML_OK) {
    ml_trainer_free(t);
    return status;
  }
  *out = t;
  return ML_OK;
}

void ml_trainer_target(const ml_trainer *t, ml_view *view) { ml_value_view(t->train.graph->inputs[t->n_model_inputs], view); }

/* ---- sessions ---- */
static ml_status bind(ml_trainer *t, const mode *m, ml_session *s, ml_error *err)
{
  for (size_t i = 0; i < t->n_parameters; i++) {
    const ml_parameter *p = &t->parameters[i];
    const ml_value *v = ml_graph_find(ml_program_graph(m->program), p->name);
    if (v && v->init) ML_TRY(ml_session_bind_parameter(s, p->name, t->arrays[0] + p->offset, err));
    if (m->has_gradients) ml_session_bind_output(s, 2 + i, t->arrays[1] + p->offset);
  }
  return ML_OK;
}

/* A session for batches of `rows`: the first slot holds the usual size, the second the rest of an epoch. */
static ml_status session_for(ml_trainer *t, mode *m, const ml_train_data *data, size_t rows, bool tail, ml_session **out, ml_error *err)
{
  ml_view views[MAX_INPUTS + 2];
  const ml_graph *g = m->graph;
  for (size_t i = 0; i < g->n_inputs; i++) {
    if (i < t->n_model_inputs) views[i] = data->inputs[i];
    else if (i == t->n_model_inputs) views[i] = *data->target;
    else views[i] = (ml_view){ .dtype = ML_FLOAT32, .rank = 1 };
    views[i].dims[0] = (int64_t)rows;
  }
  ml_session **slot = tail ? &m->tail : &m->session;
  if (!*slot || !ml_session_fits(*slot, views)) {
    ml_session_free(*slot);
    *slot = NULL;
    ML_TRY(ml_session_new(m->program, views, slot, err));
    ml_status status = bind(t, m, *slot, err);
    if (status != ML_OK) {
      ml_session_free(*slot);
      *slot = NULL;
      return status;
    }
  }
  *out = *slot;
  return ML_OK;
}

static ml_status check_data(const ml_trainer *t, const ml_train_data *data, ml_error *err)
{
  if (data->rows == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "no rows to train on");
  for (size_t i = 0; i <= t->n_model_inputs; i++) {
    const ml_value *v = t->train.graph->inputs[i];
    const ml_view *given = i < t->n_model_inputs ? &data->inputs[i] : data->target;
    char expected[160], got[160];
    bool fits = given->dtype == v->dtype && given->rank == v->rank && given->rank >= 1 && (size_t)given->dims[0] == data->rows;
    for (int32_t d = 1; fits && d < v->rank; d++) fits = v->dims[d] == ML_UNKNOWN || v->dims[d] == given->dims[d];
    if (!fits)
      return ml_fail(err, ML_INVALID_ARGUMENT, "%s '%s': expected %s %s with %zu rows, got %s %s", i < t->n_model_inputs ? "input" : "target", v->name,
                     ml_dtype_name(v->dtype), ml_shape_format(v->dims, v->rank, expected, sizeof expected), data->rows, ml_dtype_name(given->dtype),
                     ml_shape_format(given->dims, given->rank, got, sizeof got));
  }
  if (t->config.weighted && !data->weights) return ml_fail(err, ML_INVALID_ARGUMENT, "this trainer needs a weight per row");
  return ML_OK;
}

static void gather(const ml_view *from, size_t rows, const uint32_t *order, size_t begin, size_t n, ml_view *to)
{
  size_t bytes = from->count / rows * ml_dtype_size(from->dtype);
  const char *source = from->data;
  char *target = to->data;
  if (!order) {
    memcpy(target, source + begin * bytes, n * bytes);
    return;
  }
  for (size_t i = 0; i < n; i++) memcpy(target + i * bytes, source + order[begin + i] * bytes, bytes);
}

static void fill_batch(const ml_trainer *t, const ml_train_data *data, const uint32_t *order, size_t begin, size_t n, ml_session *s)
{
  for (size_t i = 0; i < t->n_model_inputs; i++) gather(&data->inputs[i], data->rows, order, begin, n, ml_session_input(s, i));
  gather(data->target, data->rows, order, begin, n, ml_session_input(s, t->n_model_inputs));
  if (!t->config.weighted) return;
  ml_view weights = { .data = (void *)(uintptr_t)data->weights, .count = data->rows, .dtype = ML_FLOAT32, .rank = 1 };
  gather(&weights, data->rows, order, begin, n, ml_session_input(s, t->n_model_inputs + 1));
}

static void keep_predictions(const ml_view *view, const uint32_t *order, size_t begin, size_t n, float *predictions)
{
  size_t width = view->count / n;
  for (size_t i = 0; i < n; i++)
    memcpy(predictions + (order ? order[begin + i] : begin + i) * width, (const float *)view->data + i * width, width * sizeof(float));
}

/* ---- one step ---- */
/* false: a gradient is not finite. Clips in place. */
static bool clip(ml_trainer *t, const ml_kernels *k)
{
  float *g = t->arrays[1];
  float square = k->dot_f32(g, g, t->total);
  if (!isfinite(square)) { /* the square may overflow where the elements do not */
    for (size_t i = 0; i < t->total; i++) if (!isfinite(g[i])) return false;
  }
  if (t->config.clip_norm > 0 && sqrtf(square) > t->config.clip_norm) {
    float scale = t->config.clip_norm / sqrtf(square);
    k->binary_f32(ML_BIN_MUL, g, 1, &scale, 0, g, t->total);
  }
  if (t->config.clip_value > 0) {
    float low = -t->config.clip_value, high = t->config.clip_value;
    k->binary_f32(ML_BIN_MAX, g, 1, &low, 0, g, t->total);
    k->binary_f32(ML_BIN_MIN, g, 1, &high, 0, g, t->total);
  }
  return true;
}

static void update(ml_trainer *t, const ml_kernels *k)
{
  const ml_optimizer *o = t->config.optimizer;
  ml_hyper h = t->config.hyper;
  bool penalties = h.l1 != 0 || h.l2 != 0 || h.weight_decay != 0;
  size_t split = penalties ? t->kernels_end : t->total;
  if (split > 0) o->step(k, &h, t->step, t->arrays[0], t->arrays[1], &t->arrays[2], split);
  if (split == t->total) return;
  h.l1 = h.l2 = h.weight_decay = 0; /* biases and scales are not penalised */
  float *slots[MAX_ARRAYS] = { 0 };
  for (size_t i = 0; i < o->slots; i++) slots[i] = t->arrays[2 + i] + split;
  o->step(k, &h, t->step, t->arrays[0] + split, t->arrays[1] + split, slots, t->total - split);
}

static void keep_running(const ml_trainer *t, ml_session *s)
{
  for (size_t i = 0; i < t->n_running; i++) {
    const ml_view *view = ml_session_output(s, 2 + t->n_parameters + i);
    memcpy(t->running[i].statistic->view.data, view->data, view->count * ml_dtype_size(view->dtype));
  }
}

double ml_trainer_penalty(const ml_trainer *t)
{
  double l1 = 0, l2 = 0;
  if (t->config.hyper.l1 == 0 && t->config.hyper.l2 == 0) return 0;
  for (size_t i = 0; i < t->kernels_end; i++) {
    double w = (double)t->arrays[0][i];
    l1 += fabs(w);
    l2 += w * w;
  }
  return (double)t->config.hyper.l1 * l1 + (double)t->config.hyper.l2 * l2;
}

static ml_status shuffle(ml_trainer *t, size_t rows, uint64_t epoch, ml_error *err)
{
  if (t->order_rows == rows && t->order_epoch == epoch) return ML_OK;
  ML_TRY(ml_grow(&t->order, &t->cap_order, rows, sizeof *t->order, "the order of the rows", err));
  t->order_rows = rows;
  t->order_epoch = epoch;
  ml_rng_permutation(t->config.seed, SHUFFLE_STREAM + epoch, t->order, rows);
  return ML_OK;
}

ml_status ml_trainer_epoch(ml_trainer *t, const ml_train_data *data, const ml_epoch_options *o, ml_epoch_result *r, ml_error *err)
{
  const ml_kernels *k = ml_kernel_table();
  *r = (ml_epoch_result){ 0 };
  if (o->batch_size == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "batch_size must be at least 1");
  if (data->rows > UINT32_MAX) return ml_fail(err, ML_INVALID_ARGUMENT, "more than 2^32 rows");
  ML_TRY(check_data(t, data, err));
  if (o->shuffle) ML_TRY(shuffle(t, data->rows, o->epoch, err));
  const uint32_t *order = o->shuffle ? t->order : NULL;
  double loss = 0;
  size_t steps = (data->rows + o->batch_size - 1) / o->batch_size;
  for (size_t i = o->first_step; i < steps; i++) {
    size_t begin = i * o->batch_size, n = data->rows - begin < o->batch_size ? data->rows - begin : o->batch_size;
    ml_session *s;
    ML_TRY(session_for(t, &t->train, data, n, n != o->batch_size && i > 0, &s, err));
    fill_batch(t, data, order, begin, n, s);
    ml_session_seed(s, t->config.seed, t->step + 1);
    ML_TRY(ml_session_run(s, err));
    float batch_loss = *(const float *)ml_session_output(s, 0)->data;
    if (!isfinite(batch_loss) || !clip(t, k)) {
      r->diverged = true;
      break;
    }
    t->step++;
    update(t, k);
    keep_running(t, s);
    if (o->predictions) keep_predictions(ml_session_output(s, 1), order, begin, n, o->predictions);
    loss += (double)batch_loss * (double)n;
    r->rows += n;
    r->steps++;
    if ((o->interrupt && *o->interrupt) || (o->deadline_ns && ml_clock_ns() >= o->deadline_ns)) {
      r->interrupted = true;
      break;
    }
    if (o->max_steps && r->steps >= o->max_steps) break;
  }
  r->loss = r->rows ? loss / (double)r->rows : NAN;
  r->penalty = ml_trainer_penalty(t);
  return ML_OK;
}

ml_status ml_trainer_evaluate(ml_trainer *t, const ml_train_data *data, size_t batch_size, float *predictions, double *loss, ml_error *err)
{
  double sum = 0;
  if (batch_size == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "batch_size must be at least 1");
  ML_TRY(check_data(t, data, err));
  for (size_t begin = 0; begin < data->rows; begin += batch_size) {
    size_t n = data->rows - begin < batch_size ? data->rows - begin : batch_size;
    ml_session *s;
    ML_TRY(session_for(t, &t->eval, data, n, n != batch_size && begin > 0, &s, err));
    fill_batch(t, data, NULL, begin, n, s);
    ML_TRY(ml_session_run(s, err));
    sum += (double)*(const float *)ml_session_output(s, 0)->data * (double)n;
    if (predictions) keep_predictions(ml_session_output(s, 1), NULL, begin, n, predictions);
  }
  *loss = sum / (double)data->rows;
  return ML_OK;
}

/* ---- state ---- */
ml_hyper *ml_trainer_hyper(ml_trainer *t) { return &t->config.hyper; }
uint64_t ml_trainer_steps(const ml_trainer *t) { return t->step; }
void ml_trainer_set_steps(ml_trainer *t, uint64_t steps) { t->step = steps; }
size_t ml_trainer_arrays(const ml_trainer *t) { return t->n_arrays; }
size_t ml_trainer_parameters(const ml_trainer *t) { return t->n_parameters; }
const ml_parameter *ml_trainer_parameter(const ml_trainer *t, size_t index) { return &t->parameters[index]; }

float *ml_trainer_array(ml_trainer *t, size_t index, size_t *count)
{
  *count = t->total;
  return t->arrays[index];
}

size_t ml_trainer_statistics(const ml_trainer *t) { return t->n_running; }

ml_tensor *ml_trainer_statistic(const ml_trainer *t, size_t index, const char **name)
{
  const ml_node *node = t->running[index].result->producer;
  *name = node->in[node->out[1] == t->running[index].result ? 3 : 4]->name;
  return t->running[index].statistic;
}

static ml_status export_one(ml_graph *graph, const char *name, const ml_view *view, ml_error *err)
{
  ml_value *v = ml_graph_find(graph, name);
  if (!v || !v->init) return ml_fail(err, ML_NOT_FOUND, "the graph has no parameter '%s'", name);
  ml_tensor *tensor;
  ML_TRY(ml_tensor_copy_of(view, &tensor, err));
  ml_status status = ml_graph_set_initializer(graph, v, tensor, err);
  ml_tensor_release(tensor);
  return status;
}

ml_status ml_trainer_export(const ml_trainer *t, ml_graph *graph, ml_error *err)
{
  for (size_t i = 0; i < t->n_parameters; i++) {
    const ml_parameter *p = &t->parameters[i];
    ml_view view = { .data = t->arrays[0] + p->offset, .count = p->count, .dtype = ML_FLOAT32, .rank = p->rank };
    memcpy(view.dims, p->dims, sizeof view.dims);
    ML_TRY(export_one(graph, p->name, &view, err));
  }
  for (size_t i = 0; i < t->n_running; i++) {
    const char *name;
    const ml_tensor *statistic = ml_trainer_statistic(t, i, &name);
    ML_TRY(export_one(graph, name, &statistic->view, err));
  }
  return ML_OK;
}
