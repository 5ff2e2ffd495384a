// The first disk by programmed input and output, LBA28, polled (ATA/ATAPI-4).
#ifndef TWINROOT_TESTS_BOCHS_MACHINE_DISK_H_
#define TWINROOT_TESTS_BOCHS_MACHINE_DISK_H_

#include <stdint.h>

#include "tests/bochs/machine/ports.h"
#include "tests/bochs/protocol.h"

namespace twinroot::bochs {

class Disk {
 public:
  static constexpr uint64_t kMostSectors = 128;  // of one command

  static void Read(uint64_t sector, uint64_t count, void* to) { Move(sector, count, to, true); }
  static void Write(uint64_t sector, uint64_t count, const void* from) {
    Move(sector, count, const_cast<void*>(from), false);
  }

 private:
  static constexpr uint16_t kData = 0x1F0, kCount = 0x1F2, kLba = 0x1F3, kDevice = 0x1F6,
                            kCommand = 0x1F7, kControl = 0x3F6;
  static constexpr uint8_t kBusy = 0x80, kRequest = 0x08, kError = 0x01;

  static void Move(uint64_t sector, uint64_t count, void* memory, bool read) {
    auto* at = static_cast<uint8_t*>(memory);
    while (count != 0) {
      const uint64_t now = count < kMostSectors ? count : kMostSectors;
      Wait(0);
      Out8(kControl, 2);  // no interrupts
      Out8(kDevice, 0xE0 | (sector >> 24 & 15));
      Out8(kCount, static_cast<uint8_t>(now));
      for (int i = 0; i < 3; ++i) {
        Out8(static_cast<uint16_t>(kLba + i), static_cast<uint8_t>(sector >> 8 * i));
      }
      Out8(kCommand, read ? 0x20 : 0x30);
      for (uint64_t i = 0; i < now; ++i, at += kSectorBytes) {
        Wait(kRequest);
        if (read) {
          In16s(kData, at, kSectorBytes / 2);
        } else {
          Out16s(kData, at, kSectorBytes / 2);
        }
      }
      sector += now;
      count -= now;
    }
    Wait(0);
  }
  // Until it is not busy and asks for what is to be moved.
  static void Wait(uint8_t wanted) {
    for (;;) {
      const uint8_t status = In8(kCommand);
      if (status & kBusy) continue;
      if (status & kError) Fail("the disk reports an error");
      if ((status & wanted) == wanted) return;
    }
  }
};

}  // namespace twinroot::bochs

#endif  // TWINROOT_TESTS_BOCHS_MACHINE_DISK_H_
