/* Status tables and error formatting. Nothing here allocates, so it works when memory has run out. */
#include "base/status.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

const char *ml_status_name(ml_status code) {
  switch (code) {
#define X(name, number, text) \
  case ML_##name: return #name;
    ML_STATUS_MAP(X)
#undef X
  }
  return "UNKNOWN";
}

const char *ml_status_text(ml_status code) {
  switch (code) {
#define X(name, number, text) \
  case ML_##name: return text;
    ML_STATUS_MAP(X)
#undef X
  }
  return "unknown error";
}

/* Copies text into message; what does not fit is cut at a UTF-8 character boundary, because messages end up in JSON. */
static void store(char message[ML_ERROR_MAX], const char *text) {
  size_t length = strlen(text);
  if (length >= ML_ERROR_MAX) {
    length = ML_ERROR_MAX - 1;
    while (length > 0 && ((unsigned char)text[length] & 0xC0u) == 0x80u) --length;
  }
  memmove(message, text, length);
  message[length] = '\0';
}

ml_status ml_fail(ml_error *err, ml_status code, const char *format, ...) {
  if (err == NULL) return code;
  char text[ML_ERROR_MAX + 8]; /* apart from err: an argument may be err->message */
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  err->code = code;
  store(err->message, length < 0 ? ml_status_text(code) : text);
  return code;
}

ml_status ml_fail_memory(ml_error *err, size_t bytes, const char *what) {
  if (bytes == SIZE_MAX) return ml_fail(err, ML_RESOURCE_EXHAUSTED, "out of memory: size overflow allocating %s", what);
  return ml_fail(err, ML_RESOURCE_EXHAUSTED, "out of memory allocating %zu bytes for %s", bytes, what);
}

ml_status ml_fail_in(ml_error *err, ml_status code, const char *format, ...) {
  if (err == NULL) return code;
  if (err->code == ML_OK) { /* the callee gave a code and no detail */
    err->code = code;
    store(err->message, ml_status_text(code));
  }
  char text[2 * ML_ERROR_MAX + 8];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(text, ML_ERROR_MAX, format, arguments);
  va_end(arguments);
  if (length < 0) return err->code;
  size_t used = strlen(text), old = strlen(err->message), room = ML_ERROR_MAX / 2;
  const char *rest = err->message, *mark = "";
  if (used + 2 + old >= ML_ERROR_MAX && used < room) { /* what went wrong stands at the end: the middle gives way */
    mark = "… ";
    rest += used + 2 + strlen(mark) + old + 1 - ML_ERROR_MAX;
    while (((unsigned char)*rest & 0xC0) == 0x80) rest++;
  }
  snprintf(text + used, sizeof text - used, ": %s%s", mark, rest);
  store(err->message, text);
  return err->code;
}
