/* The loader: what a load reports, warming up, threads that load and hand over, failing allocations, and the stamps by which changes are seen.
 * The model adds 10 to a row of two numbers, so expected answers are worked out by hand. Run under ThreadSanitizer by `make test-tsan`. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "serve/loader.h"
#include "tap.h"

static ml_error err;
static char root[64]; /* a directory of this run */

static const char *path_of(const char *name)
{
  static char paths[8][256];
  static unsigned next;
  char *path = paths[next++ % 8];
  snprintf(path, sizeof paths[0], "%s/%s", root, name);
  return path;
}

static void put(const char *name, const char *text)
{
  FILE *file = fopen(path_of(name), "wb");
  if (!file || fputs(text, file) < 0 || fclose(file) != 0) ok(false, "%s is written", name);
}

static void make_model(const char *name)
{
  ml_graph *g = NULL;
  ml_value *x = NULL, *ten = NULL, *y = NULL;
  ml_tensor *t = NULL;
  ml_graph_new("ten", &g, &err);
  ml_graph_input(g, "x", ML_FLOAT32, (int64_t[]){ ML_UNKNOWN, 2 }, 2, &x, &err);
  ml_tensor_new(ML_FLOAT32, (int64_t[]){ 1 }, 1, &t, &err);
  ((float *)t->view.data)[0] = 10;
  ml_graph_initializer(g, "ten", t, false, &ten, &err);
  ml_tensor_release(t);
  const char *out = "y";
  ml_value *in[] = { x, ten };
  ml_graph_node(g, ml_op_find("", "Add"), NULL, NULL, 0, 2, in, 1, &out, &y, &err);
  ml_graph_output(g, y, &err);
  ok(ml_onnx_save(g, path_of(name), &err) == ML_OK, "a model: %s", err.message);
  ml_graph_free(g);
}

static bool answers(ml_servable *servable)
{
  ml_json_writer out;
  const char *body = "{\"instances\":[[1,-2]]}";
  ml_json_writer_init(&out);
  bool right = ml_servable_predict_json(servable, body, strlen(body), NULL, &out, &err) == ML_OK && out.length > 0;
  const char *at = right ? memchr(out.text, '[', out.length) : NULL;
  right = at && strncmp(at, "[[11.0, 8.0]", 12) == 0;
  ml_json_writer_free(&out);
  return right;
}

static ml_load what_of(const char *model, const char *warm_up, uint32_t runs)
{
  return (ml_load){ .path = model, .model = "ten", .version = 7, .warm_up = warm_up, .warm_up_runs = runs };
}

/* Status of a load whose warm-up file has this text. */
static ml_status warmed(const char *text, uint32_t runs, ml_load_report *report)
{
  ml_servable *servable = NULL;
  put("warm.jsonl", text);
  ml_load what = what_of(path_of("model.onnx"), path_of("warm.jsonl"), runs);
  ml_status status = ml_load_servable(&what, &servable, report, &err);
  if ((status == ML_OK) != (servable != NULL)) ok(false, "a servable when, and only when, all went well");
  ml_servable_release(servable);
  return status;
}

static void test_load(void)
{
  ml_servable *servable = NULL;
  ml_load_report report;
  ml_load what = what_of(path_of("model.onnx"), path_of("no such file"), 2);
  ok(ml_load_servable(&what, &servable, &report, &err) == ML_OK && answers(servable), "loaded");
  ok(strcmp(ml_servable_model(servable), "ten") == 0 && ml_servable_version(servable) == 7, "under its name and version");
  ok(report.load_ns > 0 && report.warm_up_ns > 0 && report.run_ns > 0 && report.requests == 0, "warmed up with zeros");
  ml_servable_release(servable);
  what.warm_up_runs = 0;
  ok(ml_load_servable(&what, &servable, &report, &err) == ML_OK && report.run_ns == 0 && report.warm_up_ns == 0, "no warm-up when none is wanted");
  ml_servable_release(servable);
  what.path = path_of("gone/model.onnx");
  ok(ml_load_servable(&what, &servable, &report, &err) == ML_NOT_FOUND && !servable && strstr(err.message, "gone/model.onnx"), "%s", err.message);
  put("bad.onnx", "\x08\x08rubbish");
  what.path = path_of("bad.onnx");
  ok(ml_load_servable(&what, &servable, &report, &err) != ML_OK && !servable && strstr(err.message, "bad.onnx"), "%s", err.message);
  what.path = root;
  ok(ml_load_servable(&what, &servable, &report, &err) != ML_OK && !servable, "a directory: %s", err.message);
}

