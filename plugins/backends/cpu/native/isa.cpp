// SPDX-License-Identifier: Apache-2.0
#include "isa.h"

#include <atomic>
#include <cstring>

#include "kernels/table.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace tramontane {

namespace portable { extern const KernelTable TABLE; }
#if TM_HAVE_AVX2
namespace avx2 { extern const KernelTable TABLE; }
#endif
#if TM_HAVE_AVX512
namespace avx512 { extern const KernelTable TABLE; }
#endif
#if TM_HAVE_AVX512BF16
namespace avx512bf16 { extern const KernelTable TABLE; }
#endif

namespace {

struct Level {
    Isa isa;
    const char* name;
    const KernelTable* table;
};

const Level LEVELS[] = {
    {Isa::portable, "portable", &portable::TABLE},
#if TM_HAVE_AVX2
    {Isa::avx2, "avx2", &avx2::TABLE},
#endif
#if TM_HAVE_AVX512
    {Isa::avx512, "avx512", &avx512::TABLE},
#endif
#if TM_HAVE_AVX512BF16
    {Isa::avx512bf16, "avx512bf16", &avx512bf16::TABLE},
    {Isa::amx, "amx", &avx512bf16::TABLE},
#endif
};

#if defined(__x86_64__)

struct Cpu {
    unsigned ebx7 = 0, ecx7 = 0, edx7 = 0, eax71 = 0, ecx1 = 0;
    unsigned long long enabled = 0; // register states that the operating system saves

    Cpu() {
        unsigned eax, ebx, ecx, edx;
        if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return;
        ecx1 = ecx;
        if (!(ecx & bit_OSXSAVE)) return;
        unsigned low, high;
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        enabled = (static_cast<unsigned long long>(high) << 32) | low;
        if (__get_cpuid_count(7, 0, &eax, &ebx7, &ecx7, &edx7)) __get_cpuid_count(7, 1, &eax71, &ebx, &ecx, &edx);
    }

    bool avx2() const {
        const unsigned wanted = bit_FMA | bit_F16C | bit_AVX;
        return (enabled & 0x6) == 0x6 && (ecx1 & wanted) == wanted && (ebx7 & (1u << 5)) && (ebx7 & (1u << 8));
    }

    bool avx512() const { // F, DQ, BW, VL and VNNI
        const unsigned wanted = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);
        return avx2() && (enabled & 0xe6) == 0xe6 && (ebx7 & wanted) == wanted && (ecx7 & (1u << 11));
    }

    bool avx512bf16() const { return avx512() && (eax71 & (1u << 5)) && (ecx7 & (1u << 1)); } // and VBMI

    bool amx() const { // tiles, bf16 and int8, and the right to use them
        const unsigned wanted = (1u << 22) | (1u << 24) | (1u << 25);
        if (!avx512bf16() || (edx7 & wanted) != wanted || (enabled & 0x60000) != 0x60000) return false;
#if defined(__linux__)
        constexpr long REQUEST = 0x1023, TILE_DATA = 18; // ARCH_REQ_XCOMP_PERM: large register state is opt-in
        return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
        return false;
#endif
    }
};

bool runs(Isa isa) {
    static const Cpu cpu;
    switch (isa) {
    case Isa::portable: return true;
    case Isa::avx2: return cpu.avx2();
    case Isa::avx512: return cpu.avx512();
    case Isa::avx512bf16: return cpu.avx512bf16();
    case Isa::amx: return cpu.amx();
    }
    return false;
}

#else

bool runs(Isa isa) { return isa == Isa::portable; }

#endif

const Level* find(const char* name) {
    for (const Level& level : LEVELS)
        if (std::strcmp(level.name, name) == 0) return runs(level.isa) ? &level : nullptr;
    return nullptr;
}

const Level* best() {
    const Level* found = nullptr;
    for (const Level& level : LEVELS)
        if (runs(level.isa)) found = &level;
    return found;
}

std::atomic<const Level*> chosen{nullptr};

const Level* current() {
    const Level* level = chosen.load(std::memory_order_acquire);
    if (level != nullptr) return level;
    choose_isa(nullptr);
    return chosen.load(std::memory_order_acquire);
}

} // namespace

bool choose_isa(const char* wanted) {
    const Level* level = wanted == nullptr || *wanted == 0 ? best() : find(wanted);
    if (level == nullptr) return false;
    chosen.store(level, std::memory_order_release);
    return true;
}

const char* current_isa() { return current()->name; }

bool can_run(const char* name) { return find(name) != nullptr; }

const KernelTable& kernel_table() { return *current()->table; }

bool amx_enabled() { return current()->isa == Isa::amx; }

} // namespace tramontane
