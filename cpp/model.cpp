#include "model.h"

#include <fstream>

#include <ATen/Parallel.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/script.h>

namespace {

constexpr const char* CONTRACT_FILE = "contract.json";  // in TorchScript
constexpr const char* CONTRACT_KEY = "contract";        // in a package's metadata

// torch's errors are pages long; the first line has the cause.
std::string first_line(const std::exception& error) {
    const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
    const std::string text = torch_error ? torch_error->what_without_backtrace() : error.what();
    return text.substr(0, text.find('\n'));
}

bool is_package(const std::string& path) { return path.size() > 4 && path.substr(path.size() - 4) == ".pt2"; }

}  // namespace

struct Model::Runner {
    std::string contract;
    virtual ~Runner() = default;
    virtual at::Tensor run(const at::Tensor& batch) = 0;
};

namespace {

struct Script : Model::Runner {
    torch::jit::Module module;

    explicit Script(const std::string& path) {
        torch::jit::ExtraFilesMap extra{{CONTRACT_FILE, ""}};
        module = torch::jit::load(path, c10::kCPU, extra);
        module.eval();
        contract = extra[CONTRACT_FILE];
    }
    at::Tensor run(const at::Tensor& batch) override { return module.forward({batch}).toTensor(); }
};

struct Package : Model::Runner {
    torch::inductor::AOTIModelPackageLoader loader;

    explicit Package(const std::string& path) : loader(path) {
        const auto metadata = loader.get_metadata();
        if (const auto found = metadata.find(CONTRACT_KEY); found != metadata.end()) contract = found->second;
    }
    at::Tensor run(const at::Tensor& batch) override { return loader.run({batch}).at(0); }
};

}  // namespace

Model::Model(const std::string& path) {
    if (!std::ifstream(path).good()) throw BadModel("cannot read it; make it first: make torchscript");
    at::set_num_threads(1);
    at::set_num_interop_threads(1);
    try {
        if (is_package(path)) runner_ = std::make_unique<Package>(path);
        else runner_ = std::make_unique<Script>(path);
    } catch (const std::exception& error) {
        throw BadModel("it is neither a TorchScript file nor an AOTInductor package (" + first_line(error) + ")");
    }
    contract_ = std::make_unique<Contract>(Contract::from_json(runner_->contract));
}

Model::~Model() = default;

std::vector<std::vector<float>> Model::outputs(const std::vector<Image>& images) const {
    const c10::InferenceMode no_gradients;
    const auto& contract = *contract_;
    const auto count = std::int64_t(images.size()), labels = std::int64_t(contract.labels.size());
    at::Tensor batch = at::empty({count, contract.channels, contract.height, contract.width}, at::kFloat);
    for (std::int64_t i = 0; i < count; ++i)
        contract.normalize(images[i], batch.data_ptr<float>() + i * contract.values());
    at::Tensor rows;
    try {
        rows = runner_->run(batch).to(at::kFloat).contiguous();
    } catch (const std::exception& error) {
        throw BadModel("it does not accept images in its contract's form (" + first_line(error) + ")");
    }
    if (rows.dim() != 2 || rows.size(0) != count || rows.size(1) != labels)
        throw BadModel("it does not return " + std::to_string(labels) +
                       " values for each image, one per label of its contract");
    std::vector<std::vector<float>> outputs;
    for (std::int64_t i = 0; i < count; ++i) {
        const float* row = rows.const_data_ptr<float>() + i * labels;
        outputs.emplace_back(row, row + labels);
    }
    return outputs;
}
