/* net.h: the model, one thread's memory and a run, which all families of processor units share.
 *
 * Memory layouts (tools/cpu/native/convert.py writes the weights so):
 *   A tiles   activations [row/16][k/KT][16][64 bytes]; KT = 16 fp32, 32 bf16 or 64 int8: a tile is 1 KB in one piece
 *   B tiles   weights [column/32][k/KT][2][16][64 bytes]; a 64-byte line holds 16 columns x 1 (2, 4) k's
 *   C blocks  fp32 sums [row/32][column/32][2][2][16][16]
 */
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

/* TARGET("avx2,fma") ... TARGET_END: code for these units. clang has no pragma of gcc's. */
#define PRAGMA(text) _Pragma(#text)
#ifdef __clang__
#define TARGET(units) PRAGMA(clang attribute push(__attribute__((target(units))), apply_to = function))
#define TARGET_END PRAGMA(clang attribute pop)
#else
#define TARGET_END
#ifndef TARGET /* test/avx512_emulation.h has its own */
#define TARGET(units) PRAGMA(GCC target(units))
#endif
#endif

#define INLINE static inline __attribute__((always_inline))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define UP(x, to) (((x) + (to) - 1) / (to) * (to))

enum number { BF16, S8, F32, U8 }; /* the first three as model.py numbers a layer's precision */

enum head { TANH, TANH_RELU, RELU, GELU_HEAD }; /* the activation behind the pooler, as model.py numbers it */

struct size { int32_t slice, h, e, hd, hdp, ctx, inter, qkv, ld; }; /* `sizes` of model.py describes them */

struct net { /* the same fields, in the same order, as Net in tools/cpu/native/model.py */
    struct size s;
    int32_t layers, hidden, heads, width, head, wide, labels, gelu;
    float eps, sure;          /* width: of the embeddings; head, gelu: numbers of model.py's HEADS and GELUS. A sentence
                                 leaves once its best score is `sure` above the next, or more */
    const uint8_t *base;      /* the payload of the model file */
    const int64_t *off;       /* tensor offsets: 4, then TENSORS per layer, then 7 */
    const int32_t *precision; /* per layer, an enum number; `wide` is that of the embeddings and the pooler */
    const int32_t *sums;      /* see native_sums, in engine.c */
    const float *exits;       /* the head of each layer but the last: [labels][2 h], of [CLS] and the mean, and [labels]; or NULL */
};

enum { Q_K_V, Q_K_V_BIAS, Q_K_V_SCALE, Q_K_V_SMOOTH, OUT, OUT_BIAS, OUT_SCALE, LN1_G, LN1_B, UP_W, UP_BIAS, UP_SCALE,
       UP_SMOOTH, DOWN, DOWN_BIAS, DOWN_SCALE, LN2_G, LN2_B, TENSORS };

INLINE const void *tensor(const struct net *m, int i) { return m->base + m->off[i]; }
INLINE const void *weight(const struct net *m, int layer, int i) { return tensor(m, 4 + layer * TENSORS + i); }

/* One thread's memory. Rows past a block's end hold leftovers, which influence no other row and are never read.
 * An activation is a bf16 or a float (act in the files that compute): void here. */
struct work {
    const struct net *m;
    struct size s;
    void *h, *qkv, *ctx, *inter, *cls, *q;
    int8_t *a8, *inter8;                   /* quantised h or ctx, and a slice of inter, */
    float *c, *part, *scale, *inter_scale; /* with their scales per row */
    int64_t step;                          /* bytes from one block's h to the next one's */
    uint8_t *k, *v, *p, *o, *panel;
    float *scores;
};

struct run {
    const struct net *m;
    const struct family *family;
    const int32_t *ids, *types, *rows, *keys; /* types: NULL where all are 0 */
    int32_t *order, *block, *by; /* block b: sentences order[block[b] .. block[b + 1]) */
    int32_t *link;               /* of the plan; then the sentence of each [CLS] row of the last layer, `last` of them */
    const int64_t *start;
    void (*task)(struct run *, const struct work *, int, int);
    int n, threads, items, take, least, room; /* room: rows of a block, at most */
    int team;     /* 0: a thread has blocks of its own; else threads that share all rows, and `qkv` */
    atomic_int next, next_thread, waiting, turn, last;
    struct work *work;
    uint8_t *qkv; /* of a team: for layers of even numbers, and `qkv_step` bytes on for the others */
    int64_t qkv_step;
    uint8_t *ctx, *h; /* last layer: attention result and input of every [CLS] row, A tiles, in the order of `link` */
    float *logits, *head_inputs;
    int32_t *left;
};

/* A family of processor units: how it computes a group of blocks, and the rest of the last layer for [CLS] rows. */
struct family {
    int act;     /* bytes of an activation: 2 (bf16) or 4 (fp32) */
    int shifted; /* its int8 unit multiplies u8 by s8: activations are moved up by 128 */
    int rows;    /* that a product writes at a time: 16 or 32 */
    void (*blocks)(struct run *, const struct work *, int, int), (*tail)(struct run *, const struct work *, int, int);
    void (*start)(void), (*stop)(void); /* of a thread's work, or NULL */
};
