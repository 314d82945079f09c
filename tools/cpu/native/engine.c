/* engine.c: BERT sequence classifiers on the AMX matrix units, without a single padded token.
 *
 *     gcc -O3 -std=gnu11 -fno-math-errno -shared -fPIC -pthread -o build/lib/native.so tools/cpu/native/engine.c
 *
 * Sentences are concatenated, whole, into blocks of a few hundred tokens. A thread takes a group of blocks
 * and runs all layers on it with no barrier; a matrix product sees one tall [tokens, hidden] operand, and
 * attention runs per sentence. The last layer is computed for the [CLS] rows only, after all blocks, so that
 * its weights are read once for hundreds of sentences instead of once per block.
 *
 * Every row of a matrix product, every LayerNorm and every sentence's attention sees its own data in an order
 * that does not depend on where the sentence lies: results are the same bits for any plan and thread count.
 *
 * Memory layouts (tools/cpu/native/model.py writes the weights so):
 *   A tiles   activations [row/16][k/KT][16][64 bytes]; KT = 32 bf16 or 64 int8: a tile is 1 KB in one piece
 *   B tiles   weights [column/32][k/KT][2][16][64 bytes]; a 64-byte line holds 16 columns x 2 (4) k's
 *   C blocks  fp32 sums [row/32][column/32][2][2][16][16]
 */
#include <stdint.h>

struct net { /* the same fields, in the same order, as Net in tools/cpu/native/model.py */
    int32_t layers, hidden, heads, inter, vocab, positions, slice, relu;
    float eps;
    const uint8_t *base;  /* the payload of the model file */
    const int64_t *off;   /* tensor offsets: 4, then TENSORS per layer, then 4 */
    const int32_t *int8;  /* per layer: 1 = int8, 0 = bf16 */
};

#if !defined(__x86_64__) || defined(NATIVE_NONE) /* NATIVE_NONE: for the test of this branch */

int native_cpu(void) { return 0; }
int64_t native_bytes(const struct net *m, int n, int block, int group, int longest, int threads) { return 0; }
void native_run(const struct net *m, const int32_t *ids, const int64_t *start, const int32_t *rows, const int32_t *keys,
                int n, int block, int group, int longest, int threads, uint8_t *work, float *logits) {}

#else

#include <cpuid.h>
#include <immintrin.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16,amx-int8")

#define INLINE static inline __attribute__((always_inline))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define UP(x, to) (((x) + (to) - 1) / (to) * (to))
/* gcc's tile intrinsics do not tell the compiler that they read memory */
#define FENCE() __asm__ volatile("" ::: "memory")

typedef uint16_t bf16;

/* ---- the CPU ------------------------------------------------------------------------------------------ */

/* bit 0: AVX-512 with bf16 + AMX tiles and bf16; bit 1: AMX int8 too; bit 2: the kernel lets us use the tiles */
int native_cpu(void) {
    unsigned a, b, c, d, ok = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
    unsigned xcr0, high;
    __asm__("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
    if ((xcr0 & 0x600e6) != 0x600e6) return 0; /* SSE, AVX, AVX-512 and AMX state are saved by the OS */
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    unsigned avx512 = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL | bit_AVX2;
    unsigned amx = 1u << 24 | 1u << 22; /* AMX-TILE, AMX-BF16 */
    int int8 = d >> 25 & 1;
    if ((b & avx512) != avx512 || (d & amx) != amx) return 0;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a >> 5 & 1)) return 0; /* AVX512-BF16 */
    ok = 1 | int8 << 1;
    return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) ? ok : ok | 4;
}

static void tiles_on(void) {
    struct { uint8_t palette, start_row, reserved[14]; uint16_t colsb[16]; uint8_t rows[16]; } config = {.palette = 1};
    for (int t = 0; t < 8; t++) config.colsb[t] = 64, config.rows[t] = 16;
    _tile_loadconfig(&config);
}

/* ---- sizes and the workspace -------------------------------------------------------------------------- */

enum { Q_K_V, Q_K_V_BIAS, Q_K_V_SCALE, Q_K_V_SMOOTH, OUT, OUT_BIAS, OUT_SCALE, LN1_G, LN1_B, UP_W, UP_BIAS, UP_SCALE,
       UP_SMOOTH, DOWN, DOWN_BIAS, DOWN_SCALE, LN2_G, LN2_B, TENSORS };

struct size { int h, hd, hdp, ctx, inter, slice, qkv, ld; };

static struct size sizes(const struct net *m) {
    struct size s = {.h = UP(m->hidden, 64), .hd = m->hidden / m->heads, .inter = UP(m->inter, 64), .slice = m->slice};
    s.hdp = UP(s.hd, 32);
    s.ctx = UP(m->heads * s.hdp, 64);
    s.qkv = UP(3 * m->hidden, 32);
    s.ld = s.qkv + 32; /* an odd number of cache lines: rows do not fall into the same L1 sets */
    return s;
}

/* One thread's memory. Rows past a block's end hold leftovers: they meet no other row, and nobody reads them. */
struct work {
    const struct net *m;
    struct size s;
    bf16 *h, *qkv, *ctx, *inter, *cls, *q;
    int8_t *a8, *inter8;              /* quantised h or ctx, and a slice of inter, */
    float *c, *part, *scale, *inter_scale; /* with their scales per row */
    int64_t step;                     /* from one block's h to the next one's */
    uint8_t *k, *v, *p, *o;
    float *scores;
};

INLINE void *take(uint8_t **at, int64_t bytes) {
    void *p = *at;
    *at += UP(bytes, 64) + 64; /* the spare line staggers the arrays in the cache sets */
    return p;
}

