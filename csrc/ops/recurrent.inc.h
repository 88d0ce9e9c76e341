/* The passes over time for one element type: included by recurrent.c with T, NAME(x) and DTYPE defined. No include guard on
 * purpose.
 *
 * Forward, per direction: the products of all inputs with W at once (one large matrix product), then step by step h R^T and the
 * cell. `gates` (S B, GH) holds pre-activations and afterwards the activated gates; hs (S+1, B, H) the states h_0 … h_S, cs the
 * LSTM's cell states, hr (S, B, H) the GRU's r h (or h R_h^T + Rb_h with linear_before_reset). A sequence that has ended keeps
 * its state.
 *
 * Backward, per direction, from the last step: dh and dc flow back in (B, H) buffers; the gradients of the pre-activations lie in
 * dgates like gates, and dX, dW and the input half of dB come from it by one product each at the end (Werbos 1990; Hochreiter &
 * Schmidhuber 1997 for LSTM with Gers & Schmidhuber 2000's peepholes; Cho et al. 2014 for GRU). */

static void NAME(activate)(const ml_kernels *k, const ml__gate *g, T *v, size_t n) {
  const T a = (T)g->alpha, b = (T)g->beta;
  static const ml_unary kernel[] = { ML_UN_SIGMOID, ML_UN_TANH, ML_UN_RELU };
  if (DTYPE == ML_FLOAT32 && g->act <= ML__GATE_RELU) {
    k->unary_f32(kernel[g->act], (const float *)(const void *)v, (float *)(void *)v, n, 0, 0);
    return;
  }
  switch (g->act) {
    case ML__GATE_SIGMOID: for (size_t i = 0; i < n; i++) v[i] = 1 / (1 + exp(-v[i])); break;
    case ML__GATE_TANH: for (size_t i = 0; i < n; i++) v[i] = tanh(v[i]); break;
    case ML__GATE_RELU: for (size_t i = 0; i < n; i++) v[i] = v[i] > 0 ? v[i] : 0; break;
    case ML__GATE_LEAKY_RELU: for (size_t i = 0; i < n; i++) v[i] = v[i] < 0 ? a * v[i] : v[i]; break;
    case ML__GATE_THRESHOLDED_RELU: for (size_t i = 0; i < n; i++) v[i] = v[i] > a ? v[i] : 0; break;
    case ML__GATE_SCALED_TANH: for (size_t i = 0; i < n; i++) v[i] = a * tanh(b * v[i]); break;
    case ML__GATE_HARD_SIGMOID: for (size_t i = 0; i < n; i++) v[i] = fmin(fmax(a * v[i] + b, (T)0), (T)1); break;
    case ML__GATE_ELU: for (size_t i = 0; i < n; i++) v[i] = v[i] < 0 ? a * expm1(v[i]) : v[i]; break;
    case ML__GATE_SOFTSIGN: for (size_t i = 0; i < n; i++) v[i] = v[i] / (1 + fabs(v[i])); break;
    case ML__GATE_SOFTPLUS: for (size_t i = 0; i < n; i++) v[i] = fmax(v[i], (T)0) + log1p(exp(-fabs(v[i]))); break;
    case ML__GATE_AFFINE: for (size_t i = 0; i < n; i++) v[i] = a * v[i] + b; break;
  }
}

/* f'(x) from y = f(x), for the activations that have gradients */
static inline T NAME(slope)(const ml__gate *g, T y) {
  return g->act == ML__GATE_SIGMOID ? y * (1 - y) : g->act == ML__GATE_TANH ? 1 - y * y : y > 0 ? (T)1 : (T)0;
}

static void NAME(bound)(T *v, size_t n, float clip) {
  const T c = (T)clip;
  if (clip > 0) for (size_t i = 0; i < n; i++) v[i] = v[i] > c ? c : v[i] < -c ? -c : v[i];
}