static void test_warm_up(void)
{
  ml_load_report report;
  const char *good = "{\"instances\":[[1,2]]}\n \t\r\n\n{\"inputs\":[[1,2],[3,4]]}";
  ok(warmed(good, 3, &report) == ML_OK && report.requests == 2 && report.run_ns > 0, "two requests, blank lines between them, no line end");
  ok(warmed("\n\n", 1, &report) == ML_OK && report.requests == 0 && report.run_ns > 0, "no requests: zeros");
  ok(warmed("{\"instances\":[[1,2]]}\n\n{\"instances\":[[1,2,3]]}\n", 1, &report) == ML_INVALID_ARGUMENT && strstr(err.message, "warm.jsonl', line 3"),
     "%s", err.message);
  ok(warmed("nonsense", 1, &report) == ML_INVALID_ARGUMENT && strstr(err.message, "line 1"), "%s", err.message);
  ok(warmed("nonsense", 0, &report) == ML_OK, "not read when no warm-up is wanted");
  static char many[(ML_WARM_UP_MOST + 1) * 22 + 1];
  for (size_t i = 0; i <= ML_WARM_UP_MOST; i++) memcpy(many + i * 22, "{\"instances\":[[1,2]]}\n", 22);
  ok(warmed(many, 1, &report) == ML_INVALID_ARGUMENT && strstr(err.message, "more than 1000 requests"), "%s", err.message);
  many[ML_WARM_UP_MOST * 22] = '\0';
  ok(warmed(many, 1, &report) == ML_OK && report.requests == ML_WARM_UP_MOST, "as many as there may be");
}

static bool readable(const ml_loader *loader, int milliseconds)
{
  struct pollfd wait = { .fd = ml_loader_descriptor(loader), .events = POLLIN };
  int result;
  do result = poll(&wait, 1, milliseconds);
  while (result < 0);
  return result == 1;
}

static void test_thread(void)
{
  ml_loader *loader = NULL;
  ml_servable *servable = NULL;
  ml_load_report report;
  ml_status status;
  char given[256], model[8] = "ten";
  ok(ml_loader_new(&loader, &err) == ML_OK && !ml_loader_busy(loader) && !readable(loader, 0), "a loader without work");
  ok(fcntl(ml_loader_descriptor(loader), F_GETFD) == FD_CLOEXEC, "programs that are started do not get its descriptor");
  ok(!ml_loader_take(loader, &servable, &report, &status, &err) && !servable, "nothing to take");
  snprintf(given, sizeof given, "%s", path_of("model.onnx"));
  ml_load what = what_of(given, NULL, 1);
  what.model = model;
  ok(ml_loader_start(loader, &what, &err) == ML_OK && ml_loader_busy(loader), "begun");
  memset(given, 'x', 5); /* what was given has been copied */
  memset(model, 'x', 3);
  ok(ml_loader_start(loader, &what, &err) == ML_UNAVAILABLE, "one at a time: %s", err.message);
  ok(readable(loader, 20000), "it says when it has ended");
  ok(ml_loader_start(loader, &what, &err) == ML_UNAVAILABLE, "the result is to be taken first");
  ok(ml_loader_take(loader, &servable, &report, &status, &err) && status == ML_OK && answers(servable), "taken");
  ok(strcmp(ml_servable_model(servable), "ten") == 0 && report.run_ns > 0, "with its name and report");
  uint64_t allocations = ml_alloc_get_stats().allocations;
  const ml_probe *probe = ml_servable_probe(servable);
  ok(probe->run_ns > 0 && probe->mergeable && ml_alloc_get_stats().allocations == allocations, "and what it is like, without another run");
  ml_servable_release(servable);
  ok(!ml_loader_busy(loader) && !readable(loader, 0) && !ml_loader_take(loader, &servable, &report, &status, &err), "taken once");
  what = what_of(path_of("gone.onnx"), NULL, 1);
  ml_loader_start(loader, &what, &err);
  ok(readable(loader, 20000) && ml_loader_take(loader, &servable, &report, &status, &err) && status == ML_NOT_FOUND && !servable &&
     strstr(err.message, "gone.onnx"), "a load that fails: %s", err.message);
  what = what_of(path_of("model.onnx"), NULL, 1);
  ok(ml_loader_start(loader, &what, &err) == ML_OK, "and again");
  ml_loader_free(loader); /* under way, or not taken */
  ml_loader_free(NULL);
}

