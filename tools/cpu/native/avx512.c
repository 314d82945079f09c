/* avx512.c: AVX-512 with VNNI for int8; with bf16 activations and products, or (FLOATS) with fp32; TILES: AMX multiplies
 * int8 and bf16. */
#ifdef __x86_64__

#include <immintrin.h>

#include "net.h"

#if defined(TILES) && defined(FLOATS)
TARGET("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,amx-tile,amx-bf16,amx-int8")
#define FAMILY native_amx_int8
#elif defined(TILES)
TARGET("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16,amx-int8")
#define FAMILY native_amx
#elif defined(FLOATS)
TARGET("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#define FAMILY native_avx512
#else
TARGET("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")
#define FAMILY native_avx512_bf16
#endif

#define WIDTH 512
#include "pieces.h"
#ifdef TILES
#include "tiles.h"
#endif

#if defined(TILES) && !defined(FLOATS)

#define gemm tile_gemm

/* As attention.h describes it. */
INLINE void product(enum number num, const void *a, long a_row, long a_step, const void *b, long b_step, long half,
                    int kt, int rows, float *out, long out_row, long out_half) {
    const uint8_t *x = a, *y = b;
    _tile_zero(0);
    _tile_zero(1);
    for (int k = 0; k < kt; k++, x += a_step, y += b_step) {
        _tile_loadd(4, x, a_row);
        _tile_loadd(6, y, 64);
        _tile_loadd(7, y + half, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, out, out_row * 4);
    _tile_stored(1, out + out_half, out_row * 4);
}

#else

/* c + a 4-byte group of k's (one fp32, two bf16, four u8) x that group of 16 columns */
INLINE __m512 dot(enum number num, __m512 c, __m512i a, __m512i b) {
    if (num == F32) return _mm512_fmadd_ps((__m512)a, (__m512)b, c);
#ifndef FLOATS
    if (num == BF16) return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
#endif
    return (__m512)_mm512_dpbusd_epi32((__m512i)c, a, b);
}

/* n rows x 32 columns: 2 n sums in registers, where n = 8 leaves none of them waiting */
INLINE void some_rows(enum number num, int n, const uint8_t *a, long a_row, long a_step, const uint8_t *b, long b_step,
                      long half, int kt, const int32_t *init, float *out, long out_row, long out_half,
                      const uint8_t *soon, int fetch) {
    __m512 c[8][2];
    for (int r = 0; r < n; r++) c[r][0] = init ? load(init) : V(0), c[r][1] = init ? load(init + 16) : V(0);
    for (int k = 0; k < kt; k++, a += a_step, b += b_step) {
        for (int f = 0; f < fetch; f++, soon += 64) __builtin_prefetch(soon, 0, 3);
#pragma GCC unroll 4
        for (int i = 0; i < 64; i += 4) {
            __m512i b0 = _mm512_loadu_si512(b + i * 16), b1 = _mm512_loadu_si512(b + half + i * 16);
#pragma GCC unroll 8
            for (int r = 0; r < n; r++) {
                __m512i x = _mm512_set1_epi32(*(const int32_t *)(a + r * a_row + i));
                c[r][0] = dot(num, c[r][0], x, b0);
                c[r][1] = dot(num, c[r][1], x, b1);
            }
        }
    }
    for (int r = 0; r < n; r++) store(out + r * out_row, c[r][0]), store(out + r * out_row + out_half, c[r][1]);
}

/* `rows` rows, at most 16; sums start with init[32], or with 0. Meanwhile it fetches 2 * kt * fetch lines from `soon` on. */
INLINE void product_on(const int32_t *init, const uint8_t *soon, int fetch, enum number num, const uint8_t *a, long a_row,
                       long a_step, const uint8_t *b, long b_step, long half, int kt, int rows, float *out, long out_row,
                       long out_half) {
    if (rows == 1)
        return some_rows(num, 1, a, a_row, a_step, b, b_step, half, kt, init, out, out_row, out_half, soon, 2 * fetch);
    for (int r = 0; r < rows; r += 8, soon += 64 * kt * fetch)
        some_rows(num, 8, a + r * a_row, a_row, a_step, b, b_step, half, kt, init, out + r * out_row, out_row, out_half,
                  soon, rows > 8 ? fetch : 2 * fetch);
}

/* As attention.h describes it. */
INLINE void product(enum number num, const void *a, long a_row, long a_step, const void *b, long b_step, long half,
                    int kt, int rows, float *out, long out_row, long out_half) {
    product_on(0, 0, 0, num, a, a_row, a_step, b, b_step, half, kt, rows, out, out_row, out_half);
}

/* [rows, kt tiles] x panels [p0, p1) of B; `panels` is the row length of C. All of k is summed up in registers, and a
 * panel of B stays in L1 or L2 while all rows pass by; meanwhile the next one is fetched, some lines for each k-tile. */
INLINE void gemm(enum kind kind, enum number num, const struct work *w, const void *a, const void *b, int kt, int rows,
                 int p0, int p1, int panels, const void *next, const struct epilogue *e) {
#ifdef TILES
    if (num == S8 || num == U8) return tile_gemm(kind, num, w, a, b, kt, rows, p0, p1, panels, next, e);
#endif
    float raw[512] __attribute__((aligned(64)));
    int wide = num == BF16 && sizeof(act) == 4;
    int bytes = kt * (wide ? 1024 : 2048), steps = (rows + 15) / 16 * 2 * kt;
    int fetch = (bytes / 64 + steps - 1) / steps;
    for (int p = p0; p < p1; p++) {
        const uint8_t *bp = (const uint8_t *)b + (int64_t)p * bytes;
        const uint8_t *soon = p + 1 < p1 ? bp + bytes : (const uint8_t *)next;
        if (wide) bp = widen(bp, kt / 2, w->panel);
        const uint8_t *end = soon + bytes;
        for (int r = 0; r < rows; r += 16, soon += 128 * kt * fetch) {
            int n = MIN(16, rows - r);
            product_on(SHIFTED && num == S8 ? e->sums + p * 32 : 0, soon, soon < end ? fetch : 0, wide ? F32 : num,
                       line(a, kt, r, 0), 64, 1024, bp, 2048, 1024, kt, n, raw, 16, 256);
            struct block done = block_of(kind, e, r, p, p0, panels);
            done.raw = raw;
            for (int i = 0; i * 4 < n; i++) finish(kind, num, e->first, &done, i);
        }
    }
}

#endif

#include "layers.h"
TARGET_END

#endif
