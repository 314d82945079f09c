/* layers.h: all layers on a group of blocks, then the last one's rest for the [CLS] rows, from a family's products. */
#include "attention.h"

/* The function `name`: products of one kind, with a copy of the code for each type of number that they have. */
#define MULTIPLY(name, kind) \
    static __attribute__((noinline)) void name(enum number num, const struct work *w, const void *a, const void *b, int kt, \
                                               int rows, int p0, int p1, int panels, const void *next, \
                                               const struct epilogue *e) { \
        if (num == BF16) gemm(kind, BF16, w, a, b, kt, rows, p0, p1, panels, next, e); \
        else if (num == S8) gemm(kind, S8, w, a, b, kt, rows, p0, p1, panels, next, e); \
        else if (kind == ADD && num == U8) gemm(kind, U8, w, a, b, kt, rows, p0, p1, panels, next, e); \
        else if (sizeof(act) == 4) gemm(kind, F32, w, a, b, kt, rows, p0, p1, panels, next, e); \
    }
MULTIPLY(multiply_rows, ROWS)
MULTIPLY(multiply_gelu, GELU)
MULTIPLY(multiply_add, ADD)

static const int bytes_of[] = {[BF16] = 2, [S8] = 1, [F32] = 4, [U8] = 1}; /* of a weight */

/* what the integer sums of a layer's int8 weights start with, from `columns` on: see native_sums in engine.c */
INLINE const int32_t *sums_of(const struct work *w, int l, int columns) {
    return w->m->sums + (int64_t)l * (w->s.qkv + w->s.h + w->s.inter) + columns;
}

/* Panels [from, to) of the columns of h x [Q | K | V] + bias, row by row, to out. */
static void project(const struct work *w, int l, const act *h, int rows, int from, int to, act *out) {
    const struct net *m = w->m;
    struct size s = w->s;
    enum number num = m->precision[l];
    struct epilogue e = {.out = out, .ld = s.ld, .bias = weight(m, l, Q_K_V_BIAS), .column = weight(m, l, Q_K_V_SCALE),
                         .row = w->scale, .sums = sums_of(w, l, 0)};
    if (num == S8) quantise(h, s.h / KA, rows, weight(m, l, Q_K_V_SMOOTH), w->a8, w->scale);
    multiply_rows(num, w, num == S8 ? (void *)w->a8 : h, weight(m, l, Q_K_V), s.h / (num == S8 ? 64 : KA), rows, from,
                        to, 0, weight(m, l, OUT), &e);
}

/* From ctx on: output projection, LayerNorm, feed-forward, LayerNorm; h in place. The feed-forward goes slice by
 * slice of its inner columns, so that h, the sums and one slice stay in L2. */
static void rest_of_layer(const struct work *w, int l, const act *ctx, act *h, int rows) {
    const struct net *m = w->m;
    struct size s = w->s;
    enum number num = m->precision[l];
    int int8 = num == S8, panels = s.h / 32, step = int8 ? 64 : KA; /* columns of a k-tile */
    int64_t bytes = bytes_of[num];
    struct epilogue add = {.c = w->c, .first = 1, .column = weight(m, l, OUT_SCALE), .row = w->scale,
                           .sums = sums_of(w, l, s.qkv)};
    struct epilogue up = {.out = w->inter, .bias = weight(m, l, UP_BIAS), .column = weight(m, l, UP_SCALE),
                          .row = w->scale, .sums = sums_of(w, l, s.qkv + s.h), .form = m->gelu};
    const uint8_t *wo = weight(m, l, OUT), *wu = weight(m, l, UP_W), *wd = weight(m, l, DOWN);
    if (int8) quantise(ctx, s.ctx / KA, rows, 0, w->a8, w->scale);
    multiply_add(num, w, int8 ? (void *)w->a8 : ctx, wo, s.ctx / step, rows, 0, panels, panels, wu, &add);
    add_norm(w, weight(m, l, OUT_BIAS), weight(m, l, LN1_G), weight(m, l, LN1_B), h, rows, m->hidden);
    if (int8) quantise(h, s.h / KA, rows, weight(m, l, UP_SMOOTH), w->a8, w->scale);
    add.column = weight(m, l, DOWN_SCALE), add.row = w->inter_scale;
    for (int at = 0; at < s.inter; at += s.slice) {
        int width = MIN(s.slice, s.inter - at);
        const uint8_t *down = wd + at * s.h * bytes;
        int done = at + width == s.inter;
        const uint8_t *after = done ? weight(m, MIN(l + 1, m->layers - 1), Q_K_V) : wu + (at + width) * s.h * bytes;
        up.ld = width / KA, add.first = !at;
        multiply_gelu(num, w, int8 ? (void *)w->a8 : h, wu, s.h / step, rows, at / 32, (at + width) / 32, 0, down, &up);
        if (int8) quantise_gelu(w->inter, width / KA, rows, w->inter8, w->inter_scale);
        multiply_add(int8 ? U8 : num, w, int8 ? (void *)w->inter8 : w->inter, down, width / step, rows, 0, panels,
                                       panels, after, &add);
    }
    add_norm(w, weight(m, l, DOWN_BIAS), weight(m, l, LN2_G), weight(m, l, LN2_B), h, rows, m->hidden);
}

