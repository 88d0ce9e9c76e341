/* RegexFullMatch 20: does the whole string match the pattern? X (any shape) string -> Y (same) bool. ONNX operator specification;
 * syntax: RE2's, without \p (look-around RE2 has not either): literals, . [a-z] [^a-z] [[:alpha:]] \d \w \s \D \W \S \b \B ^ $
 * \A \z, ( ) (?: ), (?i) and (?s) at the beginning or as (?i:x), |, * + ? {m} {m,} {m,n} and their lazy forms, \xHH \x{H} \n \t
 * and so on.
 *
 * The pattern becomes a non-deterministic automaton, run on all of its states at once (Thompson 1968), so time is proportional to
 * pattern times text whatever the pattern: a model file cannot make the server hang with "(a*)*b". Counted repetitions are
 * written out; the number of instructions and of parsing steps is limited. Text is UTF-8; a byte that is none counts as
 * U+FFFD. */
#include <string.h>
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "pattern", ML_ATTR_STRING, true, "regular expression in RE2's syntax" },
  { 0 },
};

enum { MAX_INSTRUCTIONS = 1 << 15, MAX_STEPS = 1 << 20, MAX_DEPTH = 200, MAX_REPEAT = 1000 };
typedef enum op { OP_SET, OP_SPLIT, OP_JUMP, OP_ASSERT, OP_MATCH } op;

typedef struct instruction {
  op op;
  uint32_t a, b;                /* SET: ranges a … b-1; SPLIT: both ways; JUMP: to a; ASSERT: the character a */
  bool negate;
} instruction;

typedef struct range { uint32_t low, high; } range;

typedef struct automaton {
  instruction *code;
  range *ranges;
  size_t n_code, cap_code, n_ranges, cap_ranges;
} automaton;

typedef struct parser {
  automaton *m;
  const char *text;
  size_t length, at, steps;
  int depth;
  bool fold, dot_all;
  ml_error *err;
} parser;

static ml_status bad(parser *p, const char *why) {
  return ml_fail(p->err, ML_INVALID_ARGUMENT, "attribute pattern: %s at byte %zu of '%.*s'", why, p->at,
                 p->length > 80 ? 80 : (int)p->length, p->text);
}

/* ---------------------------------------------------------------- building ---- */
static ml_status emit(parser *p, instruction i) {
  if (p->m->n_code >= MAX_INSTRUCTIONS) return bad(p, "the pattern becomes too large");
  ML_TRY(ml_grow(&p->m->code, &p->m->cap_code, p->m->n_code + 1, sizeof i, "a pattern", p->err));
  p->m->code[p->m->n_code++] = i;
  return ML_OK;
}

static ml_status one_range(parser *p, uint32_t low, uint32_t high) {
  if (p->m->n_ranges >= MAX_INSTRUCTIONS) return bad(p, "the pattern becomes too large");
  ML_TRY(ml_grow(&p->m->ranges, &p->m->cap_ranges, p->m->n_ranges + 1, sizeof(range), "a pattern", p->err));
  p->m->ranges[p->m->n_ranges++] = (range) { low, high };
  return ML_OK;
}

static ml_status add_range(parser *p, uint32_t low, uint32_t high) {
  ML_TRY(one_range(p, low, high));
  if (!p->fold) return ML_OK;
  for (int other = 0; other < 2; other++) { /* the part within a-z or A-Z, in the other case */
    uint32_t first = other ? 'A' : 'a', a = low > first ? low : first, b = high < first + 25 ? high : first + 25;
    if (a <= b) ML_TRY(one_range(p, a ^ 32, b ^ 32));
  }
  return ML_OK;
}

static ml_status set_since(parser *p, size_t first, bool negate) {
  return emit(p, (instruction) { OP_SET, (uint32_t)first, (uint32_t)p->m->n_ranges, negate });
}

/* One character of a text; *at moves behind it. */
static uint32_t decode(const char *s, size_t length, size_t *at) {
  unsigned char c = (unsigned char)s[*at];
  uint32_t v = c < 0x80 ? c : c < 0xC2 || c > 0xF4 ? 0xFFFD : c < 0xE0 ? c & 0x1Fu : c < 0xF0 ? c & 0x0Fu : c & 7u;
  size_t n = c < 0x80 || v == 0xFFFD ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
  static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
  if (n > length - *at) n = 1, v = 0xFFFD;
  for (size_t i = 1; i < n; i++) {
    unsigned char d = (unsigned char)s[*at + i];
    if ((d & 0xC0) != 0x80) {
      n = 1;
      v = 0xFFFD;
      break;
    }
    v = v << 6 | (d & 0x3Fu);
  }
  if (n > 1 && (v < least[n] || v > 0x10FFFF || (v >= 0xD800 && v < 0xE000))) n = 1, v = 0xFFFD;
  *at += n;
  return v;
}

