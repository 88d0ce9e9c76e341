/* Regular expressions in RE2's syntax, without \p (look-around RE2 has not either): literals, . [a-z] [^a-z] [[:alpha:]] \d \w \s
 * \D \W \S \b \B ^ $ \A \z, ( ) (?: ), (?i) and (?s) at the beginning or as (?i:x), |, * + ? {m} {m,} {m,n} and their lazy
 * forms, \xHH \x{H} \n \t and so on.
 *
 * The pattern becomes a non-deterministic automaton, run on all of its states at once (Thompson 1968), so time is proportional to
 * pattern times text whatever the pattern: a model file cannot make the server hang with "(a*)*b". A search gives the leftmost
 * match and, of those, the longest (POSIX, and RE2 with longest_match): each state carries where its match began (Pike 1987), and
 * the states are in that order. Counted repetitions are written out; the number of instructions and of parsing steps is limited.
 * Text is UTF-8; a byte that is none counts as U+FFFD. */
#include "ops/regex.h"
#include <string.h>
#include "base/alloc.h"

enum { MAX_INSTRUCTIONS = 1 << 15, MAX_STEPS = 1 << 20, MAX_DEPTH = 200, MAX_REPEAT = 1000 };
typedef enum op { OP_SET, OP_SPLIT, OP_JUMP, OP_ASSERT, OP_MATCH } op;

typedef struct instruction {
  op op;
  uint32_t a, b;                /* SET: ranges a … b-1; SPLIT: both ways; JUMP: to a; ASSERT: the character a */
  bool negate;
} instruction;

typedef struct range { uint32_t low, high; } range;

struct ml__regex {
  instruction *code;
  range *ranges;
  size_t n_code, cap_code, n_ranges, cap_ranges;
};
typedef ml__regex automaton;

typedef struct parser {
  automaton *m;
  const char *text;
  size_t length, at, steps;
  int depth;
  bool fold, dot_all;
  const char *what;
  ml_error *err;
} parser;

