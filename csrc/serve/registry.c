/* Few entries, looked up by scanning an array sorted by handle (handles only grow, so appending keeps the order). */
#include "serve/registry.h"

#include <pthread.h>
#include <string.h>

typedef struct entry { int64_t handle; ml_servable *servable; } entry;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct { entry *entries; size_t n, capacity; int64_t last; } all;

/* Index of the entry, or n. The mutex is held. */
static size_t find(int64_t handle) {
  size_t low = 0, high = all.n;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (all.entries[middle].handle < handle) low = middle + 1;
    else high = middle;
  }
  return low < all.n && all.entries[low].handle == handle ? low : all.n;
}

ml_status ml_registry_add(ml_servable *servable, int64_t *handle, ml_error *err) {
  pthread_mutex_lock(&mutex);
  ml_status status = ml_grow(&all.entries, &all.capacity, all.n + 1, sizeof *all.entries, "the registry", err);
  if (status == ML_OK) {
    *handle = ++all.last;
    all.entries[all.n++] = (entry){*handle, ml_servable_retain(servable)};
  }
  pthread_mutex_unlock(&mutex);
  return status;
}

ml_servable *ml_registry_get(int64_t handle) {
  pthread_mutex_lock(&mutex);
  size_t i = find(handle);
  ml_servable *found = i < all.n ? ml_servable_retain(all.entries[i].servable) : NULL;
  pthread_mutex_unlock(&mutex);
  return found;
}

bool ml_registry_remove(int64_t handle) {
  ml_servable *gone = NULL;
  entry *empty = NULL;
  pthread_mutex_lock(&mutex);
  size_t i = find(handle);
  if (i < all.n) {
    gone = all.entries[i].servable;
    memmove(&all.entries[i], &all.entries[i + 1], (--all.n - i) * sizeof *all.entries);
    if (all.n == 0) { /* nothing stays allocated when nothing is deployed */
      empty = all.entries;
      all.entries = NULL;
      all.capacity = 0;
    }
  }
  pthread_mutex_unlock(&mutex);
  ml_free(empty);
  ml_servable_release(gone); /* outside the lock: it may free a whole model */
  return gone != NULL;
}
