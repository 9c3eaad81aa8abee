// The table. Peaks: dense figures of the DGX Cloud benchmarking README (H100, B200, B300, GB200,
// GB300) and of the vendor's data sheets; RTX boards: FP32 accumulation, llmq's table. What is
// attained of them was measured of single products by others, never of a training step.
#include <fmt/format.h>

#include "trainer/machine/machines.h"

namespace qstep::trainer {

namespace {

constexpr double kTera = 1e12, kGiga = 1e9;

constexpr std::string_view kDgxPeaks = "DGX Cloud benchmarking README, dense";
constexpr std::string_view kLlmqPeaks = "llmq src/utilities/sol.cpp, dense, FP32 accumulation";
constexpr std::string_view kDataSheet = "NVIDIA data sheet, dense";

// Maximum achievable matmul flops: the best of a sweep of shapes, mean of 100 runs. A large product
// attains less: cuBLAS BF16 at 8192^3 on B200 1.42 of 2.25 PFLOP/s (pytorch/ao#2427), 0.631, where
// the sweep's best is 0.776. The other shares of that table are scaled alike.
constexpr std::string_view kMamf =
    "best of a sweep (MAMF table, stas00/ml-engineering) x 0.81 for large shapes (pytorch/ao#2427)";
constexpr double kLargeShapes = 0.631 / 0.776;
constexpr std::string_view kFp4Share =
    "cuBLASLt NVFP4 on B200 at 8192^3, 5.37 of 9.0 PFLOP/s, pytorch/ao#2427";
constexpr double kB200Fp4Share = 0.597;

// Where nobody has published a figure: the neighbours' order of magnitude.
constexpr double kAssumedProductShare = 0.75, kAssumedAttentionForward = 0.5,
                 kAssumedAttentionBackward = 0.4;

// "the achievable share of HBM bandwidth is 75-85 %": the middle (peers.md section 4, trick 10);
// TransformerEngine#3114 measures 78-80 % for an amax kernel on Blackwell.
constexpr double kMemoryShare = 0.80;
constexpr std::string_view kMemorySource =
    "data sheet; 80 % attained: TransformerEngine#3114 (78-80 %)";

// All-gather and reduce-scatter of 16 GiB reach 361 and 363 of 450 GB/s on eight H200, the ring 682
// of 900 on eight B200 (stas00/ml-engineering network/README.md).
constexpr double kHopperLinkShare = 0.80, kBlackwellLinkShare = 0.757;
constexpr std::string_view kLinkSource =
    "data sheet, one direction; attained: nccl-tests, stas00/ml-engineering network";
// No such measurement of one GPU's adapter was found: the links' rule of thumb.
constexpr double kAssumedNetworkShare = 0.80;

// cuBLAS BF16 at 1024^3 on B200 takes 5.08 us, of which the flops at 8192^3's rate are 1.5 us
// (pytorch/ao#2427): the rest is paid per operation.
constexpr double kLaunchSeconds = 3.6e-6;
constexpr std::string_view kLaunchSource = "1024^3 against 8192^3 on B200, pytorch/ao#2427";

struct Peak {
  double tflops = 0, share = kAssumedProductShare;
  std::string_view source = "assumed";
};

// From the table of sweeps.
constexpr Peak swept(double tflops, double best_share, std::string_view source = kMamf) {
  return {tflops, best_share * kLargeShapes, source};
}

struct Attention {
  double forward, backward;
  std::string_view source;
};
// Forward 614 TFLOP/s at T = 8192 (pytorch/benchmark#2391); backward 1.5 times FlashAttention-2's
// 337 TFLOP/s (arXiv:2407.08608 section 1, the lower figure; flash-attention#1051).
constexpr Attention kHopperAttention{614.0 / 989, 505.0 / 989,
                                     "FlashAttention-3: pytorch/benchmark#2391, arXiv:2407.08608"};
// Forward 1418, backward 1209 TFLOP/s of 2250, causal, T = 8192.
constexpr Attention kBlackwellAttention{1418.0 / 2250, 1209.0 / 2250,
                                        "FlashAttention-4: Dao-AILab/flash-attention#2280"};
constexpr Attention kAmpereAttention{0.73, 0.63, "FlashAttention-2, arXiv:2307.08691, at best"};
constexpr Attention kAssumedAttention{kAssumedAttentionForward, kAssumedAttentionBackward,
                                      "assumed"};

struct Row {
  std::string_view name, title, peaks_source;
  Peak bf16, fp8, fp4;
  Attention attention;
  double memory_tbs, memory_gb;
  int gpus_per_node, gpus_per_link;
  double link_gbs, link_share, network_gbs;
};

// capability: 90 is 9.0. FP8 with 128 x 128 tiles is a product of cuBLAS 12.9 on Hopper alone
// (9.0); block scales are Blackwell's (10.x, 12.0).
MachineModel model_of(const Row& row, int capability) {
  const bool blackwell = capability >= 100;
  MachineModel m;
  m.name = row.name;
  m.title = row.title;
  const auto set = [&](ProductFormat format, const Peak& peak, std::string_view note = {}) {
    m.products[static_cast<size_t>(format)] = {
        .peak = peak.tflops * kTera,
        .share = peak.share,
        .source = fmt::format("{}; share: {}{}", row.peaks_source, peak.source, note)};
  };
  set(ProductFormat::kBf16, row.bf16);
  if (row.fp8.tflops > 0) set(ProductFormat::kFp8, row.fp8);
  if (capability == 90) {
    set(ProductFormat::kFp8Tiles, row.fp8, ", assumed to hold for tiles");
  }
  if (blackwell) {
    set(ProductFormat::kMxfp8, row.fp8, ", assumed to hold for MXFP8");
    set(ProductFormat::kNvfp4, row.fp4);
    set(ProductFormat::kMxfp4, row.fp4, ", assumed to hold for MXFP4");
  }
  m.attention_forward = row.attention.forward;
  m.attention_backward = row.attention.backward;
  m.attention_source = row.attention.source;
  m.memory = {row.memory_tbs * kTera, kMemoryShare, std::string(kMemorySource)};
  m.memory_bytes = static_cast<int64_t>(row.memory_gb * kGiga);
  m.capability = capability;
  m.gpus_per_node = row.gpus_per_node;
  m.gpus_per_link = row.gpus_per_link;
  m.link = {row.link_gbs * kGiga, row.link_share, std::string(kLinkSource)};
  m.network = {row.network_gbs * kGiga, kAssumedNetworkShare, "vendor; share assumed"};
  m.launch_s = kLaunchSeconds;
  m.launch_source = kLaunchSource;
  return m;
}

// A board in a PCIe slot; which network it is behind is its owner's to say.
constexpr double kPcie4 = 32, kPcie5 = 64;

std::vector<MachineModel> build() {
  const Peak none{};
  std::vector<MachineModel> list;
  const auto add = [&](int capability, const Row& row) {
    list.push_back(model_of(row, capability));
  };
  const auto board = [&](int capability, std::string_view name, std::string_view title,
                         std::string_view source, const std::array<double, 3>& tflops,
                         const Attention& attention, double memory_tbs, double memory_gb,
                         double link_gbs) {
    add(capability, {name,
                     title,
                     source,
                     {tflops[0]},
                     {tflops[1]},
                     {tflops[2]},
                     attention,
                     memory_tbs,
                     memory_gb,
                     8,
                     8,
                     link_gbs,
                     kHopperLinkShare,
                     0});
  };
  board(89, "rtx4090", "NVIDIA RTX 4090", kLlmqPeaks, {165.2, 330.3, 0}, kAssumedAttention, 1.008,
        24, kPcie4);
  board(120, "rtx5090", "NVIDIA RTX 5090", kLlmqPeaks, {209.5, 419, 1676}, kAssumedAttention, 1.792,
        32, kPcie5);
  board(120, "rtx-pro-6000", "NVIDIA RTX PRO 6000 Workstation", kLlmqPeaks, {503.8, 1007.6, 2015.2},
        kAssumedAttention, 1.792, 96, kPcie5);
  add(80, {"a100", "NVIDIA A100 SXM 80 GB", kDataSheet, swept(312, 0.869), none, none,
           kAmpereAttention, 2.039, 80, 8, 8, 300, kHopperLinkShare, 25});
  board(90, "h100-pcie", "NVIDIA H100 PCIe", kDataSheet, {756, 1513, 0}, kHopperAttention, 2.0, 80,
        kPcie5);
  board(90, "h100-nvl", "NVIDIA H100 NVL, one board", kDataSheet, {835, 1671, 0}, kHopperAttention,
        3.9, 94, kPcie5);
  add(90, {"h100", "NVIDIA H100 SXM", kDgxPeaks, swept(989, 0.803), swept(1979, 0.709), none,
           kHopperAttention, 3.35, 80, 8, 8, 450, kHopperLinkShare, 50});
  add(90, {"h200", "NVIDIA H200 SXM", kDataSheet, swept(989, 0.803), swept(1979, 0.734), none,
           kHopperAttention, 4.8, 141, 8, 8, 450, kHopperLinkShare, 50});
  const Peak fp4_b200{9000, kB200Fp4Share, kFp4Share};
  add(100, {"b200", "NVIDIA B200 SXM", kDgxPeaks, swept(2250, 0.776), swept(4500, 0.763), fp4_b200,
            kBlackwellAttention, 8.0, 180, 8, 8, 900, kBlackwellLinkShare, 50});
  constexpr std::string_view kAssumedFp4 = "assumed: that of B200 (pytorch/ao#2427)";
  constexpr std::string_view kAssumedGb200 = "assumed: that of GB200 (MAMF table)";
  add(103, {"b300",
            "NVIDIA B300 SXM",
            kDgxPeaks,
            swept(2250, 0.786),
            swept(4500, 0.745),
            {13500, kB200Fp4Share, kAssumedFp4},
            kBlackwellAttention,
            8.0,
            288,
            8,
            8,
            900,
            kBlackwellLinkShare,
            100});
  // 1822 and 3616 TFLOP/s of 2450 and 4900.
  add(100, {"gb200",
            "NVIDIA GB200 NVL72, one GPU",
            kDgxPeaks,
            swept(2450, 0.744),
            swept(4900, 0.738),
            {9800, kB200Fp4Share, kAssumedFp4},
            kBlackwellAttention,
            8.0,
            186,
            4,
            72,
            900,
            kBlackwellLinkShare,
            50});
  add(103, {"gb300",
            "NVIDIA GB300 NVL72, one GPU",
            kDgxPeaks,
            swept(2450, 0.744, kAssumedGb200),
            swept(4900, 0.738, kAssumedGb200),
            {14700, kB200Fp4Share, kAssumedFp4},
            kBlackwellAttention,
            8.0,
            288,
            4,
            72,
            900,
            kBlackwellLinkShare,
            100});
  return list;
}

}  // namespace

const std::vector<MachineModel>& machines() {
  static const std::vector<MachineModel> list = build();
  return list;
}

}  // namespace qstep::trainer
