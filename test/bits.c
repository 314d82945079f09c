/* bits.c: docs/bits.md in plain C, one number at a time; it shares the file's layout alone with the engine:
 * gcc -O2 -std=gnu11 -ffp-contract=off -shared -fPIC -o bits.so test/bits.c -lm */
#include <math.h>
#include <stdlib.h>

#include "../tools/cpu/native/net.h"

#define EACH(i, n) for (int i = 0; i < (n); i++)
#define F(p) ((const float *)(p))
#define T(i) weight(m, l, i)

static const int bytes_of[] = {[BF16] = 2, [S8] = 1, [F32] = 4};

/* element i of floats, or of bf16 */
static float number(enum number num, const void *p, int64_t i) {
    union { uint32_t bits; float x; } u = {num == F32 ? 0 : (uint32_t)((const uint16_t *)p)[i] << 16};
    return num == F32 ? F(p)[i] : u.x;
}

/* element [k, n] of weights [depth, ...] in B tiles */
static int64_t where(int k, int n, int depth, int bytes) {
    int group = 4 / bytes, tile = 16 * group;
    int64_t line = (((int64_t)(n / 32) * (depth / tile) + k / tile) * 2 + n / 16 % 2) * 16 + k % tile / group;
    return line * 16 * group + n % 16 * group + k % group;
}

/* 16 lanes to one number: the upper half is added to the lower one */
static float fold(float *lane) {
    for (int half = 8; half; half /= 2) EACH(i, half) lane[i] = lane[i] + lane[i + half];
    return lane[0];
}

static float polynomial(float x, int n, const float *c) {
    float p = c[0];
    for (int i = 1; i < n; i++) p = fmaf(p, x, c[i]);
    return p;
}
#define POLYNOMIAL(x, n, ...) polynomial(x, n, (float[]){__VA_ARGS__})

static float power_of_2(float x) { /* 2^x; 0 below 2^-126.5 */
    float n = nearbyintf(x), p = POLYNOMIAL(x - n, 6, 0.0013276472454890609f, 0.009675541892647743f, 0.05550713092088699f,
                                            0.24022120237350464f, 0.6931469440460205f, 1.0000001192092896f);
    return n < -126 ? 0 : ldexpf(p, n);
}

static float gelu(float x, int tanh, int fine) {
    if (tanh) return x / (power_of_2(fminf(x * fmaf(x * x, -0.1029432397f, -2.302208198f), 126)) + 1);
    float most = fmaxf(x, 0) + 0.0f, z = fabsf(x);
    if (!fine)
        return fmaf(POLYNOMIAL(fminf(z, 3.9f), 7, 0.0007324224570766091f, -0.011149106547236443f, 0.06421492248773575f,
                               -0.15796837210655212f, 0.06807174533605576f, 0.37375563383102417f, -0.4962508976459503f),
                    fminf(z, 3.9f), most);
    float t = 1 / fmaf(z, 0.23164189f, 1);
    float p = POLYNOMIAL(t, 5, 0.530702714f, -0.7265760135f, 0.7107068705f, -0.142248368f, 0.127414796f) * t;
    return fmaf(-(z * p), power_of_2(fmaxf(x * x * -0.72134752f, -126)), most);
}

static void norm(float eps, int n, float *x, const float *gamma, const float *beta) {
    float sum[16] = {0}, squares[16] = {0}, share = 1.0f / n;
    for (int k = 0; k < UP(n, 64); k += 32) EACH(i, 16) {
        float p = x[k + i], q = x[k + 16 + i];
        sum[i] = sum[i] + (p + q), squares[i] = fmaf(p, p, fmaf(q, q, squares[i]));
    }
    float mean = fold(sum) * share, variance = fmaf(fold(squares), share, -(mean * mean));
    float inv = 1 / sqrtf(fmaxf(variance, 0) + eps);
    EACH(k, UP(n, 64)) x[k] = fmaf(fmaf(x[k], inv, -mean * inv), gamma[k], beta[k]);
}

/* to[n] = bias + x W, or to[n] += x W where bias is NULL; products are added in the order of k. int8: x becomes whole
 * numbers, after `smooth` by column (or NULL); GELU's result is moved up by 0.171875, and unsigned */
