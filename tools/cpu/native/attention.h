/* attention.h: softmax(q k' / sqrt(d)) v of one sentence, around the family's own
 *
 *     product(num, rows, (struct product){...})
 *
 * of at most 16 rows of A and 32 columns of B. It may compute, and write, all of 16 rows. */
#ifndef FENCE
#define FENCE()
#endif

#if WIDTH == 512 && !defined(FLOATS)

/* 16 x 16 dwords in place */
INLINE void transpose(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + 2 + j]);
            r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + 2 + j]);
        }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88), t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 8; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
}

/* keys and values of one sentence as B tiles: k transposed by dword (pairs of dims), v with pairs of tokens */
static void keys_values(const struct work *w, const act *kv, int nk) {
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
                const act *from = kv + (int64_t)t * s.ld + head * s.hd + d * 32;
                __m512i r[16];
                for (int i = 0; i < 16; i++)
                    r[i] = _mm512_maskz_loadu_epi32((1u << dims / 2) - 1, from + (int64_t)i * s.ld);
                transpose(r);
                for (int i = 0; i < 16; i++) _mm512_storeu_si512(k + i * 64, r[i]);
            }
    for (int head = 0; head < w->m->heads; head++)
        for (int t = 0; t < UP(nk, 32); t += 32)
            for (int d = 0; d < nd; d++, v += 2048) {
                uint32_t dims = 0xffffffffu >> (32 - MIN(32, s.hd - d * 32));
                const act *from = kv + w->m->hidden + (int64_t)t * s.ld + head * s.hd + d * 32;
                for (int i = 0; i < 16; i++, from += 2 * s.ld) { /* rows past the sentence count as zero */
                    __m512i a = _mm512_maskz_loadu_epi16(t + 2 * i < nk ? dims : 0, from);
                    __m512i b = _mm512_maskz_loadu_epi16(t + 2 * i + 1 < nk ? dims : 0, from + s.ld);
                    _mm512_storeu_si512(v + i * 64, _mm512_permutex2var_epi16(a, low, b));
                    _mm512_storeu_si512(v + 1024 + i * 64, _mm512_permutex2var_epi16(a, high, b));
                }
            }
}

#else

/* keys and values of one sentence as B tiles: k transposed by dword, v with as many tokens as fill one */
static void keys_values(const struct work *w, const act *kv, int nk) {
    enum { GROUP = 4 / sizeof(act) };
    struct size s = w->s;
    int keys = UP(nk, 32);
    act *k = (act *)w->k, *v = (act *)w->v;
    for (int head = 0; head < w->m->heads; head++)
        for (int t = 0; t < keys; t += 16)
            for (int d = 0; d < s.hdp; d += KA, k += 16 * KA)
                for (int i = 0; i < 16; i++) {
                    const act *from = kv + (int64_t)(t + i) * s.ld + head * s.hd + d;
                    for (int j = 0; j < KA; j++) k[j / GROUP * KA + i * GROUP + j % GROUP] = d + j < s.hd ? from[j] : 0;
                }
    for (int head = 0; head < w->m->heads; head++)
        for (int t = 0; t < keys; t += KA)
            for (int d = 0; d < s.hdp; d += 16, v += 16 * KA)
                for (int i = 0; i < KA; i++) { /* rows past the sentence count as zero */
                    const act *from = kv + w->m->hidden + (int64_t)(t + i) * s.ld + head * s.hd + d;
                    int dims = t + i < nk ? MIN(16, s.hd - d) : 0;
                    for (int j = 0; j < 16; j++) v[i / GROUP * KA + j * GROUP + i % GROUP] = j < dims ? from[j] : 0;
                }
}

#endif

/* scores [16][keys] of `rows` queries -> exp(x - max) as A tiles, and in `sums` their sum, 16 times a
 * row; keys from nk on get exactly 0. `chunks` of 32 keys; a constant, where sentences are short, lets the compiler
 * unroll. */
#if WIDTH == 512 && !defined(FLOATS)
INLINE void soften(const float *scores, int chunks, int nk, int rows, float scale, uint8_t *p, float *sums) {
    int keys = chunks * 32, rest = nk - (keys - 32); /* 1 to 32 keys in the last chunk */
    __mmask16 low = rest < 16 ? (1u << rest) - 1 : 0xffff, high = rest > 16 ? (1u << (rest - 16)) - 1 : 0;
    vec top[16], sum[16], c = V(scale);
    for (int r = 0; r < 16; r++) {
        const float *x = scores + r * keys;
        sum[r] = V(0);
        top[r] = _mm512_mask_mov_ps(V(-3e38f), low, _mm512_loadu_ps(x + keys - 32));
        top[r] = _mm512_mask_max_ps(top[r], high, top[r], _mm512_loadu_ps(x + keys - 16));
        for (int j = 0; j < keys - 32; j += 16) top[r] = _mm512_max_ps(top[r], _mm512_loadu_ps(x + j));
    }
    float most[16] __attribute__((aligned(64)));
    store(most, max16(top) * c);
    for (int r = 0; r < rows; r++, scores += keys) {
        __m512 m = V(most[r]);
        for (int j = 0; j < chunks; j++) {
            __m512 a = exp2v((vec)_mm512_fmsub_ps(_mm512_loadu_ps(scores + j * 32), c, m), 1);
            __m512 b = exp2v((vec)_mm512_fmsub_ps(_mm512_loadu_ps(scores + j * 32 + 16), c, m), 1);
            if (j == chunks - 1) a = _mm512_maskz_mov_ps(low, a), b = _mm512_maskz_mov_ps(high, b);
            sum[r] = sum[r] + (a + b);
            put2(p + j * 1024 + r * 64, 0, 0, a, b);
        }
    }
    store(most, sum16(sum));
    for (int r = 0; r < rows; r++) store(sums + r * 16, V(most[r]));
}
#else