/* Lay the arrays out from `at` and return the end, so that the same lines also measure. */
static uint8_t *layout(struct work *w, const struct net *m, int rows, int group, int longest, uint8_t *at) {
    struct size s = sizes(m);
    int64_t r = UP(rows, 32) + 32, keys = UP(longest, 32); /* attention tiles may read 31 rows past the block */
    *w = (struct work){.m = m, .s = s, .step = r * s.h};
    w->h = take(&at, group * w->step * 2);
    w->qkv = take(&at, r * s.ld * 2);
    w->ctx = take(&at, r * s.ctx * 2);
    w->inter = take(&at, r * s.slice * 2);
    w->cls = take(&at, r * s.h * 2);
    w->q = take(&at, r * s.ld * 2);
    w->a8 = take(&at, r * MAX(s.h, s.ctx));
    w->inter8 = take(&at, r * s.slice);
    w->c = take(&at, r * s.h * 4);
    w->part = take(&at, r * 128);
    w->scale = take(&at, r * 4);
    w->inter_scale = take(&at, r * 4);
    w->k = take(&at, m->heads * keys * s.hdp * 2);
    w->v = take(&at, m->heads * keys * s.hdp * 2);
    w->p = take(&at, m->heads * 16 * keys * 2);
    w->scores = take(&at, m->heads * 16 * keys * 4);
    w->o = take(&at, m->heads * 5 * 1024);
    return at;
}

INLINE const void *tensor(const struct net *m, int i) { return m->base + m->off[i]; }
INLINE const void *weight(const struct net *m, int layer, int i) { return tensor(m, 4 + layer * TENSORS + i); }

/* ---- vector pieces ------------------------------------------------------------------------------------ */

#define V(x) _mm512_set1_ps(x)

/* 2^x: minimax polynomial on [-1/2, 1/2]; relative error 3e-6, or 7e-5 where the result becomes bf16 */
INLINE __m512 exp2v(__m512 x, int rough) {
    __m512 n = _mm512_roundscale_ps(x, 0), f = _mm512_sub_ps(x, n), p;
    if (rough) {
        p = _mm512_fmadd_ps(V(0.055171772837638855f), f, V(0.2426113784313202f));
        p = _mm512_fmadd_ps(p, f, V(0.6932609677314758f));
        return _mm512_scalef_ps(_mm512_fmadd_ps(p, f, V(0.9999279975891113f)), n);
    }
    p = _mm512_fmadd_ps(V(0.009570085443556309f), f, V(0.0559178926050663f));
    p = _mm512_fmadd_ps(p, f, V(0.2402474582195282f));
    p = _mm512_fmadd_ps(p, f, V(0.6931217908859253f));
    return _mm512_scalef_ps(_mm512_fmadd_ps(p, f, V(0.9999992847442627f)), n);
}

/* x Phi(x) = max(x, 0) + an even function, here a polynomial in min(|x|, 3.9) that is 0 at both ends: nine
 * operations; absolute error 1.9e-4, a tenth of what rounding a result near 1 to bf16 costs */
INLINE __m512 gelu(__m512 x) {
    __m512 t = _mm512_range_ps(x, V(3.9f), 10); /* 10: the smaller absolute value */
    __m512 p = _mm512_fmadd_ps(V(0.0007324224570766091f), t, V(-0.011149106547236443f));
    p = _mm512_fmadd_ps(p, t, V(0.06421492248773575f));
    p = _mm512_fmadd_ps(p, t, V(-0.15796837210655212f));
    p = _mm512_fmadd_ps(p, t, V(0.06807174533605576f));
    p = _mm512_fmadd_ps(p, t, V(0.37375563383102417f));
    p = _mm512_fmadd_ps(p, t, V(-0.4962508976459503f));
    return _mm512_fmadd_ps(p, t, _mm512_max_ps(x, _mm512_setzero_ps()));
}

INLINE __m512 tanhv(__m512 x) { /* 1 - 2 / (e^2x + 1) */
    __m512 e = exp2v(_mm512_mul_ps(_mm512_min_ps(_mm512_max_ps(x, V(-20)), V(20)), V(2.8853900817779268f)), 0);
    return _mm512_sub_ps(V(1), _mm512_div_ps(V(2), _mm512_add_ps(e, V(1))));
}

/* The sum or the maximum of each of 16 vectors, in one vector: a tree of 15 joins instead of 16 reductions. The
 * vector in slot r ends in element r: the inputs are taken in the order that undoes the tree's own. */
#define JOIN(op, shuffle, a, b, i, j) op(shuffle(a, b, i), shuffle(a, b, j))
#define TREE(name, op) \
    INLINE __m512 name(const __m512 v[16]) { \
        __m512 e[4]; \
        for (int i = 0; i < 4; i++) \
            e[i] = JOIN(op, _mm512_shuffle_f32x4, JOIN(op, _mm512_shuffle_f32x4, v[i], v[4 + i], 0x44, 0xee), \
                        JOIN(op, _mm512_shuffle_f32x4, v[8 + i], v[12 + i], 0x44, 0xee), 0x88, 0xdd); \
        return JOIN(op, _mm512_shuffle_ps, JOIN(op, _mm512_shuffle_ps, e[0], e[1], 0x44, 0xee), \
                    JOIN(op, _mm512_shuffle_ps, e[2], e[3], 0x44, 0xee), 0x88, 0xdd); \
    }
TREE(sum16, _mm512_add_ps)
TREE(max16, _mm512_max_ps)

INLINE void store_bf16(void *to, __m512 low, __m512 high) {
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}
INLINE __m512 bf16_low(__m512i v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(v)), 16)); }
INLINE __m512 bf16_high(__m512i v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(v, 1)), 16)); }

/* the 64-byte line of `row` and k-tile `k` in A tiles of `kt` k-tiles */
INLINE void *line(const void *a, int kt, int row, int k) {
    return (uint8_t *)a + ((int64_t)(row / 16) * kt + k) * 1024 + row % 16 * 64;
}

/* ---- matrix product ----------------------------------------------------------------------------------- */

enum kind { ROWS, GELU, ADD };
enum number { BF16, S8, U8 };

struct epilogue {
    bf16 *out;                         /* ROWS: row-major, `ld` apart; GELU: A tiles, `ld` k-tiles */
    int ld, first;                     /* ADD: first = start the sum, do not read it */
    float *c;                          /* ADD */
    const float *bias, *column, *row;  /* int8: result = column[n] * row[m] * integer sum */
};

