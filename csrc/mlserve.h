/* mlserve.h: run ONNX models from C and C++. The only public header; the library is libmlserve, `pkg-config mlserve` knows where.
 *
 *   mlserve_model *model;  mlserve_value *in, *out = NULL;  char message[MLSERVE_MESSAGE_MAX];
 *   mlserve_load("model.onnx", NULL, &model, message, sizeof message);
 *   mlserve_value_wrap(MLSERVE_FLOAT32, (int64_t[]){1, 4}, 2, row, sizeof row, &in, message, sizeof message);
 *   mlserve_run(model, NULL, &in, 1, NULL, &out, 1, message, sizeof message);
 *   const float *scores = mlserve_value_data(out);
 *
 * Errors. A function that can fail returns a status, 0 being success, and takes a buffer for the message of this call: on failure the
 * message is stored there (UTF-8, NUL-terminated, cut when it does not fit), on success an empty string. NULL or size 0: no message is
 * wanted. There is no hidden last error. A result behind a pointer is NULL after a failure. NULL where a handle is needed, a handle of the
 * wrong kind and numbers out of range are errors, not crashes; a handle that has been freed must not be used.
 *
 * Threads. Any number of threads may use one model at once. A value may be read by any number of threads, and so be the input of several runs at
 * once; a value that is written (an output, mlserve_value_set_dims, its memory) belongs to one thread meanwhile. What is freed must no longer be
 * in use by another thread.
 *
 * Binary interface. Handles are opaque and the one structure carries its size, so programs built with an older header of the same
 * MLSERVE_ABI_VERSION run with a newer library. Functions are only ever added within a version; a change that breaks programs raises it, and
 * with it the library's SONAME (libmlserve.so.1) and the version of its symbols (MLSERVE_1), which the dynamic linker compares.
 *
 * C99 and later, C++11 and later. */
#ifndef MLSERVE_H
#define MLSERVE_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MLSERVE_ABI_VERSION 1
#define MLSERVE_MESSAGE_MAX 512 /* bytes that hold any message whole */

#if defined(__GNUC__)
#define MLSERVE_API __attribute__((visibility("default")))
#else
#define MLSERVE_API
#endif

/* ---- numbers ---- */

/* Outcomes, with gRPC's numbers. */
typedef int32_t mlserve_status;
enum {
  MLSERVE_OK = 0,
  MLSERVE_CANCELLED = 1,
  MLSERVE_UNKNOWN = 2,
  MLSERVE_INVALID_ARGUMENT = 3,    /* the call or the model is wrong */
  MLSERVE_DEADLINE_EXCEEDED = 4,
  MLSERVE_NOT_FOUND = 5,           /* no such file, input or output */
  MLSERVE_ALREADY_EXISTS = 6,
  MLSERVE_PERMISSION_DENIED = 7,
  MLSERVE_RESOURCE_EXHAUSTED = 8,  /* out of memory, or over a limit */
  MLSERVE_FAILED_PRECONDITION = 9, /* built for another binary interface */
  MLSERVE_ABORTED = 10,
  MLSERVE_OUT_OF_RANGE = 11,       /* an index or a size does not fit */
  MLSERVE_UNIMPLEMENTED = 12,      /* an operator or a type that this library does not know */
  MLSERVE_INTERNAL = 13,
  MLSERVE_UNAVAILABLE = 14,        /* the file system failed */
  MLSERVE_DATA_LOSS = 15,          /* the file is cut off or damaged */
  MLSERVE_UNAUTHENTICATED = 16
};

/* Element types, with ONNX's numbers (TensorProto.DataType). Elements are raw bytes in the machine's order: float16 and bfloat16 two each,
 * bool one (0 or 1), elements of less than 8 bits one each (int4 and int2 with their sign, others with zeros above). Strings are not raw bytes:
 * mlserve_value_strings, mlserve_value_string. */