/* Models change hands between threads while others load: what ThreadSanitizer looks at. */
static void *swap_versions(void *argument)
{
  unsigned *right = argument;
  ml_loader *loader = NULL;
  ml_servable *current = NULL;
  ml_error mine;
  if (ml_loader_new(&loader, &mine) != ML_OK) return NULL;
  for (int i = 0; i < 20; i++) {
    ml_servable *next = NULL;
    ml_load_report report;
    ml_status status = ML_OK;
    char path[256];
    snprintf(path, sizeof path, "%s/model.onnx", root);
    ml_load what = what_of(path, NULL, 1);
    if (ml_loader_start(loader, &what, &mine) != ML_OK) break;
    while (!ml_loader_take(loader, &next, &report, &status, &mine)) {
      ml_json_writer out;
      ml_json_writer_init(&out);
      if (current) ml_servable_predict_json(current, "{\"instances\":[[1,2]]}", 21, NULL, &out, &mine);
      ml_json_writer_free(&out);
      readable(loader, 1);
    }
    ml_servable_release(current);
    current = next;
    if (status == ML_OK && next) (*right)++;
  }
  ml_servable_release(current);
  ml_loader_free(loader);
  return NULL;
}

static void test_threads(void)
{
  pthread_t threads[4];
  unsigned right[4] = { 0 }, sum = 0;
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, swap_versions, &right[i]);
  for (int i = 0; i < 4; i++) {
    pthread_join(threads[i], NULL);
    sum += right[i];
  }
  ok(sum == 80, "four threads swap models, %u of 80 times", sum);
}

/* The n-th allocation fails, in this thread or in the loader's: an error, nothing kept, and the next load goes well. */
static void test_memory(void)
{
  put("warm.jsonl", "{\"instances\":[[1,2]]}\n");
  ml_load what = what_of(path_of("model.onnx"), path_of("warm.jsonl"), 1);
  for (int in_thread = 0; in_thread < 2; in_thread++) {
    bool odd = false, leaked = false;
    uint64_t n = 1, failed = 0;
    int good = 0;
    for (; n < 5000 && good < 3; n++) {
      uint64_t live = ml_alloc_get_stats().live_blocks;
      ml_loader *loader = NULL;
      ml_servable *servable = NULL;
      ml_load_report report;
      ml_alloc_fail_at(n, false);
      ml_status status = ML_OK;
      if (in_thread) {
        status = ml_loader_new(&loader, &err);
        if (status == ML_OK) status = ml_loader_start(loader, &what, &err);
        if (status == ML_OK) odd = odd || !readable(loader, 20000) || !ml_loader_take(loader, &servable, &report, &status, &err);
      } else {
        status = ml_load_servable(&what, &servable, &report, &err);
      }
      ml_alloc_fail_at(0, false);
      if (status == ML_OK) {
        good++; /* something is tried again, or can do without */
        odd = odd || !servable || !answers(servable);
      } else {
        good = 0;
        failed++;
        odd = odd || servable || status != ML_RESOURCE_EXHAUSTED;
      }
      ml_servable_release(servable);
      ml_loader_free(loader);
      leaked = leaked || ml_alloc_get_stats().live_blocks != live;
    }
    ok(!odd && !leaked && failed > 20 && n < 5000, "%s: each allocation may fail, %llu of %llu did", in_thread ? "in a thread" : "in this thread",
       (unsigned long long)failed, (unsigned long long)n - 1);
  }
}