/* A finished 32 x 32 block of raw sums on its way out. Row r goes to out + r / 16 * half + r % 16 * step bytes. */
struct block {
    const float *raw, *bias, *by, *row;
    uint8_t *out;
    int64_t half, step;
};

/* rows [4 i, 4 i + 4) of a block */
INLINE void finish(enum kind kind, enum number num, int first, const struct block *b, unsigned i) {
    const float *raw = b->raw + i / 4 * 512 + i % 4 * 64;
    uint8_t *out = b->out + i / 4 * b->half + i % 4 * 4 * b->step;
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++, out += b->step) {
        __m512 x = _mm512_load_ps(raw + r * 16), y = _mm512_load_ps(raw + r * 16 + 256);
        if (num != BF16) {
            __m512 scale = V(b->row[i * 4 + r]);
            x = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_castps_si512(x)), scale);
            y = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_castps_si512(y)), scale);
        }
        if (kind == ADD) { /* int8 only: bf16 sums stay in tiles */
            float *c = (float *)out;
            __m512 c0 = _mm512_setzero_ps(), c1 = c0;
            if (!first) c0 = _mm512_load_ps(c), c1 = _mm512_load_ps(c + 256);
            _mm512_store_ps(c, _mm512_fmadd_ps(x, _mm512_loadu_ps(b->by), c0));
            _mm512_store_ps(c + 256, _mm512_fmadd_ps(y, _mm512_loadu_ps(b->by + 16), c1));
            continue;
        }
        __m512 bias0 = _mm512_loadu_ps(b->bias), bias1 = _mm512_loadu_ps(b->bias + 16);
        x = num == BF16 ? _mm512_add_ps(x, bias0) : _mm512_fmadd_ps(x, _mm512_loadu_ps(b->by), bias0);
        y = num == BF16 ? _mm512_add_ps(y, bias1) : _mm512_fmadd_ps(y, _mm512_loadu_ps(b->by + 16), bias1);
        if (kind == ROWS) store_bf16(out, x, y);
        else store_bf16(out, gelu(x), gelu(y));
    }
}

/* gcc's tile intrinsics are statements, not expressions */
#define ZERO4() do { _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); } while (0)
#define LOAD4(c) do { _tile_loadd(0, c, 64); _tile_loadd(1, (c) + 256, 64); _tile_loadd(2, (c) + 512, 64); _tile_loadd(3, (c) + 768, 64); } while (0)
#define STORE4(c) do { _tile_stored(0, c, 64); _tile_stored(1, (c) + 256, 64); _tile_stored(2, (c) + 512, 64); _tile_stored(3, (c) + 768, 64); } while (0)
#define PRODUCTS(op) do { op(0, 4, 6); op(1, 4, 7); op(2, 5, 6); op(3, 5, 7); } while (0)

/* [32 * pairs, kt tiles] x panels [p0, p1) of B; `panels` is the row length of C.
 *  - The tile unit eats 1 KB per 16 cycles, more than L2 gives: B is taken STRIP k-tiles at a time, which stay in
 *    L1 while all rows pass by, A streams around L1 (tileloaddt1), and the sums rest in `part` between strips.
 *  - Vector work on a finished block runs between the tile operations of the next one.
 *  - Every block prefetches its share of the weights that come next. */
enum { STRIP = 16 };
INLINE void gemm(enum kind kind, enum number num, const void *a, const void *b, int kt, int pairs, int p0, int p1,
                 int panels, const void *next, float *part, const struct epilogue *e) {
    float raw[2][1024] __attribute__((aligned(64)));
    int strips = (kt + STRIP - 1) / STRIP, strip = (kt + strips - 1) / strips, per_step = (8 + strip - 1) / strip;
    int fetch = (32 + pairs - 1) / pairs, first = e->first, turn = 0;
    unsigned done = 8; /* quarters of the tile rows of `last` that have been finished, of 8 */
    const int in_tiles = kind == ADD && num == BF16;
    struct block last = {.half = kind == ROWS ? e->ld * 32L : kind == GELU ? e->ld * 1024L : 2048, .step = kind == ROWS ? e->ld * 2 : 64};
    FENCE();
    for (int p = p0; p < p1; p++) {
        const uint8_t *bp = (const uint8_t *)b + (int64_t)p * kt * 2048;
        const uint8_t *soon = p + 1 < p1 ? bp + kt * 2048 : (const uint8_t *)next;
        for (int k0 = 0; k0 < kt; k0 += strip)
            for (int m = 0; m < pairs; m++) {
                const uint8_t *at = (const uint8_t *)a + ((int64_t)m * 2 * kt + k0) * 1024, *bt = bp + k0 * 2048;
                const uint8_t *end = bp + MIN(kt, k0 + strip) * 2048;
                float *c = in_tiles ? e->c + ((int64_t)m * panels + p) * 1024 : part + m * 1024;
                if (k0 || (in_tiles && !first)) LOAD4(c);
                else ZERO4();
                for (; bt < end; bt += 2048, at += 1024) {
                    _tile_loadd(6, bt, 64);
                    _tile_stream_loadd(4, at, 64);
                    _tile_loadd(7, bt + 1024, 64);
                    _tile_stream_loadd(5, at + kt * 1024, 64);
                    if (num == BF16) PRODUCTS(_tile_dpbf16ps);
                    else if (num == S8) PRODUCTS(_tile_dpbssd);
                    else PRODUCTS(_tile_dpbusd);
                    for (int i = 0; i < fetch; i++, soon += 64) _mm_prefetch((const char *)soon, _MM_HINT_T1);
                    if (!in_tiles)
                        for (int i = 0; i < per_step && done < 8; i++) finish(kind, num, first, &last, done++);
                }
                if (in_tiles || k0 + strip < kt) {
                    STORE4(c);
                    continue;
                }
                while (done < 8) finish(kind, num, first, &last, done++);
                STORE4(raw[turn]);
                last.raw = raw[turn], last.bias = e->bias + p * 32, last.by = e->column + p * 32, last.row = e->row + m * 32;
                last.out = kind == ROWS ? (uint8_t *)(e->out + (int64_t)m * 32 * e->ld + p * 32)
                         : kind == GELU ? (uint8_t *)e->out + ((int64_t)m * 2 * e->ld + p - p0) * 1024
                                        : (uint8_t *)(e->c + ((int64_t)m * panels + p) * 1024);
                done = 0, turn = !turn;
            }
    }
    while (done < 8) finish(kind, num, first, &last, done++);
    FENCE();
}

