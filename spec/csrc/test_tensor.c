/* csrc/tensor: dtype and tensor. Conversions are held against the definitions of the formats, written down here with ldexp and
 * long double (64 fraction bits on x86, so it holds every element of every dtype), not against the code's bit manipulation. */
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "base/rng.h"
#include "tensor/tensor.h"
#include "tap.h"

/* ---- formats by definition ---- */

/* Value of a binary format with `fraction` fraction bits and `exponent` exponent bits (sign in front). */
static double decode(uint16_t bits, int exponent, int fraction) {
  int bias = (1 << (exponent - 1)) - 1, e = bits >> fraction & ((1 << exponent) - 1), m = bits & ((1 << fraction) - 1);
  double magnitude;
  if (e == (1 << exponent) - 1) magnitude = m == 0 ? (double)INFINITY : (double)NAN;
  else if (e == 0) magnitude = ldexp(m, 1 - bias - fraction);
  else magnitude = ldexp(m + (1 << fraction), e - bias - fraction);
  return bits & 0x8000 ? -magnitude : magnitude;
}

/* Nearest value of that format, ties to even, by bisection over the non-negative codes, which are ordered like their values. */
static uint16_t encode(long double value, int exponent, int fraction) {
  uint16_t sign = signbit(value) ? 0x8000 : 0, infinite = (uint16_t)(((1 << exponent) - 1) << fraction);
  if (isnan(value)) return infinite | 1u;
  long double magnitude = fabsl(value);
  uint16_t low = 0, high = infinite;
  while (high - low > 1) {
    uint16_t middle = (uint16_t)((low + high) / 2);
    if ((long double)decode(middle, exponent, fraction) <= magnitude) low = middle;
    else high = middle;
  }
  /* infinity stands where the next number would be */
  long double below = decode(low, exponent, fraction);
  long double above = high == infinite ? ldexpl(1, 1 << (exponent - 1)) : (long double)decode(high, exponent, fraction);
  if (magnitude >= above) return sign | high;
  long double half = (above - below) / 2 + below;
  return (uint16_t)(sign | (magnitude > half || (magnitude == half && (low & 1) != 0) ? high : low));
}

static bool is_nan16(uint16_t bits, int fraction) { return isnan(decode(bits, 15 - fraction, fraction)); }

static bool same_float(float a, float b) { return isnan(a) ? isnan(b) != 0 : a == b && signbit(a) == signbit(b); }

static void test_half(void) {
  bool decoded = true, round_trip = true, bfloat = true, bfloat_trip = true;
  for (uint32_t i = 0; i < 65536; ++i) {
    uint16_t bits = (uint16_t)i;
    float value = ml_half_to_float(bits);
    decoded = decoded && same_float(value, (float)decode(bits, 5, 10));
    uint16_t back = ml_float_to_half(value);
    round_trip = round_trip && (back == bits || (is_nan16(bits, 10) && is_nan16(back, 10)));
    value = ml_bfloat_to_float(bits);
    bfloat = bfloat && same_float(value, (float)decode(bits, 8, 7));
    back = ml_float_to_bfloat(value);
    bfloat_trip = bfloat_trip && (back == bits || (is_nan16(bits, 7) && is_nan16(back, 7)));
  }
  ok(decoded, "all 65536 halves decode as defined");
  ok(round_trip, "all 65536 halves survive the round trip");
  ok(bfloat && bfloat_trip, "all 65536 bfloat16 numbers");
  static const struct { float value; uint16_t half; } known[] = {
    {0.0f, 0}, {-0.0f, 0x8000}, {1.0f, 0x3C00}, {-2.0f, 0xC000}, {65504.0f, 0x7BFF}, {65519.996f, 0x7BFF}, {65520.0f, 0x7C00},
    {0x1p-14f, 0x0400}, {0x1p-24f, 1}, {0x1p-25f, 0}, {0x1.000002p-25f, 1}, {0.333251953125f, 0x3555}, {INFINITY, 0x7C00}};
  for (size_t i = 0; i < sizeof known / sizeof known[0]; ++i) {
    ok(ml_float_to_half(known[i].value) == known[i].half, "half of %a is %04x", (double)known[i].value, known[i].half);
  }
  bool half = true, brain = true;
  for (uint64_t i = 0; i < 300000; ++i) {
    union { uint32_t u; float f; } v = {ml_rng_u32(1, 1, i)};
    if (i % 3 == 0) v.u = (v.u & 0x8FFFFFFFu) | 0x30000000u; /* within half's range */
    if (i % 7 == 0) v.u &= 0xFFFFF000u;                       /* ties */
    if (i % 11 == 0) v.u = (v.u & 0xFFFF0000u) | 0x8000u;
    uint16_t got = ml_float_to_half(v.f), want = encode((long double)v.f, 5, 10);
    half = half && (isnan(v.f) ? is_nan16(got, 10) : got == want);
    got = ml_float_to_bfloat(v.f), want = encode((long double)v.f, 8, 7);
    brain = brain && (isnan(v.f) ? is_nan16(got, 7) : got == want);
  }
  ok(half, "float to half rounds to nearest, ties to even");
  ok(brain, "float to bfloat16 rounds to nearest, ties to even");
}

