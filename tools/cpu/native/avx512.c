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
INLINE void product(enum number num, int rows, struct product m) {
    _tile_zero(0);
    _tile_zero(1);
    for (int k = 0; k < m.kt; k++, m.a += m.a_step, m.b += m.b_step) {
        _tile_loadd(4, m.a, m.a_row);
        _tile_loadd(6, m.b, 64);
        _tile_loadd(7, m.b + m.half, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, m.out, m.out_row * 4);
    _tile_stored(1, m.out + m.out_half, m.out_row * 4);
}

#else

/* As rows.h wants them. 8 rows have 16 sums: none waits for the one before it. */
enum { COLUMNS = 32, UNROLL = 4 };
INLINE int at_once(enum number num) { return 8; }
typedef __m512i group;
INLINE group of_row(enum number num, const void *p) { return _mm512_set1_epi32(*(const int32_t *)p); }
INLINE group of_columns(enum number num, const void *p) { return _mm512_loadu_si512(p); }

INLINE vec dot(enum number num, vec c, group a, group b) {
    if (num == F32) return _mm512_fmadd_ps((vec)a, (vec)b, c);
#ifndef FLOATS
    if (num == BF16) return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
#endif
    return (vec)_mm512_dpbusd_epi32((__m512i)c, a, b);
}

#include "rows.h"
#endif

#include "layers.h"
TARGET_END

#endif
