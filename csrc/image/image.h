/* The contract between the operator ImageDecoder and the decoders of image files.
 * Lives here: formats, one request, the table of decoders. May include: base.
 * Ownership: a request borrows the encoded bytes; the pixels go to memory the caller gives.
 *
 * The decoders (csrc/image) link libraries that most programs never need, so they are a shared object of their own, image.so
 * beside core.so, loaded when a model first decodes an image (csrc/ops/image_decoder.c). A program that links them statically
 * gets them without loading anything. */
#ifndef ML_IMAGE_IMAGE_H
#define ML_IMAGE_IMAGE_H
#include <stdint.h>
#include "base/status.h"

/* format, its name, the library that decodes it (NULL: our own code) */
#define ML_IMAGE_MAP(X)                  \
  X(BMP, "BMP", NULL)                    \
  X(JPEG, "JPEG", "libjpeg-turbo")       \
  X(JPEG2000, "JPEG 2000", "libopenjp2") \
  X(PNG, "PNG", "libpng")                \
  X(PNM, "PNM", NULL)                    \
  X(TIFF, "TIFF", "libtiff")             \
  X(WEBP, "WebP", "libwebp")

typedef enum ml_image_format {
#define X(name, text, library) ML_IMAGE_##name,
  ML_IMAGE_MAP(X)
#undef X
  ML_IMAGE_FORMATS /* how many */
} ml_image_format;

/* By the first bytes; ML_IMAGE_FORMATS: none of them. */
ml_image_format ml_image_recognise(const uint8_t *bytes, size_t size);
const char *ml_image_format_name(ml_image_format format);
const char *ml_image_format_library(ml_image_format format); /* what decoding it takes */

typedef enum ml_image_layout { ML_IMAGE_RGB, ML_IMAGE_BGR, ML_IMAGE_GRAY } ml_image_layout;

/* Pixels an image may have unless the request says less: 2^28 bytes of RGB, where Pillow warns too. */
#define ML_IMAGE_MAX_PIXELS ((UINT32_C(1) << 28) / 3)

typedef struct ml_image_request {
  const uint8_t *bytes; /* the encoded image */
  size_t size;
  ml_image_layout layout;
  size_t max_pixels;
  /* Gives memory for height * width * channels bytes. Called once at most, after the size has been checked and before pixels are
   * decoded; NULL: err is filled. */
  uint8_t *(*place)(void *context, size_t height, size_t width, size_t channels, ml_error *err);
  void *context;
} ml_image_request;

/* The bytes begin as ml_image_recognise demands of the format. */
typedef ml_status ml_image_decode(const ml_image_request *request, ml_error *err);

typedef struct ml_image_decoders {
  ml_image_decode *decode[ML_IMAGE_FORMATS]; /* NULL: built without the format's library */
} ml_image_decoders;

/* The one symbol image.so exports. The number goes up when this contract changes, so that modules of two versions do not meet. */
#define ML_IMAGE_ENTRY "ml_image_decoders_1"
typedef const ml_image_decoders *ml_image_entry(void);
const ml_image_decoders *ml_image_decoders_1(void);

#endif