/* x, and from its element n on numbers so low that 2 to them is 0 */
INLINE vec first_of(vec x, int n) {
    static const int32_t number[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    ivec keep = *(const ivec_at *)number < n;
    return (vec)((keep & (ivec)x) | (~keep & (ivec)V(-3e38f)));
}

INLINE void soften(float *scores, int chunks, int nk, int rows, float scale, uint8_t *p, float *sums) {
    int keys = chunks * 32;
    for (int r = 0; r < rows; r++, scores += keys) {
        for (int j = nk / VL * VL; j < keys; j += VL) store(scores + j, first_of(load(scores + j), nk - j));
        vec top = load(scores), sum[16 / VL] = {0};
        for (int j = VL; j < keys; j += VL) top = max2(top, load(scores + j));
        vec most = V(-largest(top) * scale);
        for (int j = 0; j < keys; j += 32)
            for (int i = 0; i < 16; i += VL) {
                vec a = exp2v(fma3(load(scores + j + i), V(scale), most), sizeof(act) == 2);
                vec b = exp2v(fma3(load(scores + j + 16 + i), V(scale), most), sizeof(act) == 2);
                sum[i / VL] = sum[i / VL] + (a + b);
                put2(p + j / KA * 1024 + r * 64, 1024, i, a, b);
            }
        store(sums + r * 16, V(total(sum)));
    }
}
#endif

static void scores_of(const struct work *w, const act *q, int head, int keys, int rows) {
    int nd = w->s.hdp / KA;
    for (int j = 0; j < keys; j += 32)
        product(sizeof(act) == 2 ? BF16 : F32, rows, (struct product){
            .a = (const uint8_t *)q, .a_row = w->s.ld * sizeof(act), .a_step = 64,
            .b = w->k + ((int64_t)head * keys + j) / 16 * nd * 1024, .b_step = 1024, .half = nd * 1024, .kt = nd,
            .out = w->scores + (int64_t)head * 16 * keys + j, .out_row = keys, .out_half = 16});
}

static void values_of(const struct work *w, int head, int keys, int rows) {
    int nv = w->s.hdp / 32, kt = keys / KA;
    for (int d = 0; d < nv; d++)
        product(sizeof(act) == 2 ? BF16 : F32, rows, (struct product){
            .a = w->p + (int64_t)head * kt * 1024, .a_row = 64, .a_step = 1024,
            .b = w->v + ((int64_t)head * kt * nv + d) * 2048, .b_step = nv * 2048, .half = 1024, .kt = kt,
            .out = (float *)(w->o + head * 5 * 1024 + d * 2048), .out_row = 16, .out_half = 256});
}

/* Softmax(q k' / sqrt(d)) v for one sentence: nq query rows at q, nk keys (see keys_values), result in rows
 * [row, row + nq) of the A tiles ctx. All heads advance together, so that independent work hides latency. */
static void attend(const struct work *w, const act *q, int nq, int nk, act *ctx, int row) {
    struct size s = w->s;
    int heads = w->m->heads, keys = UP(nk, 32), nv = s.hdp / 32, kt = s.ctx / KA;
    float scale = 1.4426950408889634f / __builtin_sqrtf(s.hd);
    for (int t = 0; t < nq; t += 16) {
        int rows = MIN(16, nq - t);
        FENCE();
        for (int head = 0; head < heads; head++) scores_of(w, q + (int64_t)t * s.ld + head * s.hd, head, keys, rows);
        for (int head = 0; head < heads; head++) {
            float *x = w->scores + (int64_t)head * 16 * keys;
            float *sums = (float *)(w->o + head * 5 * 1024 + 4096);
            uint8_t *p = w->p + (int64_t)head * 16 * keys * sizeof(act);
            if (keys == 32) soften(x, 1, nk, rows, scale, p, sums);
            else if (keys == 64) soften(x, 2, nk, rows, scale, p, sums);
            else soften(x, keys / 32, nk, rows, scale, p, sums);
        }
        FENCE();
        for (int head = 0; head < heads; head++) values_of(w, head, keys, rows);
        for (int r = 0; r < rows; r++) {
            const uint8_t *o = w->o + r * 64;
            for (int head = 0; head < heads; head++, o += 5 * 1024) {
#if WIDTH == 512 && !defined(FLOATS) /* a Newton step: a division takes 16 cycles */
                vec sum = load(o + 4096), by = _mm512_rcp14_ps(sum);
                by = by * (vec)_mm512_fnmadd_ps(sum, by, V(2));
#else
                vec by = 1 / load(o + 4096);
#endif
                for (int d = 0; d < nv; d++)
                    for (int j = 0; j < 16; j += VL)
                        put2(cell(ctx, kt, row + t + r, (head * nv + d) * 32), 1024, j, load(o + d * 2048 + j * 4) * by,
                             load(o + d * 2048 + 1024 + j * 4) * by);
            }
            for (int j = 0; j < 16 && heads * s.hdp < s.ctx; j += VL) /* an odd number of k-tiles */
                put2(cell(ctx, kt, row + t + r, heads * s.hdp), 1024, j, V(0), V(0));
        }
    }
}