/* one copy of the code for each pair that is used */
#define GEMM(name, kind, num) \
    static __attribute__((noinline)) void name(const void *a, const void *b, int kt, int pairs, int p0, int p1, \
                                               int panels, const void *next, float *part, const struct epilogue *e) { \
        gemm(kind, num, a, b, kt, pairs, p0, p1, panels, next, part, e); \
    }
GEMM(rows_bf16, ROWS, BF16)
GEMM(rows_s8, ROWS, S8)
GEMM(gelu_bf16, GELU, BF16)
GEMM(gelu_s8, GELU, S8)
GEMM(add_bf16, ADD, BF16)
GEMM(add_s8, ADD, S8)
GEMM(add_u8, ADD, U8)

/* ---- quantisation: one scale per row (token), found in the row itself --------------------------------- */

/* bf16 A tiles [rows, kt] -> int8 A tiles, symmetric; `smooth` (or NULL) evens out the channels first */
static void quantise(const bf16 *from, int kt, int rows, const float *smooth, int8_t *to, float *scale) {
    float x[kt * 32] __attribute__((aligned(64)));
    for (int r = 0; r < rows; r++) {
        __m512 top = _mm512_setzero_ps();
        for (int k = 0; k < kt; k++) {
            __m512i v = _mm512_loadu_si512(line(from, kt, r, k));
            __m512 a = bf16_low(v), b = bf16_high(v);
            if (smooth) a = _mm512_mul_ps(a, _mm512_loadu_ps(smooth + k * 32)), b = _mm512_mul_ps(b, _mm512_loadu_ps(smooth + k * 32 + 16));
            _mm512_store_ps(x + k * 32, a);
            _mm512_store_ps(x + k * 32 + 16, b);
            top = _mm512_max_ps(top, _mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
        }
        float most = MAX(_mm512_reduce_max_ps(top), 1e-20f);
        __m512 by = V(127 / most);
        scale[r] = most / 127;
        for (int j = 0; j < kt * 2; j++)
            _mm_store_si128((__m128i *)((uint8_t *)line(to, kt / 2, r, j / 4) + j % 4 * 16),
                            _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_load_ps(x + j * 16), by))));
    }
}

/* The same for GELU's result, which lies above -0.17: moved up by GELU_FLOOR it fills all of u8, one bit more
 * than s8 would give it. tools/cpu/native/model.py takes GELU_FLOOR x (column sums of the weights) off the bias. */
#define GELU_FLOOR 0.171875f
static void quantise_gelu(const bf16 *from, int kt, int rows, int8_t *to, float *scale) {
    __m512i even = _mm512_set1_epi32((int)0xffff0000);
    for (int r = 0; r < rows; r++) {
        __m512 top = _mm512_setzero_ps();
        for (int k = 0; k < kt; k++) {
            __m512i v = _mm512_loadu_si512(line(from, kt, r, k));
            top = _mm512_max_ps(top, _mm512_max_ps(_mm512_castsi512_ps(_mm512_and_si512(v, even)), _mm512_castsi512_ps(_mm512_slli_epi32(v, 16))));
        }
        float range = _mm512_reduce_max_ps(top) + GELU_FLOOR;
        __m512 by = V(255 / range), up = V(GELU_FLOOR * 255 / range), zero = _mm512_setzero_ps();
        scale[r] = range / 255;
        for (int k = 0; k < kt; k++) {
            __m512i v = _mm512_loadu_si512(line(from, kt, r, k));
            __m512i a = _mm512_cvtps_epi32(_mm512_max_ps(_mm512_fmadd_ps(bf16_low(v), by, up), zero));
            __m512i b = _mm512_cvtps_epi32(_mm512_max_ps(_mm512_fmadd_ps(bf16_high(v), by, up), zero));
            uint8_t *q = (uint8_t *)line(to, kt / 2, r, k / 2) + k % 2 * 32;
            _mm_store_si128((__m128i *)q, _mm512_cvtusepi32_epi8(a));
            _mm_store_si128((__m128i *)(q + 16), _mm512_cvtusepi32_epi8(b));
        }
    }
}

/* ---- LayerNorm ---------------------------------------------------------------------------------------- */

/* h = LayerNorm(c + bias + h), or of c alone when bias is NULL; c is overwritten. 16 rows share their reductions,
 * whose latency would otherwise be most of the time. Columns from `hidden` on are 0 and stay so (gamma and beta are
 * 0 there). The variance as E[x^2] - E[x]^2 saves a pass: a residual stream's mean is far below its spread. */