/* ---- names ---- */

static void test_names(void) {
  static const struct { ml_dtype dtype; int number; size_t size; const char *name; } list[] = {
#define X(id, number, bytes, text) {ML_##id, number, bytes, text},
    ML_DTYPE_MAP(X)
#undef X
  };
  bool good = true;
  for (size_t i = 0; i < sizeof list / sizeof list[0]; ++i) {
    good = good && (int)list[i].dtype == list[i].number && ml_dtype_size(list[i].dtype) == list[i].size &&
           strcmp(ml_dtype_name(list[i].dtype), list[i].name) == 0 && ml_dtype_from_name(list[i].name) == list[i].dtype;
  }
  ok(good, "names and sizes");
  ok(ml_dtype_size((ml_dtype)14) == 0 && ml_dtype_size(ML_DTYPE_NONE) == 0, "size of no dtype");
  ok(strcmp(ml_dtype_name((ml_dtype)99), "none") == 0, "name of no dtype");
  ok(ml_dtype_from_name("float") == ML_DTYPE_NONE && ml_dtype_from_name(NULL) == ML_DTYPE_NONE &&
         ml_dtype_from_name("none") == ML_DTYPE_NONE,
     "unknown names");
  ok(ml_dtype_is_float(ML_BFLOAT16) && !ml_dtype_is_float(ML_INT8) && ml_dtype_is_integer(ML_UINT64) &&
         !ml_dtype_is_integer(ML_BOOL) && !ml_dtype_is_integer(ML_FLOAT16) && !ml_dtype_is_integer(ML_STRING),
     "kinds");
  ok(sizeof(ml_str) == ml_dtype_size(ML_STRING), "size of a string element");
}

/* ---- conversion ---- */

static const ml_dtype numeric[] = {ML_FLOAT32, ML_UINT8, ML_INT8, ML_UINT16, ML_INT16, ML_INT32, ML_INT64,
                                   ML_BOOL, ML_FLOAT16, ML_FLOAT64, ML_UINT32, ML_UINT64, ML_BFLOAT16};
enum { NUMERIC = sizeof numeric / sizeof numeric[0], COUNT = 1500 };

typedef union element {
  unsigned char bytes[8];
  float f32;
  double f64;
  uint8_t u8;
  int8_t i8;
  uint16_t u16;
  int16_t i16;
  uint32_t u32;
  int32_t i32;
  uint64_t u64;
  int64_t i64;
} element;

static long double value_of(ml_dtype dtype, const unsigned char *at) {
  element e;
  memcpy(e.bytes, at, ml_dtype_size(dtype));
  switch (dtype) {
    case ML_FLOAT32: return (long double)e.f32;
    case ML_FLOAT64: return (long double)e.f64;
    case ML_FLOAT16: return (long double)decode(e.u16, 5, 10);
    case ML_BFLOAT16: return (long double)decode(e.u16, 8, 7);
    case ML_UINT8: return e.u8;
    case ML_INT8: return e.i8;
    case ML_UINT16: return e.u16;
    case ML_INT16: return e.i16;
    case ML_UINT32: return e.u32;
    case ML_INT32: return e.i32;
    case ML_UINT64: return (long double)e.u64;
    case ML_INT64: return (long double)e.i64;
    case ML_BOOL: return e.u8 != 0;
    default: return 0;
  }
}

