// SPDX-License-Identifier: Apache-2.0
// Blocks of ggml (https://github.com/ggml-org/ggml) whose codes are rows of a table of short vectors: the IQ1, IQ2 and
// IQ3 types. Weights are kept element by element, each a level of the table's and a sign or shift; which row they were is
// found by looking up all levels of a vector at once, since no two rows are equal.
//
// A type says where in a unit the k-th row, its signs or shift, and scale s lie.
#pragma once
#include "kernels/layouts/ggml_sources.h"

namespace tramontane::TM_ISA {

// The row with these levels.
template <int LEVELS, int COUNT> inline int row_of(const Grid& grid, const Byte* levels) {
    int at = 0;
    for (int e = COUNT - 1; e >= 0; --e) at = at * LEVELS + levels[e];
    return grid.rows[at];
}

// The eighth sign makes the number of minus signs even.
inline int even_signs(int seven) {
    int parity = seven ^ seven >> 4;
    parity ^= parity >> 2;
    return seven | ((parity ^ parity >> 1) & 1) << 7;
}

// Their scales are odd numbers.
struct OddScales {
    static constexpr int64_t FACTOR = 0;
    static constexpr int STEP = 2, FIRST = 1;
};

// --- signed levels ---------------------------------------------------------------------------------------------------

// Eight elements under eight signs are one row of eight levels, or two of four.
template <class Type> struct SignedSource : Type, SmallScales<Type> {
    static constexpr int64_t SPAN = 256;
    static constexpr int ROWS = 8 / Type::WIDTH;
    static void get(const Byte* row, int64_t b, int64_t, Byte* codes, const Grid& grid) {
        const Byte* unit = row + b / 8 * Type::BYTES;
        for (int64_t k = b % 8 * 4; k < b % 8 * 4 + 4; ++k, codes += 8) {
            const int found = bits_of(unit, Type::signs(k)), signs = Type::EVEN ? even_signs(found) : found;
            for (int e = 0; e < 8;) {
                const Byte* levels = grid.levels + bits_of(unit, Type::row(k * ROWS + e / Type::WIDTH)) * Type::WIDTH;
                for (int i = 0; i < Type::WIDTH; ++i, ++e) codes[e] = static_cast<Byte>(Type::code(levels[i], signs >> e & 1));
            }
        }
    }
    static void put(Byte* row, int64_t b, int64_t, const Byte* codes, const Grid& grid) {
        Byte* unit = row + b / 8 * Type::BYTES;
        for (int64_t k = b % 8 * 4; k < b % 8 * 4 + 4; ++k, codes += 8) {
            Byte levels[8];
            int signs = 0;
            for (int e = 0; e < 8; ++e) levels[e] = Type::level(codes[e]), signs |= Type::negative(codes[e]) << e;
            put_bits(unit, Type::signs(k), Type::EVEN ? signs & 127 : signs);
            for (int r = 0; r < ROWS; ++r) {
                const int index = row_of<Type::LEVELS, Type::WIDTH>(grid, levels + r * Type::WIDTH);
                put_bits(unit, Type::row(k * ROWS + r), index);
            }
        }
    }
};

// A level below its sign, as ThreeSizes and EightSizes take it.
template <int SIGN> struct SignAbove {
    static int code(int level, int negative) { return level | negative << SIGN; }
    static Byte level(Byte code) { return static_cast<Byte>(code & ((1 << SIGN) - 1)); }
    static int negative(Byte code) { return code >> SIGN; }
};

struct Iq2 : OddScales, SignAbove<2> {
    static constexpr int WIDTH = 8, LEVELS = 3;
};

struct Iq2Xxs : Iq2 { // per block four rows, then a word of four sign indices and a scale
    static constexpr int64_t BYTES = 66, SCALES = 8;
    static constexpr bool EVEN = true;
    static Bits row(int64_t k) { return {16 + k / 4 * 64 + k % 4 * 8, 8}; }
    static Bits signs(int64_t k) { return {48 + k / 4 * 64 + k % 4 * 7, 7}; }
    static Bits scale(int64_t s) { return {76 + s * 64, 4}; }
};

struct Iq2Xs : Iq2 { // words of row and signs, then a scale per 16 elements
    static constexpr int64_t BYTES = 74, SCALES = 16;
    static constexpr bool EVEN = true;
    static Bits row(int64_t k) { return {16 + k * 16, 9}; }
    static Bits signs(int64_t k) { return {25 + k * 16, 7}; }
    static Bits scale(int64_t s) { return {528 + s * 4, 4}; }
};

struct Iq2S : Iq2 { // low bytes of rows, sign bytes, high bits of rows, a scale per 16 elements
    static constexpr int64_t BYTES = 82, SCALES = 16;
    static constexpr bool EVEN = false;
    static Split row(int64_t k) { return {{16 + k * 8, 8}, {528 + k * 2, 2}}; }
    static Bits signs(int64_t k) { return {272 + k * 8, 8}; }
    static Bits scale(int64_t s) { return {592 + s * 4, 4}; }
};

struct Iq3Xxs : OddScales, SignAbove<3> { // rows, then per block a word of four sign indices and a scale
    static constexpr int WIDTH = 4, LEVELS = 8;
    static constexpr int64_t BYTES = 98, SCALES = 8;
    static constexpr bool EVEN = true;
    static Bits row(int64_t k) { return {16 + k * 8, 8}; }
    static Bits signs(int64_t k) { return {528 + k / 4 * 32 + k % 4 * 7, 7}; }
    static Bits scale(int64_t s) { return {556 + s * 32, 4}; }
};

struct Iq3S : OddScales { // low bytes of rows, their ninth bits, sign bytes, a scale per block. Level n stands for 2 n + 1: OddCodes
    static constexpr int WIDTH = 4, LEVELS = 8;
    static constexpr int64_t BYTES = 110, SCALES = 8;
    static constexpr bool EVEN = false;
    static Split row(int64_t k) { return {{16 + k * 8, 8}, {528 + k, 1}}; }
    static Bits signs(int64_t k) { return {592 + k * 8, 8}; }
    static Bits scale(int64_t s) { return {848 + s * 4, 4}; }
    static int code(int level, int negative) { return negative ? 7 - level : 8 + level; }
    static Byte level(Byte code) { return static_cast<Byte>(code < 8 ? 7 - code : code - 8); }
    static int negative(Byte code) { return code < 8; }
};

// --- shifted ternary levels ------------------------------------------------------------------------------------------

struct Iq1SSource { // low bytes of rows; per block a word of four rows' high bits, a scale and whether all is shifted down
    static constexpr int64_t SPAN = 256, BYTES = 50, FACTORS = PANEL * 2;
    static Split row(int64_t k) { return {{16 + k * 8, 8}, {272 + k / 4 * 16 + k % 4 * 3, 3}}; }
    static Bits scale(int64_t s) { return {284 + s * 16, 3}; }
    static Bits down(int64_t s) { return {287 + s * 16, 1}; }
    static void get(const Byte* from, int64_t b, int64_t, Byte* codes, const Grid& grid) {
        const Byte* unit = from + b / 8 * BYTES;
        for (int64_t k = 0; k < 4; ++k) copy(codes + 8 * k, grid.levels + 8 * bits_of(unit, row(b % 8 * 4 + k)), 8);
    }
    static void put(Byte* to, int64_t b, int64_t, const Byte* codes, const Grid& grid) {
        Byte* unit = to + b / 8 * BYTES;
        for (int64_t k = 0; k < 4; ++k) put_bits(unit, row(b % 8 * 4 + k), row_of<3, 8>(grid, codes + 8 * k));
    }
    static void scales_in(const Byte* unit, char* chunk, int64_t lane) {
        Factors<1>::scales_in(unit, chunk, lane);
        for (int s = 0; s < 8; ++s) {
            const int odd = 2 * bits_of(unit, scale(s)) + 1;
            chunk[FACTORS + s * PANEL + lane] = static_cast<char>(bits_of(unit, down(s)) ? -odd : odd);
        }
    }
    static void scales_out(Byte* unit, const char* chunk, int64_t lane) {
        Factors<1>::scales_out(unit, chunk, lane);
        for (int s = 0; s < 8; ++s) {
            const int odd = static_cast<signed char>(chunk[FACTORS + s * PANEL + lane]);
            put_bits(unit, scale(s), (odd < 0 ? -odd : odd) / 2);
            put_bits(unit, down(s), odd < 0);
        }
    }
};

// Low bytes of rows, three high bits of each and whether it is shifted down, words of four scales whose top bits make the
// factor. Codes are 2 * level + 1, or 2 * level where shifted down: ShiftedTernary.
struct Iq1MSource : OddScales {
    static constexpr int64_t SPAN = 256, BYTES = 56, SCALES = 16;
    static Split row(int64_t k) { return {{k * 8, 8}, {256 + k * 4, 3}}; }
    static Bits down(int64_t k) { return {259 + k * 4, 1}; }
    static Bits scale(int64_t s) { return {384 + s / 4 * 16 + s % 4 * 3, 3}; }
    static Bits factor(int64_t quarter) { return {396 + quarter * 16, 4}; }
    static void get(const Byte* from, int64_t b, int64_t, Byte* codes, const Grid& grid) {
        const Byte* unit = from + b / 8 * BYTES;
        for (int64_t k = b % 8 * 4; k < b % 8 * 4 + 4; ++k, codes += 8) {
            const Byte* levels = grid.levels + 8 * bits_of(unit, row(k));
            const int up = 1 - bits_of(unit, down(k));
            for (int e = 0; e < 8; ++e) codes[e] = static_cast<Byte>(2 * levels[e] + up);
        }
    }
    static void put(Byte* to, int64_t b, int64_t, const Byte* codes, const Grid& grid) {
        Byte* unit = to + b / 8 * BYTES;
        for (int64_t k = b % 8 * 4; k < b % 8 * 4 + 4; ++k, codes += 8) {
            Byte levels[8];
            for (int e = 0; e < 8; ++e) levels[e] = codes[e] / 2;
            put_bits(unit, row(k), row_of<3, 8>(grid, levels));
            put_bits(unit, down(k), 1 - codes[0] % 2);
        }
    }
    static void scales_in(const Byte* unit, char* chunk, int64_t lane) {
        int half = 0;
        for (int64_t i = 0; i < 4; ++i) half |= bits_of(unit, factor(i)) << (4 * i);
        const uint16_t bits = static_cast<uint16_t>(half);
        copy(chunk + lane * 2, &bits, 2);
        small_in<Iq1MSource>(unit, chunk, lane);
    }
    static void scales_out(Byte* unit, const char* chunk, int64_t lane) {
        uint16_t bits;
        copy(&bits, chunk + lane * 2, 2);
        for (int64_t i = 0; i < 4; ++i) put_bits(unit, factor(i), bits >> (4 * i) & 15);
        small_out<Iq1MSource>(unit, chunk, lane);
    }
};

} // namespace tramontane::TM_ISA