/* out (rows, N) [+]= x (rows, K) w^T, w (N, K); packed: w packed with its bias, or NULL */
static void NAME(times)(const pass *p, const void *packed, const T *w, const T *x, size_t rows, size_t N, size_t K, T *out,
                        size_t ldo) {
  if (packed) p->kernels->dense_f32(packed, rows, K, N, (const float *)(const void *)x, K, ML_ACT_NONE, 0,
                                    (float *)(void *)out, ldo);
  else ml__product(p->kernels, DTYPE, false, true, rows, N, K, 1, x, K, w, K, 0, out, ldo);
}

static void NAME(lstm_row)(const pass *p, const ml__gate *f, T *g, const T *rec, const T *P, const T *c, T *cn, T *hn) {
  const size_t H = p->m->H;
  for (size_t i = 0; i < 4 * H; i++) g[i] += rec[i];
  if (P)
    for (size_t i = 0; i < H; i++) {
      g[i] += P[i] * c[i];
      g[2 * H + i] += P[2 * H + i] * c[i];
    }
  NAME(bound)(g, 4 * H, P ? 0 : p->m->clip);
  if (P) {
    NAME(bound)(g, H, p->m->clip);
    NAME(bound)(g + 2 * H, 2 * H, p->m->clip);
  }
  if (P) {
    NAME(activate)(p->kernels, f, g, H);
    NAME(activate)(p->kernels, f, g + 2 * H, H);
  } else NAME(activate)(p->kernels, f, g, 3 * H);
  NAME(activate)(p->kernels, f + 1, g + 3 * H, H);
  if (p->m->input_forget) for (size_t i = 0; i < H; i++) g[2 * H + i] = 1 - g[i];
  for (size_t i = 0; i < H; i++) cn[i] = g[2 * H + i] * c[i] + g[i] * g[3 * H + i];
  if (P) { /* the output gate sees the new cell */
    for (size_t i = 0; i < H; i++) g[H + i] += P[H + i] * cn[i];
    NAME(bound)(g + H, H, p->m->clip);
    NAME(activate)(p->kernels, f, g + H, H);
  }
  memcpy(hn, cn, H * sizeof *hn);
  NAME(activate)(p->kernels, f + 2, hn, H);
  for (size_t i = 0; i < H; i++) hn[i] *= g[H + i];
}

/* rec holds the products of z and r; with linear_before_reset of h too, whose bias is Rb */
static void NAME(gru_row_reset)(const pass *p, const ml__gate *f, T *g, const T *rec, const T *Rb, const T *h, T *hr) {
  const size_t H = p->m->H;
  for (size_t i = 0; i < 2 * H; i++) g[i] += rec[i];
  NAME(bound)(g, 2 * H, p->m->clip);
  NAME(activate)(p->kernels, f, g, 2 * H);
  if (!p->m->linear_before_reset)
    for (size_t i = 0; i < H; i++) hr[i] = g[H + i] * h[i];
  else
    for (size_t i = 0; i < H; i++) hr[i] = rec[2 * H + i] + (Rb ? Rb[2 * H + i] : 0);
}

static void NAME(gru_row_update)(const pass *p, const ml__gate *f, T *g, const T *rec, const T *h, const T *hr, T *hn) {
  const size_t H = p->m->H;
  bool linear = p->m->linear_before_reset;
  for (size_t i = 0; i < H; i++) g[2 * H + i] += linear ? g[H + i] * hr[i] : rec[2 * H + i];
  NAME(bound)(g + 2 * H, H, p->m->clip);
  NAME(activate)(p->kernels, f + 1, g + 2 * H, H);
  for (size_t i = 0; i < H; i++) hn[i] = (1 - g[i]) * g[2 * H + i] + g[i] * h[i];
}

