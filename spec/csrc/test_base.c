/* csrc/base: status, alloc, cpu, rng, thread, file. Random numbers are held against the known-answer vectors that the Random123
 * distribution publishes for Philox4x32-10 and against closed-form moments. `test_base thread` runs the threaded parts alone (for
 * ThreadSanitizer). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cpu.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/status.h"
#include "base/thread.h"
#include "tap.h"

/* ---- status ---- */

static void test_status(void) {
  ok(strcmp(ml_status_name(ML_INVALID_ARGUMENT), "INVALID_ARGUMENT") == 0, "status name");
  ok(strcmp(ml_status_text(ML_DATA_LOSS), "data loss") == 0, "status text");
  ok(strcmp(ml_status_name((ml_status)99), "UNKNOWN") == 0, "name of a foreign number");
  ok(strcmp(ml_status_text((ml_status)99), "unknown error") == 0, "text of a foreign number");
  ok(ML_UNAUTHENTICATED == 16 && ML_UNAVAILABLE == 14 && ML_CANCELLED == 1, "gRPC's numbers");
  ml_error err = {ML_OK, ""};
  ok(ml_fail(&err, ML_NOT_FOUND, "no %s named '%s'", "input", "x") == ML_NOT_FOUND, "ml_fail returns the code");
  ok(err.code == ML_NOT_FOUND && strcmp(err.message, "no input named 'x'") == 0, "ml_fail fills the error");
  ok(ml_fail_in(&err, err.code, "node %d", 7) == ML_NOT_FOUND, "ml_fail_in returns the code");
  ok(strcmp(err.message, "node 7: no input named 'x'") == 0, "ml_fail_in puts the context in front");
  ml_fail(&err, ML_INTERNAL, "[%s]", err.message);
  ok(strcmp(err.message, "[node 7: no input named 'x']") == 0, "an argument may be the message itself");
  ok(ml_fail(NULL, ML_ABORTED, "x") == ML_ABORTED && ml_fail_in(NULL, ML_ABORTED, "x") == ML_ABORTED, "err may be NULL");
  ok(ml_fail_memory(&err, 123, "weights") == ML_RESOURCE_EXHAUSTED, "ml_fail_memory returns the code");
  ok(strcmp(err.message, "out of memory allocating 123 bytes for weights") == 0, "ml_fail_memory's message");
  char text[2000];
  memset(text, 'a', sizeof text);
  text[sizeof text - 1] = '\0';
  ml_fail(&err, ML_INTERNAL, "%s", text);
  ok(strlen(err.message) == ML_ERROR_MAX - 1, "a long message is cut");
  for (int i = 0; i < 40; ++i) ml_fail_in(&err, ML_INTERNAL, "context");
  ok(strlen(err.message) < ML_ERROR_MAX && strlen(err.message) > ML_ERROR_MAX - 20 && strncmp(err.message, "context: … a", 14) == 0,
     "long contexts are cut in the middle");
  ml_fail(&err, ML_INTERNAL, "the reason");
  for (int i = 0; i < 100; ++i) ml_fail_in(&err, ML_INTERNAL, "context %d", i);
  ok(strncmp(err.message, "context 99: … ", 16) == 0 &&
         strcmp(err.message + strlen(err.message) - 12, ": the reason") == 0, "the reason stays: %s", err.message);
  for (size_t shift = 0; shift < 4; ++shift) { /* three-byte characters: the cut falls on each place */
    memset(text, 'a', shift);
    for (size_t i = shift; i + 3 < sizeof text; i += 3) memcpy(text + i, "\xE2\x82\xAC", 4);
    ml_fail(&err, ML_INTERNAL, "%s", text);
    size_t length = strlen(err.message);
    ok(length > ML_ERROR_MAX - 4 && (length - shift) % 3 == 0, "no character is cut in two (shift %zu)", shift);
  }
  ml_error blank = {ML_OK, ""};
  ok(ml_fail_in(&blank, ML_ABORTED, "x") == ML_ABORTED && strcmp(blank.message, "x: aborted") == 0, "context without a message");
}

/* ---- alloc ---- */

static int cleanup_order[3], cleanup_count;

static void note_cleanup(void *data) { cleanup_order[cleanup_count++] = *(int *)data; }

static bool all_zero(const unsigned char *bytes, size_t size) {
  for (size_t i = 0; i < size; ++i) {
    if (bytes[i] != 0) return false;
  }
  return true;
}

