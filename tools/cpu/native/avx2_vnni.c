/* avx2_vnni.c: AVX2 with AVX-VNNI for int8. */
#define VNNI
#include "avx2.c"
