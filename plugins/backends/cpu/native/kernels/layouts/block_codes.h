// SPDX-License-Identifier: Apache-2.0
// How codes of quantized weights lie in a panel, and integer dot products with them.
//
// Inputs are cut into blocks of 32, a block into 8 groups of 4. A group of a panel is 64 bytes: 16 outputs by 4 inputs,
// so that one 512-bit vector meets four broadcast activations in one instruction and every output keeps its own lane.
// Narrow codes share bytes: of four bits, group r and group r + 4; what exceeds four bits follows in planes of 64 bytes.
// Any instruction set reads the same bytes, those with shorter vectors a part of each row at a time.
#pragma once
#include "kernels/form_q8.h"

namespace tramontane::TM_ISA {

typedef uint8_t VB __attribute__((vector_size(4 * W)));  // codes
typedef uint16_t VS __attribute__((vector_size(4 * W))); // the same bits in pairs of bytes

constexpr int64_t GROUPS = 8, GROUP_BYTES = 64;
constexpr int64_t CODE_VECTOR = static_cast<int64_t>(sizeof(VB));

inline VB all_bytes(uint8_t x) { return VB{} + x; }
// Bits move across bytes: mask afterwards.
inline VB right(VB v, int n) { return (VB)((VS)v >> n); }
inline VB left(VB v, int n) { return (VB)((VS)v << n); }
inline VB row_of_codes(const char* block, int64_t row, int64_t v) {
    return get<VB>(block + row * GROUP_BYTES + v * CODE_VECTOR);
}

// --- dot products ----------------------------------------------------------------------------------------------------

// What the product takes from each code of eight bits before it multiplies: the pairwise product of AVX2 has 16 bits.
#if defined(__AVX512F__) || !defined(__AVX2__)
constexpr int WIDE_TAKEN = 0;
#else
constexpr int WIDE_TAKEN = 128;
#endif

#if defined(__AVX512F__) || !defined(__AVX2__)
// Adds to each lane of `sum` its four codes times the four activations at x.
template <bool WIDE> inline VI dot(VI sum, VB codes, const int8_t* x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
#if defined(__AVX512F__)
    return (VI)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)codes, _mm512_set1_epi32(four));
#elif defined(__SSE2__)
    const __m128i even = _mm_and_si128((__m128i)codes, _mm_set1_epi16(0xff)), odd = _mm_srli_epi16((__m128i)codes, 8);
    const __m128i both = _mm_set1_epi32(four);
    const __m128i x_even = _mm_srai_epi16(_mm_slli_epi16(both, 8), 8), x_odd = _mm_srai_epi16(both, 8);
    return sum + (VI)_mm_madd_epi16(even, x_even) + (VI)_mm_madd_epi16(odd, x_odd);
#else
    for (int j = 0; j < 4; ++j) sum += (VI)(((VU)codes >> (8 * j)) & 0xff) * static_cast<int32_t>(x[j]);
    return sum;
#endif
}
#else
// Products of bytes are summed in pairs to 16 bits here, and stay there for as many groups as cannot overflow: what
// follows, another product and a sum for each, is then needed once. Codes of four bits: all eight groups of a block.
constexpr int groups_in_16_bits(bool wide, int most) {
    const int fit = wide ? 1 : 32767 / (2 * 127 * most);
    return fit >= 8 ? 8 : fit >= 4 ? 4 : fit >= 2 ? 2 : 1; // a part of a block
}
template <class Codes> constexpr int GROUPS_IN_16_BITS = groups_in_16_bits(Codes::WIDE, Codes::MOST);

// Four activations at each four codes. Wide codes are signed here.
template <bool WIDE> inline __m256i pair_products(__m256i codes, __m256i x) {
    return WIDE ? _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes)) : _mm256_maddubs_epi16(codes, x);
}

inline __m256i four_activations(const int8_t* x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm256_set1_epi32(four);
}

// Left to itself, GCC makes all products of a block first and adds them as a tree, which takes far more registers than
// there are: what was spilled cost half the speed.
inline void in_register(__m256i& value) { __asm__("" : "+x"(value)); }

// What pair_products multiplies, from what a code's class loads.
template <class Codes> inline VB multiplied(VB codes) { return Codes::WIDE ? codes ^ all_bytes(0x80) : codes; }

