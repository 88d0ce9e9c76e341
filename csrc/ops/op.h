/* What an operator is.
 * Lives here: the contract between one operator (csrc/ops/NAME.c) and everything that uses operators (graph, train, format, docs), attributes,
 * and the registry made from ops.def. May include: tensor, kernels, base.
 * Ownership: definitions are static constants; attributes belong to the node's graph; a state made by prepare belongs to the program.
 *
 * One operator = one file (formula, shape inference, forward, gradient, one ml_op_def) + one row in ops.def.
 * Operator life: infer (types and shapes) -> prepare (once per program: check attributes, pack constants) -> workspace (per plan) -> run (no allocation).
 * Every operator implements one semantics: its newest version we know (`since`); format/ upgrades older files to it on import. */
#ifndef ML_OPS_OP_H
#define ML_OPS_OP_H
#include <stdbool.h>
#include <stdint.h>
#include "base/status.h"
#include "tensor/container.h"
#include "tensor/tensor.h"

/* ---------------------------------------------------------------- attributes ---- */
typedef enum ml_attr_type { /* ONNX's AttributeProto.AttributeType numbers */
  ML_ATTR_NONE = 0, ML_ATTR_FLOAT = 1, ML_ATTR_INT = 2, ML_ATTR_STRING = 3, ML_ATTR_TENSOR = 4, ML_ATTR_GRAPH = 5,
  ML_ATTR_FLOATS = 6, ML_ATTR_INTS = 7, ML_ATTR_STRINGS = 8, ML_ATTR_TENSORS = 9, ML_ATTR_GRAPHS = 10, ML_ATTR_TYPE = 13
} ml_attr_type;

struct ml_graph;
typedef struct ml_attr {
  const char *name;
  ml_attr_type type;
  size_t count;                /* of the array forms; 1 otherwise */
  union {
    float f;
    int64_t i;                 /* TYPE: as ml_value.type, a tensor's being its dtype */
    ml_str s;
    ml_tensor *tensor;         /* one reference held by the graph */
    struct ml_graph *graph;    /* a subgraph, owned by the node's graph */
    const float *floats;
    const int64_t *ints;
    const ml_str *strings;
    ml_tensor *const *tensors;
  } as;
} ml_attr;

typedef struct ml_attrs {
  const ml_attr *items;
  size_t count;
} ml_attrs;

/* NULL when absent. The typed getters give the fallback when absent; types have been checked against the definition when the node was made. */
const ml_attr *ml_attr_find(const ml_attrs *attrs, const char *name);
int64_t ml_attr_int(const ml_attrs *attrs, const char *name, int64_t fallback);
float ml_attr_float(const ml_attrs *attrs, const char *name, float fallback);
ml_str ml_attr_str(const ml_attrs *attrs, const char *name, const char *fallback);
bool ml_attr_is(const ml_attrs *attrs, const char *name, const char *fallback, const char *value); /* string attribute equals value */

/* ---------------------------------------------------------------- subgraphs ---- */
/* A subgraph (ML_ATTR_GRAPH of If, Loop, Scan …) reads values of the graphs around it. Each of those is an extra input of the subgraph, after its
 * formal ones, and an extra input of the node: behind the declared inputs stand the captures of its first graph attribute, then the second's …
 * So everything a node reads is among its inputs, and nobody but these operators needs to know about scopes. */
typedef struct ml_subgraph {
  const struct ml_graph *graph;
  int32_t n_in, n_out;         /* formal */
  int32_t n_captures;
  ml_view *const *captures;    /* among the node's inputs */
} ml_subgraph;
/* About any graph attribute; implemented by csrc/graph. Input and output views have no data. */
int32_t ml_subgraph_captures(const struct ml_graph *graph);
int32_t ml_subgraph_inputs(const struct ml_graph *graph); /* formal */
int32_t ml_subgraph_outputs(const struct ml_graph *graph);
void ml_subgraph_output(const struct ml_graph *graph, int32_t index, ml_view *view); /* dtype, type and shape as far as known */

/* ---------------------------------------------------------------- running ---- */
/* What a run hands to every operator; made by the session. */
typedef struct ml_run {
  uint64_t seed; /* of the random operators */
  uint64_t step; /* counter: training step, or number of the run */
  const struct ml_kernels *kernels;
  uint64_t max_loop; /* iterations a Loop may take */
  /* Outputs whose shape only run() learns (NonZero, Unique, strings …): sets out->dims/count and gives memory. Slow path, may allocate. */
  ml_status (*resize)(struct ml_run *run, ml_view *out, const int64_t *dims, int32_t rank, ml_error *err);
  void *(*scratch)(struct ml_run *run, size_t bytes); /* lives until the end of the run; for string bytes and the like; NULL: out of memory */
  /* Makes a container the value of `out` (whose type infer has set); takes the reference over, on failure too. */
  ml_status (*give)(struct ml_run *run, ml_view *out, ml_container *container, ml_error *err);
  /* Runs a subgraph attribute on n_in formal inputs followed by its captures, and hands the outputs to `take`; they are valid until it returns. */
  ml_status (*subgraph)(struct ml_run *run, const struct ml_graph *graph, ml_view *const *in,
                        ml_status (*take)(void *context, ml_view *const *out, ml_error *err), void *context, ml_error *err);
} ml_run;

