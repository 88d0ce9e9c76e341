/* Element types. Lives here: the one list of dtypes, with ONNX's numbers (TensorProto.DataType). May include: base. */
#ifndef ML_TENSOR_DTYPE_H
#define ML_TENSOR_DTYPE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* name, ONNX number, bytes per element in memory, text used in Lua, JSON and messages. Elements of less than 8 bits take a byte each in memory
 * (int4 and int2 with their sign, the others with zeros above) and are packed in files only. */
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
  X(BFLOAT16, 16, 2, "bfloat16") \
  X(FLOAT8E4M3FN, 17, 1, "float8e4m3fn") \
  X(FLOAT8E4M3FNUZ, 18, 1, "float8e4m3fnuz") \
  X(FLOAT8E5M2, 19, 1, "float8e5m2") \
  X(FLOAT8E5M2FNUZ, 20, 1, "float8e5m2fnuz") \
  X(UINT4, 21, 1, "uint4")       \
  X(INT4, 22, 1, "int4")         \
  X(FLOAT4E2M1, 23, 1, "float4e2m1") \
  X(FLOAT8E8M0, 24, 1, "float8e8m0") \
  X(UINT2, 25, 1, "uint2")       \
  X(INT2, 26, 1, "int2")         \
  X(FLOAT6E2M3, 27, 1, "float6e2m3") \
  X(FLOAT6E3M2, 28, 1, "float6e3m2")

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
bool ml_dtype_is_float(ml_dtype dtype);          /* every float, 4 to 64 bits */
bool ml_dtype_is_integer(ml_dtype dtype);        /* every integer, 2 to 64 bits; not bool */
bool ml_dtype_is_small(ml_dtype dtype);          /* floats of less than 16 bits */

/* ---- files ---- */
size_t ml_dtype_bits(ml_dtype dtype);            /* bits per element in a file; 8 * ml_dtype_size from 8 on */
size_t ml_packed_size(ml_dtype dtype, size_t count); /* bytes in a file of count elements that fit into memory */
/* count elements of less than 8 bits to and from a stream of bits, lowest bit first. `to` has ml_packed_size bytes, or count. */
void ml_pack(const void *from, ml_dtype dtype, void *to, size_t count);
void ml_unpack(const void *from, ml_dtype dtype, void *to, size_t count);
void ml_mask_small(void *data, ml_dtype dtype, size_t count); /* makes elements of less than 8 bits out of bytes from elsewhere, in place */

float ml_half_to_float(uint16_t half);
uint16_t ml_float_to_half(float value);          /* round to nearest even */
static inline float ml_bfloat_to_float(uint16_t b) { union { uint32_t u; float f; } v = { (uint32_t)b << 16 }; return v.f; }
uint16_t ml_float_to_bfloat(float value);        /* round to nearest even, NaN kept */

/* Reads/writes element i of an array of numeric dtype as double (int64 beyond 2^53 loses precision; bool is 0/1). */
double ml_element_get(const void *data, ml_dtype dtype, size_t i);
void ml_element_set(void *data, ml_dtype dtype, size_t i, double value);
/* Converts count elements between any two numeric dtypes with C semantics made total: NaN -> 0 and out of range -> saturated for integers.
 * Small floats: as ml_convert_small with saturate and ML_ROUND_UP. */
void ml_convert(const void *from, ml_dtype from_dtype, void *to, ml_dtype to_dtype, size_t count);

typedef enum ml_round { ML_ROUND_UP, ML_ROUND_DOWN, ML_ROUND_NEAREST } ml_round;
/* To a small float as ONNX's Cast does it. Out of range and infinite: the largest number, or without `saturate` infinity or NaN where the type has
 * them. float8e8m0, the powers of two, rounds magnitudes as `round` says (nearest: ties up); the others round to nearest, ties to even. */
void ml_convert_small(const void *from, ml_dtype from_dtype, void *to, ml_dtype to_dtype, size_t count, bool saturate, ml_round round);

#endif
