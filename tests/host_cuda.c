/* libcuda.so.1 for machines without a GPU: device memory is host memory, a stream is done at once.
 *
 * The real bindings (cuda.bindings, pycuda) load it in the driver's place, so a test sees the calls and structs
 * that they really pass. It checks what the driver would: a current context, live pointers, pitches that hold
 * their rows. HOST_CUDA_LIMIT is the memory there is, in bytes. With HOST_CUDA_BROKEN the context is as after a
 * kernel's bad access: every wait and every free says so. host_cuda_live() counts what was never freed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What cuda.h would say, so that no CUDA toolkit is needed. */
typedef int CUresult, CUdevice, CUdevice_attribute;
typedef void *CUcontext, *CUstream;
typedef unsigned long long CUdeviceptr;
typedef struct {
    size_t srcXInBytes, srcY;
    int srcMemoryType;
    const void *srcHost;
    CUdeviceptr srcDevice;
    void *srcArray;
    size_t srcPitch, dstXInBytes, dstY;
    int dstMemoryType;
    void *dstHost;
    CUdeviceptr dstDevice;
    void *dstArray;
    size_t dstPitch, WidthInBytes, Height;
} CUDA_MEMCPY2D;
enum { CUDA_SUCCESS = 0, CUDA_ERROR_INVALID_VALUE = 1, CUDA_ERROR_OUT_OF_MEMORY = 2, CUDA_ERROR_NO_DEVICE = 100,
       CUDA_ERROR_INVALID_DEVICE = 101, CUDA_ERROR_INVALID_CONTEXT = 201, CUDA_ERROR_INVALID_HANDLE = 400, CUDA_ERROR_ILLEGAL_ADDRESS = 700 };
enum { CU_MEMORYTYPE_DEVICE = 2, CU_STREAM_NON_BLOCKING = 1 };
enum { CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76 };

#define MOST 4096
static struct { char *at; size_t size; int is_host; } live[MOST];
static size_t used;
static int retained, streams, depth;

static size_t limit(void) {
    const char *text = getenv("HOST_CUDA_LIMIT");
    return text ? strtoull(text, 0, 10) : (size_t)1 << 30;
}
static CUresult said(CUresult result) { return getenv("HOST_CUDA_BROKEN") ? CUDA_ERROR_ILLEGAL_ADDRESS : result; }
static int holds(CUdeviceptr start, size_t size) {
    char *at = (char *)start;
    for (int i = 0; i < MOST; i++)
        if (live[i].at && !live[i].is_host && at >= live[i].at && at + size <= live[i].at + live[i].size) return 1;
    return 0;
}
static CUresult take(size_t size, int is_host, void **out) {
    if (!depth) return CUDA_ERROR_INVALID_CONTEXT;
    if (!is_host && used + size > limit()) return CUDA_ERROR_OUT_OF_MEMORY;
    for (int i = 0; i < MOST; i++)
        if (!live[i].at) {
            live[i].at = aligned_alloc(256, (size + 255) / 256 * 256);
            memset(live[i].at, 0x7b, size); /* fresh memory is not zero: fp16 0x7b7b is 61280 */
            live[i].size = size;
            live[i].is_host = is_host;
            if (!is_host) used += size;
            *out = live[i].at;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_OUT_OF_MEMORY;
}
static CUresult give(void *at, int is_host) {
    if (!depth) return CUDA_ERROR_INVALID_CONTEXT;
    for (int i = 0; i < MOST; i++)
        if (live[i].at == at && live[i].is_host == is_host) {
            if (!is_host) used -= live[i].size;
            free(at);
            live[i].at = 0;
            return said(CUDA_SUCCESS);
        }
    return CUDA_ERROR_INVALID_VALUE;
}

int host_cuda_live(void) {
    int count = retained + streams + depth;
    for (int i = 0; i < MOST; i++) count += live[i].at != 0;
    return count;
}

CUresult cuInit(unsigned flags) { return getenv("HOST_CUDA_NONE") ? CUDA_ERROR_NO_DEVICE : CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int *version) { *version = 12060; return CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int *count) { *count = 1; return CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice *device, int ordinal) { *device = 0; return ordinal ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS; }
CUresult cuDeviceGetName(char *name, int length, CUdevice device) { snprintf(name, length, "Host"); return CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute kind, CUdevice device) {
    *value = kind == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? 8 : kind == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR ? 7 : 1;
    return CUDA_SUCCESS;
}
CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device) { *major = 8; *minor = 7; return CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    if (!limit()) return CUDA_ERROR_OUT_OF_MEMORY;
    retained++;
    *context = (CUcontext)0x10;
    return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    if (!--retained) depth = 0; /* a context that is gone is current nowhere; pycuda counts on it */
    return CUDA_SUCCESS;
}
CUresult cuCtxPushCurrent_v2(CUcontext context) { depth++; return CUDA_SUCCESS; }
CUresult cuCtxPopCurrent_v2(CUcontext *context) {
    if (!depth) return CUDA_ERROR_INVALID_CONTEXT;
    depth--;
    if (context) *context = (CUcontext)0x10;
    return CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext *context) { *context = depth ? (CUcontext)0x10 : 0; return CUDA_SUCCESS; }
