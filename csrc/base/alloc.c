/* Allocator, fault injection, accounting and arenas.
 *
 * Block layout: malloc gives `raw`, 16-byte aligned; the block starts at the 64-byte boundary 16 to 64 bytes behind it and a
 * 16-byte header in front of it remembers raw and the size asked for:
 *
 *   raw … padding (0 to 48) … | header (16) | block (bytes) … slack (0 to 48)
 *
 * Plain malloc plus rounding is several times faster than aligned allocation for small blocks. Under AddressSanitizer the
 * block is placed so that it ends where the allocation ends; otherwise the slack would hide small overruns.
 *
 * Fault injection is one atomic word, 2 * countdown + persistent, changed by compare-and-swap only: whatever the number of
 * threads, exactly the n-th allocation sees the countdown at one. */
#include "base/alloc.h"

#include <assert.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define TSAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ASAN 1
#elif __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define TSAN 1
#endif
#endif

/* The sanitizers' malloc ends the process where malloc returns NULL, and absurd sizes are part of the tests. */
#if defined(ASAN) || defined(TSAN)
#define BYTES_MAX ((size_t)1 << 30)
#else
#define BYTES_MAX ((size_t)PTRDIFF_MAX - ML_ALIGN)
#endif

#ifdef ASAN
#include <sanitizer/asan_interface.h>
#define POISON(address, size) __asan_poison_memory_region(address, size)
#define UNPOISON(address, size) __asan_unpoison_memory_region(address, size)
#define RED_ZONE 16
#else
#define POISON(address, size) ((void)0)
#define UNPOISON(address, size) ((void)0)
#define RED_ZONE 0
#endif

typedef struct header {
  void *raw;
  size_t bytes;
} header;

static_assert(sizeof(header) <= 16, "the header must fit in front of a block that malloc aligned to 16 bytes");

static _Atomic uint64_t fail_state;
static _Atomic uint64_t allocations, live_blocks, live_bytes;
static _Thread_local int64_t thread_bytes;

/* ---- fault injection and accounting ---- */

void ml_alloc_fail_at(uint64_t n, bool persistent) {
  if (n > UINT64_MAX / 2) n = UINT64_MAX / 2;
  atomic_store(&fail_state, n == 0 ? 0 : 2 * n + (persistent ? 1 : 0));
}

static bool must_fail(void) {
  uint64_t state = atomic_load_explicit(&fail_state, memory_order_relaxed);
  while (__builtin_expect(state != 0, 0)) {
    bool last = state < 4;
    uint64_t next = !last ? state - 2 : (state & 1) != 0 ? state : 0;
    if (atomic_compare_exchange_weak(&fail_state, &state, next)) return last;
  }
  return false;
}

ml_alloc_stats ml_alloc_get_stats(void) {
  ml_alloc_stats stats;
  stats.allocations = atomic_load_explicit(&allocations, memory_order_relaxed);
  stats.live_blocks = atomic_load_explicit(&live_blocks, memory_order_relaxed);
  stats.live_bytes = atomic_load_explicit(&live_bytes, memory_order_relaxed);
  return stats;
}

int64_t ml_alloc_thread_bytes(void) { return thread_bytes; }

/* ---- blocks ---- */

static void *allocate(size_t bytes, bool zero) {
  if (must_fail() || bytes > BYTES_MAX) return NULL;
#ifdef ASAN
  void *raw = NULL;
  if (posix_memalign(&raw, ML_ALIGN, bytes + ML_ALIGN) != 0) return NULL;
  unsigned char *block = (unsigned char *)raw + ML_ALIGN;
  if (zero) memset(block, 0, bytes);
#else
  void *raw = zero ? calloc(1, bytes + ML_ALIGN) : malloc(bytes + ML_ALIGN);
  if (raw == NULL) return NULL;
  unsigned char *block = (unsigned char *)raw + ML_ALIGN - (uintptr_t)raw % ML_ALIGN;
#endif
  header head = {raw, bytes};
  memcpy(block - sizeof head, &head, sizeof head);
  atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&live_blocks, 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&live_bytes, bytes, memory_order_relaxed);
  thread_bytes += (int64_t)bytes;
  return block;
}

void *ml_alloc(size_t bytes) { return allocate(bytes, false); }

void *ml_alloc_zero(size_t count, size_t size) {
  size_t bytes;
  return ml_mul_size(count, size, &bytes) ? allocate(bytes, true) : NULL;
}

void *ml_realloc(void *block, size_t old_bytes, size_t bytes) {
  void *moved = ml_alloc(bytes);
  if (moved == NULL) return NULL;
  if (block != NULL) memcpy(moved, block, old_bytes < bytes ? old_bytes : bytes);
  ml_free(block);
  return moved;
}

void ml_free(void *block) {
  if (block == NULL) return;
  header head;
  memcpy(&head, (unsigned char *)block - sizeof head, sizeof head);
  atomic_fetch_sub_explicit(&live_blocks, 1, memory_order_relaxed);
  atomic_fetch_sub_explicit(&live_bytes, head.bytes, memory_order_relaxed);
  thread_bytes -= (int64_t)head.bytes;
  free(head.raw);
}

char *ml_strndup(const char *text, size_t length) {
  size_t bytes;
  char *copy = ml_add_size(length, 1, &bytes) ? ml_alloc(bytes) : NULL;
  if (copy == NULL) return NULL;
  if (length > 0) memcpy(copy, text, length);
  copy[length] = '\0';
  return copy;
}

