// The exported model: the only part that uses torch.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "contract.h"

class Model {
  public:
    struct Runner;  // keeps torch's headers, which take a minute to compile, out of the rest

    // Load TorchScript (.pt) or an AOTInductor package (.pt2) with its contract. Throws BadModel.
    explicit Model(const std::string& path);
    ~Model();

    const Contract& contract() const { return *contract_; }

    // Return the outputs of each image, in the contract's order of labels. Throws BadModel.
    std::vector<std::vector<float>> outputs(const std::vector<Image>& images) const;

  private:
    std::unique_ptr<Runner> runner_;
    std::unique_ptr<Contract> contract_;
};
