/* Shared by the files of the ONNX reader and writer; nobody else includes it.
 * Lives here: field numbers of onnx.proto, where a model's bytes come from, the one tensor decoder, external data.
 * May include: tensor, codec, base. Ownership: a source is the reader's; what it decodes are tensors with one reference for the
 * caller. */
#ifndef ML_FORMAT_ONNX_PROTO_H
#define ML_FORMAT_ONNX_PROTO_H
#include "codec/protobuf.h"
#include "format/onnx.h"

/* Field numbers (onnx.proto of the ONNX repository); only those that are read or written, or refused by name. */
enum {
  ML__MODEL_IR_VERSION = 1,
  ML__MODEL_PRODUCER_NAME = 2,
  ML__MODEL_PRODUCER_VERSION = 3,
  ML__MODEL_VERSION = 5,
  ML__MODEL_DOC = 6,
  ML__MODEL_GRAPH = 7,
  ML__MODEL_OPSET = 8,
  ML__MODEL_METADATA = 14,
  ML__MODEL_FUNCTION = 25,
  ML__OPSET_DOMAIN = 1,
  ML__OPSET_VERSION = 2,
  ML__ENTRY_KEY = 1,
  ML__ENTRY_VALUE = 2,
  ML__FUNCTION_NAME = 1,
  ML__FUNCTION_INPUT = 4,
  ML__FUNCTION_OUTPUT = 5,
  ML__FUNCTION_NODE = 7,
  ML__FUNCTION_OPSET = 9,
  ML__FUNCTION_DOMAIN = 10,
  ML__FUNCTION_ATTRIBUTE_PROTO = 11,
  ML__FUNCTION_OVERLOAD = 13,
  ML__GRAPH_NODE = 1,
  ML__GRAPH_NAME = 2,
  ML__GRAPH_INITIALIZER = 5,
  ML__GRAPH_DOC = 10,
  ML__GRAPH_INPUT = 11,
  ML__GRAPH_OUTPUT = 12,
  ML__GRAPH_VALUE_INFO = 13,
  ML__GRAPH_SPARSE_INITIALIZER = 15,
  ML__NODE_INPUT = 1,
  ML__NODE_OUTPUT = 2,
  ML__NODE_NAME = 3,
  ML__NODE_OP_TYPE = 4,
  ML__NODE_ATTRIBUTE = 5,
  ML__NODE_DOMAIN = 7,
  ML__NODE_OVERLOAD = 8,
  ML__ATTR_NAME = 1,
  ML__ATTR_F = 2,
  ML__ATTR_I = 3,
  ML__ATTR_S = 4,
  ML__ATTR_T = 5,
  ML__ATTR_G = 6,
  ML__ATTR_FLOATS = 7,
  ML__ATTR_INTS = 8,
  ML__ATTR_STRINGS = 9,
  ML__ATTR_TENSORS = 10,
  ML__ATTR_GRAPHS = 11,
  ML__ATTR_TP = 14,
  ML__ATTR_TYPE_PROTOS = 15,
  ML__ATTR_TYPE = 20,
  ML__ATTR_REF = 21,
  ML__ATTR_SPARSE_TENSOR = 22,
  ML__ATTR_SPARSE_TENSORS = 23,
  ML__VALUE_NAME = 1,
  ML__VALUE_TYPE = 2,
  ML__TYPE_TENSOR = 1,
  ML__TYPE_SEQUENCE = 4,
  ML__TYPE_MAP = 5,
  ML__TYPE_OPAQUE = 7,
  ML__TYPE_SPARSE = 8,
  ML__TYPE_OPTIONAL = 9,
  ML__SEQUENCE_ELEM = 1, /* of optionals too */
  ML__MAP_KEY = 1,
  ML__MAP_VALUE = 2,
  ML__TENSOR_TYPE_ELEM = 1,
  ML__TENSOR_TYPE_SHAPE = 2,
  ML__SHAPE_DIM = 1,
  ML__DIM_VALUE = 1,
  ML__DIM_PARAM = 2,
  ML__SPARSE_VALUES = 1,
  ML__SPARSE_INDICES = 2,
  ML__SPARSE_DIMS = 3,
  ML__TENSOR_DIMS = 1,
  ML__TENSOR_DATA_TYPE = 2,
  ML__TENSOR_SEGMENT = 3,
  ML__TENSOR_FLOAT_DATA = 4,
  ML__TENSOR_INT32_DATA = 5,
  ML__TENSOR_STRING_DATA = 6,
  ML__TENSOR_INT64_DATA = 7,
  ML__TENSOR_NAME = 8,
  ML__TENSOR_RAW_DATA = 9,
  ML__TENSOR_DOUBLE_DATA = 10,
  ML__TENSOR_UINT64_DATA = 11,
  ML__TENSOR_EXTERNAL = 13,
  ML__TENSOR_LOCATION = 14
};


typedef struct ml__onnx_file { /* an external data file, opened once per model */
  const char *location;
  ml_storage *storage;
  struct ml__onnx_file *next;
} ml__onnx_file;

typedef struct ml__onnx_source {
  const uint8_t *bytes; /* the whole file */
  size_t size;
  ml_storage *storage;   /* keeps bytes alive so that weights may stay in place; NULL: bytes are the caller's, copy */
  const char *directory; /* external data is looked up below it; NULL: external data is refused */
  ml_onnx_limits limits;
  ml_arena *scratch;     /* dies with the import */
  ml__onnx_file *files;
  size_t total;          /* bytes of the model and its external files */
  size_t nodes, calls;   /* so far */
  struct ml__function *functions; size_t n_functions, cap_functions;
} ml__onnx_source;

/* The only decoder of TensorProto. name: borrowed from the bytes; both may be NULL. Messages do not name the tensor (the caller
 * does). */
ml_status ml__onnx_tensor(ml__onnx_source *source, ml_pb_reader reader, ml_tensor **out, ml_error *err);
/* Just the name field, for messages and look-ups before decoding. */
ml_status ml__onnx_tensor_name(ml_pb_reader reader, const char **name, size_t *length, ml_error *err);
/* SparseTensorProto to a dense tensor; its size counts against limits.max_bytes. */
ml_status ml__onnx_sparse_tensor(ml__onnx_source *source, ml_pb_reader reader, ml_tensor **out, ml_error *err);
/* Its TensorProto of values, which has the name. */
ml_status ml__onnx_sparse_values(ml_pb_reader reader, ml_pb_reader *values, ml_error *err);
/* Contents of a TensorProto; name may be NULL. */
void ml__onnx_put_tensor(ml_pb_writer *writer, const ml_view *view, const char *name);
/* ML_DTYPE_NONE and UNIMPLEMENTED with the type's name for element types we do not have. */
ml_status ml__onnx_dtype(uint64_t number, ml_dtype *out, ml_error *err);

/* The only function that opens a file named by a model (onnx_external.c). The storage is borrowed from the source. */
ml_status ml__onnx_external(ml__onnx_source *source, const char *location, ml_storage **out, ml_error *err);
void ml__onnx_external_close(ml__onnx_source *source);

#endif