static void test_alloc(void) {
  ml_alloc_stats before = ml_alloc_get_stats();
  bool aligned = true;
  static const size_t sizes[] = {0, 1, 15, 16, 17, 63, 64, 65, 1000, 4096, 100000, 3000000};
  enum { SIZES = sizeof sizes / sizeof sizes[0] };
  unsigned char *blocks[SIZES];
  size_t total = 0;
  for (size_t i = 0; i < SIZES; ++i) {
    blocks[i] = ml_alloc(sizes[i]);
    aligned = aligned && blocks[i] != NULL && (uintptr_t)blocks[i] % ML_ALIGN == 0;
    memset(blocks[i], 0xA5, sizes[i]);
    total += sizes[i];
  }
  ok(aligned, "blocks are aligned to %d bytes", ML_ALIGN);
  ml_alloc_stats during = ml_alloc_get_stats();
  ok(during.live_blocks - before.live_blocks == SIZES && during.live_bytes - before.live_bytes == total, "live blocks and bytes");
  for (size_t i = 0; i < SIZES; ++i) ml_free(blocks[i]);
  ml_free(NULL);
  ml_alloc_stats after = ml_alloc_get_stats();
  ok(after.live_blocks == before.live_blocks && after.live_bytes == before.live_bytes, "all freed");
  ok(after.allocations - before.allocations == SIZES, "allocations counted");

  unsigned char *zeroed = ml_alloc_zero(333, 3);
  ok(zeroed != NULL && all_zero(zeroed, 999) && (uintptr_t)zeroed % ML_ALIGN == 0, "ml_alloc_zero");
  zeroed[0] = 7;
  zeroed[998] = 9;
  ok(ml_realloc(zeroed, 999, SIZE_MAX / 2) == NULL && zeroed[998] == 9, "a failed ml_realloc leaves the block");
  unsigned char *grown = ml_realloc(zeroed, 999, 5000);
  ok(grown != NULL && grown[0] == 7 && grown[998] == 9, "ml_realloc keeps the contents");
  grown = ml_realloc(grown, 5000, 1);
  ok(grown != NULL && grown[0] == 7, "ml_realloc shrinks");
  ml_free(grown);
  grown = ml_realloc(NULL, 0, 10);
  ok(grown != NULL, "ml_realloc of NULL allocates");
  ml_free(grown);
  volatile size_t huge = SIZE_MAX; /* hidden from the compiler's own check */
  ok(ml_alloc(huge) == NULL && ml_alloc(huge / 2) == NULL && ml_alloc_zero(huge, 2) == NULL, "absurd sizes fail");
  ok(ml_strndup("x", huge) == NULL, "absurd string length fails");
  char *copy = ml_strndup("hello", 4);
  ok(copy != NULL && strcmp(copy, "hell") == 0, "ml_strndup");
  ml_free(copy);
  copy = ml_strndup(NULL, 0);
  ok(copy != NULL && copy[0] == '\0', "ml_strndup of nothing");
  ml_free(copy);

  ml_error err;
  int *items = NULL;
  size_t capacity = 0;
  for (int i = 0; i < 1000; ++i) {
    if (ml_grow(&items, &capacity, (size_t)i + 1, sizeof *items, "items", &err) != ML_OK) break;
    items[i] = i;
  }
  bool kept = items != NULL && capacity >= 1000;
  for (int i = 0; kept && i < 1000; ++i) kept = items[i] == i;
  ok(kept, "ml_grow keeps the items");
  int *was = items;
  ok(ml_grow(&items, &capacity, huge / 2, sizeof *items, "items", &err) == ML_RESOURCE_EXHAUSTED && items == was,
     "ml_grow refuses an overflow: %s", err.message);
  ml_free(items);
  ok(ml_alloc_get_stats().live_blocks == before.live_blocks, "nothing leaked");
}

static void test_fault_injection(void) {
  void *a, *b, *c;
  ml_alloc_fail_at(2, false);
  a = ml_alloc(1), b = ml_alloc(1), c = ml_alloc(1);
  ok(a != NULL && b == NULL && c != NULL, "the second allocation fails, the third works");
  ml_free(a), ml_free(c);
  ml_alloc_fail_at(2, true);
  a = ml_alloc(1), b = ml_alloc_zero(1, 1), c = ml_realloc(a, 1, 2);
  ok(a != NULL && b == NULL && c == NULL, "persistent: all from the second on fail");
  ok(ml_arena_new() == NULL && ml_strndup("", 0) == NULL, "persistent: still failing");
  ml_alloc_fail_at(0, false);
  b = ml_alloc(1);
  ok(b != NULL, "switched off");
  ml_free(a), ml_free(b);
  ml_alloc_fail_at(1, false);
  ok(ml_alloc(0) == NULL, "n = 1 is the next one, an empty block counts");
}

