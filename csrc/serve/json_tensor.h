/* JSON to tensors and back, as TensorFlow Serving's REST API writes them.
 * Lives here: nested lists of numbers, strings and booleans decoded straight into growing element buffers, their shape found on
 * the way, and tensors encoded as nested lists. Knows neither signatures nor models. May include: tensor, codec, base. Ownership:
 * a decoder and its buffers belong to the caller and are meant to be used again; views into them end with the next reset. */
#ifndef ML_SERVE_JSON_TENSOR_H
#define ML_SERVE_JSON_TENSOR_H
#include "codec/json.h"
#include "tensor/container.h"

typedef struct ml_json_tensor { /* elements of one input */
  char *data; size_t bytes;     /* capacity */
  size_t count;
} ml_json_tensor;

typedef struct ml_json_shape {  /* of one nested value; filled while it is read */
  int32_t rank;                 /* ML_UNKNOWN until the first element */
  uint32_t closed;              /* bit per level: dims of it is known */
  int64_t dims[ML_MAX_RANK];
} ml_json_shape;

typedef struct ml_json_decoder {
  ml_json_reader reader;
  size_t max_elements;          /* of all inputs of a request together; 0: no limit */
  size_t elements;
  char *strings; size_t strings_used, strings_bytes; /* bytes of string elements */
  bool semantic;                /* the last failure was about meaning, not syntax; its message is complete */
} ml_json_decoder;

void ml_json_decoder_reset(ml_json_decoder *decoder, const char *text, size_t size, size_t max_elements);
void ml_json_decoder_free(ml_json_decoder *decoder);

/* Appends the nested value at the reader to tensor; *shape is its shape. */
ml_status ml_json_tensor_read(ml_json_decoder *decoder, ml_dtype dtype, ml_json_tensor *tensor, ml_json_shape *shape,
                              ml_error *err);
/* Is the value at the reader {"b64": "…"} (nothing is consumed)? */
bool ml_json_is_base64(const ml_json_decoder *decoder);
/* A failure of meaning: INVALID_ARGUMENT with this text, decoder->semantic set. */
ml_status ml_json_refuse(ml_json_decoder *decoder, ml_error *err, ml_status code, const char *format, ...)
  __attribute__((format(printf, 4, 5), cold));
/* The value at `at`, without white space and cut at 256 bytes, for messages. */
const char *ml_json_quote(const ml_json_decoder *decoder, const char *at, char text[260]);
/* "[2,3]" */
const char *ml_json_shape_text(const int64_t *dims, int32_t rank, char *text, size_t size);

/* TensorFlow's short name of a dtype: "float", "double", "half" … */
const char *ml_tf_dtype_name(ml_dtype dtype);
/* Whether elements of this dtype can be written; else INVALID_ARGUMENT in TensorFlow Serving's words. */
ml_status ml_json_tensor_writable(ml_dtype dtype, ml_error *err);
/* Nested lists; strings as {"b64": "…"} when base64. Sequences are lists too, maps objects (integer keys as text), an optional its value or null. */
void ml_json_put_tensor(ml_json_writer *writer, const ml_view *view, bool base64);
/* Row `row` along axis 0 (rank >= 1), or element `row` of a sequence. */
void ml_json_put_row(ml_json_writer *writer, const ml_view *view, size_t row, bool base64);

#endif