/* Element that `value` becomes, by definition. */
static element expected(ml_dtype from, ml_dtype to, long double value) {
  element e = {{0}};
  long double whole = isnan(value) ? 0 : truncl(value);
#define SATURATE(member, type, low, high) \
  case ML_##type: e.member = whole < (long double)(low) ? (low) : whole > (long double)(high) ? (high) : 0; \
    if (whole >= (long double)(low) && whole <= (long double)(high)) e.member = (__typeof__(e.member))whole; \
    break;
  switch (to) {
    SATURATE(u8, UINT8, 0, UINT8_MAX)
    SATURATE(i8, INT8, INT8_MIN, INT8_MAX)
    SATURATE(u16, UINT16, 0, UINT16_MAX)
    SATURATE(i16, INT16, INT16_MIN, INT16_MAX)
    SATURATE(u32, UINT32, 0, UINT32_MAX)
    SATURATE(i32, INT32, INT32_MIN, INT32_MAX)
    SATURATE(u64, UINT64, 0, UINT64_MAX)
    SATURATE(i64, INT64, INT64_MIN, INT64_MAX)
    case ML_BOOL: e.u8 = value != 0; break; /* NaN is not zero */
    case ML_FLOAT32: e.f32 = (float)value; break;
    case ML_FLOAT64: e.f64 = (double)value; break;
    case ML_FLOAT16: e.u16 = encode(value, 5, 10); break;
    case ML_BFLOAT16: /* integers go through float32 */
      e.u16 = encode(ml_dtype_is_float(from) ? value : (long double)(float)value, 8, 7);
      break;
    default: break;
  }
  return e;
}

static void fill(ml_dtype dtype, unsigned char *out) {
  size_t size = ml_dtype_size(dtype);
  static const double special[] = {0, -0.0, 0.5, -0.5, 0.99999, 1, -1, 1.5, 2.5, -2.5, 127, 127.5, 128, -128, -128.9, -129, 255,
    255.9, 256, 32767, 32768, -32768, -32769, 65504, 65519.99999999, 65520, 65535, 65536, 16777216, 16777217, 2147483647,
    2147483648.0, -2147483648.0, -2147483649.0, 4294967295.0, 4294967296.0, 9007199254740993.0, 9223372036854774784.0,
    9223372036854775808.0, -9223372036854775808.0, -9223372036854777856.0, 18446744073709549568.0, 18446744073709551616.0, 1e30,
    -1e30, 3.4028234e38, 3.4028236e38, -3.5e38, 1e300, 5e-324, 1e-45, 1e-40, 6e-8, 2.98e-8, 0x1.002p0, 0x1.002000001p0,
    0x1.001ffffffp0, 0x1.006p0, 0x1.01p0, 0x1.0100000001p0, 0x1.03p0, 0x1.02ffffffp0};
  enum { SPECIAL = sizeof special / sizeof special[0] };
  for (size_t i = 0; i < COUNT; ++i) {
    element e = {{0}};
    e.u64 = (uint64_t)ml_rng_u32(2, dtype, 2 * i) << 32 | ml_rng_u32(2, dtype, 2 * i + 1);
    if (i < SPECIAL) e = expected(ML_FLOAT64, dtype, (long double)special[i]);
    else if (i == SPECIAL) e = expected(ML_FLOAT64, dtype, (long double)NAN);
    else if (i == SPECIAL + 1) e = expected(ML_FLOAT64, dtype, (long double)INFINITY);
    else if (i == SPECIAL + 2) e = expected(ML_FLOAT64, dtype, -(long double)INFINITY);
    else if (i < SPECIAL + 300) e = expected(ML_FLOAT64, dtype, (long double)ml_rng_float(2, 99, i) * 600 - 300);
    else if (i % 3 == 0 && dtype != ML_FLOAT64) e.u64 >>= i % 57;
    memcpy(out + i * size, e.bytes, size);
  }
}

static bool same_element(ml_dtype dtype, const unsigned char *a, const unsigned char *b) {
  if (memcmp(a, b, ml_dtype_size(dtype)) == 0) return true;
  return ml_dtype_is_float(dtype) && isnan(value_of(dtype, a)) && isnan(value_of(dtype, b));
}