static bool more(const parser *p) { return p->at < p->length; }
static bool next_is(const parser *p, char c) { return more(p) && p->text[p->at] == c; }
static bool eat(parser *p, char c) {
  if (!next_is(p, c)) return false;
  p->at++;
  return true;
}

/* Ranges of \d \w \s, and of POSIX names. */
static ml_status class_ranges(parser *p, const char *ranges) {
  for (; *ranges; ranges += 2) ML_TRY(one_range(p, (unsigned char)ranges[0], (unsigned char)ranges[1]));
  return ML_OK;
}

static const char *perl_class(char c) {
  return c == 'd' ? "09" : c == 'w' ? "09AZ__az" : c == 's' ? "\t\n\f\r  " : NULL;
}

/* Everything but the ranges, as ranges; they are in order. */
static ml_status complement(parser *p, const char *ranges) {
  uint32_t from = 0;
  for (; *ranges; ranges += 2) {
    ML_TRY(one_range(p, from, (unsigned char)ranges[0] - 1u));
    from = (unsigned char)ranges[1] + 1u;
  }
  return one_range(p, from, 0x10FFFF);
}

static ml_status hexadecimal(parser *p, uint32_t *out) {
  bool braces = eat(p, '{');
  uint32_t v = 0;
  size_t digits = 0;
  for (; more(p) && digits < (braces ? 6 : 2); digits++) {
    char c = p->text[p->at];
    uint32_t d = c >= '0' && c <= '9' ? (uint32_t)(c - '0') : (c | 32) >= 'a' && (c | 32) <= 'f'
        ? (uint32_t)((c | 32) - 'a' + 10) : 99;
    if (d == 99) break;
    v = v * 16 + d;
    p->at++;
  }
  if (digits == 0 || (!braces && digits != 2) || (braces && !eat(p, '}')) || v > 0x10FFFF) return bad(p, "a wrong \\x");
  *out = v;
  return ML_OK;
}

/* Behind a backslash: a character; classes and assertions have been dealt with. */
static ml_status escaped(parser *p, uint32_t *out) {
  if (!more(p)) return bad(p, "a backslash ends the pattern");
  char c = p->text[p->at];
  static const char names[] = "ntrfva", values[] = "\n\t\r\f\v\a";
  const char *name = strchr(names, c);
  if (c == 'x') {
    p->at++;
    return hexadecimal(p, out);
  }
  bool letter = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
  if (letter && !name) return bad(p, "an unknown escape");
  if (name && c) {
    p->at++;
    *out = (unsigned char)values[name - names];
  } else *out = decode(p->text, p->length, &p->at);
  return ML_OK;
}

static ml_status posix_class(parser *p, bool *found) {
  static const struct { const char *name, *ranges; } classes[] = {
    { "alnum", "09AZaz" }, { "alpha", "AZaz" }, { "ascii", "\001\177" }, { "blank", "\t\t  " }, { "cntrl", "\001\037\177\177" },
    { "digit", "09" }, { "graph", "!~" }, { "lower", "az" }, { "print", " ~" }, { "punct", "!/:@[`{~" }, { "space", "\t\r  " },
    { "upper", "AZ" }, { "word", "09AZ__az" }, { "xdigit", "09AFaf" },
  };
  *found = false;
  if (p->at + 1 >= p->length || p->text[p->at] != '[' || p->text[p->at + 1] != ':') return ML_OK;
  for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
    size_t n = strlen(classes[i].name);
    if (p->length - p->at < n + 4 || memcmp(p->text + p->at + 2, classes[i].name, n) != 0 || memcmp(p->text + p->at + 2 + n,
                                                                                                    ":]", 2) != 0)
      continue;
    p->at += n + 4;
    *found = true;
    return class_ranges(p, classes[i].ranges);
  }
  return bad(p, "an unknown class");
}