static void add_norm(const struct work *w, const float *bias, const float *g, const float *b, bf16 *h, int rows) {
    int kt = w->s.h / 32;
    __m512 share = V(1.0f / w->m->hidden);
    for (int t = 0; t < rows; t += 16) {
        int n = MIN(16, rows - t);
        float *c = w->c + (int64_t)(t / 32) * kt * 1024 + t % 32 * 32;
        uint8_t *ht = line(h, kt, t, 0);
        __m512 sum[16], squares[16];
        for (int r = 0; r < 16; r++) sum[r] = squares[r] = _mm512_setzero_ps();
        for (int r = 0; r < n; r++)
            for (int k = 0; k < kt; k++) {
                float *x = c + k * 1024 + r * 16;
                __m512 p = _mm512_load_ps(x), q = _mm512_load_ps(x + 256);
                if (bias) {
                    __m512i v = _mm512_load_si512(ht + k * 1024 + r * 64);
                    p = _mm512_add_ps(_mm512_add_ps(p, _mm512_loadu_ps(bias + k * 32)), bf16_low(v));
                    q = _mm512_add_ps(_mm512_add_ps(q, _mm512_loadu_ps(bias + k * 32 + 16)), bf16_high(v));
                    _mm512_store_ps(x, p);
                    _mm512_store_ps(x + 256, q);
                }
                sum[r] = _mm512_add_ps(sum[r], _mm512_add_ps(p, q));
                squares[r] = _mm512_fmadd_ps(p, p, _mm512_fmadd_ps(q, q, squares[r]));
            }
        __m512 mean = _mm512_mul_ps(sum16(sum), share), var = _mm512_fmsub_ps(sum16(squares), share, _mm512_mul_ps(mean, mean));
        float means[16], invs[16];
        _mm512_storeu_ps(means, mean);
        _mm512_storeu_ps(invs, _mm512_div_ps(V(1), _mm512_sqrt_ps(_mm512_add_ps(_mm512_max_ps(var, V(0)), V(w->m->eps)))));
        for (int r = 0; r < n; r++) {
            __m512 inv = V(invs[r]), minus = V(-means[r] * invs[r]);
            for (int k = 0; k < kt; k++) {
                const float *x = c + k * 1024 + r * 16;
                __m512 p = _mm512_fmadd_ps(_mm512_load_ps(x), inv, minus), q = _mm512_fmadd_ps(_mm512_load_ps(x + 256), inv, minus);
                store_bf16(ht + k * 1024 + r * 64, _mm512_fmadd_ps(p, _mm512_loadu_ps(g + k * 32), _mm512_loadu_ps(b + k * 32)),
                           _mm512_fmadd_ps(q, _mm512_loadu_ps(g + k * 32 + 16), _mm512_loadu_ps(b + k * 32 + 16)));
            }
        }
    }
}

/* rows [row, row + n) of c = word[ids] + position */
static void embed(const struct work *w, const int32_t *ids, int n, int row) {
    int kt = w->s.h / 32;
    for (int t = 0; t < n; t++, row++) {
        const bf16 *word = (const bf16 *)tensor(w->m, 0) + (int64_t)ids[t] * w->s.h;
        const float *position = (const float *)tensor(w->m, 1) + (int64_t)t * w->s.h;
        float *c = w->c + (int64_t)(row / 32) * kt * 1024 + row % 32 / 16 * 512 + row % 16 * 16;
        for (int k = 0; k < kt; k++) {
            __m512i v = _mm512_loadu_si512(word + k * 32);
            _mm512_store_ps(c + k * 1024, _mm512_add_ps(bf16_low(v), _mm512_loadu_ps(position + k * 32)));
            _mm512_store_ps(c + k * 1024 + 256, _mm512_add_ps(bf16_high(v), _mm512_loadu_ps(position + k * 32 + 16)));
        }
    }
}

/* ---- attention ---------------------------------------------------------------------------------------- */

/* 16 x 16 dwords in place */
INLINE void transpose(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]), t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + 2 + j]);
            r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + 2 + j]);
        }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88), t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88), t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 8; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
}

/* keys and values of one sentence as B tiles: k transposed by dword (pairs of dims), v with pairs of tokens */
static void keys_values(const struct work *w, const bf16 *kv, int nk) {
    struct size s = w->s;
    int nd = s.hdp / 32;
    uint8_t *k = w->k, *v = w->v;
    __m512i low, high;
    {
        uint16_t i[2][32];
        for (int j = 0; j < 32; j++) i[0][j] = j / 2 + j % 2 * 32, i[1][j] = 16 + j / 2 + j % 2 * 32;
        low = _mm512_loadu_si512(i[0]), high = _mm512_loadu_si512(i[1]);
    }
    for (int head = 0; head < w->m->heads; head++)
        for (int t = 0; t < UP(nk, 32); t += 16)
            for (int d = 0; d < nd; d++, k += 1024) {
                int dims = MIN(32, s.hd - d * 32);
                const bf16 *from = kv + (int64_t)t * s.ld + head * s.hd + d * 32;
                __m512i r[16];
                for (int i = 0; i < 16; i++) r[i] = _mm512_maskz_loadu_epi32((1u << dims / 2) - 1, from + (int64_t)i * s.ld);
                transpose(r);
                for (int i = 0; i < 16; i++) _mm512_storeu_si512(k + i * 64, r[i]);
            }
    for (int head = 0; head < w->m->heads; head++)
        for (int t = 0; t < UP(nk, 32); t += 32)
            for (int d = 0; d < nd; d++, v += 2048) {
                uint32_t dims = 0xffffffffu >> (32 - MIN(32, s.hd - d * 32));
                const bf16 *from = kv + w->m->hidden + (int64_t)t * s.ld + head * s.hd + d * 32;
                for (int i = 0; i < 16; i++, from += 2 * s.ld) { /* rows past the sentence count as zero */
                    __m512i a = _mm512_maskz_loadu_epi16(t + 2 * i < nk ? dims : 0, from);
                    __m512i b = _mm512_maskz_loadu_epi16(t + 2 * i + 1 < nk ? dims : 0, from + s.ld);
                    _mm512_storeu_si512(v + i * 64, _mm512_permutex2var_epi16(a, low, b));
                    _mm512_storeu_si512(v + 1024 + i * 64, _mm512_permutex2var_epi16(a, high, b));
                }
            }
}

/* scores [16][keys] of `rows` queries -> exp(x - max) as bf16 A tiles; keys from nk on get exactly 0. `chunks` of 32
 * keys; a constant, where sentences are short, lets the compiler unroll. */
