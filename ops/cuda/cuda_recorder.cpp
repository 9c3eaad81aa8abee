#include "ops/cuda/cuda_recorder.h"

#include <utility>
#include <vector>

#include "ops/cuda/cuda_capture.h"

namespace qstep::ops {

namespace {

struct GraphDeleter {
  void operator()(cudaGraph_t graph) const { (void)cudaGraphDestroy(graph); }
};
using Graph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, GraphDeleter>;
struct RunnableDeleter {
  void operator()(cudaGraphExec_t graph) const { (void)cudaGraphExecDestroy(graph); }
};
using Runnable = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, RunnableDeleter>;

Runnable instantiate(cudaGraph_t graph) {
  cudaGraphExec_t runnable = nullptr;
  cuda_check(cudaGraphInstantiate(&runnable, graph, 0), "cudaGraphInstantiate");
  return Runnable(runnable);
}

std::vector<cudaGraphNode_t> nodes_of(cudaGraph_t graph) {
  size_t n = 0;
  cuda_check(cudaGraphGetNodes(graph, nullptr, &n), "cudaGraphGetNodes");
  std::vector<cudaGraphNode_t> nodes(n);
  if (n > 0) cuda_check(cudaGraphGetNodes(graph, nodes.data(), &n), "cudaGraphGetNodes");
  return nodes;
}

class CudaRecording final : public Recording {
 public:
  CudaRecording(CudaContext& context, CudaClock& clock, Graph graph,
                std::vector<CudaCapture::Change> changes, int64_t first_mark)
      : context_(context),
        clock_(clock),
        scratch_version_(context.scratch_version()),
        graph_(std::move(graph)),
        runnable_(instantiate(graph_.get())),
        changes_(std::move(changes)) {
    find_marks(first_mark);
    launch();
  }
  CudaRecording(const CudaRecording&) = delete;
  CudaRecording& operator=(const CudaRecording&) = delete;
  ~CudaRecording() override {
    (void)cudaStreamSynchronize(context_.stream());
  }  // it may be running

  bool valid() const override { return scratch_version_ == context_.scratch_version(); }

  // Earlier runs keep what they were launched with.
  int64_t run(const Moment& moment) override {
    for (const CudaCapture::Change& change : changes_) change(runnable_.get(), moment);
    const int64_t first = clock_.add_marks(static_cast<int64_t>(marks_.size()));
    for (size_t i = 0; i < marks_.size(); ++i) {
      cuda_check(cudaGraphExecEventRecordNodeSetEvent(
                     runnable_.get(), marks_[i], clock_.event(first + static_cast<int64_t>(i))),
                 "cudaGraphExecEventRecordNodeSetEvent");
    }
    launch();
    return first;
  }

 private:
  void launch() {
    cuda_check(cudaGraphLaunch(runnable_.get(), context_.stream()), "cudaGraphLaunch");
  }

  // The nodes of the marks from first_mark on, in their order.
  void find_marks(int64_t first_mark) {
    marks_.resize(static_cast<size_t>(clock_.marks() - first_mark));
    size_t found = 0;
    for (const cudaGraphNode_t node : nodes_of(graph_.get())) {
      cudaGraphNodeType type = cudaGraphNodeTypeEmpty;
      cuda_check(cudaGraphNodeGetType(node, &type), "cudaGraphNodeGetType");
      if (type != cudaGraphNodeTypeEventRecord) continue;
      cudaEvent_t event = nullptr;
      cuda_check(cudaGraphEventRecordNodeGetEvent(node, &event),
                 "cudaGraphEventRecordNodeGetEvent");
      for (size_t i = 0; i < marks_.size(); ++i) {
        if (clock_.event(first_mark + static_cast<int64_t>(i)) != event) continue;
        marks_[i] = node;
        ++found;
      }
    }
    check(found == marks_.size(), "a mark is not in the recorded graph");
  }

  CudaContext& context_;
  CudaClock& clock_;
  int64_t scratch_version_;
  Graph graph_;
  Runnable runnable_;
  std::vector<CudaCapture::Change> changes_;
  std::vector<cudaGraphNode_t> marks_;
};

// The stream captures as long as this lives.
class StreamCapture final : public Capture {
 public:
  StreamCapture(CudaContext& context, CudaClock& clock)
      : context_(context), clock_(clock), first_mark_(clock.marks()), capture_(context.stream()) {
    check(context.capture() == nullptr, "a recording within a recording");
    cuda_check(cudaStreamBeginCapture(context.stream(), cudaStreamCaptureModeThreadLocal),
               "cudaStreamBeginCapture");
    context.set_capture(&capture_);
  }
  StreamCapture(const StreamCapture&) = delete;
  StreamCapture& operator=(const StreamCapture&) = delete;
  ~StreamCapture() override {
    if (context_.capture() != &capture_) return;
    const Graph unwanted(end_capture().second);
    (void)cudaGetLastError();
  }

  std::unique_ptr<Recording> end() override {
    const auto [status, captured] = end_capture();
    Graph graph(captured);
    cuda_check(status, "cudaStreamEndCapture");
    if (nodes_of(graph.get()).empty()) return nullptr;
    return std::make_unique<CudaRecording>(context_, clock_, std::move(graph),
                                           capture_.take_changes(), first_mark_);
  }

 private:
  std::pair<cudaError_t, cudaGraph_t> end_capture() {
    context_.set_capture(nullptr);
    cudaGraph_t graph = nullptr;
    const cudaError_t status = cudaStreamEndCapture(context_.stream(), &graph);
    return {status, graph};
  }

  CudaContext& context_;
  CudaClock& clock_;
  int64_t first_mark_;
  CudaCapture capture_;
};

}  // namespace

std::unique_ptr<Capture> CudaRecorder::begin() {
  return std::make_unique<StreamCapture>(context_, clock_);
}

}  // namespace qstep::ops
