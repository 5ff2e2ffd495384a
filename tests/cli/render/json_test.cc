#include "cli/render/json.h"

#include <gtest/gtest.h>

#include "cli/failure.h"
#include "twinroot/v1/event.pb.h"
#include "twinroot/v1/memory.pb.h"
#include "twinroot/v1/vm.pb.h"

namespace twinroot::cli {
namespace {

TEST(Json, AnEventIsOneLineInTheSettledShape) {
  v1::Event event;
  event.set_cursor("7-12");
  event.set_vm("demo");
  event.set_vm_sequence(3);
  event.mutable_time()->set_seconds(1'700'000'000);
  v1::Conversion& conversion = *event.mutable_conversion();
  conversion.set_id(1);
  conversion.set_vcpu(0);
  conversion.set_gpa(0x200000);
  conversion.set_size(4096);
  conversion.set_direction(v1::Conversion::DIRECTION_TO_SHARED);
  conversion.set_cause(v1::Conversion::CAUSE_IMPLICIT);
  conversion.set_decision(v1::Conversion::DECISION_APPLIED);
  conversion.set_decider(v1::Conversion::DECIDER_POLICY);
  conversion.mutable_latency()->set_nanos(63'000);
  EXPECT_EQ(ToJsonLine(event),
            R"({"cursor":"7-12","vm":"demo","vmSequence":"3","conversion":{"id":"1",)"
            R"("gpa":"2097152","size":"4096","direction":"TO_SHARED","cause":"IMPLICIT",)"
            R"("decision":"APPLIED","decider":"POLICY","vcpu":0,"latency":"0.000063s"},)"
            R"("time":"2023-11-14T22:13:20Z"})"
            "\n");
}

TEST(Json, DefaultsArePrintedAndUnsetOptionalsAreNot) {
  v1::MemoryRun run;
  EXPECT_EQ(
      ToJsonLine(run),
      "{\"gpa\":\"0\",\"size\":\"0\",\"kind\":\"MEMORY_KIND_UNSPECIFIED\",\"denied\":\"\"}\n");
  v1::Vm vm;
  vm.set_state(v1::Vm::STATE_RUNNING);
  EXPECT_EQ(ToJsonLine(vm).find("exitCode"), std::string::npos);
  vm.set_exit_code(0);
  EXPECT_NE(ToJsonLine(vm).find("\"exitCode\":0"), std::string::npos);
}

TEST(Json, EmptyListsArePrinted) {
  EXPECT_EQ(ToJsonLine(v1::GetMemoryAttributesResponse()), "{\"runs\":[]}\n");
}

TEST(Json, AnAnswerIsIndentedAndEndsWithOneNewline) {
  v1::MemoryRange range;
  range.set_gpa(4096);
  EXPECT_EQ(ToJson(range), "{\n \"gpa\": \"4096\",\n \"size\": \"0\"\n}\n");
}

TEST(Json, ATimeThatJsonCannotSayIsAFailure) {
  v1::Event event;
  event.mutable_time()->set_seconds(INT64_MAX);
  EXPECT_THROW(ToJsonLine(event), Failure);
}

}  // namespace
}  // namespace twinroot::cli
