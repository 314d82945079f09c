/* layers.h: all layers on a group of blocks, then the last one's rest for the [CLS] rows, from a family's products. */

/* one copy of the code for each kind and number that is used */
#define GEMM(name, kind, num) \
    static __attribute__((noinline)) void name(const struct work *w, const void *a, const void *b, int kt, int rows, int p0, \
                                               int p1, int panels, const void *next, const struct epilogue *e) { \
        gemm(kind, num, w, a, b, kt, rows, p0, p1, panels, next, e); \
    }
GEMM(rows_bf16, ROWS, BF16)
GEMM(rows_s8, ROWS, S8)
GEMM(gelu_bf16, GELU, BF16)
GEMM(gelu_s8, GELU, S8)
GEMM(add_bf16, ADD, BF16)
GEMM(add_s8, ADD, S8)
GEMM(add_u8, ADD, U8)
#ifdef FLOATS
GEMM(rows_f32, ROWS, F32)
GEMM(gelu_f32, GELU, F32)
GEMM(add_f32, ADD, F32)
#endif

static void (*const multiply[3][4])(const struct work *, const void *, const void *, int, int, int, int, int, const void *,
                                    const struct epilogue *) = {
    [ROWS] = {[BF16] = rows_bf16, [S8] = rows_s8},
    [GELU] = {[BF16] = gelu_bf16, [S8] = gelu_s8},
    [ADD] = {[BF16] = add_bf16, [S8] = add_s8, [U8] = add_u8},
#ifdef FLOATS
    [ROWS][F32] = rows_f32, [GELU][F32] = gelu_f32, [ADD][F32] = add_f32,
#endif
};

static const int bytes_of[] = {[BF16] = 2, [S8] = 1, [F32] = 4, [U8] = 1}; /* of a weight */

/* what an int8 weight's integer sums start with: of Q | K | V, of the output projection, of the feed-forward's first */
INLINE const int32_t *sums_of(const struct work *w, int l, int columns) {
    return w->m->sums + (int64_t)l * (w->s.qkv + w->s.h + w->s.inter) + columns;
}

/* columns [from, to) panels of h x [Q | K | V] + bias -> row-major out */
static void project(const struct work *w, int l, const act *h, int rows, int from, int to, act *out) {
    const struct net *m = w->m;
    struct size s = w->s;
    enum number num = m->precision[l];
    struct epilogue e = {.out = out, .ld = s.ld, .bias = weight(m, l, Q_K_V_BIAS), .column = weight(m, l, Q_K_V_SCALE),
                         .row = w->scale, .sums = sums_of(w, l, 0)};
    if (num == S8) quantise(h, s.h / KA, rows, weight(m, l, Q_K_V_SMOOTH), w->a8, w->scale);
    multiply[ROWS][num](w, num == S8 ? (void *)w->a8 : h, weight(m, l, Q_K_V), s.h / (num == S8 ? 64 : KA), rows, from, to,
                        0, weight(m, l, OUT), &e);
}

/* From ctx on: output projection, LayerNorm, feed-forward, LayerNorm; h in place. The feed-forward goes slice by
 * slice of its inner columns, so that h, the sums and one slice stay in L2. */
static void rest_of_layer(const struct work *w, int l, const act *ctx, act *h, int rows) {
    const struct net *m = w->m;
    struct size s = w->s;
    enum number num = m->precision[l];
    int int8 = num == S8, panels = s.h / 32, step = int8 ? 64 : KA; /* columns of a k-tile */
    int64_t bytes = bytes_of[num];
    struct epilogue add = {.c = w->c, .first = 1, .column = weight(m, l, OUT_SCALE), .row = w->scale, .sums = sums_of(w, l, s.qkv)};
    struct epilogue up = {.out = w->inter, .bias = weight(m, l, UP_BIAS), .column = weight(m, l, UP_SCALE), .row = w->scale,
                          .sums = sums_of(w, l, s.qkv + s.h)};
    const uint8_t *wo = weight(m, l, OUT), *wu = weight(m, l, UP_W), *wd = weight(m, l, DOWN);
    if (int8) quantise(ctx, s.ctx / KA, rows, 0, w->a8, w->scale);
    multiply[ADD][num](w, int8 ? (void *)w->a8 : ctx, wo, s.ctx / step, rows, 0, panels, panels, wu, &add);
    add_norm(w, weight(m, l, OUT_BIAS), weight(m, l, LN1_G), weight(m, l, LN1_B), h, rows);
    if (int8) quantise(h, s.h / KA, rows, weight(m, l, UP_SMOOTH), w->a8, w->scale);
    add.column = weight(m, l, DOWN_SCALE), add.row = w->inter_scale;
    for (int at = 0; at < s.inter; at += s.slice) {
        int width = MIN(s.slice, s.inter - at);
        const uint8_t *down = wd + at * s.h * bytes;
        const uint8_t *after = at + width < s.inter ? wu + (at + width) * s.h * bytes : weight(m, MIN(l + 1, m->layers - 1), Q_K_V);
        up.ld = width / KA, add.first = !at;
        multiply[GELU][num](w, int8 ? (void *)w->a8 : h, wu, s.h / step, rows, at / 32, (at + width) / 32, 0, down, &up);
        if (int8) quantise_gelu(w->inter, width / KA, rows, w->inter8, w->inter_scale);
        multiply[ADD][int8 ? U8 : num](w, int8 ? (void *)w->inter8 : w->inter, down, width / step, rows, 0, panels, panels, after, &add);
    }
    add_norm(w, weight(m, l, DOWN_BIAS), weight(m, l, LN2_G), weight(m, l, LN2_B), h, rows);
}

