/* ImageDecoder: pixels of an encoded image. encoded_stream (n) uint8 -> image (height, width, channels) uint8, three channels for
 * pixel_format RGB and BGR, one for Grayscale. The format is told by the first bytes. Conversions are those of the reference
 * implementation, Pillow's convert("RGB") and convert("L"): alpha is dropped, luminance is (19595 R + 38470 G + 7471 B) / 65536.
 * No gradient. Reference: ONNX ImageDecoder-20.
 *
 * The decoders are csrc/image. Where they are not linked into the program, image.so is loaded from the directory of this module, or (of the
 * library for C) from mlserve/ in it, the first time a model decodes an image, once for the process: a handle and a message that never change again. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* dladdr */
#endif
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "image/image.h"
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "pixel_format", ML_ATTR_STRING, false, "RGB (default), BGR or Grayscale" },
  { 0 },
};

/* ---------------------------------------------------------------- decoders ---- */
/* Null unless the decoders are linked in, which takes another reference to them. */
const ml_image_decoders *ml_image_decoders_1(void) __attribute__((weak, visibility("hidden")));

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const ml_image_decoders *decoders;
static char why_not[256]; /* there are none */

static void load(void) {
  Dl_info here;
  char path[1024];
  if (ml_image_decoders_1) {
    decoders = ml_image_decoders_1();
    return;
  }
  const char *slash = dladdr((const void *)&ml_op_image_decoder, &here) && here.dli_fname ? strrchr(here.dli_fname, '/') : NULL;
  int directory = slash ? (int)(slash - here.dli_fname) : 1;
  void *module = NULL;
  for (int i = 0; i < 2 && !module; i++) {
    int length = snprintf(path, sizeof path, "%.*s/%simage.so", directory, slash ? here.dli_fname : ".", i ? "mlserve/" : "");
    if (length < 0 || (size_t)length >= sizeof path) {
      snprintf(why_not, sizeof why_not, "the path of image.so is too long");
      return;
    }
    if (access(path, F_OK) == 0) module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  }
  ml_image_entry *entry = NULL;
  void *symbol = module ? dlsym(module, ML_IMAGE_ENTRY) : NULL;
  if (!symbol) {
    const char *message = dlerror();
    snprintf(why_not, sizeof why_not, "%s", message ? message : "image.so is not installed beside this module");
    return;
  }
  memcpy(&entry, &symbol, sizeof entry); /* POSIX lets a pointer to data hold one to a function, C has no cast for it */
  decoders = entry();
}

/* ---------------------------------------------------------------- the operator ---- */
static bool layout_of(const ml_op_ctx *ctx, ml_image_layout *layout) {
  static const struct { const char *name; ml_image_layout layout; } names[] = {
    { "RGB", ML_IMAGE_RGB }, { "BGR", ML_IMAGE_BGR }, { "Grayscale", ML_IMAGE_GRAY },
  };
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    if (!ml_attr_is(ctx->attrs, "pixel_format", "RGB", names[i].name)) continue;
    *layout = names[i].layout;
    return true;
  }
  return false;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_image_layout layout;
  ML_TRY(ml__op_check_types(ctx, err));
  if (x->rank != ML_UNKNOWN && x->rank != 1)
    return ml_fail(err, ML_INVALID_ARGUMENT, "encoded_stream: expected rank 1, got rank %d", x->rank);
  if (!layout_of(ctx, &layout)) {
    ml_str format = ml_attr_str(ctx->attrs, "pixel_format", "RGB");
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'pixel_format': expected RGB, BGR or Grayscale, got '%.*s'",
                   (int)(format.length < 40 ? format.length : 40), format.bytes);
  }
  int64_t dims[3] = { ML_UNKNOWN, ML_UNKNOWN, layout == ML_IMAGE_GRAY ? 1 : 3 };
  ml_op_set(ctx->out[0], ML_UINT8, dims, 3);
  return ML_OK;
}

static uint8_t *place(void *context, size_t height, size_t width, size_t channels, ml_error *err) {
  ml_op_ctx *ctx = context;
  int64_t dims[3] = { (int64_t)height, (int64_t)width, (int64_t)channels };
  return ctx->run->resize(ctx->run, ctx->out[0], dims, 3, err) == ML_OK ? ctx->out[0]->data : NULL;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_image_request request = { .bytes = x->data, .size = x->count, .max_pixels = ML_IMAGE_MAX_PIXELS, .place = place, .context = ctx };
  ml_image_format format = ml_image_recognise(request.bytes, request.size);
  if (format == ML_IMAGE_FORMATS) {
    char first[16] = "";
    for (size_t i = 0; i < 4 && i < request.size; i++) snprintf(first + 3 * i, 4, " %02x", request.bytes[i]);
    return ml_fail(err, ML_INVALID_ARGUMENT,
                   "encoded_stream: %zu bytes%s%s are no BMP, JPEG, JPEG 2000, PNG, PNM, TIFF or WebP image", request.size,
                   request.size ? " that start with" : "", first);
  }
  layout_of(ctx, &request.layout);
  pthread_once(&once, load);
  if (!decoders)
    return ml_fail(err, ML_UNIMPLEMENTED, "decoding %s needs the module image.so, which is built and installed beside mlserve's core: %s",
                   ml_image_format_name(format), why_not);
  if (!decoders->decode[format])
    return ml_fail(err, ML_UNIMPLEMENTED, "this build of mlserve does not decode %s: install %s with its headers and build again",
                   ml_image_format_name(format), ml_image_format_library(format));
  ml_status status = decoders->decode[format](&request, err);
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "%s image", ml_image_format_name(format));
}

const ml_op_def ml_op_image_decoder = {
  .name = "ImageDecoder", .domain = "", .since = 20, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_BIT(ML_UINT8) }, .formula = "image = pixels of encoded_stream", .infer = infer, .run = run,
};
