// Segment registers for a guest that has no use for segments: all of them flat. Pure; thread-safe.
#ifndef TWINROOT_DAEMON_VCPU_KVM_FLAT_SEGMENTS_H_
#define TWINROOT_DAEMON_VCPU_KVM_FLAT_SEGMENTS_H_

#include <linux/kvm.h>

#include <cstdint>

namespace twinroot::kvm {

// What the registers select of a GDT that lies in the guest; the privilege is the code selector's.
struct FlatSegments {
  uint16_t code;
  uint16_t data;
  uint16_t tss;
  bool code_is_64bit;
  uint64_t gdt;
  uint16_t gdt_limit;
  uint64_t tss_base;
  uint32_t tss_limit;
};

// Types are of the SDM, vol. 3A, "Segment Descriptor Types".
inline void SetFlatSegments(const FlatSegments& flat, kvm_sregs& sregs) {
  constexpr uint8_t kCodeReadAccessed = 0xb, kDataWriteAccessed = 0x3, kTssBusy = 0xb;
  const auto segment = [](uint16_t selector, uint8_t type, bool code_is_64bit) {
    kvm_segment made = {};
    made.limit = 0xffffffff;
    made.selector = selector;
    made.type = type;
    made.present = 1;
    made.dpl = selector & 3;
    made.db = code_is_64bit ? 0 : 1;
    made.s = 1;
    made.l = code_is_64bit ? 1 : 0;
    made.g = 1;
    return made;
  };
  sregs.cs = segment(flat.code, kCodeReadAccessed, flat.code_is_64bit);
  sregs.ss = sregs.ds = sregs.es = sregs.fs = sregs.gs =
      segment(flat.data, kDataWriteAccessed, false);
  sregs.tr = {};
  sregs.tr.base = flat.tss_base;
  sregs.tr.limit = flat.tss_limit;
  sregs.tr.selector = flat.tss;
  sregs.tr.type = kTssBusy;
  sregs.tr.present = 1;
  sregs.ldt = {};
  sregs.ldt.unusable = 1;
  sregs.gdt.base = flat.gdt;
  sregs.gdt.limit = flat.gdt_limit;
  sregs.idt = {};
}

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_FLAT_SEGMENTS_H_
