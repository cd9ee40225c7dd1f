// SPDX-License-Identifier: Apache-2.0
// The canonical bytes of quantized rows, block by block, as tramontane.schemes defines them: codes in and out, and for
// blocks of ggml (https://github.com/ggml-org/ggml) the scales that lie among them.
//
// A source says BYTES per unit of SPAN inputs; `get` and `put` handle the codes of block b of a row (`count` of them in a
// ragged last one); `scales_in` and `scales_out` one unit's scales, `lane` of a chunk of a panel. What is put into starts
// as zeros. sources.h lists them.
#pragma once
#include "kernels/layouts/blocks.h"

namespace tramontane::TM_ISA {

typedef uint8_t Byte;

// A table of short rows, which the codes of some types name: levels [rows][features], and the row of any levels
// (grid_sources.h).
struct Grid {
    const Byte* levels;
    const int16_t* rows;
};

inline void copy(void* to, const void* from, int64_t bytes) { memcpy(to, from, static_cast<size_t>(bytes)); }

// Float16 factors at the start of a ggml block, one after the other: to and from vectors of 16 outputs.
template <int COUNT> struct Factors {
    static void scales_in(const Byte* unit, char* chunk, int64_t lane) {
        for (int i = 0; i < COUNT; ++i) copy(chunk + (i * PANEL + lane) * 2, unit + 2 * i, 2);
    }
    static void scales_out(Byte* unit, const char* chunk, int64_t lane) {
        for (int i = 0; i < COUNT; ++i) copy(unit + 2 * i, chunk + (i * PANEL + lane) * 2, 2);
    }
};

// FACTORS float16, perhaps 32 fifth bits, and 16 bytes: low halves are the first 16 codes.
template <int FACTORS, bool FIFTH> struct SmallSource : Factors<FACTORS> {
    static constexpr int64_t SPAN = 32, HIGH = 2 * FACTORS, LOW = HIGH + (FIFTH ? 4 : 0), BYTES = LOW + 16;
    static void get(const Byte* row, int64_t b, int64_t, Byte* codes, const Grid&) {
        const Byte* unit = row + b * BYTES;
        for (int i = 0; i < 16; ++i) codes[i] = unit[LOW + i] & 15, codes[i + 16] = unit[LOW + i] >> 4;
        if (!FIFTH) return;
        for (int i = 0; i < 32; ++i) codes[i] = static_cast<Byte>(codes[i] | (unit[HIGH + i / 8] >> (i % 8) & 1) << 4);
    }
    static void put(Byte* row, int64_t b, int64_t, const Byte* codes, const Grid&) {
        Byte* unit = row + b * BYTES;
        for (int i = 0; i < 16; ++i) unit[LOW + i] = static_cast<Byte>((codes[i] & 15) | (codes[i + 16] & 15) << 4);
        if (!FIFTH) return;
        for (int i = 0; i < 4; ++i) unit[HIGH + i] = 0;
        for (int i = 0; i < 32; ++i) unit[HIGH + i / 8] = static_cast<Byte>(unit[HIGH + i / 8] | (codes[i] >> 4) << (i % 8));
    }
};

// A float16 scale and 32 signed bytes, which become codes around 128.
struct Q8Source : Factors<1> {
    static constexpr int64_t SPAN = 32, BYTES = 34;
    static void get(const Byte* row, int64_t b, int64_t, Byte* codes, const Grid&) {
        for (int i = 0; i < 32; ++i) codes[i] = row[b * BYTES + 2 + i] ^ 0x80;
    }
    static void put(Byte* row, int64_t b, int64_t, const Byte* codes, const Grid&) {
        for (int i = 0; i < 32; ++i) row[b * BYTES + 2 + i] = codes[i] ^ 0x80;
    }
};

// Two float16, 12 bytes of scales and minima of six bits, perhaps 32 bytes whose bit s belongs to sub-block s, and 128
// bytes, each 32 of which hold one sub-block in the low halves, the next in the high ones.
template <bool FIFTH> struct KSource {
    static constexpr int64_t SPAN = 256, HIGH = 16, LOW = FIFTH ? 48 : 16, BYTES = LOW + 128, SMALL = 2 * PANEL * 2;
    static void get(const Byte* row, int64_t b, int64_t, Byte* codes, const Grid&) {
        const Byte* unit = row + b / 8 * BYTES;
        const int64_t s = b % 8;
        for (int i = 0; i < 32; ++i) {
            const int four = unit[LOW + s / 2 * 32 + i] >> (s % 2 * 4) & 15;
            codes[i] = static_cast<Byte>(FIFTH ? four | (unit[HIGH + i] >> s & 1) << 4 : four);
        }
    }
    static void put(Byte* row, int64_t b, int64_t, const Byte* codes, const Grid&) {
        Byte* unit = row + b / 8 * BYTES;
        const int64_t s = b % 8;
        for (int i = 0; i < 32; ++i) {
            Byte& low = unit[LOW + s / 2 * 32 + i];
            low = static_cast<Byte>((low & (s % 2 ? 0x0f : 0xf0)) | (codes[i] & 15) << (s % 2 * 4));
            if (!FIFTH) continue;
            Byte& high = unit[HIGH + i];
            high = static_cast<Byte>((high & ~(1 << s)) | (codes[i] >> 4) << s);
        }
    }
    static void scales_in(const Byte* unit, char* chunk, int64_t lane) {
        Factors<2>::scales_in(unit, chunk, lane);
        const Byte* packed = unit + 4;
        for (int s = 0; s < 8; ++s) {
            const int k = s % 4;
            const int scale = s < 4 ? packed[k] & 63 : (packed[8 + k] & 15) | packed[k] >> 6 << 4;
            const int low = s < 4 ? packed[4 + k] & 63 : packed[8 + k] >> 4 | packed[4 + k] >> 6 << 4;
            chunk[SMALL + s * PANEL + lane] = static_cast<char>(scale);
            chunk[SMALL + (8 + s) * PANEL + lane] = static_cast<char>(low);
        }
    }
    static void scales_out(Byte* unit, const char* chunk, int64_t lane) {
        Factors<2>::scales_out(unit, chunk, lane);
        Byte* packed = unit + 4;
        const auto small = [&](int s) { return static_cast<Byte>(chunk[SMALL + s * PANEL + lane]); };
        for (int k = 0; k < 4; ++k) {
            const Byte scale = small(4 + k), low = small(12 + k);
            packed[k] = static_cast<Byte>(small(k) | scale >> 4 << 6);
            packed[4 + k] = static_cast<Byte>(small(8 + k) | low >> 4 << 6);
            packed[8 + k] = static_cast<Byte>((scale & 15) | (low & 15) << 4);
        }
    }
};

// Per half of a unit 64 bytes of low halves, then per half 32 bytes of four bit pairs, 16 signed scales, a float16.
struct Q6KSource {
    static constexpr int64_t SPAN = 256, HIGH = 128, SMALL = 192, FACTOR = 208, BYTES = 210;
    static void get(const Byte* row, int64_t b, int64_t, Byte* codes, const Grid&) {
        const Byte* unit = row + b / 8 * BYTES;
        const int64_t h = b % 8 / 4, q = b % 4;
        for (int i = 0; i < 32; ++i) {
            const int low = unit[h * 64 + q % 2 * 32 + i] >> (q / 2 * 4) & 15;
            codes[i] = static_cast<Byte>(low | (unit[HIGH + h * 32 + i] >> (2 * q) & 3) << 4);
        }
    }
    static void put(Byte* row, int64_t b, int64_t, const Byte* codes, const Grid&) {
        Byte* unit = row + b / 8 * BYTES;
        const int64_t h = b % 8 / 4, q = b % 4;
        for (int i = 0; i < 32; ++i) {
            Byte &low = unit[h * 64 + q % 2 * 32 + i], &high = unit[HIGH + h * 32 + i];
            low = static_cast<Byte>((low & (q / 2 ? 0x0f : 0xf0)) | (codes[i] & 15) << (q / 2 * 4));
            high = static_cast<Byte>((high & ~(3 << (2 * q))) | (codes[i] >> 4) << (2 * q));
        }
    }
    static void scales_in(const Byte* unit, char* chunk, int64_t lane) {
        copy(chunk + lane * 2, unit + FACTOR, 2);
        for (int s = 0; s < 16; ++s) chunk[PANEL * 2 + s * PANEL + lane] = static_cast<char>(unit[SMALL + s]);
    }
    static void scales_out(Byte* unit, const char* chunk, int64_t lane) {
        copy(unit + FACTOR, chunk + lane * 2, 2);
        for (int s = 0; s < 16; ++s) unit[SMALL + s] = static_cast<Byte>(chunk[PANEL * 2 + s * PANEL + lane]);
    }
};

// Codes alone, as a stream of bits, the lowest first; their scales lie beside them.
template <int BITS> struct CodeSource {
    static constexpr int64_t SPAN = 0;
    static void get(const Byte* row, int64_t b, int64_t count, Byte* codes, const Grid&) {
        const Byte* from = row + b * BLOCK * BITS / 8;
        for (int64_t i = 0; i < count; ++i) {
            const int64_t byte = i * BITS / 8, bit = i * BITS % 8;
            const int low = from[byte] >> bit, high = bit + BITS > 8 ? from[byte + 1] << (8 - bit) : 0;
            codes[i] = static_cast<Byte>((low | high) & ((1 << BITS) - 1));
        }
    }
    static void put(Byte* row, int64_t b, int64_t count, const Byte* codes, const Grid&) {
        Byte* to = row + b * BLOCK * BITS / 8;
        memset(to, 0, static_cast<size_t>(ceil_div(count * BITS, 8)));
        for (int64_t i = 0; i < count; ++i) {
            const int64_t byte = i * BITS / 8, bit = i * BITS % 8;
            to[byte] = static_cast<Byte>(to[byte] | codes[i] << bit);
            if (bit + BITS > 8) to[byte + 1] = static_cast<Byte>(codes[i] >> (8 - bit));
        }
    }
};

template <class F> inline void with_code_source(int64_t bits, F&& f) {
    switch (bits) {
    case 1: return f(CodeSource<1>{});
    case 2: return f(CodeSource<2>{});
    case 3: return f(CodeSource<3>{});
    case 4: return f(CodeSource<4>{});
    case 5: return f(CodeSource<5>{});
    case 6: return f(CodeSource<6>{});
    case 7: return f(CodeSource<7>{});
    default: return f(CodeSource<8>{});
    }
}

} // namespace tramontane::TM_ISA
