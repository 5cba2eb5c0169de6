// CUDA C++ kernels as plain C++17: the source of a kernel, included after this header, runs on the CPU.
//
// Blocks run one after the other. Without barriers the threads of a block do too (a loop); with barriers each is a fiber
// (ucontext) that rests at __syncthreads() until all others have come there. Blocks and threads go forwards or
// backwards: a result that depends on it has a race. Shared memory is filled with 0xCD before every block, as on a GPU
// nothing is known of it. A barrier that some threads never reach, or one in a loop-mode kernel, ends the program.
//
// With COUNT_READS, __ldg counts how many different bytes of a watched buffer every block reads, summed over blocks.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#define CUDA_ON_CPU 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static __attribute__((section("cuda_shared")))

using std::max;
using std::min;

struct Place {
    unsigned x, y, z;
};
static Place threadIdx, blockIdx, blockDim, gridDim;

// -- arithmetic and memory -----------------------------------------------------------------------------------------

static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }

template <class T, class U>
static T atomicAdd(T* place, U value) {
    T before = *place;
    *place = (T)(before + (T)value);
    return before;
}
template <class T>
static T atomicMin(T* place, T value) {
    T before = *place;
    *place = min(before, value);
    return before;
}
template <class T>
static T atomicMax(T* place, T value) {
    T before = *place;
    *place = max(before, value);
    return before;
}

#ifdef COUNT_READS
static const char* watched;
static std::vector<uint64_t> last_block_to_read;  // of every watched byte, counted from 1
static uint64_t blocks_run, bytes_read;
extern "C" void watch(const void* begin, uint64_t size) {
    watched = (const char*)begin;
    last_block_to_read.assign(size, 0);
    bytes_read = 0;
}
extern "C" uint64_t watched_bytes_read() { return bytes_read; }
#endif

template <class T>
static T __ldg(const T* place) {
#ifdef COUNT_READS
    for (uint64_t at = (const char*)place - watched, end = at + sizeof(T); at < end; ++at)
        if (at < last_block_to_read.size() && last_block_to_read[at] != blocks_run) {
            last_block_to_read[at] = blocks_run;
            ++bytes_read;
        }
#endif
    return *place;
}

// -- fibers ----------------------------------------------------------------------------------------------------------

struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    Place thread;
    bool is_done;
};

static const size_t STACK_BYTES = 128 * 1024;
static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static Fiber* running = nullptr;  // none in loop mode
static void (*thread_body)(void*);
static void* thread_arguments;

[[noreturn]] static void stop(const char* reason) {
    fprintf(stderr, "cuda_on_cpu: %s\n", reason);
    exit(3);
}

static void __syncthreads() {
    if (!running) stop("a barrier in a kernel that was launched without fibers");
    swapcontext(&running->context, &scheduler);
}

static void enter_fiber() {
    thread_body(thread_arguments);
    running->is_done = true;
    swapcontext(&running->context, &scheduler);
}

static void run_fibers() {
    for (Fiber& fiber : fibers) {
        fiber.is_done = false;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter_fiber, 0);
    }
    size_t done = 0;
    while (done < fibers.size()) {  // from barrier to barrier
        done = 0;
        for (Fiber& fiber : fibers) {
            running = &fiber;
            threadIdx = fiber.thread;
            swapcontext(&scheduler, &fiber.context);
            done += fiber.is_done;
        }
        if (done != 0 && done != fibers.size()) stop("a barrier that some threads never reach");
    }
    running = nullptr;
}

// -- launches --------------------------------------------------------------------------------------------------------

// Ends of the section of shared memory, which the linker names; absent in sources without any.
extern "C" char __start_cuda_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_cuda_shared[] __attribute__((weak, visibility("hidden")));

template <class... Parameters>
struct Call {
    void (*kernel)(Parameters...);
    void** arguments;

    template <size_t... I>
    void operator()(std::index_sequence<I...>) const {
        kernel(*(std::decay_t<Parameters>*)arguments[I]...);
    }
    static void run(void* call) { (*(Call*)call)(std::index_sequence_for<Parameters...>{}); }
};

// `shape`: blocks in x, y, z, then threads in x. `arguments`: a pointer to each.
template <class... Parameters>
static void launch(void (*kernel)(Parameters...), const unsigned* shape, void** arguments, int with_fibers,
                   int backwards) {
    Call<Parameters...> call{kernel, arguments};
    unsigned threads = shape[3];
    gridDim = {shape[0], shape[1], shape[2]};
    blockDim = {threads, 1, 1};
    thread_body = &Call<Parameters...>::run;
    thread_arguments = &call;
    if (with_fibers) fibers.resize(threads);
    for (unsigned i = 0; with_fibers && i < threads; ++i) {
        fibers[i].stack.resize(STACK_BYTES);
        fibers[i].thread = {backwards ? threads - 1 - i : i, 0, 0};
    }
    uint64_t blocks = (uint64_t)shape[0] * shape[1] * shape[2];
    for (uint64_t step = 0; step < blocks; ++step) {
        uint64_t block = backwards ? blocks - 1 - step : step;
        blockIdx = {(unsigned)(block % shape[0]), (unsigned)(block / shape[0] % shape[1]),
                    (unsigned)(block / shape[0] / shape[1])};
#ifdef COUNT_READS
        ++blocks_run;
#endif
        if (with_fibers) {
            if (__start_cuda_shared) memset(__start_cuda_shared, 0xCD, __stop_cuda_shared - __start_cuda_shared);
            run_fibers();
            continue;
        }
        for (unsigned i = 0; i < threads; ++i) {
            threadIdx = {backwards ? threads - 1 - i : i, 0, 0};
            thread_body(thread_arguments);
        }
    }
}

#define EXPORT(kernel)                                                                                             \
    extern "C" void kernel##_on_cpu(const unsigned* shape, void** arguments, int with_fibers, int backwards) {    \
        launch(&kernel, shape, arguments, with_fibers, backwards);                                                 \
    }