/* ---- the two tasks of a run --------------------------------------------------------------------------- */

/* the last layer's attention for the [CLS] rows of a block; the rest of it waits for all blocks */
static void last_attention(struct run *j, const struct work *w, int b, const act *h, int rows) {
    struct size s = w->s;
    int kt = s.h / KA, hidden = j->m->hidden, l = j->m->layers - 1, first = j->block[b], n = j->block[b + 1] - first;
    const act *qkv = w->qkv, *q = w->q;
    project(w, l, h, rows, hidden / 32, s.qkv / 32, w->qkv);
    for (int i = 0, r = 0; i < n; r += j->rows[j->order[first + i++]])
        for (int k = 0; k < kt; k++) {
            memcpy(line(w->cls, kt, i, k), line(h, kt, r, k), 64);
            memcpy(line(j->h, kt, first + i, k), line(h, kt, r, k), 64);
        }
    project(w, l, w->cls, n, 0, UP(hidden + s.hdp - s.hd, 32) / 32, w->q); /* attention reads whole tiles of dims */
    for (int i = 0, r = 0; i < n; r += j->rows[j->order[first + i++]]) {
        keys_values(w, qkv + (int64_t)r * s.ld + hidden, j->keys[j->order[first + i]]);
        attend(w, q + (int64_t)i * s.ld, 1, j->keys[j->order[first + i]], (act *)j->ctx, first + i);
    }
}

static void run_blocks(struct run *j, const struct work *w, int b0, int n) {
    const struct net *m = j->m;
    struct size s = w->s;
    int rows[n], b1 = b0 + n;
    for (int b = b0; b < b1; b++) {
        rows[b - b0] = 0;
        for (int i = j->block[b]; i < j->block[b + 1]; rows[b - b0] += j->rows[j->order[i++]])
            embed(w, j->ids + j->start[j->order[i]], j->types ? j->types + j->start[j->order[i]] : 0, j->rows[j->order[i]], rows[b - b0]);
        add_norm(w, 0, tensor(m, 2), tensor(m, 3), (act *)((uint8_t *)w->h + (b - b0) * w->step), rows[b - b0]);
    }
    for (int l = 0; l < m->layers; l++)
        for (int b = b0; b < b1; b++) { /* layer by layer over the group: weights come from memory once a group */
            act *h = (act *)((uint8_t *)w->h + (b - b0) * w->step);
            if (l == m->layers - 1) {
                last_attention(j, w, b, h, rows[b - b0]);
                continue;
            }
            project(w, l, h, rows[b - b0], 0, s.qkv / 32, w->qkv);
            for (int i = j->block[b], r = 0; i < j->block[b + 1]; r += j->rows[j->order[i++]]) {
                const act *at = (act *)w->qkv + (int64_t)r * s.ld;
                keys_values(w, at + m->hidden, j->keys[j->order[i]]);
                attend(w, at, j->rows[j->order[i]], j->keys[j->order[i]], w->ctx, r);
            }
            rest_of_layer(w, l, w->ctx, h, rows[b - b0]);
        }
}

/* the last layer from its attention on, pooler and classifier for [CLS] rows [from, from + n); from % 32 == 0 */
static void run_tail(struct run *j, const struct work *w, int from, int n) {
    const struct net *m = j->m;
    struct size s = w->s;
    int panels = s.h / 32, at = 4 + m->layers * TENSORS;
    act *h = (act *)j->h + (int64_t)from * s.h;
    rest_of_layer(w, m->layers - 1, (act *)j->ctx + (int64_t)from * s.ctx, h, n);
    struct epilogue e = {.c = w->c, .first = 1};
    multiply[ADD][m->wide](w, h, tensor(m, at), s.h / KA, n, 0, panels, panels, tensor(m, at + 2), &e);
    const float *bias = tensor(m, at + 1), *head = tensor(m, at + 2), *last = tensor(m, at + 3);
    for (int r = 0; r < n; r++) {
        const float *c = w->c + (int64_t)(r / 32) * s.h * 32 + r % 32 / 16 * 512 + r % 16 * 16;
        vec x[s.h / 16];
        for (int k = 0; k < s.h / 16; k++) {
            x[k] = tanhv(load(c + k / 2 * 1024 + k % 2 * 256) + load(bias + k * 16));
            if (m->relu) x[k] = max2(x[k], V(0));
        }
        for (int i = 0; i < m->labels; i++) {
            vec sum = V(0);
            for (int k = 0; k < s.h / 16; k++) sum = fma16(x[k], load(head + i * s.h + k * 16), sum);
            j->logits[(int64_t)j->order[from + r] * m->labels + i] = total(sum) + last[i];
        }
    }
}
