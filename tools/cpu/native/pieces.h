/* pieces.h: what surrounds the matrix products: their epilogues, quantisation, LayerNorm, embedding. */
#include "vectors.h"

enum kind { ROWS, GELU, ADD };
enum form { ERF, OF_TANH, LINEAR }; /* of GELU, the first two as model.py numbers them; LINEAR: none at all */

struct epilogue {
    act *out;                          /* ROWS: row-major, `ld` apart; GELU: A tiles, `ld` k-tiles */
    int ld, first;                     /* ADD: first = start the sum, do not read it */
    float *c;                          /* ADD */
    const float *bias, *column, *row;  /* int8: result = column[n] * row[m] * integer sum */
    const int32_t *sums;               /* int8 that was moved up: what a column's integer sum starts with */
    int form;                          /* GELU: an enum form */
};

/* `kt` k-tiles of rows of A, a_row bytes apart, times such of B; from one k-tile to the next it is a_step and b_step bytes,
 * from B's first 16 columns to the others `half`. The sums of row r and the first (second) 16 columns go to
 * out + r * out_row (+ out_half), and start with those at init + r * init_row, where that is not NULL. Meanwhile lines are
 * fetched from `soon` on, 2 * fetch for each k-tile. */
struct product {
    const uint8_t *a, *b, *soon;
    long a_row, a_step, b_step, half, init_row, out_row, out_half;
    int kt, fetch;
    const float *init;
    float *out;
};

/* A finished block of raw sums on its way out. Row r goes to out + r / 16 * half + r % 16 * step bytes. */
struct block {
    const float *raw, *bias, *by, *row;
    uint8_t *out;
    int64_t half, step;
    int form;
};

/* rows [4 i, 4 i + 4) of a block */
INLINE void finish(enum kind kind, enum number num, int first, const struct block *b, unsigned i) {
    const float *raw = b->raw + i / 4 * 512 + i % 4 * 64;
    uint8_t *out = b->out + i / 4 * b->half + i % 4 * 4 * b->step;
    const int int8 = num == S8 || num == U8;
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++, out += b->step) {
#pragma GCC unroll 4
        for (int j = 0; j < 16; j += VL) {
            vec x = load(raw + r * 16 + j), y = load(raw + r * 16 + 256 + j);
            if (int8) {
                vec scale = V(b->row[i * 4 + r]);
                x = whole((ivec)x) * scale;
                y = whole((ivec)y) * scale;
            }
            if (kind == ADD) {
                float *c = (float *)out + j;
                vec c0 = V(0), c1 = c0;
                if (!first) c0 = load(c), c1 = load(c + 256);
                store(c, int8 ? fma3(x, load(b->by + j), c0) : x + c0);
                store(c + 256, int8 ? fma3(y, load(b->by + 16 + j), c1) : y + c1);
                continue;
            }
            vec bias0 = load(b->bias + j), bias1 = load(b->bias + 16 + j);
            x = int8 ? fma3(x, load(b->by + j), bias0) : x + bias0;
            y = int8 ? fma3(y, load(b->by + 16 + j), bias1) : y + bias1;
            if (kind == ROWS) put2(out, 64, j, x, y);
            else if (b->form == LINEAR) put2(out, 1024, j, x, y);
            else if (b->form == OF_TANH) put2(out, 1024, j, gelu_tanh(x), gelu_tanh(y));
            else put2(out, 1024, j, gelu(x, sizeof(act) == 4 && !int8), gelu(y, sizeof(act) == 4 && !int8));
        }
    }
}

/* where panel p of a product's rows [row, ...) goes; row % 32 == 0 in AMX, row % 16 == 0 elsewhere */
INLINE struct block block_of(enum kind kind, const struct epilogue *e, int row, int p, int p0, int panels) {
    struct block b = {.half = kind == ROWS ? e->ld * 16L * sizeof(act) : kind == GELU ? e->ld * 1024L : 2048,
                      .step = kind == ROWS ? e->ld * sizeof(act) : 64};
    b.form = e->form, b.bias = e->bias + p * 32, b.by = e->column + p * 32, b.row = e->row + row;
    b.out = kind == ROWS ? (uint8_t *)(e->out + (int64_t)row * e->ld + p * 32)
          : kind == GELU ? (uint8_t *)e->out + ((int64_t)(row / 16) * e->ld + (p - p0) * (32 / KA)) * 1024
                         : (uint8_t *)(e->c + ((int64_t)(row / 32) * panels + p) * 1024 + row % 32 / 16 * 512);
    return b;
}

/* ---- quantisation: one scale per row (token), from the row itself --------------------------------- */

/* GELU's result lies above -0.17: moved up by GELU_FLOOR it fills all of u8, one bit more than s8 would give it.
 * tools/cpu/native/convert.py subtracts GELU_FLOOR x (column sums of the weights) from the bias. */
