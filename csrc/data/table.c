/* Tables and the builder behind the readers (see table_builder.h for the two passes). */
#include "data/table.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "data/table_builder.h"

static const char *const default_missing[] = {"", "NA", "N/A", "NaN", "nan", "null", "NULL", "?"};

const char *ml_column_type_name(ml_column_type type) {
  static const char *const names[] = {"any", "number", "text"};
  return (unsigned)type < 3 ? names[type] : "unknown";
}

ml_table_options ml_table_options_default(void) {
  ml_table_options options = {.delimiter = ',', .header = true};
  return options;
}

void ml_table_free(ml_table *table) {
  for (size_t i = 0; i < table->column_count; ++i) ml_free(table->columns[i].numbers);
  ml_arena_free(table->arena);
  memset(table, 0, sizeof *table);
}

/* ---- builder ---- */

static const char *const *missing_list(const ml_table_options *options, size_t *count) {
  if (options->missing != NULL) return *count = options->missing_count, options->missing;
  return *count = sizeof default_missing / sizeof default_missing[0], default_missing;
}

ml_status ml__builder_init(ml__builder *builder, const ml_table_options *options, const char *source, ml_error *err) {
  size_t count;
  const char *const *missing = missing_list(options, &count);
  memset(builder, 0, sizeof *builder);
  builder->options = options;
  builder->source = source;
  for (size_t i = 0; i < count; ++i) {
    if (missing[i][0] == '\0') builder->empty_is_missing = true;
    else builder->missing_starts[(unsigned char)missing[i][0]] = true;
  }
  builder->arena = ml_arena_new();
  return builder->arena != NULL ? ML_OK : ml_fail_memory(err, sizeof *builder, "a table");
}

void ml__builder_free(ml__builder *builder) {
  for (size_t i = 0; i < builder->draft_count; ++i) ml_free(builder->drafts[i].numbers);
  ml_free(builder->drafts);
  ml_free(builder->slots);
  ml_arena_free(builder->arena);
  memset(builder, 0, sizeof *builder);
}

ml_status ml__builder_fail(const ml__builder *builder, ml_error *err, size_t column, size_t line, const char *format, ...) {
  char text[ML_ERROR_MAX];
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return ml_fail(err, ML_INVALID_ARGUMENT, "%s:%zu: column %zu (%s): %s", builder->source, line, column + 1,
                 builder->drafts[column].name, text);
}

/* FNV-1a */
static size_t hash_of(const char *bytes, size_t length) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t i = 0; i < length; ++i) hash = (hash ^ (unsigned char)bytes[i]) * 0x100000001b3u;
  return (size_t)(hash ^ hash >> 32);
}

size_t ml__builder_find(const ml__builder *builder, const char *name, size_t length) {
  if (builder->slot_count == 0) return SIZE_MAX;
  for (size_t slot = hash_of(name, length) & (builder->slot_count - 1);; slot = (slot + 1) & (builder->slot_count - 1)) {
    if (builder->slots[slot] == 0) return SIZE_MAX;
    const ml__draft *draft = &builder->drafts[builder->slots[slot] - 1];
    if (draft->name_length == length && memcmp(draft->name, name, length) == 0) return builder->slots[slot] - 1;
  }
}

static void place(ml__builder *builder, size_t index) {
  size_t slot = hash_of(builder->drafts[index].name, builder->drafts[index].name_length) & (builder->slot_count - 1);
  while (builder->slots[slot] != 0) slot = (slot + 1) & (builder->slot_count - 1);
  builder->slots[slot] = (uint32_t)(index + 1);
}

/* keeps the hash at most half full */
static ml_status widen(ml__builder *builder, ml_error *err) {
  if (2 * (builder->draft_count + 1) <= builder->slot_count) return ML_OK;
  size_t count = builder->slot_count == 0 ? 64 : 2 * builder->slot_count;
  uint32_t *slots = ml_alloc_zero(count, sizeof *slots);
  if (slots == NULL) return ml_fail_memory(err, count * sizeof *slots, "column names");
  ml_free(builder->slots);
  builder->slots = slots;
  builder->slot_count = count;
  for (size_t i = 0; i < builder->draft_count; ++i) place(builder, i);
  return ML_OK;
}

static const ml_column_rule *rule_of(const ml_table_options *options, const char *name) {
  for (size_t i = 0; i < options->rule_count; ++i)
    if (strcmp(options->rules[i].name, name) == 0) return &options->rules[i];
  return NULL;
}