// Sums of a block for ROWS rows by COUNT vectors of outputs; load(g, v) gives group g's codes as multiplied. With HALVES
// sums[h] is of each half of the block, otherwise sums[0] of all of it.
template <class Codes, bool HALVES, int ROWS, int COUNT, class Load>
inline void sum_block(Load&& load, const char* x, int64_t stride, VI (&sums)[2][ROWS][COUNT]) {
    constexpr int MOST = HALVES ? 4 : 8, STEP = GROUPS_IN_16_BITS<Codes> < MOST ? GROUPS_IN_16_BITS<Codes> : MOST;
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 8
    for (int first = 0; first < GROUPS; first += STEP) {
        __m256i narrow[ROWS][COUNT];
#pragma GCC unroll 8
        for (int g = first; g < first + STEP; ++g) {
            __m256i codes[COUNT];
            for (int v = 0; v < COUNT; ++v) {
                codes[v] = (__m256i)load(g, v);
                in_register(codes[v]);
            }
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; ++r) {
                const __m256i four = four_activations(reinterpret_cast<const int8_t*>(x) + r * stride + 4 * g);
                for (int v = 0; v < COUNT; ++v) {
                    const __m256i products = pair_products<Codes::WIDE>(codes[v], four);
                    narrow[r][v] = g == first ? products : _mm256_add_epi16(narrow[r][v], products);
                    in_register(narrow[r][v]);
                }
            }
        }
        for (int r = 0; r < ROWS; ++r)
            for (int v = 0; v < COUNT; ++v) {
                const VI wide = (VI)_mm256_madd_epi16(narrow[r][v], ones);
                VI& to = sums[HALVES ? first / 4 : 0][r][v];
                to = first % MOST == 0 ? wide : to + wide;
            }
    }
}
#endif

// The sums of a block's halves for one row, or of all of it and zero where nobody tells halves apart.
template <class Codes, bool HALVES> inline void halves_of(const VB* codes, const int8_t* x, VI (&halves)[2]) {
#if defined(__AVX2__) && !defined(__AVX512F__)
    VI sums[2][1][1];
    const auto load = [&](int g, int) { return multiplied<Codes>(codes[g]); };
    sum_block<Codes, HALVES, 1, 1>(load, reinterpret_cast<const char*>(x), 0, sums);
    halves[0] = sums[0][0][0];
    halves[1] = HALVES ? sums[1][0][0] : VI{};
#else
    halves[0] = halves[1] = VI{};
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g)
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) halves[h] = dot<Codes::WIDE>(halves[h], codes[4 * h + g], x + 16 * h + 4 * g);
#endif
}

// --- codes -----------------------------------------------------------------------------------------------------------
// Each class: BYTES of a block of a panel; `load` what the product reads and `raw` the codes themselves, group by group;
// MIDDLE, the code of zero where there is no other; MOST, the largest that is multiplied; UNIT, what one step is worth;
// `number`, a code's value before scales; and one output's 32 codes to and from the block.

struct LinearCodes {
    static constexpr bool WIDE = false;
    static constexpr int TAKEN = 0;
    static constexpr float UNIT = 1;
    explicit LinearCodes(const tm_matrix&) {}
    float unit() const { return 1.0f; } // of what the product reads
    static VF number(VU code) { return __builtin_convertvector((VI)code, VF); }
};

inline void load_halves(const char* block, int64_t v, VB* codes) {
    for (int r = 0; r < 4; ++r) {
        const VB both = row_of_codes(block, r, v);
        codes[r] = both & all_bytes(15);
        codes[r + 4] = right(both, 4) & all_bytes(15);
    }
}

inline void put_halves(char* block, int64_t lane, const uint8_t* codes) {
    for (int64_t i = 0; i < 16; ++i)
        block[i / 4 * GROUP_BYTES + lane * 4 + i % 4] = static_cast<char>((codes[i] & 15) | (codes[i + 16] & 15) << 4);
}

inline void get_halves(const char* block, int64_t lane, uint8_t* codes) {
    for (int64_t i = 0; i < 16; ++i) {
        const uint8_t both = static_cast<uint8_t>(block[i / 4 * GROUP_BYTES + lane * 4 + i % 4]);
        codes[i] = both & 15, codes[i + 16] = both >> 4;
    }
}

struct Codes4 : LinearCodes {
    using LinearCodes::LinearCodes;
    static constexpr int64_t BYTES = 256;
    static constexpr int MIDDLE = 8, MOST = 15;
    static void raw(const char* block, int64_t v, VB* codes) { load_halves(block, v, codes); }
    void load(const char* block, int64_t v, VB* codes) const { raw(block, v, codes); }
    static void put_lane(char* block, int64_t lane, const uint8_t* codes) { put_halves(block, lane, codes); }
    static void get_lane(const char* block, int64_t lane, uint8_t* codes) { get_halves(block, lane, codes); }
};

