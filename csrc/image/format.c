/* Telling image formats by their first bytes. Part of the core, so that a missing decoder can be named. */
#include <stdbool.h>
#include <string.h>
#include "image/image.h"

static const struct { const char *name, *library; } formats[] = {
#define X(id, text, library) [ML_IMAGE_##id] = { text, library },
  ML_IMAGE_MAP(X)
#undef X
};

const char *ml_image_format_name(ml_image_format format) { return formats[format].name; }
const char *ml_image_format_library(ml_image_format format) { return formats[format].library ? formats[format].library : "the module image.so"; }

static bool starts(const uint8_t *bytes, size_t size, size_t at, const char *mark, size_t length) {
  return size >= at + length && memcmp(bytes + at, mark, length) == 0;
}

ml_image_format ml_image_recognise(const uint8_t *b, size_t n) {
#define STARTS(at, mark) starts(b, n, at, mark, sizeof(mark) - 1)
  if (STARTS(0, "\xFF\xD8\xFF")) return ML_IMAGE_JPEG;
  if (STARTS(0, "\x89PNG\r\n\x1A\n")) return ML_IMAGE_PNG;
  if (STARTS(0, "RIFF") && STARTS(8, "WEBP")) return ML_IMAGE_WEBP;
  if (STARTS(0, "\0\0\0\x0CjP  \r\n\x87\n") || STARTS(0, "\xFF\x4F\xFF\x51")) return ML_IMAGE_JPEG2000;
  if (STARTS(0, "II*\0") || STARTS(0, "MM\0*") || STARTS(0, "II+\0") || STARTS(0, "MM\0+")) return ML_IMAGE_TIFF;
  if (STARTS(0, "BM")) return ML_IMAGE_BMP;
  if (n >= 3 && b[0] == 'P' && b[1] >= '1' && b[1] <= '6' && (b[2] == ' ' || b[2] == '#' || (b[2] >= '\t' && b[2] <= '\r')))
    return ML_IMAGE_PNM;
  return ML_IMAGE_FORMATS;
#undef STARTS
}
