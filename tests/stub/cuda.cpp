// A driver and an NVRTC that do nothing, to see what normkit asks of them: memory is the host's, launches are written
// down, and answers can be set. Types are those of the real functions as far as calls go.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

typedef int Result;
typedef void* Handle;
#define EXPORT extern "C" __attribute__((visibility("default")))

// Handles that tests know.
static const uintptr_t CONTEXT = 0x1000;      // of GPU 0; that of GPU 1 is the next
static const uintptr_t FOREIGN = 0x6000;      // a stream of another context
static const uintptr_t CAPTURING = 0x7000;    // a stream that is being captured
static const uint64_t NOWHERE = 0x10000;      // no device's memory
static const uint64_t OTHER = 0x20000;        // memory of GPU 1

// What tests read and set, by name.
static struct Number {
    const char* name;
    long value;
} numbers[] = {
    {"contexts", 0}, {"entered", 0},  {"memory", 0},     {"scratch", 0},   {"waits", 0},    {"streams", 0},  {"launches", 0},
    {"stream", 0},   {"size", 0},     {"cluster", 0},    {"shared", 0},    {"relaxed", 0},  {"unrelaxed", 0}, {"compiled", 0},
    {"pools", 1},    {"launch", 0},   {"version", 12000}, {"minor", 0},    {"loaded", 0},   {"grid", 0},
};

EXPORT long* stub_number(const char* name) {
    for (Number& number : numbers)
        if (strcmp(number.name, name) == 0) return &number.value;
    abort();
}

static long& n(const char* name) { return *stub_number(name); }

static thread_local int mode;

// Allocating, freeing and loading must not become part of somebody's capture.
static void apart() { n(mode == 2 ? "relaxed" : "unrelaxed")++; }

EXPORT Result cuInit(unsigned) { return 0; }
EXPORT Result cuDriverGetVersion(int* version) { return *version = int(n("version")), 0; }
EXPORT Result cuDeviceGetCount(int* count) { return *count = 3, 0; }
EXPORT Result cuDeviceGet(int* device, int ordinal) { return *device = ordinal, ordinal < 3 ? 0 : 101; }
EXPORT Result cuDeviceGetName(char* name, int len, int device) { return snprintf(name, len, "Stub %d", device), 0; }
EXPORT Result cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = size_t(1) << 30, 0; }
EXPORT Result cuDeviceGetAttribute(int* value, int attribute, int device) {
    const int major[] = {9, 6, 12};
    switch (attribute) {
        case 75: *value = major[device]; break;        // compute capability
        case 76: *value = 0; break;
        case 16: *value = 132; break;                  // multiprocessors
        case 38: *value = 50 << 20; break;             // L2
        case 97: *value = 227 << 10; break;            // shared memory of a block
        case 115: *value = int(n("pools")); break;
        default: return 1;
    }
    return 0;
}
EXPORT Result cuDevicePrimaryCtxRetain(Handle* context, int device) {
    n("contexts")++;
    return *context = Handle(CONTEXT + device), 0;
}
EXPORT Result cuDevicePrimaryCtxRelease_v2(int) { return n("contexts")--, 0; }
EXPORT Result cuCtxPushCurrent_v2(Handle) { return n("entered")++, 0; }
EXPORT Result cuCtxPopCurrent_v2(Handle*) { return n("entered")--, 0; }
EXPORT Result cuCtxGetDevice(int* device) { return *device = 0, 0; }
EXPORT Result cuCtxSynchronize() { return n("waits")++, 0; }
EXPORT Result cuGetErrorName(int, const char** text) { return *text = "STUB_ERROR", 0; }
EXPORT Result cuGetErrorString(int, const char** text) { return *text = "as the test wants it", 0; }
EXPORT Result cuThreadExchangeStreamCaptureMode(int* other) {
    int old = mode;
    mode = *other;
    return *other = old, 0;
}

