#include "cli/render/event_line.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <time.h>

namespace twinroot::cli {
namespace {

class EventLine : public testing::Test {
 protected:
  EventLine() {
    setenv("TZ", "UTC", 1);
    tzset();
  }

  static v1::Event At(const std::string& vm) {
    v1::Event event;
    event.set_vm(vm);
    event.mutable_time()->set_seconds(14 * 3600 + 3 * 60 + 7);
    event.mutable_time()->set_nanos(123'456'789);
    return event;
  }

  static v1::Event Conversion() {
    v1::Event event = At("demo");
    v1::Conversion& conversion = *event.mutable_conversion();
    conversion.set_vcpu(0);
    conversion.set_gpa(0x200000);
    conversion.set_size(4096);
    conversion.set_direction(v1::Conversion::DIRECTION_TO_SHARED);
    conversion.set_cause(v1::Conversion::CAUSE_IMPLICIT);
    conversion.set_decision(v1::Conversion::DECISION_APPLIED);
    conversion.set_decider(v1::Conversion::DECIDER_POLICY);
    conversion.mutable_latency()->set_nanos(63'000);
    return event;
  }

  EventLines lines_{Colors::kOff};
};

TEST_F(EventLine, AConversionSaysTimeVmWhatWhereHowLong) {
  EXPECT_EQ(lines_.Render(Conversion()),
            "14:03:07.123 demo  vcpu0 TO_SHARED  0x200000 +4KiB IMPLICIT APPLIED 63us\n");
}

TEST_F(EventLine, AnotherDeciderThanThePolicyIsNamed) {
  v1::Event event = Conversion();
  event.mutable_conversion()->clear_vcpu();
  event.mutable_conversion()->set_direction(v1::Conversion::DIRECTION_TO_PRIVATE);
  event.mutable_conversion()->set_cause(v1::Conversion::CAUSE_API);
  event.mutable_conversion()->set_decider(v1::Conversion::DECIDER_ORCHESTRATOR);
  EXPECT_EQ(lines_.Render(event),
            "14:03:07.123 demo  -     TO_PRIVATE 0x200000 +4KiB API APPLIED 63us by "
            "ORCHESTRATOR\n");
}

TEST_F(EventLine, AWaitingConversionSaysItsIdAndDeadline) {
  v1::Event event = At("demo");
  v1::ConversionRequest& request = *event.mutable_conversion_requested();
  request.set_id(7);
  request.set_vcpu(1);
  request.set_gpa(0x400000);
  request.set_size(2 << 20);
  request.set_direction(v1::Conversion::DIRECTION_TO_SHARED);
  request.set_cause(v1::Conversion::CAUSE_EXPLICIT);
  request.mutable_deadline()->set_seconds(14 * 3600 + 3 * 60 + 37);
  EXPECT_EQ(lines_.Render(event),
            "14:03:07.123 demo  vcpu1 TO_SHARED  0x400000 +2MiB EXPLICIT WAITING id 7 until "
            "14:03:37.000\n");
}

TEST_F(EventLine, StatesSayHowAVmEnded) {
  v1::Event event = At("demo");
  event.mutable_vm_state()->set_state(v1::Vm::STATE_STOPPED);
  event.mutable_vm_state()->set_exit_code(0);
  EXPECT_EQ(lines_.Render(event), "14:03:07.123 demo  STOPPED exit code 0\n");
  event.mutable_vm_state()->clear_exit_code();
  event.mutable_vm_state()->set_stop_reason("TRIPLE_FAULT");
  event.mutable_vm_state()->set_stop_message("vCPU 0 shut down");
  EXPECT_EQ(lines_.Render(event), "14:03:07.123 demo  STOPPED TRIPLE_FAULT: vCPU 0 shut down\n");
  event.mutable_vm_state()->set_deleted(true);
  EXPECT_EQ(lines_.Render(event), "14:03:07.123 demo  DELETED\n");
}

TEST_F(EventLine, AGapIsNeverSilent) {
  v1::Event event = At("");
  event.mutable_gap()->set_count(12);
  event.mutable_gap()->set_from_cursor("7-3");
  event.mutable_gap()->set_to_cursor("7-15");
  EXPECT_EQ(lines_.Render(event), "14:03:07.123 -     GAP 12 events missed (7-3 to 7-15)\n");
  EXPECT_EQ(EventLines(Colors::kOn).Render(event).substr(0, 5), "\033[31m");
}

TEST_F(EventLine, ABookmarkHasNoLine) {
  v1::Event event = At("");
  event.mutable_bookmark();
  EXPECT_EQ(lines_.Render(event), "");
}

TEST_F(EventLine, OnlyWhatWentWrongIsRed) {
  EventLines lines(Colors::kOn);
  EXPECT_EQ(lines.Render(Conversion()).find('\033'), std::string::npos);
  v1::Event denied = Conversion();
  denied.mutable_conversion()->set_decision(v1::Conversion::DECISION_DENIED);
  EXPECT_NE(lines.Render(denied).find('\033'), std::string::npos);
}

}  // namespace
}  // namespace twinroot::cli
