/* WebP by libwebp: lossy and lossless still pictures; alpha is dropped. */
#include "image/decode.h"

#ifdef ML_IMAGE_WITH_WEBP
#include <webp/decode.h>

static ml_status failure(VP8StatusCode code, ml_error *err) {
  switch (code) {
    case VP8_STATUS_OK: return ML_OK;
    case VP8_STATUS_OUT_OF_MEMORY: return ml_fail(err, ML_RESOURCE_EXHAUSTED, "out of memory in libwebp");
    case VP8_STATUS_NOT_ENOUGH_DATA:
    case VP8_STATUS_SUSPENDED: return ml_fail(err, ML_INVALID_ARGUMENT, "ends early");
    case VP8_STATUS_UNSUPPORTED_FEATURE: return ml_fail(err, ML_UNIMPLEMENTED, "a feature libwebp does not decode");
    default: return ml_fail(err, ML_INVALID_ARGUMENT, "corrupt data");
  }
}

static uint32_t u32(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }

ml_status ml__decode_webp(const ml_image_request *request, ml_error *err) {
  WebPDecoderConfig config;
  ml__canvas canvas;
  if (!WebPInitDecoderConfig(&config)) return ml_fail(err, ML_FAILED_PRECONDITION, "another libwebp than this was built with");
  ML_TRY(failure(WebPGetFeatures(request->bytes, request->size, &config.input), err));
  if (config.input.has_animation) return ml_fail(err, ML_UNIMPLEMENTED, "is animated");
  if (u32(request->bytes + 4) > request->size - 8) return ml_fail(err, ML_INVALID_ARGUMENT, "ends early");
  ML_TRY(ml__canvas_open(&canvas, request, (uint64_t)config.input.width, (uint64_t)config.input.height, 1, err));
  const size_t stride = 3 * canvas.width, bytes = stride * canvas.height;
  const bool grey = canvas.layout == ML_IMAGE_GRAY;
  uint8_t *rgb = grey ? ml_alloc(bytes) : canvas.origin;
  if (!rgb) return ml_fail_memory(err, bytes, "colours");
  config.output.colorspace = canvas.layout == ML_IMAGE_BGR ? MODE_BGR : MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA.rgba = rgb;
  config.output.u.RGBA.stride = (int)stride; /* a WebP image is at most 16383 pixels wide */
  config.output.u.RGBA.size = bytes;
  ml_status status = failure(WebPDecode(request->bytes, request->size, &config), err);
  WebPFreeDecBuffer(&config.output);
  if (grey) {
    for (size_t y = 0; status == ML_OK && y < canvas.height; y++) ml__canvas_put(&canvas, 0, y, rgb + y * stride, canvas.width, 3);
    ml_free(rgb);
  }
  return status;
}
#endif