static ml_status bad(parser *p, const char *why) {
  return ml_fail(p->err, ML_INVALID_ARGUMENT, "attribute %s: %s at byte %zu of '%.*s'", p->what, why, p->at,
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

uint32_t ml__utf8_next(const char *s, size_t length, size_t *at) {
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
  } else *out = ml__utf8_next(p->text, p->length, &p->at);
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
  } else low = ml__utf8_next(p->text, p->length, &p->at);
  high = low;
  if (p->at + 1 < p->length && p->text[p->at] == '-' && p->text[p->at + 1] != ']') {
    p->at++;
    if (eat(p, '\\')) ML_TRY(escaped(p, &high));
    else high = ml__utf8_next(p->text, p->length, &p->at);
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
  uint32_t v = ml__utf8_next(p->text, p->length, &p->at);
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

/* How often an atom comes. most -1: any number */
typedef struct times { int least, most; } times;

/* The copies of the atom at `from`; one has been written at code[begin]. */
static ml_status repeat(parser *p, size_t begin, size_t from, times n, bool fold, bool dot_all) {
  automaton *m = p->m;
  if (n.least > MAX_REPEAT || n.most > MAX_REPEAT || (n.most >= 0 && n.most < n.least)) return bad(p, "a wrong repetition");
  m->n_code = begin;
  for (int i = 0; i < n.least; i++) ML_TRY(again(p, from, fold, dot_all));
  if (n.most < 0) { /* split: atom, back */
    size_t split = m->n_code;
    ML_TRY(emit(p, (instruction) { .op = OP_SPLIT, .a = (uint32_t)split + 1 }));
    ML_TRY(again(p, from, fold, dot_all));
    ML_TRY(emit(p, (instruction) { .op = OP_JUMP, .a = (uint32_t)split }));
    m->code[split].b = (uint32_t)m->n_code;
    return ML_OK;
  }
  for (int i = n.least; i < n.most; i++) {
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
    times n = { 1, 1 };
    char c = p->text[p->at];
    if (c == '{') {
      if (!counts(p, &n.least, &n.most)) continue;
    } else if (c == '*' || c == '+' || c == '?') {
      p->at++;
      n.least = c == '+';
      n.most = c == '?' ? 1 : -1;
    } else continue;
    (void)eat(p, '?'); /* lazy: the same strings match, and a search takes the longest */
    if (more(p) && (next_is(p, '*') || next_is(p, '+') || next_is(p, '?'))) return bad(p, "a repetition of a repetition");
    ML_TRY(repeat(p, begin, from, n, fold, dot_all));
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

void ml__regex_free(ml__regex *m) {
  if (!m) return;
  ml_free(m->code);
  ml_free(m->ranges);
  ml_free(m);
}

ml_status ml__regex_new(ml_str pattern, const char *what, ml__regex **out, ml_error *err) {
  automaton *m = ml_alloc_zero(1, sizeof *m);
  if (!m) return ml_fail_memory(err, sizeof *m, "a pattern");
  parser p = { .m = m, .text = pattern.bytes, .length = pattern.length, .what = what, .err = err };
  ml_status status = alternatives(&p);
  if (status == ML_OK && more(&p)) status = bad(&p, "a ) too many");
  if (status == ML_OK) status = emit(&p, (instruction) { .op = OP_MATCH });
  if (status == ML_OK) *out = m;
  else ml__regex_free(m);
  return status;
}

/* ---------------------------------------------------------------- matching ---- */
typedef struct states { /* sparse set (Briggs & Torczon 1993); where each state's match began, in ascending order */
  size_t *begin;
  uint32_t *dense, *sparse;
  size_t n;
} states;

size_t ml__regex_room(const ml__regex *m) { /* n_code <= MAX_INSTRUCTIONS */
  return m->n_code * (2 * sizeof(size_t) + 5 * sizeof(uint32_t)) + sizeof(uint32_t);
}

/* Two sets and a stack that holds, for every split on the way, both of its ends. */
static uint32_t *lay_out(const automaton *m, void *room, states *now, states *next) {
  size_t n = m->n_code, *begin = room;
  uint32_t *rest = (uint32_t *)(begin + 2 * n);
  *now = (states) { begin, rest, rest + n, 0 };
  *next = (states) { begin + n, rest + 2 * n, rest + 3 * n, 0 };
  return rest + 4 * n;
}

static bool add(states *s, uint32_t v, size_t begin) {
  uint32_t at = s->sparse[v];
  if (at < s->n && s->dense[at] == v) return false;
  s->sparse[v] = (uint32_t)s->n;
  s->begin[s->n] = begin;
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

typedef struct place { size_t at, after; uint32_t before, behind; } place; /* between two characters */

static uint32_t character(ml_str s, size_t *at) { return *at < s.length ? ml__utf8_next(s.bytes, s.length, at) : OUTSIDE; }

/* The state and all that can be reached without a character. */
static void follow(const automaton *m, states *s, uint32_t from, size_t begin, uint32_t *stack, uint32_t before, uint32_t behind) {
  size_t top = 0;
  stack[top++] = from;
  while (top > 0) {
    uint32_t at = stack[--top];
    const instruction *i = &m->code[at];
    if (!add(s, at, begin)) continue;
    if (i->op == OP_SPLIT) stack[top++] = i->b;
    if (i->op == OP_JUMP || i->op == OP_SPLIT) stack[top++] = i->a;
    else if (i->op == OP_ASSERT && holds(i->a, before, behind)) stack[top++] = at + 1;
  }
}

static bool in_set(const automaton *m, const instruction *i, uint32_t c) {
  bool found = false;
  for (uint32_t r = i->a; r < i->b && !found; r++) found = c >= m->ranges[r].low && c <= m->ranges[r].high;
  return found != i->negate;
}

/* The states behind the character p->behind; those that began behind `limit` are given up. */
static void advance(const automaton *m, const states *now, states *next, const place *p, ml_str s, uint32_t *stack, size_t limit) {
  size_t after = p->after;
  uint32_t behind = character(s, &after);
  next->n = 0;
  for (size_t k = 0; k < now->n && now->begin[k] <= limit; k++) {
    const instruction *i = &m->code[now->dense[k]];
    if (i->op == OP_SET && p->behind != OUTSIDE && in_set(m, i, p->behind))
      follow(m, next, now->dense[k] + 1, now->begin[k], stack, p->behind, behind);
  }
}

/* The match among the states that began first. */
static bool matched(const automaton *m, const states *now, size_t *begin) {
  for (size_t k = 0; k < now->n && now->begin[k] <= *begin; k++) {
    if (m->code[now->dense[k]].op != OP_MATCH) continue;
    *begin = now->begin[k];
    return true;
  }
  return false;
}

static void step(place *p, ml_str s, states *now, states *next) {
  states swap = *now;
  *now = *next;
  *next = swap;
  p->before = p->behind;
  p->at = p->after;
  p->behind = character(s, &p->after);
}

bool ml__regex_matches(const ml__regex *m, ml_str s, void *room) {
  states now, next;
  uint32_t *stack = lay_out(m, room, &now, &next);
  place p = { .before = OUTSIDE };
  p.behind = character(s, &p.after);
  follow(m, &now, 0, 0, stack, p.before, p.behind);
  while (p.behind != OUTSIDE && now.n > 0) {
    advance(m, &now, &next, &p, s, stack, SIZE_MAX);
    step(&p, s, &now, &next);
  }
  size_t begin = 0;
  return p.behind == OUTSIDE && matched(m, &now, &begin);
}

bool ml__regex_find(const ml__regex *m, ml_str s, size_t start, size_t *begin, size_t *end, void *room) {
  states now, next;
  uint32_t *stack = lay_out(m, room, &now, &next);
  bool ended = false;
  place p = { start, start, start > 0 ? (unsigned char)s.bytes[start - 1] : OUTSIDE, 0 }; /* no byte of several is a word's */
  p.behind = character(s, &p.after);
  *begin = SIZE_MAX;
  while (!ended && (*begin == SIZE_MAX || now.n > 0)) {
    if (*begin == SIZE_MAX) follow(m, &now, 0, p.at, stack, p.before, p.behind);
    if (matched(m, &now, begin)) *end = p.at;
    ended = p.behind == OUTSIDE;
    advance(m, &now, &next, &p, s, stack, *begin);
    step(&p, s, &now, &next);
  }
  return *begin != SIZE_MAX;
}
