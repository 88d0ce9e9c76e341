/* One thread per load, joined when its result is taken: loads are rare, and a thread that does not exist cannot be in the way of a fork. The pipe
 * carries one byte per ended load, so that an event loop may wait for it. */
#include "serve/loader.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "base/cpu.h"
#include "base/file.h"

enum {
  ZEROS_MOST = 1 << 28, /* bytes of an input of zeros: more is no plausible request */
  LOOK_DEPTH = 3, LOOK_MOST = 10000
};

/* ---- warming up ---- */
static ml_status take_nothing(void *context, ml_session *session, ml_error *err) {
  (void)context, (void)session, (void)err;
  return ML_OK;
}

static void note_run(ml_load_report *report, uint64_t begin) {
  uint64_t ns = ml_clock_ns() - begin;
  if (report->run_ns == 0 || ns < report->run_ns) report->run_ns = ns ? ns : 1;
}

/* An input of zeros where open dimensions are 1; false: none can be guessed. */
static bool zeros_of(const ml_value *value, ml_tensor **out) {
  int64_t dims[ML_MAX_RANK];
  size_t bytes = ml_dtype_size(value->dtype);
  if (value->type || value->rank < 0 || bytes == 0) return false;
  for (int32_t i = 0; i < value->rank; i++) {
    dims[i] = value->dims[i] < 0 ? 1 : value->dims[i];
    if (!ml_mul_size(bytes, (size_t)dims[i], &bytes) || bytes > ZEROS_MOST) return false;
  }
  return ml_tensor_new(value->dtype, dims, value->rank, out, NULL) == ML_OK;
}

static void warm_up_zeros(ml_program *program, uint32_t runs, ml_load_report *report) {
  const ml_graph *g = ml_program_graph(program);
  ml_tensor **tensors = ml_alloc_zero(g->n_inputs + 1, sizeof *tensors);
  ml_view *views = ml_alloc_zero(g->n_inputs + 1, sizeof *views);
  bool ready = tensors && views;
  for (size_t i = 0; ready && i < g->n_inputs; i++) {
    ready = zeros_of(g->inputs[i], &tensors[i]);
    if (ready) views[i] = tensors[i]->view;
  }
  for (uint32_t r = 0; ready && r < runs + 1; r++) { /* one more: the first makes the session */
    uint64_t begin = ml_clock_ns();
    ml_error ignored;
    ready = ml_program_run(program, views, take_nothing, NULL, &ignored) == ML_OK;
    if (ready) note_run(report, begin);
  }
  for (size_t i = 0; tensors && i < g->n_inputs; i++) ml_tensor_release(tensors[i]);
  ml_free(tensors);
  ml_free(views);
}

static ml_status warm_up_line(ml_servable *servable, const char *line, size_t length, uint32_t runs, ml_load_report *report, ml_error *err) {
  ml_json_writer out;
  ml_status status = ML_OK;
  ml_json_writer_init(&out);
  for (uint32_t r = 0; r < runs && status == ML_OK; r++) {
    uint64_t begin = ml_clock_ns();
    out.length = 0;
    status = ml_servable_predict_json(servable, line, length, NULL, &out, err);
    if (status == ML_OK) note_run(report, begin);
  }
  ml_json_writer_free(&out);
  return status;
}

static bool blank(const char *text, size_t length) {
  while (length > 0 && strchr(" \t\r", text[length - 1])) length--;
  return length == 0;
}

static ml_status warm_up_lines(ml_servable *servable, const ml_load *what, ml_load_report *report, const char *bytes, size_t size, ml_error *err) {
  size_t number = 0;
  for (const char *line = bytes, *end = bytes + size; line < end;) {
    const char *stop = memchr(line, '\n', (size_t)(end - line));
    size_t length = stop ? (size_t)(stop - line) : (size_t)(end - line);
    number++;
    if (!blank(line, length)) {
      if (++report->requests > ML_WARM_UP_MOST)
        return ml_fail(err, ML_INVALID_ARGUMENT, "warm-up '%s': more than %d requests", what->warm_up, ML_WARM_UP_MOST);
      ml_status status = warm_up_line(servable, line, length, what->warm_up_runs, report, err);
      if (status != ML_OK) return ml_fail_in(err, status, "warm-up '%s', line %zu", what->warm_up, number);
    }
    line += length + 1;
  }
  return ML_OK;
}

