/* ONNX files: bytes to graph and back.
 * Lives here: the ModelProto reader (bounded; nothing in a file is trusted), opset upgrade to the canonical operators, and the writer.
 * May include: graph, codec, base. Ownership: a graph read from a mapped file keeps the mapping alive through its initialisers' storage.
 * Facts: onnx/onnx docs (IR.md, Versioning.md) and onnx.proto field numbers. */
#ifndef ML_FORMAT_ONNX_H
#define ML_FORMAT_ONNX_H
#include "graph/graph.h"

typedef struct ml_onnx_limits {
  size_t max_bytes;      /* of the file with its external data; default 8 GiB */
  size_t max_nodes;      /* subgraphs and called functions included; default 1,000,000 */
  size_t max_depth;      /* of subgraphs and function calls in each other; default 64 */
  bool copy;             /* read the files into memory instead of mapping them: for who cannot say what others do to them meanwhile */
} ml_onnx_limits;

/* path of a .onnx file; external data is looked up in its directory only. limits NULL: defaults. Messages begin with the path. */
ml_status ml_onnx_load(const char *path, const ml_onnx_limits *limits, ml_graph **out, ml_error *err);
/* From memory (copied where needed); no external data. `what` names the source in messages. */
ml_status ml_onnx_read(const void *bytes, size_t size, const char *what, const ml_onnx_limits *limits, ml_graph **out, ml_error *err);
/* Serialises: opset 17 (IR 8) unless an operator needs a newer one. Refuses ML_OP_TRAINING and ML_OP_INTERNAL operators by name. *bytes: ml_free. */
ml_status ml_onnx_write(const ml_graph *graph, void **bytes, size_t *size, ml_error *err);
/* ml_onnx_write + atomic replacement of path. */
ml_status ml_onnx_save(const ml_graph *graph, const char *path, ml_error *err);
/* The same in a version of ai.onnx the caller chooses, 11 or newer; fails naming the operators that it cannot express. 0: as above. */
ml_status ml_onnx_write_as(const ml_graph *graph, int32_t opset, void **bytes, size_t *size, ml_error *err);
ml_status ml_onnx_save_as(const ml_graph *graph, int32_t opset, const char *path, ml_error *err);
/* TensorProto alone (ONNX's backend test data; .pb files). name may be NULL; what it is set to points into bytes and is not terminated. */
ml_status ml_onnx_tensor_read(const void *bytes, size_t size, const char *what, ml_tensor **out, const char **name, size_t *name_length,
                              ml_error *err);
/* The same for a value of any type (tensor/container.h; ml_type_tensor(ML_DTYPE_NONE): any tensor): TensorProto, SequenceProto, OptionalProto, MapProto.
 * The type must be known, the bytes do not say it. One reference is the caller's. */
ml_status ml_onnx_value_read(const void *bytes, size_t size, const char *what, uint32_t type, ml_item *out, const char **name, size_t *name_length,
                             ml_error *err);
ml_status ml_onnx_value_write(const ml_item *item, const char *name, void **bytes, size_t *size, ml_error *err);
ml_status ml_onnx_tensor_write(const ml_tensor *tensor, const char *name, void **bytes, size_t *size, ml_error *err);

#endif