ml_status ml__builder_add(ml__builder *builder, const char *name, size_t length, size_t *index, ml_error *err) {
  ml__draft draft = {.name_length = length, .keep = !builder->options->subset, .integral = true};
  if (builder->draft_count >= ML_TABLE_MAX_COLUMNS)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s: more than %zu columns", builder->source, ML_TABLE_MAX_COLUMNS);
  ML_TRY(widen(builder, err));
  ML_TRY(ml_grow(&builder->drafts, &builder->draft_capacity, builder->draft_count + 1, sizeof draft, "table columns", err));
  draft.name = ml_arena_strndup(builder->arena, name, length);
  if (draft.name == NULL) return ml_fail_memory(err, length + 1, "a column name");
  const ml_column_rule *rule = rule_of(builder->options, draft.name);
  if (rule != NULL) {
    draft.declared = rule->type;
    draft.required = rule->required;
    draft.keep = draft.keep || rule->keep;
  }
  draft.text = draft.declared == ML_COLUMN_TEXT;
  if (draft.keep && !draft.text && builder->row_capacity > 0) {
    draft.numbers = ml_alloc(builder->row_capacity * sizeof(double));
    if (draft.numbers == NULL) return ml_fail_memory(err, builder->row_capacity * sizeof(double), "a table column");
    for (size_t row = 0; row < builder->rows; ++row) draft.numbers[row] = (double)NAN;
  }
  draft.missing = draft.filled = builder->rows;
  *index = builder->draft_count;
  builder->drafts[builder->draft_count++] = draft;
  place(builder, *index);
  return ML_OK;
}

ml_status ml__builder_check_rules(const ml__builder *builder, ml_error *err) {
  for (size_t i = 0; i < builder->options->rule_count; ++i) {
    const char *name = builder->options->rules[i].name;
    char known[256];
    size_t used = 0;
    if (ml__builder_find(builder, name, strlen(name)) != SIZE_MAX) continue;
    known[0] = '\0';
    for (size_t c = 0; c < builder->draft_count; ++c) {
      int written = snprintf(known + used, sizeof known - used, "%s%s", c == 0 ? "" : ", ", builder->drafts[c].name);
      if (written < 0 || (size_t)written >= sizeof known - used) {
        (void)snprintf(known + (used < sizeof known - 4 ? used : sizeof known - 4), 4, "...");
        break;
      }
      used += (size_t)written;
    }
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s: no column named '%s'; the columns are %s", builder->source, name, known);
  }
  return ML_OK;
}

ml_status ml__builder_row(ml__builder *builder, ml_error *err) {
  if (builder->copying || builder->rows < builder->row_capacity) return ML_OK;
  size_t capacity = builder->row_capacity == 0 ? 64 : builder->row_capacity + builder->row_capacity / 2, bytes;
  if (!ml_mul_size(capacity, sizeof(double), &bytes)) return ml_fail_memory(err, SIZE_MAX, "a table column");
  for (size_t c = 0; c < builder->draft_count; ++c) {
    ml__draft *draft = &builder->drafts[c];
    if (!draft->keep || draft->text) continue;
    double *numbers = draft->numbers == NULL ? ml_alloc(bytes)
                                             : ml_realloc(draft->numbers, builder->row_capacity * sizeof(double), bytes);
    if (numbers == NULL) return ml_fail_memory(err, bytes, "a table column");
    draft->numbers = numbers;
  }
  builder->row_capacity = capacity;
  return ML_OK;
}

bool ml__builder_is_missing(const ml__builder *builder, const char *bytes, size_t length) {
  size_t count;
  while (length > 0 && (bytes[0] == ' ' || bytes[0] == '\t')) ++bytes, --length;
  while (length > 0 && (bytes[length - 1] == ' ' || bytes[length - 1] == '\t')) --length;
  if (length == 0) return builder->empty_is_missing;
  if (!builder->missing_starts[(unsigned char)bytes[0]]) return false;
  const char *const *missing = missing_list(builder->options, &count);
  for (size_t i = 0; i < count; ++i)
    if (strlen(missing[i]) == length && memcmp(missing[i], bytes, length) == 0) return true;
  return false;
}

ml_status ml__builder_put_missing(ml__builder *builder, size_t column, size_t line, ml_error *err) {
  ml__draft *draft = &builder->drafts[column];
  if (draft->required && draft->keep) return ml__builder_fail(builder, err, column, line, "the value is missing");
  if (builder->copying) {
    draft->filled = builder->rows + 1; /* texts are zeroed: empty */
    return ML_OK;
  }
  if (draft->numbers != NULL) draft->numbers[builder->rows] = (double)NAN;
  ++draft->missing;
  draft->filled = builder->rows + 1;
  return ML_OK;
}

/* The bytes of a cell as they may appear in a message: short and without control characters. */
static const char *shown(const ml__cell *cell, char text[48]) {
  size_t length = cell->length < 40 ? cell->length : 40;
  for (size_t i = 0; i < length; ++i) text[i] = (unsigned char)cell->bytes[i] < 32 ? ' ' : cell->bytes[i];
  memcpy(text + length, cell->length > length ? "..." : "", cell->length > length ? 4 : 1);
  return text;
}

