/* What the decoders share.
 * Lives here: the canvas they put pixels on, the conversions of Pillow. May include: base.
 * Ownership: a canvas borrows the memory the request's place() gave.
 *
 * A decoder reads the header, opens a canvas of that size (which checks it and asks for memory), then puts runs of 8-bit samples
 * on it. Every byte of its input may be hostile. */
#ifndef ML_IMAGE_DECODE_H
#define ML_IMAGE_DECODE_H
#include <stdbool.h>
#include "base/alloc.h"
#include "image/image.h"

typedef struct ml__canvas {
  uint8_t *origin;           /* pixel (0, 0) as stored in the file */
  ptrdiff_t step_x, step_y;  /* bytes to the next pixel and row as stored */
  size_t width, height;      /* as stored */
  ml_image_layout layout;
} ml__canvas;

/* orientation: EXIF's number, 1 as stored … 8; from 5 on width and height are exchanged. */
ml_status ml__canvas_open(ml__canvas *canvas, const ml_image_request *request, uint64_t width, uint64_t height, unsigned orientation,
                          ml_error *err);
/* Puts `count` pixels from (x, y) on, `channels` samples each: 1 or 2 grey (and alpha), 3 or more red, green, blue (and others). */
void ml__canvas_put(const ml__canvas *canvas, size_t x, size_t y, const uint8_t *samples, size_t count, size_t channels);
/* `count` pixels of four samples C, M, Y, K to three samples R, G, B; in place is fine. */
void ml__cmyk_to_rgb(uint8_t *samples, size_t count);

ml_image_decode ml__decode_bmp, ml__decode_pnm;
ml_image_decode ml__decode_jpeg, ml__decode_jpeg2000, ml__decode_png, ml__decode_tiff, ml__decode_webp;

#endif