CUresult cuCtxGetDevice(CUdevice *device) { *device = 0; return CUDA_SUCCESS; }
CUresult cuCtxDetach(CUcontext context) { return CUDA_SUCCESS; }
CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total) { *total = limit(); *free_bytes = limit() - used; return CUDA_SUCCESS; }
CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t size) { return take(size, 0, (void **)pointer); }
CUresult cuMemFree_v2(CUdeviceptr pointer) { return give((void *)pointer, 0); }
CUresult cuMemHostAlloc(void **pointer, size_t size, unsigned flags) { return take(size, 1, pointer); }
CUresult cuMemFreeHost(void *pointer) { return give(pointer, 1); }
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, CUstream stream) {
    if (!depth) return CUDA_ERROR_INVALID_CONTEXT;
    if (!holds(to, size)) return CUDA_ERROR_INVALID_VALUE;
    memcpy((void *)to, from, size);
    return CUDA_SUCCESS;
}
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, CUstream stream) {
    if (!depth) return CUDA_ERROR_INVALID_CONTEXT;
    if (!holds(from, size)) return CUDA_ERROR_INVALID_VALUE;
    memcpy(to, (void *)from, size);
    return CUDA_SUCCESS;
}
CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *plan, CUstream stream) {
    if (!depth) return CUDA_ERROR_INVALID_CONTEXT;
    if (plan->srcMemoryType != CU_MEMORYTYPE_DEVICE || plan->dstMemoryType != CU_MEMORYTYPE_DEVICE ||
        plan->srcPitch < plan->WidthInBytes || plan->dstPitch < plan->WidthInBytes || !plan->Height ||
        !holds(plan->srcDevice, plan->srcPitch * (plan->Height - 1) + plan->WidthInBytes) ||
        !holds(plan->dstDevice, plan->dstPitch * (plan->Height - 1) + plan->WidthInBytes))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t row = 0; row < plan->Height; row++)
        memcpy((char *)plan->dstDevice + row * plan->dstPitch, (char *)plan->srcDevice + row * plan->srcPitch,
               plan->WidthInBytes);
    return CUDA_SUCCESS;
}
CUresult cuMemsetD8Async(CUdeviceptr pointer, unsigned char value, size_t size, CUstream stream) {
    if (!depth) return CUDA_ERROR_INVALID_CONTEXT;
    if (!holds(pointer, size)) return CUDA_ERROR_INVALID_VALUE;
    memset((void *)pointer, value, size);
    return CUDA_SUCCESS;
}
CUresult cuStreamCreate(CUstream *stream, unsigned flags) { streams++; *stream = (CUstream)0x20; return flags == CU_STREAM_NON_BLOCKING ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }
CUresult cuStreamDestroy_v2(CUstream stream) { streams--; return said(stream == (CUstream)0x20 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE); }
CUresult cuStreamSynchronize(CUstream stream) { return said(stream == (CUstream)0x20 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE); }
CUresult cuGetErrorName(CUresult error, const char **name) {
    *name = error == CUDA_ERROR_OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : error == CUDA_ERROR_NO_DEVICE ? "CUDA_ERROR_NO_DEVICE" : error == CUDA_ERROR_ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR";
    return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult error, const char **text) { *text = "said by the host's stand-in"; return CUDA_SUCCESS; }

/* cuda.bindings asks for every function here; what is not above is a null pointer and an error when called. */
CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version, unsigned long long flags, int *status) {
    static void *self;
    char newer[128];
    if (!self) {
        Dl_info info;
        dladdr((void *)cuInit, &info);
        self = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    }
    snprintf(newer, sizeof newer, "%s_v2", symbol);
    *function = dlsym(self, newer);
    if (!*function) *function = dlsym(self, symbol);
    if (!strcmp(symbol, "cuGetProcAddress")) *function = (void *)cuGetProcAddress_v2;
    if (status) *status = *function ? 0 : 1;
    return CUDA_SUCCESS;
}
