/* Element types: names, floats of 4 to 16 bits, packing and conversion.
 *
 * Conversion has 25 * 25 pairs. Pairs with float32 that decide speed have a loop of their own; all others go, a block at a time,
 * through a type that holds every source value exactly: double for floats, int64 or uint64 for integers and bool. So each
 * conversion rounds once (floats: to nearest, ties to even) or saturates once. The one exception: 64-bit integers reach bfloat16
 * through float32. Integers of less than 8 bits are 8-bit integers of a smaller range.
 * Pointers need no alignment: tensors inside files may start anywhere. */
#include "tensor/dtype.h"

#include <assert.h>
#include <string.h>

size_t ml_dtype_size(ml_dtype dtype) {
  switch (dtype) {
#define X(name, number, bytes, text) \
  case ML_##name: return bytes;
    ML_DTYPE_MAP(X)
#undef X
    case ML_DTYPE_NONE: break;
  }
  return dtype == ML_CONTAINER ? sizeof(void *) : 0;
}

bool ml_dtype_is_element(int64_t number) { return number > 0 && number < ML_CONTAINER && ml_dtype_size((ml_dtype)number) > 0; }

const char *ml_dtype_name(ml_dtype dtype) {
  switch (dtype) {
#define X(name, number, bytes, text) \
  case ML_##name: return text;
    ML_DTYPE_MAP(X)
#undef X
    case ML_DTYPE_NONE: break;
  }
  return dtype == ML_CONTAINER ? "container" : "none";
}

ml_dtype ml_dtype_from_name(const char *name) {
  if (name == NULL) return ML_DTYPE_NONE;
#define X(id, number, bytes, text) \
  if (strcmp(name, text) == 0) return ML_##id;
  ML_DTYPE_MAP(X)
#undef X
  return ML_DTYPE_NONE;
}

enum {
  SMALL_FLOATS = 1 << ML_FLOAT8E4M3FN | 1 << ML_FLOAT8E4M3FNUZ | 1 << ML_FLOAT8E5M2 | 1 << ML_FLOAT8E5M2FNUZ | 1 << ML_FLOAT4E2M1 |
                 1 << ML_FLOAT8E8M0 | 1 << ML_FLOAT6E2M3 | 1 << ML_FLOAT6E3M2,
  FLOATS_16_UP = 1 << ML_FLOAT32 | 1 << ML_FLOAT64 | 1 << ML_FLOAT16 | 1 << ML_BFLOAT16,
  INTEGERS_8_UP = 1 << ML_UINT8 | 1 << ML_INT8 | 1 << ML_UINT16 | 1 << ML_INT16 | 1 << ML_INT32 | 1 << ML_INT64 | 1 << ML_UINT32 |
                  1 << ML_UINT64,
  SMALL_INTEGERS = 1 << ML_UINT4 | 1 << ML_INT4 | 1 << ML_UINT2 | 1 << ML_INT2
};

static inline bool among(ml_dtype dtype, int set) { return (unsigned)dtype < 31 && (set >> dtype & 1) != 0; }

bool ml_dtype_is_float(ml_dtype dtype) { return among(dtype, SMALL_FLOATS | FLOATS_16_UP); }
bool ml_dtype_is_integer(ml_dtype dtype) { return among(dtype, INTEGERS_8_UP | SMALL_INTEGERS); }
bool ml_dtype_is_small(ml_dtype dtype) { return among(dtype, SMALL_FLOATS); }

/* ---- files ---- */

size_t ml_dtype_bits(ml_dtype dtype) {
  if (dtype == ML_UINT4 || dtype == ML_INT4 || dtype == ML_FLOAT4E2M1) return 4;
  if (dtype == ML_UINT2 || dtype == ML_INT2) return 2;
  return dtype == ML_FLOAT6E2M3 || dtype == ML_FLOAT6E3M2 ? 6 : 8 * ml_dtype_size(dtype);
}

size_t ml_packed_size(ml_dtype dtype, size_t count) {
  size_t bits = ml_dtype_bits(dtype);
  return count / 8 * bits + (count % 8 * bits + 7) / 8;
}