static void test_convert(void) {
  static unsigned char from[COUNT * 8 + 1], to[COUNT * 8 + 1], again[COUNT * 8 + 1];
  for (size_t i = 0; i < NUMERIC; ++i) {
    for (size_t j = 0; j < NUMERIC; ++j) {
      ml_dtype a = numeric[i], b = numeric[j];
      size_t size_a = ml_dtype_size(a), size_b = ml_dtype_size(b), wrong = 0, elements = 0, first = COUNT;
      fill(a, from);
      memset(to, 0xAA, sizeof to);
      ml_convert(from, a, to, b, COUNT);
      for (size_t k = 0; k < COUNT; ++k) {
        element want = expected(a, b, value_of(a, from + k * size_a));
        if (a == b) memcpy(want.bytes, from + k * size_a, size_a);
        if (!same_element(b, to + k * size_b, want.bytes) && wrong++ == 0) first = k;
        /* element access goes through double: the same wherever that holds the value */
        double wide = ml_element_get(from, a, k);
        double exact = (double)value_of(a, from + k * size_a);
        element set = {{0}};
        ml_element_set(set.bytes, b, 0, wide);
        want = expected(ML_FLOAT64, b, (long double)wide);
        if (!(wide == exact || (isnan(wide) && isnan(exact))) || !same_element(b, set.bytes, want.bytes)) ++elements;
      }
      ok(wrong == 0, "%s to %s: %zu of %d wrong, first %zu (%Lg -> %Lg)", ml_dtype_name(a), ml_dtype_name(b), wrong, COUNT, first,
         first < COUNT ? value_of(a, from + first * size_a) : 0, first < COUNT ? value_of(b, to + first * size_b) : 0);
      ok(elements == 0, "%s to %s by element: %zu wrong", ml_dtype_name(a), ml_dtype_name(b), elements);
      ok(to[COUNT * size_b] == 0xAA, "%s to %s stays inside", ml_dtype_name(a), ml_dtype_name(b));
      memmove(from + 1, from, COUNT * size_a);
      ml_convert(from + 1, a, again + 1, b, COUNT - 1);
      ok(memcmp(to, again + 1, (COUNT - 1) * size_b) == 0,
         "%s to %s from and to odd addresses", ml_dtype_name(a), ml_dtype_name(b));
    }
  }
  ml_convert(NULL, ML_FLOAT32, NULL, ML_INT8, 0);
  ok(true, "no elements");
}

/* ---- shapes ---- */