static ml_status copy_text(ml__builder *builder, ml__draft *draft, const ml__cell *cell, ml_error *err) {
  ml_str *text = &draft->texts[builder->rows];
  text->bytes = ml_arena_strndup(builder->arena, cell->bytes, cell->length);
  if (text->bytes == NULL) return ml_fail_memory(err, cell->length + 1, "a text column");
  text->length = cell->length;
  return ML_OK;
}

ml_status ml__builder_put_text(ml__builder *builder, size_t column, const ml__cell *cell, ml_error *err) {
  ml__draft *draft = &builder->drafts[column];
  double value;
  char text[48];
  if (!draft->keep) return draft->filled = builder->rows + 1, ML_OK;
  if (ml__builder_is_missing(builder, cell->bytes, cell->length))
    return ml__builder_put_missing(builder, column, cell->line, err);
  draft->filled = builder->rows + 1;
  if (builder->copying) return draft->text ? copy_text(builder, draft, cell, err) : ML_OK;
  if (draft->declared == ML_COLUMN_NUMBER) {
    if (!ml_parse_number(cell->bytes, cell->length, &value))
      return ml__builder_fail(builder, err, column, cell->line, "'%s' is not a number", shown(cell, text));
    return ml__builder_put_number(builder, column, value, cell, err);
  }
  draft->text = true;
  ml_free(draft->numbers);
  draft->numbers = NULL;
  return ML_OK;
}

ml_status ml__builder_put_number(ml__builder *builder, size_t column, double value, const ml__cell *spelling, ml_error *err) {
  ml__draft *draft = &builder->drafts[column];
  draft->filled = builder->rows + 1;
  if (!draft->keep) return ML_OK;
  if (builder->copying) return draft->text ? copy_text(builder, draft, spelling, err) : ML_OK;
  if (draft->text) return ML_OK;
  draft->numbers[builder->rows] = value;
  draft->integral = draft->integral && value == floor(value) && fabs(value) <= 0x1p53;
  return ML_OK;
}

ml_status ml__builder_put_cell(ml__builder *builder, size_t column, const ml__cell *cell, ml_error *err) {
  ml__draft *draft = &builder->drafts[column];
  double value;
  if (!draft->keep || draft->text || builder->copying) return ml__builder_put_text(builder, column, cell, err);
  if (ml__builder_is_missing(builder, cell->bytes, cell->length))
    return ml__builder_put_missing(builder, column, cell->line, err);
  if (ml_parse_number(cell->bytes, cell->length, &value)) return ml__builder_put_number(builder, column, value, cell, err);
  return ml__builder_put_text(builder, column, cell, err);
}

ml_status ml__builder_settle(ml__builder *builder, bool *again, ml_error *err) {
  *again = false;
  for (size_t c = 0; c < builder->draft_count; ++c) {
    ml__draft *draft = &builder->drafts[c];
    size_t bytes;
    if (!draft->keep || !draft->text) continue;
    if (!ml_mul_size(builder->rows, sizeof(ml_str), &bytes) || (draft->texts = ml_arena_alloc(builder->arena, bytes)) == NULL)
      return ml_fail_memory(err, builder->rows, "a text column");
    for (size_t row = 0; row < builder->rows; ++row) draft->texts[row].bytes = "";
    *again = true;
  }
  if (*again) {
    builder->copying = true;
    builder->rows = 0;
    for (size_t c = 0; c < builder->draft_count; ++c) builder->drafts[c].filled = 0;
  }
  return ML_OK;
}

static void hand_over(ml__draft *draft, ml_column *column) {
  *column = (ml_column){draft->name, draft->text ? ML_COLUMN_TEXT : ML_COLUMN_NUMBER, draft->numbers, draft->texts,
                        draft->missing, !draft->text && draft->integral};
  draft->numbers = NULL;
}

ml_status ml__builder_finish(ml__builder *builder, ml_table *out, ml_error *err) {
  const ml_table_options *options = builder->options;
  size_t count = 0, bytes;
  for (size_t c = 0; c < builder->draft_count; ++c) count += builder->drafts[c].keep ? 1 : 0;
  bytes = count * sizeof(ml_column);
  ml_column *columns = ml_arena_alloc(builder->arena, bytes);
  if (columns == NULL) return ml_fail_memory(err, bytes, "table columns");
  count = 0;
  if (options->subset) {
    for (size_t i = 0; i < options->rule_count; ++i) {
      size_t c = options->rules[i].keep ? ml__builder_find(builder, options->rules[i].name,
                                                           strlen(options->rules[i].name)) : SIZE_MAX;
      if (c == SIZE_MAX || !builder->drafts[c].keep) continue;
      hand_over(&builder->drafts[c], &columns[count++]);
      builder->drafts[c].keep = false; /* a second rule of that name adds nothing */
    }
  } else {
    for (size_t c = 0; c < builder->draft_count; ++c)
      if (builder->drafts[c].keep) hand_over(&builder->drafts[c], &columns[count++]);
  }
  *out = (ml_table){columns, count, builder->rows, builder->arena};
  builder->arena = NULL;
  ml__builder_free(builder);
  return ML_OK;
}