void ml_pack(const void *from, ml_dtype dtype, void *to, size_t count) {
  const uint8_t *in = from;
  uint8_t *out = to;
  const uint32_t bits = (uint32_t)ml_dtype_bits(dtype), mask = (1u << bits) - 1;
  uint32_t held = 0, n = 0;
  for (size_t i = 0; i < count; ++i) {
    held |= (in[i] & mask) << n;
    for (n += bits; n >= 8; n -= 8, held >>= 8) *out++ = (uint8_t)held;
  }
  if (n > 0) *out = (uint8_t)held;
}

/* The low bits of a byte as an element in memory. */
static inline uint8_t small_element(ml_dtype dtype, uint32_t bits, uint32_t value) {
  const uint32_t sign = dtype == ML_INT4 || dtype == ML_INT2 ? 1u << (bits - 1) : 0;
  return (uint8_t)(((value & ((1u << bits) - 1)) ^ sign) - sign);
}

void ml_unpack(const void *from, ml_dtype dtype, void *to, size_t count) {
  const uint8_t *in = from;
  uint8_t *out = to;
  const uint32_t bits = (uint32_t)ml_dtype_bits(dtype);
  uint32_t held = 0, n = 0;
  for (size_t i = 0; i < count; ++i) {
    if (n < bits) {
      held |= (uint32_t)*in++ << n;
      n += 8;
    }
    out[i] = small_element(dtype, bits, held);
    held >>= bits;
    n -= bits;
  }
}

/* ---- bits ---- */

static inline uint32_t bits_of(float value) {
  union { float f; uint32_t u; } v = {value};
  return v.u;
}

static inline float float_of(uint32_t bits) {
  union { uint32_t u; float f; } v = {bits};
  return v.f;
}

/* Select by mask: written so that the loops below become vector code. */
static inline uint32_t pick(bool condition, uint32_t yes, uint32_t no) {
  uint32_t mask = 0u - (uint32_t)condition;
  return (yes & mask) | (no & ~mask);
}

/* ---- binary16 (IEEE 754: 1 sign, 5 exponent, 10 fraction bits) ---- */

static inline float half_to_float(uint16_t half) {
  uint32_t magnitude = (uint32_t)(half & 0x7FFFu) << 13;
  uint32_t normal = magnitude + (112u << 23);      /* exponent bias 15 -> 127 */
  uint32_t special = magnitude + (224u << 23);     /* infinity, NaN: exponent 31 -> 255 */
  /* subnormal: fraction * 2^-24, got as (2^-14 + fraction * 2^-24) - 2^-14, which is exact */
  uint32_t small = bits_of(float_of(magnitude + (113u << 23)) - float_of(113u << 23));
  uint32_t result = pick(magnitude < (1u << 23), small, pick(magnitude >= (31u << 23), special, normal));
  return float_of(result | (uint32_t)(half & 0x8000u) << 16);
}

static inline uint16_t float_to_half(float value) {
  uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
  /* normal: rebias, then add just under half a unit, plus one when the kept part is odd; overflow carries into infinity */
  uint32_t normal = (magnitude - (112u << 23) + 0xFFFu + (magnitude >> 13 & 1u)) >> 13;
  /* subnormal: adding 1/2 puts the unit in the last place at 2^-24, so the float adder does the rounding */
  uint32_t small = bits_of(float_of(pick(magnitude < (113u << 23), magnitude, 0)) + 0.5f) - bits_of(0.5f);
  uint32_t fraction = magnitude >> 13 & 0x3FFu; /* NaN keeps the upper part of its payload */
  uint32_t nan = 0x7C00u | fraction | (uint32_t)(fraction == 0) << 9;
  uint32_t result = pick(magnitude < (113u << 23), small, normal);
  result = pick(magnitude >= (143u << 23), 0x7C00u, result);
  return (uint16_t)(sign | pick(magnitude > 0x7F800000u, nan, result));
}

static inline uint16_t float_to_bfloat(float value) {
  uint32_t bits = bits_of(value);
  uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
  return (uint16_t)pick((bits & 0x7FFFFFFFu) > 0x7F800000u, bits >> 16 | 0x40u, rounded);
}

/* Rounds to odd: inexact results get an odd last bit, so that rounding again to a format at least two bits shorter gives what
 * rounding once would have (Boldo, Melquiond: "Emulation of FMA and correctly rounded sums", IEEE Trans. Comp. 57, 2008). */