static void test_shapes(void) {
  ml_error err;
  size_t count = 99;
  ok(ml_shape_count(NULL, 0, ML_FLOAT32, &count, &err) == ML_OK && count == 1, "a scalar has one element");
  ok(ml_shape_count((int64_t[]){2, 3, 4}, 3, ML_FLOAT32, &count, &err) == ML_OK && count == 24, "2 x 3 x 4");
  ok(ml_shape_count((int64_t[]){2, 0, 4}, 3, ML_FLOAT32, &count, &err) == ML_OK && count == 0, "a zero dimension");
  ok(ml_shape_count((int64_t[]){2, -1}, 2, ML_FLOAT32, &count, &err) == ML_INVALID_ARGUMENT && strstr(err.message, "dimension 1"),
     "unknown dimension: %s", err.message);
  ok(ml_shape_count((int64_t[]){-7}, 1, ML_FLOAT32, &count, &err) == ML_INVALID_ARGUMENT && strstr(err.message, "negative"),
     "negative dimension: %s", err.message);
  ok(ml_shape_count((int64_t[]){INT64_MAX, 2}, 2, ML_INT8, &count, &err) == ML_RESOURCE_EXHAUSTED, "overflow: %s", err.message);
  ok(ml_shape_count((int64_t[]){INT64_MAX / 4 + 1}, 1, ML_FLOAT32, &count, &err) == ML_RESOURCE_EXHAUSTED, "too many bytes");
  ok(ml_shape_count((int64_t[]){0, INT64_MAX, INT64_MAX}, 3, ML_INT8, &count, &err) == ML_RESOURCE_EXHAUSTED,
     "partial products are checked beside a zero");
  ok(ml_shape_count((int64_t[]){1}, ML_UNKNOWN, ML_INT8, &count, &err) == ML_INVALID_ARGUMENT, "unknown rank: %s", err.message);
  ok(ml_shape_count((int64_t[]){1}, 17, ML_INT8, &count, &err) == ML_INVALID_ARGUMENT, "rank 17: %s", err.message);
  ok(ml_shape_count((int64_t[]){1}, 1, (ml_dtype)50, &count, &err) == ML_INVALID_ARGUMENT, "no dtype: %s", err.message);

  ok(ml_shape_equal((int64_t[]){1, 2}, 2, (int64_t[]){1, 2}, 2) && !ml_shape_equal((int64_t[]){1, 2}, 2, (int64_t[]){1, 3}, 2) &&
         !ml_shape_equal((int64_t[]){1}, 1, (int64_t[]){1, 1}, 2),
     "ml_shape_equal");
  ml_view view = {.rank = 2, .dims = {3, 4}};
  ok(ml_view_known(&view), "known view");
  view.dims[1] = ML_UNKNOWN;
  ok(!ml_view_known(&view), "unknown dimension");
  view.rank = ML_UNKNOWN;
  ok(!ml_view_known(&view), "unknown rank");

  char text[64];
  ok(strcmp(ml_shape_format((int64_t[]){2, -1, 3}, 3, text, sizeof text), "(2, -1, 3)") == 0, "format %s", text);
  ok(strcmp(ml_shape_format(NULL, 0, text, sizeof text), "()") == 0, "format %s", text);
  ok(strcmp(ml_shape_format(NULL, -1, text, sizeof text), "(unknown rank)") == 0, "format %s", text);
  int64_t wide[16];
  for (int i = 0; i < 16; ++i) wide[i] = INT64_MIN;
  bool terminated = true;
  for (size_t size = 0; size < sizeof text; ++size) {
    memset(text, 'x', sizeof text);
    ml_shape_format(wide, 16, text, size);
    terminated = terminated && (size == 0 || memchr(text, '\0', size) != NULL) && text[size] == 'x';
  }
  ok(terminated, "format into any size");

  /* pairs as in NumPy's broadcasting rules */
  static const struct { int64_t a[4]; int32_t rank_a; int64_t b[4]; int32_t rank_b; int64_t out[4]; int32_t rank; } pairs[] = {
    {{256, 256, 3}, 3, {3}, 1, {256, 256, 3}, 3},
    {{8, 1, 6, 1}, 4, {7, 1, 5}, 3, {8, 7, 6, 5}, 4},
    {{5, 4}, 2, {1}, 1, {5, 4}, 2},
    {{15, 3, 5}, 3, {15, 1, 5}, 3, {15, 3, 5}, 3},
    {{0}, 0, {2, 3}, 2, {2, 3}, 2},
    {{0, 3}, 2, {1, 3}, 2, {0, 3}, 2},
    {{-1, 3}, 2, {5, 1}, 2, {5, 3}, 2},
    {{-1, 3}, 2, {1, 3}, 2, {-1, 3}, 2},
    {{-1}, 1, {-1}, 1, {-1}, 1},
  };
  for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; ++i) {
    for (int swap = 0; swap < 2; ++swap) {
      int64_t out[ML_MAX_RANK];
      int32_t rank = -5;
      memcpy(out, swap ? pairs[i].b : pairs[i].a, sizeof pairs[i].a); /* out is also an operand */
      ml_status status = swap ? ml_shape_broadcast(out, pairs[i].rank_b, pairs[i].a, pairs[i].rank_a, out, &rank, &err)
                              : ml_shape_broadcast(out, pairs[i].rank_a, pairs[i].b, pairs[i].rank_b, out, &rank, &err);
      ok(status == ML_OK && ml_shape_equal(out, rank, pairs[i].out, pairs[i].rank), "broadcast pair %zu, swapped %d", i, swap);
    }
  }
  int64_t out[ML_MAX_RANK];
  int32_t rank = 0;
  ok(ml_shape_broadcast((int64_t[]){2, 1}, 2, (int64_t[]){8, 4, 3}, 3, out, &rank, &err) == ML_INVALID_ARGUMENT &&
         strstr(err.message, "(2, 1)") != NULL && strstr(err.message, "(8, 4, 3)") != NULL,
     "no broadcast: %s", err.message);
  ok(ml_shape_broadcast((int64_t[]){0}, 1, (int64_t[]){3}, 1, out, &rank, &err) == ML_INVALID_ARGUMENT,
     "0 and 3 do not broadcast");
  ok(ml_shape_broadcast((int64_t[]){3}, 1, out, ML_UNKNOWN, out, &rank, &err) == ML_OK && rank == ML_UNKNOWN,
     "unknown rank stays");

  int32_t axis = -9;
  ok(ml_axis_normalise(-1, 3, &axis, &err) == ML_OK && axis == 2, "axis -1");
  ok(ml_axis_normalise(-3, 3, &axis, &err) == ML_OK && axis == 0, "axis -rank");
  ok(ml_axis_normalise(2, 3, &axis, &err) == ML_OK && axis == 2, "axis rank-1");
  ok(ml_axis_normalise(3, 3, &axis, &err) == ML_INVALID_ARGUMENT && strstr(err.message, "axis 3") != NULL, "%s", err.message);
  ok(ml_axis_normalise(INT64_MIN, 3, &axis, &err) == ML_INVALID_ARGUMENT, "%s", err.message);
  ok(ml_axis_normalise(0, 0, &axis, &err) == ML_INVALID_ARGUMENT, "%s", err.message);
}