typedef int32_t mlserve_dtype;
enum {
  MLSERVE_DTYPE_NONE = 0, /* not known */
  MLSERVE_FLOAT32 = 1,
  MLSERVE_UINT8 = 2,
  MLSERVE_INT8 = 3,
  MLSERVE_UINT16 = 4,
  MLSERVE_INT16 = 5,
  MLSERVE_INT32 = 6,
  MLSERVE_INT64 = 7,
  MLSERVE_STRING = 8,
  MLSERVE_BOOL = 9,
  MLSERVE_FLOAT16 = 10,
  MLSERVE_FLOAT64 = 11,
  MLSERVE_UINT32 = 12,
  MLSERVE_UINT64 = 13,
  MLSERVE_BFLOAT16 = 16,
  MLSERVE_FLOAT8E4M3FN = 17,
  MLSERVE_FLOAT8E4M3FNUZ = 18,
  MLSERVE_FLOAT8E5M2 = 19,
  MLSERVE_FLOAT8E5M2FNUZ = 20,
  MLSERVE_UINT4 = 21,
  MLSERVE_INT4 = 22,
  MLSERVE_FLOAT4E2M1 = 23,
  MLSERVE_FLOAT8E8M0 = 24,
  MLSERVE_UINT2 = 25,
  MLSERVE_INT2 = 26,
  MLSERVE_FLOAT6E2M3 = 27,
  MLSERVE_FLOAT6E3M2 = 28
};

/* What a value is: a tensor; a sequence of values of one type; an optional, which holds a value or none; a map from int64s or strings to scalars. */
enum { MLSERVE_KIND_NONE = 0, MLSERVE_KIND_TENSOR = 1, MLSERVE_KIND_SEQUENCE = 2, MLSERVE_KIND_OPTIONAL = 3, MLSERVE_KIND_MAP = 4 };

/* How much the compiler may change a model. */
enum {
  MLSERVE_LEVEL_DEFAULT = 0, /* MLSERVE_LEVEL_FAST */
  MLSERVE_LEVEL_NONE = 1,    /* reference kernels, operators as they stand in the file */
  MLSERVE_LEVEL_EXACT = 2,   /* only what keeps the order of rounding operations */
  MLSERVE_LEVEL_FAST = 3     /* everything */
};

typedef struct mlserve_model mlserve_model; /* a compiled model; never changes */
typedef struct mlserve_info mlserve_info;   /* what is known of an input or output before a run; belongs to its model */
typedef struct mlserve_value mlserve_value; /* an input or output of a run, or a part of one */

/* ---- the library ---- */

/* MLSERVE_ABI_VERSION of the library that runs; differs from the macro when the program was built for another one. A program that opens the
 * library with dlopen asks this first; for others the dynamic linker has compared already. */
MLSERVE_API uint32_t mlserve_abi_version(void);
/* "0.1.0": the version of mlserve. */
MLSERVE_API const char *mlserve_version(void);
/* "INVALID_ARGUMENT" for MLSERVE_INVALID_ARGUMENT; "UNKNOWN" for a number that is no status. */
MLSERVE_API const char *mlserve_status_name(mlserve_status status);
/* "float32" for MLSERVE_FLOAT32; "none" for a number that is no element type. */
MLSERVE_API const char *mlserve_dtype_name(mlserve_dtype dtype);
/* Bytes of one element; 0 for strings and for a number that is no element type. */
MLSERVE_API size_t mlserve_dtype_size(mlserve_dtype dtype);
/* How many threads a run may use, the caller's included, in the whole process; 0: as many as the process has processors, which is the
 * default. Errors: INVALID_ARGUMENT (negative). */
MLSERVE_API mlserve_status mlserve_set_threads(int32_t threads, char *message, size_t message_size);
/* The number of threads a run may use. */
MLSERVE_API int32_t mlserve_threads(void);

/* ---- loading ---- */