static inline float double_to_odd_float(double value) {
  float near = (float)value;
  uint32_t bits = bits_of(near);
  if ((double)near == value || value != value || (bits & 1u) != 0) return near;
  /* even and inexact: the odd neighbour on value's side; infinity stands for the even number behind the largest finite one */
  bool away = (near < 0 ? -(double)near : (double)near) < (value < 0 ? -value : value);
  return float_of(away ? bits + 1 : bits - 1);
}

float ml_half_to_float(uint16_t half) { return half_to_float(half); }
uint16_t ml_float_to_half(float value) { return float_to_half(value); }
uint16_t ml_float_to_bfloat(float value) { return float_to_bfloat(value); }

void ml_mask_small(void *data, ml_dtype dtype, size_t count) {
  const uint32_t bits = (uint32_t)ml_dtype_bits(dtype);
  if (bits >= 8) return;
  uint8_t *element = data;
  for (size_t i = 0; i < count; ++i) element[i] = small_element(dtype, bits, element[i]);
}

/* ---- floats of 4 to 8 bits ---- */

/* What is beyond the numbers of a format. */
typedef enum beyond {
  NOTHING,   /* no infinity, no NaN */
  ONE_NAN,   /* NaN is all ones */
  ZERO_NAN,  /* NaN takes the place of -0 */
  IEEE       /* the largest exponent holds infinity and NaN */
} beyond;

typedef struct small_format { /* sign, exponent, fraction */
  uint8_t bits, fraction, bias, beyond;
  uint8_t max; /* the largest number */
} small_format;

static small_format format_of(ml_dtype dtype) {
  switch (dtype) {
    case ML_FLOAT8E4M3FN: return (small_format){8, 3, 7, ONE_NAN, 0x7E};
    case ML_FLOAT8E4M3FNUZ: return (small_format){8, 3, 8, ZERO_NAN, 0x7F};
    case ML_FLOAT8E5M2: return (small_format){8, 2, 15, IEEE, 0x7B};
    case ML_FLOAT8E5M2FNUZ: return (small_format){8, 2, 16, ZERO_NAN, 0x7F};
    case ML_FLOAT6E2M3: return (small_format){6, 3, 1, NOTHING, 0x1F};
    case ML_FLOAT6E3M2: return (small_format){6, 2, 3, NOTHING, 0x1F};
    default: return (small_format){4, 1, 1, NOTHING, 0x07}; /* float4e2m1 */
  }
}

static inline uint64_t bits_of_double(double value) {
  union { double d; uint64_t u; } v = {value};
  return v.u;
}

static inline double power_of_two(int exponent) {
  union { uint64_t u; double d; } v = {(uint64_t)(exponent + 1023) << 52};
  return v.d;
}

static double small_to_double(ml_dtype dtype, uint8_t code) {
  if (dtype == ML_FLOAT8E8M0) return code == 0xFF ? __builtin_nan("") : power_of_two((int)code - 127);
  const small_format f = format_of(dtype);
  const unsigned sign = 1u << (f.bits - 1), magnitude = code & (sign - 1);
  if (f.beyond == ZERO_NAN ? code == sign : f.beyond != NOTHING && magnitude > f.max)
    return f.beyond == IEEE && magnitude == f.max + 1u ? (code & sign ? -__builtin_inf() : __builtin_inf()) : __builtin_nan("");
  const unsigned exponent = magnitude >> f.fraction, fraction = magnitude & ((1u << f.fraction) - 1);
  const double unit = power_of_two((exponent > 0 ? (int)exponent : 1) - f.bias - f.fraction);
  const double value = (double)(exponent > 0 ? fraction + (1u << f.fraction) : fraction) * unit;
  return code & sign ? -value : value;
}

static uint8_t double_to_power(double value, bool saturate, ml_round round) {
  const uint64_t magnitude = bits_of_double(value) & INT64_MAX, fraction = magnitude & ((UINT64_C(1) << 52) - 1);
  if (magnitude > UINT64_C(0x7FF) << 52) return 0xFF;
  int64_t code = (int64_t)(magnitude >> 52) - 1023 + 127;
  if (code < 0) { /* below the smallest: between it and 0 */
    const bool reaches = magnitude > 0 && (round == ML_ROUND_UP || (round == ML_ROUND_NEAREST && code == -1));
    return reaches || saturate ? 0 : 0xFF;
  }
  code += fraction > 0 && (round == ML_ROUND_UP || (round == ML_ROUND_NEAREST && fraction >> 51));
  return (uint8_t)(code <= 254 ? code : saturate ? 254 : 0xFF);
}