/* ---- storage and tensors ---- */

static void count_release(void *context) { ++*(int *)context; }

static void *hold_and_drop(void *tensor) {
  for (int i = 0; i < 20000; ++i) ml_tensor_release(ml_tensor_retain(tensor));
  ml_tensor_release(tensor);
  return NULL;
}

static void test_tensors(void) {
  ml_error err;
  ml_alloc_stats before = ml_alloc_get_stats();
  ml_tensor *t = NULL, *u = NULL, *v = NULL;
  ok(ml_tensor_new(ML_FLOAT32, (int64_t[]){2, 3}, 2, &t, &err) == ML_OK, "new");
  float *data = t->view.data;
  bool zero = true;
  for (int i = 0; i < 6; ++i) zero = zero && data[i] == 0;
  ok(zero && t->view.count == 6 && t->view.rank == 2 && t->view.dtype == ML_FLOAT32 && (uintptr_t)data % ML_ALIGN == 0, "zeroed");
  for (int i = 0; i < 6; ++i) data[i] = (float)i - 0.5f;
  ok(ml_tensor_reshape(t, (int64_t[]){3, 2}, 2, &u, &err) == ML_OK && u->view.data == data && u->view.dims[0] == 3, "reshape");
  ok(ml_tensor_reshape(t, (int64_t[]){4}, 1, &v, &err) == ML_INVALID_ARGUMENT && strstr(err.message, "(2, 3)") != NULL,
     "%s", err.message);
  ok(ml_tensor_rows(u, 1, 3, &v, &err) == ML_OK && v->view.data == data + 2 && v->view.count == 4 && v->view.dims[0] == 2,
     "rows");
  ml_tensor_release(t);
  ml_tensor_release(u);
  ok(((float *)v->view.data)[3] == 4.5f, "rows keep the storage alive");
  ok(ml_tensor_rows(v, 1, 1, &u, &err) == ML_OK && u->view.count == 0 && u->view.dims[0] == 0 && u->view.dims[1] == 2, "no rows");
  ml_tensor_release(u);
  ok(ml_tensor_rows(v, 1, 3, &u, &err) == ML_OUT_OF_RANGE && ml_tensor_rows(v, -1, 1, &u, &err) == ML_OUT_OF_RANGE &&
         ml_tensor_rows(v, 2, 1, &u, &err) == ML_OUT_OF_RANGE,
     "%s", err.message);
  ok(ml_tensor_cast(v, ML_INT8, &u, &err) == ML_OK && u->view.dtype == ML_INT8 && ((int8_t *)u->view.data)[3] == 4 &&
         u->view.dims[1] == 2,
     "cast");
  ml_tensor_release(u);
  ok(ml_tensor_cast(v, ML_FLOAT32, &u, &err) == ML_OK && u == v, "cast to the same dtype");
  ml_tensor_release(u);
  ok(ml_tensor_cast(v, ML_STRING, &u, &err) == ML_INVALID_ARGUMENT, "%s", err.message);
  ok(ml_tensor_cast(v, (ml_dtype)77, &u, &err) == ML_INVALID_ARGUMENT, "%s", err.message);
  ok(ml_tensor_copy_of(&v->view, &u, &err) == ML_OK && u->view.data != v->view.data &&
         memcmp(u->view.data, v->view.data, 16) == 0,
     "copy");
  ml_tensor_release(u);
  ml_view unknown = {.dtype = ML_FLOAT32, .rank = 1, .dims = {3}, .count = 3};
  ok(ml_tensor_copy_of(&unknown, &u, &err) == ML_INVALID_ARGUMENT, "%s", err.message);
  ml_tensor_release(v);

  ok(ml_tensor_new(ML_INT64, NULL, 0, &t, &err) == ML_OK && t->view.count == 1, "scalar");
  ok(ml_tensor_rows(t, 0, 1, &u, &err) == ML_INVALID_ARGUMENT, "%s", err.message);
  ml_tensor_release(t);
  ok(ml_tensor_new(ML_INT64, (int64_t[]){0, 5}, 2, &t, &err) == ML_OK && t->view.count == 0, "empty");
  ok(ml_tensor_rows(t, 0, 0, &u, &err) == ML_OK && u->view.count == 0 && u->view.dims[1] == 5, "rows of an empty tensor");
  ml_tensor_release(u);
  ok(ml_tensor_cast(t, ML_INT8, &u, &err) == ML_OK && u->view.count == 0, "cast of an empty tensor");
  ml_tensor_release(u);
  ok(ml_tensor_copy_of(&t->view, &u, &err) == ML_OK && u->view.count == 0, "copy of an empty tensor");
  ml_tensor_release(u);
  ml_tensor_release(t);
  ok(ml_tensor_new(ML_FLOAT32, (int64_t[]){-1}, 1, &t, &err) == ML_INVALID_ARGUMENT, "unknown dimension");
  ok(ml_tensor_new(ML_FLOAT32, (int64_t[]){INT64_MAX / 8, 1}, 2, &t, &err) == ML_RESOURCE_EXHAUSTED, "%s", err.message);
  ml_tensor_release(NULL);
  ml_storage_release(NULL);

  int released = 0;
  _Alignas(8) unsigned char foreign[64] = {0};
  ml_storage *storage = ml_storage_wrap(foreign, sizeof foreign, count_release, &released);
  ok(ml_storage_data(storage) == foreign && ml_storage_bytes(storage) == 64, "wrapped storage");
  ok(ml_tensor_on(storage, 8, ML_FLOAT64, (int64_t[]){7}, 1, &t, &err) == ML_OK && t->view.data == foreign + 8, "a tensor on it");
  ok(ml_tensor_on(storage, 8, ML_FLOAT64, (int64_t[]){8}, 1, &u, &err) == ML_OUT_OF_RANGE, "%s", err.message);
  ok(ml_tensor_on(storage, 65, ML_INT8, (int64_t[]){0}, 1, &u, &err) == ML_OUT_OF_RANGE, "%s", err.message);
  ok(ml_tensor_on(storage, SIZE_MAX, ML_INT8, (int64_t[]){2}, 1, &u, &err) == ML_OUT_OF_RANGE, "%s", err.message);
  ok(ml_tensor_on(storage, 4, ML_FLOAT64, (int64_t[]){1}, 1, &u, &err) == ML_INVALID_ARGUMENT, "%s", err.message);
  ok(ml_tensor_on(storage, 0, ML_STRING, (int64_t[]){1}, 1, &u, &err) == ML_INVALID_ARGUMENT, "%s", err.message);
  ml_storage_release(storage);
  ok(released == 0, "the tensor holds the storage");
  ml_tensor_release(t);
  ok(released == 1, "released once");
  ml_alloc_fail_at(1, false);
  ok(ml_storage_wrap(foreign, 64, count_release, &released) == NULL && released == 1, "wrap without memory");
  ml_alloc_fail_at(0, false);

  char first[] = "one", second[] = "with\0zero";
  ml_str strings[4] = {{first, 3}, {NULL, 0}, {second, 9}, {first, 2}};
  ok(ml_tensor_from_strings(strings, (int64_t[]){2, 2}, 2, &t, &err) == ML_OK, "strings");
  memset(first, 'x', sizeof first - 1);
  memset(second, 'x', sizeof second - 1);
  ok(ml_tensor_copy_of(&t->view, &u, &err) == ML_OK, "copy of strings");
  ok(ml_tensor_rows(t, 1, 2, &v, &err) == ML_OK, "rows of strings");
  ml_tensor_release(t);
  const ml_str *got = v->view.data, *copied = u->view.data;
  ok(got[0].length == 9 && memcmp(got[0].bytes, "with\0zero", 9) == 0 && got[1].length == 2 && memcmp(got[1].bytes, "on", 2) == 0,
     "string bytes are copied and kept");
  ok(copied[0].length == 3 && memcmp(copied[0].bytes, "one", 3) == 0 && copied[1].length == 0 && copied[1].bytes != NULL,
     "string copy");
  ok(ml_tensor_cast(v, ML_INT8, &t, &err) == ML_INVALID_ARGUMENT, "%s", err.message);
  ml_tensor_release(u);
  ml_tensor_release(v);
  ok(ml_tensor_new(ML_STRING, (int64_t[]){3}, 1, &t, &err) == ML_OK && ((ml_str *)t->view.data)[2].length == 0 &&
         ((ml_str *)t->view.data)[2].bytes != NULL,
     "new strings are empty");
  ml_tensor_release(t);
  ml_str absurd[2] = {{first, SIZE_MAX / 2}, {first, SIZE_MAX / 2}};
  ok(ml_tensor_from_strings(absurd, (int64_t[]){2}, 1, &t, &err) == ML_RESOURCE_EXHAUSTED, "%s", err.message);
  ok(ml_alloc_get_stats().live_blocks == before.live_blocks, "nothing leaked");

  ml_tensor_new(ML_UINT8, (int64_t[]){10}, 1, &t, &err);
  pthread_t threads[4];
  for (int i = 0; i < 4; ++i) pthread_create(&threads[i], NULL, hold_and_drop, ml_tensor_retain(t));
  ml_tensor_release(t);
  for (int i = 0; i < 4; ++i) pthread_join(threads[i], NULL);
  ok(ml_alloc_get_stats().live_blocks == before.live_blocks, "references count across threads");
}