typedef struct ml_op_def ml_op_def;

typedef struct ml_op_ctx {
  const ml_op_def *op;
  const ml_attrs *attrs;
  const char *name;      /* the node's, for messages */
  int32_t n_in, n_out;
  ml_view *const *in;    /* NULL: optional input left out */
  ml_view *const *out;   /* NULL: output nobody asked for */
  uint64_t stream;       /* random stream of this node */
  void *state;           /* from prepare */
  void *workspace;       /* as many bytes as workspace() said, 64-byte aligned */
  ml_run *run;           /* only in run() */
} ml_op_ctx;

/* Graph attribute `name` with its place among the inputs; false when the node does not have it. */
bool ml_op_subgraph(const ml_op_ctx *ctx, const char *name, ml_subgraph *out);
/* Inputs that are no captures. */
int32_t ml_op_declared_inputs(const ml_op_ctx *ctx);
/* Gives `out` a copy of the value `from`, whatever it is: shape, elements, string bytes, a container. For outputs that infer may have left unknown. */
ml_status ml_op_pass(ml_op_ctx *ctx, ml_view *out, const ml_view *from, ml_error *err);

/* ---------------------------------------------------------------- differentiating ---- */
/* A value of the graph being differentiated; opaque to operators. */
typedef struct ml_value ml_value;
/* Gives an operator's gradient the means to emit nodes. Failures are sticky: emit returns NULL, a NULL input gives NULL, and the driver
 * reports the first error, so gradient code needs no checks. Filled by train/autodiff.c. */
typedef struct ml_grad ml_grad;
struct ml_grad {
  const ml_op_def *op;
  const ml_attrs *attrs;
  int32_t n_in, n_out;
  ml_value *const *in;    /* forward inputs (NULL: left out) */
  ml_value *const *out;   /* forward outputs */
  ml_value *const *dout;  /* gradient of each output; NULL: none flows */
  const bool *needs;      /* per input: is its gradient wanted */
  ml_value **din;         /* to be set: gradient per input, same shape and dtype as the input; NULL: none */
  /* one node of operator `op` (domain "" for ONNX, else "domain.Name" such as "mlserve.ReluGrad"); n_out outputs into out */
  ml_status (*emit)(ml_grad *g, const char *op, const ml_attr *attrs, size_t n_attrs, size_t n_in, ml_value *const *in, size_t n_out, ml_value **out);
  /* rank-0 constant of the same dtype as `like` */
  ml_value *(*constant)(ml_grad *g, double value, ml_value *like);
  ml_value *(*ints)(ml_grad *g, const int64_t *values, size_t count); /* rank-1 int64 constant */
  const ml_view *(*shape_of)(ml_grad *g, const ml_value *value);      /* dtype and (perhaps partly unknown) shape; data NULL unless constant; valid until four calls later */
  /* (optional) makes the differentiation fail with this message */
  void (*fail)(ml_grad *g, const char *why);
  void *driver;
};
void ml_g_fail(ml_grad *g, const char *why);
ml_value *ml_g1(ml_grad *g, const char *op, ml_value *x);                 /* single-output node of one … */
ml_value *ml_g2(ml_grad *g, const char *op, ml_value *x, ml_value *y);    /* … two … */
ml_value *ml_g3(ml_grad *g, const char *op, ml_value *x, ml_value *y, ml_value *z); /* … three inputs */
ml_value *ml_gn(ml_grad *g, const char *op, const ml_attr *attrs, size_t n_attrs, size_t n_in, ml_value *const *in); /* … with attributes */
/* dy summed to the shape of x (the inverse of broadcasting x to dy): node mlserve.ReduceTo(dy, x), left out when the shapes are known to be equal. */
ml_value *ml_g_reduce_to(ml_grad *g, ml_value *dy, ml_value *x);
static inline ml_attr ml_attr_of_int(const char *name, int64_t v) { return (ml_attr){ .name = name, .type = ML_ATTR_INT, .count = 1, .as = { .i = v } }; }
static inline ml_attr ml_attr_of_float(const char *name, float v) { return (ml_attr){ .name = name, .type = ML_ATTR_FLOAT, .count = 1, .as = { .f = v } }; }
static inline ml_attr ml_attr_of_ints(const char *name, const int64_t *v, size_t n) { return (ml_attr){ .name = name, .type = ML_ATTR_INTS, .count = n, .as = { .ints = v } }; }
static inline ml_attr ml_attr_of_str(const char *name, const char *v) { return (ml_attr){ .name = name, .type = ML_ATTR_STRING, .count = 1, .as = { .s = { v, __builtin_strlen(v) } } }; }