static bool use_arena(void) {
  ml_arena *arena = ml_arena_new();
  if (arena == NULL) return false;
  static int ids[3] = {0, 1, 2};
  cleanup_count = 0;
  bool fine = true;
  for (int i = 0; i < 3 && fine; ++i) fine = ml_arena_cleanup(arena, note_cleanup, &ids[i]);
  int registered = fine ? 3 : -1;
  for (size_t i = 1; i < 3000 && fine; i += 7) {
    unsigned char *block = ml_arena_alloc(arena, i);
    fine = block != NULL;
    if (fine) memset(block, 0xFF, i);
  }
  fine = fine && ml_arena_alloc(arena, 200000) != NULL && ml_arena_alloc(arena, 20000) != NULL;
  fine = fine && ml_arena_printf(arena, "%0500d", 1) != NULL && ml_arena_strndup(arena, "abc", 3) != NULL;
  ml_arena_free(arena);
  if (registered == 3 && cleanup_count != 3) ok(false, "cleanups run whatever happened");
  return fine;
}

static void test_arena(void) {
  ml_alloc_stats before = ml_alloc_get_stats();
  ml_arena *arena = ml_arena_new();
  bool good = true;
  unsigned char *last = NULL;
  for (size_t i = 0; i < 5000; ++i) {
    size_t size = i * 37 % 301;
    unsigned char *block = ml_arena_alloc(arena, size);
    good = good && block != NULL && block != last && (uintptr_t)block % 16 == 0 && all_zero(block, size);
    memset(block, 0xEE, size);
    last = block;
  }
  ok(good, "arena blocks are zeroed, aligned, distinct");
  unsigned char *large = ml_arena_alloc(arena, 1000000);
  ok(large != NULL && all_zero(large, 1000000), "a large block");
  unsigned char *after = ml_arena_alloc(arena, 16);
  ok(after > last && after - last < 1000, "a large block leaves the current chunk in use");
  uint64_t blocks = ml_alloc_get_stats().live_blocks - before.live_blocks;
  ok(blocks < 30, "few underlying blocks (%u)", (unsigned)blocks);
  volatile size_t huge = SIZE_MAX;
  ok(ml_arena_alloc(arena, huge) == NULL && ml_arena_alloc(arena, huge - 40) == NULL, "absurd sizes fail");
  ok(ml_arena_strndup(arena, "x", huge) == NULL, "absurd string length fails");
  ok(strcmp(ml_arena_printf(arena, "%s-%d", "abc", 12), "abc-12") == 0, "ml_arena_printf");
  ok(strcmp(ml_arena_strndup(arena, "abcdef", 3), "abc") == 0, "ml_arena_strndup");
  ml_arena_free(arena);
  ml_arena_free(NULL);
  ok(ml_alloc_get_stats().live_blocks == before.live_blocks, "arena freed");

  ok(use_arena(), "arena use");
  ok(cleanup_order[0] == 2 && cleanup_order[1] == 1 && cleanup_order[2] == 0, "cleanups run last first");
  unsigned n = 0;
  bool worked = false, clean = true;
  while (!worked && n < 1000) {
    ml_alloc_fail_at(++n, false);
    worked = use_arena();
    ml_alloc_fail_at(0, false);
    clean = clean && ml_alloc_get_stats().live_blocks == before.live_blocks;
  }
  ok(worked && clean && n > 5, "arena: every one of %u allocations may fail", n - 1);
}

/* ---- cpu ---- */

static void test_cpu(void) {
  ml_isa isa = ml_cpu_isa();
  ok(isa >= ML_ISA_REF && isa <= ML_ISA_NEON, "instruction set %s", ml_isa_name(isa));
  ok(strcmp(ml_isa_name(ML_ISA_AVX512), "avx512") == 0 && strcmp(ml_isa_name((ml_isa)77), "unknown") == 0, "names");
  uint64_t before = ml_clock_ns();
  usleep(2000);
  uint64_t after = ml_clock_ns();
  ok(after - before >= 2000000u, "the clock runs in nanoseconds");
}

/* ---- rng ---- */

static void check_philox(const char *name, const uint32_t counter[4], const uint32_t key[2], const uint32_t expected[4]) {
  uint32_t out[4];
  uint64_t index = (uint64_t)counter[1] << 32 | counter[0], stream = (uint64_t)counter[3] << 32 | counter[2];
  ml_philox((uint64_t)key[1] << 32 | key[0], stream, index, out);
  ok(memcmp(out, expected, sizeof out) == 0, "philox4x32-10 known answer, %s: %08x %08x %08x %08x", name, out[0], out[1], out[2],
     out[3]);
}

