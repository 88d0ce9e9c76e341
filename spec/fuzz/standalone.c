/* A main for fuzz targets where the compiler has no libFuzzer: runs LLVMFuzzerTestOneInput on each file given, then on
 * deterministic mutations of it (and of nothing, when no file is given). Usage: TARGET [-runs=N] [FILE…]; same bytes every time,
 * so that a crash can be repeated. Each input is copied to a block of its exact size, for address checkers. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t state = 0x2545f4914f6cdd1du;
static uint64_t next_random(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}
static size_t below(size_t n) { return n == 0 ? 0 : (size_t)(next_random() % n); }

static void run_once(const uint8_t *data, size_t size) {
  uint8_t *copy = malloc(size > 0 ? size : 1);
  if (copy == NULL) return;
  if (size > 0) memcpy(copy, data, size);
  LLVMFuzzerTestOneInput(copy, size);
  free(copy);
}

/* Up to eight edits: flip a bit, set a byte (often one that matters to formats), delete, insert, repeat a piece, cut. */
static size_t mutate(uint8_t *data, size_t size, size_t room) {
  static const uint8_t marks[] = {0, 1, 0x7f, 0x80, 0xff, '"', '\\', '[', ']', '{', '}', ',', ':', '.', 'e', '-', '0', '9'};
  for (size_t edits = 1 + below(8); edits > 0; --edits) {
    size_t at = below(size), span = 1 + below(16);
    switch (below(6)) {
      case 0: if (size > 0) data[at] ^= (uint8_t)(1u << below(8)); break;
      case 1: if (size > 0) data[at] = below(2) ? marks[below(sizeof marks)] : (uint8_t)next_random(); break;
      case 2:
        if (at + span > size) break;
        memmove(data + at, data + at + span, size - at - span);
        size -= span;
        break;
      case 3:
        if (size + 1 > room) break;
        memmove(data + at + 1, data + at, size - at);
        data[at] = marks[below(sizeof marks)];
        ++size;
        break;
      case 4:
        if (at + span > size || size + span > room) break;
        memmove(data + at + span, data + at, size - at);
        size += span;
        break;
      default: if (below(8) == 0) size = at; break;
    }
  }
  return size;
}

static void run_mutations(const uint8_t *seed, size_t size, unsigned long runs) {
  size_t room = size + 4096;
  uint8_t *data = malloc(room);
  if (data == NULL) return;
  for (unsigned long i = 0; i < runs; ++i) {
    size_t now = size;
    if (size > 0) memcpy(data, seed, size);
    for (size_t rounds = 1 + below(4); rounds > 0; --rounds) now = mutate(data, now, room);
    run_once(data, now);
  }
  free(data);
}

int main(int argc, char **argv) {
  unsigned long runs = 10000, files = 0;
  for (int i = 1; i < argc; ++i) {
    if (strncmp(argv[i], "-runs=", 6) == 0) {
      runs = strtoul(argv[i] + 6, NULL, 10);
      continue;
    }
    FILE *file = fopen(argv[i], "rb");
    if (file == NULL) {
      fprintf(stderr, "%s: cannot open\n", argv[i]);
      return EXIT_FAILURE;
    }
    enum { MOST = 1 << 24 };
    uint8_t *bytes = malloc(MOST);
    if (bytes == NULL) return EXIT_FAILURE;
    size_t size = fread(bytes, 1, MOST, file);
    fclose(file);
    run_once(bytes, size);
    run_mutations(bytes, size, runs);
    free(bytes);
    ++files;
  }
  if (files == 0) run_mutations(NULL, 0, runs);
  printf("%lu files, %lu mutations of each, no crash\n", files, runs);
  return EXIT_SUCCESS;
}
