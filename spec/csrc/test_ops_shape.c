/* Operators of shape and data movement: results against spec/golden (made by other software), hostile shapes and attributes. */
#include "ops_case.h"
#include "../golden/ops_shape.h"

static float floats[64];
static int64_t no_shape[] = { 4, -1, -1 }, minus_two[] = { -2 }, five[] = { 5 }, zero_copy[] = { 1, 1, 0 },
               huge[] = { INT64_MAX, INT64_MAX }, big[] = { INT64_C(1) << 62, 8 };
static int64_t twice[] = { 0, 0 }, nine[] = { 9 }, one[] = { 1 }, three[] = { 3 }, minus_one[] = { -1 }, zero[] = { 0 },
               many[17] = { 0 }, sizes[] = { 1, 3 }, negative[] = { -1, 5 };
static int64_t overflow[] = { INT64_MAX, INT64_MAX - 3 }, min[] = { INT64_MIN };

#define F(...) VIEW(floats, ML_FLOAT32, __VA_ARGS__)
#define I(list) VIEW(list, ML_INT64, (int64_t)(sizeof(list) / sizeof *(list)))
#define REFUSE(op, n_out, status, text, attr, n_attrs, ...)                                                 \
  op_check_refused("", op, attr, n_attrs, (int32_t)(sizeof((ml_view[]) { __VA_ARGS__ }) / sizeof(ml_view)), \
                   (ml_view[]) { __VA_ARGS__ }, n_out, status, text)