/* ---- the two tasks of a run --------------------------------------------------------------------------- */

/* What a thread computes at a time: rows [from, to) of sentences [first, last) of the plan's order, as one tall operand.
 * They are all rows of a block, or a share of all rows where threads are a team. */
struct share { int first, last, from, to; act *h; };

/* Sentence i, number `at` in the plan's order, has rows [row, row + n), of which [from, to) are the share's. */
struct piece { int at, i, row, n, from, to; };

static struct share share_of(const struct run *j, const struct work *w, int b, int turn) {
    struct share a = {j->team ? 0 : j->block[b], j->team ? j->n : j->block[b + 1],
                      .h = (act *)((uint8_t *)w->h + turn * w->step)};
    for (int i = a.first; i < a.last; i++) a.to += j->rows[j->order[i]];
    if (j->team) { /* whole tiles, so that two threads never write the same one */
        int rows = a.to, tile = j->family->rows, tiles = (rows + tile - 1) / tile;
        a.from = tiles * b / j->team * tile;
        a.to = MIN(rows, tiles * (b + 1) / j->team * tile);
    }
    return a;
}

/* Moves p on to the next sentence of which the share has rows. Returns 0 if there is none. */
static int next_piece(const struct run *j, const struct share *a, struct piece *p) {
    while (++p->at < a->last) {
        p->i = j->order[p->at], p->row += p->n, p->n = j->rows[p->i];
        p->from = MAX(a->from, p->row), p->to = MIN(a->to, p->row + p->n);
        if (p->from < p->to) return 1;
    }
    return 0;
}
#define PIECES(p) struct piece p = {.at = a->first - 1}; next_piece(j, a, &p);

/* Returns when all threads of the team are here. */
static void meet(struct run *j) {
    if (!j->team) return;
    int turn = j->turn;
    if (atomic_fetch_add(&j->waiting, 1) == j->team - 1) {
        j->waiting = 0;
        j->turn = turn + 1;
    }
    for (int i = 1; j->turn == turn; i++)
        if (i % 4096 == 0) sched_yield();
}

static void embed_share(const struct run *j, const struct work *w, const struct share *a) {
    for (PIECES(p)) {
        int64_t start = j->start[p.i];
        embed(w, j->ids + start, j->types ? j->types + start : 0, p.from - p.row, p.to - p.from, p.from - a->from);
    }
    const struct net *m = w->m;
    int rows = a->to - a->from, at = 9 + m->layers * TENSORS, narrow = m->width != m->hidden;
    add_norm(w, 0, tensor(m, 2), tensor(m, 3), narrow ? w->ctx : a->h, rows, m->width);
    if (!narrow) return;
    struct epilogue e = {.out = a->h, .ld = w->s.h / KA, .bias = tensor(m, at + 1), .form = LINEAR};
    multiply_gelu(m->wide, w, w->ctx, tensor(m, at), w->s.e / KA, rows, 0, w->s.h / 32, 0, weight(m, 0, Q_K_V), &e);
}

/* A layer's attention, whose result goes to w->ctx. In the last layer it is computed for the [CLS] rows alone, and goes to
 * j->ctx: run_tail computes the rest of that layer when all shares are done. */
static void attention(struct run *j, const struct work *w, const struct share *a, int l) {
    struct size s = w->s;
    int kt = s.h / KA, hidden = w->m->hidden, last = l == w->m->layers - 1, n = 0;
    act *qkv = j->team ? (act *)(j->qkv + l % 2 * j->qkv_step) : w->qkv;
    project(w, l, a->h, a->to - a->from, last ? hidden / 32 : 0, s.qkv / 32, qkv + (int64_t)a->from * s.ld);
    if (last) {
        for (PIECES(p)) {
            if (p.from > p.row) continue;
            for (int k = 0; k < kt; k++) memcpy(line(w->cls, kt, n, k), line(a->h, kt, p.row - a->from, k), 64);
            n++;
        }
        /* attention reads whole tiles of dims */
        if (n) project(w, l, w->cls, n, 0, UP(hidden + s.hdp - s.hd, 32) / 32, w->q);
    }
    meet(j);
    int to = atomic_fetch_add(&j->last, n);
    n = 0;
    for (PIECES(p)) {
        if (last && p.from > p.row) continue;
        keys_values(w, qkv + (int64_t)p.row * s.ld + hidden, j->keys[p.i]);
        if (!last) {
            attend(w, qkv + (int64_t)p.from * s.ld, p.to - p.from, j->keys[p.i], w->ctx, p.from - a->from);
            continue;
        }
        attend(w, (act *)w->q + (int64_t)n * s.ld, 1, j->keys[p.i], (act *)j->ctx, to);
        for (int k = 0; k < kt; k++) memcpy(line(j->h, kt, to, k), line(w->cls, kt, n, k), 64);
        j->link[to++] = p.i;
        n++;
    }
}

