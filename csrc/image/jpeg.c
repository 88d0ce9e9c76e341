/* JPEG by libjpeg(-turbo): baseline and progressive, grey, colour, CMYK (inverted, as Adobe writes it and Pillow reads it). The
 * picture is not turned by EXIF's orientation, as Pillow does not. Data that ends early is an error, not grey rows. */
#include "image/decode.h"

#ifdef ML_IMAGE_WITH_JPEG
#include <setjmp.h>
#include <stdio.h>
#include <jpeglib.h>
#include <jerror.h>

/* A progressive file may ask for any number of passes over the whole picture. */
#define MAX_SCANS 100

typedef struct state { /* all that must survive longjmp */
  struct jpeg_decompress_struct jpeg;
  struct jpeg_error_mgr errors;
  struct jpeg_source_mgr source;
  struct jpeg_progress_mgr progress;
  jmp_buf jump;
  ml_status status;
  ml_error *err;
  const ml_image_request *request;
  ml__canvas canvas;
  uint8_t *row;
} state;

static _Noreturn void give_up(state *s, ml_status status) {
  s->status = status;
  longjmp(s->jump, 1);
}

static void failed(j_common_ptr common) {
  state *s = common->client_data;
  char text[JMSG_LENGTH_MAX];
  bool memory = common->err->msg_code == JERR_OUT_OF_MEMORY;
  common->err->format_message(common, text);
  give_up(s, ml_fail(s->err, memory ? ML_RESOURCE_EXHAUSTED : ML_INVALID_ARGUMENT, "%s", text));
}

static void message(j_common_ptr common, int level) {
  state *s = common->client_data;
  if (level < 0 && common->err->msg_code == JWRN_HIT_MARKER)
    give_up(s, ml_fail(s->err, ML_INVALID_ARGUMENT, "the data of the picture ends early"));
}

static void no_output(j_common_ptr common) { (void)common; }
static void nothing(j_decompress_ptr jpeg) { (void)jpeg; }

static boolean no_more(j_decompress_ptr jpeg) {
  state *s = jpeg->client_data;
  give_up(s, ml_fail(s->err, ML_INVALID_ARGUMENT, "ends early"));
}

static void skip(j_decompress_ptr jpeg, long bytes) {
  if (bytes <= 0) return;
  if ((size_t)bytes > jpeg->src->bytes_in_buffer) no_more(jpeg);
  jpeg->src->next_input_byte += bytes;
  jpeg->src->bytes_in_buffer -= (size_t)bytes;
}

static void watch(j_common_ptr common) {
  state *s = common->client_data;
  if (s->jpeg.input_scan_number > MAX_SCANS)
    give_up(s, ml_fail(s->err, ML_INVALID_ARGUMENT, "over %d passes over the picture", MAX_SCANS));
}

static ml_status decode(state *s) {
  struct jpeg_decompress_struct *jpeg = &s->jpeg;
  if (setjmp(s->jump)) return s->status;
  jpeg->err = jpeg_std_error(&s->errors);
  s->errors.error_exit = failed;
  s->errors.emit_message = message;
  s->errors.output_message = no_output;
  jpeg->client_data = s;
  jpeg_create_decompress(jpeg); /* keeps err and client_data */
  s->progress.progress_monitor = watch;
  jpeg->progress = &s->progress;
  s->source = (struct jpeg_source_mgr){ .next_input_byte = s->request->bytes, .bytes_in_buffer = s->request->size, .init_source = nothing,
    .fill_input_buffer = no_more, .skip_input_data = skip, .resync_to_restart = jpeg_resync_to_restart, .term_source = nothing };
  jpeg->src = &s->source;
  jpeg_read_header(jpeg, TRUE);
  switch (jpeg->num_components) {
    case 1: jpeg->out_color_space = JCS_GRAYSCALE; break;
    case 3: jpeg->out_color_space = JCS_RGB; break;
    case 4: jpeg->out_color_space = JCS_CMYK; break;
    default: return ml_fail(s->err, ML_UNIMPLEMENTED, "%d components", jpeg->num_components);
  }
  ML_TRY(ml__canvas_open(&s->canvas, s->request, jpeg->image_width, jpeg->image_height, 1, s->err));
  jpeg_start_decompress(jpeg);
  size_t channels = (size_t)jpeg->output_components, width = jpeg->output_width;
  s->row = ml_alloc(width * channels);
  if (!s->row) return ml_fail_memory(s->err, width * channels, "a row");
  while (jpeg->output_scanline < jpeg->output_height) {
    size_t y = jpeg->output_scanline, samples = channels;
    JSAMPROW rows[1] = { s->row };
    jpeg_read_scanlines(jpeg, rows, 1);
    if (channels == 4) {
      for (size_t i = 0; i < 4 * width; i++) s->row[i] = (uint8_t)~s->row[i];
      ml__cmyk_to_rgb(s->row, width);
      samples = 3;
    }
    ml__canvas_put(&s->canvas, 0, y, s->row, width, samples);
  }
  jpeg_finish_decompress(jpeg); /* reads to the end of the image */
  return ML_OK;
}

ml_status ml__decode_jpeg(const ml_image_request *request, ml_error *err) {
  state *s = ml_alloc_zero(1, sizeof *s);
  if (!s) return ml_fail_memory(err, sizeof *s, "a decoder");
  s->request = request;
  s->err = err;
  ml_status status = decode(s);
  jpeg_destroy_decompress(&s->jpeg);
  ml_free(s->row);
  ml_free(s);
  return status;
}
#endif
