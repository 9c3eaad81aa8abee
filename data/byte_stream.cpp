#include "data/byte_stream.h"

#include <fmt/format.h>
#include <zlib.h>
#include <zstd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <vector>

#include "data/error.h"

namespace qstep::data {
namespace {

constexpr size_t kInputBytes = size_t{256} << 10;

class PlainStream final : public ByteStream {
 public:
  explicit PlainStream(const std::string& path)
      : path_(path), file_(std::fopen(path.c_str(), "rb"), std::fclose) {
    if (!file_) throw Error(fmt::format("{}: cannot open: {}", path, std::strerror(errno)));
  }

  size_t read(char* out, size_t n) override {
    const size_t got = std::fread(out, 1, n, file_.get());
    if (got < n && std::ferror(file_.get())) {
      throw Error(
          fmt::format("{}, offset {}: cannot read: {}", path_, done_ + got, std::strerror(errno)));
    }
    done_ += got;
    return got;
  }
  uint64_t file_bytes_done() const override { return done_; }

 private:
  const std::string path_;
  std::unique_ptr<FILE, int (*)(FILE*)> file_;
  uint64_t done_ = 0;
};

// What gzip and zstd share: compressed bytes in a buffer, and what to say about damage.
class Decompressor : public ByteStream {
 public:
  uint64_t file_bytes_done() const override { return file_.file_bytes_done(); }

 protected:
  explicit Decompressor(const std::string& path) : path_(path), file_(path) {}

  size_t refill() { return file_.read(input_.data(), input_.size()); }

  [[noreturn]] void fail(const char* format, const std::string& reason) const {
    throw Error(fmt::format("{}: damaged or not a {} file (near offset {}): {}", path_, format,
                            file_.file_bytes_done(), reason));
  }

  const std::string path_;
  PlainStream file_;
  std::vector<char> input_ = std::vector<char>(kInputBytes);
};

// One or more gzip members, as `cat a.gz b.gz` makes.
class GzipStream final : public Decompressor {
 public:
  explicit GzipStream(const std::string& path) : Decompressor(path) {
    constexpr int kGzipWindow = 15 + 16;  // largest window; gzip framing only
    if (inflateInit2(&stream_, kGzipWindow) != Z_OK) throw std::bad_alloc();
  }
  ~GzipStream() override { inflateEnd(&stream_); }

  size_t read(char* out, size_t n) override {
    stream_.next_out = reinterpret_cast<Bytef*>(out);
    stream_.avail_out = static_cast<uInt>(n);
    while (stream_.avail_out == n) {
      if (stream_.avail_in == 0) {
        stream_.next_in = reinterpret_cast<Bytef*>(input_.data());
        stream_.avail_in = static_cast<uInt>(refill());
        if (stream_.avail_in == 0) {
          if (!between_members_) fail("gzip", "it ends too early");
          return 0;
        }
      }
      if (between_members_ && inflateReset(&stream_) != Z_OK) fail("gzip", "cannot start");
      between_members_ = false;
      const int result = inflate(&stream_, Z_NO_FLUSH);
      if (result == Z_STREAM_END) {
        between_members_ = true;
      } else if (result != Z_OK && result != Z_BUF_ERROR) {
        fail("gzip", stream_.msg ? stream_.msg : "corrupt data");
      }
    }
    return n - stream_.avail_out;
  }

 private:
  z_stream stream_{};
  bool between_members_ = false;  // an empty file is not a gzip file: the first member must come
};

// One or more zstd frames.
class ZstdStream final : public Decompressor {
 public:
  explicit ZstdStream(const std::string& path)
      : Decompressor(path), context_(ZSTD_createDCtx(), ZSTD_freeDCtx) {
    if (!context_) throw std::bad_alloc();
  }

  size_t read(char* out, size_t n) override {
    ZSTD_outBuffer output{out, n, 0};
    while (output.pos == 0) {
      if (pending_.pos == pending_.size) {
        pending_ = {input_.data(), refill(), 0};
        if (pending_.size == 0 && inside_frame_) fail("zstd", "it ends too early");
        if (pending_.size == 0) return 0;
      }
      const size_t result = ZSTD_decompressStream(context_.get(), &output, &pending_);
      if (ZSTD_isError(result)) fail("zstd", ZSTD_getErrorName(result));
      inside_frame_ = result != 0;
    }
    return output.pos;
  }

 private:
  std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context_;
  ZSTD_inBuffer pending_{nullptr, 0, 0};
  bool inside_frame_ = true;  // an empty file is not a zstd file
};

}  // namespace

std::unique_ptr<ByteStream> open_byte_stream(const std::string& path) {
  const std::string_view name = path;
  if (name.ends_with(".gz")) return std::make_unique<GzipStream>(path);
  if (name.ends_with(".zst")) return std::make_unique<ZstdStream>(path);
  return std::make_unique<PlainStream>(path);
}

}  // namespace qstep::data
