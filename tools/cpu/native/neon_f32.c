/* neon_f32.c: Arm without bf16 units, and fp32 everywhere. */
#define FLOATS
#include "neon.c"
