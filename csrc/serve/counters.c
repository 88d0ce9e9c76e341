/* One mapping: a head, the rows of processes, an index (open addressing) and the slots.
 *
 * A series is made without waiting for anybody: its slot is taken and filled in privately, then published by one compare-and-swap
 * in the index. Who loses that race to the same name uses the winner's and wastes a slot; who dies half-way wastes one too.
 *
 * A process takes a row at its first count. That must be noticed again after a fork, without a system call per request: the
 * number of the row is in a page which the kernel gives to children as zeros (where it cannot, getpid() is compared).
 * A row is free when nobody had it or its process has ended; process number and start time together are the identity. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* MADV_WIPEONFORK */
#endif
#include "serve/counters.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cpu.h"

enum {
  USUAL_SLOTS = 16384, MOST_SLOTS = 1 << 20, ROWS = 256, NO_ROW = ROWS, NAME_MAX_BYTES = 244,
  SUM = 0, BYTES_IN = 1, BYTES_OUT = 2, FIRST_BUCKET = 3, VALUES = FIRST_BUCKET + ML_COUNTERS_BUCKETS
};

typedef atomic_uint_least64_t cell;

typedef struct slot {
  uint32_t hash;
  uint16_t row;
  uint8_t kind, length;
  char name[NAME_MAX_BYTES];
  _Alignas(64) cell values[VALUES];
} slot;

typedef struct process_row {
  _Alignas(64) cell process; /* 0: nobody; else identity() */
  atomic_int_least64_t in_flight;
} process_row;

typedef struct table {
  double started;
  uint32_t slot_count, index_mask;
  atomic_uint used;
  process_row rows[ROWS];
  _Alignas(64) slot slots[]; /* behind them: atomic_uint index[index_mask + 1], slot number + 1 or 0 */
} table;

/* the page that a child finds zeroed */
typedef struct own_page {
  atomic_uint row; /* number + 1, or TAKING */
  atomic_int pid;  /* looked at only when the kernel does not zero the page */
} own_page;
#define TAKING UINT32_MAX

struct ml_counters {
  atomic_uint references;
  bool wiped; /* the kernel zeroes `own` at a fork */
  table *table;
  size_t bytes, own_bytes;
  atomic_uint *index;
  own_page *own;
};

static const uint64_t times[ML_COUNTERS_TIMES] = {
  10000, 18000, 32400, 58320, 104976, 188956, 340122, 612220, 1101996, 1983592, 3570467, 6426841, 11568313, 20822964, 37481336,
  67466406, 121439531, 218591155, 393464080, 708235345, 1274823621, 2294682518, 4130428534, 7434771361, 13382588450, 24088659210,
  43359586579, 78047255843, 140485060518, 252873108932, 455171596079, 819308872942, 1474755971296,
};
static const uint64_t sizes[ML_COUNTERS_SIZES] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192};

const char *ml_counters_kind_name(ml_counters_kind kind) {
  static const char *const names[] = {
#define X(name, text) text,
    ML_COUNTERS_KIND_MAP(X)
#undef X
  };
  return kind < ML_COUNTERS_KINDS ? names[kind] : "unknown";
}

const uint64_t *ml_counters_bounds(ml_counters_kind kind, size_t *n) {
  bool timed = kind == ML_COUNTERS_REQUESTS || kind == ML_COUNTERS_SECONDS, sized = kind == ML_COUNTERS_SIZE;
  *n = timed ? ML_COUNTERS_TIMES : sized ? ML_COUNTERS_SIZES : 0;
  return timed ? times : sized ? sizes : NULL;
}

