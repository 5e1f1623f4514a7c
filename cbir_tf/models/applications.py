"""The networks of keras.applications, for images of any size: one builder, one table.

| name | source | stride |
|:-----|:-------|-------:|
| vgg16, vgg19 | Simonyan & Zisserman 2015, https://arxiv.org/abs/1409.1556 | 32 |
| mobilenet | Howard et al. 2017, https://arxiv.org/abs/1704.04861 | 32 |
| mobilenet_v2 | Sandler et al. 2018, https://arxiv.org/abs/1801.04381 | 32 |
| mobilenet_v3 | Howard et al. 2019, https://arxiv.org/abs/1905.02244 | 32 |
| resnet | He et al. 2016, https://arxiv.org/abs/1512.03385 | 32 |
| resnet_v2 | He et al. 2016, https://arxiv.org/abs/1603.05027 | 32 |
| densenet | Huang et al. 2017, https://arxiv.org/abs/1608.06993 | 32 |
| efficientnet | Tan & Le 2019, https://arxiv.org/abs/1905.11946 | 32 |
| efficientnet_v2 | Tan & Le 2021, https://arxiv.org/abs/2104.00298 | 32 |
| convnext | Liu et al. 2022, https://arxiv.org/abs/2201.03545 | 32 |
| xception | Chollet 2017, https://arxiv.org/abs/1610.02357 | 32 |
| inception_v3 | Szegedy et al. 2016, https://arxiv.org/abs/1512.00567 | about 32 |
| inception_resnet_v2 | Szegedy et al. 2017, https://arxiv.org/abs/1602.07261 | about 32 |

NASNet is missing, as Keras builds it for one size of image only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import keras
from keras import applications

from cbir_tf.models.preprocessing import Preprocessing
from cbir_tf.models.weights import load_imagenet


@dataclass(frozen=True)
class Application:
    """A network of keras.applications.

    Attributes:
        constructor: its function in keras.applications.
        preprocessing: what it expects of pixels.
        parameters: number of parameters without the classifier, with the default options.
        channels: C of the feature map, with the default options.
        options: further arguments of the constructor that may be given, with their defaults.
        image_size: side in pixels of square images for which ImageNet weights are published.
        normalizes: whether its own normalisation of pixels is left out, as `preprocessing` does it.
    """

    constructor: Callable[..., keras.Model]
    preprocessing: Preprocessing
    parameters: int
    channels: int
    options: Mapping[str, float | bool] = field(default_factory=dict)
    image_size: int = 224
    normalizes: bool = False


def build_application(application: Application, name: str, **options: float | bool) -> keras.Model:
    """A network of keras.applications without its classifier, with random weights.

    Args:
        application: a value of APPLICATIONS.
        name: name of the model.
        options: of `application.options`.

    Returns:
        float images (B, H, W, 3), prepared as `application.preprocessing` says -> feature map
        (B, H / 32, W / 32, C).

    Raises:
        ValueError: an option has an impossible value.
    """
    model = application.constructor(
        include_top=False, weights=None, input_shape=(None, None, 3), **options
    )
    # Named here, as some of the constructors choose the architecture by the name.
    first = _after_normalization(model) if application.normalizes else model.input
    return keras.Model(first, model.output, name=name)


def load_application_imagenet(
    application: Application, model: keras.Model, options: Mapping[str, float | bool]
) -> None:
    """Give a model of `build_application` the weights that Keras publishes, downloaded once.

    Raises:
        UserError: as `cbir_tf.models.weights.load_imagenet`.
    """
    load_imagenet(model, options, application.constructor, application.image_size)


def _after_normalization(model: keras.Model) -> keras.KerasTensor:
    """The tensor after the Normalization layer.

    In the first EfficientNets Keras normalises in one way where it downloads the weights and in
    another where it does not, so that the same weights from a file would see other pixels. The
    downloaded way is ImageNet's, which is these networks' `preprocessing` here.
    """
    kind = keras.layers.Normalization
    return next(layer.output for layer in model.layers if isinstance(layer, kind))


def _efficientnet(
    constructor: Callable[..., keras.Model], parameters: int, channels: int
) -> Application:
    return Application(constructor, "imagenet", parameters, channels, normalizes=True)


_WIDTH = {"alpha": 1.0}
_MOBILENET_V3 = {"alpha": 1.0, "minimalistic": False}

APPLICATIONS: dict[str, Application] = {
    "vgg16": Application(applications.VGG16, "caffe", 14_714_688, 512),
    "vgg19": Application(applications.VGG19, "caffe", 20_024_384, 512),
    "mobilenet": Application(
        applications.MobileNet, "signed", 3_228_864, 1024, {"alpha": 1.0, "depth_multiplier": 1}
    ),
    "mobilenet_v2": Application(applications.MobileNetV2, "signed", 2_257_984, 1280, _WIDTH),
    "mobilenet_v3_small": Application(
        applications.MobileNetV3Small, "none", 939_120, 576, _MOBILENET_V3
    ),
    "mobilenet_v3_large": Application(
        applications.MobileNetV3Large, "none", 2_996_352, 960, _MOBILENET_V3
    ),
    "resnet50": Application(applications.ResNet50, "caffe", 23_587_712, 2048),
    "resnet101": Application(applications.ResNet101, "caffe", 42_658_176, 2048),
    "resnet152": Application(applications.ResNet152, "caffe", 58_370_944, 2048),
    "resnet50_v2": Application(applications.ResNet50V2, "signed", 23_564_800, 2048),
    "resnet101_v2": Application(applications.ResNet101V2, "signed", 42_626_560, 2048),
    "resnet152_v2": Application(applications.ResNet152V2, "signed", 58_331_648, 2048),
    "densenet121": Application(applications.DenseNet121, "imagenet", 7_037_504, 1024),
    "densenet169": Application(applications.DenseNet169, "imagenet", 12_642_880, 1664),
    "densenet201": Application(applications.DenseNet201, "imagenet", 18_321_984, 1920),
    "efficientnet_b0": _efficientnet(applications.EfficientNetB0, 4_049_564, 1280),
    "efficientnet_b1": _efficientnet(applications.EfficientNetB1, 6_575_232, 1280),
    "efficientnet_b2": _efficientnet(applications.EfficientNetB2, 7_768_562, 1408),
    "efficientnet_b3": _efficientnet(applications.EfficientNetB3, 10_783_528, 1536),
    "efficientnet_b4": _efficientnet(applications.EfficientNetB4, 17_673_816, 1792),
    "efficientnet_b5": _efficientnet(applications.EfficientNetB5, 28_513_520, 2048),
    "efficientnet_b6": _efficientnet(applications.EfficientNetB6, 40_960_136, 2304),
    "efficientnet_b7": _efficientnet(applications.EfficientNetB7, 64_097_680, 2560),
    "efficientnet_v2_b0": Application(applications.EfficientNetV2B0, "none", 5_919_312, 1280),
    "efficientnet_v2_b1": Application(applications.EfficientNetV2B1, "none", 6_931_124, 1280),
    "efficientnet_v2_b2": Application(applications.EfficientNetV2B2, "none", 8_769_374, 1408),
    "efficientnet_v2_b3": Application(applications.EfficientNetV2B3, "none", 12_930_622, 1536),
    "efficientnet_v2_s": Application(applications.EfficientNetV2S, "none", 20_331_360, 1280),
    "efficientnet_v2_m": Application(applications.EfficientNetV2M, "none", 53_150_388, 1280),
    "efficientnet_v2_l": Application(applications.EfficientNetV2L, "none", 117_746_848, 1280),
    "convnext_tiny": Application(applications.ConvNeXtTiny, "none", 27_820_128, 768),
    "convnext_small": Application(applications.ConvNeXtSmall, "none", 49_454_688, 768),
    "convnext_base": Application(applications.ConvNeXtBase, "none", 87_566_464, 1024),
    "convnext_large": Application(applications.ConvNeXtLarge, "none", 196_230_336, 1536),
    "convnext_xlarge": Application(applications.ConvNeXtXLarge, "none", 348_147_968, 2048),
    "xception": Application(applications.Xception, "signed", 20_861_480, 2048, image_size=299),
    "inception_v3": Application(
        applications.InceptionV3, "signed", 21_802_784, 2048, image_size=299
    ),
    "inception_resnet_v2": Application(
        applications.InceptionResNetV2, "signed", 54_336_736, 1536, image_size=299
    ),
}
