/* amx_emulation.h: the AMX instructions of amx.c in plain C, each as Intel's manual defines it, for CPUs without them. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

static __thread struct { uint8_t row[16][64]; } emulated[8];

static inline void emulated_load(int t, const void *from, long step) {
    for (int r = 0; r < 16; r++) memcpy(emulated[t].row[r], (const uint8_t *)from + r * step, 64);
}
static inline void emulated_store(int t, void *to, long step) {
    for (int r = 0; r < 16; r++) memcpy((uint8_t *)to + r * step, emulated[t].row[r], 64);
}
#define PRODUCT(name, type, group, value_a, value_b) \
    static inline void name(int c, int a, int b) { \
        for (int m = 0; m < 16; m++) \
            for (int k = 0; k < 16; k++) \
                for (int n = 0; n < 16; n++) { \
                    type sum; \
                    memcpy(&sum, emulated[c].row[m] + n * 4, 4); \
                    for (int i = 0; i < group; i++) { \
                        const uint8_t *x = emulated[a].row[m] + (k * group + i) * (4 / group); \
                        const uint8_t *y = emulated[b].row[k] + (n * group + i) * (4 / group); \
                        sum += value_a * value_b; \
                    } \
                    memcpy(emulated[c].row[m] + n * 4, &sum, 4); \
                } \
    }
static inline float emulated_bf16(const uint8_t *p) {
    uint32_t u = (uint32_t)(p[0] | p[1] << 8) << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
PRODUCT(emulated_bf16ps, float, 2, emulated_bf16(x), emulated_bf16(y))
PRODUCT(emulated_bssd, int32_t, 4, (int8_t)*x, (int8_t)*y)
PRODUCT(emulated_busd, int32_t, 4, *x, (int8_t)*y)

#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#undef _tile_dpbssd
#undef _tile_dpbusd
#define _tile_loadconfig(config) ((void)(config))
#define _tile_release() ((void)0)
#define _tile_loadd emulated_load
#define _tile_stream_loadd emulated_load
#define _tile_stored emulated_store
#define _tile_zero(t) memset(&emulated[t], 0, 1024)
#define _tile_dpbf16ps emulated_bf16ps
#define _tile_dpbssd emulated_bssd
#define _tile_dpbusd emulated_busd