static uint8_t double_to_small(double value, ml_dtype dtype, bool saturate, ml_round round) {
  if (dtype == ML_FLOAT8E8M0) return double_to_power(value, saturate, round);
  const small_format f = format_of(dtype);
  const unsigned sign = 1u << (f.bits - 1), negative = bits_of_double(value) >> 63 ? sign : 0;
  const uint64_t magnitude = bits_of_double(value) & INT64_MAX;
  if (magnitude > UINT64_C(0x7FF) << 52) { /* NaN; where there is none a zero of the other sign, as ml_dtypes has it */
    if (f.beyond == NOTHING) return (uint8_t)(negative ^ sign);
    return (uint8_t)(f.beyond == ZERO_NAN ? sign : f.beyond == IEEE ? negative | 0x7E : negative | 0x7F);
  }
  const int64_t exponent = (int64_t)(magnitude >> 52) - 1023, smallest = 1 - f.bias;
  /* bits below the unit in the last place of the result; more than 54: less than half the smallest number */
  const int64_t drop = 52 - f.fraction + (exponent < smallest ? smallest - exponent : 0);
  uint64_t code = 0;
  if (drop <= 54) {
    const uint64_t significand = (magnitude & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1) << 52;
    code = (significand + (UINT64_C(1) << (drop - 1)) - 1 + (significand >> drop & 1)) >> drop;
    if (exponent > smallest) code += (uint64_t)(exponent - smallest) << f.fraction; /* rounding up carries into the exponent */
  }
  if (code > f.max) {
    if (saturate || f.beyond == NOTHING) code = f.max;
    else if (f.beyond == ZERO_NAN) return (uint8_t)sign;
    else code = f.beyond == IEEE ? f.max + 1u : 0x7F;
  }
  return (uint8_t)(code == 0 && f.beyond == ZERO_NAN ? 0 : code | negative);
}

/* ---- one element ---- */

#define IN_MEMORY __attribute__((aligned(1), may_alias))
typedef float f32 IN_MEMORY;
typedef double f64 IN_MEMORY;
typedef uint8_t u8 IN_MEMORY;
typedef int8_t i8 IN_MEMORY;
typedef uint16_t u16 IN_MEMORY;
typedef int16_t i16 IN_MEMORY;
typedef uint32_t u32 IN_MEMORY;
typedef int32_t i32 IN_MEMORY;
typedef uint64_t u64 IN_MEMORY;
typedef int64_t i64 IN_MEMORY;

/* from double */
#define FROM_DOUBLE(name, type, low, high)           \
  static inline type double_to_##name(double value) { \
    value = value == value ? value : 0;              \
    value = value > (low) ? value : (low);           \
    value = value < (high) ? value : (high);         \
    return (type)value;                              \
  }
FROM_DOUBLE(u8, uint8_t, 0.0, 255.0)
FROM_DOUBLE(i8, int8_t, -128.0, 127.0)
FROM_DOUBLE(u16, uint16_t, 0.0, 65535.0)
FROM_DOUBLE(i16, int16_t, -32768.0, 32767.0)
FROM_DOUBLE(u32, uint32_t, 0.0, 4294967295.0)
FROM_DOUBLE(i32, int32_t, -2147483648.0, 2147483647.0)

/* the largest 64-bit integers are not doubles: the bound is the power of two behind them */
static inline uint64_t double_to_u64(double value) {
  if (!(value > 0)) return 0;
  return value >= 18446744073709551616.0 ? UINT64_MAX : (uint64_t)value;
}

static inline int64_t double_to_i64(double value) {
  if (value != value) return 0;
  if (value >= 9223372036854775808.0) return INT64_MAX;
  return value < -9223372036854775808.0 ? INT64_MIN : (int64_t)value;
}

static inline float double_to_f32(double value) { return (float)value; }
static inline double double_to_f64(double value) { return value; }
static inline uint16_t double_to_f16(double value) { return float_to_half(double_to_odd_float(value)); }
static inline uint16_t double_to_bf16(double value) { return float_to_bfloat(double_to_odd_float(value)); }
static inline uint8_t double_to_b8(double value) { return value != 0; }