static ml_status bracket_item(parser *p) {
  uint32_t low, high;
  bool posix;
  ML_TRY(posix_class(p, &posix));
  if (posix) return ML_OK;
  if (eat(p, '\\')) {
    const char *ranges = more(p) ? perl_class((char)(p->text[p->at] | 32)) : NULL;
    if (ranges) return (p->text[p->at++] & 32) ? class_ranges(p, ranges) : complement(p, ranges);
    ML_TRY(escaped(p, &low));
  } else low = decode(p->text, p->length, &p->at);
  high = low;
  if (p->at + 1 < p->length && p->text[p->at] == '-' && p->text[p->at + 1] != ']') {
    p->at++;
    if (eat(p, '\\')) ML_TRY(escaped(p, &high));
    else high = decode(p->text, p->length, &p->at);
    if (high < low) return bad(p, "a range that ends before it begins");
  }
  return add_range(p, low, high);
}

static ml_status bracket(parser *p) {
  size_t first = p->m->n_ranges;
  bool negate = eat(p, '^');
  for (bool start = true; start || !next_is(p, ']'); start = false) {
    if (!more(p)) return bad(p, "a class without its ]");
    ML_TRY(bracket_item(p));
  }
  p->at++;
  return set_since(p, first, negate);
}

static ml_status alternatives(parser *p);

static ml_status group(parser *p) {
  bool fold = p->fold, dot_all = p->dot_all;
  if (++p->depth > MAX_DEPTH) return bad(p, "parentheses nested too deep");
  if (eat(p, '?')) {
    bool on = true, named = eat(p, 'P');
    if (named || next_is(p, '<')) {
      if (!eat(p, '<')) return bad(p, "an unknown group");
      while (more(p) && !next_is(p, '>')) p->at++;
      if (!eat(p, '>')) return bad(p, "a name without its >");
    } else {
      for (; more(p) && !next_is(p, ':') && !next_is(p, ')'); p->at++) {
        char c = p->text[p->at];
        if (c == '-') on = false;
        else if (c == 'i') p->fold = on;
        else if (c == 's') p->dot_all = on;
        else if (c != 'U') return bad(p, "an unknown group or flag");
      }
      if (eat(p, ')')) { /* flags to the end of the group around */
        p->depth--;
        return ML_OK;
      }
      p->at++;
    }
  }
  ML_TRY(alternatives(p));
  if (!eat(p, ')')) return bad(p, "a missing )");
  p->fold = fold;
  p->dot_all = dot_all;
  p->depth--;
  return ML_OK;
}

static ml_status backslash(parser *p) {
  size_t first = p->m->n_ranges;
  char c = more(p) ? p->text[p->at] : 0;
  const char *ranges = perl_class((char)(c | 32));
  if (ranges) {
    p->at++;
    ML_TRY(class_ranges(p, ranges));
    return set_since(p, first, (c & 32) == 0);
  }
  if (c == 'b' || c == 'B' || c == 'A' || c == 'z') {
    p->at++;
    return emit(p, (instruction) { .op = OP_ASSERT, .a = (unsigned char)(c == 'A' ? '^' : c == 'z' ? '$' : c) });
  }
  uint32_t v;
  ML_TRY(escaped(p, &v));
  ML_TRY(add_range(p, v, v));
  return set_since(p, first, false);
}

static ml_status atom(parser *p) {
  size_t first = p->m->n_ranges;
  char c = p->text[p->at];
  if (++p->steps > MAX_STEPS) return bad(p, "the pattern becomes too large");
  if (eat(p, '(')) return group(p);
  if (eat(p, '[')) return bracket(p);
  if (eat(p, '\\')) return backslash(p);
  if (eat(p, '.')) {
    if (!p->dot_all) ML_TRY(one_range(p, '\n', '\n'));
    return set_since(p, first, true);
  }
  if (eat(p, '^') || eat(p, '$')) return emit(p, (instruction) { .op = OP_ASSERT, .a = (unsigned char)c });
  if (c == '*' || c == '+' || c == '?') return bad(p, "nothing to repeat");
  uint32_t v = decode(p->text, p->length, &p->at);
  ML_TRY(add_range(p, v, v));
  return set_since(p, first, false);
}

/* {m}, {m,} or {m,n}; anything else is literal text. most -1: any number */
static bool counts(parser *p, int *least, int *most) {
  size_t at = p->at + 1;
  int v[2] = { -1, -1 };
  bool comma = false;
  for (; at < p->length; at++) {
    char c = p->text[at];
    if (c >= '0' && c <= '9') {
      int *n = &v[comma];
      *n = (*n < 0 ? 0 : *n) * 10 + (c - '0');
      if (*n > MAX_REPEAT) *n = MAX_REPEAT + 1;
    } else if (c == ',' && !comma) comma = true;
    else break;
  }
  if (at >= p->length || p->text[at] != '}' || v[0] < 0) return false;
  *least = v[0];
  *most = comma ? v[1] : v[0];
  p->at = at + 1;
  return true;
}

