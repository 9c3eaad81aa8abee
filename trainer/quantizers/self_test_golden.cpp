#include "trainer/quantizers/self_test_golden.h"

#include <array>

namespace qstep::trainer {

namespace {

constexpr auto kRow = ops::Orientation::kRowwise;
constexpr auto kColumn = ops::Orientation::kColumnwise;

constexpr std::array kChecksums = {
    GoldenChecksum{"fp8-e4m3 128x128 fp32-pow2", kColumn, "732f5ff9e3c9d8b1a2aea87bfaf7cb76"},
    GoldenChecksum{"fp8-e4m3 128x128 fp32-pow2", kRow, "532373161a235483555d84aac499c4e7"},
    GoldenChecksum{"fp8-e4m3 128x128", kColumn, "0b4db2cfb3580b6cef7a12b03aaf90cc"},
    GoldenChecksum{"fp8-e4m3 128x128", kRow, "f07498be3dc4e8c298496e353c8ee462"},
    GoldenChecksum{"fp8-e4m3 1x128 fp32-pow2", kColumn, "b22f9e4f3aa113002ee2b6bb6de4e462"},
    GoldenChecksum{"fp8-e4m3 1x128 fp32-pow2", kRow, "b0d9ef1b34f439ff9f7584ab6c03ad14"},
    GoldenChecksum{"fp8-e4m3 1x128", kColumn, "71dd0519c25fca750110d343b9f5fd76"},
    GoldenChecksum{"fp8-e4m3 1x128", kRow, "8f9bcbccda67f9c6b1ad5460f7c91588"},
    GoldenChecksum{"fp8-e4m3 tensor amax-delayed", kColumn, "9ba386c269cf10aad9aa389aa1b1a0a8"},
    GoldenChecksum{"fp8-e4m3 tensor amax-delayed", kRow, "6ecd68128d90e211f8faef5ff2217915"},
    GoldenChecksum{"fp8-e4m3 tensor", kColumn, "7fbc6bbf817cdc58fa4d170f0af7455b"},
    GoldenChecksum{"fp8-e4m3 tensor", kRow, "b8f11f2d93234f32e0a1f57f8af7e2e8"},
    GoldenChecksum{"fp8-e5m2 tensor amax-delayed", kColumn, "da42789a57bf3c3ddc4711c71e4f8722"},
    GoldenChecksum{"fp8-e5m2 tensor amax-delayed", kRow, "40ff5387d418734476c7dbf51dfe4e92"},
    GoldenChecksum{"fp8-e5m2 tensor", kColumn, "3aea07248782b7c4c093bc031a52c9d1"},
    GoldenChecksum{"fp8-e5m2 tensor", kRow, "868b9dc8747081c200943e965695b8e7"},
    GoldenChecksum{"mxfp4 1x32 pow2-floor stochastic hadamard-64 signs-per-step headroom-3/4",
                   kColumn, "3421586218dbd3719a15eee767e724b7"},
    GoldenChecksum{"mxfp4 1x32 pow2-floor stochastic hadamard-64 signs-per-step headroom-3/4", kRow,
                   "2719f3d0fe103f14fc727c21a60b138d"},
    GoldenChecksum{"mxfp8-e4m3 1x32", kColumn, "cf49ead94aecabdb6f416b9a1a635f78"},
    GoldenChecksum{"mxfp8-e4m3 1x32", kRow, "ca6cb8788265a5ca97f4c61915f6b756"},
    GoldenChecksum{"nvfp4 16x16 4/6-mae e4m3-max-256", kColumn, "d4d6d79419b99e0ef255f599d5a182d3"},
    GoldenChecksum{"nvfp4 16x16 4/6-mae e4m3-max-256", kRow, "6715d0acf1b7b2f01b3b5daa39cf2d7b"},
    GoldenChecksum{"nvfp4 16x16", kColumn, "77d2f5ce972ec959d440132d8b756806"},
    GoldenChecksum{"nvfp4 16x16", kRow, "37ff396b438101401abc3fafd51dd487"},
    GoldenChecksum{"nvfp4 1x16 4/6-mae e4m3-max-256", kRow, "97d6f53567334838d4c0aa52f0b59509"},
    GoldenChecksum{"nvfp4 1x16 4/6-mse e4m3-max-256", kRow, "b1f287ddb0f586793654e608b2bfde24"},
    GoldenChecksum{"nvfp4 1x16 amax-group-128", kRow, "293af42f803e184840fc8f2fc112a336"},
    GoldenChecksum{"nvfp4 1x16 hadamard-16 4/6-mae e4m3-max-256", kColumn,
                   "c9ba7576a383c65d52fa5f34402d170d"},
    GoldenChecksum{"nvfp4 1x16 hadamard-16", kColumn, "caf29dcc27d008d652155fa4646fb25d"},
    GoldenChecksum{"nvfp4 1x16 ms-eden hadamard-128 signs-per-step", kColumn,
                   "7a171578dc6d6a2fa20fd6b90799052b"},
    GoldenChecksum{"nvfp4 1x16 ms-eden hadamard-128 signs-per-step", kRow,
                   "db37ff7712d79c103ddfca6e0675c9b0"},
    GoldenChecksum{"nvfp4 1x16 stochastic 4/6-mae e4m3-max-256", kRow,
                   "42f63503796ea1ee01afb709eaed9bcb"},
    GoldenChecksum{"nvfp4 1x16 stochastic hadamard-16 4/6-mae e4m3-max-256", kColumn,
                   "060361920f228fd58f9ab746eb76418f"},
    GoldenChecksum{"nvfp4 1x16 stochastic hadamard-16 signs-per-step amax-group-128", kColumn,
                   "61febc30707aa6db7829a77844fa1da6"},
    GoldenChecksum{"nvfp4 1x16 stochastic hadamard-16 signs-per-step amax-group-128", kRow,
                   "6ff5ad60c26838c54a847f4cdc1c16fe"},
    GoldenChecksum{"nvfp4 1x16 stochastic hadamard-16", kColumn,
                   "5f4fe0673cce28333e646d61cb914378"},
    GoldenChecksum{"nvfp4 1x16 stochastic", kColumn, "3fb6cf74ccef2563f761d3a130f9a0c3"},
    GoldenChecksum{"nvfp4 1x16 stochastic", kRow, "de8380978588ff4a43d3caee10177e3d"},
    GoldenChecksum{"nvfp4 1x16", kColumn, "eceeb06c4dbf9d0189fed4ffe1a547ee"},
    GoldenChecksum{"nvfp4 1x16", kRow, "cbf5551192532801524323fc593cf825"},
};

}  // namespace

std::span<const GoldenChecksum> golden_checksums() { return kChecksums; }

}  // namespace qstep::trainer