/* Everything that allocates, once; NULL errors stay NULL. */
static ml_status use_everything(void) {
  ml_tensor *t[7] = {NULL};
  ml_str strings[2] = {{"a", 1}, {"bc", 2}};
  ml_status status = ml_tensor_new(ML_FLOAT32, (int64_t[]){2, 2}, 2, &t[0], NULL);
  if (status == ML_OK) status = ml_tensor_copy_of(&t[0]->view, &t[1], NULL);
  if (status == ML_OK) status = ml_tensor_cast(t[0], ML_INT64, &t[2], NULL);
  if (status == ML_OK) status = ml_tensor_rows(t[0], 0, 1, &t[3], NULL);
  if (status == ML_OK) status = ml_tensor_reshape(t[0], (int64_t[]){4}, 1, &t[4], NULL);
  if (status == ML_OK) status = ml_tensor_from_strings(strings, (int64_t[]){2}, 1, &t[5], NULL);
  if (status == ML_OK) status = ml_tensor_on(t[0]->storage, 4, ML_FLOAT32, (int64_t[]){3}, 1, &t[6], NULL);
  for (int i = 0; i < 7; ++i) ml_tensor_release(t[i]);
  return status;
}

static void test_memory(void) {
  ml_alloc_stats before = ml_alloc_get_stats();
  unsigned n = 0;
  bool clean = true;
  ml_status status = ML_RESOURCE_EXHAUSTED;
  while (status != ML_OK && n < 100) {
    ml_alloc_fail_at(++n, false);
    status = use_everything();
    ml_alloc_fail_at(0, false);
    clean = clean && (status == ML_OK || status == ML_RESOURCE_EXHAUSTED);
    clean = clean && ml_alloc_get_stats().live_blocks == before.live_blocks;
  }
  ok(status == ML_OK && clean && n == 12, "every one of %u allocations may fail", n - 1);
}

int main(void) {
  test_half();
  test_names();
  test_convert();
  test_shapes();
  test_tensors();
  test_memory();
  return done();
}
