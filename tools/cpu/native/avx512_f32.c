/* avx512_f32.c: AVX-512 without bf16 units, and fp32 everywhere. */
#define FLOATS
#include "avx512.c"
