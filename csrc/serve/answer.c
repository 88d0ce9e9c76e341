/* The bytes of strings go into one text, whose place is not known before all are written: until then a string's length says where it ends. */
#include "serve/answer.h"

#include "base/alloc.h"

ml_status ml_answer_strings(ml_answer *a, size_t n, ml_error *err) {
  a->strings = ml_alloc_zero(n + 1, sizeof *a->strings);
  if (!a->strings) return ml_fail_memory(err, n * sizeof *a->strings, "a response");
  ml_json_writer_init(&a->text);
  a->view.data = a->strings;
  a->view.dtype = ML_STRING;
  a->view.count = n;
  a->view.type = 0;
  return ML_OK;
}

void ml_answer_end_string(ml_answer *a, size_t i) { a->strings[i].length = a->text.length; }

ml_status ml_answer_place(ml_answer *a, ml_error *err) {
  size_t begin = 0;
  if (a->text.status != ML_OK) return ml_fail_memory(err, a->text.capacity, "a response");
  for (size_t i = 0; i < a->view.count; i++) {
    size_t end = a->strings[i].length;
    a->strings[i] = (ml_str){a->text.text ? a->text.text + begin : "", end - begin};
    begin = end;
  }
  return ML_OK;
}

static ml_status from_container(ml_answer *a, const ml_view *view, ml_error *err) {
  const ml_container *c = ml_view_container(view);
  bool sequence = ml_type_kind(view->type) == ML_KIND_SEQUENCE;
  size_t n = sequence ? c->count : 1;
  ml_dtype dtype = ml_type_dtype(view->type);
  if (ml_json_tensor_writable(dtype, NULL) != ML_OK)
    return ml_fail(err, ML_UNIMPLEMENTED, "output '%.100s': %s in a sequence or map can not be written as JSON", a->name, ml_dtype_name(dtype));
  ML_TRY(ml_answer_strings(a, n, err));
  for (size_t i = 0; i < n; i++) {
    if (sequence) ml_json_put_row(&a->text, view, i, false);
    else ml_json_put_tensor(&a->text, view, false);
    ml_answer_end_string(a, i);
  }
  a->view.rank = 1;
  a->view.dims[0] = (int64_t)n;
  return ml_answer_place(a, err);
}

ml_status ml_answer_set(ml_answer *a, const char *name, const ml_view *output, ml_error *err) {
  a->name = name;
  if (output->type) return from_container(a, output, err);
  a->view = *output;
  return ML_OK;
}

void ml_answer_clear(ml_answer *a) {
  if (a->strings) {
    ml_free(a->strings);
    ml_json_writer_free(&a->text);
    a->strings = NULL;
  }
}