/* ---------------------------------------------------------------- the definition ---- */
typedef struct ml_attr_def {
  const char *name;       /* NULL ends the list */
  ml_attr_type type;
  bool required;
  const char *doc;        /* default and meaning, a phrase */
} ml_attr_def;

enum { /* ml_op_def.flags */
  ML_OP_INPLACE = 1,      /* output 0 may take over the memory of input 0 (same dtype and shape) */
  ML_OP_RANDOM = 2,       /* draws random numbers: never folded */
  ML_OP_VARIADIC = 4,     /* inputs beyond max_in repeat the last one's rules; max_in is then the declared count */
  ML_OP_TRAINING = 8,     /* exists only in training graphs (gradients, losses of our own): never written to files */
  ML_OP_VIEW = 16,        /* output 0 is the bytes of input 0 under another shape (Reshape, Squeeze, Flatten, Identity): may alias, run() is then skipped */
  ML_OP_INTERNAL = 32,    /* made by compile only (fused forms) */
  ML_OP_INPLACE1 = 64,    /* output 0 may take over the memory of input 1 */
  ML_OP_CONTAINERS = 128, /* inputs may be sequences, optionals or maps; all other operators are never shown one */
  ML_OP_WIDEN = 256       /* of another domain than ONNX's own, and takes 16-bit floats (see `like`) */
};

#define ML_OP_OWN 255 /* in ml_op_def.like */

/* dtype masks: bit n = ONNX number n */
#define ML_MASK_HALF ((UINT32_C(1) << 10) | (UINT32_C(1) << 16))                           /* float16, bfloat16 */
#define ML_BIT(dtype) (UINT32_C(1) << (dtype))
#define ML_MASK_F ((UINT32_C(1) << 1) | (UINT32_C(1) << 11))                              /* float32, float64 */
#define ML_MASK_I (UINT32_C(0xFC) | (UINT32_C(1) << 12) | (UINT32_C(1) << 13))             /* every integer */
#define ML_MASK_N (ML_MASK_F | ML_MASK_I)                                                  /* float32/64 and integers */
#define ML_MASK_ANY 0xFFFFFFFFu

struct ml_op_def {
  const char *name;           /* ONNX op_type */
  const char *domain;         /* "" = ai.onnx, "ai.onnx.ml", "mlserve" (ours) */
  int32_t since;              /* version of the operator implemented here */
  int32_t min_in, max_in, min_out, max_out;
  uint32_t flags;
  const ml_attr_def *attrs;   /* (optional) NULL: none */
  uint32_t types[4];          /* accepted dtypes of inputs 0…3 (the last non-zero repeats); 0 in [0]: any */
  /* An input that takes float32 but neither float16 nor bfloat16 takes these too, computed in float32 (ml_op_widens). Float32 outputs 0…3 (those
   * beyond as 3) are then given the dtype of input like[k]; ML_OP_OWN: the definition makes this output float32 whatever the inputs are. */
  uint8_t like[4];
  const char *formula;        /* one line for docs and `inspect` */
  /* Types and shapes of the outputs from those of the inputs; dims may be ML_UNKNOWN, rank too; in[i]->data is set when the input is constant. */
  ml_status (*infer)(ml_op_ctx *ctx, ml_error *err);
  /* (optional) once per program, after infer; constant inputs have data, other shapes may have unknown dims. Allocates *state. */
  ml_status (*prepare)(ml_op_ctx *ctx, void **state, ml_error *err);
  void (*release)(void *state);                         /* (optional) frees what prepare made */
  ml_status (*workspace)(ml_op_ctx *ctx, size_t *bytes, ml_error *err); /* (optional) per plan, shapes known; default 0 */
  /* Computes the outputs. Shapes are known, memory is there, inputs' dtypes are as infer accepted. Allocates nothing. */
  ml_status (*run)(ml_op_ctx *ctx, ml_error *err);
  void (*gradient)(ml_grad *g);                         /* (optional) NULL: treated as constant, no gradient flows */
  /* (optional) floating-point operations of one run, for `inspect` and GFLOP/s; default: elements of output 0 */
  double (*flops)(const ml_op_ctx *ctx);
};

/* ---------------------------------------------------------------- the registry ---- */
#define ML_OP(stem) extern const ml_op_def ml_op_##stem;
#include "ops/ops.def"
#undef ML_OP

/* domain "" and "ai.onnx" are the same; NULL when unknown */
const ml_op_def *ml_op_find(const char *domain, const char *name);
size_t ml_op_count(void);
const ml_op_def *ml_op_at(size_t index);

