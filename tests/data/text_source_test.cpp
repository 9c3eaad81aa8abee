#include "data/text_source.h"

#include <gtest/gtest.h>

#include "tests/data/compress.h"
#include "tests/data/test_files.h"

namespace qstep::data {
namespace {

std::string lines(int n) {
  std::string text;
  for (int i = 0; i < n; ++i) text += "line " + std::to_string(mix64(i)) + " of a text  \n";
  return text;
}

std::vector<std::string> documents(const std::vector<TextInput>& inputs,
                                   const std::string& field = "text") {
  TextSource source(inputs, field);
  std::vector<std::string> found;
  bool open = false;
  for (TextPiece piece; source.next(piece);) {
    EXPECT_FALSE(piece.text.empty());
    EXPECT_LE(piece.text.size(), TextSource::kPieceBytes);
    if (!open) found.emplace_back();
    EXPECT_EQ(piece.document, found.size() - 1);
    found.back() += piece.text;
    open = !piece.ends_document;
  }
  EXPECT_FALSE(open) << "the last document must end";
  uint64_t total = 0;
  for (const TextInput& input : inputs) total += input.file_bytes;
  EXPECT_EQ(source.file_bytes_done(), total);
  return found;
}

std::vector<std::string> documents(const std::string& path, const std::string& field = "text") {
  return documents(list_inputs({path}, kDefaultGlobs), field);
}

using Texts = std::vector<std::string>;

TEST(TextSource, AFileIsADocument) {
  const TempDir dir;
  for (const size_t size : {size_t{1}, TextSource::kPieceBytes - 1, TextSource::kPieceBytes,
                            TextSource::kPieceBytes + 1, 3 * TextSource::kPieceBytes + 7}) {
    const std::string text = lines(12000).substr(0, size);
    ASSERT_EQ(text.size(), size);
    write_file(dir / "a.txt", text);
    EXPECT_EQ(documents(dir / "a.txt"), Texts{text}) << size;
  }
}

TEST(TextSource, PiecesEndAtLineEndsOrBetweenCharacters) {
  const TempDir dir;
  write_file(dir / "lines.txt", lines(9000));
  std::string wide = "x";
  while (wide.size() < 5 * TextSource::kPieceBytes) wide += "日";
  write_file(dir / "wide.txt", wide);
  TextSource source(list_inputs({dir / "lines.txt", dir / "wide.txt"}, {}), "text");
  int n_pieces = 0;
  for (TextPiece piece; source.next(piece); ++n_pieces) {
    EXPECT_TRUE(piece.document == 1 || piece.text.ends_with("\n"));
    EXPECT_NE(static_cast<unsigned char>(piece.text[0]) & 0xc0, 0x80);
  }
  EXPECT_GT(n_pieces, 8);
}

TEST(TextSource, EmptyFilesAreNoDocuments) {
  const TempDir dir;
  write_file(dir / "1.txt", "");
  write_file(dir / "2.txt", "two");
  write_file(dir / "3.txt", "");
  write_file(dir / "4.jsonl", "");
  EXPECT_EQ(documents(dir.str()), Texts{"two"});
}

TEST(TextSource, JsonLines) {
  const TempDir dir;
  write_file(dir / "a.jsonl",
             "{\"text\": \"one\\nline \\u00e9\", \"id\": 1}\n\n  \r\n{\"text\": \"\"}\n"
             "{\"id\": 2, \"text\": \"two\"}\r\n{\"text\": \"no line end\"}");
  EXPECT_EQ(documents(dir / "a.jsonl"), (Texts{"one\nline é", "two", "no line end"}));
  write_file(dir / "b.jsonl", "{\"content\": \"x\"}\n");
  EXPECT_EQ(documents(dir / "b.jsonl", "content"), Texts{"x"});
}

TEST(TextSource, LongJsonLinesComeInPieces) {
  const TempDir dir;
  Texts expected;
  std::string file;
  for (const int n : {3, 20000, 1, 9000}) {
    std::string text = lines(n), escaped;
    for (const char c : text) escaped += c == '\n' ? std::string("\\n") : std::string(1, c);
    file += "{\"text\":\"" + escaped + "\"}\n";
    expected.push_back(std::move(text));
  }
  write_file(dir / "a.jsonl", file);
  EXPECT_EQ(documents(dir / "a.jsonl"), expected);
}

TEST(TextSource, BadJsonNamesFileAndLine) {
  const TempDir dir;
  const std::string path = dir / "a.jsonl";
  const auto expect = [&](const std::string& second_line, const std::string& message) {
    write_file(path, "{\"text\": \"fine\"}\n" + second_line + "\n{\"text\": \"fine\"}\n");
    const std::string text = error_of([&] { documents(path); });
    EXPECT_EQ(text.find(path + ", line 2: "), 0u) << text;
    EXPECT_NE(text.find(message), std::string::npos) << text;
  };
  expect("{\"text\": \"cut", "invalid JSON");
  expect("{\"text\": \"\xff\"}", "invalid UTF-8");
  expect("[1]", "expected a JSON object, found array");
  expect("{\"body\": \"x\"}", "the field \"text\", which is missing");
  expect("{\"text\": 7}", "field \"text\": expected a string, found number");
}

// ---- compression ----------------------------------------------------------------------

TEST(TextSource, GzipAndZstdGiveTheSameDocuments) {
  const TempDir dir;
  const std::string text = lines(20000);
  const std::string json = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n";
  write_file(dir / "a.txt.gz", gzip(text));
  write_file(dir / "a.txt.zst", zstd(text));
  write_file(dir / "a.jsonl.gz", gzip(json));
  write_file(dir / "a.jsonl.zst", zstd(json));
  EXPECT_EQ(documents(dir / "a.txt.gz"), Texts{text});
  EXPECT_EQ(documents(dir / "a.txt.zst"), Texts{text});
  EXPECT_EQ(documents(dir / "a.jsonl.gz"), (Texts{"one", "two"}));
  EXPECT_EQ(documents(dir / "a.jsonl.zst"), (Texts{"one", "two"}));
}

TEST(TextSource, SeveralMembersAndFramesAreOneText) {
  const TempDir dir;
  const std::string a = lines(3000), b = "second member\n";
  write_file(dir / "m.txt.gz", gzip(a) + gzip("") + gzip(b));
  write_file(dir / "m.txt.zst", zstd(a) + zstd("") + zstd(b));
  EXPECT_EQ(documents(dir / "m.txt.gz"), Texts{a + b});
  EXPECT_EQ(documents(dir / "m.txt.zst"), Texts{a + b});
}

TEST(TextSource, R15_DamagedCompressionIsRefused) {
  const TempDir dir;
  const std::string text = lines(20000);
  for (const std::string& name : {std::string("a.txt.gz"), std::string("a.txt.zst")}) {
    const std::string good = name.ends_with("gz") ? gzip(text) : zstd(text);
    const auto expect_refused = [&](const std::string& bytes) {
      write_file(dir / name, bytes);
      EXPECT_ERROR(documents(dir / name), name + ": damaged or not a");
    };
    for (const size_t keep : {size_t{0}, size_t{1}, size_t{9}, good.size() / 2, good.size() - 1}) {
      expect_refused(good.substr(0, keep));
    }
    std::string flipped = good;
    flipped[good.size() / 2] ^= 4;
    expect_refused(flipped);
    expect_refused(good + "trailing garbage");
    expect_refused("plain text with the wrong name");
  }
}

// ---- which files ----------------------------------------------------------------------

std::vector<std::string> names(const TempDir& dir, const std::vector<std::string>& globs) {
  std::vector<std::string> found;
  for (const TextInput& input : list_inputs({dir.str()}, globs)) {
    found.push_back(std::filesystem::path(input.path).lexically_relative(dir.str()).string());
  }
  return found;
}

TEST(ListInputs, FoldersAreSearchedInSortedOrder) {
  const TempDir dir;
  for (const char* name : {"b.txt", "a/z.txt", "a/c/x.md", "a/b.h", "photo.png", ".hidden.txt",
                           ".git/x.txt", "n.jsonl.gz"}) {
    write_file(dir / name, "x");
  }
  std::filesystem::create_symlink("nowhere", dir / "dangling.txt");
  EXPECT_EQ(names(dir, kDefaultGlobs), (Texts{"a/c/x.md", "a/z.txt", "b.txt", "n.jsonl.gz"}));
  EXPECT_EQ(names(dir, {"*.h"}), Texts{"a/b.h"});
  EXPECT_EQ(names(dir, {"a/*.txt", "*.md"}), (Texts{"a/c/x.md", "a/z.txt"}));
  EXPECT_ERROR(names(dir, {"*.cpp"}), "no file in this folder matches *.cpp");
}

TEST(ListInputs, NamedFilesNeedNoPattern) {
  const TempDir dir;
  write_file(dir / "photo.png", "1234");
  const auto list = list_inputs({dir / "photo.png"}, {"*.txt"});
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0].file_bytes, 4u);
  EXPECT_ERROR(list_inputs({dir / "no.txt"}, {}), "no such file or folder");
  EXPECT_ERROR(list_inputs({"/dev/null"}, {}), "pipes and devices will not do");
}

}  // namespace
}  // namespace qstep::data
