/* Element types. Lives here: the one list of dtypes, with ONNX's numbers (TensorProto.DataType). May include: base. */
#ifndef ML_TENSOR_DTYPE_H
#define ML_TENSOR_DTYPE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* name, ONNX number, bytes per element, text used in Lua, JSON and messages */
#define ML_DTYPE_MAP(X)          \
  X(FLOAT32, 1, 4, "float32")    \
  X(UINT8, 2, 1, "uint8")        \
  X(INT8, 3, 1, "int8")          \
  X(UINT16, 4, 2, "uint16")      \
  X(INT16, 5, 2, "int16")        \
  X(INT32, 6, 4, "int32")        \
  X(INT64, 7, 8, "int64")        \
  X(STRING, 8, 16, "string")     \
  X(BOOL, 9, 1, "bool")          \
  X(FLOAT16, 10, 2, "float16")   \
  X(FLOAT64, 11, 8, "float64")   \
  X(UINT32, 12, 4, "uint32")     \
  X(UINT64, 13, 8, "uint64")     \
  X(BFLOAT16, 16, 2, "bfloat16")

typedef enum ml_dtype {
  ML_DTYPE_NONE = 0,
#define X(name, number, bytes, text) ML_##name = number,
  ML_DTYPE_MAP(X)
#undef X
} ml_dtype;
/* No element type of ONNX: marks a value that is no tensor (tensor/container.h); its element is a pointer. */
#define ML_CONTAINER ((ml_dtype)31)

/* One element of a string tensor: bytes need not be NUL-terminated and belong to the tensor's storage. */
typedef struct ml_str {
  const char *bytes;
  size_t length;
} ml_str;

size_t ml_dtype_size(ml_dtype dtype);            /* bytes per element; 0 for a number outside the list */
bool ml_dtype_is_element(int64_t number);          /* may a file or attribute name it as the type of a tensor's elements: ML_CONTAINER is none */
const char *ml_dtype_name(ml_dtype dtype);       /* "float32"; "none" for a number outside the list */
ml_dtype ml_dtype_from_name(const char *name);   /* ML_DTYPE_NONE when unknown */
bool ml_dtype_is_float(ml_dtype dtype);          /* float16, bfloat16, float32, float64 */
bool ml_dtype_is_integer(ml_dtype dtype);        /* (u)int8 … (u)int64, not bool */

float ml_half_to_float(uint16_t half);
uint16_t ml_float_to_half(float value);          /* round to nearest even */
static inline float ml_bfloat_to_float(uint16_t b) { union { uint32_t u; float f; } v = { (uint32_t)b << 16 }; return v.f; }
uint16_t ml_float_to_bfloat(float value);        /* round to nearest even, NaN kept */

/* Reads/writes element i of an array of numeric dtype as double (int64 beyond 2^53 loses precision; bool is 0/1). */
double ml_element_get(const void *data, ml_dtype dtype, size_t i);
void ml_element_set(void *data, ml_dtype dtype, size_t i, double value);
/* Converts count elements between any two numeric dtypes with C semantics made total: NaN -> 0 and out of range -> saturated for integers. */
void ml_convert(const void *from, ml_dtype from_dtype, void *to, ml_dtype to_dtype, size_t count);

#endif