/* from int64 and uint64 */
#define FROM_INTEGER(name, type, low, high)                                                                     \
  static inline type int_to_##name(int64_t v) { return (type)(v < (low) ? (low) : v > (high) ? (high) : v); } \
  static inline type uint_to_##name(uint64_t v) { return (type)(v > (high) ? (high) : v); }
FROM_INTEGER(u8, uint8_t, 0, 255)
FROM_INTEGER(i8, int8_t, -128, 127)
FROM_INTEGER(u16, uint16_t, 0, 65535)
FROM_INTEGER(i16, int16_t, -32768, 32767)
FROM_INTEGER(u32, uint32_t, 0, UINT32_MAX)
FROM_INTEGER(i32, int32_t, INT32_MIN, INT32_MAX)

static inline uint64_t int_to_u64(int64_t v) { return v < 0 ? 0 : (uint64_t)v; }
static inline uint64_t uint_to_u64(uint64_t v) { return v; }
static inline int64_t int_to_i64(int64_t v) { return v; }
static inline int64_t uint_to_i64(uint64_t v) { return v > INT64_MAX ? INT64_MAX : (int64_t)v; }
static inline float int_to_f32(int64_t v) { return (float)v; }
static inline float uint_to_f32(uint64_t v) { return (float)v; }
static inline double int_to_f64(int64_t v) { return (double)v; }
static inline double uint_to_f64(uint64_t v) { return (double)v; }
static inline uint16_t int_to_f16(int64_t v) { return float_to_half(double_to_odd_float((double)v)); }
static inline uint16_t uint_to_f16(uint64_t v) { return float_to_half(double_to_odd_float((double)v)); }
static inline uint16_t int_to_bf16(int64_t v) { return float_to_bfloat((float)v); }
static inline uint16_t uint_to_bf16(uint64_t v) { return float_to_bfloat((float)v); }
static inline uint8_t int_to_b8(int64_t v) { return v != 0; }
static inline uint8_t uint_to_b8(uint64_t v) { return v != 0; }

/* dtype, type in memory, name in the functions above, expression for the exact wide value of x */
#define FLOATS(X)                          \
  X(FLOAT32, f32, f32, (double)x)          \
  X(FLOAT64, f64, f64, x)                  \
  X(FLOAT16, u16, f16, (double)half_to_float(x)) \
  X(BFLOAT16, u16, bf16, (double)ml_bfloat_to_float(x))
#define INTEGERS(X)        \
  X(UINT8, u8, u8, x)      \
  X(INT8, i8, i8, x)       \
  X(UINT16, u16, u16, x)   \
  X(INT16, i16, i16, x)    \
  X(INT32, i32, i32, x)    \
  X(INT64, i64, i64, x)    \
  X(UINT32, u32, u32, x)   \
  X(BOOL, u8, b8, x != 0)
#define UNSIGNED_64(X) X(UINT64, u64, u64, x)
#define NUMERIC(X) FLOATS(X) INTEGERS(X) UNSIGNED_64(X)

/* The type of the bytes an integer of less than 8 bits is in. */
static ml_dtype stored_as(ml_dtype dtype) { return dtype == ML_INT4 || dtype == ML_INT2 ? ML_INT8 : ML_UINT8; }

double ml_element_get(const void *data, ml_dtype dtype, size_t i) {
  switch (dtype) {
#define X(id, type, name, wide)       \
  case ML_##id: {                     \
    type x = ((const type *)data)[i]; \
    return (double)(wide);            \
  }
    NUMERIC(X)
#undef X
    default: break;
  }
  if (among(dtype, SMALL_INTEGERS)) return ml_element_get(data, stored_as(dtype), i);
  assert(ml_dtype_is_small(dtype) && "numeric dtype");
  return small_to_double(dtype, ((const uint8_t *)data)[i]);
}

void ml_element_set(void *data, ml_dtype dtype, size_t i, double value) {
  switch (dtype) {
#define X(id, type, name, wide) \
  case ML_##id: ((type *)data)[i] = double_to_##name(value); return;
    NUMERIC(X)
#undef X
    default: break;
  }
  assert(among(dtype, SMALL_FLOATS | SMALL_INTEGERS) && "numeric dtype");
  ml_convert(&value, ML_FLOAT64, (uint8_t *)data + i, dtype, 1);
}

