#include "tests/bench/heap_count.h"

#include <malloc.h>

#include <cstdlib>
#include <new>

namespace {

constinit thread_local bool counting = false;
constinit thread_local int64_t counted = 0;

void* Counted(void* at) {
  if (at == nullptr) throw std::bad_alloc();
  if (counting) counted += static_cast<int64_t>(malloc_usable_size(at));
  return at;
}
void Free(void* at) {
  if (counting && at != nullptr) counted -= static_cast<int64_t>(malloc_usable_size(at));
  std::free(at);
}

}  // namespace

// The whole program's. All forms in use: under AddressSanitizer the others do not end in these.
void* operator new(size_t size) { return Counted(std::malloc(size)); }
void* operator new[](size_t size) { return Counted(std::malloc(size)); }
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  void* const at = std::malloc(size);
  return at == nullptr ? nullptr : Counted(at);
}
void* operator new[](size_t size, const std::nothrow_t& nothrow) noexcept {
  return operator new(size, nothrow);
}
void* operator new(size_t size, std::align_val_t align) {
  const size_t to = static_cast<size_t>(align);
  return Counted(std::aligned_alloc(to, (size + to - 1) / to * to));
}
void* operator new[](size_t size, std::align_val_t align) { return operator new(size, align); }
void* operator new(size_t size, std::align_val_t align, const std::nothrow_t&) noexcept {
  const size_t to = static_cast<size_t>(align);
  void* const at = std::aligned_alloc(to, (size + to - 1) / to * to);
  return at == nullptr ? nullptr : Counted(at);
}
void* operator new[](size_t size, std::align_val_t align, const std::nothrow_t& nothrow) noexcept {
  return operator new(size, align, nothrow);
}
void operator delete(void* at) noexcept { Free(at); }
void operator delete[](void* at) noexcept { Free(at); }
void operator delete(void* at, size_t) noexcept { Free(at); }
void operator delete[](void* at, size_t) noexcept { Free(at); }
void operator delete(void* at, std::align_val_t) noexcept { Free(at); }
void operator delete[](void* at, std::align_val_t) noexcept { Free(at); }
void operator delete(void* at, size_t, std::align_val_t) noexcept { Free(at); }
void operator delete[](void* at, size_t, std::align_val_t) noexcept { Free(at); }

namespace twinroot::bench {

HeapCount::HeapCount() {
  counted = 0;
  counting = true;
}
HeapCount::~HeapCount() { counting = false; }
int64_t HeapCount::bytes() const { return counted; }

}  // namespace twinroot::bench
