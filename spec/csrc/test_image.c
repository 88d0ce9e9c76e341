/* csrc/image, linked statically: ONNX's own cases in spec/golden/image, cut short at every byte, with every allocation failing, over
 * the limit; orientation; what only the bytes of BMP and PNM can say. Other pictures are compared with Pillow (spec/interop). */
#include <string.h>

#include "base/file.h"
#include "format/onnx.h"
#include "image/image.h"
#include "tap.h"

typedef struct picture {
  uint8_t *pixels;
  size_t height, width, channels;
  bool refuse; /* place() fails */
} picture;

static uint8_t *place(void *context, size_t height, size_t width, size_t channels, ml_error *err) {
  picture *p = context;
  if (p->refuse) {
    ml_fail(err, ML_UNAVAILABLE, "no room");
    return NULL;
  }
  p->pixels = ml_alloc_zero(height * width, channels);
  if (!p->pixels) ml_fail_memory(err, height * width * channels, "pixels");
  p->height = height;
  p->width = width;
  p->channels = channels;
  return p->pixels;
}

static ml_status decode(const uint8_t *bytes, size_t size, ml_image_layout layout, size_t most, picture *out, ml_error *err) {
  ml_image_request request = { .bytes = bytes, .size = size, .layout = layout, .max_pixels = most, .place = place, .context = out };
  ml_image_format format = ml_image_recognise(bytes, size);
  err->message[0] = '\0';
  out->pixels = NULL;
  if (format == ML_IMAGE_FORMATS) return ml_fail(err, ML_INVALID_ARGUMENT, "no image");
  if (!ml_image_decoders_1()->decode[format]) return ml_fail(err, ML_UNIMPLEMENTED, "built without %s", ml_image_format_library(format));
  return ml_image_decoders_1()->decode[format](&request, err);
}

static ml_status decode_text(const char *bytes, size_t size, ml_image_layout layout, picture *out, ml_error *err) {
  return decode((const uint8_t *)bytes, size, layout, ML_IMAGE_MAX_PIXELS, out, err);
}

static ml_tensor *read_tensor(const char *name, const char *file) {
  char path[256];
  ml_file_map map;
  ml_tensor *tensor = NULL;
  ml_error err;
  snprintf(path, sizeof path, "spec/golden/image/test_image_decoder_decode_%s/test_data_set_0/%s.pb", name, file);
  if (!ok(ml_file_open_map(path, &map, &err) == ML_OK, "%s: %s", path, err.message)) return NULL;
  ok(ml_onnx_tensor_read(map.bytes, map.size, path, &tensor, NULL, NULL, &err) == ML_OK, "%s: %s", path, err.message);
  ml_file_unmap(&map);
  return tensor;
}

static bool equal(const picture *p, const ml_tensor *expected, int tolerance) {
  const ml_view *v = &expected->view;
  if (v->rank != 3 || v->dims[0] != (int64_t)p->height || v->dims[1] != (int64_t)p->width || v->dims[2] != (int64_t)p->channels) return false;
  for (size_t i = 0; i < v->count; i++)
    if (abs(p->pixels[i] - ((const uint8_t *)v->data)[i]) > tolerance) return false;
  return true;
}

