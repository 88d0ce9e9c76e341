/* Recurrent layers. Lives here: what LSTM, GRU, RNN and their gradient share: attributes, shapes, packed weights, the passes over
 * time. May include: tensor, kernels, base. Ownership: a state made by ml__recurrent_prepare belongs to the program.
 *
 * Names as in the ONNX operator specification: X (S,B,I), W (D,GH,I), R (D,GH,H), B (D,2GH), sequence_lens (B), initial_h and
 * initial_c (D,B,H), P (D,3H) -> Y (S,D,B,H), Y_h and Y_c (D,B,H); layout=1 puts the batch first: X (B,S,I), Y (B,S,D,H), states
 * (B,D,H). G gates: RNN 1, GRU 3 in the order z r h, LSTM 4 in the order i o f c. */
#ifndef ML_OPS_RECURRENT_H
#define ML_OPS_RECURRENT_H
#include "kernels/kernels.h"
#include "ops/class_scores.h"
#include "ops/product.h"

typedef enum ml__cell { ML__CELL_RNN = 0, ML__CELL_GRU, ML__CELL_LSTM } ml__cell;

typedef enum ml__gate_act {
  ML__GATE_SIGMOID = 0, ML__GATE_TANH, ML__GATE_RELU, ML__GATE_LEAKY_RELU, ML__GATE_THRESHOLDED_RELU, ML__GATE_SCALED_TANH,
  ML__GATE_HARD_SIGMOID, ML__GATE_ELU, ML__GATE_SOFTSIGN, ML__GATE_SOFTPLUS, ML__GATE_AFFINE
} ml__gate_act;

typedef struct ml__gate {
  ml__gate_act act;
  float alpha, beta;
} ml__gate;

typedef struct ml__recurrent {
  ml__cell cell;
  ml_dtype dtype;
  size_t S, B, I, H, D, G;
  bool batch_first, reverse, input_forget, linear_before_reset; /* reverse: of the first direction */
  float clip;                    /* 0: none */
  ml__gate gates[2][3];          /* f, g, h of each direction */
} ml__recurrent;

/* Inputs X … P of LSTM's list (GRU and RNN have the first six), starting at input `first` of ctx. */
enum { ML__REC_X = 0, ML__REC_W, ML__REC_R, ML__REC_B, ML__REC_LENS, ML__REC_H0, ML__REC_C0, ML__REC_P, ML__REC_INPUTS };

/* Reads attributes and shapes; dimensions not known yet are 0 in out and `known` (may be NULL) is false. Fails naming input or
 * attribute. */
ml_status ml__recurrent_of(const ml_op_ctx *ctx, ml__cell cell, ml__recurrent *out, bool *known, ml_error *err);
/* The operators' own infer, prepare, workspace, run, gradient, flops. */
ml_status ml__recurrent_infer(ml_op_ctx *ctx, ml__cell cell, ml_error *err);
ml_status ml__recurrent_prepare(ml_op_ctx *ctx, ml__cell cell, void **state, ml_error *err);
void ml__recurrent_release(void *state);
ml_status ml__recurrent_workspace(ml_op_ctx *ctx, ml__cell cell, size_t *bytes, ml_error *err);
ml_status ml__recurrent_run(ml_op_ctx *ctx, ml__cell cell, ml_error *err);
void ml__recurrent_gradient(ml_grad *g, const char *name);
double ml__recurrent_flops(const ml_op_ctx *ctx, ml__cell cell);
/* mlserve.RecurrentGrad: ctx has the forward inputs, then dY, dY_h, dY_c; outputs dX dW dR dB dinitial_h dinitial_c dP. */
ml_status ml__recurrent_grad_workspace(ml_op_ctx *ctx, ml__cell cell, size_t *bytes, ml_error *err);
ml_status ml__recurrent_grad_run(ml_op_ctx *ctx, ml__cell cell, ml_error *err);

#define ML__RECURRENT_ATTRS                                                                                                    \
  { "activations", ML_ATTR_STRINGS, false, "functions of each direction: f, g, h of LSTM, f, g of GRU, f of RNN" },            \
  { "activation_alpha", ML_ATTR_FLOATS, false, "parameters of the activations that have one, in their order" },                \
  { "activation_beta", ML_ATTR_FLOATS, false, "second parameters of the activations that have one, in their order" },          \
  { "clip", ML_ATTR_FLOAT, false, "bound of what goes into the activations; default none" },                                   \
  { "direction", ML_ATTR_STRING, false, "forward (default), reverse or bidirectional" },                                       \
  { "hidden_size", ML_ATTR_INT, false, "H; default the last dimension of R" },                                                 \
  { "layout", ML_ATTR_INT, false, "0 (default): time first; 1: batch first" }

#endif
