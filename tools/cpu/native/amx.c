/* amx.c: AMX's tiles for all products, and AVX-512 with bf16 for all else. */
#define TILES
#include "avx512.c"
