/* safetensors files: named tensors and string metadata (github.com/huggingface/safetensors, format section of its README).
 * Lives here: bounded reader, atomic writer; used for checkpoints and weight exchange. May include: tensor, codec, base. */
#ifndef ML_FORMAT_SAFETENSORS_H
#define ML_FORMAT_SAFETENSORS_H
#include "tensor/tensor.h"

typedef struct ml_named_tensor { const char *name; ml_tensor *tensor; } ml_named_tensor;
typedef struct ml_metadata { const char *key, *value; } ml_metadata;

typedef struct ml_safetensors { /* read-only; everything belongs to arena */
  ml_arena *arena;
  ml_named_tensor *tensors; size_t n_tensors;  /* in file order; one reference each */
  ml_metadata *metadata; size_t n_metadata;
} ml_safetensors;

/* Maps the file and checks all of it (header length and JSON, dtypes, offsets contiguous and inside, sizes); errors begin with the path. */
ml_status ml_safetensors_load(const char *path, ml_safetensors **out, ml_error *err);
ml_status ml_safetensors_read(const void *bytes, size_t size, const char *what, ml_safetensors **out, ml_error *err); /* copies tensor bytes */
void ml_safetensors_free(ml_safetensors *file); /* NULL allowed */
ml_tensor *ml_safetensors_find(const ml_safetensors *file, const char *name);      /* borrowed; NULL: none */
const char *ml_safetensors_metadata(const ml_safetensors *file, const char *key);  /* borrowed; NULL: none */
ml_status ml_safetensors_save(const char *path, const ml_named_tensor *tensors, size_t n_tensors, const ml_metadata *metadata, size_t n_metadata, ml_error *err);

#endif
