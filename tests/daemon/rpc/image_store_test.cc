#include "daemon/rpc/image_store.h"

#include <memory>
#include <string>

#include "daemon/status_reason.h"
#include "gtest/gtest.h"

namespace twinroot::rpc {
namespace {

// Stores `data`, which must be accepted, and returns its name.
std::string Store(ImageStore& store, const std::string& data) {
  ImageStore::Upload upload(&store);
  EXPECT_TRUE(upload.Append(data).ok());
  return upload.Finish().value();
}

TEST(ImageStore, SameContentIsKeptOnce) {
  ImageStore store(100);
  const std::string name = Store(store, std::string(40, 'a'));
  EXPECT_EQ(Store(store, std::string(40, 'a')), name);
  EXPECT_EQ(store.total(), 40u);
  EXPECT_EQ(**store.Get(name), std::string(40, 'a'));
}

TEST(ImageStore, OldestUnusedIsDroppedWhenRoomIsNeeded) {
  ImageStore store(100);
  const std::string a = Store(store, std::string(40, 'a'));
  const std::string b = Store(store, std::string(40, 'b'));
  Store(store, std::string(40, 'a'));  // sent again: b is the oldest now
  const std::string c = Store(store, std::string(40, 'c'));
  EXPECT_TRUE(store.Get(a).ok());
  EXPECT_EQ(ReasonOf(store.Get(b).status()), "NO_SUCH_IMAGE");
  EXPECT_TRUE(store.Get(c).ok());
  EXPECT_LE(store.total(), 100u);
}

TEST(ImageStore, ImagesInUseStayAndAFullStoreRefuses) {
  ImageStore store(100);
  const std::string a = Store(store, std::string(60, 'a'));
  auto used = store.Get(a).value();
  {
    ImageStore::Upload upload(&store);
    const absl::Status status = upload.Append(std::string(60, 'b'));
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(ReasonOf(status), "IMAGE_STORE_FULL");
  }
  EXPECT_EQ(store.total(), 60u);
  used.reset();
  Store(store, std::string(60, 'b'));
  EXPECT_FALSE(store.Get(a).ok());
}

TEST(ImageStore, UploadsUnderWayCountAndGiveBackWhatTheyTook) {
  ImageStore store(100);
  auto half = std::make_unique<ImageStore::Upload>(&store);
  ASSERT_TRUE(half->Append(std::string(60, 'a')).ok());
  EXPECT_EQ(store.total(), 60u);
  ImageStore::Upload other(&store);
  EXPECT_FALSE(other.Append(std::string(60, 'b')).ok());
  half.reset();
  EXPECT_EQ(store.total(), 0u);
  EXPECT_TRUE(other.Append(std::string(60, 'b')).ok());
}

TEST(ImageStore, NameDoesNotDependOnTheChunks) {
  ImageStore store;
  ImageStore::Upload upload(&store);
  ASSERT_TRUE(upload.Append("he").ok());
  ASSERT_TRUE(upload.Append("").ok());
  ASSERT_TRUE(upload.Append("llo").ok());
  EXPECT_EQ(upload.size(), 5u);
  EXPECT_EQ(upload.Finish().value(), Store(store, "hello"));
}

}  // namespace
}  // namespace twinroot::rpc
