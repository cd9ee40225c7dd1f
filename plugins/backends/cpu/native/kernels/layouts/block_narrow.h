// SPDX-License-Identifier: Apache-2.0
// Codes of two and of three bits, and codes that look up a table known here: what block_codes.h says holds for them too.
#pragma once
#include "kernels/layouts/block_codes.h"

namespace tramontane::TM_ISA {

struct Codes2 : LinearCodes { // groups r, r + 2, r + 4 and r + 6 share row r
    using LinearCodes::LinearCodes;
    static constexpr int64_t BYTES = 128;
    static constexpr int MIDDLE = 1, MOST = 3;
    static void raw(const char* block, int64_t v, VB* codes) {
#pragma GCC unroll 2
        for (int r = 0; r < 2; ++r) {
            const VB four = row_of_codes(block, r, v);
#pragma GCC unroll 4
            for (int k = 0; k < 4; ++k) codes[2 * k + r] = right(four, 2 * k) & all_bytes(3);
        }
    }
    void load(const char* block, int64_t v, VB* codes) const { raw(block, v, codes); }
    static void put_lane(char* block, int64_t lane, const uint8_t* codes) {
        for (int64_t i = 0; i < 8; ++i) {
            int bits = 0;
            for (int64_t k = 0; k < 4; ++k) bits |= (codes[8 * k + i] & 3) << (2 * k);
            block[i / 4 * GROUP_BYTES + lane * 4 + i % 4] = static_cast<char>(bits);
        }
    }
    static void get_lane(const char* block, int64_t lane, uint8_t* codes) {
        for (int64_t i = 0; i < BLOCK; ++i) {
            const uint8_t bits = static_cast<uint8_t>(block[i / 4 % 2 * GROUP_BYTES + lane * 4 + i % 4]);
            codes[i] = bits >> (i / 8 * 2) & 3;
        }
    }
};

// Row r: groups 2r and 2r + 1, and above them two bits: the lower ones of group six in row zero and of group seven in
// row two, the third bit of either in row one. That takes half the instructions of a plane of third bits.
struct Codes3 : LinearCodes {
    using LinearCodes::LinearCodes;
    static constexpr int64_t BYTES = 192;
    static constexpr int MIDDLE = 4, MOST = 7;
    static void raw(const char* block, int64_t v, VB* codes) {
        VB row[3];
#pragma GCC unroll 3
        for (int r = 0; r < 3; ++r) {
            row[r] = row_of_codes(block, r, v);
            codes[2 * r] = row[r] & all_bytes(7);
            codes[2 * r + 1] = right(row[r], 3) & all_bytes(7);
        }
        codes[6] = (right(row[0], 6) & all_bytes(3)) | (right(row[1], 4) & all_bytes(4));
        codes[7] = (right(row[2], 6) & all_bytes(3)) | (right(row[1], 5) & all_bytes(4));
    }
    void load(const char* block, int64_t v, VB* codes) const { raw(block, v, codes); }
    static void put_lane(char* block, int64_t lane, const uint8_t* codes) {
        for (int64_t j = 0; j < 4; ++j) {
            const int six = codes[24 + j], seven = codes[28 + j], above[3] = {six & 3, six >> 2 | seven >> 2 << 1, seven & 3};
            for (int64_t r = 0; r < 3; ++r)
                block[r * GROUP_BYTES + lane * 4 + j] =
                    static_cast<char>(codes[8 * r + j] | codes[8 * r + 4 + j] << 3 | above[r] << 6);
        }
    }
    static void get_lane(const char* block, int64_t lane, uint8_t* codes) {
        for (int64_t j = 0; j < 4; ++j) {
            int above[3];
            for (int64_t r = 0; r < 3; ++r) {
                const uint8_t bits = static_cast<uint8_t>(block[r * GROUP_BYTES + lane * 4 + j]);
                codes[8 * r + j] = bits & 7, codes[8 * r + 4 + j] = bits >> 3 & 7, above[r] = bits >> 6;
            }
            codes[24 + j] = static_cast<uint8_t>(above[0] | (above[1] & 1) << 2);
            codes[28 + j] = static_cast<uint8_t>(above[2] | above[1] >> 1 << 2);
        }
    }
};

// Odd numbers: code c stands for 2 c - 15.
struct OddCodes : Codes4 {
    using Codes4::Codes4;
    static constexpr float MIDDLE = 7.5f, UNIT = 2;
};

// --- tables ----------------------------------------------------------------------------------------------------------
// Each: what its codes are multiplied as, shifted by MIDDLE so that none is negative, and what a step is worth.

struct UnevenSteps { // -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113
    static constexpr bool WIDE = true;
    static constexpr int MIDDLE = 128, MOST = 255;
    static constexpr float UNIT = 1;
    static constexpr uint8_t NUMBERS[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};
};

struct DoubledE2M1 { // 0 1 2 3 4 6 8 12, then the same below zero
    static constexpr bool WIDE = false;
    static constexpr int MIDDLE = 12, MOST = 24;
    static constexpr float UNIT = 1;
    static constexpr uint8_t NUMBERS[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
};

struct ThreeSizes { // 8 25 43 and one that is not used, then the same below zero; of an eighth
    static constexpr bool WIDE = false;
    static constexpr int MIDDLE = 43, MOST = 86;
    static constexpr float UNIT = 0.125f;
    static constexpr uint8_t NUMBERS[16] = {51, 68, 86, 43, 35, 18, 0, 43};
};

struct EightSizes { // 2 6 10 14 18 22 26 31, then the same below zero; of a half
    static constexpr bool WIDE = false;
    static constexpr int MIDDLE = 31, MOST = 62;
    static constexpr float UNIT = 0.5f;
    static constexpr uint8_t NUMBERS[16] = {33, 37, 41, 45, 49, 53, 57, 62, 29, 25, 21, 17, 13, 9, 5, 0};
};

struct ShiftedTernary { // -9 -7 -1 1 7 9 of an eighth
    static constexpr bool WIDE = false;
    static constexpr float MIDDLE = 4.5f, UNIT = 0.25f;
    static constexpr int MOST = 9;
    static constexpr uint8_t NUMBERS[16] = {0, 1, 4, 5, 8, 9};
};

// Codes stored as Packed, which stand for the numbers of a table.
template <class Packed, class Table> class LookUpCodes : public LinearCodes {
  public:
    static constexpr bool WIDE = Table::WIDE;
    static constexpr int TAKEN = WIDE ? WIDE_TAKEN : 0, MOST = Table::MOST;
    static constexpr auto MIDDLE = Table::MIDDLE;
    static constexpr float UNIT = Table::UNIT;
    static constexpr int64_t BYTES = Packed::BYTES;

    explicit LookUpCodes(const tm_matrix& matrix) : LinearCodes(matrix) {
        for (int64_t i = 0; i < CODE_VECTOR; ++i) numbers_[i] = Table::NUMBERS[i % 16];
    }
    void raw(const char* block, int64_t v, VB* codes) const {
        Packed::raw(block, v, codes);
#pragma GCC unroll 8
        for (int g = 0; g < GROUPS; ++g) codes[g] = look_up(numbers_, codes[g]);
    }
    void load(const char* block, int64_t v, VB* codes) const { raw(block, v, codes); }
    static void put_lane(char* block, int64_t lane, const uint8_t* codes) { Packed::put_lane(block, lane, codes); }
    static void get_lane(const char* block, int64_t lane, uint8_t* codes) { Packed::get_lane(block, lane, codes); }

  private:
    VB numbers_;
};

} // namespace tramontane::TM_ISA