static void hostile(void) {
  ml_attr axis2 = ml_attr_of_int("axis", 2), axis9 = ml_attr_of_int("axis", 9), axis_min = ml_attr_of_int("axis", INT64_MIN),
          to = ml_attr_of_int("to", 8);
  ml_attr allow = ml_attr_of_int("allowzero", 1), outputs = ml_attr_of_int("num_outputs", 3),
          perm = ml_attr_of_ints("perm", twice, 2), perm1 = ml_attr_of_ints("perm", one, 1);
  int64_t both[] = { 0, -1 };
  REFUSE("Reshape", 1, ML_INVALID_ARGUMENT, "elements 1 and 2 are both -1", NULL, 0, F(2, 3), I(no_shape));
  REFUSE("Reshape", 1, ML_INVALID_ARGUMENT, "element 0 is -2", NULL, 0, F(2, 3), I(minus_two));
  REFUSE("Reshape", 1, ML_INVALID_ARGUMENT, "5 elements asked for, input (2, 3) has 6", NULL, 0, F(2, 3), I(five));
  REFUSE("Reshape", 1, ML_INVALID_ARGUMENT, "element 2 is 0 (copy) but the input's rank is 2", NULL, 0, F(1, 1), I(zero_copy));
  REFUSE("Reshape", 1, ML_RESOURCE_EXHAUSTED, "overflow at element 1", NULL, 0, F(2, 3), I(huge));
  REFUSE("Reshape", 1, ML_INVALID_ARGUMENT, "rank 17 is above 16", NULL, 0, F(1), I(many));
  REFUSE("Reshape", 1, ML_INVALID_ARGUMENT, "allowzero=1", &allow, 1, F(1), I(both));
  REFUSE("Reshape", 1, ML_INVALID_ARGUMENT, "input 1 has dtype float32", NULL, 0, F(2, 3), F(2));
  REFUSE("Flatten", 1, ML_INVALID_ARGUMENT, "axis is 9, expected -2 to 2", &axis9, 1, F(2, 3));
  REFUSE("Flatten", 1, ML_INVALID_ARGUMENT, "axis", &axis_min, 1, F(2, 3));
  REFUSE("Squeeze", 1, ML_INVALID_ARGUMENT, "dimension 1 is 3", NULL, 0, F(1, 3), I(one));
  REFUSE("Squeeze", 1, ML_INVALID_ARGUMENT, "named twice", NULL, 0, F(1, 1), I(twice));
  REFUSE("Squeeze", 1, ML_INVALID_ARGUMENT, "9", NULL, 0, F(1, 3), I(nine));
  REFUSE("Unsqueeze", 1, ML_INVALID_ARGUMENT, "named twice", NULL, 0, F(2), I(twice));
  REFUSE("Unsqueeze", 1, ML_INVALID_ARGUMENT, "at most 16 are possible", NULL, 0, F(2), I(many));
  REFUSE("Concat", 1, ML_INVALID_ARGUMENT, "input 1 has shape (2, 4)", NULL, 0, F(2, 3), F(2, 4));
  REFUSE("Concat", 1, ML_INVALID_ARGUMENT, "axis", &axis9, 1, F(2, 3));
  REFUSE("Concat", 1, ML_INVALID_ARGUMENT, "input 1 is int64", NULL, 0, F(2), I(five));
  REFUSE("Concat", 1, ML_INVALID_ARGUMENT, "rank 0", NULL, 0, SCALAR(floats, ML_FLOAT32));
  REFUSE("Split", 2, ML_INVALID_ARGUMENT, "add up to 4, the dimension is 5", NULL, 0, F(5), I(sizes));
  REFUSE("Split", 2, ML_INVALID_ARGUMENT, "element 0 is -1", NULL, 0, F(4), I(negative));
  REFUSE("Split", 2, ML_INVALID_ARGUMENT, "overflows", NULL, 0, F(4), I(overflow));
  REFUSE("Split", 3, ML_INVALID_ARGUMENT, "2 elements for 3 outputs", NULL, 0, F(4), I(sizes));
  REFUSE("Split", 2, ML_INVALID_ARGUMENT, "num_outputs is 3", &outputs, 1, F(6));
  REFUSE("Slice", 1, ML_INVALID_ARGUMENT, "steps: element 0 is 0", NULL, 0, F(5), I(one), I(three), I(zero), I(zero));
  REFUSE("Slice", 1, ML_INVALID_ARGUMENT, "named twice", NULL, 0, F(5, 5), I(sizes), I(sizes), I(twice));
  REFUSE("Slice", 1, ML_INVALID_ARGUMENT, "equal numbers", NULL, 0, F(5, 5), I(sizes), I(one));
  REFUSE("Slice", 1, ML_INVALID_ARGUMENT, "axes, element 0", NULL, 0, F(5, 5), I(one), I(three), I(nine));
  REFUSE("Gather", 1, ML_OUT_OF_RANGE, "element 0 is 9, expected -5 to 4", NULL, 0, F(5, 2), I(nine));
  REFUSE("Gather", 1, ML_OUT_OF_RANGE, "expected -5 to 4", NULL, 0, F(5, 2), I(min));
  REFUSE("Gather", 1, ML_OUT_OF_RANGE, "element 0 is 0", NULL, 0, F(0, 2), I(zero));
  REFUSE("Gather", 1, ML_INVALID_ARGUMENT, "axis", &axis2, 1, F(5, 2), I(zero));
  REFUSE("Gather", 1, ML_INVALID_ARGUMENT, "rank 0", NULL, 0, SCALAR(floats, ML_FLOAT32), I(zero));
  REFUSE("Expand", 1, ML_INVALID_ARGUMENT, "(5)", NULL, 0, F(2, 3), I(five));
  REFUSE("Expand", 1, ML_INVALID_ARGUMENT, "element 0 is -1", NULL, 0, F(2, 3), I(minus_one));
  REFUSE("Expand", 1, ML_RESOURCE_EXHAUSTED, "too large", NULL, 0, F(1, 1), I(huge));
  REFUSE("Tile", 1, ML_INVALID_ARGUMENT, "1 elements, the input's rank is 2", NULL, 0, F(2, 3), I(five));
  REFUSE("Tile", 1, ML_INVALID_ARGUMENT, "element 0 is -1", NULL, 0, F(2), I(minus_one));
  REFUSE("Tile", 1, ML_RESOURCE_EXHAUSTED, "overflows", NULL, 0, F(8, 2), I(big));
  REFUSE("ConstantOfShape", 1, ML_INVALID_ARGUMENT, "element 0 is -1", NULL, 0, I(minus_one));
  REFUSE("ConstantOfShape", 1, ML_RESOURCE_EXHAUSTED, "too large", NULL, 0, I(huge));
  REFUSE("Transpose", 1, ML_INVALID_ARGUMENT, "names dimension 0 twice", &perm, 1, F(2, 3));
  REFUSE("Transpose", 1, ML_INVALID_ARGUMENT, "1 entries, the input's rank is 2", &perm1, 1, F(2, 3));
  REFUSE("OneHot", 1, ML_INVALID_ARGUMENT, "depth is -1", NULL, 0, I(three), I(minus_one), F(2));
  REFUSE("OneHot", 1, ML_INVALID_ARGUMENT, "values", NULL, 0, I(three), I(three), F(3));
  REFUSE("OneHot", 1, ML_INVALID_ARGUMENT, "axis", &axis9, 1, I(three), I(three), F(2));
  op_check_refused("", "Constant", NULL, 0, 0, NULL, 1, ML_INVALID_ARGUMENT, "no value");
  ml_attr bad = ml_attr_of_int("to", 99);
  REFUSE("Cast", 1, ML_UNIMPLEMENTED, "99", &bad, 1, F(2));
  static ml_str words[] = { { "1.5", 3 }, { "1.5x", 4 } };
  to.as.i = ML_FLOAT32;
  REFUSE("Cast", 1, ML_INVALID_ARGUMENT, "element 1: '1.5x' is not a number", &to, 1, VIEW(words, ML_STRING, 2));
  op_check_refused("mlserve", "SliceGrad", NULL, 0, 4, (ml_view[]) { F(3), F(5), I(one), I(three) }, 1, ML_INVALID_ARGUMENT,
                   "shape of the slice");
  op_check_refused("mlserve", "GatherGrad", NULL, 0, 3, (ml_view[]) { F(1, 2), I(nine), F(5, 2) }, 1, ML_OUT_OF_RANGE,
                   "element 0 is 9");
  op_check_refused("mlserve", "GatherGrad", NULL, 0, 3, (ml_view[]) { F(2, 2), I(zero), F(5, 2) }, 1, ML_INVALID_ARGUMENT,
                   "4 elements, expected 2");
}