/* scores[labels] of n columns x: lane k % 16 takes column k */
static void classify(const vec *x, int n, int labels, const float *weight, const float *bias, float *scores) {
    for (int i = 0; i < labels; i++, weight += n) {
        vec sum[16 / VL] = {0};
        for (int k = 0; k < n; k += 16)
            for (int j = 0; j < 16; j += VL)
                sum[j / VL] = fma3(x[(k + j) / VL], load(weight + k + j), sum[j / VL]);
        scores[i] = total(sum) + bias[i];
    }
}

/* Whether the head of layer l is sure of sentence i, whose rows in a share begin at `row`: then its scores are the logits. */
static int is_sure(const struct run *j, const struct work *w, const struct share *a, int l, int i, int row) {
    const struct net *m = w->m;
    int h = w->s.h, kt = h / KA, keys = j->keys[i];
    vec x[2 * h / VL], share = V(1.0f / keys);
    for (int k = 0; k < h; k += VL) {
        vec sum = V(0);
        for (int r = row; r < row + keys; r++) sum = sum + get(cell(a->h, kt, r, k));
        x[k / VL] = get(cell(a->h, kt, row, k)), x[(h + k) / VL] = sum * share;
    }
    if (j->head_inputs) memcpy(j->head_inputs + ((int64_t)i * (m->layers - 1) + l) * 2 * h, x, sizeof x);
    if (!m->exits) return 0;
    const float *head = m->exits + (int64_t)l * m->labels * (2 * h + 1);
    float *scores = j->logits + (int64_t)i * m->labels, best, next = -3e38f;
    classify(x, 2 * h, m->labels, head, head + m->labels * 2 * h, scores);
    best = scores[0];
    for (int k = 1; k < m->labels; k++) next = MAX(next, MIN(best, scores[k])), best = MAX(best, scores[k]);
    if (!(best - next >= m->sure)) return 0;
    j->left[i] = l + 1;
    return 1;
}

/* The sentences whose head is sure leave a group of n blocks; the rows of the others move up. Returns the blocks that remain. */
static int leave(struct run *j, const struct work *w, struct share *shares, int n, int l) {
    int kt = w->s.h / KA, at = shares->first, blocks = 0;
    struct share to = {at, at, .h = w->h};
    for (int b = 0; b < n; b++) {
        struct share a = shares[b];
        for (int k = a.first, row = 0, rows; k < a.last; k++, row += rows) {
            int i = j->order[k];
            rows = j->rows[i];
            if (is_sure(j, w, &a, l, i, row)) continue;
            if (to.to + rows > j->room) {
                shares[blocks++] = to;
                to = (struct share){at, at, .h = (act *)((uint8_t *)w->h + blocks * w->step)};
            }
            for (int r = row; r < row + rows; r++, to.to++)
                for (int t = 0; t < kt && (to.h != a.h || to.to != r); t++)
                    memcpy(line(to.h, kt, to.to, t), line(a.h, kt, r, t), 64);
            j->order[at++] = i;
            to.last = at;
        }
    }
    shares[blocks] = to;
    return blocks + (to.last > to.first);
}

static void run_blocks(struct run *j, const struct work *w, int b, int n) {
    int layers = w->m->layers;
    struct share shares[n];
    for (int i = 0; i < n; i++) {
        shares[i] = share_of(j, w, b + i, i);
        embed_share(j, w, &shares[i]);
    }
    for (int l = 0; l < layers && n; l++) {
        for (struct share *a = shares; a < shares + n; a++) { /* weights come from memory once for all blocks */
            attention(j, w, a, l);
            if (l < layers - 1) rest_of_layer(w, l, w->ctx, a->h, a->to - a->from);
        }
        if (l < layers - 1 && (w->m->exits || j->head_inputs)) n = leave(j, w, shares, n, l);
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
    multiply_add(m->wide, w, h, tensor(m, at), s.h / KA, n, 0, panels, panels, tensor(m, at + 2), &e);
    const float *bias = tensor(m, at + 1), *head = tensor(m, at + 2), *last = tensor(m, at + 3);
    for (int r = 0; r < n; r++) {
        const float *c = w->c + (int64_t)(r / 32) * s.h * 32 + r % 32 / 16 * 512 + r % 16 * 16;
        vec x[s.h / VL];
        for (int k = 0; k < s.h; k += VL) {
            vec sum = load(c + k / 32 * 1024 + k % 32 / 16 * 256 + k % 16) + load(bias + k);
            if (m->head <= TANH_RELU) sum = tanhv(sum);
            x[k / VL] = m->head == GELU_HEAD ? gelu(sum, 1) : m->head == TANH ? sum : max2(sum, V(0));
        }
        classify(x, s.h, m->labels, head, last, j->logits + (int64_t)j->link[from + r] * m->labels);
    }
}

const struct family FAMILY = {sizeof(act), SHIFTED, ROWS_AT_ONCE, run_blocks, run_tail,
#ifdef TILES
                              tiles_on, tiles_off
#endif
};
