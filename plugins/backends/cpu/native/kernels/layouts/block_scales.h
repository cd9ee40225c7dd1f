// SPDX-License-Identifier: Apache-2.0
// What turns codes into weights: scales of blocks, with a zero point, an offset, or integer scales under a float one.
//
// A chunk is what shares one set of scales: a group of blocks, or eight blocks of a K type. Its scales are vectors of 16
// outputs. Products are taken per block of 32 inputs, whose activations share a scale of their own:
// sum over a block of (q * x) is an integer, and becomes a float only there.
#pragma once
#include "kernels/form_q8.h"
#include "kernels/layouts/block_codes.h"

namespace tramontane::TM_ISA {

// 16 scales of a chunk: the vector of lanes that v stands for.
inline VF scale_vector(const char* scales, int64_t v, int32_t dtype) {
    const char* at = scales + v * W * size_of(dtype);
    if (dtype == TM_F16) return Element<f16>::load(reinterpret_cast<const f16*>(at));
    return dtype == TM_F32 ? get<VF>(at) : Element<bf16>::load(reinterpret_cast<const bf16*>(at));
}

// Each class: `open` a chunk, then `block` by block either `add` what the product of a row gave and `close` the chunk, or,
// for many rows, ask for the block's line: w = slope * (what is multiplied) - drop, for each half where HALVES says so;
// without DROPS that is nothing.

// What one row of activations gathers over a chunk; unused parts vanish in the compiler.
struct Gathered {
    VF part = zero(), low = zero();
    float shift = 0;
};

// w = scale * (code - middle)
template <class Codes> class Centered {
  public:
    static constexpr bool HALVES = false;
    static constexpr bool DROPS = Codes::MIDDLE != Codes::TAKEN;
    static constexpr int64_t VECTORS = 1;
    Centered() = default;
    Centered(const tm_matrix& matrix, const Codes& codes) : dtype_(matrix.dtype), unit_(splat(codes.unit())) {}
    static int64_t bytes(int32_t dtype) { return PANEL * size_of(dtype); }
    void open(const char* at, int64_t v) { scale_ = scale_vector(at, v, dtype_); }
    void block(int64_t) {}
    void add(VI first, VI second, const BlockOfX& x, Gathered& to) const {
        to.part = fma(__builtin_convertvector(first + second, VF), splat(x.scale), to.part);
        to.shift += x.sum;
    }
    VF close(const Gathered& from, VF total) const {
        constexpr float middle = Codes::MIDDLE - Codes::TAKEN;
        return fma(from.part - splat(middle * from.shift), scale_ * unit_, total);
    }
    VF value(int, VF number, bool centered) const {
        return (centered ? number - splat(Codes::MIDDLE) : number) * scale_;
    }
    VF slope(int) const { return scale_ * unit_; }
    VF drop(int) const { return slope(0) * static_cast<float>(Codes::MIDDLE - Codes::TAKEN); }

  private:
    int32_t dtype_;
    VF unit_, scale_;
};

// w = scale * (code - zero)
template <class Codes> class Zeroed {
  public:
    static constexpr bool HALVES = false;
    static constexpr bool DROPS = true;
    static constexpr int64_t VECTORS = 2;
    Zeroed() = default;
    Zeroed(const tm_matrix& matrix, const Codes&) : dtype_(matrix.dtype) {}
    static int64_t bytes(int32_t dtype) { return 2 * PANEL * size_of(dtype); }
    void open(const char* at, int64_t v) {
        scale_ = scale_vector(at, v, dtype_);
        zero_ = scale_vector(at + PANEL * size_of(dtype_), v, dtype_);
    }
    void block(int64_t) {}
    void add(VI first, VI second, const BlockOfX& x, Gathered& to) const {
        to.part = fma(__builtin_convertvector(first + second, VF), splat(x.scale), to.part);
        to.shift += x.sum;
    }
    VF close(const Gathered& from, VF total) const {
        const VF zeros = (zero_ - splat(Codes::TAKEN)) * splat(from.shift);
        return fma(from.part - zeros, scale_, total);
    }
    VF value(int, VF number, bool) const { return (number - zero_) * scale_; }
    VF slope(int) const { return scale_; }
    VF drop(int) const { return (zero_ - static_cast<float>(Codes::TAKEN)) * scale_; }

  private:
    int32_t dtype_;
    VF scale_, zero_;
};

// w = scale * code + offset
template <class Codes> class Shifted {
  public:
    static constexpr bool HALVES = false;
    static constexpr bool DROPS = true;
    static constexpr int64_t VECTORS = 2;
    Shifted() = default;
    Shifted(const tm_matrix& matrix, const Codes&) : dtype_(matrix.dtype) {}
    static int64_t bytes(int32_t dtype) { return 2 * PANEL * size_of(dtype); }
    void open(const char* at, int64_t v) {
        scale_ = scale_vector(at, v, dtype_);
        offset_ = scale_vector(at + PANEL * size_of(dtype_), v, dtype_);
    }
    void block(int64_t) {}
    void add(VI first, VI second, const BlockOfX& x, Gathered& to) const {
        to.part = fma(__builtin_convertvector(first + second, VF), splat(x.scale), to.part);
        to.shift += x.sum;
    }
    VF close(const Gathered& from, VF total) const {
        const VF shift = splat(from.shift);
        return fma(fma(splat(Codes::TAKEN), shift, from.part), scale_, fma(offset_, shift, total));
    }
    VF value(int, VF number, bool) const { return number * scale_ + offset_; }
    VF slope(int) const { return scale_; }
    VF drop(int) const { return zero() - fma(scale_, splat(Codes::TAKEN), offset_); }

  private:
    int32_t dtype_;
    VF scale_, offset_;
};

// W small scales at `from`. The compiler's own conversion from bytes goes lane by lane, at half the speed of the product.
inline VF small_scales(const char* from) {
#if defined(__AVX512F__)
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#elif defined(__AVX2__)
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#else
    typedef uint8_t Bytes __attribute__((vector_size(W)));
    return __builtin_convertvector(get<Bytes>(from), VF);
#endif
}

inline VF signed_small_scales(const char* from) {
#if defined(__AVX512F__)
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#elif defined(__AVX2__)
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#else
    typedef int8_t Bytes __attribute__((vector_size(W)));
    return __builtin_convertvector(get<Bytes>(from), VF);
#endif
}

// w = (factor * s) * code - (minimum * m), with whole s and m below 64 for each of the chunk's eight blocks.
// float16 factor [16], minimum [16]; bytes s [8][16], m [8][16].
template <class Codes> class SubScaled {
  public:
    static constexpr bool HALVES = false;
    static constexpr bool DROPS = true;
    static constexpr int64_t BLOCKS = 8, FACTORS = 2 * PANEL * 2, VECTORS = 0;
    SubScaled() = default;
    SubScaled(const tm_matrix&, const Codes&) {}
    static int64_t bytes(int32_t) { return FACTORS + 2 * BLOCKS * PANEL; }
    void open(const char* at, int64_t v) {
        factor_ = scale_vector(at, v, TM_F16);
        minimum_ = scale_vector(at + PANEL * 2, v, TM_F16);
        small_ = at + FACTORS + v * W;
    }
    void block(int64_t b) {
        scale_ = small_scales(small_ + b * PANEL);
        low_ = small_scales(small_ + (BLOCKS + b) * PANEL);
    }
    void add(VI first, VI second, const BlockOfX& x, Gathered& to) const {
        to.part = fma(__builtin_convertvector(first + second, VF), scale_ * splat(x.scale), to.part);
        to.low = fma(low_, splat(x.sum), to.low);
    }
    VF close(const Gathered& from, VF total) const {
        return fma(from.part, factor_, total) - from.low * minimum_;
    }
    VF value(int, VF number, bool) const { return factor_ * scale_ * number - minimum_ * low_; }
    VF slope(int) const { return factor_ * scale_; }
    VF drop(int) const { return minimum_ * low_; }

  private:
    VF factor_, minimum_, scale_, low_;
    const char* small_;
};

// Both halves of a block under scales of their own.
inline void add_halves(VI first, VI second, const VF (&scale)[2], const VF (&low)[2], const BlockOfX& x, Gathered& to) {
    to.part = fma(__builtin_convertvector(first, VF), scale[0] * splat(x.scale), to.part);
    to.part = fma(__builtin_convertvector(second, VF), scale[1] * splat(x.scale), to.part);
    to.low = fma(low[1], splat(x.halves[1]), fma(low[0], splat(x.halves[0]), to.low));
}

// w = (factor * s) * (code - middle) * unit, with a signed byte s for each half of the chunk's eight blocks.
// float16 factor [16]; bytes s [16][16].
template <class Codes> class HalfScaled {
  public:
    static constexpr bool HALVES = true;
    static constexpr bool DROPS = true;
    static constexpr int64_t BLOCKS = 8, FACTORS = PANEL * 2, VECTORS = 0;
    HalfScaled() = default;
    HalfScaled(const tm_matrix&, const Codes&) {}
    static int64_t bytes(int32_t) { return FACTORS + 2 * BLOCKS * PANEL; }
    void open(const char* at, int64_t v) {
        factor_ = scale_vector(at, v, TM_F16) * splat(Codes::UNIT);
        small_ = at + FACTORS + v * W;
    }
    void block(int64_t b) {
        for (int h = 0; h < 2; ++h) scale_[h] = signed_small_scales(small_ + (2 * b + h) * PANEL);
    }
    void add(VI first, VI second, const BlockOfX& x, Gathered& to) const {
        add_halves(first, second, scale_, scale_, x, to);
    }
    VF close(const Gathered& from, VF total) const {
        return fma(from.part - splat(Codes::MIDDLE) * from.low, factor_, total);
    }
    VF value(int half, VF number, bool) const { return factor_ * scale_[half] * (number - splat(Codes::MIDDLE)); }
    VF slope(int half) const { return factor_ * scale_[half]; }
    VF drop(int half) const { return slope(half) * static_cast<float>(Codes::MIDDLE); }

  private:
    VF factor_, scale_[2];
    const char* small_;
};

// w = (factor * s) * (code - middle) * unit, with a signed byte s for each of the chunk's eight blocks.
// float16 factor [16]; bytes s [8][16].
template <class Codes> class BlockScaled {
  public:
    static constexpr bool HALVES = false;
    static constexpr bool DROPS = Codes::MIDDLE != Codes::TAKEN;
    static constexpr int64_t BLOCKS = 8, FACTORS = PANEL * 2, VECTORS = 0;
    BlockScaled() = default;
    BlockScaled(const tm_matrix&, const Codes&) {}
    static int64_t bytes(int32_t) { return FACTORS + BLOCKS * PANEL; }
    void open(const char* at, int64_t v) {
        factor_ = scale_vector(at, v, TM_F16) * splat(Codes::UNIT);
        small_ = at + FACTORS + v * W;
    }
    void block(int64_t b) { scale_ = signed_small_scales(small_ + b * PANEL); }
    void add(VI first, VI second, const BlockOfX& x, Gathered& to) const {
        to.part = fma(__builtin_convertvector(first + second, VF), scale_ * splat(x.scale), to.part);
        if (DROPS) to.low = fma(scale_, splat(x.sum), to.low);
    }
    VF close(const Gathered& from, VF total) const { return fma(from.part - splat(LEFT) * from.low, factor_, total); }
    VF value(int, VF number, bool) const { return factor_ * scale_ * (number - splat(Codes::MIDDLE)); }
    VF slope(int) const { return factor_ * scale_; }
    VF drop(int) const { return slope(0) * LEFT; }

  private:
    static constexpr float LEFT = Codes::MIDDLE - Codes::TAKEN; // of the middle, where the product has not taken it off
    VF factor_, scale_;
    const char* small_;
};

// w = (factor * s) * code - (minimum * m), with whole s and m below 16 for each half of the chunk's eight blocks.
// float16 factor [16], minimum [16]; bytes s + 16 m [16][16].
template <class Codes> class HalfShifted {
  public:
    static constexpr bool HALVES = true;
    static constexpr bool DROPS = true;
    static constexpr int64_t BLOCKS = 8, FACTORS = 2 * PANEL * 2, VECTORS = 0;
    HalfShifted() = default;
    HalfShifted(const tm_matrix&, const Codes&) {}
    static int64_t bytes(int32_t) { return FACTORS + 2 * BLOCKS * PANEL; }
    void open(const char* at, int64_t v) {
        factor_ = scale_vector(at, v, TM_F16);
        minimum_ = scale_vector(at + PANEL * 2, v, TM_F16);
        small_ = at + FACTORS + v * W;
    }
    void block(int64_t b) {
        for (int h = 0; h < 2; ++h) {
            const VU both = widen_bytes(small_ + (2 * b + h) * PANEL);
            scale_[h] = __builtin_convertvector((VI)(both & 15), VF);
            low_[h] = __builtin_convertvector((VI)(both >> 4), VF);
        }
    }
    void add(VI first, VI second, const BlockOfX& x, Gathered& to) const {
        add_halves(first, second, scale_, low_, x, to);
    }
    VF close(const Gathered& from, VF total) const { return fma(from.part, factor_, total) - from.low * minimum_; }
    VF value(int half, VF number, bool) const { return factor_ * scale_[half] * number - minimum_ * low_[half]; }
    VF slope(int half) const { return factor_ * scale_[half]; }
    VF drop(int half) const { return minimum_ * low_[half]; }

  private:
    VF factor_, minimum_, scale_[2], low_[2];
    const char* small_;
};

// w = factor * (s * code - m), where m is s less an eighth of it, or with an eighth more.
// float16 factor [16]; signed bytes [8][16]: s, with a minus for the eighth more.
template <class Codes> class EighthShifted {
  public:
    static constexpr bool HALVES = false;
    static constexpr bool DROPS = true;
    static constexpr int64_t BLOCKS = 8, FACTORS = PANEL * 2, VECTORS = 0;
    EighthShifted() = default;
    EighthShifted(const tm_matrix&, const Codes&) {}
    static int64_t bytes(int32_t) { return FACTORS + BLOCKS * PANEL; }
    void open(const char* at, int64_t v) {
        factor_ = scale_vector(at, v, TM_F16);
        small_ = at + FACTORS + v * W;
    }
    void block(int64_t b) {
        const VF both = signed_small_scales(small_ + b * PANEL);
        scale_ = max_v(both, zero() - both);
        low_ = scale_ - both * splat(0.125f);
    }
    void add(VI first, VI second, const BlockOfX& x, Gathered& to) const {
        to.part = fma(__builtin_convertvector(first + second, VF), scale_ * splat(x.scale), to.part);
        to.low = fma(low_, splat(x.sum), to.low);
    }
    VF close(const Gathered& from, VF total) const { return fma(from.part - from.low, factor_, total); }
    VF value(int, VF number, bool) const { return factor_ * (scale_ * number - low_); }
    VF slope(int) const { return factor_ * scale_; }
    VF drop(int) const { return factor_ * low_; }

  private:
    VF factor_, scale_, low_;
    const char* small_;
};

// w = s * (code - middle), with half a float of eight bits (e4m3 without sign, what would be no number is nothing) for
// each half of the chunk's two blocks. Bytes [4][16].
template <class Codes> class FloatHalves {
  public:
    static constexpr bool HALVES = true;
    static constexpr bool DROPS = true;
    static constexpr int64_t BLOCKS = 2, VECTORS = 0;
    FloatHalves() = default;
    FloatHalves(const tm_matrix&, const Codes&) {}
    static int64_t bytes(int32_t) { return 2 * BLOCKS * PANEL; }
    void open(const char* at, int64_t v) { small_ = at + v * W; }
    void block(int64_t b) {
        for (int h = 0; h < 2; ++h) {
            const VU byte = widen_bytes(small_ + (2 * b + h) * PANEL), code = byte & 0x7f;
            const VF normal = (VF)((code << 20) + 0x3b800000);
            const VF half = code < 8 ? normal + normal - splat(0x1p-7f) : normal; // see widen_f8
            scale_[h] = byte == 0x7f ? zero() : half;
        }
    }
    void add(VI first, VI second, const BlockOfX& x, Gathered& to) const {
        add_halves(first, second, scale_, scale_, x, to);
    }
    VF close(const Gathered& from, VF total) const { return total + (from.part - splat(Codes::MIDDLE) * from.low); }
    VF value(int half, VF number, bool) const { return scale_[half] * (number - splat(Codes::MIDDLE)); }
    VF slope(int half) const { return scale_[half]; }
    VF drop(int half) const { return slope(half) * static_cast<float>(Codes::MIDDLE); }

  private:
    VF scale_[2];
    const char* small_;
};

} // namespace tramontane::TM_ISA