INLINE void soften(const float *scores, int chunks, int nk, int rows, float scale, uint8_t *p) {
    int keys = chunks * 32, rest = nk - (keys - 32); /* 1 to 32 keys in the last chunk */
    __mmask16 low = rest < 16 ? (1u << rest) - 1 : 0xffff, high = rest > 16 ? (1u << (rest - 16)) - 1 : 0;
    __m512 top[16], c = V(scale);
    for (int r = 0; r < 16; r++) {
        const float *x = scores + r * keys;
        top[r] = _mm512_mask_mov_ps(V(-3e38f), low, _mm512_loadu_ps(x + keys - 32));
        top[r] = _mm512_mask_max_ps(top[r], high, top[r], _mm512_loadu_ps(x + keys - 16));
        for (int j = 0; j < keys - 32; j += 16) top[r] = _mm512_max_ps(top[r], _mm512_loadu_ps(x + j));
    }
    float most[16] __attribute__((aligned(64)));
    _mm512_store_ps(most, _mm512_mul_ps(max16(top), c));
    for (int r = 0; r < rows; r++, scores += keys) {
        __m512 m = V(most[r]);
        for (int j = 0; j < chunks; j++) {
            __m512 a = exp2v(_mm512_fmsub_ps(_mm512_loadu_ps(scores + j * 32), c, m), 1);
            __m512 b = exp2v(_mm512_fmsub_ps(_mm512_loadu_ps(scores + j * 32 + 16), c, m), 1);
            if (j == chunks - 1) a = _mm512_maskz_mov_ps(low, a), b = _mm512_maskz_mov_ps(high, b);
            store_bf16(p + j * 1024 + r * 64, a, b);
        }
    }
}

/* Softmax(q k' / sqrt(d)) v for one sentence: nq query rows at q, nk keys (see keys_values), result in rows
 * [row, row + nq) of the A tiles ctx. All heads advance together, so that independent work hides latency. */
static void attend(const struct work *w, const bf16 *q, int nq, int nk, bf16 *ctx, int row) {
    static const bf16 ones[512] __attribute__((aligned(64))) = {[0 ... 511] = 0x3f80};
    struct size s = w->s;
    int heads = w->m->heads, keys = UP(nk, 32), nd = s.hdp / 32;
    float scale = 1.4426950408889634f / __builtin_sqrtf(s.hd);
    for (int t = 0; t < nq; t += 16) {
        int rows = MIN(16, nq - t);
        FENCE();
        for (int head = 0; head < heads; head++) {
            const bf16 *from = q + (int64_t)t * s.ld + head * s.hd;
            _tile_loadd(4, from, s.ld * 2);
            if (nd == 2) _tile_loadd(5, from + 32, s.ld * 2);
            for (int j = 0; j < keys; j += 32) {
                const uint8_t *k = w->k + ((int64_t)head * keys + j) / 16 * nd * 1024;
                _tile_zero(0); _tile_zero(1);
                _tile_loadd(6, k, 64); _tile_dpbf16ps(0, 4, 6);
                _tile_loadd(7, k + nd * 1024, 64); _tile_dpbf16ps(1, 4, 7);
                if (nd == 2) {
                    _tile_loadd(6, k + 1024, 64); _tile_dpbf16ps(0, 5, 6);
                    _tile_loadd(7, k + 3072, 64); _tile_dpbf16ps(1, 5, 7);
                }
                float *to = w->scores + (int64_t)head * 16 * keys + j;
                _tile_stored(0, to, keys * 4); _tile_stored(1, to + 16, keys * 4);
            }
        }
        for (int head = 0; head < heads; head++) {
            const float *x = w->scores + (int64_t)head * 16 * keys;
            uint8_t *p = w->p + (int64_t)head * 32 * keys;
            if (keys == 32) soften(x, 1, nk, rows, scale, p);
            else if (keys == 64) soften(x, 2, nk, rows, scale, p);
            else soften(x, keys / 32, nk, rows, scale, p);
        }
        FENCE();
        _tile_loadd(7, ones, 64); /* p x ones = the row sums, in all 16 columns */
        for (int head = 0; head < heads; head++) {
            uint8_t *o = w->o + head * 5 * 1024;
            _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); _tile_zero(4);
            for (int j = 0; j < keys; j += 32) {
                const uint8_t *v = w->v + ((int64_t)head * keys + j) / 32 * nd * 2048;
                _tile_loadd(5, w->p + ((int64_t)head * keys + j) * 32, 64);
                _tile_loadd(6, v, 64); _tile_dpbf16ps(0, 5, 6);
                _tile_loadd(6, v + 1024, 64); _tile_dpbf16ps(1, 5, 6);
                if (nd == 2) {
                    _tile_loadd(6, v + 2048, 64); _tile_dpbf16ps(2, 5, 6);
                    _tile_loadd(6, v + 3072, 64); _tile_dpbf16ps(3, 5, 6);
                }
                _tile_dpbf16ps(4, 5, 7);
            }
            _tile_stored(0, o, 64); _tile_stored(1, o + 1024, 64); _tile_stored(4, o + 4096, 64);
            if (nd == 2) { _tile_stored(2, o + 2048, 64); _tile_stored(3, o + 3072, 64); }
        }
        for (int r = 0; r < rows; r++) {
            const uint8_t *o = w->o + r * 64;
            uint8_t *to = line(ctx, s.ctx / 32, row + t + r, 0);
            for (int head = 0; head < heads; head++, o += 5 * 1024) {
                __m512 sum = _mm512_loadu_ps(o + 4096), by = _mm512_rcp14_ps(sum); /* + a Newton step: a division takes 16 cycles */
                by = _mm512_mul_ps(by, _mm512_fnmadd_ps(sum, by, V(2)));
                for (int d = 0; d < nd; d++, to += 1024)
                    store_bf16(to, _mm512_mul_ps(_mm512_loadu_ps(o + d * 2048), by), _mm512_mul_ps(_mm512_loadu_ps(o + d * 2048 + 1024), by));
            }
            if (heads * nd < s.ctx / 32) _mm512_storeu_si512(to, _mm512_setzero_si512()); /* an odd number of k-tiles */
        }
    }
}

/* ---- layers ------------------------------------------------------------------------------------------- */

