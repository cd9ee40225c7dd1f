// SPDX-License-Identifier: Apache-2.0
// The plain C interface of the library: every structure that crosses it and every function it exports.
//
// tramontane_backend_cpu/abi.py mirrors the structures; a test compares sizes. Raise TM_ABI with every change to either.
// All pointers that a node holds must stay valid for as long as the node is used; the library copies nothing.
#pragma once
#include <stdint.h>

#define TM_ABI 5
#define TM_MAX_VALUES 6

#ifdef __cplusplus
extern "C" {
#endif

// The last two are for caches alone: floats of eight bits (e4m3), and whole numbers, in which an entry's float32 scale
// follows its numbers.
enum tm_dtype { TM_F32 = 0, TM_BF16 = 1, TM_F16 = 2, TM_I64 = 3, TM_I32 = 4, TM_F8 = 5, TM_I8 = 6 };

// Where a value lies. The last three are fields of the step.
enum tm_place { TM_POINTER = 0, TM_ARENA = 1, TM_IDS = 2, TM_POSITIONS = 3, TM_OUT_ROWS = 4 };

enum tm_kernel {
    TM_EMBED = 0, TM_LINEAR = 1, TM_TAKE_ROWS = 2, TM_RMS_NORM = 3, TM_ADD_RMS_NORM = 4, TM_LAYER_NORM = 5,
    TM_ROPE_ANGLES = 6, TM_ROTATE = 7, TM_ROTATE_WRITE = 8, TM_CACHE_WRITE = 9, TM_ATTEND = 10, TM_ACTIVATE = 11,
    TM_GATED_ACTIVATE = 12, TM_ADD = 13, TM_MULTIPLY = 14, TM_SCALE = 15, TM_SOFTCAP = 16,
    TM_ROUTER = 17, TM_EXPERTS = 18, TM_LATENT_WRITE = 19, TM_ATTEND_LATENT = 20, TM_CAUSAL_CONV = 21,
    TM_GATED_DELTA = 22, TM_KERNELS = 23
};

enum tm_activation {
    TM_NONE = 0, TM_SILU = 1, TM_GELU = 2, TM_GELU_TANH = 3, TM_RELU = 4, TM_RELU2 = 5, TM_SIGMOID = 6,
    TM_CLAMPED_SWIGLU = 7 // a gate alone: it looks at both of its halves
};

enum tm_scoring { TM_SCORE_SOFTMAX = 0, TM_SCORE_SIGMOID = 1, TM_SCORE_SPARSEMIXER = 2 };

// A layout is how a matrix lies in memory: see kernels/layouts/layout.h.
enum tm_layout { TM_ROW_MAJOR = 0, TM_PANELS = 1, TM_BLOCKS = 2, TM_CODES = 3, TM_LAYOUTS = 4 };

// How the rows given to TM_BLOCKS are coded: blocks of ggml, scales within; or packed codes with scales, and perhaps zero
// points or offsets, beside them.
enum tm_coding {
    TM_Q8_0 = 0, TM_Q4_0 = 1, TM_Q4_1 = 2, TM_Q5_0 = 3, TM_Q5_1 = 4, TM_Q4_K = 5, TM_Q5_K = 6, TM_Q6_K = 7,
    TM_AFFINE4 = 8, TM_AFFINE8 = 9, TM_AFFINE4_ZERO = 10, TM_AFFINE8_ZERO = 11, TM_AFFINE4_OFFSET = 12,
    TM_AFFINE8_OFFSET = 13, TM_TABLE4 = 14, TM_E4M3 = 15, TM_E5M2 = 16, TM_Q2_K = 17, TM_Q3_K = 18, TM_IQ4_NL = 19,
    TM_IQ4_XS = 20, TM_TQ1_0 = 21, TM_TQ2_0 = 22, TM_MXFP4 = 23, TM_NVFP4 = 24, TM_IQ1_S = 25, TM_IQ1_M = 26,
    TM_IQ2_XXS = 27, TM_IQ2_XS = 28, TM_IQ2_S = 29, TM_IQ3_XXS = 30, TM_IQ3_S = 31
};

// What the rows of TM_CODES hold: codes of some bits packed into bytes, lowest first, or floats of eight bits.
enum tm_code { TM_CODE_BITS = 0, TM_CODE_E4M3 = 1, TM_CODE_E5M2 = 2 };

// How rows are quantized. Up to TM_PACK_IQ4_XS: to blocks of ggml. After that: to codes of some bits with scales beside
// them, by the range of each group, by a half-quadratic fit of zero points, to the nearest of a table's values, to e2m1.
enum tm_packing {
    TM_PACK_Q4_0 = 0, TM_PACK_Q4_1 = 1, TM_PACK_Q5_0 = 2, TM_PACK_Q5_1 = 3, TM_PACK_Q8_0 = 4, TM_PACK_Q2_K = 5,
    TM_PACK_Q3_K = 6, TM_PACK_Q4_K = 7, TM_PACK_Q5_K = 8, TM_PACK_Q6_K = 9, TM_PACK_IQ4_NL = 10, TM_PACK_IQ4_XS = 11,
    TM_PACK_RANGE = 12, TM_PACK_HQQ = 13, TM_PACK_TABLE = 14, TM_PACK_MXFP4 = 15
};

// How a row's token is drawn: tramontane.sampler.state.Path.
enum tm_draw_path { TM_DRAW_GREEDY = 1, TM_DRAW_FULL = 2, TM_DRAW_TOP_K = 3, TM_DRAW_TOP_P = 4 };

enum tm_status { TM_OK = 0, TM_BAD_INDEX = 1, TM_NO_MEMORY = 2 };

// Rows of equal width, `stride` bytes apart. The number of rows is known when the step is:
// per_token * T + per_output * L + constant. Fields of the step take pointer, rows and stride from it.
typedef struct tm_value {
    void* pointer;  // TM_POINTER: the first element
    int64_t offset; // bytes from the start of the arena
    int64_t stride; // bytes
    int64_t width;  // elements
    int64_t per_token, per_output, constant;
    int32_t dtype, place;
} tm_value;

// One kernel applied to values, inputs first. `params` is the kernel's own structure below.
typedef struct tm_node {
    const void* params;
    int32_t kernel;
    int32_t count;
    tm_value values[TM_MAX_VALUES];
} tm_node;

typedef struct tm_group {
    const int32_t* table; // [rows, table_stride]: block ids
    int64_t table_stride; // elements
    const int64_t* slots; // [tokens]
} tm_group;

// One step's batch: tramontane.batch.Ctx, by address.
typedef struct tm_step {
    int64_t tokens, rows, outputs;
    int64_t streams;         // position streams
    int64_t position_stride; // bytes between streams
    const int64_t* ids;
    const int64_t* positions;
    const int64_t* out_rows;
    const int32_t* q_start;
    const int32_t* kv_len;
    const tm_group* groups;
    void* arena;
    const int64_t* state_slot;  // [rows], or NULL where the model keeps no states
    const uint8_t* state_fresh; // [rows]: the row starts here, its state is zero
} tm_step;

// A matrix [outputs, inputs] in some layout. What `extra` and `sizes` hold is the layout's business.
typedef struct tm_matrix {
    const void* data;
    const void* extra[3];
    int64_t outputs, inputs;
    int64_t sizes[4];
    int32_t layout, dtype;
} tm_matrix;

// A quantized matrix as its scheme stores it; matrix.extra[0] of TM_CODES. A code looks up `table`, where there is one, to
// give a number n. Then w = scale * (n - zero), or with `shifted` scale * n + zero.
typedef struct tm_codes {
    const uint8_t* rows;
    const float* scales;     // [scale_rows, groups]
    const float* zeros;      // the same, or NULL: `middle`
    const float* table;      // [2^bits] or NULL
    const int32_t* group_of; // [inputs] or NULL: input i is of group i / group
    int64_t row_bytes, groups, group;
    int64_t rows_each, scale_rows; // row r has the scales of row r / rows_each % scale_rows
    float middle;
    int32_t code, bits, shifted;
} tm_codes;

// Keys or values: where the entry of (block, token in block, head) starts. Strides in bytes.
typedef struct tm_plane {
    void* data;
    int64_t block_stride, token_stride, head_stride;
} tm_plane;

typedef struct tm_cache {
    tm_plane keys, values;
    int64_t block_tokens;
    int32_t dtype, group;
} tm_cache;

typedef struct tm_embed { // ids -> rows; scale 1 is none
    tm_matrix matrix;
    float scale;
} tm_embed;

typedef struct tm_linear { // x -> y; parts lie side by side in y. With a gate the halves are combined: act(a) * b
    const tm_matrix* parts;
    const void* bias; // [outputs] or NULL
    int32_t count, bias_dtype, gate;
} tm_linear;

typedef struct tm_norm { // over `width` elements at a time, so that rows may hold several heads
    const void* weight;  // or NULL
    const void* bias;    // layer norm: or NULL
    int64_t width;
    float eps;
    int32_t weight_dtype, late_cast;
    int32_t apart; // layer norm: each vector of a row has weights of its own
} tm_norm;

typedef struct tm_rope_angles {
    const float* table; // [positions, 2 * pairs]
    int64_t pairs;
    const int64_t* sections; // pairs taken from each position stream, or NULL
    int64_t streams;
} tm_rope_angles;

typedef struct tm_rotate {
    int64_t heads, kv_heads, head_dim;
    int64_t q_apart, k_apart; // elements from head to head of what is read
    int32_t interleaved;
} tm_rotate;

typedef struct tm_rotate_write { // norms may have no weight pointer: then there is no norm
    tm_rotate rotate;
    tm_norm q_norm, k_norm;
    tm_cache cache;
    int64_t value_dim;
} tm_rotate_write;

typedef struct tm_cache_write {
    tm_cache cache;
    int64_t kv_heads, key_dim, value_dim;
} tm_cache_write;

typedef struct tm_attend {
    tm_cache cache;
    const float* sinks; // [heads] or NULL
    int64_t heads, kv_heads, head_dim, value_dim;
    int64_t window; // 0: all
    float scale;
    float softcap; // 0: none
} tm_attend;

typedef struct tm_pointwise {
    int32_t activation;
    float value; // factor, or cap
} tm_pointwise;

typedef struct tm_router { // x -> weights, ids
    tm_matrix matrix;        // in panels; multiplied with float32 activations whatever their type
    const float* bias;       // [experts] or NULL
    const float* correction; // [experts] or NULL: added to the scores for the choice alone
    int64_t top_k, groups, top_groups;
    int64_t group_best; // a group is as good as this many of its experts together
    float scale, jitter;
    int32_t scoring, normalize;
} tm_router;

typedef struct tm_experts { // x, weights, ids -> y
    const tm_matrix* gate_up; // [experts][gate_up_parts], each expert's parts side by side: one, or gate and up
    const tm_matrix* down;    // [experts]
    const void* gate_up_bias; // [experts, outputs] or NULL
    const void* down_bias;    // [experts, outputs] or NULL
    int64_t experts;
    int32_t gate_up_parts, bias_dtype, gate;
    float alpha, limit; // of TM_CLAMPED_SWIGLU
} tm_experts;

typedef struct tm_latent_write { // latent, rotated key -> nothing; side by side in the one plane, `keys`
    tm_cache cache;
} tm_latent_write;

typedef struct tm_attend_latent { // q, its rotated part -> y; reads the cache
    tm_attend attend;        // over the plane: one key head, whose first value_dim features are the latent
    const tm_matrix* keys;   // [heads]: from a head's features to the latent's
    const tm_matrix* values; // [heads]: from the latent's to the head's value
    int64_t q_apart, turned_apart; // elements from head to head
} tm_attend_latent;

typedef struct tm_state { // a tensor of each sequence: [slots, ...]
    void* data;
    int64_t slot_stride; // bytes
    int32_t dtype;
} tm_state;

typedef struct tm_causal_conv { // x -> y
    tm_state state;      // [channels, width - 1], the newest last
    const float* weight; // [width, channels]
    int64_t width;
    int32_t activation;
} tm_causal_conv;

typedef struct tm_gated_delta { // q, k, v, write, keep -> y
    tm_state state;     // float32 [value_heads, key_dim, value_dim]
    const float* rate;  // [value_heads]: the decay is exp(rate * softplus(keep + shift))
    const float* shift; // [value_heads]
    int64_t key_heads, value_heads, key_dim, value_dim;
} tm_gated_delta;

// A matrix to be quantized, whose rows are whole blocks (or groups). What is kept beside codes goes to [outputs, groups].
typedef struct tm_quantize {
    const void* rows; // [outputs, inputs] of `dtype`, `stride` bytes apart
    const float* importance; // [inputs], or rows of them `importance_stride` elements apart; or NULL
    void* to;         // bytes of rows `to_stride` apart
    void* scale;
    void* zero;         // zero points or offsets, or NULL
    const float* table; // TM_PACK_TABLE: 15 numbers half-way between values, the 16 codes in the order of the values
    int64_t stride, importance_stride, to_stride;
    int64_t outputs, inputs, group;
    int32_t rule, dtype, bits;
    int32_t scale_dtype; // of scales, zero points and offsets; TM_I8: biased exponents in bytes
} tm_quantize;

// Rows of logits and what each asks for, and the tokens drawn. Greedy rows ask for nothing.
typedef struct tm_draw {
    const float* logits; // [rows, vocab]
    int64_t stride;      // elements between rows
    int64_t rows, vocab;
    const float* temperature;              // [rows]
    const int64_t* top_k;                  // [rows]
    const double *top_p, *min_p, *uniform; // [rows]
    int64_t* tokens;                       // [rows]
    float* peaks;                          // [rows]: the largest logit; NaN if there is one in the row
    int64_t path;
} tm_draw;

typedef struct tm_pool tm_pool;
typedef struct tm_program tm_program;

#define TM_API __attribute__((visibility("default")))

TM_API int32_t tm_abi(void);
TM_API int64_t tm_sizeof(const char* structure); // 0 if unknown
TM_API const char* tm_isa(void); // in use
// Uses this instruction set from now on, NULL or "" for the best. 0 if it is unknown or cannot run here.
TM_API int32_t tm_choose_isa(const char* wanted);
TM_API int32_t tm_can_run(const char* isa);

TM_API tm_pool* tm_pool_new(int32_t threads);
TM_API void tm_pool_free(tm_pool* pool);

// Copies the nodes, not what they point to.
TM_API tm_program* tm_program_new(const tm_node* nodes, int64_t count);
TM_API void tm_program_free(tm_program* program);
TM_API int32_t tm_program_run(tm_program* program, tm_pool* pool, const tm_step* step);
TM_API int32_t tm_node_run(const tm_node* node, tm_pool* pool, const tm_step* step);

// Bytes that a layout takes for a matrix; fill `outputs`, `inputs`, `layout`, `dtype` first.
TM_API int64_t tm_matrix_bytes(const tm_matrix* matrix);
// Rows [outputs, inputs] of `dtype`, `stride` bytes apart, to the matrix's memory, and back.
TM_API void tm_matrix_pack(tm_pool* pool, const tm_matrix* matrix, const void* rows, int64_t stride, int32_t dtype);
// The rows as they were packed, into zeros: for layouts whose elements are codes.
TM_API void tm_matrix_unpack(tm_pool* pool, const tm_matrix* matrix, void* rows, int64_t stride);
TM_API int32_t tm_matrix_rows(
    tm_pool* pool, const tm_matrix* matrix, const int64_t* ids, int64_t count, void* rows, int64_t stride, int32_t dtype);

// Packs what is asked for; TM_NO_MEMORY if there is none.
TM_API int32_t tm_quantize_rows(tm_pool* pool, const tm_quantize* asked);
TM_API int32_t tm_draw_rows(tm_pool* pool, const tm_draw* draw);

TM_API void tm_huge_pages(void* start, int64_t bytes); // asks for them where the range holds whole ones
TM_API double tm_read(tm_pool* pool, const void* data, int64_t bytes); // reads it all: the bandwidth to divide by

#ifdef __cplusplus
}
#endif