struct Codes5 : LinearCodes { // bit g of the fifth row belongs to group g
    using LinearCodes::LinearCodes;
    static constexpr int64_t BYTES = 320;
    static constexpr int MIDDLE = 16, MOST = 31;
    static void raw(const char* block, int64_t v, VB* codes) {
        load_halves(block, v, codes);
        const VB high = row_of_codes(block, 4, v);
#pragma GCC unroll 8
        for (int g = 0; g < GROUPS; ++g) codes[g] |= (g < 4 ? left(high, 4 - g) : right(high, g - 4)) & all_bytes(16);
    }
    void load(const char* block, int64_t v, VB* codes) const { raw(block, v, codes); }
    static void put_lane(char* block, int64_t lane, const uint8_t* codes) {
        put_halves(block, lane, codes);
        for (int64_t j = 0; j < 4; ++j) {
            int bits = 0;
            for (int64_t g = 0; g < GROUPS; ++g) bits |= (codes[4 * g + j] >> 4 & 1) << g;
            block[4 * GROUP_BYTES + lane * 4 + j] = static_cast<char>(bits);
        }
    }
    static void get_lane(const char* block, int64_t lane, uint8_t* codes) {
        get_halves(block, lane, codes);
        for (int64_t i = 0; i < BLOCK; ++i) {
            const uint8_t bits = static_cast<uint8_t>(block[4 * GROUP_BYTES + lane * 4 + i % 4]);
            codes[i] = static_cast<uint8_t>(codes[i] | (bits >> (i / 4) & 1) << 4);
        }
    }
};

struct Codes6 : LinearCodes { // rows four and five: two bits for each of four groups
    using LinearCodes::LinearCodes;
    static constexpr int64_t BYTES = 384;
    static constexpr int MIDDLE = 32, MOST = 63;
    static void raw(const char* block, int64_t v, VB* codes) {
        load_halves(block, v, codes);
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
            const VB high = row_of_codes(block, 4 + h, v);
            const VB moved[4] = {left(high, 4), left(high, 2), high, right(high, 2)};
#pragma GCC unroll 4
            for (int k = 0; k < 4; ++k) codes[4 * h + k] |= moved[k] & all_bytes(48);
        }
    }
    void load(const char* block, int64_t v, VB* codes) const { raw(block, v, codes); }
    static void put_lane(char* block, int64_t lane, const uint8_t* codes) {
        put_halves(block, lane, codes);
        for (int64_t i = 0; i < 8; ++i) {
            int bits = 0;
            for (int64_t k = 0; k < 4; ++k) bits |= (codes[16 * (i / 4) + 4 * k + i % 4] >> 4 & 3) << (2 * k);
            block[(4 + i / 4) * GROUP_BYTES + lane * 4 + i % 4] = static_cast<char>(bits);
        }
    }
    static void get_lane(const char* block, int64_t lane, uint8_t* codes) {
        get_halves(block, lane, codes);
        for (int64_t i = 0; i < BLOCK; ++i) {
            const uint8_t bits = static_cast<uint8_t>(block[(4 + i / 16) * GROUP_BYTES + lane * 4 + i % 4]);
            codes[i] = static_cast<uint8_t>(codes[i] | (bits >> (i / 4 % 4 * 2) & 3) << 4);
        }
    }
};

struct Codes8 : LinearCodes {
    using LinearCodes::LinearCodes;
    static constexpr bool WIDE = true;
    static constexpr int TAKEN = WIDE_TAKEN;
    static constexpr int64_t BYTES = 512;
    static constexpr int MIDDLE = 128, MOST = 255;
    static void raw(const char* block, int64_t v, VB* codes) {
        for (int g = 0; g < GROUPS; ++g) codes[g] = row_of_codes(block, g, v);
    }
    void load(const char* block, int64_t v, VB* codes) const { raw(block, v, codes); }
    static void put_lane(char* block, int64_t lane, const uint8_t* codes) {
        for (int64_t i = 0; i < BLOCK; ++i) block[i / 4 * GROUP_BYTES + lane * 4 + i % 4] = static_cast<char>(codes[i]);
    }
    static void get_lane(const char* block, int64_t lane, uint8_t* codes) {
        for (int64_t i = 0; i < BLOCK; ++i)
            codes[i] = static_cast<uint8_t>(block[i / 4 * GROUP_BYTES + lane * 4 + i % 4]);
    }
};