#define GELU_FLOOR 0.171875f

/* Columns [j, j + 2 VL) of a row of A tiles, in two registers. Where a line holds 32 bf16, one register gets its even columns
 * and the other its odd ones; put_two puts them in order again. */
#if WIDTH == 512 && !defined(FLOATS)
INLINE int place(int column) { return column / 32 * 32 + column % 2 * 16 + column % 32 / 2; }
INLINE vec even(__m512i x) { return (vec)((ivec)x << 16); }
INLINE vec odd(__m512i x) { return (vec)((ivec)x & (int32_t)0xffff0000); }
INLINE void two(const act *a, int kt, int row, int j, vec x[2]) {
    __m512i both = _mm512_loadu_si512(cell(a, kt, row, j));
    x[0] = even(both), x[1] = odd(both);
}
INLINE void put_two(enum number num, void *to, vec x, vec y) {
    __m512i high = (__m512i)((ivec)_mm512_cvtps_epi32(y) << 16);
    __m512i both = _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_cvtps_epi32(x), high);
    __m256i n = num == U8 ? _mm512_cvtusepi16_epi8(both) : _mm512_cvtsepi16_epi8(both);
    if (num == S8 && SHIFTED) n = _mm256_xor_si256(n, _mm256_set1_epi8(-128));
    _mm256_storeu_si256(to, n);
}
INLINE vec most_absolute(vec x, vec y) { return _mm512_range_ps(x, y, 11); }
INLINE float largest_of_row(const act *a, int kt, int row) {
    __m512i top = _mm512_setzero_si512(); /* bf16 above 0 are in the order of their bits */
    for (int k = 0; k < kt; k++) top = _mm512_max_epi16(top, _mm512_loadu_si512(line(a, kt, row, k)));
    return largest(max2(even(top), odd(top)));
}
#else
INLINE int place(int column) { return column; }
INLINE void two(const act *a, int kt, int row, int j, vec x[2]) {
    x[0] = get(cell(a, kt, row, j)), x[1] = get(cell(a, kt, row, j + VL));
}
INLINE void put_two(enum number num, void *to, vec x, vec y) {
    put_8(num, to, x), put_8(num, (uint8_t *)to + VL, y);
}
INLINE vec most_absolute(vec x, vec y) { return max2(x, absolute(y)); }
INLINE float largest_of_row(const act *a, int kt, int row) {
    vec top = V(0);
    for (int j = 0; j < kt * KA; j += VL) top = max2(top, get(cell(a, kt, row, j)));
    return largest(top);
}
#endif

/* A tiles [rows, kt] -> int8 A tiles, symmetric; `smooth` (or NULL) evens out the channels first */
static void quantise(const act *from, int kt, int rows, const float *smooth, int8_t *to, float *scale) {
    int n = kt * KA;
    float factor[n] __attribute__((aligned(64)));
    for (int j = 0; j < n; j++) factor[place(j)] = smooth ? smooth[j] : 1;
    for (int r = 0; r < rows; r++) {
        vec x[2], top = V(0);
        for (int j = 0; j < n; j += 2 * VL) {
            two(from, kt, r, j, x);
            top = most_absolute(most_absolute(top, x[0] * load(factor + j)), x[1] * load(factor + j + VL));
        }
        float most = MAX(largest(top), 1e-20f);
        vec by = V(127 / most);
        scale[r] = most / 127;
        for (int j = 0; j < n; j += 2 * VL) {
            two(from, kt, r, j, x);
            put_two(S8, (uint8_t *)line(to, n / 64, r, j / 64) + j % 64, x[0] * load(factor + j) * by,
                    x[1] * load(factor + j + VL) * by);
        }
    }
}

/* GELU's result in A tiles -> u8 A tiles */
static void quantise_gelu(const act *from, int kt, int rows, int8_t *to, float *scale) {
    int n = kt * KA;
    for (int r = 0; r < rows; r++) {
        float range = largest_of_row(from, kt, r) + GELU_FLOOR;
        vec x[2], by = V(255 / range), up = V(GELU_FLOOR * 255 / range);
        scale[r] = range / 255;
        for (int j = 0; j < n; j += 2 * VL) {
            two(from, kt, r, j, x);
            put_two(U8, (uint8_t *)line(to, n / 64, r, j / 64) + j % 64, max2(fma3(x[0], by, up), V(0)),
                    max2(fma3(x[1], by, up), V(0)));
        }
    }
}

/* ---- LayerNorm ---------------------------------------------------------------------------------------- */

