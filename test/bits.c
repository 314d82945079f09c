/* bits.c: docs/bits.md in plain C, one sentence and one number at a time: what the native engine's fp32 and int8 give bit
 * for bit. Scalar on purpose, and without the engine's tiles, tricks and threads: it shares the file's layout alone.
 *
 *     gcc -O2 -std=gnu11 -ffp-contract=off -shared -fPIC -o bits.so test/bits.c -lm
 */
#include <math.h>
#include <stdlib.h>

#include "../tools/cpu/native/net.h"

#define EACH(i, n) for (int i = 0; i < (n); i++)

static float bf16(const void *p, int64_t i) {
    uint32_t u = (uint32_t)((const uint16_t *)p)[i] << 16;
    float x;
    return memcpy(&x, &u, 4), x;
}

/* element [k, n] of weights [depth, ...] in B tiles */
static int64_t where(int k, int n, int depth, int bytes) {
    int group = 4 / bytes, tile = 16 * group;
    return ((((int64_t)(n / 32) * (depth / tile) + k / tile) * 2 + n / 16 % 2) * 16 + k % tile / group) * 16 * group +
           n % 16 * group + k % group;
}

/* 16 lanes to one number: the upper half is added to the lower one */
static float fold(float *lane) {
    for (int half = 8; half; half /= 2) EACH(i, half) lane[i] = lane[i] + lane[i + half];
    return lane[0];
}

static float polynomial(int n, const float *c, float x) {
    float p = c[0];
    for (int i = 1; i < n; i++) p = fmaf(p, x, c[i]);
    return p;
}
#define POLYNOMIAL(x, ...) polynomial(sizeof((float[]){__VA_ARGS__}) / 4, (float[]){__VA_ARGS__}, x)

static float power_of_2(float x) { /* 2^x; 0 below 2^-126.5 */
    float n = nearbyintf(x), p = POLYNOMIAL(x - n, 0.0013276472454890609f, 0.009675541892647743f, 0.05550713092088699f,
                                            0.24022120237350464f, 0.6931469440460205f, 1.0000001192092896f);
    return n < -126 ? 0 : ldexpf(p, n);
}

static float gelu(float x, int tanh, int fine) {
    if (tanh) return x / (power_of_2(fminf(x * fmaf(x * x, -0.1029432397f, -2.302208198f), 126)) + 1);
    float most = fmaxf(x, 0) + 0.0f, z = fabsf(x);
    if (!fine)
        return fmaf(POLYNOMIAL(fminf(z, 3.9f), 0.0007324224570766091f, -0.011149106547236443f, 0.06421492248773575f,
                               -0.15796837210655212f, 0.06807174533605576f, 0.37375563383102417f, -0.4962508976459503f),
                    fminf(z, 3.9f), most);
    float t = 1 / fmaf(z, 0.23164189f, 1);
    float p = POLYNOMIAL(t, 0.530702714f, -0.7265760135f, 0.7107068705f, -0.142248368f, 0.127414796f) * t;
    return fmaf(-(z * p), power_of_2(fmaxf(x * x * -0.72134752f, -126)), most);
}

static void norm(const struct net *m, float *x, const float *gamma, const float *beta) {
    float sum[16] = {0}, squares[16] = {0}, share = 1.0f / m->hidden;
    for (int k = 0; k < UP(m->hidden, 64); k += 32) EACH(i, 16) {
        float p = x[k + i], q = x[k + 16 + i];
        sum[i] = sum[i] + (p + q), squares[i] = fmaf(p, p, fmaf(q, q, squares[i]));
    }
    float mean = fold(sum) * share, variance = fmaf(fold(squares), share, -(mean * mean));
    float inv = 1 / sqrtf(fmaxf(variance, 0) + m->eps);
    EACH(k, UP(m->hidden, 64)) x[k] = fmaf(fmaf(x[k], inv, -mean * inv), gamma[k], beta[k]);
}

/* int8: a row as whole numbers; returns its scale. smooth: by channel, or NULL; result of GELU: unsigned, moved up */
static float quantise(const float *x, int n, const float *smooth, int of_gelu, int32_t *to) {
    float top = 0;
    EACH(k, n) top = fmaxf(top, of_gelu ? x[k] : fabsf(smooth ? x[k] * smooth[k] : x[k]));
    float range = of_gelu ? top + 0.171875f : fmaxf(top, 1e-20f), steps = of_gelu ? 255 : 127, by = steps / range;
    EACH(k, n) {
        float y = of_gelu ? fmaxf(fmaf(x[k], by, 0.171875f * 255 / range), 0) : (smooth ? x[k] * smooth[k] : x[k]) * by;
        to[k] = fminf(nearbyintf(y), steps);
    }
    return range / steps;
}

/* to[n] = bias + x W, or to[n] += x W where bias is NULL; products are added in the order of k */
static void dense(const float *x, int depth, int n, const void *w, const float *bias, const float *scale, enum number num,
                  const float *smooth, int of_gelu, float *to) {
    int32_t whole[depth];
    float row = num == S8 ? quantise(x, depth, smooth, of_gelu, whole) : 0;
    EACH(i, n) {
        float start = bias ? bias[i] : to[i], sum = 0;
        int32_t exact = 0;
        EACH(k, depth) {
            int64_t at = where(k, i, depth, num == F32 ? 4 : num == S8 ? 1 : 2);
            if (num == S8) exact += whole[k] * ((const int8_t *)w)[at];
            else sum = fmaf(x[k], num == F32 ? ((const float *)w)[at] : bf16(w, at), sum);
        }
        to[i] = num == S8 ? fmaf((float)exact * row, scale[i], start) : sum + start;
    }
}

