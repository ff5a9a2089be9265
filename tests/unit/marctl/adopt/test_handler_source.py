"""A handler's transforms become a contract's numbers, or are doubted."""

import pytest

from marctl.adopt.handler_source import preprocessing_of
from tests.support.archiver_mars import EXPECTED, GREY, IMAGENET, NORMALIZE, handler

FUNCTIONAL = "TF.normalize(TF.to_tensor(TF.resize(TF.to_grayscale(image), [28, 28])), [0.1302], [0.3069])"
READABLE = {
    "bare-names": (
        handler(
            "image_processing = Compose([Grayscale(), Resize([28, 28]), ToTensor(), "
            "Normalize([0.1302], [0.3069])])"
        ),
        EXPECTED,
    ),
    "alias": (
        handler(
            "image_processing = T.Compose([T.Grayscale(1), T.Resize(size=(28, 28)), T.ToTensor(), "
            "T.Normalize(mean=(0.1302,), std=(0.3069,))])"
        ),
        EXPECTED,
    ),
    "v2": (
        handler(
            "image_processing = v2.Compose([v2.Grayscale(), v2.Resize((28, 28)), v2.ToImage(), "
            "v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.1302], [0.3069])])"
        ),
        EXPECTED,
    ),
    "whole-path": (
        handler(f"image_processing = torchvision.transforms.Compose([{GREY}, {NORMALIZE}])"),
        EXPECTED,
    ),
    "constants": (
        handler(
            "image_processing = transforms.Compose(STEPS)",
            f"""
MEAN, STD = (0.1302,), (0.3069,)
normalize = transforms.Normalize(MEAN, STD)
STEPS = [{GREY}, normalize]""",
        ),
        EXPECTED,
    ),
    "computed": (
        handler(
            "SIDES = (SIZE, SIZE)\n    image_processing = transforms.Compose([transforms.Grayscale(), "
            "transforms.Resize(SIDES), transforms.ToTensor(), transforms.Normalize((0.1302,), "
            "(0.6138 / 2,))])"
        ),
        EXPECTED,
    ),
    "in-initialize": (
        handler(
            f"""def initialize(self, context):
        super().initialize(context)
        self.mine = transforms.Compose([{GREY}, {NORMALIZE}])
""",
            preprocess="self.mine(image).to(self.device)",
        ),
        EXPECTED,
    ),
    "by-a-function": (
        handler(
            f"""def steps(self):
        return transforms.Compose([{GREY}, {NORMALIZE}])
    transform = steps(None)
""",
            preprocess="self.transform(image)",
        ),
        EXPECTED,
    ),
    "one-of-two": (
        handler(
            f"""training = transforms.Compose([transforms.RandomRotation(9), transforms.ToTensor()])
    mine = transforms.Compose([{GREY}, {NORMALIZE}])
""",
            preprocess="self.mine(image)",
        ),
        EXPECTED,
    ),
    "functional": (handler("pass", preprocess=FUNCTIONAL), EXPECTED),
    "grey-by-opening": (
        handler(
            "image_processing = Compose([Resize((28, 28)), ToTensor(), Normalize((0.1302,), (0.3069,))])",
            preprocess='self.image_processing(image.convert("L"))',
        ),
        EXPECTED,
    ),
    "sequential": (
        handler(
            "image_processing = torch.nn.Sequential(Grayscale(), Resize((28, 28)), ToTensor(), "
            "Normalize((0.1302,), (0.3069,)))"
        ),
        EXPECTED,
    ),
    "no-normalize": (
        handler(f"image_processing = Compose([{GREY}])"),
        {**EXPECTED, "mean": [0.0], "std": [1.0]},
    ),
    "crop": (
        handler(
            "image_processing = Compose([Resize(256, interpolation=InterpolationMode.BILINEAR, "
            "antialias=True), CenterCrop(224), ToTensor(), "
            "Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])"
        ),
        IMAGENET,
    ),
    "one-mean-of-three": (
        handler(
            "image_processing = Compose([Resize(32), ToTensor(), Normalize(0.5, 0.25)])",
            preprocess='self.image_processing(image.convert("RGB"))',
        ),
        {"color": "rgb", "resize": 32, "size": [32, 32], "mean": [0.5] * 3, "std": [0.25] * 3},
    ),
    "torchserves-own-class": (
        """
from ts.torch_handler.image_classifier import ImageClassifier
class Mine(ImageClassifier):
    topk = 1
""",
        IMAGENET,
    ),
    "torchserves-own-preprocess": (
        """
from ts.torch_handler.image_classifier import ImageClassifier
class Mine(ImageClassifier):
    def preprocess(self, data):
        metrics = self.context.metrics
        metrics.add_size("SizeOfImage", len(data[0].get("body")) / 1024, None, "kB")
        return ImageClassifier.preprocess(self, data)
""",
        IMAGENET,
    ),
    "torchserves-own": (None, IMAGENET),
}