static void NAME(forward)(const pass *p, size_t d) {
  const ml__recurrent *m = p->m;
  const size_t B = m->B, H = m->H, I = m->I, GH = m->G * H, BH = B * H;
  const T *W = (const T *)p->W + d * GH * I, *R = (const T *)p->R + d * GH * H, *bias = p->bias
      ? (const T *)p->bias + d * 2 * GH : NULL;
  const T *P = p->P ? (const T *)p->P + d * 3 * H : NULL;
  T *gates = p->gates, *hs = p->hs, *cs = p->cs, *hr = p->hr, *rec = p->rec;
  const packed_weights *w = p->packed ? &p->packed[d] : NULL;
  bool gru = m->cell == ML__CELL_GRU, linear = gru && m->linear_before_reset;
  NAME(times)(p, w ? w->W : NULL, W, p->X, m->S * B, GH, I, gates, GH);
  for (size_t r = 0; bias && !w && r < m->S * B; r++)
    for (size_t i = 0; i < GH; i++) gates[r * GH + i] += bias[i] + (linear && i >= 2 * H ? 0 : bias[GH + i]);
  for (size_t b = 0; b < B; b++) {
    if (p->h0) memcpy(hs + b * H, (const T *)p->h0 + state_at(m, d, b), H * sizeof(T));
    else memset(hs + b * H, 0, H * sizeof(T));
    if (cs && p->c0) memcpy(cs + b * H, (const T *)p->c0 + state_at(m, d, b), H * sizeof(T));
    else if (cs) memset(cs + b * H, 0, H * sizeof(T));
  }
  for (size_t k = 0; k < m->S; k++) {
    const T *h = hs + k * BH, *c = cs ? cs + k * BH : NULL;
    T *hn = hs + (k + 1) * BH, *cn = cs ? cs + (k + 1) * BH : NULL, *hrk = hr ? hr + k * BH : NULL;
    size_t first = gru && !linear ? 2 * H : GH; /* the gates whose product needs no reset */
    NAME(times)(p, w ? w->R : NULL, R, h, B, first, H, rec, GH);
    if (gru) {
      for (size_t b = 0; b < B; b++)
        if (k < length_of(p, b))
          NAME(gru_row_reset)(p, m->gates[d], gates + row_at(p, d, k, b) * GH, rec + b * GH, bias ? bias + GH : NULL,
                              h + b * H, hrk + b * H);
        else memset(hrk + b * H, 0, H * sizeof(T));
      if (!linear) NAME(times)(p, w ? w->R2 : NULL, R + 2 * H * H, hrk, B, H, H, rec + 2 * H, GH);
    }
    for (size_t b = 0; b < B; b++) {
      if (k >= length_of(p, b)) {
        memcpy(hn + b * H, h + b * H, H * sizeof(T));
        if (cs) memcpy(cn + b * H, c + b * H, H * sizeof(T));
        continue;
      }
      T *g = gates + row_at(p, d, k, b) * GH, *r = rec + b * GH;
      if (m->cell == ML__CELL_LSTM) NAME(lstm_row)(p, m->gates[d], g, r, P, c + b * H, cn + b * H, hn + b * H);
      else if (gru) NAME(gru_row_update)(p, m->gates[d], g, r, h + b * H, hrk + b * H, hn + b * H);
      else {
        for (size_t i = 0; i < H; i++) g[i] += r[i];
        NAME(bound)(g, H, m->clip);
        NAME(activate)(p->kernels, m->gates[d], g, H);
        memcpy(hn + b * H, g, H * sizeof(T));
      }
    }
  }
}

/* Y, Y_h, Y_c of one direction from the states. */
static void NAME(give)(const pass *p, size_t d, T *Y, T *Yh, T *Yc) {
  const ml__recurrent *m = p->m;
  const size_t B = m->B, H = m->H;
  const T *hs = p->hs, *cs = p->cs;
  for (size_t b = 0; b < B; b++) {
    for (size_t k = 0; Y && k < m->S; k++) {
      bool there = k < length_of(p, b);
      T *to = Y + output_at(m, d, there ? time_at(p, d, k, b) : k, b);
      if (there) memcpy(to, hs + ((k + 1) * B + b) * H, H * sizeof(T));
      else memset(to, 0, H * sizeof(T));
    }
    if (Yh) memcpy(Yh + state_at(m, d, b), hs + (m->S * B + b) * H, H * sizeof(T));
    if (Yc) memcpy(Yc + state_at(m, d, b), cs + (m->S * B + b) * H, H * sizeof(T));
  }
}

