# Writes OUTPUT, a C++ source with what the binary is built from, where that changed:
# cmake -DOUTPUT=... -DSOURCE_DIR=... -DGIT=... -DVERSION=... -DTYPE=... -DFLAGS=... -DCOMPILER=... -P build_info.cmake
set(revision "unknown")
if(GIT)
  execute_process(COMMAND ${GIT} -C ${SOURCE_DIR} rev-parse --short=12 HEAD
    OUTPUT_VARIABLE head OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(NOT failed)
    execute_process(COMMAND ${GIT} -C ${SOURCE_DIR} diff-index --quiet HEAD -- ERROR_QUIET RESULT_VARIABLE changed)
    set(revision ${head})
    if(changed)
      string(APPEND revision " with changes")
    endif()
  endif()
endif()
set(text "// Written by trainer/machine/build_info.cmake.
#include \"trainer/machine/build_info.h\"

namespace qstep::trainer {

const BuildInfo& build_info() {
  static constexpr BuildInfo kInfo{\"${VERSION}\", \"${revision}\", \"${TYPE}\", \"${FLAGS}\", \"${COMPILER}\"};
  return kInfo;
}

}  // namespace qstep::trainer
")
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "${text}" @ONLY)  # leaves an equal file alone
