/* The decoders of images on arbitrary bytes, those the first bytes name. Demands, beyond no crash: memory for pixels is asked for
 * once and within the limit; a refusal has a message; what is decoded is decoded again, as BGR, to the same pixels; nothing of ours
 * leaks. Build: make fuzz; seeds: spec/fuzz/seeds/image. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "image/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DEMAND(condition) do { if (!(condition)) abort(); } while (0)

enum { MAX_PIXELS = 1 << 15 };

typedef struct picture {
  uint8_t *pixels;
  size_t height, width, channels;
} picture;

static uint8_t *place(void *context, size_t height, size_t width, size_t channels, ml_error *err) {
  picture *p = context;
  DEMAND(!p->pixels && height > 0 && width > 0 && height * width <= MAX_PIXELS && (channels == 1 || channels == 3));
  *p = (picture){ ml_alloc_zero(height * width, channels), height, width, channels };
  if (!p->pixels) ml_fail_memory(err, height * width * channels, "pixels");
  return p->pixels;
}

static bool decode(ml_image_format format, ml_image_layout layout, const uint8_t *data, size_t size, picture *out) {
  ml_error err = { 0 };
  ml_image_request request = { .bytes = data, .size = size, .layout = layout, .max_pixels = MAX_PIXELS, .place = place, .context = out };
  *out = (picture){ 0 };
  bool decoded = ml_image_decoders_1()->decode[format](&request, &err) == ML_OK;
  DEMAND(decoded ? out->pixels != NULL : err.message[0] != '\0');
  return decoded;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  picture rgb, bgr;
  ml_image_format format = ml_image_recognise(data, size);
  if (format == ML_IMAGE_FORMATS || !ml_image_decoders_1()->decode[format]) return 0;
  uint64_t live = ml_alloc_get_stats().live_blocks;
  if (decode(format, ML_IMAGE_RGB, data, size, &rgb)) {
    DEMAND(decode(format, ML_IMAGE_BGR, data, size, &bgr) && bgr.height == rgb.height && bgr.width == rgb.width);
    for (size_t i = 0; i < rgb.height * rgb.width * 3; i += 3)
      DEMAND(rgb.pixels[i] == bgr.pixels[i + 2] && rgb.pixels[i + 1] == bgr.pixels[i + 1] && rgb.pixels[i + 2] == bgr.pixels[i]);
    ml_free(bgr.pixels);
  }
  ml_free(rgb.pixels);
  DEMAND(ml_alloc_get_stats().live_blocks == live);
  return 0;
}