/* ---------------------------------------------------------------- backward ---- */
/* One row of the LSTM: dh, dc in; dc becomes that of the cell before; dg gets the pre-activations' gradients. */
static void NAME(lstm_back)(const pass *p, const ml__gate *f, const T *g, const T *P, const T *c, const T *cn, const T *dh,
                            T *dc, T *dg,
                            T *dP, T *act) {
  const size_t H = p->m->H;
  memcpy(act, cn, H * sizeof *act);
  NAME(activate)(p->kernels, f + 2, act, H);
  for (size_t i = 0; i < H; i++) {
    T gi = g[i], go = g[H + i], gf = g[2 * H + i], gc = g[3 * H + i];
    T d_o = dh[i] * act[i] * NAME(slope)(f, go), d = dc[i] + dh[i] * go * NAME(slope)(f + 2, act[i]);
    if (P) d += d_o * P[H + i];
    T d_i = d * gc * NAME(slope)(f, gi), d_f = d * c[i] * NAME(slope)(f, gf);
    dg[i] = d_i;
    dg[H + i] = d_o;
    dg[2 * H + i] = d_f;
    dg[3 * H + i] = d * gi * NAME(slope)(f + 1, gc);
    dc[i] = d * gf;
    if (!P) continue;
    dc[i] += d_i * P[i] + d_f * P[2 * H + i];
    if (!dP) continue;
    dP[i] += d_i * c[i];
    dP[H + i] += d_o * cn[i];
    dP[2 * H + i] += d_f * c[i];
  }
}

/* dh (B,H) of the state after step k becomes that of the state before; step (B,GH) gets what flows into h R^T. */
static void NAME(step_back)(const pass *p, const back *q, size_t d, size_t k) {
  const ml__recurrent *m = p->m;
  const size_t B = m->B, H = m->H, GH = m->G * H, BH = B * H;
  const T *R = (const T *)p->R + d * GH * H, *P = p->P ? (const T *)p->P + d * 3 * H : NULL;
  const T *gates = p->gates, *hs = p->hs, *cs = p->cs, *hr = p->hr;
  T *dh = q->dh, *dc = q->dc, *carry = q->carry, *step = q->step, *dgates = q->dgates, *act = q->act, *dP = q->dP
      ? (T *)q->dP + d * 3 * H : NULL;
  bool gru = m->cell == ML__CELL_GRU, linear = gru && m->linear_before_reset;
  const T *h = hs + k * BH, *hrk = hr ? hr + k * BH : NULL;
  memset(step, 0, B * GH * sizeof *step);
  for (size_t b = 0; b < B; b++) {
    if (k >= length_of(p, b)) {
      memcpy(carry + b * H, dh + b * H, H * sizeof(T));
      continue;
    }
    const T *g = gates + row_at(p, d, k, b) * GH;
    T *s = step + b * GH, *D = dh + b * H, *keep = carry + b * H;
    if (q->dY) {
      const T *dy = (const T *)q->dY + output_at(m, d, time_at(p, d, k, b), b);
      for (size_t i = 0; i < H; i++) D[i] += dy[i];
    }
    memset(keep, 0, H * sizeof(T));
    if (m->cell == ML__CELL_LSTM)
      NAME(lstm_back)(p, m->gates[d], g, P, cs + k * BH + b * H, cs + (k + 1) * BH + b * H, D, dc + b * H, s, dP, act);
    else if (gru)
      for (size_t i = 0; i < H; i++) {
        T z = g[i], r = g[H + i], n = g[2 * H + i];
        s[i] = D[i] * (h[b * H + i] - n) * NAME(slope)(m->gates[d], z);
        s[2 * H + i] = D[i] * (1 - z) * NAME(slope)(m->gates[d] + 1, n);
        keep[i] = D[i] * z;
        if (linear) s[H + i] = s[2 * H + i] * hrk[b * H + i] * NAME(slope)(m->gates[d], r);
      }
    else for (size_t i = 0; i < H; i++) s[i] = D[i] * NAME(slope)(m->gates[d], g[i]);
  }
  if (gru && !linear) { /* through r h */
    T *dR = q->dR ? (T *)q->dR + d * GH * H + 2 * H * H : NULL;
    ml__product(p->kernels, DTYPE, false, false, B, H, H, 1, step + 2 * H, GH, R + 2 * H * H, H, 0, dh, H);
    if (dR) ml__product(p->kernels, DTYPE, true, false, H, H, B, 1, step + 2 * H, GH, hrk, H, 1, dR, H);
    for (size_t b = 0; b < B; b++) {
      if (k >= length_of(p, b)) continue;
      const T *g = gates + row_at(p, d, k, b) * GH;
      for (size_t i = 0; i < H; i++) {
        carry[b * H + i] += dh[b * H + i] * g[H + i];
        step[b * GH + H + i] = dh[b * H + i] * h[b * H + i] * NAME(slope)(m->gates[d], g[H + i]);
      }
    }
  }
  for (size_t b = 0; b < B; b++) { /* the input side */
    if (k >= length_of(p, b)) continue;
    T *to = dgates + row_at(p, d, k, b) * GH;
    memcpy(to, step + b * GH, GH * sizeof(T));
    for (size_t i = 0; linear && i < H; i++) step[b * GH + 2 * H + i] *= gates[row_at(p, d, k, b) * GH + H + i];
  }
  size_t n = gru && !linear ? 2 * H : GH;
  memcpy(dh, carry, BH * sizeof(T));
  ml__product(p->kernels, DTYPE, false, false, B, H, n, 1, step, GH, R, H, 1, dh, H);
  if (q->dR) ml__product(p->kernels, DTYPE, true, false, n, H, B, 1, step, GH, h, H, 1, (T *)q->dR + d * GH * H, H);
  T *dRb = q->dB ? (T *)q->dB + d * 2 * GH + GH : NULL;
  for (size_t b = 0; dRb && b < B; b++)
    for (size_t i = 0; i < GH; i++) dRb[i] += step[b * GH + i];
}