ml_status ml_grow(void *items, size_t *capacity, size_t need, size_t size, const char *what, ml_error *err) {
  if (need <= *capacity) return ML_OK;
  size_t wanted = *capacity + *capacity / 2; /* cannot overflow: capacity elements are in memory */
  if (wanted < 8) wanted = 8;
  if (wanted < need) wanted = need;
  size_t bytes;
  if (!ml_mul_size(wanted, size, &bytes)) return ml_fail_memory(err, SIZE_MAX, what);
  void *block;
  memcpy(&block, items, sizeof block); /* items is the address of a pointer of some type */
  block = ml_realloc(block, *capacity * size, bytes);
  if (block == NULL) return ml_fail_memory(err, bytes, what);
  memcpy(items, &block, sizeof block);
  *capacity = wanted;
  return ML_OK;
}

/* ---- arena ----
 * Chunks double from ARENA_FIRST to ARENA_LAST bytes; a request above ARENA_LARGE gets a chunk of its own, linked behind the
 * current one so that what is left of that stays in use. Chunks come zeroed and are never reused, so blocks need no memset. */

#define ARENA_FIRST ((size_t)1024)
#define ARENA_LAST ((size_t)65536)
#define ARENA_LARGE (ARENA_LAST / 4)

typedef struct chunk {
  struct chunk *next;
  size_t size; /* of the whole chunk, this header included */
  size_t used;
  size_t unused_; /* keeps what follows 16-byte aligned */
} chunk;

typedef struct cleanup {
  struct cleanup *next;
  void (*fn)(void *data);
  void *data;
} cleanup;

struct ml_arena { /* lives at the start of its own first chunk */
  chunk *chunks;
  cleanup *cleanups;
  size_t next_size;
};

static_assert(sizeof(chunk) % 16 == 0, "blocks follow the chunk header");

static chunk *chunk_new(size_t size) {
  chunk *made = ml_alloc_zero(1, size);
  if (made == NULL) return NULL;
  made->size = size;
  made->used = sizeof *made;
  POISON(made + 1, size - sizeof *made);
  return made;
}

/* Takes bytes from c; NULL when they do not fit. */
static void *chunk_take(chunk *c, size_t bytes) {
  if (bytes > c->size - c->used) return NULL;
  unsigned char *block = (unsigned char *)c + c->used;
  size_t step = (bytes + RED_ZONE + 15) / 16 * 16;
  c->used = step > c->size - c->used ? c->size : c->used + step;
  UNPOISON(block, bytes);
  return block;
}

ml_arena *ml_arena_new(void) {
  chunk *first = chunk_new(ARENA_FIRST);
  if (first == NULL) return NULL;
  ml_arena *arena = chunk_take(first, sizeof *arena);
  assert(arena != NULL);
  arena->chunks = first;
  arena->next_size = 2 * ARENA_FIRST;
  return arena;
}

void ml_arena_free(ml_arena *arena) {
  if (arena == NULL) return;
  while (arena->cleanups != NULL) { /* one at a time: a cleanup may itself register or allocate */
    cleanup *c = arena->cleanups;
    arena->cleanups = c->next;
    c->fn(c->data);
  }
  chunk *next;
  for (chunk *c = arena->chunks; c != NULL; c = next) {
    next = c->next;
    UNPOISON(c, c->size);
    ml_free(c);
  }
}

void *ml_arena_alloc(ml_arena *arena, size_t bytes) {
  if (bytes == 0) bytes = 1; /* a unique address */
  void *block = chunk_take(arena->chunks, bytes);
  if (block != NULL) return block;
  if (bytes > ARENA_LARGE) {
    size_t size;
    if (!ml_add_size(bytes, sizeof(chunk), &size) || size > BYTES_MAX) return NULL;
    chunk *own = chunk_new(size);
    if (own == NULL) return NULL;
    own->next = arena->chunks->next;
    arena->chunks->next = own;
    return chunk_take(own, bytes);
  }
  size_t size = arena->next_size;
  while (size - sizeof(chunk) < bytes) size *= 2; /* ends: bytes <= ARENA_LARGE */
  chunk *fresh = chunk_new(size);
  if (fresh == NULL) return NULL;
  fresh->next = arena->chunks;
  arena->chunks = fresh;
  arena->next_size = size < ARENA_LAST ? 2 * size : ARENA_LAST;
  return chunk_take(fresh, bytes);
}

char *ml_arena_strndup(ml_arena *arena, const char *text, size_t length) {
  size_t bytes;
  char *copy = ml_add_size(length, 1, &bytes) ? ml_arena_alloc(arena, bytes) : NULL;
  if (copy != NULL && length > 0) memcpy(copy, text, length); /* the NUL is there: arenas are zeroed */
  return copy;
}

char *ml_arena_printf(ml_arena *arena, const char *format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  int length = vsnprintf(NULL, 0, format, arguments);
  va_end(arguments);
  char *text = length < 0 ? NULL : ml_arena_alloc(arena, (size_t)length + 1);
  if (text != NULL) vsnprintf(text, (size_t)length + 1, format, again);
  va_end(again);
  return text;
}

bool ml_arena_cleanup(ml_arena *arena, void (*fn)(void *data), void *data) {
  cleanup *c = ml_arena_alloc(arena, sizeof *c);
  if (c == NULL) return false;
  *c = (cleanup){arena->cleanups, fn, data};
  arena->cleanups = c;
  return true;
}