static ml_status warm_up(ml_servable *servable, const ml_load *what, ml_load_report *report, ml_error *err) {
  ml_file_map map = { NULL, 0 };
  ml_status status = what->warm_up ? ml_file_open_copy(what->warm_up, &map, err) : ML_NOT_FOUND;
  if (status == ML_OK) {
    status = warm_up_lines(servable, what, report, (const char *)map.bytes, map.size, err);
    ml_file_unmap(&map);
  } else if (status == ML_NOT_FOUND) {
    status = ML_OK;
  }
  if (status == ML_OK && report->requests == 0) warm_up_zeros(ml_servable_program(servable), what->warm_up_runs, report);
  return status;
}

/* ---- loading ---- */
ml_status ml_load_servable(const ml_load *what, ml_servable **out, ml_load_report *report, ml_error *err) {
  ml_graph *graph = NULL;
  ml_program *program = NULL;
  ml_servable *servable = NULL;
  uint64_t begin = ml_clock_ns();
  ml_compile_options compile = { .level = ML_LEVEL_FAST, .max_memory = what->max_memory, .max_loop = what->max_loop };
  ml_servable_options options = { .model = what->model, .version = what->version };
  *out = NULL;
  *report = (ml_load_report){ 0 };
  ml_onnx_limits limits = what->limits;
  limits.copy = true; /* whoever publishes models may write over one that is being served */
  ml_status status = ml_onnx_load(what->path, &limits, &graph, err);
  if (status == ML_OK) {
    status = ml_program_new(graph, &compile, &program, err);
    if (status == ML_OK) status = ml_servable_new(program, &options, &servable, err);
    if (status != ML_OK) ml_fail_in(err, status, "%s", what->path);
  }
  ml_graph_free(graph);
  ml_program_release(program);
  report->load_ns = ml_clock_ns() - begin;
  if (status == ML_OK && what->warm_up_runs > 0) {
    begin = ml_clock_ns();
    status = warm_up(servable, what, report, err);
    report->warm_up_ns = ml_clock_ns() - begin;
  }
  if (status == ML_OK) *out = servable;
  else ml_servable_release(servable);
  return status;
}

struct ml_loader {
  int pipe[2];
  bool started;  /* a thread waits to be joined */
  pthread_t thread;
  ml_load what;
  char *path, *model, *warm_up;
  /* written by the thread, read after it was joined */
  ml_status status;
  ml_servable *servable;
  ml_load_report report;
  ml_error err;
};

ml_status ml_loader_new(ml_loader **out, ml_error *err) {
  ml_loader *loader = ml_alloc_zero(1, sizeof *loader);
  *out = NULL;
  if (!loader) return ml_fail_memory(err, sizeof *loader, "a loader");
  if (pipe(loader->pipe) != 0) {
    int number = errno;
    ml_free(loader);
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "cannot make a pipe: %s", strerror(number));
  }
  for (int i = 0; i < 2; i++) {
    (void)fcntl(loader->pipe[i], F_SETFD, FD_CLOEXEC);
    (void)fcntl(loader->pipe[i], F_SETFL, O_NONBLOCK);
  }
  *out = loader;
  return ML_OK;
}

static void forget(ml_loader *loader) {
  ml_free(loader->path);
  ml_free(loader->model);
  ml_free(loader->warm_up);
  loader->path = loader->model = loader->warm_up = NULL;
}

void ml_loader_free(ml_loader *loader) {
  if (!loader) return;
  if (loader->started) {
    pthread_join(loader->thread, NULL);
    ml_servable_release(loader->servable);
  }
  forget(loader);
  close(loader->pipe[0]);
  close(loader->pipe[1]);
  ml_free(loader);
}

int ml_loader_descriptor(const ml_loader *loader) { return loader->pipe[0]; }
bool ml_loader_busy(const ml_loader *loader) { return loader->started; }

static void *run(void *context) {
  ml_loader *loader = context;
  ssize_t n;
  loader->status = ml_load_servable(&loader->what, &loader->servable, &loader->report, &loader->err);
  if (loader->status == ML_OK) ml_servable_probe(loader->servable); /* so that nobody who serves has to wait for it */
  do n = write(loader->pipe[1], "", 1);
  while (n < 0 && errno == EINTR);
  return NULL;
}

static bool copy_text(const char *text, char **out) {
  *out = text ? ml_strndup(text, strlen(text)) : NULL;
  return !text || *out;
}