static void NAME(backward)(const pass *p, const back *q, size_t d) {
  const ml__recurrent *m = p->m;
  const size_t B = m->B, H = m->H, GH = m->G * H, I = m->I, rows = m->S * B;
  T *dh = q->dh, *dc = q->dc, *dgates = q->dgates;
  for (size_t b = 0; b < B; b++)
    for (size_t i = 0; i < H; i++) {
      dh[b * H + i] = q->dYh ? ((const T *)q->dYh)[state_at(m, d, b) + i] : 0;
      if (dc) dc[b * H + i] = q->dYc ? ((const T *)q->dYc)[state_at(m, d, b) + i] : 0;
    }
  memset(dgates, 0, rows * GH * sizeof(T));
  for (size_t k = m->S; k-- > 0;) NAME(step_back)(p, q, d, k);
  for (size_t b = 0; b < B; b++) {
    if (q->dh0) memcpy((T *)q->dh0 + state_at(m, d, b), dh + b * H, H * sizeof(T));
    if (q->dc0) memcpy((T *)q->dc0 + state_at(m, d, b), dc + b * H, H * sizeof(T));
  }
  const T *W = (const T *)p->W + d * GH * I;
  if (q->dX) ml__product(p->kernels, DTYPE, false, false, rows, I, GH, 1, dgates, GH, W, I, d == 0 ? 0 : 1, q->dX, I);
  if (q->dW) ml__product(p->kernels, DTYPE, true, false, GH, I, rows, 1, dgates, GH, p->X, I, 0, (T *)q->dW + d * GH * I, I);
  T *dWb = q->dB ? (T *)q->dB + d * 2 * GH : NULL;
  for (size_t r = 0; dWb && r < rows; r++)
    for (size_t i = 0; i < GH; i++) dWb[i] += dgates[r * GH + i];
}
