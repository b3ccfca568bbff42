// Encode images by a network that `lwfm export` wrote: g++ encode.cpp -std=c++17 -I INCLUDE -L LIB -lonnxruntime
#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <vector>

// Returns the maps of the first layer [images, C, F, F] for RGB pixels [images, side, side, 3], cropped as the
// metadata say.
std::vector<float> encode(const char* model, std::vector<std::uint8_t>& pixels, std::int64_t side) {
  Ort::Env env;
  Ort::Session session(env, model, Ort::SessionOptions());
  const auto images = static_cast<std::int64_t>(pixels.size()) / (side * side * 3);
  const std::array<std::int64_t, 4> shape{images, side, side, 3};
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const auto input = Ort::Value::CreateTensor(memory, pixels.data(), pixels.size(), shape.data(), shape.size());
  const char *name = "pixels", *output = "maps.0";
  const auto found = session.Run(Ort::RunOptions(), &name, &input, 1, &output, 1);
  const float* maps = found[0].GetTensorData<float>();
  return {maps, maps + found[0].GetTensorTypeAndShapeInfo().GetElementCount()};
}