static void test_rng(void) {
  check_philox("zeros", (uint32_t[4]){0, 0, 0, 0}, (uint32_t[2]){0, 0},
               (uint32_t[4]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  check_philox("ones", (uint32_t[4]){~0u, ~0u, ~0u, ~0u}, (uint32_t[2]){~0u, ~0u},
               (uint32_t[4]){0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  check_philox("digits of pi", (uint32_t[4]){0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
               (uint32_t[2]){0xa4093822, 0x299f31d0}, (uint32_t[4]){0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});

  bool words = true, floats = true;
  for (uint64_t i = 0; i < 100; ++i) {
    uint32_t block[4];
    ml_philox(5, 9, i / 4, block);
    words = words && ml_rng_u32(5, 9, i) == block[i % 4];
    float value = ml_rng_float(5, 9, i);
    floats = floats && value >= 0 && value < 1 && value == (float)(block[i % 4] >> 8) / 16777216.0f;
  }
  ok(words, "ml_rng_u32 is word i%%4 of block i/4");
  ok(floats, "ml_rng_float has 24 random bits");

  enum { N = 200003 };
  float *values = ml_alloc(N * sizeof *values), *again = ml_alloc(N * sizeof *again);
  ml_rng_uniform(1, 2, -3.0f, 5.0f, values, N);
  double sum = 0, squares = 0;
  bool inside = true;
  for (size_t i = 0; i < N; ++i) {
    inside = inside && values[i] >= -3.0f && values[i] < 5.0f;
    sum += (double)values[i];
    squares += (double)values[i] * (double)values[i];
  }
  double mean = sum / N, variance = squares / N - mean * mean;
  ok(inside, "uniform stays in [low, high)");
  ok(fabs(mean - 1.0) < 0.03 && fabs(variance - 64.0 / 12.0) < 0.05, "uniform moments: mean %g, variance %g", mean, variance);
  ml_rng_uniform(1, 2, -3.0f, 5.0f, again, 77);
  ok(memcmp(values, again, 77 * sizeof *values) == 0, "a shorter draw is a prefix");
  float edge = nextafterf(1.0f, 2.0f);
  ml_rng_uniform(1, 2, 1.0f, edge, values, 1000);
  inside = true;
  for (size_t i = 0; i < 1000; ++i) inside = inside && values[i] == 1.0f;
  ok(inside, "the narrowest interval holds one number");
  ml_rng_uniform(1, 2, -3e38f, 3e38f, values, 1000);
  inside = true;
  for (size_t i = 0; i < 1000; ++i) inside = inside && isfinite(values[i]);
  ok(inside, "the widest interval does not overflow");
  ml_rng_uniform(1, 2, 4.0f, 4.0f, values, 3);
  ok(values[0] == 4.0f && values[2] == 4.0f, "an empty interval gives low");

  for (int truncated = 0; truncated < 2; ++truncated) {
    ml_rng_normal(7, 1, 2.0f, 3.0f, truncated, values, N);
    sum = squares = 0;
    double fourth = 0;
    inside = true;
    for (size_t i = 0; i < N; ++i) {
      double z = ((double)values[i] - 2.0) / 3.0;
      inside = inside && isfinite(z) && (!truncated || fabs(z) <= 2.000001);
      sum += z;
      squares += z * z;
      fourth += z * z * z * z;
    }
    /* variance of the normal distribution cut at +-2: 1 - 4 phi(2) / (2 Phi(2) - 1) = 0.773741; its fourth moment is
     * 3 * 0.773741 - 2 * 8 phi(2) / (2 Phi(2) - 1) = 1.416199 */
    double second = truncated ? 0.773741 : 1.0, kurtosis = truncated ? 1.416199 : 3.0;
    ok(inside && fabs(sum / N) < 0.01 && fabs(squares / N - second) < 0.01 && fabs(fourth / N - kurtosis) < 0.06,
       "normal moments, truncated %d: %g %g %g", truncated, sum / N, squares / N, fourth / N);
    ml_rng_normal(7, 1, 2.0f, 3.0f, truncated, again, N / 2);
    ok(memcmp(values, again, N / 2 * sizeof *values) == 0, "normal: a shorter draw is a prefix");
  }
  double product = 0; /* both numbers of a Box-Muller pair are independent */
  ml_rng_normal(11, 3, 0, 1, 0, values, N);
  for (size_t i = 0; i + 1 < N; i += 2) product += (double)values[i] * (double)values[i + 1];
  ok(fabs(product / (N / 2)) < 0.02, "pairs are uncorrelated: %g", product / (N / 2));
  ml_free(values);
  ml_free(again);

  uint32_t order[1000];
  ml_rng_permutation(3, 4, order, 1000);
  bool seen[1000] = {false};
  unsigned distinct = 0, fixed = 0;
  for (size_t i = 0; i < 1000; ++i) {
    if (order[i] < 1000 && !seen[order[i]]) ++distinct, seen[order[i]] = true;
    fixed += order[i] == i;
  }
  ok(distinct == 1000 && fixed < 8, "a permutation, with %u fixed points", fixed);
  unsigned counts[24] = {0};
  for (uint64_t stream = 0; stream < 24000; ++stream) {
    ml_rng_permutation(3, stream, order, 4);
    unsigned rank = 0;
    for (int i = 0; i < 4; ++i) {
      unsigned smaller = 0;
      for (int j = i + 1; j < 4; ++j) smaller += order[j] < order[i];
      rank = rank * (unsigned)(4 - i) + smaller;
    }
    ++counts[rank];
  }
  double chi = 0;
  for (int i = 0; i < 24; ++i) chi += (counts[i] - 1000.0) * (counts[i] - 1000.0) / 1000.0;
  ok(chi < 49.73, "all 24 orders of 4 are equally likely: chi-square %g, 23 degrees of freedom, p > 0.001", chi);
  order[0] = 9;
  ml_rng_permutation(3, 4, order, 0);
  ok(order[0] == 9, "no elements");
  ml_rng_permutation(3, 4, order, 1);
  ok(order[0] == 0, "one element");
}

/* ---- threads ---- */

typedef struct job {
  uint32_t *hits; /* one per chunk, not atomic: a chunk belongs to one thread */
  uint64_t *results;
} job;

static void count_chunk(void *context, size_t chunk) {
  job *j = context;
  j->hits[chunk] += 1;
  j->results[chunk] = chunk * chunk;
}

static bool run_job(size_t chunks) {
  job j = {calloc(chunks + 1, sizeof(uint32_t)), calloc(chunks + 1, sizeof(uint64_t))};
  ml_parallel(chunks, count_chunk, &j);
  bool fine = j.hits[chunks] == 0;
  for (size_t i = 0; i < chunks && fine; ++i) fine = j.hits[i] == 1 && j.results[i] == i * i;
  free(j.hits);
  free(j.results);
  return fine;
}

static void nested_chunk(void *context, size_t chunk) {
  _Atomic unsigned *good = context;
  if (run_job(chunk % 7 * 3)) atomic_fetch_add(good, 1);
}

static void resizing_chunk(void *context, size_t chunk) {
  _Atomic unsigned *good = context;
  ml_set_threads((int)(chunk % 3) + 1);
  atomic_fetch_add(good, 1);
}

static void slow_chunk(void *context, size_t chunk) {
  (void)chunk;
  usleep(1000);
  atomic_fetch_add((_Atomic unsigned *)context, 1);
}

/* Every chunk waits for the others, so each needs a thread of its own. */
static void meeting_chunk(void *context, size_t chunk) {
  (void)chunk;
  _Atomic unsigned *counts = context; /* arrived, met the others */
  atomic_fetch_add(&counts[0], 1);
  for (int i = 0; i < 20000 && atomic_load(&counts[0]) % 3 != 0; ++i) usleep(1000);
  if (atomic_load(&counts[0]) % 3 == 0) atomic_fetch_add(&counts[1], 1);
}

static void *caller(void *argument) {
  _Atomic unsigned *good = argument;
  for (size_t i = 0; i < 300; ++i) {
    if (run_job(i % 17)) atomic_fetch_add(good, 1);
  }
  return NULL;
}

static void *resizer(void *argument) {
  _Atomic bool *stop = argument;
  for (int i = 0; !atomic_load(stop); ++i) {
    ml_set_threads(i % 5 + 1);
    usleep(100);
  }
  return NULL;
}

static void *failing_caller(void *argument) {
  _Atomic unsigned *failures = argument;
  for (int i = 0; i < 1000; ++i) {
    void *block = ml_alloc(1);
    if (block == NULL) atomic_fetch_add(failures, 1);
    ml_free(block);
  }
  return NULL;
}

static void test_threads(void) {
  ok(ml_threads() >= 1, "default threads: %d", ml_threads());
  int automatic = ml_threads();
  ml_alloc_stats before = ml_alloc_get_stats();
  for (int threads = 1; threads <= 5; ++threads) {
    ml_set_threads(threads);
    bool fine = ml_threads() == threads;
    for (size_t chunks = 0; chunks < 40 && fine; ++chunks) fine = run_job(chunks);
    ok(fine, "every chunk runs once at %d threads", threads);
  }
  ok(run_job(10000), "many chunks");
  _Atomic unsigned good = 0;
  for (int i = 0; i < 5; ++i) { /* the pause sends the workers to sleep in between */
    ml_parallel(8, slow_chunk, &good);
    usleep(2000);
  }
  ok(good == 40, "slow chunks, sleeping workers");
  ml_set_threads(3);
  _Atomic unsigned counts[2] = {0, 0};
  for (int i = 0; i < 5; ++i) {
    ml_parallel(3, meeting_chunk, counts);
    if (i == 2) usleep(2000);
  }
  ok(counts[0] == 15 && counts[1] == 15, "three chunks run at the same time on three threads");
  ml_set_threads(2);
  ok(run_job(100), "after joining surplus workers");
  good = 0;
  ml_parallel(50, nested_chunk, &good);
  ok(good == 50, "nested loops");
  good = 0;
  ml_parallel(50, resizing_chunk, &good);
  ok(good == 50 && ml_threads() >= 1 && ml_threads() <= 3, "ml_set_threads inside a loop");
  ml_set_threads(-5);
  ok(ml_threads() == 1, "fewer than one is one");
  ml_set_threads(100000);
  ok(ml_threads() >= 1 && ml_threads() < 100000, "absurd numbers are cut");
  ml_set_threads(0);
  ok(ml_threads() == automatic, "zero restores the default");

  ml_set_threads(3);
  good = 0;
  _Atomic bool stop = false;
  pthread_t callers[4], other;
  pthread_create(&other, NULL, resizer, &stop);
  for (int i = 0; i < 4; ++i) pthread_create(&callers[i], NULL, caller, &good);
  for (int i = 0; i < 4; ++i) pthread_join(callers[i], NULL);
  atomic_store(&stop, true);
  pthread_join(other, NULL);
  ok(good == 4 * 300, "loops from four threads while a fifth resizes the pool");
  ok(ml_alloc_get_stats().live_blocks == before.live_blocks, "the pool allocates nothing");

  bool exact = true;
  for (uint64_t n = 1; n <= 4001; n += 500) {
    _Atomic unsigned failures = 0;
    ml_alloc_fail_at(n, false);
    for (int i = 0; i < 4; ++i) pthread_create(&callers[i], NULL, failing_caller, &failures);
    for (int i = 0; i < 4; ++i) pthread_join(callers[i], NULL);
    exact = exact && failures == (n <= 4000);
    failures = 0;
    ml_alloc_fail_at(n, true);
    for (int i = 0; i < 4; ++i) pthread_create(&callers[i], NULL, failing_caller, &failures);
    for (int i = 0; i < 4; ++i) pthread_join(callers[i], NULL);
    exact = exact && failures == 4001 - n;
    ml_alloc_fail_at(0, false);
  }
  ok(exact, "the n-th allocation fails exactly, whichever thread asks");
}

/* ThreadSanitizer cannot start threads in the child of a process that has some. */
#if defined(__SANITIZE_THREAD__)
#define FORK_IS_TESTED 0
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define FORK_IS_TESTED 0
#endif
#endif
#ifndef FORK_IS_TESTED
#define FORK_IS_TESTED 1
#endif

static void test_fork(void) {
  if (!FORK_IS_TESTED) return;
  ml_set_threads(3);
  ok(run_job(64), "the pool exists before the fork");
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    alarm(20);
    bool fine = run_job(64);
    ml_set_threads(2);
    fine = fine && run_job(64);
    pid_t grandchild = fork();
    if (grandchild == 0) _exit(run_job(64) ? 0 : 1);
    int status = 1;
    waitpid(grandchild, &status, 0);
    _exit(fine && status == 0 ? 0 : 1);
  }
  int status = 1;
  waitpid(child, &status, 0);
  ok(status == 0, "a child and a grandchild build pools of their own");
  ok(run_job(64), "the parent's pool still works");
  child = fork();
  if (child == 0) {
    alarm(20);
    exit(0); /* the pool's destructor must not wait for threads that are not there */
  }
  waitpid(child, &status, 0);
  ok(status == 0, "a child that never used the pool ends");
  ml_set_threads(0);
}

/* ---- files ---- */

static char directory[200];

static const char *at(const char *name) {
  static char paths[4][460];
  static unsigned turn;
  char *path = paths[turn++ % 4];
  snprintf(path, sizeof paths[0], "%s/%s", directory, name);
  return path;
}

static bool holds(const char *path, const void *bytes, size_t size) {
  ml_file_map map;
  if (ml_file_open_map(path, &map, NULL) != ML_OK) return false;
  bool same = map.size == size && (size == 0 ? map.bytes == NULL : memcmp(map.bytes, bytes, size) == 0);
  ml_file_unmap(&map);
  return same && map.bytes == NULL && map.size == 0;
}

static unsigned entries(const char *path) {
  unsigned count = 0;
  DIR *list = opendir(path);
  if (list == NULL) return 0;
  for (struct dirent *entry; (entry = readdir(list)) != NULL;) {
    count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
  }
  closedir(list);
  return count;
}

static void test_files(void) {
  ml_error err = {ML_OK, ""};
  snprintf(directory, sizeof directory, "%s/test_base-XXXXXX", getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
  if (!ok(mkdtemp(directory) != NULL, "temporary directory")) return;
  ml_alloc_stats before = ml_alloc_get_stats();

  ok(ml_file_write(at("a"), "hello", 5, &err) == ML_OK && holds(at("a"), "hello", 5), "write and map");
  ok(ml_file_write(at("a"), "bye", 3, &err) == ML_OK && holds(at("a"), "bye", 3), "replace");
  ok(ml_file_write(at("empty"), NULL, 0, &err) == ML_OK && holds(at("empty"), "", 0), "an empty file");
  ok(entries(directory) == 2, "no temporary file is left");
  struct stat info;
  mode_t mask = umask(027);
  ok(ml_file_write(at("mode"), "x", 1, &err) == ML_OK && stat(at("mode"), &info) == 0 && (info.st_mode & 0777) == 0640,
     "mode 0644 less the umask");
  umask(mask);

  ok(ml_file_write(at("x/y//z/file"), "deep", 4, &err) == ML_OK && holds(at("x/y/z/file"), "deep", 4),
     "missing directories are made");
  ok(ml_make_directories(at("x/y/z"), &err) == ML_OK && ml_make_directories(at("p/q/"), &err) == ML_OK && entries(at("p")) == 1,
     "ml_make_directories");
  ok(ml_make_directories(at("a/b"), &err) == ML_NOT_FOUND && strstr(err.message, at("a")) != NULL,
     "a file in the way: %s", err.message);
  ok(ml_make_directories("", &err) == ML_INVALID_ARGUMENT, "an empty path");
  ok(ml_file_write(at("a/b"), "x", 1, &err) != ML_OK && holds(at("a"), "bye", 3), "a file is no directory");
  ok(ml_file_write(directory, "x", 1, &err) == ML_INVALID_ARGUMENT, "a directory is no file: %s", err.message);
  ok(ml_file_write(at("new/"), "x", 1, &err) == ML_INVALID_ARGUMENT, "a trailing slash is a directory");
  char here[300];
  ok(getcwd(here, sizeof here) != NULL && chdir(directory) == 0, "change directory");
  ok(ml_file_write("relative", "r", 1, &err) == ML_OK && ml_file_write("rel/ative", "r", 1, &err) == ML_OK &&
         holds(at("relative"), "r", 1) && holds(at("rel/ative"), "r", 1),
     "relative paths");
  ok(chdir(here) == 0, "back");

  ml_file_map map;
  ok(ml_file_open_map(at("none"), &map, &err) == ML_NOT_FOUND && map.bytes == NULL && strstr(err.message, at("none")) != NULL &&
         strstr(err.message, strerror(ENOENT)) != NULL,
     "a missing file: %s", err.message);
  ok(ml_file_open_map(at("a/b"), &map, &err) == ML_NOT_FOUND, "a path through a file");
  ok(ml_file_open_map(directory, &map, &err) == ML_INVALID_ARGUMENT, "mapping a directory: %s", err.message);
  ok(mkfifo(at("fifo"), 0600) == 0 && ml_file_open_map(at("fifo"), &map, &err) == ML_INVALID_ARGUMENT, "a FIFO does not block");
  if (geteuid() != 0) {
    ok(chmod(at("mode"), 0) == 0 && ml_file_open_map(at("mode"), &map, &err) == ML_PERMISSION_DENIED, "no permission to read");
    ok(chmod(at("p"), 0555) == 0 && ml_file_write(at("p/new"), "x", 1, &err) == ML_PERMISSION_DENIED, "no permission to write");
    ok(chmod(at("p"), 0755) == 0, "permission restored");
  }
  char name[256];
  memset(name, 'n', 255);
  name[255] = '\0';
  ok(ml_file_write(at(name), "long", 4, &err) == ML_OK && holds(at(name), "long", 4), "the longest name");
  char path[720];
  snprintf(path, sizeof path, "%s/%s/%s", directory, name, name);
  ok(ml_file_open_map(path, &map, &err) != ML_OK && strstr(err.message, "nnn': ") != NULL, "the reason stays behind a long path");

  enum { BIG = 1000003 };
  unsigned char *big = ml_alloc(BIG);
  for (size_t i = 0; i < BIG; ++i) big[i] = (unsigned char)(i * 7 + i / 251);
  ml_writer *writer;
  bool fine = ml_writer_open(at("big"), &writer, &err) == ML_OK;
  for (size_t i = 0, step = 1; fine && i < BIG; i += step, step = step * 3 % 100003) {
    if (step > BIG - i) step = BIG - i;
    fine = ml_writer_write(writer, big + i, step, &err) == ML_OK;
  }
  ok(fine && !holds(at("big"), big, BIG) && ml_writer_commit(writer, &err) == ML_OK && holds(at("big"), big, BIG),
     "a file in pieces appears at commit");

  unsigned count = entries(directory);
  ml_writer *first = NULL, *second = NULL;
  ok(ml_writer_open(at("a"), &first, &err) == ML_OK && ml_writer_open(at("a"), &second, &err) == ML_OK,
     "two writers of one file");
  ok(ml_writer_write(first, "first", 5, &err) == ML_OK && ml_writer_write(second, "2nd", 3, &err) == ML_OK, "both write");
  ok(ml_writer_commit(second, &err) == ML_OK && holds(at("a"), "2nd", 3), "the second commits");
  ok(ml_writer_commit(first, &err) == ML_OK && holds(at("a"), "first", 5), "the first commits and wins");
  ok(ml_writer_open(at("a"), &writer, &err) == ML_OK && ml_writer_write(writer, big, BIG, &err) == ML_OK, "a writer");
  ml_writer_abort(writer);
  ml_writer_abort(NULL);
  ok(holds(at("a"), "first", 5) && entries(directory) == count, "abort leaves the old file and nothing else");

  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    if (ml_writer_open(at("a"), &writer, &err) == ML_OK && ml_writer_write(writer, big, BIG, &err) == ML_OK) {
      kill(getpid(), SIGKILL);
    }
    _exit(1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ok(WIFSIGNALED(status) && holds(at("a"), "first", 5), "a kill in the middle leaves the old file");

  struct rlimit limit;
  getrlimit(RLIMIT_FSIZE, &limit);
  struct rlimit small = {100000, limit.rlim_max};
  signal(SIGXFSZ, SIG_IGN);
  count = entries(directory);
  setrlimit(RLIMIT_FSIZE, &small);
  ml_status whole = ml_file_write(at("a"), big, BIG, &err);
  ok(whole == ML_RESOURCE_EXHAUSTED && strstr(err.message, strerror(EFBIG)) != NULL, "a short disk: %s", err.message);
  ok(ml_writer_open(at("a"), &writer, &err) == ML_OK && ml_writer_write(writer, big, BIG, &err) != ML_OK, "a failed write");
  ok(ml_writer_write(writer, "x", 1, &err) != ML_OK && strstr(err.message, "earlier") != NULL, "stays failed: %s", err.message);
  ok(ml_writer_commit(writer, &err) != ML_OK, "and cannot be committed");
  setrlimit(RLIMIT_FSIZE, &limit);
  signal(SIGXFSZ, SIG_DFL);
  ok(holds(at("a"), "first", 5) && entries(directory) == count, "the old file is whole, nothing is left");
  ml_free(big);

  unsigned n = 0;
  bool worked = false, clean = true;
  while (!worked && n < 100) {
    ml_alloc_fail_at(++n, false);
    ml_status result = ml_file_write(at("o/o/m"), "new", 3, &err);
    ml_alloc_fail_at(0, false);
    worked = result == ML_OK;
    clean = clean && (worked || result == ML_RESOURCE_EXHAUSTED) && ml_alloc_get_stats().live_blocks == before.live_blocks;
    clean = clean && entries(at("o/o")) == (worked ? 1u : 0u);
  }
  ok(worked && clean && n > 4, "write: every one of %u allocations may fail", n - 1);
  ok(holds(at("o/o/m"), "new", 3), "and then it works");
  ok(ml_alloc_get_stats().live_blocks == before.live_blocks, "nothing leaked");

  char command[300];
  snprintf(command, sizeof command, "rm -rf '%s'", directory);
  ok(system(command) == 0, "cleaned up");
}

int main(int argc, char **argv) {
  bool threads_only = argc > 1 && strcmp(argv[1], "thread") == 0;
  if (!threads_only) {
    test_status();
    test_alloc();
    test_fault_injection();
    test_arena();
    test_cpu();
    test_rng();
    test_files();
  }
  test_threads();
  if (!threads_only) test_fork(); /* ThreadSanitizer does not support threads made in a forked child of threads */
  return done();
}
