/* From a file to a servable, in this thread or in one of its own.
 * Lives here: what happens before a version is AVAILABLE (read, compile, warm up), the thread that does it while requests are answered, and the
 * stamp by which somebody who watches a version directory sees that it has changed. May include: servable, format, base.
 * Ownership: a finished servable belongs to who takes it. A loader belongs to one thread; one load at a time. */
#ifndef ML_SERVE_LOADER_H
#define ML_SERVE_LOADER_H
#include "format/onnx.h"
#include "serve/servable.h"

enum { ML_WARM_UP_MOST = 1000 }; /* requests in a file, as in TensorFlow Serving */

typedef struct ml_load {
  const char *path;       /* the .onnx file */
  const char *model;      /* NULL: the graph's name */
  int64_t version;
  ml_onnx_limits limits;
  size_t max_memory;      /* see ml_compile_options */
  uint64_t max_loop;
  const char *warm_up;    /* file with the body of a predict request on each line; NULL or no such file: zeros of the inputs' shapes */
  uint32_t warm_up_runs;  /* times each request is run; 0: no warm-up */
} ml_load;

typedef struct ml_load_report {
  uint64_t load_ns, warm_up_ns; /* reading and compiling; all of the warm-up */
  uint64_t run_ns;              /* the fastest run of the warm-up; 0: none */
  size_t requests;              /* recorded requests that were run */
} ml_load_report;

/* Recorded requests must succeed, else the load fails naming the line; zeros are a guess that may fail without harm. */
ml_status ml_load_servable(const ml_load *what, ml_servable **out, ml_load_report *report, ml_error *err);

typedef struct ml_loader ml_loader;
ml_status ml_loader_new(ml_loader **out, ml_error *err); /* no thread yet */
void ml_loader_free(ml_loader *loader);                  /* waits for a load under way; NULL allowed */
int ml_loader_descriptor(const ml_loader *loader);       /* readable when a load has ended */
/* Copies what. UNAVAILABLE: one is under way, or has ended and was not taken. */
ml_status ml_loader_start(ml_loader *loader, const ml_load *what, ml_error *err);
bool ml_loader_busy(const ml_loader *loader);
/* False: nothing has ended. Else *status, and *out or err, are the load's. */
bool ml_loader_take(ml_loader *loader, ml_servable **out, ml_load_report *report, ml_status *status, ml_error *err);

typedef struct ml_version_stamp {
  bool model;      /* there is a regular file model.onnx */
  uint64_t hash;   /* of names, sizes, times and numbers of all files: another one means that something has changed */
  uint64_t bytes;  /* of all files */
  double age;      /* seconds since the last change, by the wall clock; may be negative */
} ml_version_stamp;
/* Looks at a version directory and the folders in it (three levels, 10,000 entries). */
ml_status ml_version_look(const char *path, ml_version_stamp *out, ml_error *err);

/* Gives memory that was freed back to the system where the C library keeps it. */
void ml_release_memory(void);

#endif