/* Begin with `mlserve_options options = MLSERVE_OPTIONS_INIT;` and change what is to differ. Zeros are the defaults. */
typedef struct mlserve_options {
  uint32_t struct_size;   /* sizeof(mlserve_options) of the header the program was built with */
  uint32_t abi;           /* MLSERVE_ABI_VERSION of that header */
  int32_t level;          /* MLSERVE_LEVEL_… */
  uint32_t reserved;      /* 0 */
  uint64_t max_bytes;     /* of the file with its external data; 0: 8 GiB */
  uint64_t max_nodes;     /* of the graph; 0: 1,000,000 */
} mlserve_options;
#define MLSERVE_OPTIONS_INIT { sizeof(mlserve_options), MLSERVE_ABI_VERSION, MLSERVE_LEVEL_DEFAULT, 0, 0, 0 }

/* Reads and compiles the model in a file; external data is looked up in the file's folder only. options NULL: the defaults. The file is mapped
 * and must not be written to while the model is in use; replacing it (rename) is fine. Free with mlserve_model_free. Errors name the file, and the
 * node where it is one's fault; UNIMPLEMENTED lists all operators that are missing. */
MLSERVE_API mlserve_status mlserve_load(const char *path, const mlserve_options *options, mlserve_model **model,
                                        char *message, size_t message_size);
/* The same from the bytes of a file, which may be freed afterwards; without external data. */
MLSERVE_API mlserve_status mlserve_load_bytes(const void *bytes, size_t size, const mlserve_options *options, mlserve_model **model,
                                              char *message, size_t message_size);
/* Frees the model, its infos and its texts; values live on. No run may be under way. NULL is allowed. */
MLSERVE_API void mlserve_model_free(mlserve_model *model);

/* ---- describing: texts and infos live as long as the model ---- */

/* Number of inputs; 0 for NULL. */
MLSERVE_API size_t mlserve_inputs(const mlserve_model *model);
/* Number of outputs; 0 for NULL. */
MLSERVE_API size_t mlserve_outputs(const mlserve_model *model);
/* Input number `index` from 0; NULL when there is none. */
MLSERVE_API const mlserve_info *mlserve_input(const mlserve_model *model, size_t index);
/* Output number `index` from 0; NULL when there is none. */
MLSERVE_API const mlserve_info *mlserve_output(const mlserve_model *model, size_t index);
/* The name in the model; NULL for NULL. */
MLSERVE_API const char *mlserve_info_name(const mlserve_info *info);
/* MLSERVE_KIND_…; MLSERVE_KIND_NONE for NULL. */
MLSERVE_API int32_t mlserve_info_kind(const mlserve_info *info);
/* The whole type: "tensor(float32)", "seq(map(string,tensor(float32)))", "optional(seq(tensor(int64)))"; "any" for an element type that is not
 * known. NULL for NULL. */
MLSERVE_API const char *mlserve_info_type(const mlserve_info *info);
/* The element type, of what is no tensor that of the tensors inside (of a map: its values); MLSERVE_DTYPE_NONE when it is not known. */
MLSERVE_API mlserve_dtype mlserve_info_dtype(const mlserve_info *info);
/* The number of dimensions; -1 when it is not known, and of what is no tensor. */
MLSERVE_API int32_t mlserve_info_rank(const mlserve_info *info);
/* Size of dimension `axis` from 0; -1 when it is not known or there is no such axis. */
MLSERVE_API int64_t mlserve_info_dim(const mlserve_info *info, int32_t axis);
/* Symbolic name ("batch") of a dimension of unknown size; NULL when it has none. */
MLSERVE_API const char *mlserve_info_dim_name(const mlserve_info *info, int32_t axis);