/* Moving every element size through the same transposition. */
static void element_sizes(void) {
  static const ml_dtype dtypes[] = { ML_UINT8, ML_UINT16, ML_INT32, ML_FLOAT64, ML_STRING };
  const ml_op_def *op = ml_op_find("", "Transpose");
  ml_attrs attrs = { NULL, 0 };
  for (size_t k = 0; k < sizeof dtypes / sizeof *dtypes; k++) {
    size_t size = ml_dtype_size(dtypes[k]);
    unsigned char bytes[35 * 37 * 16];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)(i * 31 + i / 251);
    ml_view x = VIEW(bytes, dtypes[k], 35, 37), *in[] = { &x };
    op_run r;
    ml_error err = { 0 };
    bool same = op_execute(op, &attrs, ml_kernel_table(), 1, in, 1, &r, &err) == ML_OK;
    for (size_t i = 0; same && i < 35; i++)
      for (size_t j = 0; same && j < 37; j++)
        same = memcmp((char *)r.out[0].data + (j * 35 + i) * size, bytes + (i * 37 + j) * size, size) == 0;
    ok(same, "transposing elements of %zu bytes %s", size, err.message);
    op_run_free(&r);
  }
}

int main(void) {
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) op_check_case(&cases[i]);
  hostile();
  element_sizes();
  return done();
}