/* columns [from, to) panels of h x [Q | K | V] + bias -> row-major out */
static void project(const struct work *w, int l, const bf16 *h, int rows, int from, int to, bf16 *out) {
    const struct net *m = w->m;
    struct size s = w->s;
    struct epilogue e = {.out = out, .ld = s.ld, .bias = weight(m, l, Q_K_V_BIAS), .column = weight(m, l, Q_K_V_SCALE), .row = w->scale};
    const void *b = weight(m, l, Q_K_V), *next = weight(m, l, OUT);
    int pairs = (rows + 31) / 32;
    if (!m->int8[l]) return rows_bf16(h, b, s.h / 32, pairs, from, to, 0, next, w->part, &e);
    quantise(h, s.h / 32, rows, weight(m, l, Q_K_V_SMOOTH), w->a8, w->scale);
    rows_s8(w->a8, b, s.h / 64, pairs, from, to, 0, next, w->part, &e);
}

/* From ctx on: output projection, LayerNorm, feed-forward, LayerNorm; h in place. The feed-forward goes slice by
 * slice of its inner columns, so that h, the sums and one slice stay in L2. */
static void rest_of_layer(const struct work *w, int l, const bf16 *ctx, bf16 *h, int rows) {
    const struct net *m = w->m;
    struct size s = w->s;
    int int8 = m->int8[l], pairs = (rows + 31) / 32, kt = s.h / 32;
    struct epilogue add = {.c = w->c, .first = 1, .column = weight(m, l, OUT_SCALE), .row = w->scale};
    struct epilogue up = {.out = w->inter, .bias = weight(m, l, UP_BIAS), .column = weight(m, l, UP_SCALE), .row = w->scale};
    const uint8_t *wo = weight(m, l, OUT), *wu = weight(m, l, UP_W), *wd = weight(m, l, DOWN);
    if (int8) {
        quantise(ctx, s.ctx / 32, rows, 0, w->a8, w->scale);
        add_s8(w->a8, wo, s.ctx / 64, pairs, 0, kt, kt, wu, w->part, &add);
    } else {
        add_bf16(ctx, wo, s.ctx / 32, pairs, 0, kt, kt, wu, w->part, &add);
    }
    add_norm(w, weight(m, l, OUT_BIAS), weight(m, l, LN1_G), weight(m, l, LN1_B), h, rows);
    if (int8) quantise(h, kt, rows, weight(m, l, UP_SMOOTH), w->a8, w->scale);
    add.column = weight(m, l, DOWN_SCALE), add.row = w->inter_scale;
    for (int at = 0; at < s.inter; at += s.slice) {
        int width = MIN(s.slice, s.inter - at), p0 = at / 32, p1 = (at + width) / 32;
        const uint8_t *down = wd + (int64_t)at * s.h * (int8 ? 1 : 2);
        const uint8_t *after = at + width < s.inter ? wu + (int64_t)(at + width) * s.h * (int8 ? 1 : 2) : (const uint8_t *)weight(m, MIN(l + 1, m->layers - 1), Q_K_V);
        up.ld = width / 32, add.first = !at;
        if (int8) {
            gelu_s8(w->a8, wu, kt / 2, pairs, p0, p1, 0, down, w->part, &up);
            quantise_gelu(w->inter, width / 32, rows, w->inter8, w->inter_scale);
            add_u8(w->inter8, down, width / 64, pairs, 0, kt, kt, after, w->part, &add);
        } else {
            gelu_bf16(h, wu, kt, pairs, p0, p1, 0, down, w->part, &up);
            add_bf16(w->inter, down, width / 32, pairs, 0, kt, kt, after, w->part, &add);
        }
    }
    add_norm(w, weight(m, l, DOWN_BIAS), weight(m, l, LN2_G), weight(m, l, LN2_B), h, rows);
}

/* ---- the run ------------------------------------------------------------------------------------------ */

struct run {
    const struct net *m;
    const int32_t *ids, *rows, *keys;
    int32_t *order, *block, *by, *link; /* block b: sentences order[block[b] .. block[b + 1]) */
    const int64_t *start;
    void (*task)(struct run *, const struct work *, int, int);
    int threads, items, take;
    atomic_int next, next_thread;
    struct work *work;
    bf16 *ctx, *h; /* last layer: attention result and input of every [CLS] row, A tiles, in plan order */
    float *logits;
};

/* the last layer's attention for the [CLS] rows of a block; the rest of it waits for all blocks */
static void last_attention(struct run *j, const struct work *w, int b, const bf16 *h, int rows) {
    struct size s = w->s;
    int kt = s.h / 32, hidden = j->m->hidden, l = j->m->layers - 1, first = j->block[b], n = j->block[b + 1] - first;
    project(w, l, h, rows, hidden / 32, s.qkv / 32, w->qkv);
    for (int i = 0, r = 0; i < n; r += j->rows[j->order[first + i++]])
        for (int k = 0; k < kt; k++) {
            __m512i v = _mm512_loadu_si512(line(h, kt, r, k));
            _mm512_storeu_si512(line(w->cls, kt, i, k), v);
            _mm512_storeu_si512(line(j->h, kt, first + i, k), v);
        }
    project(w, l, w->cls, n, 0, UP(hidden + s.hdp - s.hd, 32) / 32, w->q); /* attention reads whole tiles of dims */
    for (int i = 0, r = 0; i < n; r += j->rows[j->order[first + i++]]) {
        keys_values(w, w->qkv + (int64_t)r * s.ld + hidden, j->keys[j->order[first + i]]);
        attend(w, w->q + (int64_t)i * s.ld, 1, j->keys[j->order[first + i]], j->ctx, first + i);
    }
}