/* Name of the graph; "" when it has none. */
MLSERVE_API const char *mlserve_model_name(const mlserve_model *model);
/* The tool that wrote the file; "" when it does not say. */
MLSERVE_API const char *mlserve_model_producer(const mlserve_model *model);
/* That tool's version; "" when the file does not say. */
MLSERVE_API const char *mlserve_model_producer_version(const mlserve_model *model);
/* Description in the file; "" when it has none. */
MLSERVE_API const char *mlserve_model_doc(const mlserve_model *model);
/* Version of the model its author gave; 0 when the file does not say. */
MLSERVE_API int64_t mlserve_model_version(const mlserve_model *model);
/* Version of an operator set the file uses: domain "" (or "ai.onnx") or "ai.onnx.ml"; 0 when it uses none. */
MLSERVE_API int64_t mlserve_model_opset(const mlserve_model *model, const char *domain);
/* Number of metadata entries. */
MLSERVE_API size_t mlserve_metadata_count(const mlserve_model *model);
/* Key of metadata entry `index` from 0; NULL when there is none. */
MLSERVE_API const char *mlserve_metadata_key(const mlserve_model *model, size_t index);
/* Metadata under `key`, NUL-terminated, its bytes in *length (may be NULL; the value may hold NULs); NULL when there is none. */
MLSERVE_API const char *mlserve_metadata(const mlserve_model *model, const char *key, size_t *length);

/* ---- values ---- */

/* A tensor on the caller's memory, which is neither copied nor freed and must live as long as the value is used. data starts at a multiple of
 * the element's size; `bytes` is how much memory is there: at least what the shape needs, more when mlserve_value_set_dims or a larger output
 * is to follow. data may be NULL when bytes is 0. Rank 0 (dims NULL) is a scalar. The value is reusable: write new data to the memory and run
 * again. Not for strings. Errors: INVALID_ARGUMENT, OUT_OF_RANGE (the shape needs more than bytes). */
MLSERVE_API mlserve_status mlserve_value_wrap(mlserve_dtype dtype, const int64_t *dims, int32_t rank, void *data, size_t bytes,
                                              mlserve_value **value, char *message, size_t message_size);
/* A tensor with memory of its own, zeroed, aligned to 64 bytes; fill it through mlserve_value_data. Not for strings. */
MLSERVE_API mlserve_status mlserve_value_new(mlserve_dtype dtype, const int64_t *dims, int32_t rank, mlserve_value **value,
                                             char *message, size_t message_size);
/* A tensor of strings, copied. lengths NULL: the strings are NUL-terminated. */
MLSERVE_API mlserve_status mlserve_value_strings(const char *const *strings, const size_t *lengths, const int64_t *dims, int32_t rank,
                                                 mlserve_value **value, char *message, size_t message_size);
/* Frees the value and its own memory, not that of mlserve_value_wrap. NULL is allowed. */
MLSERVE_API void mlserve_value_free(mlserve_value *value);
/* Another shape (another batch, say) on the same memory; the new one has to fit. Errors: INVALID_ARGUMENT (no tensor, too),
 * OUT_OF_RANGE (the value is as it was). */
MLSERVE_API mlserve_status mlserve_value_set_dims(mlserve_value *value, const int64_t *dims, int32_t rank, char *message, size_t message_size);
/* MLSERVE_KIND_…; MLSERVE_KIND_NONE for NULL. */
MLSERVE_API int32_t mlserve_value_kind(const mlserve_value *value);
/* The whole type, as mlserve_info_type; valid until the value is freed. */
MLSERVE_API const char *mlserve_value_type(const mlserve_value *value);
/* The element type, of what is no tensor that of the tensors inside; MLSERVE_DTYPE_NONE for NULL and when it is not known. */
MLSERVE_API mlserve_dtype mlserve_value_dtype(const mlserve_value *value);
/* The number of dimensions; -1 for NULL and what is no tensor. */
MLSERVE_API int32_t mlserve_value_rank(const mlserve_value *value);
/* Size of dimension `axis` from 0; -1 when there is no such axis. */
MLSERVE_API int64_t mlserve_value_dim(const mlserve_value *value, int32_t axis);
/* The number of elements: 1 for a scalar, 0 for NULL and what is no tensor. */
MLSERVE_API size_t mlserve_value_count(const mlserve_value *value);
/* Bytes of all elements; 0 for strings, NULL and what is no tensor. */
MLSERVE_API size_t mlserve_value_bytes(const mlserve_value *value);
/* The elements, row by row; NULL for strings, NULL and what is no tensor. Valid until the value is freed. Those of a part of another value
 * (mlserve_value_item, _keys, _values) must not be written. */