ml_status ml_loader_start(ml_loader *loader, const ml_load *what, ml_error *err) {
  sigset_t all, before;
  if (loader->started) return ml_fail(err, ML_UNAVAILABLE, "a model is being loaded");
  loader->what = *what;
  bool copied = copy_text(what->path, &loader->path);
  copied = copy_text(what->model, &loader->model) && copied;
  copied = copy_text(what->warm_up, &loader->warm_up) && copied;
  if (!copied) {
    forget(loader);
    return ml_fail_memory(err, strlen(what->path), "a path");
  }
  loader->what.path = loader->path;
  loader->what.model = loader->model;
  loader->what.warm_up = loader->warm_up;
  loader->servable = NULL;
  sigfillset(&all); /* signals are for the thread that serves */
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int number = pthread_create(&loader->thread, NULL, run, loader);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (number != 0) {
    forget(loader);
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "cannot start a thread: %s", strerror(number));
  }
  loader->started = true;
  return ML_OK;
}

bool ml_loader_take(ml_loader *loader, ml_servable **out, ml_load_report *report, ml_status *status, ml_error *err) {
  char byte;
  ssize_t n;
  *out = NULL;
  if (!loader->started) return false;
  do n = read(loader->pipe[0], &byte, 1);
  while (n < 0 && errno == EINTR);
  if (n != 1) return false;
  pthread_join(loader->thread, NULL);
  loader->started = false;
  forget(loader);
  *out = loader->servable;
  *report = loader->report;
  *status = loader->status;
  if (loader->status != ML_OK) *err = loader->err;
  loader->servable = NULL;
  return true;
}

/* ---- version directories ---- */
typedef struct look { ml_version_stamp *stamp; size_t root, entries; double newest; } look; /* root: length of the version directory's path */

static uint64_t mix(uint64_t hash, const void *bytes, size_t size) { /* FNV-1a */
  for (const unsigned char *p = bytes, *end = p + size; p < end; p++) hash = (hash ^ *p) * UINT64_C(1099511628211);
  return hash;
}

static double seconds(struct timespec time) { return (double)time.tv_sec + (double)time.tv_nsec * 1e-9; }

static void note_file(look *at, const char *name, const struct stat *info) {
  uint64_t numbers[] = { (uint64_t)info->st_size, (uint64_t)info->st_ino, (uint64_t)info->st_mtim.tv_sec, (uint64_t)info->st_mtim.tv_nsec };
  /* files come in any order, so their hashes are added */
  at->stamp->hash += mix(mix(UINT64_C(14695981039346656037), name, strlen(name)), numbers, sizeof numbers);
  at->stamp->bytes += (uint64_t)info->st_size;
  double changed = seconds(info->st_mtim), moved = seconds(info->st_ctim);
  if (moved > changed) changed = moved;
  if (changed > at->newest) at->newest = changed;
}

static ml_status look_into(look *at, const char *path, int depth, ml_error *err) {
  DIR *directory = opendir(path);
  ml_status status = ML_OK;
  if (!directory) {
    int number = errno;
    return ml_fail(err, number == ENOENT || number == ENOTDIR ? ML_NOT_FOUND : ML_UNAVAILABLE, "%s: %s", path, strerror(number));
  }
  errno = 0;
  for (const struct dirent *entry = readdir(directory); entry && status == ML_OK && at->entries < LOOK_MOST; errno = 0, entry = readdir(directory)) {
    char name[4096];
    struct stat info;
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    at->entries++;
    if (snprintf(name, sizeof name, "%s/%s", path, entry->d_name) >= (int)sizeof name) continue;
    if (stat(name, &info) != 0) continue; /* gone meanwhile, or a link to nowhere */
    if (S_ISREG(info.st_mode)) {
      note_file(at, name + at->root, &info);
      if (depth == 1 && strcmp(entry->d_name, "model.onnx") == 0) at->stamp->model = true;
    } else if (S_ISDIR(info.st_mode) && depth < LOOK_DEPTH) {
      ml_error ignored; /* a folder that cannot be read does not concern the model, or its load will say so */
      if (look_into(at, name, depth + 1, &ignored) != ML_OK) at->stamp->hash++;
    }
  }
  if (errno != 0) status = ml_fail(err, ML_UNAVAILABLE, "%s: %s", path, strerror(errno));
  closedir(directory);
  return status;
}

ml_status ml_version_look(const char *path, ml_version_stamp *out, ml_error *err) {
  look at = { .stamp = out, .root = strlen(path) };
  struct timespec now;
  *out = (ml_version_stamp){ 0 };
  ML_TRY(look_into(&at, path, 1, err));
  clock_gettime(CLOCK_REALTIME, &now);
  out->age = seconds(now) - at.newest;
  return ML_OK;
}

void ml_release_memory(void) {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}
