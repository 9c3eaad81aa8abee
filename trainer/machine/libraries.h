// The libraries qstep stands on, as found at run time: versions, what they choose, what is missing
// and how to get it.
#pragma once

#include <string>
#include <vector>

namespace qstep::trainer {

struct Library {
  std::string name;
  bool present = false;
  std::string version;  // empty where it does not tell
  std::string note;     // what it chose; or why it is missing and how to get it
};

// Linked into every build: oneDNN, OpenMP, HDF5, SentencePiece.
std::vector<Library> linked_libraries();

// Looked for on this machine and not needed on one CPU.
Library mpi_library();
std::vector<Library> gpu_libraries();       // CUDA driver, cuBLASLt, cuDNN, NCCL
std::vector<Library> optional_libraries();  // all of them

}  // namespace qstep::trainer