static void test_official(const char *name, ml_image_layout layout, int tolerance) {
  ml_tensor *in = read_tensor(name, "input_0"), *expected = read_tensor(name, "output_0");
  ml_error err;
  picture p = { 0 };
  if (in && expected) {
    const uint8_t *bytes = in->view.data;
    const size_t size = in->view.count;
    uint64_t live = ml_alloc_get_stats().live_blocks;
    ok(decode(bytes, size, layout, ML_IMAGE_MAX_PIXELS, &p, &err) == ML_OK, "%s: %s", name, err.message);
    ok(p.pixels && equal(&p, expected, tolerance), "%s: pixels", name);
    ml_free(p.pixels);

    size_t wrong = 0;
    for (size_t n = 0; n < size; n++) { /* a copy of the exact size, for address checkers */
      uint8_t *cut = malloc(n ? n : 1);
      if (!cut) break;
      memcpy(cut, bytes, n);
      ml_status status = decode(cut, n, layout, ML_IMAGE_MAX_PIXELS, &p, &err);
      if (status == ML_OK || !err.message[0]) {
        if (wrong++ == 0) printf("# %s: %zu of %zu bytes are enough\n", name, n, size);
      }
      ml_free(p.pixels);
      free(cut);
    }
    ok(wrong == 0, "%s: cut short %zu times without an error", name, wrong);

    uint64_t n = 1;
    for (bool failing = true; failing && n < 1000; n++) {
      ml_alloc_fail_at(n, false);
      ml_status status = decode(bytes, size, layout, ML_IMAGE_MAX_PIXELS, &p, &err);
      ml_alloc_fail_at(0, false);
      failing = status != ML_OK;
      if (failing && status != ML_RESOURCE_EXHAUSTED) ok(false, "%s: allocation %d fails with %s", name, (int)n, err.message);
      ml_free(p.pixels);
    }
    ok(n >= 2 && n < 1000, "%s: allocations that may fail: %d", name, (int)n - 2);

    ok(decode(bytes, size, layout, 32 * 32 - 1, &p, &err) == ML_RESOURCE_EXHAUSTED && !p.pixels && strstr(err.message, "32 by 32"),
       "%s: over the limit: %s", name, err.message);
    ok(decode(bytes, size, layout, 32 * 32, &p, &err) == ML_OK, "%s: at the limit: %s", name, err.message);
    ml_free(p.pixels);
    p.refuse = true;
    ok(decode(bytes, size, layout, ML_IMAGE_MAX_PIXELS, &p, &err) == ML_UNAVAILABLE, "%s: no room: %s", name, err.message);
    ok(ml_alloc_get_stats().live_blocks == live, "%s: nothing leaks", name);
  }
  ml_tensor_release(in);
  ml_tensor_release(expected);
}

static void test_pixels(const char *what, const char *bytes, size_t size, ml_image_layout layout, size_t height, size_t width,
                        const uint8_t *expected) {
  picture p = { 0 };
  ml_error err;
  ok(decode_text(bytes, size, layout, &p, &err) == ML_OK, "%s: %s", what, err.message);
  ok(p.pixels && p.height == height && p.width == width && memcmp(p.pixels, expected, height * width * p.channels) == 0, "%s: pixels", what);
  ml_free(p.pixels);
}

static void test_refused(const char *what, const char *bytes, size_t size, const char *why) {
  picture p = { 0 };
  ml_error err;
  ml_status status = decode_text(bytes, size, ML_IMAGE_RGB, &p, &err);
  ok(status != ML_OK && strstr(err.message, why), "%s: %s", what, err.message);
  ml_free(p.pixels);
}

#define BYTES(text) text, sizeof(text) - 1

static void test_pnm(void) {
  test_pixels("P1", BYTES("P1 3 1 # bits\n101"), ML_IMAGE_GRAY, 1, 3, (const uint8_t[]){ 0, 255, 0 });
  test_pixels("P2", BYTES("P2 2 1 3\n1 3"), ML_IMAGE_GRAY, 1, 2, (const uint8_t[]){ 85, 255 });
  test_pixels("P3", BYTES("P3 1 2 255 1 2 3 4 5 6"), ML_IMAGE_BGR, 2, 1, (const uint8_t[]){ 3, 2, 1, 6, 5, 4 });
  test_pixels("P4", BYTES("P4 9 1\n\xA0\x80"), ML_IMAGE_GRAY, 1, 9, (const uint8_t[]){ 0, 255, 0, 255, 255, 255, 255, 255, 0 });
  test_pixels("P5 of 16 bits", BYTES("P5 2 1 65535\n\xFF\xFF\x01\x01"), ML_IMAGE_RGB, 1, 2, (const uint8_t[]){ 255, 255, 255, 1, 1, 1 });
  test_pixels("P6", BYTES("P6 1 1 255\n\x01\x02\x03"), ML_IMAGE_RGB, 1, 1, (const uint8_t[]){ 1, 2, 3 });
  test_pixels("luminance", BYTES("P3 3 1 255 255 0 0 0 255 0 0 0 255"), ML_IMAGE_GRAY, 1, 3, (const uint8_t[]){ 76, 150, 29 }); /* ITU-R 601 */
  test_refused("no width", BYTES("P6\n"), "ends early");
  test_refused("a sample over the maximum", BYTES("P2 1 1 7 8"), "sample is over 7");
  test_refused("a letter", BYTES("P2 1 1 7 x"), "no digit");
  test_refused("no pixels", BYTES("P5 0 3 255\n"), "0 by 3");
  test_refused("maximum 0", BYTES("P5 1 1 0\n1"), "maximum");
  test_refused("huge", BYTES("P5 100000 100000 255\n"), "100000 by 100000 pixels are over the limit");
}

