/* Status codes and error detail.
 * Lives here: the one list of outcomes every fallible function returns, and the message that goes with a failure.
 * May include: libc only. Ownership: ml_error is a plain struct owned by the caller; nothing here allocates.
 * Codes carry gRPC's numbers and names so that every protocol's error table is a projection of this one. */
#ifndef ML_BASE_STATUS_H
#define ML_BASE_STATUS_H
#include <stdarg.h>
#include <stddef.h>

#define ML_STATUS_MAP(X)                                                                     \
  X(OK, 0, "ok")                                                                             \
  X(CANCELLED, 1, "cancelled")                                                               \
  X(UNKNOWN, 2, "unknown error")                                                             \
  X(INVALID_ARGUMENT, 3, "invalid argument")                                                 \
  X(DEADLINE_EXCEEDED, 4, "deadline exceeded")                                               \
  X(NOT_FOUND, 5, "not found")                                                               \
  X(ALREADY_EXISTS, 6, "already exists")                                                     \
  X(PERMISSION_DENIED, 7, "permission denied")                                               \
  X(RESOURCE_EXHAUSTED, 8, "resource exhausted") /* out of memory or over a limit */         \
  X(FAILED_PRECONDITION, 9, "failed precondition")                                           \
  X(ABORTED, 10, "aborted")                                                                  \
  X(OUT_OF_RANGE, 11, "out of range")                                                        \
  X(UNIMPLEMENTED, 12, "unimplemented")                                                      \
  X(INTERNAL, 13, "internal error")                                                          \
  X(UNAVAILABLE, 14, "unavailable") /* the environment failed: file, disk, network */        \
  X(DATA_LOSS, 15, "data loss")     /* truncated or corrupt bytes */                         \
  X(UNAUTHENTICATED, 16, "unauthenticated")

typedef enum ml_status {
#define X(name, code, text) ML_##name = code,
  ML_STATUS_MAP(X)
#undef X
} ml_status;

#define ML_ERROR_MAX 512

/* Filled only on failure; message is always NUL-terminated (truncated when longer). */
typedef struct ml_error {
  ml_status code;
  char message[ML_ERROR_MAX];
} ml_error;

/* "INVALID_ARGUMENT" for ML_INVALID_ARGUMENT; "UNKNOWN" for a number outside the table. */
const char *ml_status_name(ml_status code);
/* "invalid argument" … */
const char *ml_status_text(ml_status code);

/* Stores code and formatted message in err (err may be NULL) and returns code, so that
 * `return ml_fail(err, ML_NOT_FOUND, "no input named '%s'", name);` is the whole failure path. */
ml_status ml_fail(ml_error *err, ml_status code, const char *format, ...) __attribute__((format(printf, 3, 4), cold));
/* The out-of-memory failure: RESOURCE_EXHAUSTED, "out of memory allocating N bytes for WHAT". */
ml_status ml_fail_memory(ml_error *err, size_t bytes, const char *what) __attribute__((cold));
/* Puts "context: " in front of the message that is already there (err may be NULL) and returns err's code. */
ml_status ml_fail_in(ml_error *err, ml_status code, const char *format, ...) __attribute__((format(printf, 3, 4), cold));

#define ML_TRY(expression)                   \
  do {                                       \
    ml_status ml_try_ = (expression);        \
    if (ml_try_ != ML_OK) return ml_try_;    \
  } while (0)

#endif
