// SPDX-License-Identifier: Apache-2.0
#include "pool.h"

#include "abi.h"

#include <chrono>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace tramontane {

namespace {

void relax() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

int64_t now_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

// A forked child has none of its parent's threads; pools notice by this count and start their own.
std::atomic<uint64_t> forks{0};

void watch_forks() {
#if !defined(_WIN32)
    static const int once = pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1); });
    (void)once;
#endif
}

constexpr int64_t LINE = 64;

} // namespace

void Signal::raise() {
    // Sequentially consistent with the sleeper's own order (count, then look), so that one of the two sees the other.
    value_.fetch_add(1);
    if (sleepers_.load() > 0) {
        { std::lock_guard<std::mutex> lock(mutex_); }
        wake_.notify_all();
    }
}

void Signal::await_other_than(uint32_t seen) {
    const int64_t until = now_ns() + SPIN_NS;
    do {
        for (int i = 0; i < 32; ++i) {
            if (value() != seen) return;
            relax();
        }
    } while (now_ns() < until);
    std::unique_lock<std::mutex> lock(mutex_);
    sleepers_.fetch_add(1);
    wake_.wait(lock, [&] { return value_.load() != seen; });
    sleepers_.fetch_sub(1);
}

void Team::seat(int workers) {
    size = workers;
    for (auto& stretches : stretches_) stretches = std::vector<Ticket>(static_cast<size_t>(workers));
}

void Team::reset(uint32_t phase) {
    tickets(phase).store(0, std::memory_order_relaxed);
    for (Ticket& ticket : stretches_[phase % 3]) ticket.count.store(0, std::memory_order_relaxed);
}

void Team::arrive(uint32_t phase) {
    if (size == 1) return reset(phase);
    const uint32_t seen = passed_.value();
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
        arrived_.store(0, std::memory_order_relaxed);
        reset(phase + 2); // what the phase before drew from; nobody does now
        passed_.raise();
    } else {
        passed_.await_other_than(seen);
    }
}

// Lives on the heap and is left behind after a fork: its threads, and whoever held its mutex, are gone.
struct PoolState {
    std::mutex turn;
    Team team;
    Team solo;
    Signal work;
    Scratch shared, own;
    Pool::Body body = nullptr;
    void* context = nullptr;
    bool stop = false;
    std::vector<std::thread> threads;

    void help(int index) {
        uint32_t seen = 0;
        while (true) {
            work.await_other_than(seen);
            seen = work.value();
            if (stop) return;
            Worker worker(team, index);
            body(worker, context);
            worker.barrier();
        }
    }
};

Pool::Pool(int threads) : threads_(threads < 1 ? 1 : threads) { watch_forks(); }

Pool::~Pool() {
    if (state_ == nullptr || born_ != forks.load()) return; // never started, or not our threads
    state_->stop = true;
    state_->work.raise();
    for (std::thread& thread : state_->threads) thread.join();
    delete state_;
}

void Pool::start() {
    born_ = forks.load();
    state_ = new PoolState;
    state_->team.seat(threads_);
    state_->solo.seat(1);
    try {
        for (int i = 1; i < threads_; ++i) state_->threads.emplace_back([state = state_, i] { state->help(i); });
    } catch (const std::system_error&) {
        // The system gives no more threads: work with those there are.
        state_->team.size = threads_ = 1 + static_cast<int>(state_->threads.size());
    }
}

int32_t Pool::run(bool alone, int64_t shared, int64_t own, Body body, void* context) {
    static std::mutex starting;
    {
        std::lock_guard<std::mutex> lock(starting);
        if (state_ == nullptr || born_ != forks.load()) start();
    }
    PoolState& state = *state_;
    std::lock_guard<std::mutex> turn(state.turn);
    Team& team = alone || threads_ == 1 ? state.solo : state.team;
    team.status.store(0, std::memory_order_relaxed);
    team.own_bytes = (own + LINE - 1) / LINE * LINE;
    team.shared = state.shared.reserve(shared);
    team.own = state.own.reserve(team.own_bytes * team.size);
    if ((shared > 0 && team.shared == nullptr) || (own > 0 && team.own == nullptr)) return TM_NO_MEMORY;
    Worker worker(team, 0);
    if (team.size == 1) {
        body(worker, context);
    } else {
        state.body = body;
        state.context = context;
        state.work.raise();
        body(worker, context);
        worker.barrier(); // the others have left the region
    }
    return team.status.load(std::memory_order_relaxed);
}

} // namespace tramontane