// The table holds 16 bytes, again and again.
#if defined(__AVX512F__)
inline VB look_up(VB table, VB codes) { return (VB)_mm512_shuffle_epi8((__m512i)table, (__m512i)codes); }
#elif defined(__AVX2__)
inline VB look_up(VB table, VB codes) { return (VB)_mm256_shuffle_epi8((__m256i)table, (__m256i)codes); }
#else
__attribute__((noinline)) inline VB look_up(VB table, VB codes) { // byte by byte: inline it takes minutes to compile
    VB found;
    for (int i = 0; i < CODE_VECTOR; ++i) found[i] = table[codes[i]];
    return found;
}
#endif

// Four bits that look up 16 values. matrix.extra[2] holds them, and a factor by which they are rounded to whole numbers
// in [-127, 127] for integer products: exact for floats of four bits, within 0.4 % of the largest for others.
class TableCodes {
  public:
    static constexpr bool WIDE = true;
    static constexpr int TAKEN = WIDE_TAKEN;
    static constexpr int64_t BYTES = 256;
    static constexpr int MIDDLE = 128, MOST = 255;

    explicit TableCodes(const tm_matrix& matrix) : values_(static_cast<const float*>(matrix.extra[2])) {
        for (int i = 0; i < 16; ++i) {
            const float scaled = values_[i] * values_[16];
            const int whole = static_cast<int>(scaled < 0 ? scaled - 0.5f : scaled + 0.5f);
            for (int j = i; j < CODE_VECTOR; j += 16) bytes_[j] = static_cast<uint8_t>(whole + MIDDLE);
        }
    }
    float unit() const { return 1.0f / values_[16]; }
    static void raw(const char* block, int64_t v, VB* codes) { load_halves(block, v, codes); }
    void load(const char* block, int64_t v, VB* codes) const {
        raw(block, v, codes);
        for (int g = 0; g < GROUPS; ++g) codes[g] = look_up(bytes_, codes[g]);
    }
    VF number(VU code) const {
#if defined(__AVX512F__)
        return _mm512_permutexvar_ps((__m512i)code, get<VF>(values_));
#else
        VF found;
        for (int i = 0; i < W; ++i) found[i] = values_[code[i]];
        return found;
#endif
    }
    static void put_lane(char* block, int64_t lane, const uint8_t* codes) { put_halves(block, lane, codes); }
    static void get_lane(const char* block, int64_t lane, uint8_t* codes) { get_halves(block, lane, codes); }

  private:
    VB bytes_;
    const float* values_;
};

// Floats of eight bits; only multiplied as floats. `topmost` is the number of the code in each lane's upper byte; of E4M3
// it need not tell codes of no number, which Poison looks for.
struct FloatCodes : Codes8 {
    using Codes8::Codes8;
};

struct E4M3Codes : FloatCodes { // finite only: no infinities, one NaN of each sign
    using FloatCodes::FloatCodes;
    static VF number(VU code) {
        const VF magnitude = (VF)((code & 0x7f) << 20) * splat(0x1p120f); // serves subnormals too
        const VU bits = (code & 0x7f) == 0x7f ? (code & 0) + 0x7fc00000 : (VU)magnitude;
        return (VF)(bits | (code & 0x80) << 24);
    }
    static VF topmost(VU codes) { return (VF)(VU)(((VI)codes >> 4) & (VI)(VU{} + 0x87f00000)) * splat(0x1p120f); }
};

struct E5M2Codes : FloatCodes { // the upper half of a float16
    using FloatCodes::FloatCodes;
    static VF number(VU code) { return widen_f16(__builtin_convertvector(code << 8, VH)); }
    static VF topmost(VU codes) { return number(codes >> 24); }
};

// Which lanes have met a code of no number.
template <class Codes> struct Poison {
    void see(VB) {}
    VF taint(VF sum) const { return sum; }
};

template <> struct Poison<E4M3Codes> {
    VB seen = {};
    void see(VB codes) { seen |= (VB)((codes & all_bytes(0x7f)) == all_bytes(0x7f)); }
    VF taint(VF sum) const { return (VU)seen != 0 ? sum * 0 + splat(__builtin_nanf("")) : sum; }
};

} // namespace tramontane::TM_ISA
