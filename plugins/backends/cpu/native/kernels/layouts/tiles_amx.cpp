// SPDX-License-Identifier: Apache-2.0
#include "kernels/layouts/tiles_amx.h"

#if defined(__AVX512BF16__)

#define TILES __attribute__((target("amx-tile,amx-bf16")))

namespace tramontane::TM_ISA {

namespace {

// Tiles: sums 0 to 3 (upper rows 0 and 1, lower rows 2 and 3), activations 4 and 5, weights 6 and 7.
constexpr int64_t ROWS = 16;        // of a tile
constexpr int64_t TILE_INPUTS = 32; // bfloat16 values of a tile row
constexpr int64_t TILE_BYTES = 1024;

// The tile intrinsics of GCC do not tell the compiler what memory they read and write.
inline void settle_memory() { __asm__ volatile("" ::: "memory"); }

struct alignas(64) Shape {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};

// Rows of the upper and lower tiles that this thread's tile unit is set to.
thread_local int64_t upper_rows = 0, lower_rows = 0;

TILES void shape_tiles(int64_t upper, int64_t lower) {
    if (upper == upper_rows && lower == lower_rows) return;
    Shape shape;
    const int64_t rows[8] = {upper, upper, lower, lower, upper, lower, ROWS, ROWS};
    for (int i = 0; i < 8; ++i) {
        shape.rows[i] = static_cast<uint8_t>(rows[i]);
        shape.row_bytes[i] = rows[i] > 0 ? 64 : 0;
    }
    const Shape* told = &shape;
    __asm__ volatile("" : : "r"(told) : "memory");
    _tile_loadconfig(told);
    upper_rows = upper;
    lower_rows = lower;
}

struct Block {
    const char* x; // activations of the upper rows
    int64_t x_stride;
    const char* w; // the first panel
    int64_t panel_bytes, depth;
    float* out;
    int64_t width;
};

// Up to 32 rows by two panels.
TILES void multiply_four(const Block& b) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const char* lower = b.x + ROWS * b.x_stride;
    for (int64_t k = 0; k < b.depth; k += TILE_INPUTS) {
        const char* w = b.w + k / TILE_INPUTS * TILE_BYTES;
        _tile_loadd(6, w, 64);
        _tile_loadd(4, b.x + k * 2, b.x_stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, lower + k * 2, b.x_stride);
        _tile_dpbf16ps(2, 5, 6);
        _tile_loadd(7, w + b.panel_bytes, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
    }
    float* below = b.out + ROWS * b.width;
    _tile_stored(0, b.out, b.width * 4);
    _tile_stored(1, b.out + PANEL, b.width * 4);
    _tile_stored(2, below, b.width * 4);
    _tile_stored(3, below + PANEL, b.width * 4);
}

// Up to 16 rows by two panels.
TILES void multiply_two(const Block& b) {
    _tile_zero(0);
    _tile_zero(1);
    for (int64_t k = 0; k < b.depth; k += TILE_INPUTS) {
        const char* w = b.w + k / TILE_INPUTS * TILE_BYTES;
        __builtin_prefetch(w + 4096);
        __builtin_prefetch(w + b.panel_bytes + 4096);
        _tile_loadd(4, b.x + k * 2, b.x_stride);
        _tile_loadd(6, w, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, w + b.panel_bytes, 64);
        _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, b.out, b.width * 4);
    _tile_stored(1, b.out + PANEL, b.width * 4);
}

// Up to 16 rows by the last panel of an odd number.
TILES void multiply_one(const Block& b) {
    _tile_zero(0);
    for (int64_t k = 0; k < b.depth; k += TILE_INPUTS) {
        _tile_loadd(4, b.x + k * 2, b.x_stride);
        _tile_loadd(6, b.w + k / TILE_INPUTS * TILE_BYTES, 64);
        _tile_dpbf16ps(0, 4, 6);
    }
    _tile_stored(0, b.out, b.width * 4);
}

} // namespace

void multiply_amx(const Panels& panels, const Activations& x, int64_t first, int64_t rows, float* out, int64_t width) {
    settle_memory();
    for (int64_t panel = 0; panel < panels.count; panel += 2) {
        const bool pair = panel + 1 < panels.count;
        for (int64_t r = 0; r < rows;) {
            const int64_t left = rows - r, taken = minimum(left, pair ? 2 * ROWS : ROWS);
            const Block block = {x.data + (first + r) * x.stride, x.stride, panels.data + panel * panels.bytes,
                                 panels.bytes, panels.depth, out + r * width + panel * PANEL, width};
            if (taken > ROWS) {
                shape_tiles(ROWS, taken - ROWS);
                multiply_four(block);
            } else {
                shape_tiles(taken, 0);
                pair ? multiply_two(block) : multiply_one(block);
            }
            r += taken;
        }
    }
    settle_memory();
}

TILES void release_amx() {
    if (upper_rows == 0) return;
    _tile_release();
    upper_rows = lower_rows = 0;
}

} // namespace tramontane::TM_ISA

#endif