/* ---- arrays ---- */

enum { BLOCK = 256 };

static void load_doubles(const void *from, ml_dtype dtype, double *out, size_t count) {
  switch (dtype) {
#define X(id, type, name, wide)           \
  case ML_##id: {                         \
    const type *in = from;                \
    for (size_t i = 0; i < count; ++i) {  \
      type x = in[i];                     \
      out[i] = wide;                      \
    }                                     \
    break;                                \
  }
    FLOATS(X)
#undef X
    default: break;
  }
}

static void load_ints(const void *from, ml_dtype dtype, int64_t *out, size_t count) {
  switch (dtype) {
#define X(id, type, name, wide)           \
  case ML_##id: {                         \
    const type *in = from;                \
    for (size_t i = 0; i < count; ++i) {  \
      type x = in[i];                     \
      out[i] = wide;                      \
    }                                     \
    break;                                \
  }
    INTEGERS(X)
#undef X
    default: break;
  }
}

#define STORE(kind, wide_type)                                                                      \
  static void store_##kind##s(const wide_type *in, void *to, ml_dtype dtype, size_t count) {        \
    switch (dtype) {                                                                                \
      NUMERIC(STORE_CASE_##kind)                                                                    \
      default: break;                                                                               \
    }                                                                                               \
  }
#define STORE_CASE(kind, id, type, name)                                          \
  case ML_##id: {                                                                 \
    type *out = to;                                                               \
    for (size_t i = 0; i < count; ++i) out[i] = kind##_to_##name(in[i]);          \
    break;                                                                        \
  }
#define STORE_CASE_double(id, type, name, wide) STORE_CASE(double, id, type, name)
#define STORE_CASE_int(id, type, name, wide) STORE_CASE(int, id, type, name)
#define STORE_CASE_uint(id, type, name, wide) STORE_CASE(uint, id, type, name)
STORE(double, double)
STORE(int, int64_t)
STORE(uint, uint64_t)

/* from and to float32; clamping in float is right for 8 and 16 bits, whose bounds are floats */
static inline float clamp(float x, float low, float high) {
  x = x == x ? x : 0;
  x = x > low ? x : low;
  return x < high ? x : high;
}

#define FROM_FLOAT32(X)                                              \
  X(UINT8, u8, (uint8_t)(int32_t)clamp(x, 0, 255))                   \
  X(INT8, i8, (int8_t)(int32_t)clamp(x, -128, 127))                  \
  X(UINT16, u16, (uint16_t)(int32_t)clamp(x, 0, 65535))              \
  X(INT16, i16, (int16_t)(int32_t)clamp(x, -32768, 32767))           \
  X(INT32, i32, double_to_i32((double)x))                            \
  X(INT64, i64, double_to_i64((double)x))                            \
  X(BOOL, u8, x != 0)                                                \
  X(FLOAT64, f64, (double)x)                                         \
  X(FLOAT16, u16, float_to_half(x))                                  \
  X(BFLOAT16, u16, float_to_bfloat(x))

#define TO_FLOAT32(X)                      \
  X(UINT8, u8, (float)x)                   \
  X(INT8, i8, (float)x)                    \
  X(UINT16, u16, (float)x)                 \
  X(INT16, i16, (float)x)                  \
  X(INT32, i32, (float)x)                  \
  X(INT64, i64, (float)x)                  \
  X(BOOL, u8, (float)(x != 0))             \
  X(FLOAT64, f64, (float)x)                \
  X(FLOAT16, u16, half_to_float(x))        \
  X(BFLOAT16, u16, ml_bfloat_to_float(x))

static bool from_float32(const f32 *restrict in, void *to, ml_dtype dtype, size_t count) {
  switch (dtype) {
#define X(id, type, expression)                                \
  case ML_##id: {                                              \
    type *restrict out = to;                                   \
    for (size_t i = 0; i < count; ++i) {                       \
      float x = in[i];                                         \
      out[i] = expression;                                     \
    }                                                          \
    return true;                                               \
  }
    FROM_FLOAT32(X)
#undef X
    default: return false;
  }
}

