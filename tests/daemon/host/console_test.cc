#include "daemon/host/console.h"

#include <gtest/gtest.h>

#include <string>

namespace twinroot::host {
namespace {

TEST(Console, GivesBackWhatWasSaidFromAnyOffset) {
  Console console;
  console.Append("hello ");
  console.Append("world");
  EXPECT_EQ(console.Read(0, 100).data, "hello world");
  EXPECT_EQ(console.Read(6, 3).data, "wor");
  EXPECT_EQ(console.Read(6, 3).offset, 6u);
  EXPECT_EQ(console.Read(11, 100).data, "");
  EXPECT_EQ(console.Read(99, 100).offset, 11u) << "beyond the end there is the end";
}

TEST(Console, KeepsTheLastBytesAndSaysWhereTheyBegin) {
  Console console(8);
  console.Append("0123456789");
  EXPECT_EQ(console.Read(0, 100).data, "23456789");
  EXPECT_EQ(console.Read(0, 100).offset, 2u);
  console.Append("ab");
  const Vm::ConsoleChunk chunk = console.Read(5, 3);
  EXPECT_EQ(chunk.offset, 5u);
  EXPECT_EQ(chunk.data, "567");
}

TEST(Console, TakesMoreThanItKeepsInOneGo) {
  Console console(4);
  console.Append(std::string(1000, 'x') + "tail");
  EXPECT_EQ(console.Read(0, 100).data, "tail");
  EXPECT_EQ(console.Read(0, 100).offset, 1000u);
}

}  // namespace
}  // namespace twinroot::host
