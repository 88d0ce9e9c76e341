/* Inside of the C API (mlserve.h); for csrc/capi only.
 * Lives here: what the opaque handles are, and how an ml_error becomes a message of the caller. May include: serve and all below it.
 * Handles begin with a number that says what they are, so that a handle of another kind is an error instead of a crash. */
#ifndef ML_CAPI_CAPI_H
#define ML_CAPI_CAPI_H
#include "graph/program.h"
#include "mlserve.h"
#include "tensor/container.h"

enum { ML__MODEL_MARK = 0x4D4C4D31, ML__INFO_MARK = 0x4D4C4931, ML__VALUE_MARK = 0x4D4C5631 }; /* "MLM1", "MLI1", "MLV1" */

struct mlserve_info { /* in the model's arena */
  uint32_t mark;
  uint32_t type; /* ml_type_tensor of a tensor's element type */
  int32_t rank;
  const char *name, *type_text;
  const int64_t *dims;
  const char *const *dim_names; /* NULL: the dimension has none */
};

struct mlserve_model {
  uint32_t mark;
  ml_program *program;
  size_t n_inputs, n_outputs;
  mlserve_info *inputs, *outputs; /* as the file has them; compiling may rename an output or learn less of it */
  ml_arena *arena;                /* of the infos */
};

enum { ML__TYPE_TEXT = 128 }; /* bytes that hold any type */

struct mlserve_value {
  uint32_t mark;
  bool part;       /* of another value, which the elements belong to: they must not be written */
  ml_view view;    /* of a container: of the slot item.container */
  size_t capacity; /* bytes at view.data; 0 of a container */
  ml_item item;    /* owner of view.data; empty: the caller's memory */
  char type[];     /* of a container only: its text */
};

/* Ends a public call: gives the message to the caller and returns the status. */
mlserve_status ml__capi_end(ml_status status, const ml_error *err, char *message, size_t size);
static inline bool ml__capi_is_model(const mlserve_model *model) { return model && model->mark == ML__MODEL_MARK; }
static inline bool ml__capi_is_value(const mlserve_value *value) { return value && value->mark == ML__VALUE_MARK; }
static inline bool ml__capi_is_tensor(const mlserve_value *value) { return ml__capi_is_value(value) && !value->view.type; }
/* The whole type of a view: ml_type_tensor of a tensor's element type. */
static inline uint32_t ml__capi_type(const ml_view *view) { return view->type ? view->type : ml_type_tensor(view->dtype); }
int32_t ml__capi_kind(uint32_t type); /* MLSERVE_KIND_… */
bool ml__capi_is_dtype(mlserve_dtype dtype);
ml_status ml__capi_no_value(const mlserve_value *value, const char *what, ml_error *err); /* "WHAT is NULL", or no value */

/* A value on an item, which it takes over, also when it fails. */
ml_status ml__capi_value_of(ml_item item, bool part, mlserve_value **out, ml_error *err);
/* Elements come from outside: a bool's byte is 0 or 1, and nothing but the element is in the byte of a small one. */
ml_status ml__capi_check_elements(const ml_view *view, ml_error *err);
/* Writes a result into a value's memory. */
ml_status ml__capi_value_store(mlserve_value *value, const ml_view *result, const char *name, ml_error *err);

#endif
