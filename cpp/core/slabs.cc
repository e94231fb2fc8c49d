#include "core/slabs.h"

#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <mutex>
#include <new>

namespace edgequant {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kSlab = 8 * kHugePage;         // begins at a multiple of this, so that blocks find theirs
constexpr size_t kLargest = kSlab / 2;          // a block that would leave more of a slab unused has its own memory
constexpr size_t kSmallest = size_t{32} << 10;  // below this pages do not matter

struct Slab {
  size_t used = kLine, blocks = 0;
};
static_assert(sizeof(Slab) <= kLine);

uint8_t* Allocate(size_t alignment, size_t bytes) {
  const size_t size = (bytes + alignment - 1) / alignment * alignment;
  void* p = aligned_alloc(alignment, size);
  if (!p) throw std::bad_alloc();
#if defined(__linux__)
  if (alignment >= kHugePage) madvise(p, size, MADV_HUGEPAGE);
#endif
  return static_cast<uint8_t*>(p);
}

std::mutex slabs_mutex;
Slab* open_slab = nullptr;  // the one that new blocks go to

uint8_t* Take(size_t bytes) {
  const size_t size = (bytes + kLine - 1) / kLine * kLine;
  const std::lock_guard lock(slabs_mutex);
  if (open_slab && open_slab->used + size > kSlab) {
    if (open_slab->blocks == 0) free(open_slab);
    open_slab = nullptr;  // the last of its blocks frees it
  }
  if (!open_slab) open_slab = new (Allocate(kSlab, kSlab)) Slab;
  uint8_t* p = reinterpret_cast<uint8_t*>(open_slab) + open_slab->used;
  open_slab->used += size;
  ++open_slab->blocks;
  return p;
}

void Give(uint8_t* p) {
  Slab* slab = reinterpret_cast<Slab*>(reinterpret_cast<uintptr_t>(p) / kSlab * kSlab);
  const std::lock_guard lock(slabs_mutex);
  if (--slab->blocks != 0) return;
  if (slab == open_slab && slab->used <= kHugePage) {  // not more than that is kept for later
    slab->used = kLine;
    return;
  }
  if (slab == open_slab) open_slab = nullptr;
  free(slab);
}

}  // namespace

void SlabDeleter::operator()(uint8_t* p) const {
  if (alone) free(p);
  else Give(p);
}

SlabBytes AllocateInSlab(size_t bytes) {
  if (bytes > kLargest) return {Allocate(kHugePage, bytes), {true}};
  if (bytes < kSmallest) return {Allocate(kLine, bytes + 1), {true}};
  return {Take(bytes), {false}};
}

}  // namespace edgequant