static void dense(const float *x, int depth, int n, const void *w, const float *bias, const float *scale, enum number num,
                  const float *smooth, int of_gelu, float *to) {
    float q[depth], top = of_gelu ? 0 : 1e-20f, steps = of_gelu ? 255 : 127, up = of_gelu ? 0.171875f : 0;
    EACH(k, depth) q[k] = num == S8 && smooth ? x[k] * smooth[k] : x[k], top = fmaxf(top, of_gelu ? q[k] : fabsf(q[k]));
    float range = top + up, by = steps / range, row = range / steps;
    EACH(k, num == S8 ? depth : 0)
        q[k] = fminf(nearbyintf(of_gelu ? fmaxf(fmaf(q[k], by, up * steps / range), 0) : q[k] * by), steps);
    EACH(i, n) {
        float start = bias ? bias[i] : to[i], sum = 0;
        int32_t exact = 0;
        EACH(k, depth) {
            int64_t at = where(k, i, depth, bytes_of[num]);
            if (num == S8) exact += (int32_t)q[k] * ((const int8_t *)w)[at];
            else sum = fmaf(q[k], number(num, w, at), sum);
        }
        to[i] = num == S8 ? fmaf((float)exact * row, scale[i], start) : sum + start;
    }
}

/* logits[labels] of a sentence of n tokens */
void bits(const struct net *m, const int32_t *ids, const int32_t *types, int n, float *logits) {
    struct size s = m->s;
    float (*h)[s.h] = calloc(n, sizeof *h), (*qkv)[s.qkv] = calloc(n, sizeof *qkv), (*ctx)[s.ctx] = calloc(n, sizeof *ctx);
    float *up = calloc(s.inter, 4), *sum = calloc(s.h, 4), p[UP(n, 32)], by = 1.4426950408889634f / sqrtf(s.hd);
    int end = 4 + m->layers * TENSORS;
    EACH(t, n) {
        EACH(k, s.e) {
            sum[k] = number(m->wide, tensor(m, 0), (int64_t)ids[t] * s.e + k) + F(tensor(m, 1))[t * s.e + k];
            if (types) sum[k] = sum[k] + F(tensor(m, end + 4))[types[t] * s.e + k];
        }
        norm(m->eps, m->width, sum, tensor(m, 2), tensor(m, 3));
        if (m->width == m->hidden) memcpy(h[t], sum, sizeof *h);
        else dense(sum, s.e, s.h, tensor(m, end + 5), tensor(m, end + 6), 0, m->wide, 0, 0, h[t]);
    }
    EACH(l, m->layers) {
        enum number num = m->precision[l];
        EACH(t, n)
            dense(h[t], s.h, s.qkv, T(Q_K_V), T(Q_K_V_BIAS), T(Q_K_V_SCALE), num, T(Q_K_V_SMOOTH), 0, qkv[t]);
        EACH(t, n) EACH(head, m->heads) {
            const float *q = qkv[t] + head * s.hd;
            float top = -INFINITY, lane[16] = {0};
            EACH(j, n) p[j] = 0;
            EACH(j, n) EACH(d, s.hd) p[j] = fmaf(q[d], qkv[j][m->hidden + head * s.hd + d], p[j]);
            EACH(j, n) top = fmaxf(top, p[j]);
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
            EACH(k, s.h) h[t][k] = sum[k] + F(T(OUT_BIAS))[k] + h[t][k], sum[k] = 0;
            norm(m->eps, m->hidden, h[t], T(LN1_G), T(LN1_B));
            dense(h[t], s.h, s.inter, T(UP_W), T(UP_BIAS), T(UP_SCALE), num, T(UP_SMOOTH), 0, up);
            EACH(k, s.inter) up[k] = gelu(up[k], m->gelu, num != S8);
            for (int at = 0, n; n = MIN(s.slice, s.inter - at), n > 0; at += n)
                dense(up + at, n, s.h, (char *)T(DOWN) + at * s.h * bytes_of[num], 0, T(DOWN_SCALE), num, 0, 1, sum);
            EACH(k, s.h) h[t][k] = sum[k] + F(T(DOWN_BIAS))[k] + h[t][k];
            norm(m->eps, m->hidden, h[t], T(LN2_G), T(LN2_B));
        }
    }
    dense(h[0], s.h, s.h, tensor(m, end), tensor(m, end + 1), 0, m->wide, 0, 0, sum);
    EACH(k, s.h) {
        if (m->head <= TANH_RELU) sum[k] = 1 - 2 / (power_of_2(fminf(fmaxf(sum[k], -20), 20) * 2.8853900817779268f) + 1);
        sum[k] = m->head == GELU_HEAD ? gelu(sum[k], 0, 1) : m->head == TANH ? sum[k] : fmaxf(sum[k], 0);
    }
    EACH(i, m->labels) {
        float lane[16] = {0};
        EACH(k, s.h) lane[k % 16] = fmaf(sum[k], F(tensor(m, end + 2))[i * s.h + k], lane[k % 16]);
        logits[i] = fold(lane) + F(tensor(m, end + 3))[i];
    }
    free(h), free(qkv), free(ctx), free(up), free(sum);
}