/* An atom from `from` on, again. */
static ml_status again(parser *p, size_t from, bool fold, bool dot_all) {
  size_t end = p->at;
  bool f = p->fold, d = p->dot_all;
  p->at = from;
  p->fold = fold;
  p->dot_all = dot_all;
  ML_TRY(atom(p));
  p->steps += p->at - from;
  p->at = end;
  p->fold = f;
  p->dot_all = d;
  return ML_OK;
}

/* least to most copies of the atom at `from`; one has been written at code[begin]. */
static ml_status repeat(parser *p, size_t begin, size_t from, int least, int most, bool fold, bool dot_all) {
  automaton *m = p->m;
  if (least > MAX_REPEAT || most > MAX_REPEAT || (most >= 0 && most < least)) return bad(p, "a wrong repetition");
  m->n_code = begin;
  for (int i = 0; i < least; i++) ML_TRY(again(p, from, fold, dot_all));
  if (most < 0) { /* split: atom, back */
    size_t split = m->n_code;
    ML_TRY(emit(p, (instruction) { .op = OP_SPLIT, .a = (uint32_t)split + 1 }));
    ML_TRY(again(p, from, fold, dot_all));
    ML_TRY(emit(p, (instruction) { .op = OP_JUMP, .a = (uint32_t)split }));
    m->code[split].b = (uint32_t)m->n_code;
    return ML_OK;
  }
  for (int i = least; i < most; i++) {
    size_t split = m->n_code;
    ML_TRY(emit(p, (instruction) { .op = OP_SPLIT, .a = (uint32_t)split + 1 }));
    ML_TRY(again(p, from, fold, dot_all));
    m->code[split].b = (uint32_t)m->n_code;
  }
  return ML_OK;
}

static ml_status sequence(parser *p) {
  while (more(p) && !next_is(p, '|') && !next_is(p, ')')) {
    size_t begin = p->m->n_code, from = p->at;
    bool fold = p->fold, dot_all = p->dot_all;
    ML_TRY(atom(p));
    if (!more(p)) break;
    int least = 1, most = 1;
    char c = p->text[p->at];
    if (c == '{') {
      if (!counts(p, &least, &most)) continue;
    } else if (c == '*' || c == '+' || c == '?') {
      p->at++;
      least = c == '+';
      most = c == '?' ? 1 : -1;
    } else continue;
    (void)eat(p, '?'); /* lazy: the same strings match */
    if (more(p) && (next_is(p, '*') || next_is(p, '+') || next_is(p, '?'))) return bad(p, "a repetition of a repetition");
    ML_TRY(repeat(p, begin, from, least, most, fold, dot_all));
  }
  return ML_OK;
}

/* a|b: split a, jump end; b. The code of an alternative moves by one when a | follows. */
static ml_status alternatives(parser *p) {
  automaton *m = p->m;
  size_t pending = SIZE_MAX; /* list of jumps to the end, linked by a */
  for (;;) {
    size_t begin = m->n_code;
    ML_TRY(emit(p, (instruction) { .op = OP_JUMP, .a = (uint32_t)begin + 1 })); /* becomes a split */
    ML_TRY(sequence(p));
    if (!eat(p, '|')) break;
    size_t jump = m->n_code;
    ML_TRY(emit(p, (instruction) { .op = OP_JUMP, .a = (uint32_t)pending }));
    pending = jump;
    m->code[begin] = (instruction) { .op = OP_SPLIT, .a = (uint32_t)begin + 1, .b = (uint32_t)m->n_code };
  }
  while (pending != SIZE_MAX) {
    uint32_t next = m->code[pending].a;
    m->code[pending].a = (uint32_t)m->n_code;
    pending = next == UINT32_MAX ? SIZE_MAX : next;
  }
  return ML_OK;
}

static void release(void *state) {
  automaton *m = state;
  if (!m) return;
  ml_free(m->code);
  ml_free(m->ranges);
  ml_free(m);
}

