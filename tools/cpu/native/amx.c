/* amx.c: the AMX matrix units, and AVX-512 with bf16 for all else. */
#ifdef __x86_64__

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "net.h"
TARGET("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16,amx-int8")

#define WIDTH 512
typedef uint16_t act;
enum { SHIFTED = 0 };

#include "vectors.h"
#include "pieces.h"

/* Whether the kernel lets this process use the tiles. */
int native_amx_allowed(void) { return !syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */); }

#include "tiles.h"
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

#include "attention.h"
#include "layers.h"

const struct family native_amx = {2, SHIFTED, 32, tiles_on, tiles_off, run_blocks, run_tail};
TARGET_END

#else

int native_amx_allowed(void) { return 0; }

#endif