/* index of the first bound that is not below value, n when there is none */
static size_t bucket_of(const uint64_t *bounds, size_t n, uint64_t value) {
  size_t low = 0, high = n;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (bounds[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/* ---- processes ---- */

/* The first bytes of a small file under /proc; false when it cannot be read. */
static bool read_proc(char *out, size_t size, pid_t pid, const char *name) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%ld/%s", (long)pid, name);
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  ssize_t n = read(file, out, size - 1);
  close(file);
  if (n <= 0) return false;
  out[n] = '\0';
  return true;
}

/* Start in ticks since boot and state letter of a process; false: not to be had. */
static bool process_start(pid_t pid, uint64_t *ticks, char *state) {
  char text[1024];
  if (!read_proc(text, sizeof text, pid, "stat")) return false;
  const char *at = strrchr(text, ')'); /* the name before it may hold anything */
  if (at == NULL || at[1] != ' ' || at[2] == '\0') return false;
  *state = at[2];
  ++at;
  for (int field = 3; field <= 22; ++field) { /* at the blank before the field */
    if (field == 22) break;
    at = strchr(at + 1, ' ');
    if (at == NULL) return false;
  }
  *ticks = strtoull(at, NULL, 10);
  return true;
}

static uint64_t identity(pid_t pid) {
  uint64_t ticks = 0;
  char state;
  if (!process_start(pid, &ticks, &state)) ticks = 0;
  return (uint64_t)(uint32_t)pid << 32 | (uint32_t)ticks;
}

static pid_t pid_of(uint64_t process) { return (pid_t)(process >> 32); }

static bool lives(uint64_t process) {
  uint64_t ticks;
  char state;
  if (process == 0) return false;
  if (process_start(pid_of(process), &ticks, &state)) return (uint32_t)ticks == (uint32_t)process && state != 'Z' && state != 'X';
  return kill(pid_of(process), 0) == 0 || errno == EPERM; /* ESRCH, or no /proc here */
}

/* A row for this process; NO_ROW when all are taken. What an ended one was doing is forgotten. */
static uint32_t take_row(table *t) {
  uint64_t me = identity(getpid());
  for (uint32_t r = 0; r < ROWS; ++r) {
    uint64_t former = atomic_load(&t->rows[r].process);
    if (former != 0 && lives(former)) continue;
    if (!atomic_compare_exchange_strong(&t->rows[r].process, &former, me)) continue;
    atomic_store(&t->rows[r].in_flight, 0);
    uint32_t used = atomic_load(&t->used);
    for (uint32_t s = 0; s < used && s < t->slot_count; ++s)
      if (t->slots[s].row == r && t->slots[s].kind == ML_COUNTERS_GAUGE) atomic_store(&t->slots[s].values[SUM], 0);
    return r;
  }
  return NO_ROW;
}

__attribute__((cold, noinline)) static uint32_t find_row(ml_counters *c) {
  own_page *own = c->own;
  int pid = (int)getpid();
  for (;;) {
    uint32_t row = atomic_load(&own->row);
    if (row != 0 && row != TAKING && (c->wiped || atomic_load(&own->pid) == pid)) return row - 1;
    if (row == TAKING && (c->wiped || atomic_load(&own->pid) == pid)) { /* another thread is at it */
      sched_yield();
      continue;
    }
    if (!atomic_compare_exchange_strong(&own->row, &row, TAKING)) continue;
    atomic_store(&own->pid, pid);
    atomic_store(&own->row, take_row(c->table) + 1);
  }
}

static uint32_t own_row(ml_counters *c) {
  uint32_t row = atomic_load_explicit(&c->own->row, memory_order_relaxed);
  if (row != 0 && row != TAKING && c->wiped) return row - 1;
  return find_row(c);
}

/* ---- life ---- */

/* When this process was started, by the wall clock. */
static double started(void) {
  uint64_t ticks;
  char state;
  struct timespec now, up;
  long per_second = sysconf(_SC_CLK_TCK);
  clock_gettime(CLOCK_REALTIME, &now);
  double seconds = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
  if (per_second <= 0 || clock_gettime(CLOCK_BOOTTIME, &up) != 0 || !process_start(getpid(), &ticks, &state)) return seconds;
  double age = (double)up.tv_sec + (double)up.tv_nsec * 1e-9 - (double)ticks / (double)per_second;
  return age > 0 ? seconds - age : seconds;
}

static void *map(size_t bytes, int kind) {
  void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_NORESERVE | kind, -1, 0);
  return at == MAP_FAILED ? NULL : at;
}

static void destroy(ml_counters *c) {
  if (c->table != NULL) munmap(c->table, c->bytes);
  if (c->own != NULL) munmap(c->own, c->own_bytes);
  ml_free(c);
}

ml_status ml_counters_new(size_t slots, ml_counters **out, ml_error *err) {
  long page = sysconf(_SC_PAGESIZE);
  size_t index = 1;
  *out = NULL;
  if (slots == 0) slots = USUAL_SLOTS;
  if (slots <= ML_COUNTERS_KINDS || slots > MOST_SLOTS)
    return ml_fail(err, ML_INVALID_ARGUMENT, "counters: %d to %d series expected, got %zu", ML_COUNTERS_KINDS + 1, MOST_SLOTS, slots);
  while (index < 2 * slots) index *= 2;
  ml_counters *c = ml_alloc_zero(1, sizeof *c);
  if (c == NULL) return ml_fail_memory(err, sizeof *c, "counters");
  c->bytes = sizeof(table) + slots * sizeof(slot) + index * sizeof(atomic_uint);
  c->own_bytes = page > 0 ? (size_t)page : 4096;
  c->table = map(c->bytes, MAP_SHARED);
  c->own = map(c->own_bytes, MAP_PRIVATE);
  if (c->table == NULL || c->own == NULL) {
    destroy(c);
    return ml_fail_memory(err, sizeof(table) + slots * sizeof(slot), "counters");
  }
#ifdef MADV_WIPEONFORK
  c->wiped = madvise(c->own, c->own_bytes, MADV_WIPEONFORK) == 0;
#endif
  c->table->started = started();
  c->table->slot_count = (uint32_t)slots;
  c->table->index_mask = (uint32_t)index - 1;
  c->index = (atomic_uint *)(void *)&c->table->slots[slots];
  for (uint32_t kind = 0; kind < ML_COUNTERS_KINDS; ++kind) { /* what does not fit; found by number, never by name */
    c->table->slots[kind].kind = (uint8_t)kind;
    c->table->slots[kind].row = NO_ROW;
  }
  atomic_store(&c->table->used, ML_COUNTERS_KINDS);
  atomic_store(&c->references, 1);
  *out = c;
  return ML_OK;
}

ml_counters *ml_counters_retain(ml_counters *c) {
  atomic_fetch_add(&c->references, 1);
  return c;
}

void ml_counters_release(ml_counters *c) {
  if (c != NULL && atomic_fetch_sub(&c->references, 1) == 1) destroy(c);
}

/* ---- series ---- */

static uint32_t hash_of(uint32_t row, ml_counters_kind kind, const char *name, size_t length) {
  uint32_t hash = (2166136261u ^ row) * 16777619u;
  hash = (hash ^ (uint32_t)kind) * 16777619u;
  for (size_t i = 0; i < length; ++i) hash = (hash ^ (unsigned char)name[i]) * 16777619u;
  return hash ^ hash >> 15;
}

uint32_t ml_counters_series(ml_counters *c, ml_counters_kind kind, const char *name, size_t length) {
  table *t = c->table;
  if (kind >= ML_COUNTERS_KINDS) kind = ML_COUNTERS_COUNT;
  if (length == 0 || length > NAME_MAX_BYTES) return kind;
  uint32_t row = own_row(c), hash = hash_of(row, kind, name, length), mine = 0;
  for (uint32_t i = hash & t->index_mask;; i = (i + 1) & t->index_mask) { /* ends: at most half of the index is used */
    uint32_t there = atomic_load_explicit(&c->index[i], memory_order_acquire);
    if (there == 0) {
      if (mine == 0) {
        if (atomic_load(&t->used) >= t->slot_count) return kind;
        uint32_t taken = atomic_fetch_add(&t->used, 1);
        if (taken >= t->slot_count) return kind;
        slot *s = &t->slots[taken];
        s->hash = hash;
        s->kind = (uint8_t)kind;
        s->length = (uint8_t)length;
        s->row = (uint16_t)row;
        memcpy(s->name, name, length);
        mine = taken + 1;
      }
      if (atomic_compare_exchange_strong_explicit(&c->index[i], &there, mine, memory_order_acq_rel, memory_order_acquire))
        return mine - 1;
    }
    const slot *s = &t->slots[there - 1];
    if (s->hash == hash && s->row == row && s->kind == kind && s->length == length && memcmp(s->name, name, length) == 0)
      return there - 1;
  }
}

/* ---- counting ---- */

static void add(cell *value, uint64_t amount) { atomic_fetch_add_explicit(value, amount, memory_order_relaxed); }

static slot *slot_at(ml_counters *c, uint32_t series) { return &c->table->slots[series < c->table->slot_count ? series : 0]; }

void ml_counters_add(ml_counters *c, uint32_t series, int64_t amount) { add(&slot_at(c, series)->values[SUM], (uint64_t)amount); }

static void observe(slot *s, uint64_t value) {
  size_t n;
  const uint64_t *bounds = ml_counters_bounds(s->kind, &n);
  if (bounds == NULL) return;
  add(&s->values[SUM], value);
  add(&s->values[FIRST_BUCKET + bucket_of(bounds, n, value)], 1);
}

void ml_counters_observe(ml_counters *c, uint32_t series, uint64_t value) { observe(slot_at(c, series), value); }

uint64_t ml_counters_begin(ml_counters *c) {
  uint32_t row = own_row(c);
  if (row != NO_ROW) atomic_fetch_add_explicit(&c->table->rows[row].in_flight, 1, memory_order_relaxed);
  return ml_clock_ns();
}

uint64_t ml_counters_end(ml_counters *c, uint32_t series, uint64_t begun, uint64_t bytes_in, uint64_t bytes_out) {
  uint64_t now = ml_clock_ns(), took = now > begun ? now - begun : 0;
  slot *s = slot_at(c, series);
  uint32_t row = own_row(c);
  observe(s, took);
  if (bytes_in != 0) add(&s->values[BYTES_IN], bytes_in);
  if (bytes_out != 0) add(&s->values[BYTES_OUT], bytes_out);
  if (row != NO_ROW) atomic_fetch_sub_explicit(&c->table->rows[row].in_flight, 1, memory_order_relaxed);
  return took;
}

/* ---- reading ---- */

bool ml_counters_next(ml_counters *c, size_t *at, ml_counters_sample *out) {
  table *t = c->table;
  size_t entries = (size_t)t->index_mask + 1;
  while (*at < ML_COUNTERS_KINDS + entries) {
    size_t i = (*at)++;
    uint32_t number = i < ML_COUNTERS_KINDS ? (uint32_t)i + 1
      : atomic_load_explicit(&c->index[i - ML_COUNTERS_KINDS], memory_order_acquire);
    if (number == 0) continue;
    slot *s = &t->slots[number - 1];
    if (s->kind == ML_COUNTERS_GAUGE && (s->row >= ROWS || !lives(atomic_load(&t->rows[s->row].process)))) continue;
    *out = (ml_counters_sample){.kind = s->kind, .name = s->name, .length = s->length};
    out->sum = (int64_t)atomic_load(&s->values[SUM]);
    out->bytes_in = atomic_load(&s->values[BYTES_IN]);
    out->bytes_out = atomic_load(&s->values[BYTES_OUT]);
    for (size_t b = 0; b < ML_COUNTERS_BUCKETS; ++b) {
      out->buckets[b] = atomic_load(&s->values[FIRST_BUCKET + b]);
      out->count += out->buckets[b];
    }
    if (s->length == 0 && out->count == 0 && out->sum == 0) continue; /* everything has fitted */
    return true;
  }
  return false;
}

/* Bytes of a process that are in memory; 0 when that cannot be had. */
static uint64_t resident(pid_t pid) {
  char text[128];
  long page = sysconf(_SC_PAGESIZE);
  if (!read_proc(text, sizeof text, pid, "statm")) return 0;
  const char *second = strchr(text, ' ');
  return second == NULL || page <= 0 ? 0 : strtoull(second, NULL, 10) * (uint64_t)page;
}

bool ml_counters_next_process(ml_counters *c, size_t *at, ml_counters_process *out) {
  while (*at < ROWS) {
    process_row *r = &c->table->rows[(*at)++];
    uint64_t process = atomic_load(&r->process);
    if (!lives(process)) continue;
    *out = (ml_counters_process){.pid = pid_of(process), .in_flight = atomic_load(&r->in_flight)};
    out->resident_bytes = resident(out->pid);
    return true;
  }
  return false;
}

double ml_counters_started(const ml_counters *c) { return c->table->started; }