/* ---------------------------------------------------------------- helpers for operators (ops/op.c) ---- */
/* "Gemm 'fc1': " is put in front of every message by the caller of infer/run; operators state only what is wrong. */
void ml_op_set(ml_view *out, ml_dtype dtype, const int64_t *dims, int32_t rank); /* fills a shape in infer; out may be NULL */
void ml_op_set_type(ml_view *out, uint32_t type);                                /* a value of this type: a container, or a tensor of unknown rank */
static inline uint32_t ml_view_type(const ml_view *view) { return view->type ? view->type : ml_type_tensor(view->dtype); } /* in the form that ml_type_of takes */
void ml_op_like(ml_view *out, const ml_view *in);                                /* same dtype and shape */
ml_status ml_op_infer_same(ml_op_ctx *ctx, ml_error *err);                       /* output 0 like input 0 */
ml_status ml_op_infer_broadcast(ml_op_ctx *ctx, ml_error *err);                  /* output 0: broadcast of all inputs, dtype of input 0; dtypes must agree */
ml_status ml_op_infer_compare(ml_op_ctx *ctx, ml_error *err);                    /* the same with bool output */
/* Is input i of this dtype computed in float32: ONNX has 16-bit floats for it, the operator has not. Training's own operators never widen. */
bool ml_op_widens(const ml_op_def *op, int32_t i, ml_dtype dtype);
/* The dtype output k has when the operator, run on widened inputs, gives `made`. in: dtypes before widening. */
ml_dtype ml_op_narrowed(const ml_op_def *op, int32_t k, ml_dtype made, ml_view *const *in, int32_t n_in);
/* op->infer for a node of a graph that may hold 16-bit floats: infers on float32 where inputs widen. What runs has been through the pass `widen`,
 * so a session needs it only where it meets nodes as written. */
ml_status ml_op_infer(ml_op_ctx *ctx, ml_error *err);
/* Every input's dtype against op->types; names the input, its dtype and the accepted ones. The helpers above do it themselves. */
ml_status ml__op_check_types(const ml_op_ctx *ctx, ml_error *err);
/* Values of an integer tensor input known at this point (int32 or int64): *count values into out (at most capacity); ML_UNKNOWN data: *known=false. */
ml_status ml_op_ints(const ml_view *view, int64_t *out, size_t capacity, size_t *count, bool *known, const char *what, ml_error *err);

/* Iterating over broadcast operands: strides in elements per output dimension (0 where repeated), adjacent dimensions merged. */
typedef struct ml_bcast {
  int32_t rank;                         /* >= 1 */
  int64_t dims[ML_MAX_RANK];
  int64_t stride[3][ML_MAX_RANK];       /* of up to three operands */
} ml_bcast;
void ml_bcast_init(ml_bcast *b, const ml_view *out, const ml_view *const *operands, int32_t n);
/* Calls row(context, offsets of the operands, offset in out) for each innermost run of dims[rank-1] elements; inner strides are stride[k][rank-1]. */
void ml_bcast_rows(const ml_bcast *b, int32_t n, void (*row)(void *context, const size_t *offset, size_t out_offset), void *context);

/* dtype-generic code: expands the code given once per type with T as the C type, inside a switch on dtype */
#define ML_SWITCH_FLOAT(dtype, ...)                                     \
  switch (dtype) {                                                      \
    case ML_FLOAT32: { typedef float T; __VA_ARGS__ } break;                   \
    case ML_FLOAT64: { typedef double T; __VA_ARGS__ } break;                  \
    default: break;                                                     \
  }
#define ML_SWITCH_INTEGER_CASES(...)                                    \
    case ML_INT8: { typedef int8_t T; __VA_ARGS__ } break;                     \
    case ML_INT16: { typedef int16_t T; __VA_ARGS__ } break;                   \
    case ML_INT32: { typedef int32_t T; __VA_ARGS__ } break;                   \
    case ML_INT64: { typedef int64_t T; __VA_ARGS__ } break;                   \
    case ML_UINT8: { typedef uint8_t T; __VA_ARGS__ } break;                   \
    case ML_UINT16: { typedef uint16_t T; __VA_ARGS__ } break;                 \
    case ML_UINT32: { typedef uint32_t T; __VA_ARGS__ } break;                 \
    case ML_UINT64: { typedef uint64_t T; __VA_ARGS__ } break;
#define ML_SWITCH_NUMERIC(dtype, ...)                                   \
  switch (dtype) {                                                      \
    case ML_FLOAT32: { typedef float T; __VA_ARGS__ } break;                   \
    case ML_FLOAT64: { typedef double T; __VA_ARGS__ } break;                  \
    ML_SWITCH_INTEGER_CASES(__VA_ARGS__)                                       \
    default: break;                                                     \
  }

#endif