static ml_status prepare(ml_op_ctx *ctx, void **out, ml_error *err) {
  ml_str pattern = ml_attr_str(ctx->attrs, "pattern", "");
  automaton *m = ml_alloc_zero(1, sizeof *m);
  if (!m) return ml_fail_memory(err, sizeof *m, "a pattern");
  parser p = { .m = m, .text = pattern.bytes, .length = pattern.length, .err = err };
  ml_status status = alternatives(&p);
  if (status == ML_OK && more(&p)) status = bad(&p, "a ) too many");
  if (status == ML_OK) status = emit(&p, (instruction) { .op = OP_MATCH });
  if (status == ML_OK) *out = m;
  else release(m);
  return status;
}

/* ---------------------------------------------------------------- matching ---- */
typedef struct states { /* sparse set (Briggs & Torczon 1993) */
  uint32_t *dense, *sparse;
  size_t n;
} states;

static bool add(states *s, uint32_t v) {
  uint32_t at = s->sparse[v];
  if (at < s->n && s->dense[at] == v) return false;
  s->sparse[v] = (uint32_t)s->n;
  s->dense[s->n++] = v;
  return true;
}

#define OUTSIDE UINT32_MAX /* before the first, behind the last character */
static bool is_word(uint32_t c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_'; }

static bool holds(uint32_t kind, uint32_t before, uint32_t behind) {
  if (kind == '^') return before == OUTSIDE;
  if (kind == '$') return behind == OUTSIDE;
  bool boundary = is_word(before) != is_word(behind);
  return kind == 'b' ? boundary : !boundary;
}

/* The state and all that can be reached without a character. */
static void follow(const automaton *m, states *s, uint32_t from, uint32_t *stack, uint32_t before, uint32_t behind) {
  size_t top = 0;
  if (add(s, from)) stack[top++] = from;
  while (top > 0) {
    const instruction *i = &m->code[stack[--top]];
    uint32_t at = (uint32_t)(i - m->code);
    if (i->op == OP_JUMP || i->op == OP_SPLIT) {
      if (add(s, i->a)) stack[top++] = i->a;
      if (i->op == OP_SPLIT && add(s, i->b)) stack[top++] = i->b;
    } else if (i->op == OP_ASSERT && holds(i->a, before, behind) && add(s, at + 1)) stack[top++] = at + 1;
  }
}

static bool in_set(const automaton *m, const instruction *i, uint32_t c) {
  bool found = false;
  for (uint32_t r = i->a; r < i->b && !found; r++) found = c >= m->ranges[r].low && c <= m->ranges[r].high;
  return found != i->negate;
}

static bool matches(const automaton *m, ml_str s, uint32_t *room) {
  size_t n = m->n_code, at = 0;
  states now = { room, room + n, 0 }, next = { room + 2 * n, room + 3 * n, 0 };
  uint32_t *stack = room + 4 * n, c = OUTSIDE, behind = at < s.length ? decode(s.bytes, s.length, &at) : OUTSIDE;
  follow(m, &now, 0, stack, OUTSIDE, behind);
  while (behind != OUTSIDE && now.n > 0) {
    c = behind;
    behind = at < s.length ? decode(s.bytes, s.length, &at) : OUTSIDE;
    next.n = 0;
    for (size_t k = 0; k < now.n; k++) {
      const instruction *i = &m->code[now.dense[k]];
      if (i->op == OP_SET && in_set(m, i, c)) follow(m, &next, now.dense[k] + 1, stack, c, behind);
    }
    states swap = now;
    now = next;
    next = swap;
  }
  for (size_t k = 0; k < now.n; k++)
    if (m->code[now.dense[k]].op == OP_MATCH) return behind == OUTSIDE;
  return false;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  ml_op_set(ctx->out[0], ML_BOOL, ctx->in[0]->dims, ctx->in[0]->rank);
  return ML_OK;
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  const automaton *m = ctx->state;
  (void)err;
  *bytes = 5 * m->n_code * sizeof(uint32_t); /* at most MAX_INSTRUCTIONS of them */
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  const automaton *m = ctx->state;
  (void)err;
  memset(ctx->workspace, 0, 5 * m->n_code * sizeof(uint32_t));
  for (size_t i = 0; i < x->count; i++)
    ((uint8_t *)ctx->out[0]->data)[i] = matches(m, ((const ml_str *)x->data)[i], ctx->workspace);
  return ML_OK;
}

const ml_op_def ml_op_regex_full_match = {
  .name = "RegexFullMatch", .domain = "", .since = 20, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_BIT(ML_STRING) }, .formula = "Y = the whole of X matches pattern", .infer = infer, .prepare = prepare,
  .release = release, .workspace = workspace, .run = run,
};
