// SPDX-License-Identifier: Apache-2.0
// Blocks of ggml (https://github.com/ggml-org/ggml) with codes of few bits and no table of vectors.
#pragma once
#include "kernels/layouts/block_sources.h"

namespace tramontane::TM_ISA {

// --- fields of a unit ------------------------------------------------------------------------------------------------

// Some bits of a unit, at most sixteen, the lowest first.
struct Bits {
    int64_t at;
    int count;
};

inline int bits_of(const Byte* unit, Bits bits) {
    int found = 0;
    for (int have = 0; have < bits.count;) {
        const int64_t bit = bits.at + have;
        found |= (unit[bit / 8] >> (bit % 8)) << have;
        have += static_cast<int>(8 - bit % 8);
    }
    return found & ((1 << bits.count) - 1);
}

inline void put_bits(Byte* unit, Bits bits, int value) { // into zeros
    for (int done = 0; done < bits.count;) {
        const int64_t bit = bits.at + done;
        unit[bit / 8] = static_cast<Byte>(unit[bit / 8] | (value >> done) << (bit % 8));
        done += static_cast<int>(8 - bit % 8);
    }
}

// A number whose lower bits lie elsewhere than its upper ones.
struct Split {
    Bits low, high;
};

inline int bits_of(const Byte* unit, Split split) {
    return bits_of(unit, split.low) | bits_of(unit, split.high) << split.low.count;
}

inline void put_bits(Byte* unit, Split split, int value) {
    put_bits(unit, split.low, value & ((1 << split.low.count) - 1));
    put_bits(unit, split.high, value >> split.low.count);
}

// --- codes -----------------------------------------------------------------------------------------------------------

// 2 * HALF codes of four bits: the first HALF in the low halves of bytes.
template <int HALF> inline void get_fours(const Byte* from, Byte* codes) {
    for (int i = 0; i < HALF; ++i) codes[i] = from[i] & 15, codes[i + HALF] = from[i] >> 4;
}

template <int HALF> inline void put_fours(Byte* to, const Byte* codes) {
    for (int i = 0; i < HALF; ++i) to[i] = static_cast<Byte>(codes[i] | codes[i + HALF] << 4);
}

// Block b of 256 codes of two bits: 32 bytes hold four blocks.
inline void get_twos(const Byte* from, int64_t b, Byte* codes) {
    for (int i = 0; i < 32; ++i) codes[i] = from[b / 4 * 32 + i] >> (b % 4 * 2) & 3;
}

inline void put_twos(Byte* to, int64_t b, const Byte* codes) {
    for (int i = 0; i < 32; ++i) to[b / 4 * 32 + i] = static_cast<Byte>(to[b / 4 * 32 + i] | (codes[i] & 3) << (b % 4 * 2));
}

// --- scales ----------------------------------------------------------------------------------------------------------

// Type::SCALES whole numbers, the s-th in Type::scale(s), that stand for Type::STEP * number + Type::FIRST: as signed bytes
// behind one float16 factor.
template <class Type> inline void small_in(const Byte* unit, char* chunk, int64_t lane) {
    for (int64_t s = 0; s < Type::SCALES; ++s)
        chunk[(2 + s) * PANEL + lane] = static_cast<char>(Type::STEP * bits_of(unit, Type::scale(s)) + Type::FIRST);
}

template <class Type> inline void small_out(Byte* unit, const char* chunk, int64_t lane) {
    for (int64_t s = 0; s < Type::SCALES; ++s) {
        const int value = static_cast<signed char>(chunk[(2 + s) * PANEL + lane]);
        put_bits(unit, Type::scale(s), (value - Type::FIRST) / Type::STEP);
    }
}

// The same with the factor, which lies at byte Type::FACTOR.
template <class Type> struct SmallScales {
    static void scales_in(const Byte* unit, char* chunk, int64_t lane) {
        Factors<1>::scales_in(unit + Type::FACTOR, chunk, lane);
        small_in<Type>(unit, chunk, lane);
    }
    static void scales_out(Byte* unit, const char* chunk, int64_t lane) {
        Factors<1>::scales_out(unit + Type::FACTOR, chunk, lane);
        small_out<Type>(unit, chunk, lane);
    }
};

// --- types -----------------------------------------------------------------------------------------------------------

// 16 bytes of a scale and a minimum of four bits each, 64 of codes, two float16.
struct Q2KSource {
    static constexpr int64_t SPAN = 256, BYTES = 84, FACTORS = 2 * PANEL * 2;
    static void get(const Byte* row, int64_t b, int64_t, Byte* codes, const Grid&) {
        get_twos(row + b / 8 * BYTES + 16, b % 8, codes);
    }
    static void put(Byte* row, int64_t b, int64_t, const Byte* codes, const Grid&) {
        put_twos(row + b / 8 * BYTES + 16, b % 8, codes);
    }
    static void scales_in(const Byte* unit, char* chunk, int64_t lane) {
        Factors<2>::scales_in(unit + 80, chunk, lane);
        for (int s = 0; s < 16; ++s) chunk[FACTORS + s * PANEL + lane] = static_cast<char>(unit[s]);
    }
    static void scales_out(Byte* unit, const char* chunk, int64_t lane) {
        Factors<2>::scales_out(unit + 80, chunk, lane);
        for (int s = 0; s < 16; ++s) unit[s] = static_cast<Byte>(chunk[FACTORS + s * PANEL + lane]);
    }
};

// 32 bytes whose bit b is the third of block b's codes, 64 of the others, 12 of 16 scales around 32, a float16.
struct Q3KSource : SmallScales<Q3KSource> {
    static constexpr int64_t SPAN = 256, BYTES = 110, FACTOR = 108, SCALES = 16;
    static constexpr int STEP = 1, FIRST = -32;
    static Split scale(int64_t s) { return {{768 + s % 8 * 8 + s / 8 * 4, 4}, {832 + s % 4 * 8 + s / 4 * 2, 2}}; }
    static void get(const Byte* row, int64_t b, int64_t, Byte* codes, const Grid&) {
        const Byte* unit = row + b / 8 * BYTES;
        get_twos(unit + 32, b % 8, codes);
        for (int i = 0; i < 32; ++i) codes[i] = static_cast<Byte>(codes[i] | (unit[i] >> (b % 8) & 1) << 2);
    }
    static void put(Byte* row, int64_t b, int64_t, const Byte* codes, const Grid&) {
        Byte* unit = row + b / 8 * BYTES;
        put_twos(unit + 32, b % 8, codes);
        for (int i = 0; i < 32; ++i) unit[i] = static_cast<Byte>(unit[i] | codes[i] >> 2 << (b % 8));
    }
};

// A float16, upper and lower bits of eight scales around 32, 16 bytes of codes for each block.
struct Iq4XsSource : SmallScales<Iq4XsSource> {
    static constexpr int64_t SPAN = 256, BYTES = 136, FACTOR = 0, SCALES = 8;
    static constexpr int STEP = 1, FIRST = -32;
    static Split scale(int64_t s) { return {{32 + 4 * s, 4}, {16 + 2 * s, 2}}; }
    static void get(const Byte* row, int64_t b, int64_t, Byte* codes, const Grid&) {
        get_fours<16>(row + b / 8 * BYTES + 8 + b % 8 * 16, codes);
    }
    static void put(Byte* row, int64_t b, int64_t, const Byte* codes, const Grid&) {
        put_fours<16>(row + b / 8 * BYTES + 8 + b % 8 * 16, codes);
    }
};

// Three-valued digits, five to a byte of 48 and four to one of the last four: the byte is their number to the base
// three, brought from 243 to 256 steps and rounded up. A few bytes mean the same as others, which come back instead.
struct Tq1Source {
    static constexpr int64_t SPAN = 256, BYTES = 54;
    static void digits_of(int byte, Byte (&digits)[5]) {
        for (int d = 0, raised = byte; d < 5; ++d, raised = raised * 3 & 255) digits[d] = static_cast<Byte>(raised * 3 >> 8);
    }
    // Where element i lies: which byte, and which digit of it.
    static void place(int64_t i, int64_t& byte, int64_t& digit) {
        if (i < 160) {
            byte = i % 32, digit = i / 32;
        } else if (i < 240) {
            byte = 32 + i % 16, digit = (i - 160) / 16;
        } else {
            byte = 48 + i % 4, digit = (i - 240) / 4;
        }
    }
    static void get(const Byte* row, int64_t b, int64_t, Byte* codes, const Grid&) {
        for (int64_t i = 0; i < 32; ++i) {
            int64_t byte, digit;
            Byte digits[5];
            place(b % 8 * 32 + i, byte, digit);
            digits_of(row[b / 8 * BYTES + byte], digits);
            codes[i] = digits[digit];
        }
    }
    static void put(Byte* row, int64_t b, int64_t, const Byte* codes, const Grid&) {
        for (int64_t i = 0; i < 32; ++i) {
            int64_t byte, digit;
            Byte digits[5];
            place(b % 8 * 32 + i, byte, digit);
            Byte& to = row[b / 8 * BYTES + byte];
            digits_of(to, digits);
            digits[digit] = codes[i];
            int number = 0;
            for (const Byte one : digits) number = number * 3 + one;
            to = static_cast<Byte>((number * 256 + 242) / 243);
        }
    }
    static void scales_in(const Byte* unit, char* chunk, int64_t lane) { Factors<1>::scales_in(unit + 52, chunk, lane); }
    static void scales_out(Byte* unit, const char* chunk, int64_t lane) { Factors<1>::scales_out(unit + 52, chunk, lane); }
};

struct Tq2Source { // 64 bytes of codes, a float16
    static constexpr int64_t SPAN = 256, BYTES = 66;
    static void get(const Byte* row, int64_t b, int64_t, Byte* codes, const Grid&) {
        get_twos(row + b / 8 * BYTES, b % 8, codes);
    }
    static void put(Byte* row, int64_t b, int64_t, const Byte* codes, const Grid&) {
        put_twos(row + b / 8 * BYTES, b % 8, codes);
    }
    static void scales_in(const Byte* unit, char* chunk, int64_t lane) { Factors<1>::scales_in(unit + 64, chunk, lane); }
    static void scales_out(Byte* unit, const char* chunk, int64_t lane) { Factors<1>::scales_out(unit + 64, chunk, lane); }
};

// An exponent and 16 bytes of codes. Half the power of two becomes a bfloat16; the two smallest have no exponent.
struct Mxfp4Source {
    static constexpr int64_t SPAN = 32, BYTES = 17;
    static void get(const Byte* row, int64_t b, int64_t, Byte* codes, const Grid&) { get_fours<16>(row + b * BYTES + 1, codes); }
    static void put(Byte* row, int64_t b, int64_t, const Byte* codes, const Grid&) { put_fours<16>(row + b * BYTES + 1, codes); }
    static void scales_in(const Byte* unit, char* chunk, int64_t lane) {
        const uint16_t scale = static_cast<uint16_t>(unit[0] < 2 ? 0x20 << unit[0] : (unit[0] - 1) << 7);
        copy(chunk + lane * 2, &scale, 2);
    }
    static void scales_out(Byte* unit, const char* chunk, int64_t lane) {
        uint16_t scale;
        copy(&scale, chunk + lane * 2, 2);
        unit[0] = static_cast<Byte>(scale < 0x80 ? scale >> 6 : (scale >> 7) + 1);
    }
};

// Four scales of eight bits, then the codes of four groups of 16, eight bytes each.
struct Nvfp4Source {
    static constexpr int64_t SPAN = 64, BYTES = 36;
    static void get(const Byte* row, int64_t b, int64_t, Byte* codes, const Grid&) {
        for (int64_t h = 0; h < 2; ++h) get_fours<8>(row + b / 2 * BYTES + 4 + (b % 2 * 2 + h) * 8, codes + 16 * h);
    }
    static void put(Byte* row, int64_t b, int64_t, const Byte* codes, const Grid&) {
        for (int64_t h = 0; h < 2; ++h) put_fours<8>(row + b / 2 * BYTES + 4 + (b % 2 * 2 + h) * 8, codes + 16 * h);
    }
    static void scales_in(const Byte* unit, char* chunk, int64_t lane) {
        for (int g = 0; g < 4; ++g) chunk[g * PANEL + lane] = static_cast<char>(unit[g]);
    }
    static void scales_out(Byte* unit, const char* chunk, int64_t lane) {
        for (int g = 0; g < 4; ++g) unit[g] = static_cast<Byte>(chunk[g * PANEL + lane]);
    }
};

} // namespace tramontane::TM_ISA
