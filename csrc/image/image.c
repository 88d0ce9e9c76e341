/* The table of decoders, the canvas, and Pillow's conversions (libImaging/Convert.c describes them by these formulas). */
#include "image/decode.h"

/* ---------------------------------------------------------------- canvas ---- */
ml_status ml__canvas_open(ml__canvas *canvas, const ml_image_request *request, uint64_t width, uint64_t height, unsigned orientation,
                          ml_error *err) {
  if (width == 0 || height == 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "has no pixels (%llu by %llu)", (unsigned long long)width, (unsigned long long)height);
  if (width > request->max_pixels || height > request->max_pixels / width)
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%llu by %llu pixels are over the limit of %zu", (unsigned long long)width,
                   (unsigned long long)height, request->max_pixels);
  bool exchanged = orientation >= 5 && orientation <= 8;
  size_t channels = request->layout == ML_IMAGE_GRAY ? 1 : 3, w = (size_t)width, h = (size_t)height;
  uint8_t *pixels = request->place(request->context, exchanged ? w : h, exchanged ? h : w, channels, err);
  if (!pixels) return err ? err->code : ML_RESOURCE_EXHAUSTED;
  ptrdiff_t pixel = (ptrdiff_t)channels, row = pixel * (ptrdiff_t)(exchanged ? h : w);
  canvas->width = w;
  canvas->height = h;
  canvas->layout = request->layout;
  canvas->step_x = exchanged ? row : pixel;
  canvas->step_y = exchanged ? pixel : row;
  canvas->origin = pixels;
  /* 2: mirrored, 3: turned by 180 degrees, 4: upside down, 6: turned right, 7: turned and mirrored, 8: turned left */
  bool flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  bool flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  if (flip_x) {
    canvas->origin += canvas->step_x * (ptrdiff_t)(w - 1);
    canvas->step_x = -canvas->step_x;
  }
  if (flip_y) {
    canvas->origin += canvas->step_y * (ptrdiff_t)(h - 1);
    canvas->step_y = -canvas->step_y;
  }
  return ML_OK;
}

void ml__canvas_put(const ml__canvas *canvas, size_t x, size_t y, const uint8_t *samples, size_t count, size_t channels) {
  uint8_t *to = canvas->origin + (ptrdiff_t)x * canvas->step_x + (ptrdiff_t)y * canvas->step_y;
  const size_t green = channels < 3 ? 0 : 1, blue = channels < 3 ? 0 : 2;
  const size_t first = canvas->layout == ML_IMAGE_BGR ? blue : 0, last = blue - first;
  for (; count > 0; count--, to += canvas->step_x, samples += channels) {
    if (canvas->layout == ML_IMAGE_GRAY) {
      to[0] = blue ? (uint8_t)((samples[0] * 19595u + samples[1] * 38470u + samples[2] * 7471u + 0x8000u) >> 16) : samples[0];
      continue;
    }
    to[0] = samples[first];
    to[1] = samples[green];
    to[2] = samples[last];
  }
}

void ml__cmyk_to_rgb(uint8_t *samples, size_t count) {
  const uint8_t *from = samples;
  for (; count > 0; count--, from += 4, samples += 3) {
    int light = 255 - from[3];
    for (int i = 0; i < 3; i++) {
      int product = from[i] * light + 128, value = light - (((product >> 8) + product) >> 8); /* light - ink * light / 255 */
      samples[i] = (uint8_t)(value < 0 ? 0 : value);
    }
  }
}

/* ---------------------------------------------------------------- the table ---- */
static const ml_image_decoders table = { .decode = {
  [ML_IMAGE_BMP] = ml__decode_bmp,
  [ML_IMAGE_PNM] = ml__decode_pnm,
#ifdef ML_IMAGE_WITH_JPEG
  [ML_IMAGE_JPEG] = ml__decode_jpeg,
#endif
#ifdef ML_IMAGE_WITH_JPEG2000
  [ML_IMAGE_JPEG2000] = ml__decode_jpeg2000,
#endif
#ifdef ML_IMAGE_WITH_PNG
  [ML_IMAGE_PNG] = ml__decode_png,
#endif
#ifdef ML_IMAGE_WITH_TIFF
  [ML_IMAGE_TIFF] = ml__decode_tiff,
#endif
#ifdef ML_IMAGE_WITH_WEBP
  [ML_IMAGE_WEBP] = ml__decode_webp,
#endif
} };

__attribute__((visibility("default"))) const ml_image_decoders *ml_image_decoders_1(void);
const ml_image_decoders *ml_image_decoders_1(void) { return &table; }
