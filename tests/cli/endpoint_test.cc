#include "cli/endpoint.h"

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace twinroot::cli {
namespace {

// While it lives, root may write what its bits allow, as others may.
class WithoutOverride {
 public:
  WithoutOverride() {
    EXPECT_EQ(syscall(SYS_capget, &header_, before_), 0);
    __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {before_[0], before_[1]};
    data[0].effective &= ~(1u << CAP_DAC_OVERRIDE);
    EXPECT_EQ(syscall(SYS_capset, &header_, data), 0);
  }
  ~WithoutOverride() { EXPECT_EQ(syscall(SYS_capset, &header_, before_), 0); }

 private:
  __user_cap_header_struct header_ = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct before_[_LINUX_CAPABILITY_U32S_3] = {};
};

// Files stand for the sockets: what counts is who may write them.
class FirstSocketForTest : public testing::Test {
 protected:
  FirstSocketForTest() { EXPECT_NE(mkdtemp(folder_.data()), nullptr); }
  ~FirstSocketForTest() override { std::filesystem::remove_all(folder_); }

  std::string Put(const std::string& name, mode_t mode) {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path) << "";
    EXPECT_EQ(chmod(path.c_str(), mode), 0);
    return path;
  }

  std::string folder_ = "/tmp/twinroot-endpoint.XXXXXX";
  const WithoutOverride without_override_;
};

TEST_F(FirstSocketForTest, TakesTheFirstThatThisUserMayOpen) {
  const std::string closed = Put("hvd.sock", 0400);
  const std::string open = Put("operator.sock", 0600);
  const std::string also = Put("viewer.sock", 0600);
  EXPECT_EQ(FirstSocketFor({folder_ + "/gone.sock", closed, open, also}), open);
}

TEST_F(FirstSocketForTest, NamesOneThatIsThereIfThisUserMayOpenNone) {
  const std::string closed = Put("hvd.sock", 0400);
  EXPECT_EQ(FirstSocketFor({folder_ + "/gone.sock", closed}), closed);
}

TEST_F(FirstSocketForTest, FindsNothingWhereNothingIs) {
  EXPECT_EQ(FirstSocketFor({folder_ + "/gone.sock", folder_ + "/no/folder.sock"}), "");
}

}  // namespace
}  // namespace twinroot::cli
