#include "daemon/vcpu/kvm/guest_cpuid.h"

#include <gtest/gtest.h>

#include <initializer_list>

namespace twinroot::kvm {
namespace {

Cpuid2 Supported(std::initializer_list<kvm_cpuid_entry2> entries) {
  Cpuid2 cpuid;
  cpuid.nent = 0;
  for (const kvm_cpuid_entry2& entry : entries) cpuid.entries[cpuid.nent++] = entry;
  return cpuid;
}

kvm_cpuid_entry2 Leaf(uint32_t function, uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx) {
  kvm_cpuid_entry2 entry = {};
  entry.function = function;
  entry.eax = eax;
  entry.ebx = ebx;
  entry.ecx = ecx;
  entry.edx = edx;
  return entry;
}

kvm_cpuid_entry2 Find(const Cpuid2& cpuid, uint32_t function, uint32_t index = 0) {
  for (uint32_t i = 0; i < cpuid.nent; ++i) {
    if (cpuid.entries[i].function == function && cpuid.entries[i].index == index) {
      return cpuid.entries[i];
    }
  }
  ADD_FAILURE() << "no leaf " << function << " index " << index;
  return {};
}

TEST(GuestCpuid, EachVcpuHasItsApicIdEverywhere) {
  const Cpuid2 supported = Supported(
      {Leaf(1, 0, 0xff00abcd, 0, 0), Leaf(0xb, 0, 0, 0, 0), Leaf(0x8000001e, 9, 9, 9, 0)});
  const Cpuid2 cpuid = GuestCpuid(supported, 5, 6, true);
  EXPECT_EQ(Find(cpuid, 1).ebx, 0x0506abcdu);
  EXPECT_EQ(Find(cpuid, 1).edx & 1 << 28, 1u << 28);
  for (const uint32_t level : {0u, 1u, 2u}) EXPECT_EQ(Find(cpuid, 0xb, level).edx, 5u);
  EXPECT_EQ(Find(cpuid, 0xb, 0).ecx, 0x100u);
  EXPECT_EQ(Find(cpuid, 0xb, 1).eax, 3u);  // bits for six of them
  EXPECT_EQ(Find(cpuid, 0xb, 1).ebx, 6u);
  EXPECT_EQ(Find(cpuid, 0xb, 2).ebx, 0u);
  EXPECT_EQ(Find(cpuid, 0x8000001e).eax, 5u);
  EXPECT_EQ(Find(GuestCpuid(supported, 0, 1, true), 1).edx & 1 << 28, 0u);
}

TEST(GuestCpuid, AHypervisorIsThereWithoutNestingAndAsynchronousFaults) {
  const Cpuid2 supported =
      Supported({Leaf(1, 0, 0, 1 << 5 | 1, 0), Leaf(0x80000001, 0, 0, 1 << 2 | 1, 0),
                 Leaf(0x40000001, 1 << 0 | 1 << 4 | 1 << 10 | 1 << 14 | 1 << 24, 0, 0, 0)});
  const Cpuid2 cpuid = GuestCpuid(supported, 0, 1, false);
  EXPECT_EQ(Find(cpuid, 1).ecx, 1u << 31 | 1);
  EXPECT_EQ(Find(GuestCpuid(supported, 0, 1, true), 1).ecx, 1u << 31 | 1 << 24 | 1);
  EXPECT_EQ(Find(cpuid, 0x80000001).ecx, 1u);
  EXPECT_EQ(Find(cpuid, 0x40000001).eax, 1u << 0 | 1 << 24);
}

TEST(GuestCpuid, WhatIsNotOursIsLeftAsKvmSaysIt) {
  const Cpuid2 cpuid = GuestCpuid(Supported({Leaf(7, 1, 2, 3, 4)}), 0, 1, false);
  EXPECT_EQ(cpuid.nent, 1u);
  EXPECT_EQ(Find(cpuid, 7).edx, 4u);
}

TEST(GuestCpuid, AFullListStaysWithinItsBounds) {
  Cpuid2 supported;
  supported.nent = kMaxCpuidEntries;
  for (kvm_cpuid_entry2& entry : supported.entries) entry = Leaf(0xb, 0, 0, 0, 0);
  EXPECT_LE(GuestCpuid(supported, 0, 1, false).nent, kMaxCpuidEntries);
}

}  // namespace
}  // namespace twinroot::kvm