@pytest.mark.parametrize("name", READABLE)
def test_transforms_become_the_contracts_numbers(name):
    """However they are written, the numbers are found and nothing is doubted."""
    source, expected = READABLE[name]
    found = preprocessing_of("image_classifier", source and source.encode())
    assert found.doubts == []
    assert found.input == expected


NORMAL = f"image_processing = transforms.Compose([{GREY}, {NORMALIZE}])"
DOUBTED = {
    "lambda": (
        handler(
            "image_processing = Compose([transforms.Lambda(lambda image: image.convert('L')), ToTensor()])"
        ),
        "a contract cannot express transforms.Lambda(",
    ),
    "random": (
        handler("image_processing = Compose([transforms.RandomCrop(28), ToTensor()])"),
        "a contract cannot express",
    ),
    "own-class": (
        handler(
            "image_processing = Compose([Resize((28, 28)), ToTensor()])",
            "class Resize:\n    def __init__(self, size):\n        pass\n",
        ),
        "a contract cannot express Resize",
    ),
    "three-greys": (
        handler("image_processing = Compose([Grayscale(3), Resize((28, 28)), ToTensor()])"),
        "a contract cannot express Grayscale(3)",
    ),
    "nearest": (
        handler("image_processing = Compose([Resize((28, 28), InterpolationMode.NEAREST), ToTensor()])"),
        "a contract cannot express Resize((28, 28), InterpolationMode.NEAREST)",
    ),
    "crop-without-resize": (
        handler("image_processing = Compose([CenterCrop(28), ToTensor()])"),
        "a contract cannot express CenterCrop(28)",
    ),
    "crop-after-squeeze": (
        handler("image_processing = Compose([Resize((32, 32)), CenterCrop(28), ToTensor()])"),
        "a contract cannot express CenterCrop(28)",
    ),
    "whole-numbers": (
        handler("image_processing = Compose([Resize((28, 28)), transforms.PILToTensor()])"),
        "are in an order that a contract cannot express",
    ),
    "twice": (
        handler("image_processing = Compose([Resize((9, 9)), Resize((28, 28)), ToTensor()])"),
        "are in an order that a contract cannot express",
    ),
    "normalize-first": (
        handler("image_processing = Compose([Normalize(0, 1), ToTensor()])"),
        "in an order that",
    ),
    "by-the-config": (
        handler("image_processing = Compose([Resize(CONFIG['size']), ToTensor()])"),
        "Resize: the value of CONFIG['size'] is not known from the source",
    ),
    "two-values": (
        handler("image_processing = Compose([Resize(SIDES), ToTensor()])", "SIDES = 28\nSIDES = 32"),
        "Resize: the value of SIDES is not known from the source",
    ),
    "circle": (
        handler("image_processing = Compose([Resize(SIDES), ToTensor()])", "SIDES = OTHER\nOTHER = SIDES"),
        "is not known from the source",
    ),
    "spread": (
        handler("image_processing = Compose([*STEPS, ToTensor()])", "STEPS = [Resize(28)]"),
        "a contract cannot express *STEPS",
    ),
    "several": (
        handler(
            f"pass\n    a, b = Compose([{GREY}]), Compose([ToTensor()])", preprocess="choose(a, b)(image)"
        ),
        "the handler has several Compose",
    ),
    "inverted": (
        handler(NORMAL, preprocess="self.image_processing(ImageOps.invert(image))"),
        "the handler also does ImageOps.invert(image)",
    ),
    "inverted-tensor": (
        handler(NORMAL, preprocess="1 - self.image_processing(image)"),
        "the handler also computes 1 - self.image_processing(image)",
    ),
    "divided": (
        handler(NORMAL, preprocess="self.image_processing(image) / 255"),
        "the handler also computes",
    ),
    "flipped": (
        handler(NORMAL, preprocess="self.image_processing(image)[:, ::-1]"),
        "the handler also computes",
    ),
    "threshold": (
        handler(NORMAL, preprocess="(self.image_processing(image) > 0.5).float()"),
        "also computes",
    ),
    "resized-by-pillow": (
        handler(NORMAL, preprocess="self.image_processing(image.resize((9, 9)))"),
        "the handler also does image.resize((9, 9))",
    ),
    "in-a-function": (
        handler(
            NORMAL,
            "def other(image):\n    return ImageOps.invert(image)\n",
            preprocess="self.image_processing(other(image))",
        ),
        "also does ImageOps.invert(image)",
    ),
    "converted-otherwise": (
        handler(NORMAL, preprocess='self.image_processing(image.convert("1"))'),
        "the handler converts images with image.convert('1')",
    ),
    "no-transforms": (handler("pass", preprocess="torch.tensor(image)"), "no torchvision transforms"),
    "base-handler": (
        "from ts.torch_handler.base_handler import BaseHandler\nclass Mine(BaseHandler): pass\n",
        "no torchvision transforms",
    ),
    "no-python": ("class (", "the handler handler.py is not valid Python"),
    "text": (None, "the handler 'text_classifier' is TorchServe's own"),
}


