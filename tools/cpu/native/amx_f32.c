/* amx_f32.c: AMX for int8, with fp32 activations. */
#define FLOATS
#define TILES
#include "avx512.c"
