/* One token of each of several sequences through all blocks of a GPT-2, as GenerationBlock does it.

   What takes the time is the weights' way from memory. The threads meet five times a block, and between two
   meetings call nothing. A row's sums are taken in the same order whatever the threads and its neighbours.
   C: emb_dim, a multiple of BLOCK; D: head_dim, a multiple of WIDTH; H: heads; numbers are float unless said. */

#include <math.h>
#include <omp.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "narrow weights are taken apart as little-endian words"
#endif

#define INLINE inline __attribute__((always_inline))
enum { WIDTH = 8, BLOCK = 32, TOGETHER = 4 }; /* numbers in a vector; of a row at a time; rows at a time */
enum { SPINS = 2000 };
enum { FLOAT32, BFLOAT16, INT8 };
static const size_t SIZES[] = {4, 2, 1};
enum { WRITE, ADD, GELU };

typedef float floats __attribute__((vector_size(4 * WIDTH), aligned(1), may_alias));
typedef int32_t words __attribute__((vector_size(4 * WIDTH), aligned(1), may_alias));
typedef uint16_t halves __attribute__((vector_size(2 * WIDTH), aligned(1), may_alias));

typedef struct { /* a linear layer */
    const void *weight; /* (out, in), row by row */
    const float *scale; /* (out) of int8, by which its row is multiplied */
    const float *bias; /* (out) or NULL */
    int32_t dtype, n_in, n_out;
} Product;

typedef struct { /* a layer norm */
    const float *weight, *bias;
    float eps;
} Norm;

typedef struct {
    Norm norm1, norm2;
    Product qkv, out_proj, expand, contract;
} Block;

typedef struct {
    const Block *blocks;
    int32_t n_layers, n_heads, emb_dim;
} Model;

typedef struct {
    int first, last;
} Part;

static Part mine(int n)
{
    int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
    return (Part){(int)(n * thread / threads), (int)(n * (thread + 1) / threads)};
}

static INLINE floats load(const float *numbers) { return *(const floats *)numbers; }

static INLINE float sum(floats p)
{
    return ((p[0] + p[1]) + (p[2] + p[3])) + ((p[4] + p[5]) + (p[6] + p[7]));
}

/* BLOCK weights of a row as numbers, whatever they are stored as. */
static INLINE void widen(int dtype, const void *weights, floats w[4])
{
    for (int k = 0; k < 4; k++)
        switch (dtype) {
        case INT8: /* byte k of word j is weight 8k + j: it takes no instruction to bring them in order */
            w[k] = __builtin_convertvector((words)(*(const words *)weights << (24 - 8 * k)) >> 24, floats);
            break;
        case BFLOAT16: /* the upper half of a float */
            w[k] = (floats)(__builtin_convertvector(((const halves *)weights)[k], words) << 16);
            break;
        default:
            w[k] = load((const float *)weights + WIDTH * k);
        }
}

/* A row of weights times each of `rows` rows of activations, (rows, n). */
static INLINE void dots(int dtype, const char *weights, const float *x, int n, int rows, float *sums)
{
    floats parts[TOGETHER][2] = {0}, w[4];
    for (int i = 0; i < n; i += BLOCK) {
        widen(dtype, weights + (size_t)i * SIZES[dtype], w);
        for (int row = 0; row < rows; row++)
            for (int k = 0; k < 4; k++)
                parts[row][k % 2] += w[k] * load(x + (size_t)row * n + i + WIDTH * k);
    }
    for (int row = 0; row < rows; row++)
        sums[row] = sum(parts[row][0] + parts[row][1]);
}

static float gelu(float x) /* the tanh form, whose tanh is a logistic function */
{
    return x / (1 + expf(-1.5957691216057308f * (x + 0.044715f * x * x * x))); /* 2 sqrt(2 / pi) */
}

/* This thread's outputs of all rows: (rows, in) -> (rows, out). Each weight comes from memory once. */
static INLINE void multiply_as(int dtype, const Product *product, const float *x, float *y, int rows, int how)
{
    Part outs = mine(product->n_out);
    int n = product->n_in;
    for (int out = outs.first; out < outs.last; out++) {
        const char *weights = (const char *)product->weight + (size_t)out * n * SIZES[dtype];
        float scale = product->scale ? product->scale[out] : 1, bias = product->bias ? product->bias[out] : 0;
        for (int first = 0, some; first < rows; first += some) {
            float sums[TOGETHER];
            const float *from = x + (size_t)first * n;
            some = first + TOGETHER <= rows ? TOGETHER : 1;
            if (some == TOGETHER)
                dots(dtype, weights, from, n, TOGETHER, sums);
            else
                dots(dtype, weights, from, n, 1, sums);
            for (int row = 0; row < some; row++) {
                float value = sums[row] * scale + bias;
                float *to = y + (size_t)(first + row) * product->n_out + out;
                *to = how == ADD ? *to + value : how == GELU ? gelu(value) : value;
            }
        }
    }
}