@pytest.mark.parametrize("name", DOUBTED)
def test_what_a_contract_cannot_say_is_doubted(name):
    """A sentence says so, and nothing similar is assumed instead."""
    source, sentence = DOUBTED[name]
    found = preprocessing_of(
        "text_classifier" if source is None else "handler.py", source and source.encode()
    )
    assert [doubt for doubt in found.doubts if sentence in doubt], found.doubts


ONE_NORMALIZE = (
    "image_processing = Compose([Grayscale(), Resize((28, 28)), ToTensor(), Normalize({}, [0.5])])"
)
DOUBLED = "\n".join(["x0 = [0.5]", *(f"x{n} = [{', '.join([f'x{n - 1}'] * 16)}]" for n in range(1, 10))])
GROWING = {
    "times": handler(ONE_NORMALIZE.format("[0.5]" + "*16" * 9)),
    "names": handler(ONE_NORMALIZE.format("x9"), DOUBLED),
    "squares": handler(
        ONE_NORMALIZE.format("[y9]"), "y0=9\n" + "\n".join(f"y{n}=y{n - 1}*y{n - 1}" for n in range(1, 10))
    ),
    "digits": handler(ONE_NORMALIZE.format("[0x" + "f" * 6000 + "]")),
    "nested": handler(ONE_NORMALIZE.format("[[0.5]]")),
    "text": handler(ONE_NORMALIZE.format("'half'")),
}


@pytest.mark.parametrize("name", GROWING)
def test_values_that_grow_are_doubted(name):
    """A line of source whose value would be gigabytes is not evaluated."""
    found = preprocessing_of("handler.py", GROWING[name].encode())
    assert found.doubts
    assert "mean" not in found.input
