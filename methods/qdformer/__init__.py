"""QDFormer: audio-visual segmentation with quantised semantic decomposition (Li et al., CVPR 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from avsbench_harness.method import Method

from .options import Options

if TYPE_CHECKING:
    from avsbench_harness.nn.model import Model
    from avsbench_harness.tasks import Task


class QDFormer(Method):
    """The plugin; the network is :class:`.model.QDFormerModel`."""

    name = "qdformer"
    paper = "Li et al., CVPR 2024"
    url = "https://arxiv.org/abs/2310.00132"
    variants = ("paper",)
    tasks = ("s4", "ms3", "avss")
    backbones = ("r50", "pvt", "swin_t")
    #: The network takes the sounds of separated sources (a recipe's ``audio.separator``).
    separated_audio: ClassVar[bool] = True

    def build(self, task: Task, backbone: str, *, variant: str, **options: Any) -> Model:
        """The network with random weights, unless ``pretrained`` names the backbone's ImageNet ones.

        Args:
            task: decides the number of classes and what counts as an object.
            backbone: ``r50``, ``pvt``, ``swin_t`` or a timm name.
            variant: ``paper`` is the only one: there is no public code.
            options: fields of :class:`.options.Options`; an unknown one is a ``UsageError``.
        """
        from avsbench_harness.errors import unknown

        from .model import QDFormerModel

        if variant not in self.variants:
            raise unknown(f"variant of {self.name}", variant, self.variants)
        return QDFormerModel(task, backbone, Options.of(options))
