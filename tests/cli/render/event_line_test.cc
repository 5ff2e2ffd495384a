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

TEST_F(EventLine, WhatHappensToMemoryIsSaid) {
  const std::string head = "14:03:07.123 demo  ";
  v1::Event event = At("demo");
  event.mutable_attributes_changed()->set_gpa(0x200000);
  event.mutable_attributes_changed()->set_size(8192);
  event.mutable_attributes_changed()->set_denied("wx");
  EXPECT_EQ(lines_.Render(event), head + "ATTRIBUTES 0x200000 +8KiB wx denied\n");
  event.mutable_attributes_changed()->clear_denied();
  EXPECT_EQ(lines_.Render(event), head + "ATTRIBUTES 0x200000 +8KiB nothing is denied\n");
  event.mutable_memory_fault()->set_vcpu(1);
  event.mutable_memory_fault()->set_gpa(0x3000);
  event.mutable_memory_fault()->set_alias(v1::MEMORY_KIND_SHARED);
  event.mutable_memory_fault()->set_reason(v1::MemoryFault::REASON_DENIED);
  EXPECT_EQ(lines_.Render(event), head + "vcpu1 FAULT at 0x3000 through SHARED: DENIED\n");
  EXPECT_NE(EventLines(Colors::kOn).Render(event).find('\033'), std::string::npos);
}

TEST_F(EventLine, WhatHappensToPagesIsSaid) {
  const std::string head = "14:03:07.123 demo  ";
  v1::Event event = At("demo");
  event.mutable_split_summary()->mutable_splits()->set_split_2m(3);
  event.mutable_split_summary()->mutable_splits()->set_kept(1);
  event.mutable_split_summary()->set_cause(v1::PAGE_SIZE_CAUSE_API);
  EXPECT_EQ(lines_.Render(event),
            head + "SPLIT 3 pages of 2MiB and 0 of 1GiB, 1 stay large, by API\n");
  event.mutable_collapse_summary()->set_collapsed(4);
  event.mutable_collapse_summary()->set_cause(v1::PAGE_SIZE_CAUSE_DIRTY_LOG);
  EXPECT_EQ(lines_.Render(event), head + "COLLAPSED 4 tables to large pages, by DIRTY_LOG\n");
  v1::DirtyLogState& log = *event.mutable_dirty_log_state();
  log.set_state(v1::DirtyLogState::STATE_OFF);
  EXPECT_EQ(lines_.Render(event), head + "DIRTY LOG OFF\n");
  log.set_state(v1::DirtyLogState::STATE_ON);
  log.set_mode(v1::EnableDirtyLogRequest::MODE_WRITE_PROTECT);
  log.set_ring_entries(256);
  EXPECT_EQ(lines_.Render(event), head + "DIRTY LOG ON WRITE_PROTECT, rings of 256\n");
  log.set_ring_entries(0);
  log.set_manual_clear(true);
  EXPECT_EQ(lines_.Render(event), head + "DIRTY LOG ON WRITE_PROTECT, cleared by hand\n");
  event.mutable_vm_updated()->mutable_changed()->add_paths("conversion_policy");
  event.mutable_vm_updated()->mutable_changed()->add_paths("labels");
  EXPECT_EQ(lines_.Render(event), head + "UPDATED conversion_policy, labels\n");
  event.mutable_audit_failure()->set_detail("a table is lost");
  EXPECT_EQ(lines_.Render(event), head + "AUDIT FAILED: a table is lost\n");
}

TEST_F(EventLine, AStartOfTheDaemonSaysWhatItFound) {
  v1::Event event = At("");
  event.mutable_daemon_started()->set_version("1.2.3");
  event.mutable_daemon_started()->set_previous_end(v1::DaemonStarted::PREVIOUS_END_KILLED);
  event.mutable_daemon_started()->set_epoch_kept(true);
  EXPECT_EQ(lines_.Render(event), "14:03:07.123 -     HVD 1.2.3 STARTED, the end before: KILLED\n");
  event.mutable_daemon_started()->set_previous_end(v1::DaemonStarted::PREVIOUS_END_HOST_DOWN);
  event.mutable_daemon_started()->set_epoch_kept(false);
  EXPECT_EQ(lines_.Render(event),
            "14:03:07.123 -     HVD 1.2.3 STARTED, the end before: HOST_DOWN, cursors of before "
            "are void\n");
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