static void run_blocks(struct run *j, const struct work *w, int b0, int n) {
    const struct net *m = j->m;
    struct size s = w->s;
    int rows[n], b1 = b0 + n;
    for (int b = b0; b < b1; b++) {
        rows[b - b0] = 0;
        for (int i = j->block[b]; i < j->block[b + 1]; rows[b - b0] += j->rows[j->order[i++]])
            embed(w, j->ids + j->start[j->order[i]], j->rows[j->order[i]], rows[b - b0]);
        add_norm(w, 0, tensor(m, 2), tensor(m, 3), w->h + (b - b0) * w->step, rows[b - b0]);
    }
    for (int l = 0; l < m->layers; l++)
        for (int b = b0; b < b1; b++) { /* layer by layer over the group: weights come from memory once a group */
            bf16 *h = w->h + (b - b0) * w->step;
            if (l == m->layers - 1) {
                last_attention(j, w, b, h, rows[b - b0]);
                continue;
            }
            project(w, l, h, rows[b - b0], 0, s.qkv / 32, w->qkv);
            for (int i = j->block[b], r = 0; i < j->block[b + 1]; r += j->rows[j->order[i++]]) {
                const bf16 *at = w->qkv + (int64_t)r * s.ld;
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
    int kt = s.h / 32, at = 4 + m->layers * TENSORS;
    bf16 *h = j->h + (int64_t)from * s.h;
    rest_of_layer(w, m->layers - 1, j->ctx + (int64_t)from * s.ctx, h, n);
    struct epilogue e = {.c = w->c, .first = 1};
    add_bf16(h, tensor(m, at), kt, (n + 31) / 32, 0, kt, kt, tensor(m, at + 2), w->part, &e);
    const float *bias = tensor(m, at + 1), *head = tensor(m, at + 2), *last = tensor(m, at + 3);
    for (int r = 0; r < n; r++) {
        const float *c = w->c + (int64_t)(r / 32) * s.h * 32 + r % 32 / 16 * 512 + r % 16 * 16;
        __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        for (int k = 0; k < s.h / 16; k++) {
            __m512 x = tanhv(_mm512_add_ps(_mm512_loadu_ps(c + k / 2 * 1024 + k % 2 * 256), _mm512_loadu_ps(bias + k * 16)));
            if (m->relu) x = _mm512_max_ps(x, _mm512_setzero_ps());
            for (int i = 0; i < 2; i++) sum[i] = _mm512_fmadd_ps(x, _mm512_loadu_ps(head + i * s.h + k * 16), sum[i]);
        }
        for (int i = 0; i < 2; i++) j->logits[j->order[from + r] * 2 + i] = _mm512_reduce_add_ps(sum[i]) + last[i];
    }
}

static void *worker(void *arg) {
    struct run *j = arg;
    const struct work *w = &j->work[atomic_fetch_add(&j->next_thread, 1)];
    tiles_on();
    for (int i; (i = atomic_fetch_add(&j->next, j->take)) < j->items;)
        j->task(j, w, i, MIN(j->take, j->items - i));
    _tile_release();
    return 0;
}

/* task(i, n) for all items, `take` at a time. A thread that cannot be made is done without. */
static void parallel(struct run *j, void (*task)(struct run *, const struct work *, int, int), int items, int take) {
    pthread_t id[j->threads];
    int made = 0, want = MIN(j->threads, (items + take - 1) / take) - 1;
    j->task = task, j->items = items, j->take = take, j->next = j->next_thread = 0;
    while (made < want && !pthread_create(&id[made], 0, worker, j)) made++;
    worker(j);
    while (made) pthread_join(id[--made], 0);
}

/* Group sentences into blocks of at most `room` rows: always the longest that still fits, so blocks are nearly
 * full. Returns the number of blocks. `by` is scratch for [longest + 1] heads of lists, `link` for n. */
static int plan(const int32_t *rows, int n, int room, int longest, int32_t *by, int32_t *link, int32_t *order, int32_t *block) {
    for (int i = 0; i <= longest; i++) by[i] = -1;
    for (int i = n; i--;) link[i] = by[rows[i]], by[rows[i]] = i;
    int blocks = 0, done = 0;
    while (done < n) {
        block[blocks++] = done;
        for (int left = room, len = longest; len > 0;) {
            if (len > left) len = left;
            else if (by[len] < 0) len--;
            else left -= len, order[done++] = by[len], by[len] = link[by[len]];
        }
    }
    block[blocks] = n;
    return blocks;
}

/* lay out everything a run needs from `at`; returns the end */
static uint8_t *arrange(struct run *j, const struct net *m, int n, int block, int group, int longest, int threads, uint8_t *at) {
    struct size s = sizes(m);
    struct work none;
    int measure = !j->logits;
    j->work = take(&at, threads * sizeof *j->work);
    j->order = take(&at, 4L * n);
    j->block = take(&at, 4L * n + 4);
    j->link = take(&at, 4L * n);
    j->by = take(&at, 4L * longest + 4);
    j->ctx = take(&at, UP(n, 32) * (int64_t)s.ctx * 2);
    j->h = take(&at, UP(n, 32) * (int64_t)s.h * 2);
    for (int t = 0; t < threads; t++)
        at = layout(measure ? &none : &j->work[t], m, MAX(block, longest), group, longest, (uint8_t *)UP((uintptr_t)at, 4096));
    return at;
}

/* Bytes of workspace for native_run; what it holds beforehand does not matter. */
int64_t native_bytes(const struct net *m, int n, int block, int group, int longest, int threads) {
    struct run j = {.logits = 0};
    uint8_t *base = (uint8_t *)4096;
    return arrange(&j, m, n, block, group, longest, threads, base) - base;
}

/* logits[n][2] of n sentences: sentence i has ids[start[i] .. start[i] + rows[i]), of which the first keys[i] are
 * attended to (keys < rows: padded). A block holds at most `block` rows (at least the longest sentence); a thread
 * takes `group` blocks at once. `work`: native_bytes, 4096-aligned. The caller has checked everything. */
void native_run(const struct net *m, const int32_t *ids, const int64_t *start, const int32_t *rows, const int32_t *keys,
                int n, int block, int group, int longest, int threads, uint8_t *work, float *logits) {
    struct run j = {.m = m, .ids = ids, .rows = rows, .keys = keys, .start = start, .logits = logits, .threads = threads};
    arrange(&j, m, n, block, group, longest, threads, work);
    int blocks = plan(rows, n, MAX(block, longest), longest, j.by, j.link, j.order, j.block);
    parallel(&j, run_blocks, blocks, MIN(group, (blocks + threads - 1) / threads));
    parallel(&j, run_tail, n, UP(MIN((n + threads - 1) / threads, block), 32));
}

#endif