EXPORT Result cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    apart();
    if (bytes > size_t(1) << 40) return 2;
    n("memory")++;
    return *address = uint64_t(aligned_alloc(256, (bytes + 255) / 256 * 256)), 0;
}
EXPORT Result cuMemFree_v2(uint64_t address) {
    apart();
    n("memory")--;
    return free(reinterpret_cast<void*>(address)), 0;
}
EXPORT Result cuMemAllocAsync(uint64_t* address, size_t bytes, Handle stream) {
    n("scratch")++;
    n("stream") = long(uintptr_t(stream));
    return *address = uint64_t(aligned_alloc(256, (bytes + 255) / 256 * 256)), 0;
}
EXPORT Result cuMemFreeAsync(uint64_t address, Handle) {
    n("scratch")--;
    return free(reinterpret_cast<void*>(address)), 0;
}
EXPORT Result cuMemcpyDtoH_v2(void* to, uint64_t from, size_t bytes) {
    return memcpy(to, reinterpret_cast<void*>(from), bytes), 0;
}
EXPORT Result cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, Handle) {
    return memcpy(reinterpret_cast<void*>(to), from, bytes), 0;
}
EXPORT Result cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, Handle) {
    return memcpy(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes), 0;
}
EXPORT Result cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, Handle) {
    return memset(reinterpret_cast<void*>(to), value, bytes), 0;
}
EXPORT Result cuPointerGetAttribute(void* data, int, uint64_t address) {
    if (address == NOWHERE) return 1;
    return *static_cast<int*>(data) = address == OTHER, 0;
}

EXPORT Result cuStreamCreate(Handle* stream, unsigned) { return *stream = Handle(0x5000), n("streams")++, 0; }
EXPORT Result cuStreamDestroy_v2(Handle) { return n("streams")--, 0; }
EXPORT Result cuStreamGetCtx(Handle stream, Handle* context) {
    return *context = Handle(CONTEXT + (uintptr_t(stream) == FOREIGN)), 0;
}
EXPORT Result cuStreamIsCapturing(Handle stream, int* status) { return *status = uintptr_t(stream) == CAPTURING, 0; }
EXPORT Result cuStreamSynchronize(Handle) { return n("waits")++, 0; }

EXPORT Result cuModuleLoadData(Handle* module, const void*) {
    apart();
    n("loaded")++;
    return *module = Handle(0x8000), 0;
}
EXPORT Result cuModuleGetFunction(Handle* function, Handle, const char*) { return *function = Handle(0x9000), 0; }
EXPORT Result cuFuncSetAttribute(Handle, int, int) { return 0; }

struct Config {
    unsigned grid[3], block[3], shared;
    Handle stream;
    const unsigned* attributes;
    unsigned count;
};
EXPORT Result cuLaunchKernelEx(const Config* config, Handle, Handle* params, Handle* extra) {
    if (params || extra[0] != Handle(1) || extra[2] != Handle(2) || extra[4]) return 1;
    n("launches")++;
    n("stream") = long(uintptr_t(config->stream));
    n("size") = long(*static_cast<size_t*>(extra[3]));
    n("shared") = config->shared;
    n("grid") = config->grid[0];
    n("cluster") = config->count ? config->attributes[2] : 1;
    return Result(n("launch"));
}

EXPORT int nvrtcVersion(int* major, int* minor) { return *major = 12, *minor = int(n("minor")), 0; }
EXPORT int nvrtcGetNumSupportedArchs(int* count) { return *count = 2, 0; }
EXPORT int nvrtcGetSupportedArchs(int* archs) { return archs[0] = 75, archs[1] = 90, 0; }
EXPORT int nvrtcCreateProgram(Handle* program, const char*, const char*, int, const char* const*, const char* const*) {
    return *program = Handle(0xA000), 0;
}
EXPORT int nvrtcCompileProgram(Handle, int count, const char* const* options) {
    n("compiled")++;
    return count > 0 && strcmp(options[0], "--gpu-architecture=sm_90") == 0 ? 0 : 6;
}
EXPORT int nvrtcGetProgramLogSize(Handle, size_t* size) { return *size = 6, 0; }
EXPORT int nvrtcGetProgramLog(Handle, char* log) { return strcpy(log, "a log"), 0; }
EXPORT int nvrtcGetCUBINSize(Handle, size_t* size) { return *size = 4, 0; }
EXPORT int nvrtcGetCUBIN(Handle, char* code) { return memcpy(code, "code", 4), 0; }
EXPORT int nvrtcDestroyProgram(Handle*) { return 0; }
EXPORT const char* nvrtcGetErrorString(int) { return "STUB_ERROR"; }
