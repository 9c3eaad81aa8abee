// A token store read by HDF5's own command-line tools (package hdf5-tools), which know nothing of
// us.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <stdio.h>

#include <memory>

#include "tests/data/test_files.h"

namespace qstep::data {
namespace {

// Output of a command; the test fails when it cannot be run or reports an error.
std::string output_of(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen((command + " 2>&1").c_str(), "r"), pclose);
  if (!pipe) throw std::runtime_error("popen failed");
  std::string output;
  char block[4096];
  while (const size_t n = fread(block, 1, sizeof block, pipe.get())) output.append(block, n);
  return output;
}

TEST(Hdf5Tools, H5dumpReadsTheStore) {
  const TempDir dir;
  write_made_up_store(dir / "s.h5", {});
  const std::string header = output_of("h5dump -H -p " + (dir / "s.h5"));
  for (const char* expected :
       {"GROUP \"validation\"", "DATASET \"tokens\"", "DATASET \"doc_offsets\"", "H5T_STD_U16LE",
        "H5T_STD_U64LE", "CHECKSUM FLETCHER32", "CHUNKED ( 65536 )", "ATTRIBUTE \"format_version\"",
        "ATTRIBUTE \"tokenizer\"", "ATTRIBUTE \"tokenizer_sha256\"", "ATTRIBUTE \"vocab_size\"",
        "ATTRIBUTE \"eos_id\"", "ATTRIBUTE \"num_tokens\"", "ATTRIBUTE \"num_bytes\"",
        "ATTRIBUTE \"content_hash\"", "ATTRIBUTE \"source\""}) {
    EXPECT_NE(header.find(expected), std::string::npos) << expected << " not in\n" << header;
  }
  const std::string data = output_of("h5dump -y -w 0 -d /tokens -s 9990 -c 3 " + (dir / "s.h5"));
  const std::string tokens = fmt::format("{}, {}, {}", made_up_token(9990, 257),
                                         made_up_token(9991, 257), made_up_token(9992, 257));
  EXPECT_NE(data.find(tokens), std::string::npos) << tokens << " not in\n" << data;
}

}  // namespace
}  // namespace qstep::data