static void multiply(const Product *product, const float *x, float *y, int rows, int how)
{
    switch (product->dtype) { /* known to the compiler in each */
    case INT8:
        multiply_as(INT8, product, x, y, rows, how);
        return;
    case BFLOAT16:
        multiply_as(BFLOAT16, product, x, y, rows, how);
        return;
    default:
        multiply_as(FLOAT32, product, x, y, rows, how);
    }
}

typedef struct {
    atomic_int arrived, round;
} Gathering;

/* Wait for all threads. A wait is shorter than to fall asleep takes, but where another program has the core. */
static void meet(Gathering *all)
{
    int round = atomic_load(&all->round);
    if (atomic_fetch_add(&all->arrived, 1) + 1 == omp_get_num_threads()) {
        atomic_store(&all->arrived, 0);
        atomic_store(&all->round, round + 1);
    }
    for (int spins = 0; atomic_load(&all->round) == round; spins++)
        if (spins > SPINS)
            sched_yield();
}

/* Each thread for itself: less work than to wait for the others. */
static void normalize(const Norm *norm, const float *x, float *y, int rows, int n)
{
    for (int row = 0; row < rows; row++, x += n, y += n) {
        floats all = {0}, squares = {0};
        for (int i = 0; i < n; i += WIDTH)
            all += load(x + i);
        float mean = sum(all) / n;
        for (int i = 0; i < n; i += WIDTH)
            squares += (load(x + i) - mean) * (load(x + i) - mean);
        float scale = 1 / sqrtf(sum(squares) / n + norm->eps);
        for (int i = 0; i < n; i++)
            y[i] = (x[i] - mean) * scale * norm->weight[i] + norm->bias[i];
    }
}

/* This thread's heads: the token's key and value join those of the cache, (rows, H, capacity, D), and its
   query sees all up to them. (rows, 3, H, D) -> (rows, H, D) */
static void attend(const Model *model, const float *qkv, float *context, float *keys, float *values,
                   float *scores, int rows, const int64_t *positions, int64_t capacity)
{
    int width = model->emb_dim, dim = width / model->n_heads;
    float scale = 1 / sqrtf((float)dim);
    Part heads = mine(rows * model->n_heads);
    for (int at = heads.first; at < heads.last; at++) {
        int row = at / model->n_heads, head = at % model->n_heads;
        const float *query = qkv + (size_t)row * 3 * width + head * dim;
        float *cached_keys = keys + at * capacity * dim, *cached_values = values + at * capacity * dim;
        int64_t now = positions[row];
        memcpy(cached_keys + now * dim, query + width, dim * sizeof(float));
        memcpy(cached_values + now * dim, query + 2 * width, dim * sizeof(float));
        float top = -INFINITY, total = 0;
        for (int64_t t = 0; t <= now; t++) {
            floats parts = {0};
            for (int d = 0; d < dim; d += WIDTH)
                parts += load(cached_keys + t * dim + d) * load(query + d);
            scores[t] = sum(parts) * scale;
            top = fmaxf(top, scores[t]);
        }
        for (int64_t t = 0; t <= now; t++)
            total += scores[t] = expf(scores[t] - top);
        float *out = context + (size_t)row * width + head * dim;
        memset(out, 0, dim * sizeof(float));
        for (int64_t t = 0; t <= now; t++) {
            float share = scores[t] / total;
            for (int d = 0; d < dim; d++)
                out[d] += share * cached_values[t * dim + d];
        }
    }
}

/* `room` holds rows * 8C floats for all threads, then rows * C + capacity for each of them. */
void step(const Model *model, float *x, int rows, const int64_t *positions, float *keys, float *values,
          int64_t capacity, float *room, int threads)
{
    size_t width = model->emb_dim;
    Gathering gathering = {0};
    float *qkv = room, *context = qkv + rows * 3 * width, *hidden = context + rows * width;
#pragma omp parallel num_threads(threads)
    {
        float *normed = room + 8 * rows * width + omp_get_thread_num() * (rows * width + capacity);
        float *scores = normed + rows * width;
        for (int layer = 0; layer < model->n_layers; layer++) {
            const Block *block = model->blocks + layer;
            size_t past = layer * rows * width * capacity;
            normalize(&block->norm1, x, normed, rows, width);
            multiply(&block->qkv, normed, qkv, rows, WRITE);
            meet(&gathering);
            attend(model, qkv, context, keys + past, values + past, scores, rows, positions, capacity);
            meet(&gathering);
            multiply(&block->out_proj, context, x, rows, ADD);
            meet(&gathering);
            normalize(&block->norm2, x, normed, rows, width);
            multiply(&block->expand, normed, hidden, rows, GELU);
            meet(&gathering);
            multiply(&block->contract, hidden, x, rows, ADD);
            meet(&gathering);
        }
    }
}

void product(const Product *product, const float *x, float *y, int rows, int threads)
{
#pragma omp parallel num_threads(threads)
    multiply(product, x, y, rows, WRITE);
}