/* h = LayerNorm(c + bias + h), or of c alone when bias is NULL; c is overwritten. 16 rows share their reductions,
 * whose latency would otherwise be most of the time. Columns from `hidden` on are 0 and stay so (gamma and beta are
 * 0 there). The variance as E[x^2] - E[x]^2 saves a pass: a residual stream's mean is far below its spread. */
static void add_norm(const struct work *w, const float *bias, const float *g, const float *b, act *h, int rows,
                     int hidden) {
    int panels = UP(hidden, 64) / 32, kt = UP(hidden, 64) / KA;
    float share = 1.0f / hidden;
    for (int t = 0; t < rows; t += 16) {
        int n = MIN(16, rows - t);
        float *c = w->c + (int64_t)(t / 32) * panels * 1024 + t % 32 * 32;
        vec sum[16][16 / VL] = {0}, squares[16][16 / VL] = {0};
        for (int r = 0; r < n; r++) {
            vec s[16 / VL] = {0}, q2[16 / VL] = {0};
            for (int k = 0; k < panels; k++)
#pragma GCC unroll 4
                for (int j = 0; j < 16; j += VL) {
                    float *x = c + k * 1024 + r * 16 + j;
                    vec p = load(x), q = load(x + 256);
                    if (bias) {
                        p = p + load(bias + k * 32 + j) + get(cell(h, kt, t + r, k * 32 + j));
                        q = q + load(bias + k * 32 + 16 + j) + get(cell(h, kt, t + r, k * 32 + 16 + j));
                        store(x, p);
                        store(x + 256, q);
                    }
                    s[j / VL] = s[j / VL] + (p + q);
                    q2[j / VL] = fma3(p, p, fma3(q, q, q2[j / VL]));
                }
            memcpy(sum[r], s, 64), memcpy(squares[r], q2, 64);
        }
        float means[16], invs[16];
        totals(sum, means);
        totals(squares, invs);
        for (int j = 0; j < 16; j += VL) {
            vec mean = load(means + j) * share, var = fma3(load(invs + j), V(share), -(mean * mean));
            store(means + j, mean);
            store(invs + j, 1 / root(max2(var, V(0)) + w->m->eps));
        }
        for (int r = 0; r < n; r++) {
            vec inv = V(invs[r]), minus = V(-means[r] * invs[r]);
            for (int k = 0; k < panels; k++)
#pragma GCC unroll 4
                for (int j = 0; j < 16; j += VL) {
                    const float *x = c + k * 1024 + r * 16 + j, *g0 = g + k * 32 + j, *b0 = b + k * 32 + j;
                    vec p = fma3(load(x), inv, minus), q = fma3(load(x + 256), inv, minus);
                    p = fma3(p, load(g0), load(b0)), q = fma3(q, load(g0 + 16), load(b0 + 16));
                    put2(cell(h, kt, t + r, k * 32), 1024, j, p, q);
                }
        }
    }
}

/* rows [row, row + n) of c = word[ids] + position + type[types], for tokens from `first` on of a sentence.
 * position holds type 0, and type what others differ by */
static void embed(const struct work *w, const int32_t *ids, const int32_t *types, int first, int n, int row) {
    int h = w->s.e, bytes = w->m->wide == F32 ? 4 : 2;
    for (int t = first; t < first + n; t++, row++) {
        const uint8_t *word = (const uint8_t *)tensor(w->m, 0) + (int64_t)ids[t] * h * bytes;
        const float *position = (const float *)tensor(w->m, 1) + (int64_t)t * h;
        const float *type = (const float *)tensor(w->m, 8 + w->m->layers * TENSORS);
        if (types) type += (int64_t)types[t] * h;
        float *c = w->c + (int64_t)(row / 32) * h * 32 + row % 32 / 16 * 512 + row % 16 * 16;
        for (int j = 0; j < h; j += VL) {
            vec x = bytes == 4 ? load(word + j * 4) : bf16s(word + j * 2);
            x = x + load(position + j);
            store(c + j / 32 * 1024 + j % 32 / 16 * 256 + j % 16, types ? x + load(type + j) : x);
        }
    }
}

/* ---- bf16 weights for fp32 activations ---------------------------------------------------------------- */

/* a bf16 panel of B as fp32, [kt][2][16][64 bytes] -> [2 kt][2][16][64 bytes] */
INLINE const uint8_t *widen(const uint8_t *b, int kt, uint8_t *to) {
    for (int k = 0; k < kt; k++)
        for (int half = 0; half < 2; half++)
            for (int i = 0; i < 256; i += VL, b += VL * 4) {
                ivec pairs = *(const ivec_at *)b;
                uint8_t *line = to + (2 * k + i / 128) * 2048 + half * 1024 + i % 128 / 16 * 128 + i % 16 * 4;
                store(line, (vec)(pairs << 16));
                store(line + 64, (vec)(pairs & (int32_t)0xffff0000));
            }
    return to;
}
