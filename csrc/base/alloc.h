/* Memory: the allocator hook, fault injection, growing arrays, arenas.
 * Lives here: the only calls to malloc/free in the core. May include: base.
 * Ownership: what ml_alloc/ml_arena_new return belongs to the caller until ml_free/ml_arena_free.
 * Every allocation may fail (NULL); callers turn that into ml_fail_memory. The hook and the counters are process-wide
 * (a documented exception to "no mutable globals": there is one heap), atomic, and meant for tests. */
#ifndef ML_BASE_ALLOC_H
#define ML_BASE_ALLOC_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

#define ML_ALIGN 64 /* every block starts on a cache line, wide enough for any vector load */

void *ml_alloc(size_t bytes);                       /* uninitialised; bytes == 0 gives a valid unique block */
void *ml_alloc_zero(size_t count, size_t size);     /* zeroed; NULL also when count*size overflows */
void *ml_realloc(void *block, size_t old_bytes, size_t bytes); /* keeps min(old, new) bytes; NULL leaves block as it was */
void ml_free(void *block);                          /* NULL allowed */
char *ml_strndup(const char *text, size_t length);  /* copy with a NUL behind it */

/* Grows *items (of `size` bytes each, *capacity of them) so that `need` fit. */
ml_status ml_grow(void *items, size_t *capacity, size_t need, size_t size, const char *what, ml_error *err);

/* checked size arithmetic: false on overflow, *out then unspecified */
static inline bool ml_mul_size(size_t a, size_t b, size_t *out) { return !__builtin_mul_overflow(a, b, out); }
static inline bool ml_add_size(size_t a, size_t b, size_t *out) { return !__builtin_add_overflow(a, b, out); }

/* ---- fault injection and accounting (tests) ---- */
/* The n-th allocation from now fails (n >= 1); with `persistent` every later one too. n == 0 switches it off. */
void ml_alloc_fail_at(uint64_t n, bool persistent);
typedef struct ml_alloc_stats {
  uint64_t allocations; /* calls that returned a block since the process began */
  uint64_t live_blocks; /* blocks not yet freed */
  uint64_t live_bytes;
} ml_alloc_stats;
ml_alloc_stats ml_alloc_get_stats(void);
/* Bytes this thread has allocated less those it has freed: how much a call has grown is the difference. */
int64_t ml_alloc_thread_bytes(void);

/* ---- arena: many small blocks with one life time ---- */
typedef struct ml_arena ml_arena;
ml_arena *ml_arena_new(void);                              /* NULL: out of memory */
void ml_arena_free(ml_arena *arena);                       /* runs the cleanups (last first), frees every block; NULL allowed */
void *ml_arena_alloc(ml_arena *arena, size_t bytes);       /* zeroed, 16-byte aligned; NULL: out of memory */
char *ml_arena_strndup(ml_arena *arena, const char *text, size_t length);
char *ml_arena_printf(ml_arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* fn(data) is called when the arena is freed; false: out of memory (fn was not called). */
bool ml_arena_cleanup(ml_arena *arena, void (*fn)(void *data), void *data);

#endif
