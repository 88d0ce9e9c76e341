/* The smallest test harness with TAP-like lines: ok(condition, "name %d", …) per check, return done() at the end of main.
 * Passing checks are silent unless TAP_VERBOSE is set in the environment; the last line is "N passed, N failed". */
#ifndef MLSERVE_SPEC_TAP_H
#define MLSERVE_SPEC_TAP_H
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned tap_passed, tap_failed;

/* Counts one check and reports it; returns the condition so that a test can stop early. Call from one thread only. */
__attribute__((format(printf, 4, 5), unused)) static bool tap_ok(bool condition, const char *file, int line,
                                                                 const char *format, ...) {
  unsigned number = tap_passed + tap_failed + 1;
  if (condition) ++tap_passed;
  else ++tap_failed;
  if (condition && getenv("TAP_VERBOSE") == NULL) return true;
  va_list arguments;
  printf("%s %u - ", condition ? "ok" : "not ok", number);
  va_start(arguments, format);
  vprintf(format, arguments);
  va_end(arguments);
  if (condition) printf("\n");
  else printf(" (%s:%d)\n", file, line);
  fflush(stdout);
  return condition;
}

#define ok(condition, ...) tap_ok((condition), __FILE__, __LINE__, __VA_ARGS__)

/* Prints the summary; the value is main's exit code. */
__attribute__((unused)) static int done(void) {
  printf("%u passed, %u failed\n", tap_passed, tap_failed);
  return tap_failed == 0 && tap_passed > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
