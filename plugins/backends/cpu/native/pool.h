// SPDX-License-Identifier: Apache-2.0
// A few threads that run one region at a time: every worker executes the same function and shares its units of work.
//
// Units are what is fixed: their number and content follow from shapes alone, and each is computed whole by whoever
// draws its ticket. So neither the number of threads nor their luck changes a result, and a thread that the machine
// holds up only takes fewer units. Waiting spins for at most SPIN_NS, then sleeps.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

#include "memory.h"

namespace tramontane {

constexpr int64_t SPIN_NS = 50'000;

// A number that waiters wait on to pass a value: spin, then sleep.
class Signal {
  public:
    uint32_t value() const { return value_.load(std::memory_order_acquire); }
    void raise();
    void await_other_than(uint32_t seen);

  private:
    std::atomic<uint32_t> value_{0};
    std::atomic<int> sleepers_{0};
    std::mutex mutex_;
    std::condition_variable wake_;
};

// What the workers of one region share.
class Team {
  public:
    int size = 1;
    std::atomic<int32_t> status{0}; // first fault of the region
    char* shared = nullptr;         // scratch of the running kernel
    char* own = nullptr;            // scratch of each worker, own_bytes apart
    int64_t own_bytes = 0;

    void arrive(uint32_t phase);
    std::atomic<int64_t>& tickets(uint32_t phase) { return tickets_[phase % 3].count; }
    // The same of the stretch that is one worker's own.
    std::atomic<int64_t>& tickets_of(int worker, uint32_t phase) { return stretches_[phase % 3][worker].count; }
    void seat(int workers); // before anybody works

  private:
    struct alignas(64) Ticket {
        std::atomic<int64_t> count{0};
    };
    // Of the three one is drawn from, one is already zero for the next phase, one is being reset.
    Ticket tickets_[3];
    alignas(64) std::atomic<int> arrived_{0};
    Signal passed_;
    std::vector<Ticket> stretches_[3];

    void reset(uint32_t phase);
};

// One worker's view of a region. All workers must make the same sequence of calls.
class Worker {
  public:
    Worker(Team& team, int index) : team_(team), index_(index) {}

    // Runs f(begin, end) over [0, units) in pieces of `grain`; returns when all of it is done.
    template <class F> void each(int64_t units, int64_t grain, F&& f) {
        std::atomic<int64_t>& tickets = team_.tickets(phase_);
        while (true) {
            const int64_t begin = tickets.fetch_add(grain, std::memory_order_relaxed);
            if (begin >= units) break;
            f(begin, begin + grain < units ? begin + grain : units);
        }
        barrier();
    }

    // The same, one by one, for units whose data lie one after the other in memory: each worker has a stretch of them to
    // itself, so that what it fetches ahead is its own, and helps the others when that is done.
    template <class F> void each_in_stretches(int64_t units, F&& f) {
        const int64_t workers = team_.size;
        for (int64_t i = 0; i < workers; ++i) {
            const int64_t owner = (index_ + i) % workers;
            const int64_t first = units * owner / workers, last = units * (owner + 1) / workers;
            std::atomic<int64_t>& tickets = team_.tickets_of(static_cast<int>(owner), phase_);
            while (true) {
                const int64_t unit = first + tickets.fetch_add(1, std::memory_order_relaxed);
                if (unit >= last) break;
                f(unit);
            }
        }
        barrier();
    }

    void barrier() { team_.arrive(phase_++); }
    bool first() const { return index_ == 0; } // the thread that called the pool
    char* shared() const { return team_.shared; }
    char* own() const { return team_.own + index_ * team_.own_bytes; }
    void fail(int32_t status) {
        int32_t none = 0;
        team_.status.compare_exchange_strong(none, status);
    }

  private:
    Team& team_;
    int index_;
    uint32_t phase_ = 0;
};

struct PoolState;

// Threads are started once and sleep between regions. One region runs at a time; others wait their turn.
class Pool {
  public:
    using Body = void (*)(Worker&, void*);

    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int threads() const { return threads_; }

    // Runs body on all threads, or on this one alone. Scratch: `shared` bytes for all, `own` bytes for each worker.
    // Returns the first status that a worker failed with, or 0.
    int32_t run(bool alone, int64_t shared, int64_t own, Body body, void* context);

  private:
    void start();

    int threads_;
    PoolState* state_ = nullptr;
    uint64_t born_ = 0; // how often this process had been forked when the threads were started
};

template <class F> int32_t run_on(Pool& pool, bool alone, int64_t shared, int64_t own, F&& f) {
    return pool.run(
        alone, shared, own, [](Worker& worker, void* context) { (*static_cast<F*>(context))(worker); }, &f);
}

} // namespace tramontane
