/* SparseTensorProto to a dense tensor (onnx.proto: values [NNZ], indices [NNZ] into the flattened tensor or [NNZ, rank], in ascending order). */
#include "format/onnx_proto.h"
#include <string.h>

typedef struct parts { ml_pb_reader values, indices; int64_t dims[ML_MAX_RANK]; int32_t rank; } parts;

static ml_status scan(ml_pb_reader reader, parts *out, ml_error *err) {
  ml_pb_field f;
  ml_status status;
  bool values = false, indices = false;
  out->rank = 0;
  while (ml_pb_next(&reader, &f, &status, err)) {
    bool *seen = f.number == ML__SPARSE_VALUES ? &values : f.number == ML__SPARSE_INDICES ? &indices : NULL;
    if (seen) {
      ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "SparseTensorProto", err));
      if (*seen) return ml_fail(err, ML_INVALID_ARGUMENT, "sparse tensor with two sets of values or indices");
      *seen = true;
      *(seen == &values ? &out->values : &out->indices) = ml_pb_reader_sub(&reader, &f);
    } else if (f.number == ML__SPARSE_DIMS) {
      size_t count;
      ML_TRY(ml_pb_packed_count(&f, ML_PB_VARINT, &count, "SparseTensorProto.dims", err));
      if (count > (size_t)(ML_MAX_RANK - out->rank)) return ml_fail(err, ML_INVALID_ARGUMENT, "sparse tensor of rank over %d", ML_MAX_RANK);
      ML_TRY(ml_pb_packed_read(&f, ML_PB_VARINT, out->dims + out->rank, "SparseTensorProto.dims", err));
      out->rank += (int32_t)count;
    }
  }
  if (status != ML_OK) return status;
  return values && indices ? ML_OK : ml_fail(err, ML_INVALID_ARGUMENT, "sparse tensor without %s", values ? "indices" : "values");
}

ml_status ml__onnx_sparse_values(ml_pb_reader reader, ml_pb_reader *values, ml_error *err) {
  parts p;
  ML_TRY(scan(reader, &p, err));
  *values = p.values;
  return ML_OK;
}

/* Position of element i; false: outside the tensor. */
static bool position(const ml_tensor *indices, const ml_tensor *dense, size_t i, size_t *out) {
  const int64_t *index = indices->view.data;
  if (indices->view.rank == 1) {
    *out = (size_t)index[i];
    return index[i] >= 0 && *out < dense->view.count;
  }
  size_t at = 0;
  for (int32_t d = 0; d < dense->view.rank; d++) {
    int64_t k = index[i * (size_t)dense->view.rank + (size_t)d];
    if (k < 0 || k >= dense->view.dims[d]) return false;
    at = at * (size_t)dense->view.dims[d] + (size_t)k;
  }
  *out = at;
  return true;
}

static ml_status fill(const ml_tensor *values, const ml_tensor *indices, ml_tensor *dense, ml_error *err) {
  size_t n = values->view.count, size = ml_dtype_size(values->view.dtype), last = 0;
  const ml_view *v = &indices->view;
  if (v->dtype != ML_INT64) return ml_fail(err, ML_INVALID_ARGUMENT, "sparse indices are %s, expected int64", ml_dtype_name(v->dtype));
  bool linear = v->rank == 1 && (size_t)v->dims[0] == n, listed = v->rank == 2 && (size_t)v->dims[0] == n && v->dims[1] == dense->view.rank;
  if (values->view.rank != 1 || (!linear && !listed)) return ml_fail(err, ML_INVALID_ARGUMENT, "the shape of sparse indices does not fit the values");
  for (size_t i = 0; i < n; i++) {
    size_t at;
    if (!position(indices, dense, i, &at)) return ml_fail(err, ML_OUT_OF_RANGE, "sparse index %zu lies outside the tensor", i);
    if (i > 0 && at <= last) return ml_fail(err, ML_INVALID_ARGUMENT, "sparse index %zu is not in ascending order", i);
    last = at;
    memcpy((char *)dense->view.data + at * size, (const char *)values->view.data + i * size, size);
  }
  return ML_OK;
}

ml_status ml__onnx_sparse_tensor(ml__onnx_source *source, ml_pb_reader reader, ml_tensor **out, ml_error *err) {
  parts p;
  ml_tensor *values = NULL, *indices = NULL, *dense = NULL;
  size_t count;
  *out = NULL;
  ML_TRY(scan(reader, &p, err));
  ml_status status = ml__onnx_tensor(source, p.values, &values, err);
  if (status == ML_OK) status = ml__onnx_tensor(source, p.indices, &indices, err);
  if (status == ML_OK && values->view.dtype == ML_STRING) status = ml_fail(err, ML_UNIMPLEMENTED, "sparse tensors of strings are not supported");
  if (status == ML_OK) status = ml_shape_count(p.dims, p.rank, values->view.dtype, &count, err);
  if (status == ML_OK) {
    size_t bytes = count * ml_dtype_size(values->view.dtype);
    if (!ml_add_size(source->total, bytes, &source->total) || source->total > source->limits.max_bytes)
      status = ml_fail(err, ML_RESOURCE_EXHAUSTED, "a sparse tensor of %zu bytes takes the model over the limit of %zu", bytes, source->limits.max_bytes);
  }
  if (status == ML_OK) status = ml_tensor_new(values->view.dtype, p.dims, p.rank, &dense, err);
  if (status == ML_OK) status = fill(values, indices, dense, err);
  ml_tensor_release(values);
  ml_tensor_release(indices);
  if (status == ML_OK) *out = dense;
  else ml_tensor_release(dense);
  return status;
}
