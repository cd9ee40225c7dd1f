// SPDX-License-Identifier: Apache-2.0
// The exported functions: thin, so that what they do is found where it belongs.
#include "abi.h"

#include <cstring>
#include <vector>

#include "isa.h"
#include "memory.h"
#include "program.h"

using namespace tramontane;

struct tm_pool : Pool {
    using Pool::Pool;
};

struct tm_program : Program {
    using Program::Program;
};

int32_t tm_abi(void) { return TM_ABI; }

int64_t tm_sizeof(const char* structure) {
#define TM_SIZE(name) \
    if (std::strcmp(structure, #name) == 0) return sizeof(name)
    TM_SIZE(tm_value);
    TM_SIZE(tm_node);
    TM_SIZE(tm_group);
    TM_SIZE(tm_step);
    TM_SIZE(tm_matrix);
    TM_SIZE(tm_codes);
    TM_SIZE(tm_plane);
    TM_SIZE(tm_cache);
    TM_SIZE(tm_embed);
    TM_SIZE(tm_linear);
    TM_SIZE(tm_norm);
    TM_SIZE(tm_rope_angles);
    TM_SIZE(tm_rotate);
    TM_SIZE(tm_rotate_write);
    TM_SIZE(tm_cache_write);
    TM_SIZE(tm_attend);
    TM_SIZE(tm_pointwise);
    TM_SIZE(tm_router);
    TM_SIZE(tm_experts);
    TM_SIZE(tm_latent_write);
    TM_SIZE(tm_attend_latent);
    TM_SIZE(tm_state);
    TM_SIZE(tm_causal_conv);
    TM_SIZE(tm_gated_delta);
    TM_SIZE(tm_quantize);
    TM_SIZE(tm_draw);
#undef TM_SIZE
    return 0;
}

const char* tm_isa(void) { return current_isa(); }

int32_t tm_choose_isa(const char* wanted) { return choose_isa(wanted); }

int32_t tm_can_run(const char* isa) { return can_run(isa); }

tm_pool* tm_pool_new(int32_t threads) { return new tm_pool(threads); }

void tm_pool_free(tm_pool* pool) { delete pool; }

tm_program* tm_program_new(const tm_node* nodes, int64_t count) { return new tm_program(nodes, count); }

void tm_program_free(tm_program* program) { delete program; }

int32_t tm_program_run(tm_program* program, tm_pool* pool, const tm_step* step) { return program->run(*pool, *step); }

int32_t tm_node_run(const tm_node* node, tm_pool* pool, const tm_step* step) { return Program(node, 1).run(*pool, *step); }

int64_t tm_matrix_bytes(const tm_matrix* matrix) { return kernel_table().packing[matrix->layout].bytes(*matrix); }

void tm_matrix_pack(tm_pool* pool, const tm_matrix* matrix, const void* rows, int64_t stride, int32_t dtype) {
    const Packing& packing = kernel_table().packing[matrix->layout];
    run_on(*pool, false, 0, 0, [&](Worker& worker) { packing.pack(worker, *matrix, rows, stride, dtype); });
}

void tm_matrix_unpack(tm_pool* pool, const tm_matrix* matrix, void* rows, int64_t stride) {
    const Packing& packing = kernel_table().packing[matrix->layout];
    run_on(*pool, false, 0, 0, [&](Worker& worker) { packing.unpack(worker, *matrix, rows, stride); });
}

int32_t tm_matrix_rows(
    tm_pool* pool, const tm_matrix* matrix, const int64_t* ids, int64_t count, void* rows, int64_t stride, int32_t dtype) {
    const Packing& packing = kernel_table().packing[matrix->layout];
    const Tensor out{static_cast<char*>(rows), count, matrix->inputs, stride, dtype};
    return run_on(*pool, count < 8, 0, 0, [&](Worker& worker) { packing.rows(worker, *matrix, ids, count, out); });
}

int32_t tm_quantize_rows(tm_pool* pool, const tm_quantize* asked) {
    const Quantizing& quantizing = kernel_table().quantizing;
    return run_on(*pool, false, quantizing.need(*asked), 0, [&](Worker& worker) { quantizing.run(worker, *asked); });
}

int32_t tm_draw_rows(tm_pool* pool, const tm_draw* draw) {
    const Drawing& drawing = kernel_table().drawing;
    const Need need = drawing.need(*draw);
    // A pass over logits takes a quarter of a nanosecond an element, one with exponentials a whole one.
    const bool alone = draw->rows * draw->vocab < (draw->path == TM_DRAW_GREEDY ? 800'000 : 200'000);
    return run_on(*pool, alone, need.shared, need.own, [&](Worker& worker) { drawing.run(worker, *draw); });
}

void tm_huge_pages(void* start, int64_t bytes) { advise_huge_pages(start, bytes); }

double tm_read(tm_pool* pool, const void* data, int64_t bytes) {
    std::vector<double> sums(static_cast<size_t>(bytes >> 20) + 1);
    run_on(*pool, false, 0, 0, [&](Worker& worker) { kernel_table().read(worker, data, bytes, sums.data()); });
    double total = 0;
    for (double sum : sums) total += sum;
    return total;
}