MLSERVE_API void *mlserve_value_data(const mlserve_value *value);
/* Element `index` of a tensor of strings: *string is not NUL-terminated and valid until the value is freed. Errors: INVALID_ARGUMENT (not strings),
 * OUT_OF_RANGE. */
MLSERVE_API mlserve_status mlserve_value_string(const mlserve_value *value, size_t index, const char **string, size_t *length,
                                                char *message, size_t message_size);

/* ---- sequences, optionals and maps ----
 * They never change, so any number of threads may use one. Tensors that go in are copied; what comes out is a value of its own, to be freed, that
 * shares the elements and lives on without the whole. */

/* A sequence of `count` values of one type. type: that of the sequence, as mlserve_info_type writes it; NULL: it follows from the items, of which
 * there must be one then. Errors: INVALID_ARGUMENT (another type, a value that is no item of it). */
MLSERVE_API mlserve_status mlserve_value_sequence(const char *type, mlserve_value *const *items, size_t count, mlserve_value **value,
                                                  char *message, size_t message_size);
/* An optional that holds `item`, or none when that is NULL. type: that of the optional; NULL: it follows from the item. Errors: as above. */
MLSERVE_API mlserve_status mlserve_value_optional(const char *type, const mlserve_value *item, mlserve_value **value,
                                                  char *message, size_t message_size);
/* A map from keys (int64 or string) to values: two tensors of rank 1 and the same size. No key should come twice: only one of them is found.
 * Errors: INVALID_ARGUMENT. */
MLSERVE_API mlserve_status mlserve_value_map(const mlserve_value *keys, const mlserve_value *values, mlserve_value **value,
                                             char *message, size_t message_size);
/* The number of values in a sequence, or in an optional (0 or 1), or of a map's keys; 0 for others. */
MLSERVE_API size_t mlserve_value_items(const mlserve_value *value);
/* Item `index` of a sequence or an optional, as a new value. Errors: INVALID_ARGUMENT (a tensor or a map), OUT_OF_RANGE. */
MLSERVE_API mlserve_status mlserve_value_item(const mlserve_value *value, size_t index, mlserve_value **item, char *message, size_t message_size);
/* The keys of a map, a tensor of rank 1, as a new value. Errors: INVALID_ARGUMENT (no map). */
MLSERVE_API mlserve_status mlserve_value_keys(const mlserve_value *map, mlserve_value **keys, char *message, size_t message_size);
/* What the keys lead to, in their order: a tensor of rank 1, as a new value. Errors: INVALID_ARGUMENT (no map). */
MLSERVE_API mlserve_status mlserve_value_values(const mlserve_value *map, mlserve_value **values, char *message, size_t message_size);

/* ---- running ---- */

/* Runs the model. input_names NULL: inputs[i] is for input i; else for the one of that name, in any order; every input of the model is needed once.
 * output_names NULL: outputs[i] is output i, of the first n_outputs; else the one of that name.
 * Where outputs[i] is NULL, the result becomes a new value there, which the caller frees. Where it is a value, the result is written into its
 * memory and the value gets the result's shape; dtype and size have to fit (OUT_OF_RANGE says how many bytes are needed). Only
 * tensors other than of strings can be written so, and not into a part of another value. After a failure, outputs that were NULL are NULL, and memory
 * of others may have been written. An output value may also be an input of the same run (a state that is carried on); the same value cannot be two
 * outputs.
 * A run with values for all outputs allocates nothing once the input shapes have been seen (the last 16 sets of shapes are remembered). */
MLSERVE_API mlserve_status mlserve_run(const mlserve_model *model, const char *const *input_names, mlserve_value *const *inputs, size_t n_inputs,
                                       const char *const *output_names, mlserve_value **outputs, size_t n_outputs,
                                       char *message, size_t message_size);

#ifdef __cplusplus
}
#endif
#endif