static bool to_float32(const void *from, ml_dtype dtype, f32 *restrict out, size_t count) {
  switch (dtype) {
#define X(id, type, expression)                                \
  case ML_##id: {                                              \
    const type *restrict in = from;                            \
    for (size_t i = 0; i < count; ++i) {                       \
      type x = in[i];                                          \
      out[i] = expression;                                     \
    }                                                          \
    return true;                                               \
  }
    TO_FLOAT32(X)
#undef X
    default: return false;
  }
}

static void load_small(const void *from, ml_dtype dtype, double *out, size_t count) {
  const uint8_t *in = from;
  for (size_t i = 0; i < count; ++i) out[i] = small_to_double(dtype, in[i]);
}

void ml_convert_small(const void *from, ml_dtype from_dtype, void *to, ml_dtype to_dtype, size_t count, bool saturate, ml_round round) {
  const unsigned char *source = from;
  uint8_t *target = to;
  double wide[BLOCK];
  while (count > 0) {
    size_t n = count < BLOCK ? count : BLOCK;
    ml_convert(source, from_dtype, wide, ML_FLOAT64, n);
    for (size_t i = 0; i < n; ++i) target[i] = double_to_small(wide[i], to_dtype, saturate, round);
    source += n * ml_dtype_size(from_dtype);
    target += n;
    count -= n;
  }
}

/* By way of the byte that holds it, which is then brought into range. */
static void convert_to_small_integer(const void *from, ml_dtype from_dtype, void *to, ml_dtype to_dtype, size_t count) {
  const unsigned levels = 1u << ml_dtype_bits(to_dtype);
  ml_convert(from, from_dtype, to, stored_as(to_dtype), count);
  if (stored_as(to_dtype) == ML_UINT8) {
    uint8_t *u = to;
    for (size_t i = 0; i < count; ++i) u[i] = u[i] < levels ? u[i] : (uint8_t)(levels - 1);
  } else {
    int8_t *s = to;
    const int8_t high = (int8_t)(levels / 2 - 1), low = (int8_t)(-high - 1);
    for (size_t i = 0; i < count; ++i) s[i] = s[i] < low ? low : s[i] > high ? high : s[i];
  }
}

void ml_convert(const void *from, ml_dtype from_dtype, void *to, ml_dtype to_dtype, size_t count) {
  size_t from_size = ml_dtype_size(from_dtype), to_size = ml_dtype_size(to_dtype);
  assert(from_size != 0 && to_size != 0 && from_dtype != ML_STRING && to_dtype != ML_STRING);
  if (count == 0) return;
  if (from_dtype == to_dtype) {
    memmove(to, from, count * from_size);
    return;
  }
  if (ml_dtype_is_small(to_dtype)) {
    ml_convert_small(from, from_dtype, to, to_dtype, count, true, ML_ROUND_UP);
    return;
  }
  if (among(to_dtype, SMALL_INTEGERS)) {
    convert_to_small_integer(from, from_dtype, to, to_dtype, count);
    return;
  }
  if (among(from_dtype, SMALL_INTEGERS)) {
    ml_convert(from, stored_as(from_dtype), to, to_dtype, count);
    return;
  }
  if (from_dtype == ML_FLOAT32 && from_float32(from, to, to_dtype, count)) return;
  if (to_dtype == ML_FLOAT32 && to_float32(from, from_dtype, to, count)) return;
  const unsigned char *source = from;
  unsigned char *target = to;
  union {
    double doubles[BLOCK];
    int64_t ints[BLOCK];
    uint64_t uints[BLOCK];
  } wide;
  while (count > 0) {
    size_t n = count < BLOCK ? count : BLOCK;
    if (from_dtype == ML_UINT64) {
      memcpy(wide.uints, source, n * sizeof wide.uints[0]);
      store_uints(wide.uints, target, to_dtype, n);
    } else if (ml_dtype_is_float(from_dtype)) {
      if (ml_dtype_is_small(from_dtype)) load_small(source, from_dtype, wide.doubles, n);
      else load_doubles(source, from_dtype, wide.doubles, n);
      store_doubles(wide.doubles, target, to_dtype, n);
    } else {
      load_ints(source, from_dtype, wide.ints, n);
      store_ints(wide.ints, target, to_dtype, n);
    }
    source += n * from_size;
    target += n * to_size;
    count -= n;
  }
}