/* 54 bytes: width, height, bits, compression and number of colours as little-endian hexadecimal text */
#define BMP(offset, w, h, bits, compression, colours)                                                                        \
  "BM\0\0\0\0\0\0\0\0" offset "\0\0\0" "\x28\0\0\0" w "\0\0\0" h "\x01\0" bits "\0" compression "\0\0\0" "\0\0\0\0\0\0\0\0\0\0\0\0" \
  colours "\0\0\0" "\0\0\0\0"

static void test_bmp(void) {
  test_pixels("24 bits", BYTES(BMP("\x36", "\x01", "\x02\0\0\0", "\x18", "\0", "\0") "\x01\x02\x03\0" "\x04\x05\x06\0"), ML_IMAGE_RGB, 2, 1,
              (const uint8_t[]){ 6, 5, 4, 3, 2, 1 });
  test_pixels("top down", BYTES(BMP("\x36", "\x01", "\xFE\xFF\xFF\xFF", "\x18", "\0", "\0") "\x01\x02\x03\0" "\x04\x05\x06\0"), ML_IMAGE_RGB,
              2, 1, (const uint8_t[]){ 3, 2, 1, 6, 5, 4 });
  test_pixels("1 bit", BYTES(BMP("\x3E", "\x03", "\x01\0\0\0", "\x01", "\0", "\x02") "\x0A\x0B\x0C\0" "\x14\x15\x16\0" "\x40\0\0\0"),
              ML_IMAGE_BGR, 1, 3, (const uint8_t[]){ 10, 11, 12, 20, 21, 22, 10, 11, 12 });
  test_pixels("16 bits", BYTES(BMP("\x36", "\x01", "\x01\0\0\0", "\x10", "\0", "\0") "\x1F\x7C\0\0"), ML_IMAGE_RGB, 1, 1,
              (const uint8_t[]){ 255, 0, 255 });
  test_pixels("runs", BYTES(BMP("\x3E", "\x03", "\x02\0\0\0", "\x08", "\x01", "\x02") "\0\0\0\0" "\x01\x02\x03\0" "\x02\x01\0\0" "\0\x03\x01\0\x01\0\0\x01"),
              ML_IMAGE_RGB, 2, 3, (const uint8_t[]){ 3, 2, 1, 0, 0, 0, 3, 2, 1, 3, 2, 1, 3, 2, 1, 0, 0, 0 });
  test_refused("a run over the edge", BYTES(BMP("\x3A", "\x03", "\x01\0\0\0", "\x08", "\x01", "\x01") "\0\0\0\0" "\x04\0\0\x01"), "over the edge");
  test_refused("pixels are missing", BYTES(BMP("\x36", "\x01", "\x02\0\0\0", "\x18", "\0", "\0") "\x01\x02\x03\0" "\x04\x05"), "ends early");
  test_refused("JPEG inside", BYTES(BMP("\x36", "\x01", "\x01\0\0\0", "\0", "\x04", "\0") "\0"), "compression 4");
  test_refused("huge", BYTES(BMP("\x36", "\xFF\xFF", "\xFF\xFF\0\0", "\x18", "\0", "\0")), "");
  test_refused("the lowest height", BYTES(BMP("\x36", "\x01", "\0\0\0\x80", "\x18", "\0", "\0") "\0"), "2147483648");
  test_refused("half a header", BYTES("BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x01"), "ends early");
}

int main(void) {
  static const struct { const char *name; ml_image_layout layout; int tolerance; } official[] = {
    { "bmp_rgb", ML_IMAGE_RGB, 0 }, { "jpeg2k_rgb", ML_IMAGE_RGB, 0 }, { "jpeg_bgr", ML_IMAGE_BGR, 1 },
    { "jpeg_grayscale", ML_IMAGE_GRAY, 1 }, { "jpeg_rgb", ML_IMAGE_RGB, 1 }, { "png_rgb", ML_IMAGE_RGB, 0 },
    { "pnm_rgb", ML_IMAGE_RGB, 0 }, { "tiff_rgb", ML_IMAGE_RGB, 0 }, { "webp_rgb", ML_IMAGE_RGB, 1 },
  };
  for (size_t i = 0; i < sizeof official / sizeof *official; i++) test_official(official[i].name, official[i].layout, official[i].tolerance);
  test_pnm();
  test_bmp();
  return done();
}