/* logits[labels] of a sentence of n tokens */
void bits(const struct net *m, const int32_t *ids, const int32_t *types, int n, float *logits) {
    struct size s = sizes(m);
    float (*h)[s.h] = calloc(n, sizeof *h), (*qkv)[s.qkv] = calloc(n, sizeof *qkv), (*ctx)[s.ctx] = calloc(n, sizeof *ctx);
    float *up = calloc(s.inter, 4), *sum = calloc(s.h, 4), p[UP(n, 32)], by = 1.4426950408889634f / sqrtf(s.hd);
    int end = 4 + m->layers * TENSORS;
    EACH(t, n) {
        EACH(k, s.h) {
            int64_t at = (int64_t)ids[t] * s.h + k;
            h[t][k] = m->wide == F32 ? ((const float *)tensor(m, 0))[at] : bf16(tensor(m, 0), at);
            h[t][k] = h[t][k] + ((const float *)tensor(m, 1))[t * s.h + k];
            if (types) h[t][k] = h[t][k] + ((const float *)tensor(m, end + 4))[types[t] * s.h + k];
        }
        norm(m, h[t], tensor(m, 2), tensor(m, 3));
    }
    EACH(l, m->layers) {
        enum number num = m->precision[l];
#define T(i) weight(m, l, i)
        EACH(t, n) dense(h[t], s.h, s.qkv, T(Q_K_V), T(Q_K_V_BIAS), T(Q_K_V_SCALE), num, num == S8 ? T(Q_K_V_SMOOTH) : 0,
                         0, qkv[t]);
        EACH(t, n) EACH(head, m->heads) {
            const float *q = qkv[t] + head * s.hd;
            float top, lane[16] = {0};
            EACH(j, n) {
                p[j] = 0;
                EACH(d, s.hd) p[j] = fmaf(q[d], qkv[j][m->hidden + head * s.hd + d], p[j]);
                top = j ? fmaxf(top, p[j]) : p[j];
            }
            EACH(j, UP(n, 32)) p[j] = j < n ? power_of_2(fmaf(p[j], by, -top * by)) : 0;
            for (int j = 0; j < n; j += 32) EACH(i, 16) lane[i] = lane[i] + (p[j + i] + p[j + 16 + i]);
            float whole = 1 / fold(lane);
            EACH(d, s.hd) {
                float x = 0;
                EACH(j, n) x = fmaf(p[j], qkv[j][2 * m->hidden + head * s.hd + d], x);
                ctx[t][head * s.hdp + d] = x * whole;
            }
        }
        EACH(t, n) {
            memset(sum, 0, s.h * 4);
            dense(ctx[t], s.ctx, s.h, T(OUT), 0, T(OUT_SCALE), num, 0, 0, sum);
            EACH(k, s.h) h[t][k] = sum[k] + ((const float *)T(OUT_BIAS))[k] + h[t][k];
            norm(m, h[t], T(LN1_G), T(LN1_B));
            dense(h[t], s.h, s.inter, T(UP_W), T(UP_BIAS), T(UP_SCALE), num, num == S8 ? T(UP_SMOOTH) : 0, 0, up);
            EACH(k, s.inter) up[k] = gelu(up[k], m->gelu, num != S8);
            memset(sum, 0, s.h * 4);
            for (int at = 0; at < s.inter; at += s.slice)
                dense(up + at, MIN(s.slice, s.inter - at), s.h,
                      (const uint8_t *)T(DOWN) + (int64_t)at * s.h * (num == F32 ? 4 : num == S8 ? 1 : 2), 0, T(DOWN_SCALE),
                      num, 0, 1, sum);
            EACH(k, s.h) h[t][k] = sum[k] + ((const float *)T(DOWN_BIAS))[k] + h[t][k];
            norm(m, h[t], T(LN2_G), T(LN2_B));
        }
    }
    const float *last = tensor(m, end + 2), *bias = tensor(m, end + 3);
    dense(h[0], s.h, s.h, tensor(m, end), tensor(m, end + 1), 0, m->wide, 0, 0, sum);
    EACH(k, s.h) {
        float e = power_of_2(fminf(fmaxf(sum[k], -20), 20) * 2.8853900817779268f);
        if (m->head <= TANH_RELU) sum[k] = 1 - 2 / (e + 1);
        sum[k] = m->head == GELU_HEAD ? gelu(sum[k], 0, 1) : m->head == TANH ? sum[k] : fmaxf(sum[k], 0);
    }
    EACH(i, m->labels) {
        float lane[16] = {0};
        EACH(k, s.h) lane[k % 16] = fmaf(sum[k], last[i * s.h + k], lane[k % 16]);
        logits[i] = fold(lane) + bias[i];
    }
    free(h), free(qkv), free(ctx), free(up), free(sum);
}