static void test_descriptors(void)
{
  struct rlimit former, few;
  ml_loader *loader = NULL;
  getrlimit(RLIMIT_NOFILE, &former);
  few = former;
  few.rlim_cur = 3;
  setrlimit(RLIMIT_NOFILE, &few);
  ml_status status = ml_loader_new(&loader, &err);
  ml_servable *servable = NULL;
  ml_load_report report;
  ml_load what = what_of(path_of("model.onnx"), NULL, 0);
  ml_error second;
  ml_status load = ml_load_servable(&what, &servable, &report, &second);
  setrlimit(RLIMIT_NOFILE, &former);
  ok(status == ML_RESOURCE_EXHAUSTED && !loader, "no descriptor is left: %s", err.message);
  ok(load != ML_OK && !servable && strstr(second.message, "Too many open files"), "%s", second.message);
}

static ml_version_stamp look(const char *name)
{
  ml_version_stamp stamp = { 0 };
  if (ml_version_look(path_of(name), &stamp, &err) != ML_OK) ok(false, "%s: %s", name, err.message);
  return stamp;
}

static void test_look(void)
{
  ml_version_stamp a, b;
  mkdir(path_of("1"), 0700);
  a = look("1");
  ok(!a.model && a.bytes == 0, "an empty directory");
  put("1/model.onnx", "abc");
  b = look("1");
  ok(b.model && b.bytes == 3 && b.hash != a.hash && b.age < 3600, "a file appears");
  a = look("1");
  ok(a.hash == b.hash, "the same again");
  put("1/model.onnx", "abcd");
  b = look("1");
  ok(b.hash != a.hash && b.bytes == 4, "it grows");
  const struct timespec old[] = { { .tv_sec = 1000000000 }, { .tv_sec = 1000000000 } };
  utimensat(AT_FDCWD, path_of("1/model.onnx"), old, 0);
  a = look("1");
  ok(a.hash != b.hash && a.age < 3600, "another time: the age is that of the change, whatever the file says of itself");
  mkdir(path_of("1/assets.extra"), 0700);
  put("1/assets.extra/warmup.jsonl", "x");
  b = look("1");
  ok(b.hash != a.hash && b.bytes == 5, "folders count");
  rename(path_of("1/model.onnx"), path_of("1/assets.extra/model.onnx"));
  a = look("1");
  ok(!a.model && a.hash != b.hash, "the same file in a folder is another thing, and no model");
  mkdir(path_of("1/model.onnx"), 0700);
  ok(!look("1").model, "a directory is none");
  symlink("nowhere", path_of("1/link"));
  mkdir(path_of("1/assets.extra/deep"), 0700);
  mkdir(path_of("1/assets.extra/deep/deeper"), 0700);
  b = look("1");
  put("1/assets.extra/deep/deeper/file", "x");
  ok(look("1").hash == b.hash, "three levels are looked at");
  put("1/assets.extra/deep/file", "x");
  ok(look("1").hash != b.hash, "and these are");
  ok(ml_version_look(path_of("2"), &a, &err) == ML_NOT_FOUND && strstr(err.message, "/2"), "%s", err.message);
  ok(ml_version_look(path_of("model.onnx"), &a, &err) == ML_NOT_FOUND, "%s", err.message);
}

int main(void)
{
  snprintf(root, sizeof root, "/tmp/mlserve-loader-XXXXXX");
  if (!mkdtemp(root)) return 1;
  make_model("model.onnx");
  test_load();
  test_warm_up();
  test_thread();
  test_threads();
  test_memory();
  test_descriptors();
  test_look();
  ml_release_memory();
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", root);
  if (system(command) != 0) return 1;
  ok(ml_alloc_get_stats().live_blocks == 0, "nothing leaks: %llu blocks", (unsigned long long)ml_alloc_get_stats().live_blocks);
  return done();
}
