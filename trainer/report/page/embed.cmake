# Writes OUTPUT, a C++ source that holds the files of the report's page: cmake -DOUTPUT=... -DFILES="a.css;b.js" -P embed.cmake
set(entries "")
foreach(file IN LISTS FILES)
  get_filename_component(name ${file} NAME)
  file(READ ${file} text)
  string(APPEND entries "    {\"${name}\", R\"page(${text})page\"},\n")
endforeach()
file(WRITE ${OUTPUT} "// Written by trainer/report/page/embed.cmake from the files of trainer/report/page/.
#include \"trainer/report/report_page.h\"

namespace qstep::trainer::report {

namespace {

constexpr PageFile kFiles[] = {
${entries}};

}  // namespace

std::span<const PageFile> page_files() { return kFiles; }

}  // namespace qstep::trainer::report
")
